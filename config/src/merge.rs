//! Which of several policies a value comes from.
//!
//! Values merge field by field. From weakest to strongest: built-in default, MeshConfig, a policy on the
//! Namespace, on the Service, on a port of the Service, then what those policies say for one route in the same
//! order. Four things merge as a whole, because halves of them mean nothing: `retryOn`, `consistentHash`, `fallback`
//! and the rate limits.

use std::fmt;

use serde::Serialize;
use serde_json::Value;

use crate::compile::route_match;
use crate::resource::{
    Adaptive, AlternateBackend, Deadline, Fallback, GrpcStatus, HashAttribute, Inbound, Kind,
    ObjectName, Outbound, PriorityRule, RateLimit, RateLimitKey, RetryCause, RouteSelector,
};
use crate::snapshot::{self, BalanceAlgorithm, HashBy, Mode};
use crate::units::Count;

/// Who said so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    BuiltIn,
    MeshConfig(String),
    Policy(ObjectName),
    /// One of a policy's `routes`, by its place in the list.
    Route(ObjectName, usize),
    /// One of a FaultPolicy's `faults`, by its place in the list.
    Fault(ObjectName, usize),
    /// One of an AuthorizationPolicy's `rules`, by its place in the list.
    Authorization(ObjectName, usize),
    /// One of the rules of an HTTPRoute or GRPCRoute, by its place in the list.
    Gateway(Kind, ObjectName, usize),
}

/// A value and, for each of its fields, who said so.
#[derive(Clone, Debug, PartialEq)]
pub struct Effective<T> {
    pub value: T,
    /// `outbound.retries.attempts` and the like, in the order of the snapshot.
    pub from: Vec<(String, Source)>,
    /// The same fields, with their values as JSON.
    pub fields: Vec<(String, Value)>,
}

/// One block of a policy that takes part. Later ones are stronger.
pub(crate) type Layer<'a, T> = (Source, &'a T);

/// Picks the strongest value said for a field and notes who said it.
struct Merge<'a, T> {
    layers: &'a [Layer<'a, T>],
    prefix: &'a str,
    from: Vec<(String, Source)>,
    fields: Vec<(String, Value)>,
}

impl<T> Merge<'_, T> {
    fn said<V: Serialize>(&mut self, path: &str, get: impl Fn(&T) -> Option<V>) -> Option<V> {
        self.said_by(path, |_, block| get(block))
    }

    fn field<V: Serialize>(&mut self, path: &str, default: V, get: impl Fn(&T) -> Option<V>) -> V {
        let value = self
            .strongest(path, |_, block| get(block))
            .unwrap_or(default);
        self.show(&value);
        value
    }

    /// The same, where it matters who says it.
    fn said_by<V: Serialize>(
        &mut self,
        path: &str,
        get: impl Fn(&Source, &T) -> Option<V>,
    ) -> Option<V> {
        let value = self.strongest(path, get);
        self.show(&value);
        value
    }

    fn strongest<V>(&mut self, path: &str, get: impl Fn(&Source, &T) -> Option<V>) -> Option<V> {
        let said = (self.layers.iter().rev())
            .find_map(|(source, block)| Some((source.clone(), get(source, block)?)));
        let (source, value) = said.map_or((Source::BuiltIn, None), |(source, value)| {
            (source, Some(value))
        });
        self.from.push((format!("{}{path}", self.prefix), source));
        value
    }

    /// Of the field that was looked for last.
    fn show(&mut self, value: &impl Serialize) {
        if let Some((path, _)) = self.from.last() {
            let value = serde_json::to_value(value).expect("a field is plain data");
            self.fields.push((path.clone(), value));
        }
    }
}

/// `prefix` stands before each path, such as `routes[2].`.
pub(crate) fn outbound(
    layers: &[Layer<'_, Outbound>],
    prefix: &str,
) -> Effective<snapshot::Outbound> {
    let default = snapshot::Outbound::default();
    let mut merge = Merge {
        layers,
        prefix,
        from: Vec::with_capacity(32),
        fields: Vec::with_capacity(32),
    };
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
    Effective {
        value,
        from: merge.from,
        fields: merge.fields,
    }
}

/// `mode`: of the policy that is the strongest; the limiter acts where somebody asked for it, and may.
pub(crate) fn inbound(
    layers: &[Layer<'_, Inbound>],
    mode: Mode,
) -> Effective<snapshot::InboundLimits> {
    let default = snapshot::InboundLimits::default();
    let mut merge = Merge {
        layers,
        prefix: "",
        from: Vec::new(),
        fields: Vec::new(),
    };
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
    Effective {
        value,
        from: merge.from,
        fields: merge.fields,
    }
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
    let mut merge = Merge {
        layers,
        prefix: "",
        from: Vec::new(),
        fields: Vec::new(),
    };
    let said = merge.said("inbound.priorities", |i| i.priorities.clone());
    let rules = said.unwrap_or_default();
    Effective {
        value: (rules.into_iter())
            .map(|rule| priority_rule(rule, trust_domain))
            .collect(),
        from: merge.from,
        fields: merge.fields,
    }
}

/// `rateLimit` and `rateLimits` are two ways to write one list: whoever says either says all of it.
pub(crate) fn rate_limits(layers: &[Layer<'_, Inbound>]) -> Effective<Vec<snapshot::RateLimit>> {
    let mut merge = Merge {
        layers,
        prefix: "",
        from: Vec::with_capacity(1),
        fields: Vec::with_capacity(1),
    };
    let said = merge.said("inbound.rateLimits", |i| {
        let limits = i.rate_limit.iter().chain(&i.rate_limits);
        let limits: Vec<_> = limits.map(rate_limit).collect();
        (!limits.is_empty()).then_some(limits)
    });
    let mut value = said.unwrap_or_default();
    // Who is above its own limit must not use up what is left of everybody's.
    value.sort_by_key(|limit| limit.per == snapshot::RateLimitKey::Total);
    Effective {
        value,
        from: merge.from,
        fields: merge.fields,
    }
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

/// Identities are written without what is the same in all of the mesh.
pub(crate) fn whole_identity(said: &str, trust_domain: &str) -> String {
    match said.starts_with("spiffe://") {
        true => said.to_owned(),
        false => format!("spiffe://{trust_domain}/{said}"),
    }
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

fn retry_on(causes: &[RetryCause]) -> snapshot::RetryOn {
    snapshot::RetryOn {
        unprocessed: causes.contains(&RetryCause::Unprocessed),
        unavailable: causes.contains(&RetryCause::Unavailable),
        server_error: causes.contains(&RetryCause::ServerError),
    }
}

/// `namespace`: of whoever says so.
fn fallback(said: &Fallback, namespace: &str) -> snapshot::Fallback {
    let default = snapshot::Stale::default();
    snapshot::Fallback {
        stale: said.stale.map(|stale| snapshot::Stale {
            max_age: stale.max_age.unwrap_or(default.max_age),
        }),
        alternate: (said.alternate.as_ref()).map(|it| alternate(it, namespace)),
        answer: fallback_answer(said),
    }
}

pub(crate) fn alternate(said: &AlternateBackend, namespace: &str) -> snapshot::ServiceKey {
    snapshot::ServiceKey {
        namespace: said.namespace.as_deref().unwrap_or(namespace).to_owned(),
        name: said.name.clone(),
        port: u16::try_from(said.port.get()).expect("its bound is that of ports"),
    }
}

/// The user writes one of the two answers; the other is what gRPC and HTTP take for the same thing, so that a
/// caller of the other sort gets an answer too.
fn fallback_answer(said: &Fallback) -> Option<snapshot::FallbackAnswer> {
    let http = said
        .http_status
        .map(Count::get)
        .and_then(|status| u16::try_from(status).ok());
    let grpc = said.grpc_status.or_else(|| http.map(grpc_for_http))?;
    Some(snapshot::FallbackAnswer {
        grpc_status: grpc.code(),
        http_status: http.unwrap_or_else(|| http_for_grpc(grpc)),
        message: (said.message.clone()).unwrap_or_else(|| "the call could not be made".to_owned()),
    })
}

/// As grpc-gateway and google.rpc.Code have it.
pub(crate) const fn http_for_grpc(status: GrpcStatus) -> u16 {
    match status {
        GrpcStatus::Cancelled => 499,
        GrpcStatus::InvalidArgument | GrpcStatus::FailedPrecondition | GrpcStatus::OutOfRange => {
            400
        }
        GrpcStatus::Unauthenticated => 401,
        GrpcStatus::PermissionDenied => 403,
        GrpcStatus::NotFound => 404,
        GrpcStatus::AlreadyExists | GrpcStatus::Aborted => 409,
        GrpcStatus::ResourceExhausted => 429,
        GrpcStatus::Unimplemented => 501,
        GrpcStatus::Unavailable => 503,
        GrpcStatus::DeadlineExceeded => 504,
        GrpcStatus::Unknown | GrpcStatus::Internal | GrpcStatus::DataLoss => 500,
    }
}

/// gRPC's own table ("HTTP to gRPC status code mapping"), and its sensible inverse where that one is coarse.
pub(crate) const fn grpc_for_http(status: u16) -> GrpcStatus {
    match status {
        400 => GrpcStatus::InvalidArgument,
        401 => GrpcStatus::Unauthenticated,
        403 => GrpcStatus::PermissionDenied,
        404 => GrpcStatus::NotFound,
        409 => GrpcStatus::Aborted,
        429 => GrpcStatus::ResourceExhausted,
        500 => GrpcStatus::Internal,
        501 => GrpcStatus::Unimplemented,
        504 => GrpcStatus::DeadlineExceeded,
        _ => GrpcStatus::Unavailable,
    }
}

impl Source {
    /// Of the policy; that of a cluster-wide resource is nobody's.
    fn namespace(&self) -> &str {
        match self {
            Self::BuiltIn | Self::MeshConfig(_) => "",
            Self::Policy(name)
            | Self::Route(name, _)
            | Self::Fault(name, _)
            | Self::Authorization(name, _)
            | Self::Gateway(_, name, _) => &name.namespace,
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BuiltIn => f.write_str("default"),
            Self::MeshConfig(name) => write!(f, "MeshConfig {name}"),
            Self::Policy(name) => write!(f, "ResiliencePolicy {name}"),
            Self::Route(name, index) => write!(f, "ResiliencePolicy {name} routes[{index}]"),
            Self::Authorization(name, index) => {
                write!(f, "AuthorizationPolicy {name} rules[{index}]")
            }
            Self::Fault(name, index) => write!(f, "FaultPolicy {name} faults[{index}]"),
            Self::Gateway(kind, name, index) => write!(f, "{kind} {name} rules[{index}]"),
        }
    }
}
