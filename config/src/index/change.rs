//! The three verbs that change the index, and what each of them touched.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::Arc;

use super::{Index, Target, forget, own_addresses};
use crate::resource::{
    EndpointSlice, IntOrString, Kind, ObjectName, Pod, Resource, ResourceRef, Service,
    SliceEndpoint,
};

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

impl Index {
    /// Adds a resource or replaces the one of its name. The same again touches nothing.
    pub fn apply(&mut self, resource: Resource) -> Touched {
        let reference = resource.reference();
        if self.holds(&reference, &resource) {
            return Touched::default();
        }
        let slice = self.slice_of(&reference);
        let mut touched = self.remove(&reference);
        match resource {
            Resource::Service(it) => self.add_service(Arc::new(it), &mut touched),
            Resource::EndpointSlice(it) => {
                self.touch_workloads(slice.as_deref(), Some(&it), &mut touched);
                self.add_slice(Arc::new(it), &mut touched);
            }
            Resource::Pod(it) => self.add_pod(Arc::new(it), &mut touched),
            Resource::ResiliencePolicy(it) => {
                let targets = self.policies.insert(Arc::new(it));
                self.touch_targets(targets, &mut touched);
            }
            Resource::AuthorizationPolicy(it) => {
                let targets = self.authorizations.insert(Arc::new(it));
                self.touch_targets(targets, &mut touched);
            }
            Resource::FaultPolicy(it) => {
                let targets = self.faults.insert(Arc::new(it));
                self.touch_targets(targets, &mut touched);
            }
            Resource::MeshConfig(it) => {
                touched.everything = true;
                self.mesh_configs.insert(reference.name, Arc::new(it));
            }
            Resource::HttpRoute(it) => self.http_routes.insert(Arc::new(it), &mut touched),
            Resource::GrpcRoute(it) => self.grpc_routes.insert(Arc::new(it), &mut touched),
            Resource::ReferenceGrant(it) => self.add_grant(Arc::new(it), &mut touched),
        }
        touched
    }

    /// Forgets a resource; nothing happens when it is not known.
    pub fn delete(&mut self, resource: &ResourceRef) -> Touched {
        let slice = self.slice_of(resource);
        let mut touched = self.remove(resource);
        self.touch_workloads(slice.as_deref(), None, &mut touched);
        touched
    }

    fn remove(&mut self, resource: &ResourceRef) -> Touched {
        let mut touched = Touched::default();
        let name = &resource.name;
        match resource.kind {
            Kind::Service => self.remove_service(name, &mut touched),
            Kind::EndpointSlice => self.remove_slice(name, &mut touched),
            Kind::Pod => self.remove_pod(name, &mut touched),
            Kind::ResiliencePolicy => {
                let targets = self.policies.remove(name);
                self.touch_targets(targets, &mut touched);
            }
            Kind::FaultPolicy => {
                let targets = self.faults.remove(name);
                self.touch_targets(targets, &mut touched);
            }
            Kind::AuthorizationPolicy => {
                let targets = self.authorizations.remove(name);
                self.touch_targets(targets, &mut touched);
            }
            Kind::MeshConfig => {
                touched.everything = self.mesh_configs.remove(name).is_some();
            }
            Kind::HttpRoute => self.http_routes.remove(name, &mut touched),
            Kind::GrpcRoute => self.grpc_routes.remove(name, &mut touched),
            Kind::ReferenceGrant => self.remove_grant(name, &mut touched),
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
            gone.remove(&resource.reference());
            touched.absorb(self.apply(resource));
        }
        for reference in &gone {
            touched.absorb(self.delete(reference));
        }
        touched
    }

    fn slice_of(&self, reference: &ResourceRef) -> Option<Arc<EndpointSlice>> {
        (reference.kind == Kind::EndpointSlice)
            .then(|| self.slices.get(&reference.name).cloned())
            .flatten()
    }

    /// Whether this very resource is what the index has under its name.
    pub fn holds(&self, reference: &ResourceRef, resource: &Resource) -> bool {
        let name = &reference.name;
        match resource {
            Resource::Service(it) => self.services.get(name).is_some_and(|known| **known == *it),
            Resource::EndpointSlice(it) => {
                self.slices.get(name).is_some_and(|known| **known == *it)
            }
            Resource::Pod(it) => self.pods.get(name).is_some_and(|known| **known == *it),
            Resource::ResiliencePolicy(it) => self.policies.holds(name, it),
            Resource::FaultPolicy(it) => self.faults.holds(name, it),
            Resource::AuthorizationPolicy(it) => self.authorizations.holds(name, it),
            Resource::MeshConfig(it) => self
                .mesh_configs
                .get(name)
                .is_some_and(|known| **known == *it),
            Resource::HttpRoute(it) => self.http_routes.holds(name, it),
            Resource::GrpcRoute(it) => self.grpc_routes.holds(name, it),
            Resource::ReferenceGrant(it) => {
                self.grants.get(name).is_some_and(|known| **known == *it)
            }
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
        self.touch_routes_to(&name, touched);
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
        self.touch_routes_to(name, touched);
    }

    fn add_slice(&mut self, slice: Arc<EndpointSlice>, touched: &mut Touched) {
        let (name, service) = (slice.metadata.object_name(), slice.service());
        for pod in pods_in(&slice) {
            count(&mut self.services_of_pod, pod, &service);
        }
        for address in nameless_in(&slice) {
            count(&mut self.services_of_address, address, &service);
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
            discount(&mut self.services_of_pod, &pod, &service);
        }
        for address in nameless_in(&slice) {
            discount(&mut self.services_of_address, &address, &service);
        }
        forget(&mut self.slices_of_service, &service, name);
        touched.services.insert(service);
    }

    /// A workload is told its zone, the Services without a selector that list it, and the numbers of ports that only slices
    /// know: of the many in a slice, those for whom that is news.
    fn touch_workloads(
        &self,
        before: Option<&EndpointSlice>,
        after: Option<&EndpointSlice>,
        touched: &mut Touched,
    ) {
        let told = |slice: Option<&EndpointSlice>| slice.map(|it| self.told_by(it));
        let [old, new] = [before, after].map(|slice| told(slice).unwrap_or_default());
        let moved = new.symmetric_difference(&old);
        touched.pods.extend(moved.map(|(_, pod, _)| pod.clone()));
        let [old, new] = [before, after].map(|slice| slice.map(|it| (it.service(), &it.ports)));
        if old != new {
            let services = old.into_iter().chain(new).map(|(service, _)| service);
            let numbered = |it: &ObjectName| self.services.get(it).is_some_and(|it| numbers(it));
            touched.addresses.extend(services.filter(numbered));
        }
    }

    /// The pods of a slice that are told something of it: in which zone they are, or that its Service leads to them.
    fn told_by(&self, slice: &EndpointSlice) -> BTreeSet<(ObjectName, ObjectName, Option<String>)> {
        let (namespace, service) = (slice.metadata.namespace(), slice.service());
        let leads = self
            .services
            .get(&service)
            .is_some_and(|it| it.spec.selector.is_empty());
        let mut told = BTreeSet::new();
        for endpoint in &slice.endpoints {
            let by_name = endpoint.pod(namespace);
            let nameless = endpoint.first_ip().filter(|_| by_name.is_none());
            let by_address = nameless
                .and_then(|ip| self.by_pod_ip.get(&ip))
                .into_iter()
                .flatten();
            let pods = by_name.iter().chain(by_address);
            for pod in pods.filter(|_| leads || endpoint.zone.is_some()) {
                told.insert((service.clone(), pod.clone(), endpoint.zone.clone()));
            }
        }
        told
    }

    fn add_pod(&mut self, pod: Arc<Pod>, touched: &mut Touched) {
        let name = pod.metadata.object_name();
        for ip in own_addresses(&pod) {
            self.by_pod_ip.entry(ip).or_default().insert(name.clone());
        }
        let of_account = self.pods_of_account.entry(pod.account()).or_default();
        of_account.insert(name.clone());
        self.touch_pod(&pod, touched);
        self.pods.insert(name, pod);
    }

    fn remove_pod(&mut self, name: &ObjectName, touched: &mut Touched) {
        let Some(pod) = self.pods.remove(name) else {
            return;
        };
        for ip in own_addresses(&pod) {
            forget(&mut self.by_pod_ip, &ip, name);
        }
        forget(&mut self.pods_of_account, &pod.account(), name);
        self.touch_pod(&pod, touched);
    }

    /// What a policy is, or was, attached to.
    fn touch_targets(&self, targets: Vec<Target>, touched: &mut Touched) {
        for target in targets {
            match target {
                Target::Namespace(namespace) => {
                    touched.namespaces.insert(namespace);
                }
                // Its inbound half changes the workloads behind the service.
                Target::Service(service) | Target::Port(service, _) => {
                    touched.service_itself(&service);
                }
                Target::ServiceAccount(account) => {
                    let pods = self.pods_of_account.get(&account).into_iter().flatten();
                    touched.pods.extend(pods.cloned());
                }
            }
        }
    }

    /// Its identity and whether it is draining are part of its services' endpoints.
    fn touch_pod(&self, pod: &Pod, touched: &mut Touched) {
        touched.services.extend(self.services_listing(pod).cloned());
        touched.pods.insert(pod.metadata.object_name());
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

fn pods_in(slice: &EndpointSlice) -> impl Iterator<Item = ObjectName> {
    let namespace = slice.metadata.namespace();
    slice
        .endpoints
        .iter()
        .filter_map(move |endpoint| endpoint.pod(namespace))
}

/// The addresses by which its endpoints without a pod's name are [looked up](crate::compile::endpoints).
fn nameless_in(slice: &EndpointSlice) -> impl Iterator<Item = IpAddr> {
    let namespace = slice.metadata.namespace();
    let endpoints = (slice.endpoints.iter()).filter(move |it| it.pod(namespace).is_none());
    endpoints.filter_map(SliceEndpoint::first_ip)
}

/// A service may list the same one in several slices.
fn count<K: Hash + Eq>(
    services: &mut HashMap<K, BTreeMap<ObjectName, usize>>,
    key: K,
    service: &ObjectName,
) {
    let services = services.entry(key).or_default();
    *services.entry(service.clone()).or_default() += 1;
}

fn discount<K: Hash + Eq>(
    services: &mut HashMap<K, BTreeMap<ObjectName, usize>>,
    key: &K,
    service: &ObjectName,
) {
    let Some(of_key) = services.get_mut(key) else {
        return;
    };
    if let Some(count) = of_key.get_mut(service) {
        *count -= 1;
        if *count == 0 {
            of_key.remove(service);
        }
    }
    if of_key.is_empty() {
        services.remove(key);
    }
}

/// Whether its slices may be who knows a port of its pods.
fn numbers(service: &Service) -> bool {
    let mut ports = service.spec.ports.iter();
    service.spec.selector.is_empty()
        || ports.any(|port| matches!(port.target_port, Some(IntOrString::Name(_))))
}
