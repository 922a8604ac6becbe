//! Faults: with an end, of those that can happen, and one at a time.

use super::inbound::is_identity;
use super::{Contradiction, check_targets, routes};
use crate::resource::{Fault, FaultPolicy, TargetKind};
use crate::snapshot::BrokenConnection;
use crate::units::Duration;

/// Each is looked at for every try.
const FAULTS_MAX: usize = 16;
const CALLERS_MAX: usize = 64;
/// Who needs longer is not trying something out.
const DURATION_MAX: Duration = Duration::from_secs(24 * 3600);
const DELAY_MAX: Duration = Duration::from_secs(600);

pub(super) fn check(policy: &FaultPolicy, found: &mut Vec<Contradiction>) {
    check_targets(policy, found);
    for (index, target) in policy.spec.target_refs.iter().enumerate() {
        let message = match target.kind {
            TargetKind::Service => continue,
            TargetKind::Namespace => {
                "faults are for the Services that are named, not for a whole namespace"
            }
            TargetKind::ServiceAccount => {
                "faults are for the Services that are named, not for who runs as a ServiceAccount"
            }
        };
        found.push(
            Contradiction::error(format!("spec.targetRefs[{index}].kind"), message)
                .help("name them one by one, such as {kind: Service, name: payment}"),
        );
    }
    check_end(policy, found);
    let faults = &policy.spec.faults;
    if faults.is_empty() {
        found.push(
            Contradiction::error("spec.faults", "a fault policy needs a fault")
                .help("such as {percentage: 10, abort: {httpStatus: 503}}"),
        );
    }
    if faults.len() > FAULTS_MAX {
        let message = format!(
            "a policy may have {FAULTS_MAX} faults, found {}",
            faults.len()
        );
        return found.push(Contradiction::error("spec.faults", message));
    }
    for (index, fault) in faults.iter().enumerate() {
        check_fault(fault, &format!("spec.faults[{index}]"), found);
    }
    check_reached(faults, found);
}

fn check_end(policy: &FaultPolicy, found: &mut Vec<Contradiction>) {
    let spec = &policy.spec;
    if spec.ends_at.is_none() && spec.duration.is_none() {
        let mut wrong = Contradiction::error("spec", "a fault needs an end");
        wrong.looked_at.push("spec.endsAt".to_owned());
        wrong.looked_at.push("spec.duration".to_owned());
        found.push(wrong.help("write duration: 10m, or endsAt: and a time in UTC"));
    }
    if spec
        .duration
        .is_some_and(|duration| duration > DURATION_MAX)
    {
        let message = format!("a fault lasts {DURATION_MAX} at most");
        found.push(
            Contradiction::error("spec.duration", message)
                .help("for a date that is further away write endsAt"),
        );
    }
}

fn check_fault(fault: &Fault, path: &str, found: &mut Vec<Contradiction>) {
    if let Some(matches) = &fault.matches {
        routes::check_match(matches, &format!("{path}.match"), found);
    }
    if fault.callers.len() > CALLERS_MAX {
        let message = format!(
            "a fault may name {CALLERS_MAX} callers, found {}",
            fault.callers.len()
        );
        found.push(
            Contradiction::error(format!("{path}.callers"), message)
                .help("leave them out and it is for everybody"),
        );
    }
    for (index, caller) in fault.callers.iter().enumerate().take(CALLERS_MAX) {
        if !is_identity(caller) {
            let message = format!("expected the identity of a workload, found {caller:?}");
            found.push(
                Contradiction::error(format!("{path}.callers[{index}]"), message)
                    .help("write ns/NAMESPACE/sa/SERVICE-ACCOUNT, such as ns/boutique/sa/checkout"),
            );
        }
    }
    let effects = [
        ("abort", fault.abort.is_some()),
        ("connection", fault.connection.is_some()),
        ("slowBody", fault.slow_body.is_some()),
    ];
    let said: Vec<&str> = effects
        .iter()
        .filter_map(|(name, is)| is.then_some(*name))
        .collect();
    match said[..] {
        [] if fault.delay.is_none() => found.push(
            Contradiction::error(path, "nothing happens to these calls")
                .help("write delay, abort, connection or slowBody"),
        ),
        [first, second, ..] => found.push(
            Contradiction::error(
                format!("{path}.{second}"),
                format!("of {first} and {second} only one can happen to a call"),
            )
            .also(format!("{path}.{first}"), "the other")
            .help("write two faults, each with its percentage"),
        ),
        _ => {}
    }
    check_abort(fault, path, found);
    if let Some(delay) = &fault.delay {
        let longest = delay.time.saturating_add(
            delay
                .jitter
                .map_or(std::time::Duration::ZERO, Duration::get),
        );
        if longest > DELAY_MAX.get() {
            let message = format!("a call is delayed by {DELAY_MAX} at most, jitter included");
            found.push(
                Contradiction::error(format!("{path}.delay"), message)
                    .help("connection: BlackHole never answers"),
            );
        }
        if fault.connection == Some(BrokenConnection::BlackHole) {
            found.push(
                Contradiction::error(
                    format!("{path}.delay"),
                    "what is never answered cannot be delayed",
                )
                .also(format!("{path}.connection"), "nothing is answered")
                .help("leave one of the two out"),
            );
        }
    }
}

fn check_abort(fault: &Fault, path: &str, found: &mut Vec<Contradiction>) {
    let Some(abort) = &fault.abort else {
        return;
    };
    match (abort.grpc_status, abort.http_status) {
        (Some(_), Some(_)) => found.push(
            Contradiction::error(
                format!("{path}.abort.httpStatus"),
                "a call is aborted with a gRPC or an HTTP status, not both",
            )
            .also(format!("{path}.abort.grpcStatus"), "the other")
            .help("keep the one that the service speaks: callers of the other sort get the code that means the same"),
        ),
        (None, None) => found.push(
            Contradiction::error(format!("{path}.abort"), "an aborted call needs a status")
                .help("write grpcStatus: Unavailable, or httpStatus: 503"),
        ),
        _ => {}
    }
}

/// Percentages add up: behind 100 of them for all calls nothing is left.
fn check_reached(faults: &[Fault], found: &mut Vec<Contradiction>) {
    let mut taken = 0;
    for (index, fault) in faults.iter().enumerate() {
        if taken >= 100 {
            found.push(
                Contradiction::warning(
                    format!("spec.faults[{index}]"),
                    "this never happens: the faults above it take every call",
                )
                .help("their percentages add up to 100"),
            );
            return;
        }
        if fault.matches.is_none() && fault.callers.is_empty() {
            taken += fault.percentage.map_or(100, |percentage| percentage.get());
        }
    }
}
