//! What an `inbound:` block may say that cannot work.

use super::{Contradiction, routes};
use crate::resource::{Inbound, PriorityMatch, ResiliencePolicy};
use crate::snapshot;

/// Rules are tried one after the other for every call.
const PRIORITIES_MAX: usize = 64;

pub(super) fn check(policy: &ResiliencePolicy, found: &mut Vec<Contradiction>) {
    let Some(inbound) = &policy.spec.inbound else {
        return;
    };
    check_queue(policy, inbound, found);
    check_concurrency(inbound, found);
    check_priorities(inbound, found);
}

/// A caller that has given up gets nothing from a place in the queue.
fn check_queue(policy: &ResiliencePolicy, inbound: &Inbound, found: &mut Vec<Contradiction>) {
    let limits = inbound.limits.unwrap_or_default();
    let queue = inbound.queue.unwrap_or_default();
    for (old, new, both) in [
        (
            "queue",
            "size",
            limits.queue.is_some() && queue.size.is_some(),
        ),
        (
            "queueTimeout",
            "maxWait",
            limits.queue_timeout.is_some() && queue.max_wait.is_some(),
        ),
    ] {
        if both {
            let message = format!("limits.{old} and queue.{new} are two names of one thing");
            found.push(
                Contradiction::error(format!("spec.inbound.limits.{old}"), message)
                    .also(format!("spec.inbound.queue.{new}"), "the other")
                    .help(format!("keep queue.{new}")),
            );
        }
    }
    let deadline = policy
        .spec
        .outbound
        .as_ref()
        .and_then(|outbound| outbound.deadline?.get());
    let waits = [
        ("limits.queueTimeout", "queueTimeout", limits.queue_timeout),
        ("queue.maxWait", "maxWait", queue.max_wait),
    ];
    for (path, name, wait) in waits {
        if let (Some(wait), Some(deadline)) = (wait, deadline)
            && wait >= deadline
        {
            found.push(
                Contradiction::error(
                    format!("spec.inbound.{path}"),
                    format!("a request may wait {wait} for its turn, but its caller gives up after {deadline}"),
                )
                .also("spec.outbound.deadline", "the callers' deadline")
                .help(format!("make {name} a small part of the deadline")),
            );
        }
    }
}

fn check_concurrency(inbound: &Inbound, found: &mut Vec<Contradiction>) {
    let Some(adaptive) = inbound
        .concurrency
        .and_then(|concurrency| concurrency.adaptive)
    else {
        return;
    };
    let path = "spec.inbound.concurrency.adaptive";
    let default = snapshot::Adaptive::default();
    let min = adaptive.min.unwrap_or(default.min).get();
    let max = adaptive.max.unwrap_or(default.max).get();
    if min > max {
        let said = if adaptive.min.is_some() { "min" } else { "max" };
        found.push(
            Contradiction::error(
                format!("{path}.{said}"),
                format!(
                    "the limit moves from min up to max, but min is the larger: {min} and {max}"
                ),
            )
            .help("write both, the smaller as min"),
        );
    }
    let cap = inbound.limits.and_then(|limits| limits.in_flight);
    if let (Some(_), Some(cap)) = (adaptive.max, cap)
        && max > cap.get()
    {
        let message = format!(
            "the limit may grow to {max}, but never more than {} get in",
            cap.get()
        );
        found.push(
            Contradiction::warning(format!("{path}.max"), message)
                .also("spec.inbound.limits.inFlight", "the hard cap")
                .help("the smaller of the two is what counts"),
        );
    }
}

fn check_priorities(inbound: &Inbound, found: &mut Vec<Contradiction>) {
    let Some(rules) = &inbound.priorities else {
        return;
    };
    let all = "spec.inbound.priorities";
    if rules.len() > PRIORITIES_MAX {
        let message = format!(
            "a policy may have {PRIORITIES_MAX} priorities, found {}",
            rules.len()
        );
        return found.push(Contradiction::error(all, message));
    }
    for (index, rule) in rules.iter().enumerate() {
        let path = format!("{all}[{index}].match");
        if rule.matches == PriorityMatch::default() {
            found.push(
                Contradiction::error(&path, "a match needs an identity, or grpc or http")
                    .help("such as {identity: ns/boutique/sa/checkout}"),
            );
        }
        if let Some(first) = rules[..index]
            .iter()
            .position(|earlier| earlier.matches == rule.matches)
        {
            found.push(
                Contradiction::error(&path, "an earlier rule matches the same calls")
                    .also(format!("{all}[{first}].match"), "first here")
                    .help("leave one of them out: the first that matches applies"),
            );
        }
        check_match(&rule.matches, &path, found);
    }
}

fn check_match(matches: &PriorityMatch, path: &str, found: &mut Vec<Contradiction>) {
    if let Some(identity) = &matches.identity
        && !is_identity(identity)
    {
        let message = format!("expected the identity of a workload, found {identity:?}");
        found.push(
            Contradiction::error(format!("{path}.identity"), message)
                .help("write ns/NAMESPACE/sa/SERVICE-ACCOUNT, such as ns/boutique/sa/checkout"),
        );
    }
    if matches.grpc.is_some() && matches.http.is_some() {
        found.push(
            Contradiction::error(
                format!("{path}.http"),
                "a call is gRPC or other HTTP, never both",
            )
            .also(format!("{path}.grpc"), "the other")
            .help("write two rules"),
        );
    }
    if let Some(grpc) = &matches.grpc {
        routes::check_grpc(grpc, &format!("{path}.grpc"), found);
    }
    if let Some(http) = &matches.http {
        routes::check_http(http, &format!("{path}.http"), found);
    }
}

pub(super) fn is_identity(identity: &str) -> bool {
    let path = match identity.strip_prefix("spiffe://") {
        Some(rest) => rest
            .split_once('/')
            .map(|(domain, path)| (!domain.is_empty(), path)),
        None => Some((true, identity)),
    };
    let Some((true, path)) = path else {
        return false;
    };
    let is_name = |name: &str| {
        !name.is_empty()
            && name.len() <= 253
            && name.bytes().all(|byte| {
                byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte)
            })
    };
    let parts: Vec<&str> = path.split('/').collect();
    matches!(parts[..], ["ns", namespace, "sa", account] if is_name(namespace) && is_name(account))
}
