//! What callers' sidecars do.

use super::fallback::fallback;
use super::{Effective, Layer, Merge};
use crate::resource::{Deadline, HashAttribute, Outbound, RetryCause};
use crate::snapshot::{self, BalanceAlgorithm, HashBy};
use crate::units::Duration;

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
    let breaker = breaker(&mut merge, deadline);
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
    let block = merge.block("outbound.hedging", |o| o.hedging.as_ref());
    let (mut hedging, default) = (block.if_said()?, snapshot::Hedging::default());
    Some(snapshot::Hedging {
        after_percentile: hedging.field("afterPercentile", default.after_percentile, |it| {
            it.after_percentile
        }),
        max_extra: hedging.field("maxExtra", default.max_extra, |it| it.max_extra),
    })
}

fn gate(merge: &mut Merge<'_, Outbound>, default: snapshot::Gate) -> snapshot::Gate {
    let mut gate = merge.block("outbound.endpointGate", |o| o.endpoint_gate.as_ref());
    snapshot::Gate {
        consecutive_failures: gate.field(
            "consecutiveFailures",
            default.consecutive_failures,
            |it| it.consecutive_failures,
        ),
        success_rate_below: gate.field("successRateBelow", default.success_rate_below, |it| {
            it.success_rate_below
        }),
        open_for: gate.field("openFor", default.open_for, |it| it.open_for),
        max_open_for: gate.field("maxOpenFor", default.max_open_for, |it| it.max_open_for),
        max_open_percent: gate.field("maxOpenPercent", default.max_open_percent, |it| {
            it.max_open_percent
        }),
        mode: gate.field("mode", default.mode, |it| it.mode),
    }
}

/// There is a breaker when any layer has the block; its fields then merge like all others.
fn breaker(
    merge: &mut Merge<'_, Outbound>,
    deadline: Option<Duration>,
) -> Option<snapshot::Breaker> {
    let block = merge.block("outbound.circuitBreaker", |o| o.circuit_breaker.as_ref());
    let (mut breaker, default) = (block.if_said()?, snapshot::Breaker::default());
    Some(snapshot::Breaker {
        window: breaker.field("window", default.window, |it| it.window),
        minimum_calls: breaker.field("minimumCalls", default.minimum_calls, |it| it.minimum_calls),
        failure_rate: breaker.field("failureRate", default.failure_rate, |it| it.failure_rate),
        slow_call_rate: breaker.field("slowCallRate", default.slow_call_rate, |it| {
            it.slow_call_rate
        }),
        slow_call_duration: breaker.field("slowCallDuration", deadline.map(Duration::half), |it| {
            Some(Some(it.slow_call_duration?))
        }),
        open_for: breaker.field("openFor", default.open_for, |it| it.open_for),
        half_open_calls: breaker.field("halfOpenCalls", default.half_open_calls, |it| {
            it.half_open_calls
        }),
        force: breaker.said("force", |it| it.force),
        mode: breaker.said("mode", |it| it.mode),
    })
}

fn balance(merge: &mut Merge<'_, Outbound>, default: snapshot::Balance) -> snapshot::Balance {
    let mut balance = merge.block("outbound.loadBalancing", |o| o.load_balancing.as_ref());
    snapshot::Balance {
        algorithm: balance.field("algorithm", default.algorithm, |it| it.algorithm),
        slow_start: balance.field("slowStart", default.slow_start, |it| it.slow_start),
        zone: balance.field("zone", default.zone, |it| it.zone),
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
    let mut limits = merge.block("outbound.limits", |o| o.limits.as_ref());
    snapshot::Limits {
        in_flight: limits.field("inFlight", default.in_flight, |it| it.in_flight),
        per_endpoint: limits.field("perEndpoint", default.per_endpoint, |it| it.per_endpoint),
        connections: limits.field("connections", default.connections, |it| it.connections),
        queue: limits.field("queue", default.queue, |it| it.queue),
        queue_timeout: limits.field("queueTimeout", default.queue_timeout, |it| it.queue_timeout),
    }
}
