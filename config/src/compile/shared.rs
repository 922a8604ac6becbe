//! Where a policy that has its target is not what holds there: several services may lead to the same port of a pod, and one
//! of them speaks for it; and what a whole namespace enforces, one of its services may only observe.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::index::{Index, Target};
use crate::resource::{IntOrString, ObjectName, Pod, ResiliencePolicy, ServicePort};
use crate::snapshot::Mode;

/// Where a policy does not hold though it has its target, for whoever wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exception {
    /// Of what it says inbound.
    SpokenFor {
        pod: ObjectName,
        port: u16,
        by: ObjectName,
        /// So it is before all pods, and the policy says nothing else.
        without_effect: bool,
    },
    /// Of a namespace.
    Observed { service: ObjectName, by: ObjectName },
}

impl fmt::Display for Exception {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SpokenFor { pod, port, by, .. } => write!(
                f,
                "Service {by} speaks for port {port} of {pod}: how it takes calls is what is said for that"
            ),
            Self::Observed { service, by } => {
                write!(f, "Service {service} only observes, as {by} says")
            }
        }
    }
}

/// One of each kind, the first by name: whoever is asked says the same.
pub fn exceptions(index: &Index, policy: &ResiliencePolicy, target: &Target) -> Vec<Exception> {
    let spoken_for = spoken_for(index, policy, target).into_iter();
    spoken_for.chain(observed(index, policy, target)).collect()
}

fn spoken_for(index: &Index, policy: &ResiliencePolicy, target: &Target) -> Option<Exception> {
    policy.spec.inbound.as_ref()?;
    let (service, section) = match target {
        Target::Namespace(_) | Target::ServiceAccount(_) => return None,
        Target::Service(service) => (service, None),
        Target::Port(service, section) => (service, Some(section)),
    };
    let is_meant = |(name, port): &(ObjectName, &ServicePort)| {
        name == service && section.is_none_or(|section| section == port.name())
    };
    let mut exceptions = BTreeSet::new();
    let mut everywhere = true;
    let pods = index.pods().filter(|pod| pod.is_meshed());
    for pod in pods.filter(|pod| pod.metadata.namespace() == service.namespace) {
        for (number, leading) in leading(index, pod) {
            if !leading.iter().any(is_meant) {
                continue;
            }
            let (by, _) = speaker(index, &leading);
            if by == service {
                everywhere = false;
            } else {
                exceptions.insert((pod.metadata.object_name(), number, by.clone()));
            }
        }
    }
    let (pod, port, by) = exceptions.pop_first()?;
    Some(Exception::SpokenFor {
        pod,
        port,
        by,
        without_effect: everywhere && !policy.spec.is_for_callers(),
    })
}

/// What a namespace's policy enforces.
fn observed(index: &Index, policy: &ResiliencePolicy, target: &Target) -> Option<Exception> {
    let Target::Namespace(namespace) = target else {
        return None;
    };
    if policy.spec.mode == Some(Mode::Observe) {
        return None;
    }
    let services = index.services().map(|it| it.metadata.object_name());
    let mut services: Vec<ObjectName> = services.filter(|it| it.namespace == *namespace).collect();
    services.sort_unstable();
    services.into_iter().find_map(|service| {
        let ports = index.service(&service)?.spec.ports.iter();
        let mut ports = ports.map(|port| Target::Port(service.clone(), port.name().to_owned()));
        let of_service = index.policy_on(&Target::Service(service.clone()));
        let observes = |it: &&std::sync::Arc<ResiliencePolicy>| it.spec.mode == Some(Mode::Observe);
        let by = (of_service.filter(observes))
            .or_else(|| ports.find_map(|port| index.policy_on(&port).filter(observes)))?;
        let by = by.metadata.object_name();
        Some(Exception::Observed { service, by })
    })
}

/// The service ports that lead to each port of a pod, by the names of their services; without those that pass by its
/// sidecar, which does nothing there.
pub(super) fn leading<'a>(
    index: &'a Index,
    pod: &Pod,
) -> BTreeMap<u16, Vec<(ObjectName, &'a ServicePort)>> {
    let mut leading: BTreeMap<u16, Vec<_>> = BTreeMap::new();
    for name in index.services_before(pod) {
        let Some(service) = index.service(&name) else {
            continue;
        };
        for port in service.spec.ports.iter().filter(|port| port.is_tcp()) {
            let number = target_port(index, &name, port, pod);
            if let Some(number) = number.filter(|number| !pod.skips_inbound(*number)) {
                leading
                    .entry(number)
                    .or_default()
                    .push((name.clone(), port));
            }
        }
    }
    leading
}

/// Of those that lead to a port: the one for which a policy says how it takes calls, then one that has a policy at all, then
/// the one whose name comes first.
pub(super) fn speaker<'a, 'b>(
    index: &Index,
    leading: &'b [(ObjectName, &'a ServicePort)],
) -> &'b (ObjectName, &'a ServicePort) {
    let rank = |(service, port): &&(ObjectName, &ServicePort)| {
        let of_port = Target::Port(service.clone(), port.name().to_owned());
        let targets = [of_port, Target::Service(service.clone())];
        let policies = targets.iter().filter_map(|target| index.policy_on(target));
        let says = policies.map(|policy| 1 + u8::from(policy.spec.inbound.is_some()));
        says.max().unwrap_or(0)
    };
    // Of equals `max_by_key` takes the last.
    let speaker = leading.iter().rev().max_by_key(rank);
    speaker.expect("a port is known by who leads to it")
}

/// The port of this pod that a service port leads to: a number, a name that the pod or else the service's slices
/// resolve, or the service port's own number. Where nobody but slices says who is behind a service they say the port, too.
pub(super) fn target_port(
    index: &Index,
    service: &ObjectName,
    port: &ServicePort,
    pod: &Pod,
) -> Option<u16> {
    let selector = index.service(service).map(|it| &it.spec.selector);
    if selector.is_some_and(BTreeMap::is_empty) {
        let mut listing = index.slices_of(service).filter(|slice| slice.lists(pod));
        return listing.find_map(|slice| slice.port_named(port.name()));
    }
    match &port.target_port {
        Some(IntOrString::Int(number)) => Some(*number),
        Some(IntOrString::Name(name)) => (pod.port_named(name)).or_else(|| {
            index
                .slices_of(service)
                .find_map(|slice| slice.port_named(port.name()))
        }),
        None => Some(port.port),
    }
}
