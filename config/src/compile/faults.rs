//! The faults that a service's callers meet, from every policy that is attached to it.

use serde_json::Value;

use super::{route_match, whole_identity};
use crate::index::{Index, Target};
use crate::merge::Source;
use crate::resource::{self, FaultAbort, FaultPolicy, GrpcStatus, ObjectName, ServicePort};
use crate::snapshot::{Fault, FaultAnswer, FaultDelay, FaultEffect, Protocol};
use crate::units::{Count, Moment};

/// Those of a port before those of the whole service, those of older policies before those of newer ones: they add up.
pub(super) fn compile(
    index: &Index,
    service: &ObjectName,
    port: &ServicePort,
    protocol: Protocol,
    from: &mut Vec<(String, Source)>,
    fields: &mut Vec<(String, Value)>,
) -> Vec<Fault> {
    let mut faults: Vec<Fault> = Vec::new();
    for (policy, until_ms) in in_force(index, service, port, protocol) {
        let name = policy.metadata.object_name();
        for (place, said) in policy.spec.faults.iter().enumerate() {
            let fault = fault(said, &name, until_ms, index.trust_domain());
            let field = format!("faults[{}]", faults.len());
            let value = serde_json::to_value(&fault).expect("a fault is plain data");
            fields.push((field.clone(), value));
            from.push((field, Source::Fault(name.clone(), place)));
            faults.push(fault);
        }
    }
    faults
}

fn in_force<'a>(
    index: &'a Index,
    service: &ObjectName,
    port: &ServicePort,
    protocol: Protocol,
) -> Vec<(&'a FaultPolicy, u64)> {
    if protocol == Protocol::Opaque {
        return Vec::new(); // where nobody looks for calls, none can be told from another
    }
    let targets = [
        Target::Port(service.clone(), port.name().to_owned()),
        Target::Service(service.clone()),
    ];
    let mut found: Vec<(&FaultPolicy, u64)> = Vec::new();
    for policy in targets.iter().flat_map(|target| index.faults_on(target)) {
        let known = |(other, _): &(&FaultPolicy, u64)| std::ptr::eq(*other, &**policy);
        if !found.iter().any(known)
            && let Some(end) = end(policy)
        {
            found.push((&**policy, end));
        }
    }
    found
}

/// When a policy's faults are over, in milliseconds since the Unix epoch. `None`: nobody can tell, and what has no end is
/// not begun.
pub fn end(policy: &FaultPolicy) -> Option<u64> {
    let created = policy.metadata.creation_timestamp.as_deref();
    let created = created.and_then(|text| text.parse::<Moment>().ok());
    let lasts = policy.spec.duration.map(|duration| {
        let created = created?.unix_millis();
        created.checked_add(u64::try_from(duration.as_millis()).ok()?)
    });
    match (policy.spec.ends_at.map(Moment::unix_millis), lasts) {
        (at, None) => at,
        (None, Some(lasts)) => lasts,
        (Some(at), Some(lasts)) => Some(at.min(lasts?)),
    }
}

fn fault(said: &resource::Fault, policy: &ObjectName, until_ms: u64, trust_domain: &str) -> Fault {
    let callers = said.callers.iter();
    let abort = said.abort.as_ref().and_then(answer);
    let effect = abort
        .map(FaultEffect::Abort)
        .or_else(|| said.connection.map(FaultEffect::Connection))
        .or_else(|| {
            said.slow_body.map(|slow| FaultEffect::SlowBody {
                bytes_per_second: slow.bytes_per_second,
            })
        });
    Fault {
        policy: policy.to_string(),
        until_ms,
        matches: said.matches.as_ref().map(route_match),
        callers: callers
            .map(|caller| whole_identity(caller, trust_domain))
            .collect(),
        percentage: said.percentage.unwrap_or(Count::of(100)),
        delay: said.delay.map(|delay| FaultDelay {
            time: delay.time,
            jitter: delay.jitter,
        }),
        effect,
    }
}

fn answer(said: &FaultAbort) -> Option<FaultAnswer> {
    let http = said.http_status.map(Count::get);
    let (grpc_status, http_status) = GrpcStatus::in_both(said.grpc_status, http)?;
    Some(FaultAnswer {
        grpc_status,
        http_status,
    })
}
