//! Where what is said for the sidecars before a target is done by nobody.

use std::collections::BTreeMap;

use super::pod_behind;
use crate::index::{Index, Target};
use crate::resource::{ObjectName, Pod, Service, ServicePort};

/// Of the pods behind a target, those before which no sidecar stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unmeshed {
    /// By name; never none.
    pub pods: Vec<ObjectName>,
    /// The others, too.
    pub of: usize,
}

/// `None`: there is none. Pods that are not ready are among them: that changes more often than anybody wants to be told,
/// and whoever knows such a pod's address calls it all the same. Pods that end are not.
pub fn unmeshed(index: &Index, target: &Target) -> Option<Unmeshed> {
    let mut is_meshed = BTreeMap::new();
    if let Target::ServiceAccount(account) = target {
        let pods = index.pods_of_account(account);
        let stay = pods.filter(|pod| !pod.is_finished() && !pod.is_terminating());
        is_meshed.extend(stay.map(|pod| (pod.metadata.object_name(), pod.is_meshed_throughout())));
    }
    for service in services(index, target) {
        let ports = service.spec.ports.iter().filter(|port| port.is_tcp());
        for port in ports.filter(|port| is_meant(target, port)) {
            for (pod, number) in pods_behind(index, service, port) {
                let everywhere = is_meshed.entry(pod.metadata.object_name()).or_insert(true);
                *everywhere &= pod.is_meshed_on(number);
            }
        }
    }
    let of = is_meshed.len();
    is_meshed.retain(|_, everywhere| !*everywhere);
    let pods: Vec<ObjectName> = is_meshed.into_keys().collect();
    (!pods.is_empty()).then_some(Unmeshed { pods, of })
}

fn services<'a>(index: &'a Index, target: &Target) -> Vec<&'a Service> {
    match target {
        Target::Namespace(namespace) => {
            let services = index.services().map(AsRef::as_ref);
            let is_own = |it: &&Service| it.metadata.namespace() == namespace;
            services.filter(is_own).collect()
        }
        Target::ServiceAccount(_) => Vec::new(),
        Target::Service(name) | Target::Port(name, _) => {
            index.service(name).map(AsRef::as_ref).into_iter().collect()
        }
    }
}

fn is_meant(target: &Target, port: &ServicePort) -> bool {
    match target {
        Target::Port(_, name) => port.name() == name,
        Target::Namespace(_) | Target::ServiceAccount(_) | Target::Service(_) => true,
    }
}

/// And the port of each to which a service port leads.
fn pods_behind<'a>(index: &'a Index, service: &Service, port: &ServicePort) -> Vec<(&'a Pod, u16)> {
    let mut pods = Vec::new();
    for slice in index.slices_of(&service.metadata.object_name()) {
        let Some(number) = slice.port_named(port.name()) else {
            continue;
        };
        let endpoints = slice.endpoints.iter();
        let stay = endpoints.filter(|it| !it.conditions.is_terminating());
        let behind = stay.filter_map(|it| pod_behind(index, slice, it).flatten());
        let stay = behind.filter(|pod| !pod.is_terminating());
        pods.extend(stay.map(|pod| (pod, number)));
    }
    pods
}
