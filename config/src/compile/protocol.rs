//! What is spoken on a port as callers and as its own sidecar are told: the pods' annotation `config.weir.dev/opaque-ports`
//! first, then what the Service says ([`protocol`](crate::protocol)).

use crate::index::{Index, OpaqueBy};
use crate::protocol;
use crate::resource::{ObjectName, Pod, ServicePort};
use crate::snapshot::Protocol;

use super::pod_behind;

pub(crate) fn of_service(index: &Index, service: &ObjectName, port: &ServicePort) -> Protocol {
    match opaque_by(index, service, port) {
        Some(_) => Protocol::Opaque,
        None => protocol::of_port(port).protocol,
    }
}

/// Who says to callers that a port carries bytes; `None`: nobody.
pub(crate) fn opaque_by(
    index: &Index,
    service: &ObjectName,
    port: &ServicePort,
) -> Option<OpaqueBy> {
    if pods_say_so(index, service, port) {
        return Some(OpaqueBy::Pods);
    }
    let by_service = protocol::of_port(port).protocol == Protocol::Opaque;
    by_service.then_some(OpaqueBy::Service)
}

/// To callers a port is opaque when any pod behind it says so, as while a Deployment is rolled out: bytes pass to every
/// pod, while one whose server speaks first would be kept waiting.
fn pods_say_so(index: &Index, service: &ObjectName, port: &ServicePort) -> bool {
    let mut slices = index.slices_of(service);
    slices.any(|slice| {
        let Some(number) = slice.port_named(port.name()) else {
            return false;
        };
        let mut pods = (slice.endpoints.iter())
            .filter_map(|endpoint| pod_behind(index, slice, endpoint).flatten());
        pods.any(|pod| pod.is_opaque(number))
    })
}

/// On its own port.
pub(super) fn of_pod(pod: &Pod, number: u16, port: &ServicePort) -> Protocol {
    match pod.is_opaque(number) {
        true => Protocol::Opaque,
        false => protocol::of_port(port).protocol,
    }
}
