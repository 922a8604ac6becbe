//! What callers' sidecars do.

use super::fallback::fallback;
use super::{Effective, Layer, Merge};
use crate::resource::{Deadline, HashAttribute, Outbound, RetryCause};
use crate::snapshot::{self, BalanceAlgorithm, HashBy};

/// `prefix` stands before each path, such as `routes[2].`.
pub(crate) fn outbound(
    layers: &[Layer<'_, Outbound>],
    prefix: &str,
) -> Effective<snapshot::Outbound> {
    let default = snapshot::Outbound::default();
    let mut merge = Merge::new(layers, prefix);
    let deadline = merge.field("outbound.deadline", default.deadline, |o| {
        o.deadline.map(Deadline::get)
    });
    let retries = retries(&mut merge, default.retries);
    let hedging = hedging(&mut merge);
    let gate = gate(&mut merge, default.gate);
    let breaker = breaker(&mut merge);
    let balance = balance(&mut merge, default.balance);
    let value = snapshot::Outbound {
        deadline,
        retries,
        hedging,
        gate,
        breaker,
        balance,
        consistent_hash: consistent_hash(&mut merge, balance.algorithm),
        limits: limits(&mut merge, default.limits),
        fallback: merge.said_by("outbound.fallback", |source, o| {
            (o.fallback.as_ref()).map(|said| fallback(said, source.namespace()))
        }),
    };
    merge.into_effective(value)
}

fn retries(merge: &mut Merge<'_, Outbound>, default: snapshot::Retries) -> snapshot::Retries {
    let backoff = |o: &Outbound| o.retries.as_ref()?.backoff;
    let budget = |o: &Outbound| o.retries.as_ref()?.budget;
    snapshot::Retries {
        attempts: merge.field("outbound.retries.attempts", default.attempts, |o| {
            o.retries.as_ref()?.attempts
        }),
        per_try_timeout: merge.said("outbound.retries.perTryTimeout", |o| {
            o.retries.as_ref()?.per_try_timeout
        }),
        backoff_base: merge.field("outbound.retries.backoff.base", default.backoff_base, |o| {
            backoff(o)?.base
        }),
        backoff_max: merge.field("outbound.retries.backoff.max", default.backoff_max, |o| {
            backoff(o)?.max
        }),
        budget: snapshot::Budget {
            per_success: merge.field(
                "outbound.retries.budget.perSuccess",
                default.budget.per_success,
                |o| budget(o)?.per_success,
            ),
            burst: merge.field("outbound.retries.budget.burst", default.budget.burst, |o| {
                budget(o)?.burst
            }),
        },
        on: merge.field("outbound.retries.retryOn", default.on, |o| {
            o.retries.as_ref()?.retry_on.as_deref().map(retry_on)
        }),
    }
}

fn retry_on(causes: &[RetryCause]) -> snapshot::RetryOn {
    snapshot::RetryOn {
        unprocessed: causes.contains(&RetryCause::Unprocessed),
        unavailable: causes.contains(&RetryCause::Unavailable),
        server_error: causes.contains(&RetryCause::ServerError),
    }
}

/// There is hedging when any layer has the block; its fields then merge like all others.
fn hedging(merge: &mut Merge<'_, Outbound>) -> Option<snapshot::Hedging> {
    if !(merge.layers.iter()).any(|(_, block)| block.hedging.is_some()) {
        return merge.said("outbound.hedging", |_| None);
    }
    let default = snapshot::Hedging::default();
    Some(snapshot::Hedging {
        after_percentile: merge.field(
            "outbound.hedging.afterPercentile",
            default.after_percentile,
            |o| o.hedging?.after_percentile,
        ),
        max_extra: merge.field("outbound.hedging.maxExtra", default.max_extra, |o| {
            o.hedging?.max_extra
        }),
    })
}

fn gate(merge: &mut Merge<'_, Outbound>, default: snapshot::Gate) -> snapshot::Gate {
    snapshot::Gate {
        consecutive_failures: merge.field(
            "outbound.endpointGate.consecutiveFailures",
            default.consecutive_failures,
            |o| o.endpoint_gate?.consecutive_failures,
        ),
        success_rate_below: merge.field(
            "outbound.endpointGate.successRateBelow",
            default.success_rate_below,
            |o| o.endpoint_gate?.success_rate_below,
        ),
        open_for: merge.field("outbound.endpointGate.openFor", default.open_for, |o| {
            o.endpoint_gate?.open_for
        }),
        max_open_for: merge.field(
            "outbound.endpointGate.maxOpenFor",
            default.max_open_for,
            |o| o.endpoint_gate?.max_open_for,
        ),
        max_open_percent: merge.field(
            "outbound.endpointGate.maxOpenPercent",
            default.max_open_percent,
            |o| o.endpoint_gate?.max_open_percent,
        ),
        mode: merge.field("outbound.endpointGate.mode", default.mode, |o| {
            o.endpoint_gate?.mode
        }),
    }
}

/// There is a breaker when any layer has the block; its fields then merge like all others.
fn breaker(merge: &mut Merge<'_, Outbound>) -> Option<snapshot::Breaker> {
    if !merge
        .layers
        .iter()
        .any(|(_, block)| block.circuit_breaker.is_some())
    {
        return merge.said("outbound.circuitBreaker", |_| None);
    }
    let default = snapshot::Breaker::default();
    Some(snapshot::Breaker {
        window: merge.field("outbound.circuitBreaker.window", default.window, |o| {
            o.circuit_breaker?.window
        }),
        minimum_calls: merge.field(
            "outbound.circuitBreaker.minimumCalls",
            default.minimum_calls,
            |o| o.circuit_breaker?.minimum_calls,
        ),
        failure_rate: merge.field(
            "outbound.circuitBreaker.failureRate",
            default.failure_rate,
            |o| o.circuit_breaker?.failure_rate,
        ),
        slow_call_rate: merge.field(
            "outbound.circuitBreaker.slowCallRate",
            default.slow_call_rate,
            |o| o.circuit_breaker?.slow_call_rate,
        ),
        slow_call_duration: merge.said("outbound.circuitBreaker.slowCallDuration", |o| {
            o.circuit_breaker?.slow_call_duration
        }),
        open_for: merge.field("outbound.circuitBreaker.openFor", default.open_for, |o| {
            o.circuit_breaker?.open_for
        }),
        half_open_calls: merge.field(
            "outbound.circuitBreaker.halfOpenCalls",
            default.half_open_calls,
            |o| o.circuit_breaker?.half_open_calls,
        ),
        force: merge.said("outbound.circuitBreaker.force", |o| {
            o.circuit_breaker?.force
        }),
        mode: merge.said("outbound.circuitBreaker.mode", |o| o.circuit_breaker?.mode),
    })
}

fn balance(merge: &mut Merge<'_, Outbound>, default: snapshot::Balance) -> snapshot::Balance {
    snapshot::Balance {
        algorithm: merge.field("outbound.loadBalancing.algorithm", default.algorithm, |o| {
            o.load_balancing.as_ref()?.algorithm
        }),
        slow_start: merge.field(
            "outbound.loadBalancing.slowStart",
            default.slow_start,
            |o| o.load_balancing.as_ref()?.slow_start,
        ),
        zone: merge.field("outbound.loadBalancing.zone", default.zone, |o| {
            o.load_balancing.as_ref()?.zone
        }),
    }
}

/// One key, or another: halves of two would be neither.
fn consistent_hash(
    merge: &mut Merge<'_, Outbound>,
    algorithm: BalanceAlgorithm,
) -> Option<snapshot::ConsistentHash> {
    let said = merge.said("outbound.loadBalancing.consistentHash", |o| {
        o.load_balancing.as_ref()?.consistent_hash.clone()
    });
    let said = said.filter(|_| algorithm == BalanceAlgorithm::ConsistentHash)?;
    let attribute = said.attribute.map(|attribute| match attribute {
        HashAttribute::SourceIdentity => HashBy::SourceIdentity,
        HashAttribute::Path => HashBy::Path,
    });
    let header = said.header.map(HashBy::Header);
    Some(snapshot::ConsistentHash {
        by: header.or(said.cookie.map(HashBy::Cookie)).or(attribute)?,
        bounded_load: (said.bounded_load).unwrap_or(snapshot::ConsistentHash::BOUNDED_LOAD),
    })
}

fn limits(merge: &mut Merge<'_, Outbound>, default: snapshot::Limits) -> snapshot::Limits {
    snapshot::Limits {
        in_flight: merge.field("outbound.limits.inFlight", default.in_flight, |o| {
            o.limits?.in_flight
        }),
        per_endpoint: merge.field("outbound.limits.perEndpoint", default.per_endpoint, |o| {
            o.limits?.per_endpoint
        }),
        connections: merge.field("outbound.limits.connections", default.connections, |o| {
            o.limits?.connections
        }),
        queue: merge.field("outbound.limits.queue", default.queue, |o| o.limits?.queue),
        queue_timeout: merge.field("outbound.limits.queueTimeout", default.queue_timeout, |o| {
            o.limits?.queue_timeout
        }),
    }
}
