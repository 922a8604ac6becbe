//! What policies compile to: complete, with every default filled in, ready for the request path.
//!
//! A sidecar receives these values as JSON inside the push protocol. Unknown fields are refused rather than
//! ignored, so a sidecar that is older than the control plane answers *nack* with the field's path instead of
//! quietly enforcing less (security.md: version skew).

mod authorization;
mod balance;
mod fault;
mod routing;

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::units::{Count, Duration, Percent, Ratio};

pub use authorization::{Access, AccessRule, AccessRules, Authorization, Peer};
pub use balance::{Balance, BalanceAlgorithm, ConsistentHash, HashBy, ZonePreference};
pub use fault::{BrokenConnection, Fault, FaultAnswer, FaultDelay, FaultEffect};
pub use routing::{
    HeaderChanges, Mirror, PathChange, PathCondition, Redirect, Rewrite, Routing, Rule,
    RuleBackend, RuleMatch, RuleRetry, TextCondition, Timeout, ValueCondition,
};

/// `namespace/name:port`, the key by which policy, metrics and push know a destination.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceKey {
    pub namespace: String,
    pub name: String,
    pub port: u16,
}

impl fmt::Display for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}:{}", self.namespace, self.name, self.port)
    }
}

/// What the Service says of a port (`appProtocol`, else the port's name), or that it says nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Protocol {
    /// Look at the first bytes.
    #[default]
    Detect,
    /// HTTP/1.1 or HTTP/2, told apart by the preface.
    Http,
    /// HTTP/2 with prior knowledge; gRPC is that too.
    Http2,
    /// Bytes: never looked at. Also every port on which the server is known to speak first.
    Opaque,
}

/// All that the sidecars of callers need to know of one service port.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Service {
    pub key: ServiceKey,
    pub protocol: Protocol,
    pub mode: Mode,
    /// An operator has forced its breakers; holds for all routes, and over what policies say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forced: Option<Forced>,
    /// For every request that no route matches, and for connections that are opaque.
    pub outbound: Outbound,
    /// Most specific first; the first that matches applies.
    pub routes: Vec<Route>,
    /// Those of the service's own sidecar, which has the last word: a caller's must know too what matters before it
    /// holds calls back.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub priorities: Vec<PriorityRule>,
    /// In the order in which they come to pass; those that are over too, for sidecars know the time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<Fault>,
    /// Of the Gateway API, one entry a namespace of callers. They say where a call goes before anything else is done with
    /// it; whoever is called then has policies of its own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routing: Vec<Routing>,
}

/// All that a service's own sidecar needs to know of one port of its pod.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Inbound {
    pub port: u16,
    /// The service this port serves, if any does.
    pub service: Option<ServiceKey>,
    pub protocol: Protocol,
    pub mode: Mode,
    pub limits: InboundLimits,
    /// The first that matches applies.
    pub priorities: Vec<PriorityRule>,
    /// Those of single keys first, the one of everybody last.
    pub rate_limits: Vec<RateLimit>,
    /// `None`: whoever calls may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authorization: Option<Authorization>,
}

/// A workload's own view: who it is and how it takes calls.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Workload {
    /// `spiffe://…`
    pub identity: String,
    /// Where its node is, if anybody says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    pub mtls: MtlsMode,
    pub access_log: AccessLog,
    pub ports: Vec<Inbound>,
    /// For ports that no service names.
    pub default_port: Inbound,
}

#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema,
)]
pub enum MtlsMode {
    /// Mutual TLS from sidecars, plain text from everybody else.
    #[default]
    Permissive,
    /// Mutual TLS or nothing.
    Strict,
}

#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema,
)]
pub enum AccessLog {
    #[default]
    Disabled,
    Json,
    Text,
}

/// Whether a policy acts or only counts what it would have done.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema,
)]
pub enum Mode {
    #[default]
    Enforce,
    Observe,
}

/// What a breaker is held at, whatever calls come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
pub enum Force {
    /// Refusing.
    Open,
    /// Passing.
    Closed,
}

/// Held so by an operator, and until when.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Forced {
    pub to: Force,
    /// Milliseconds since the Unix epoch: it ends by itself, also when the control plane is gone.
    pub until_ms: u64,
}

impl Force {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Closed => "closed",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Route {
    /// For metrics and logs: from the policy, never from a request.
    pub name: String,
    pub matches: RouteMatch,
    /// The user vouches that this call may be repeated.
    pub idempotent: bool,
    pub outbound: Outbound,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum RouteMatch {
    #[serde(rename_all = "camelCase")]
    Grpc {
        service: String,
        method: Option<String>,
    },
    #[serde(rename_all = "camelCase")]
    Http {
        method: Option<String>,
        path: PathMatch,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum PathMatch {
    Exact(String),
    /// By whole segments: `/a` matches `/a` and `/a/b`, not `/ab`.
    Prefix(String),
}

/// What every caller's sidecar does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Outbound {
    /// For the whole request, all attempts included. `None`: streams and long polls.
    pub deadline: Option<Duration>,
    pub retries: Retries,
    pub hedging: Option<Hedging>,
    pub gate: Gate,
    pub breaker: Option<Breaker>,
    pub balance: Balance,
    /// `Some` when that is the algorithm.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consistent_hash: Option<ConsistentHash>,
    pub limits: Limits,
    pub fallback: Option<Fallback>,
}

impl Service {
    /// The services that stand in for this one: whoever calls it needs to know them too.
    pub fn alternates(&self) -> impl Iterator<Item = &ServiceKey> {
        let of_routes = self.routes.iter().map(|route| &route.outbound);
        std::iter::once(&self.outbound)
            .chain(of_routes)
            .filter_map(|outbound| outbound.fallback.as_ref()?.alternate.as_ref())
    }

    /// The services that its routes send calls to.
    pub fn backends(&self) -> impl Iterator<Item = &ServiceKey> {
        self.routing.iter().flat_map(Routing::backends)
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Retries {
    /// First try included; 1 switches retrying off.
    pub attempts: Count<1, 5>,
    pub per_try_timeout: Option<Duration>,
    pub backoff_base: Duration,
    pub backoff_max: Duration,
    pub budget: Budget,
    pub on: RetryOn,
}

/// Which failures are worth another try.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct RetryOn {
    /// The request provably reached nobody: safe for every method.
    pub unprocessed: bool,
    /// 502, 503, 504, gRPC UNAVAILABLE, a reset before the response, a per-try timeout: idempotent requests only.
    pub unavailable: bool,
    /// Any other 5xx: idempotent requests only.
    pub server_error: bool,
}

/// Success-funded token bucket (resilience.md section 5), one for a destination service.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Budget {
    /// Earned by each successful first attempt.
    pub per_success: Ratio,
    /// The most that can be saved up, and what a sidecar starts with.
    pub burst: Count<1, 1000>,
}

/// A second try beside a slow one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Hedging {
    /// Of the route's calls are faster than one that is hedged.
    pub after_percentile: Count<50, 99>,
    /// Percent of the route's calls.
    pub max_extra: Count<1, 5>,
}

/// The endpoint gate: stop sending to one endpoint that fails, probe it, take it back slowly.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Gate {
    pub consecutive_failures: Count<1, 1000>,
    /// Open when an endpoint succeeds less often than this, and clearly less often than its peers.
    pub success_rate_below: Percent,
    pub open_for: Duration,
    pub max_open_for: Duration,
    pub max_open_percent: Percent,
    /// Its own: a policy that observes does not switch off what is there without a policy.
    pub mode: Mode,
}

/// The circuit breaker of a whole service.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Breaker {
    pub window: Duration,
    pub minimum_calls: Count<1, 100_000>,
    pub failure_rate: Percent,
    pub slow_call_rate: Percent,
    /// `None`: slowness does not open it.
    pub slow_call_duration: Option<Duration>,
    pub open_for: Duration,
    pub half_open_calls: Count<1, 100>,
    /// `None`: what calls come to decides.
    pub force: Option<Force>,
    /// `None`: that of the service.
    pub mode: Option<Mode>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Limits {
    /// To the whole service, from this sidecar.
    pub in_flight: Count<1, 1_000_000>,
    pub per_endpoint: Count<1, 1_000_000>,
    /// Opaque ones to the whole service, from this sidecar; they count in neither of the above.
    #[serde(default = "Limits::connections")]
    pub connections: Count<1, 1_000_000>,
    /// Waiting for a place among those in flight.
    pub queue: Count<0, 100_000>,
    pub queue_timeout: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct InboundLimits {
    /// In the app at once, whatever is learnt.
    pub in_flight: Count<1, 1_000_000>,
    /// Upgraded connections, event streams and long polls, which are counted apart.
    pub streams: Count<0, 1_000_000>,
    pub adaptive: Adaptive,
    pub queue: Count<0, 100_000>,
    pub queue_timeout: Duration,
}

/// The limit that the sidecar finds out.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Adaptive {
    pub mode: Mode,
    pub min: Count<1, 1_000_000>,
    pub max: Count<1, 1_000_000>,
}

/// Whose calls go first when not all can be taken.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct PriorityRule {
    /// `spiffe://…`; `None`: whoever calls.
    pub identity: Option<String>,
    /// `None`: whatever is called.
    pub matches: Option<RouteMatch>,
    pub tier: Tier,
}

/// How much a call matters, the most first.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema,
)]
pub enum Tier {
    CriticalPlus,
    Critical,
    #[default]
    Default,
    Degraded,
    BestEffort,
    Sheddable,
}

/// A token bucket for each key: `requests_per_second` on average, `burst` at once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct RateLimit {
    pub requests_per_second: Count<1, 1_000_000>,
    pub burst: Count<1, 1_000_000>,
    pub per: RateLimitKey,
}

/// Whose requests share a bucket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum RateLimitKey {
    Caller,
    Method,
    /// In lower case.
    Header(String),
    Total,
}

/// What the caller gets instead, when the call fails: the first of these that there is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Fallback {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stale: Option<Stale>,
    /// Another service of the mesh.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alternate: Option<ServiceKey>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<FallbackAnswer>,
}

/// The last good answer to the same GET.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Stale {
    /// At most; what the answer says of itself may be less.
    pub max_age: Duration,
}

/// For calls that could not be made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct FallbackAnswer {
    /// gRPC callers.
    pub grpc_status: u8,
    /// HTTP callers.
    pub http_status: u16,
    pub message: String,
}

/// The defaults of resilience.md section 13: what a meshed service with no policy gets.
impl Default for Outbound {
    fn default() -> Self {
        Self {
            deadline: Some(Duration::from_secs(15)),
            retries: Retries::default(),
            hedging: None,
            gate: Gate::default(),
            breaker: None,
            balance: Balance::default(),
            consistent_hash: None,
            limits: Limits::default(),
            fallback: None,
        }
    }
}

impl Default for Retries {
    fn default() -> Self {
        Self {
            attempts: Count::of(2),
            per_try_timeout: None,
            backoff_base: Duration::from_millis(25),
            backoff_max: Duration::from_millis(250),
            budget: Budget::default(),
            on: RetryOn::default(),
        }
    }
}

impl Default for RetryOn {
    fn default() -> Self {
        Self {
            unprocessed: true,
            unavailable: true,
            server_error: false,
        }
    }
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            per_success: Ratio::TENTH,
            burst: Count::of(10),
        }
    }
}

impl Default for Hedging {
    fn default() -> Self {
        Self {
            after_percentile: Count::of(95),
            max_extra: Count::of(2),
        }
    }
}

impl Default for Gate {
    fn default() -> Self {
        Self {
            consecutive_failures: Count::of(5),
            success_rate_below: Percent::of(70),
            open_for: Duration::from_secs(1),
            max_open_for: Duration::from_secs(30),
            max_open_percent: Percent::of(50),
            mode: Mode::Enforce,
        }
    }
}

impl Default for Breaker {
    fn default() -> Self {
        Self {
            window: Duration::from_secs(10),
            minimum_calls: Count::of(20),
            failure_rate: Percent::of(50),
            slow_call_rate: Percent::of(50),
            slow_call_duration: None,
            open_for: Duration::from_secs(5),
            half_open_calls: Count::of(5),
            force: None,
            mode: None,
        }
    }
}

impl Default for Stale {
    fn default() -> Self {
        Self {
            max_age: Duration::from_secs(600),
        }
    }
}

impl Limits {
    /// Fewer than half of the 10,000 that a sidecar accepts: one service whose clients leak connections leaves the others
    /// room.
    const fn connections() -> Count<1, 1_000_000> {
        Count::of(4096)
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            in_flight: Count::of(1024),
            per_endpoint: Count::of(256),
            connections: Self::connections(),
            queue: Count::of(100),
            queue_timeout: Duration::from_millis(100),
        }
    }
}

impl Default for InboundLimits {
    fn default() -> Self {
        Self {
            in_flight: Count::of(2000),
            streams: Count::of(10_000),
            adaptive: Adaptive::default(),
            queue: Count::of(100),
            queue_timeout: Duration::from_millis(100),
        }
    }
}

/// The limiter is on in every sidecar; it acts where a policy asks for it.
impl Default for Adaptive {
    fn default() -> Self {
        Self {
            mode: Mode::Observe,
            min: Count::of(4),
            max: Count::of(2000),
        }
    }
}
