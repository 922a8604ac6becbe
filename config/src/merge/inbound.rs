//! What a service's own sidecar does.

use super::{Effective, Layer, Merge};
use crate::compile::{route_match, whole_identity};
use crate::resource::{Adaptive, Inbound, PriorityRule, RateLimit, RateLimitKey, RouteSelector};
use crate::snapshot::{self, Mode};

/// `mode`: of the policy that is the strongest; the limiter acts where somebody asked for it, and may.
pub(crate) fn inbound(
    layers: &[Layer<'_, Inbound>],
    mode: Mode,
) -> Effective<snapshot::InboundLimits> {
    let default = snapshot::InboundLimits::default();
    let mut merge = Merge::new(layers, "");
    let value = snapshot::InboundLimits {
        in_flight: merge.field("inbound.limits.inFlight", default.in_flight, |i| {
            i.limits?.in_flight
        }),
        streams: merge.field("inbound.concurrency.streams", default.streams, |i| {
            i.concurrency?.streams
        }),
        adaptive: adaptive(&mut merge, default.adaptive, mode),
        queue: merge.field("inbound.queue.size", default.queue, |i| {
            (i.queue.and_then(|queue| queue.size)).or_else(|| i.limits?.queue)
        }),
        queue_timeout: merge.field("inbound.queue.maxWait", default.queue_timeout, |i| {
            (i.queue.and_then(|queue| queue.max_wait)).or_else(|| i.limits?.queue_timeout)
        }),
    };
    merge.into_effective(value)
}

fn adaptive(
    merge: &mut Merge<'_, Inbound>,
    default: snapshot::Adaptive,
    mode: Mode,
) -> snapshot::Adaptive {
    let block = |i: &Inbound| i.concurrency?.adaptive;
    snapshot::Adaptive {
        mode: merge.field("inbound.concurrency.adaptive", default.mode, |i| {
            block(i).map(|_: Adaptive| mode)
        }),
        min: merge.field("inbound.concurrency.adaptive.min", default.min, |i| {
            block(i)?.min
        }),
        max: merge.field("inbound.concurrency.adaptive.max", default.max, |i| {
            block(i)?.max
        }),
    }
}

/// A list is one thing: the strongest policy's holds.
pub(crate) fn priorities(
    layers: &[Layer<'_, Inbound>],
    trust_domain: &str,
) -> Effective<Vec<snapshot::PriorityRule>> {
    let mut merge = Merge::new(layers, "");
    let said = merge.said("inbound.priorities", |i| i.priorities.clone());
    let rules = said.unwrap_or_default();
    let rules = rules
        .into_iter()
        .map(|rule| priority_rule(rule, trust_domain));
    merge.into_effective(rules.collect())
}

fn priority_rule(rule: PriorityRule, trust_domain: &str) -> snapshot::PriorityRule {
    let said = rule.matches;
    let grpc = said.grpc.map(RouteSelector::Grpc);
    let selector = grpc.or_else(|| said.http.map(RouteSelector::Http));
    snapshot::PriorityRule {
        identity: said
            .identity
            .map(|said| whole_identity(&said, trust_domain)),
        matches: selector.as_ref().map(route_match),
        tier: rule.tier,
    }
}

/// `rateLimit` and `rateLimits` are two ways to write one list: whoever says either says all of it.
pub(crate) fn rate_limits(layers: &[Layer<'_, Inbound>]) -> Effective<Vec<snapshot::RateLimit>> {
    let mut merge = Merge::new(layers, "");
    let said = merge.said("inbound.rateLimits", |i| {
        let limits = i.rate_limit.iter().chain(&i.rate_limits);
        let limits: Vec<_> = limits.map(rate_limit).collect();
        (!limits.is_empty()).then_some(limits)
    });
    let mut value = said.unwrap_or_default();
    // Who is above its own limit must not use up what is left of everybody's.
    value.sort_by_key(|limit| limit.per == snapshot::RateLimitKey::Total);
    merge.into_effective(value)
}

fn rate_limit(said: &RateLimit) -> snapshot::RateLimit {
    snapshot::RateLimit {
        requests_per_second: said.requests_per_second,
        burst: said.burst.unwrap_or(said.requests_per_second),
        per: match (said.per.unwrap_or_default(), &said.header) {
            (RateLimitKey::Caller, _) => snapshot::RateLimitKey::Caller,
            (RateLimitKey::Method, _) => snapshot::RateLimitKey::Method,
            (RateLimitKey::Header, Some(name)) => {
                snapshot::RateLimitKey::Header(name.as_str().to_ascii_lowercase())
            }
            // Without a name it does not get past the parser.
            (RateLimitKey::Total | RateLimitKey::Header, _) => snapshot::RateLimitKey::Total,
        },
    }
}
