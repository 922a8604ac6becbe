//! What a service's own sidecar does.

use serde::{Deserialize, Serialize};

use super::{Authorization, Mode, Protocol, RouteMatch, ServiceKey};
use crate::units::{Count, Duration};

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

/// The limit that the sidecar finds out.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Adaptive {
    pub mode: Mode,
    pub min: Count<1, 1_000_000>,
    pub max: Count<1, 1_000_000>,
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
