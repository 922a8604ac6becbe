//! Everything the sources have said, kept so that questions are cheap.
//!
//! Three verbs change it: [`apply`](Index::apply), [`delete`](Index::delete), [`reset`](Index::reset). Each says
//! what it [`Touched`], so that only that is compiled again. Resources are shared, so a clone costs little.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::resource::{
    EndpointSlice, Kind, MeshConfig, ObjectName, Pod, ResiliencePolicy, Resource, ResourceRef,
    Service, TargetKind, TargetRef,
};
use crate::snapshot::ServiceKey;

/// The trust domain of a mesh that names none.
pub const TRUST_DOMAIN: &str = "weir.local";

#[derive(Clone, Debug, Default)]
pub struct Index {
    services: BTreeMap<ObjectName, Arc<Service>>,
    slices: HashMap<ObjectName, Arc<EndpointSlice>>,
    pods: HashMap<ObjectName, Arc<Pod>>,
    policies: BTreeMap<ObjectName, Arc<ResiliencePolicy>>,
    mesh_configs: BTreeMap<ObjectName, Arc<MeshConfig>>,

    by_cluster_ip: HashMap<(IpAddr, u16), BTreeSet<ObjectName>>,
    by_pod_ip: HashMap<IpAddr, BTreeSet<ObjectName>>,
    slices_of_service: HashMap<ObjectName, BTreeSet<ObjectName>>,
    services_of_pod: HashMap<ObjectName, BTreeMap<ObjectName, usize>>,
    /// By namespace and one label of the selector: enough to find the few that may select a pod.
    by_selector: HashMap<(String, String, String), BTreeSet<ObjectName>>,
    by_target: HashMap<Target, BTreeSet<ObjectName>>,
}

/// What a policy is attached to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Target {
    Namespace(String),
    Service(ObjectName),
    /// A port of a service, by the port's name.
    Port(ObjectName, String),
}

/// What a change may have changed for others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Touched {
    /// Every service and every workload.
    pub everything: bool,
    /// Services to compile again, endpoints included.
    pub services: BTreeSet<ObjectName>,
    /// Services that came, went or changed themselves: their addresses may mean something else now, and so may
    /// the ports of the workloads behind them.
    pub addresses: BTreeSet<ObjectName>,
    pub pods: BTreeSet<ObjectName>,
    /// Namespaces in which every service and every workload is to be compiled again.
    pub namespaces: BTreeSet<String>,
}

/// What somebody who dials an address means by it.
#[derive(Clone, Debug)]
pub enum Destination {
    Service(ServiceKey),
    /// One pod, called directly.
    Pod(Arc<Pod>),
    Outside,
}

/// How a policy fares with one of its targets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attachment {
    Accepted,
    TargetNotFound,
    /// An older policy of the same specificity has this target.
    Conflicted {
        winner: ObjectName,
    },
}

impl Index {
    /// Adds a resource or replaces the one of its name.
    pub fn apply(&mut self, resource: Resource) -> Touched {
        let mut touched = self.delete(&resource.reference());
        match resource {
            Resource::Service(it) => self.add_service(Arc::new(it), &mut touched),
            Resource::EndpointSlice(it) => self.add_slice(Arc::new(it), &mut touched),
            Resource::Pod(it) => self.add_pod(Arc::new(it), &mut touched),
            Resource::ResiliencePolicy(it) => self.add_policy(Arc::new(it), &mut touched),
            Resource::MeshConfig(it) => {
                touched.everything = true;
                self.mesh_configs.insert(mesh_name(&it), Arc::new(it));
            }
        }
        touched
    }

    /// Forgets a resource; nothing happens when it is not known.
    pub fn delete(&mut self, resource: &ResourceRef) -> Touched {
        let mut touched = Touched::default();
        let name = &resource.name;
        match resource.kind {
            Kind::Service => self.remove_service(name, &mut touched),
            Kind::EndpointSlice => self.remove_slice(name, &mut touched),
            Kind::Pod => self.remove_pod(name, &mut touched),
            Kind::ResiliencePolicy => self.remove_policy(name, &mut touched),
            Kind::MeshConfig => {
                touched.everything = self
                    .mesh_configs
                    .remove(&ObjectName::new("", &name.name))
                    .is_some();
            }
        }
        touched
    }

    /// Makes the index hold exactly these resources of these kinds (a watch that started anew, a folder read
    /// again). What did not change is not touched.
    pub fn reset(
        &mut self,
        kinds: &[Kind],
        resources: impl IntoIterator<Item = Resource>,
    ) -> Touched {
        let mut touched = Touched::default();
        let mut gone: BTreeSet<ResourceRef> = self
            .references()
            .filter(|it| kinds.contains(&it.kind))
            .collect();
        for resource in resources {
            let reference = canonical(resource.reference());
            gone.remove(&reference);
            if self.get(&reference).as_ref() != Some(&resource) {
                touched.absorb(self.apply(resource));
            }
        }
        for reference in &gone {
            touched.absorb(self.delete(reference));
        }
        touched
    }

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
            Kind::MeshConfig => Resource::MeshConfig(MeshConfig::clone(
                self.mesh_configs.get(&ObjectName::new("", &name.name))?,
            )),
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
            .chain(self.policies.keys().map(of(Kind::ResiliencePolicy)))
            .chain(self.mesh_configs.keys().map(of(Kind::MeshConfig)))
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
        self.policies.values()
    }

    pub fn policy(&self, name: &ObjectName) -> Option<&Arc<ResiliencePolicy>> {
        self.policies.get(name)
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

    pub fn service_at(&self, address: SocketAddr) -> Option<ServiceKey> {
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

    /// The slices of a service, by name.
    pub fn slices_of(&self, service: &ObjectName) -> impl Iterator<Item = &Arc<EndpointSlice>> {
        (self.slices_of_service.get(service).into_iter().flatten())
            .filter_map(|name| self.slices.get(name))
    }

    /// The services whose selector matches a pod's labels, by name.
    pub fn services_selecting(&self, pod: &Pod) -> BTreeSet<ObjectName> {
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

    /// The policy in force for a target: of several, the oldest.
    pub fn policy_on(&self, target: &Target) -> Option<&Arc<ResiliencePolicy>> {
        (self.by_target.get(target)?.iter())
            .filter_map(|name| self.policies.get(name))
            .min_by(|a, b| a.metadata.seniority().cmp(&b.metadata.seniority()))
    }

    /// How a policy fares, one answer a `targetRef`.
    pub fn attachments<'a>(
        &self,
        policy: &'a ResiliencePolicy,
    ) -> impl Iterator<Item = (&'a TargetRef, Attachment)> {
        let name = policy.metadata.object_name();
        policy.spec.target_refs.iter().map(move |target_ref| {
            let target = Target::of(policy, target_ref);
            let attachment = match self.policy_on(&target) {
                _ if !self.exists(&target) => Attachment::TargetNotFound,
                Some(winner) if winner.metadata.object_name() != name => Attachment::Conflicted {
                    winner: winner.metadata.object_name(),
                },
                _ => Attachment::Accepted,
            };
            (target_ref, attachment)
        })
    }

    fn exists(&self, target: &Target) -> bool {
        match target {
            // Namespaces are not read: one that holds a policy exists.
            Target::Namespace(_) => true,
            Target::Service(service) => self.services.contains_key(service),
            Target::Port(service, port) => (self.services.get(service))
                .is_some_and(|it| it.spec.ports.iter().any(|at| at.name() == port)),
        }
    }

    fn add_service(&mut self, service: Arc<Service>, touched: &mut Touched) {
        let name = service.metadata.object_name();
        for address in frontends(&service) {
            self.by_cluster_ip
                .entry(address)
                .or_default()
                .insert(name.clone());
        }
        if let Some(selector) = selector_key(&service) {
            self.by_selector
                .entry(selector)
                .or_default()
                .insert(name.clone());
        }
        touched.service_itself(&name);
        self.services.insert(name, service);
    }

    fn remove_service(&mut self, name: &ObjectName, touched: &mut Touched) {
        let Some(service) = self.services.remove(name) else {
            return;
        };
        for address in frontends(&service) {
            forget(&mut self.by_cluster_ip, &address, name);
        }
        if let Some(selector) = selector_key(&service) {
            forget(&mut self.by_selector, &selector, name);
        }
        touched.service_itself(name);
    }

    fn add_slice(&mut self, slice: Arc<EndpointSlice>, touched: &mut Touched) {
        let (name, service) = (slice.metadata.object_name(), slice.service());
        for pod in pods_in(&slice) {
            *self
                .services_of_pod
                .entry(pod)
                .or_default()
                .entry(service.clone())
                .or_default() += 1;
        }
        self.slices_of_service
            .entry(service.clone())
            .or_default()
            .insert(name.clone());
        touched.services.insert(service);
        self.slices.insert(name, slice);
    }

    fn remove_slice(&mut self, name: &ObjectName, touched: &mut Touched) {
        let Some(slice) = self.slices.remove(name) else {
            return;
        };
        let service = slice.service();
        for pod in pods_in(&slice) {
            let Some(services) = self.services_of_pod.get_mut(&pod) else {
                continue;
            };
            if let Some(count) = services.get_mut(&service) {
                *count -= 1;
                if *count == 0 {
                    services.remove(&service);
                }
            }
            if services.is_empty() {
                self.services_of_pod.remove(&pod);
            }
        }
        forget(&mut self.slices_of_service, &service, name);
        touched.services.insert(service);
    }

    fn add_pod(&mut self, pod: Arc<Pod>, touched: &mut Touched) {
        let name = pod.metadata.object_name();
        for ip in own_addresses(&pod) {
            self.by_pod_ip.entry(ip).or_default().insert(name.clone());
        }
        self.touch_pod(&name, touched);
        self.pods.insert(name, pod);
    }

    fn remove_pod(&mut self, name: &ObjectName, touched: &mut Touched) {
        let Some(pod) = self.pods.remove(name) else {
            return;
        };
        for ip in own_addresses(&pod) {
            forget(&mut self.by_pod_ip, &ip, name);
        }
        self.touch_pod(name, touched);
    }

    /// Its identity and whether it is draining are part of its services' endpoints.
    fn touch_pod(&self, name: &ObjectName, touched: &mut Touched) {
        touched.pods.insert(name.clone());
        touched.services.extend(
            self.services_of_pod
                .get(name)
                .into_iter()
                .flat_map(BTreeMap::keys)
                .cloned(),
        );
    }

    fn add_policy(&mut self, policy: Arc<ResiliencePolicy>, touched: &mut Touched) {
        let name = policy.metadata.object_name();
        for target in Target::all(&policy) {
            touched.target(&target);
            self.by_target
                .entry(target)
                .or_default()
                .insert(name.clone());
        }
        self.policies.insert(name, policy);
    }

    fn remove_policy(&mut self, name: &ObjectName, touched: &mut Touched) {
        let Some(policy) = self.policies.remove(name) else {
            return;
        };
        for target in Target::all(&policy) {
            touched.target(&target);
            forget(&mut self.by_target, &target, name);
        }
    }
}

impl Target {
    pub fn of(policy: &ResiliencePolicy, target: &TargetRef) -> Self {
        let service = ObjectName::new(policy.metadata.namespace(), &target.name);
        match (target.kind, &target.section_name) {
            // Its own namespace is the only one it may name, which validation has seen to.
            (TargetKind::Namespace, _) => Self::Namespace(service.namespace),
            (TargetKind::Service, None) => Self::Service(service),
            (TargetKind::Service, Some(port)) => Self::Port(service, port.clone()),
        }
    }

    fn all(policy: &ResiliencePolicy) -> impl Iterator<Item = Self> {
        (policy.spec.target_refs.iter()).map(|target| Self::of(policy, target))
    }
}

impl Touched {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    pub fn absorb(&mut self, other: Self) {
        self.everything |= other.everything;
        self.services.extend(other.services);
        self.addresses.extend(other.addresses);
        self.pods.extend(other.pods);
        self.namespaces.extend(other.namespaces);
    }

    fn service_itself(&mut self, name: &ObjectName) {
        self.services.insert(name.clone());
        self.addresses.insert(name.clone());
    }

    fn target(&mut self, target: &Target) {
        match target {
            Target::Namespace(namespace) => {
                self.namespaces.insert(namespace.clone());
            }
            // Its inbound half changes the workloads behind the service.
            Target::Service(service) | Target::Port(service, _) => self.service_itself(service),
        }
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

/// MeshConfig has no namespace, whatever its file says.
fn mesh_name(mesh: &MeshConfig) -> ObjectName {
    ObjectName::new("", &mesh.metadata.name)
}

fn canonical(reference: ResourceRef) -> ResourceRef {
    match reference.kind {
        Kind::MeshConfig => ResourceRef {
            kind: Kind::MeshConfig,
            name: ObjectName::new("", &reference.name.name),
        },
        _ => reference,
    }
}

fn frontends(service: &Service) -> Vec<(IpAddr, u16)> {
    let ports: Vec<u16> = (service.spec.ports.iter())
        .filter(|port| port.is_tcp())
        .map(|port| port.port)
        .collect();
    (service.spec.addresses())
        .flat_map(|ip| ports.iter().map(move |port| (ip, *port)))
        .collect()
}

fn selector_key(service: &Service) -> Option<(String, String, String)> {
    let (key, value) = service.spec.selector.first_key_value()?;
    Some((
        service.metadata.namespace().to_owned(),
        key.clone(),
        value.clone(),
    ))
}

fn selects(service: &Service, pod: &Pod) -> bool {
    let selector = &service.spec.selector;
    !selector.is_empty()
        && selector
            .iter()
            .all(|(key, value)| pod.metadata.labels.get(key) == Some(value))
}

fn pods_in(slice: &EndpointSlice) -> impl Iterator<Item = ObjectName> {
    let namespace = slice.metadata.namespace();
    slice
        .endpoints
        .iter()
        .filter_map(move |endpoint| endpoint.pod(namespace))
}

fn own_addresses(pod: &Pod) -> Vec<IpAddr> {
    if pod.spec.host_network || pod.is_finished() {
        return Vec::new();
    }
    pod.addresses().collect()
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
