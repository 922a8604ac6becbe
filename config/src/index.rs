//! Everything the sources have said, kept so that questions are cheap.
//!
//! Three verbs change it: [`apply`](Index::apply), [`delete`](Index::delete), [`reset`](Index::reset). Each says
//! what it [`Touched`], so that only that is compiled again. Resources are shared, so a clone costs little.

mod attachment;
mod change;
mod gateway;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::resource::{
    AuthorizationPolicy, EndpointSlice, FaultPolicy, GrpcRoute, HttpRoute, Kind, MeshConfig,
    NoAddress, ObjectName, Pod, ReferenceGrant, ResiliencePolicy, Resource, ResourceRef, Service,
};
use crate::snapshot::ServiceKey;

use attachment::Attached;
pub use attachment::{Attachment, Target};
pub use change::Touched;
use gateway::RoutesOf;
pub use gateway::{OpaqueBy, Parent, ROUTES_MAX, Unresolved};

/// The trust domain of a mesh that names none.
const TRUST_DOMAIN: &str = "weir.local";

#[derive(Clone, Debug, Default)]
pub struct Index {
    services: BTreeMap<ObjectName, Arc<Service>>,
    slices: HashMap<ObjectName, Arc<EndpointSlice>>,
    pods: HashMap<ObjectName, Arc<Pod>>,
    policies: Attached<ResiliencePolicy>,
    faults: Attached<FaultPolicy>,
    authorizations: Attached<AuthorizationPolicy>,
    mesh_configs: BTreeMap<ObjectName, Arc<MeshConfig>>,
    http_routes: RoutesOf<HttpRoute>,
    grpc_routes: RoutesOf<GrpcRoute>,
    grants: BTreeMap<ObjectName, Arc<ReferenceGrant>>,

    by_cluster_ip: HashMap<(IpAddr, u16), BTreeSet<ObjectName>>,
    by_pod_ip: HashMap<IpAddr, BTreeSet<ObjectName>>,
    pods_of_account: HashMap<ObjectName, BTreeSet<ObjectName>>,
    slices_of_service: HashMap<ObjectName, BTreeSet<ObjectName>>,
    services_of_pod: HashMap<ObjectName, BTreeMap<ObjectName, usize>>,
    /// By addresses of endpoints that name no pod, behind which one may be all the same.
    services_of_address: HashMap<IpAddr, BTreeMap<ObjectName, usize>>,
    /// By namespace and one label of the selector: enough to find the few that may select a pod.
    by_selector: HashMap<(String, String, String), BTreeSet<ObjectName>>,
}

/// What somebody who dials an address means by it.
#[derive(Clone, Debug)]
pub enum Destination {
    Service(ServiceKey),
    /// One pod, called directly.
    Pod(Arc<Pod>),
    Outside,
}

impl Index {
    pub fn get(&self, resource: &ResourceRef) -> Option<Resource> {
        let name = &resource.name;
        Some(match resource.kind {
            Kind::Service => Resource::Service(Service::clone(self.services.get(name)?)),
            Kind::EndpointSlice => {
                Resource::EndpointSlice(EndpointSlice::clone(self.slices.get(name)?))
            }
            Kind::Pod => Resource::Pod(Pod::clone(self.pods.get(name)?)),
            Kind::ResiliencePolicy => {
                Resource::ResiliencePolicy(ResiliencePolicy::clone(self.policies.get(name)?))
            }
            Kind::FaultPolicy => Resource::FaultPolicy(FaultPolicy::clone(self.faults.get(name)?)),
            Kind::AuthorizationPolicy => {
                let policy = self.authorizations.get(name)?;
                Resource::AuthorizationPolicy(AuthorizationPolicy::clone(policy))
            }
            Kind::MeshConfig => {
                Resource::MeshConfig(MeshConfig::clone(self.mesh_configs.get(name)?))
            }
            Kind::HttpRoute => Resource::HttpRoute(HttpRoute::clone(self.http_routes.get(name)?)),
            Kind::GrpcRoute => Resource::GrpcRoute(GrpcRoute::clone(self.grpc_routes.get(name)?)),
            Kind::ReferenceGrant => {
                Resource::ReferenceGrant(ReferenceGrant::clone(self.grants.get(name)?))
            }
        })
    }

    pub fn references(&self) -> impl Iterator<Item = ResourceRef> {
        let of = |kind| {
            move |name: &ObjectName| ResourceRef {
                kind,
                name: name.clone(),
            }
        };
        (self.services.keys().map(of(Kind::Service)))
            .chain(self.slices.keys().map(of(Kind::EndpointSlice)))
            .chain(self.pods.keys().map(of(Kind::Pod)))
            .chain(self.policies.names().map(of(Kind::ResiliencePolicy)))
            .chain(self.faults.names().map(of(Kind::FaultPolicy)))
            .chain(
                self.authorizations
                    .names()
                    .map(of(Kind::AuthorizationPolicy)),
            )
            .chain(self.mesh_configs.keys().map(of(Kind::MeshConfig)))
            .chain(self.http_routes.names().map(of(Kind::HttpRoute)))
            .chain(self.grpc_routes.names().map(of(Kind::GrpcRoute)))
            .chain(self.grants.keys().map(of(Kind::ReferenceGrant)))
    }

    pub fn services(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.services.values()
    }

    /// Every TCP port of every service.
    pub fn service_keys(&self) -> impl Iterator<Item = ServiceKey> {
        (self.services.values()).flat_map(|service| keys_of(service).collect::<Vec<_>>())
    }

    pub fn service(&self, name: &ObjectName) -> Option<&Arc<Service>> {
        self.services.get(name)
    }

    pub fn pods(&self) -> impl Iterator<Item = &Arc<Pod>> {
        self.pods.values()
    }

    pub fn pod(&self, name: &ObjectName) -> Option<&Arc<Pod>> {
        self.pods.get(name)
    }

    pub fn policies(&self) -> impl Iterator<Item = &Arc<ResiliencePolicy>> {
        self.policies.all()
    }

    pub fn policy(&self, name: &ObjectName) -> Option<&Arc<ResiliencePolicy>> {
        self.policies.get(name)
    }

    pub fn fault_policies(&self) -> impl Iterator<Item = &Arc<FaultPolicy>> {
        self.faults.all()
    }

    pub fn fault_policy(&self, name: &ObjectName) -> Option<&Arc<FaultPolicy>> {
        self.faults.get(name)
    }

    /// All that are attached to a target, the oldest first: faults add up.
    pub fn faults_on(&self, target: &Target) -> Vec<&Arc<FaultPolicy>> {
        self.faults.on(target)
    }

    pub fn authorization_policies(&self) -> impl Iterator<Item = &Arc<AuthorizationPolicy>> {
        self.authorizations.all()
    }

    pub fn authorization_policy(&self, name: &ObjectName) -> Option<&Arc<AuthorizationPolicy>> {
        self.authorizations.get(name)
    }

    /// All that are attached to a target, the oldest first.
    pub fn authorizations_on(&self, target: &Target) -> Vec<&Arc<AuthorizationPolicy>> {
        self.authorizations.on(target)
    }

    /// The one in force: the oldest.
    pub fn mesh_config(&self) -> Option<&Arc<MeshConfig>> {
        self.mesh_configs
            .values()
            .min_by(|a, b| a.metadata.seniority().cmp(&b.metadata.seniority()))
    }

    pub fn trust_domain(&self) -> &str {
        self.mesh_config()
            .and_then(|mesh| mesh.spec.trust_domain.as_deref())
            .unwrap_or(TRUST_DOMAIN)
    }

    pub fn destination(&self, address: SocketAddr) -> Destination {
        if let Some(key) = self.service_at(address) {
            return Destination::Service(key);
        }
        match self.pod_at(address.ip()) {
            Some(pod) => Destination::Pod(pod.clone()),
            None => Destination::Outside,
        }
    }

    fn service_at(&self, address: SocketAddr) -> Option<ServiceKey> {
        let name = self
            .by_cluster_ip
            .get(&(address.ip(), address.port()))?
            .first()?;
        Some(ServiceKey {
            namespace: name.namespace.clone(),
            name: name.name.clone(),
            port: address.port(),
        })
    }

    /// The pod that has an address now. Pods of the host's network share theirs and are not found by it.
    pub fn pod_at(&self, ip: IpAddr) -> Option<&Arc<Pod>> {
        (self.by_pod_ip.get(&ip)?.iter())
            .filter_map(|name| self.pods.get(name))
            .min_by_key(|pod| pod.is_terminating())
    }

    /// The pods that run as a service account, by name.
    pub fn pods_of_account(&self, account: &ObjectName) -> impl Iterator<Item = &Arc<Pod>> {
        (self.pods_of_account.get(account).into_iter().flatten())
            .filter_map(|name| self.pods.get(name))
    }

    /// The slices of a service, by name.
    pub fn slices_of(&self, service: &ObjectName) -> impl Iterator<Item = &Arc<EndpointSlice>> {
        (self.slices_of_service.get(service).into_iter().flatten())
            .filter_map(|name| self.slices.get(name))
    }

    /// The services that lead to a pod, by name: those whose selector matches its labels, and those of its namespace that
    /// have none, where somebody else lists it in their slices.
    pub fn services_before(&self, pod: &Pod) -> BTreeSet<ObjectName> {
        let namespace = pod.metadata.namespace();
        let mut services = self.services_selecting(pod);
        let listing = self.services_listing(pod).filter(|name| {
            let service = self.services.get(*name);
            name.namespace == namespace && service.is_some_and(|it| it.spec.selector.is_empty())
        });
        services.extend(listing.cloned());
        // Whoever made one of another type into it may have left its selector there.
        services.retain(|name| {
            let leads_away =
                |it: &Arc<Service>| it.spec.no_address() == Some(NoAddress::ExternalName);
            !self.services.get(name).is_some_and(leads_away)
        });
        services
    }

    /// The services whose slices have a pod, by its name or, where they name none, by its address.
    fn services_listing(&self, pod: &Pod) -> impl Iterator<Item = &ObjectName> {
        let by_name = self.services_of_pod.get(&pod.metadata.object_name());
        let addresses = own_addresses(pod).into_iter();
        let by_address = addresses.filter_map(|ip| self.services_of_address.get(&ip));
        by_name
            .into_iter()
            .chain(by_address)
            .flat_map(BTreeMap::keys)
    }

    /// The services whose selector matches a pod's labels, by name.
    fn services_selecting(&self, pod: &Pod) -> BTreeSet<ObjectName> {
        let namespace = pod.metadata.namespace();
        (pod.metadata.labels.iter())
            .filter_map(|(key, value)| {
                self.by_selector
                    .get(&(namespace.to_owned(), key.clone(), value.clone()))
            })
            .flatten()
            .filter(|name| {
                self.services
                    .get(*name)
                    .is_some_and(|service| selects(service, pod))
            })
            .cloned()
            .collect()
    }
}

/// The keys of a service's TCP ports.
pub(crate) fn keys_of(service: &Service) -> impl Iterator<Item = ServiceKey> {
    (service.spec.ports.iter())
        .filter(|port| port.is_tcp())
        .map(|port| ServiceKey {
            namespace: service.metadata.namespace().to_owned(),
            name: service.metadata.name.clone(),
            port: port.port,
        })
}

/// The addresses by which it is found.
fn own_addresses(pod: &Pod) -> Vec<IpAddr> {
    if pod.spec.host_network || pod.is_finished() {
        return Vec::new();
    }
    pod.addresses().collect()
}

fn selects(service: &Service, pod: &Pod) -> bool {
    let selector = &service.spec.selector;
    !selector.is_empty()
        && selector
            .iter()
            .all(|(key, value)| pod.metadata.labels.get(key) == Some(value))
}

fn forget<K: std::hash::Hash + Eq>(
    map: &mut HashMap<K, BTreeSet<ObjectName>>,
    key: &K,
    name: &ObjectName,
) {
    if let Some(names) = map.get_mut(key) {
        names.remove(name);
        if names.is_empty() {
            map.remove(key);
        }
    }
}
