//! What every caller's sidecar does.

use serde::{Deserialize, Serialize};

use super::{Balance, ConsistentHash, Fallback, Mode};
use crate::units::{Count, Duration, Percent, Ratio};

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

impl Default for RetryOn {
    fn default() -> Self {
        Self {
            unprocessed: true,
            unavailable: true,
            server_error: false,
        }
    }
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

impl Default for Budget {
    fn default() -> Self {
        Self {
            per_success: Ratio::TENTH,
            burst: Count::of(10),
        }
    }
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

impl Default for Hedging {
    fn default() -> Self {
        Self {
            after_percentile: Count::of(95),
            max_extra: Count::of(2),
        }
    }
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

/// The circuit breaker of a whole service.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Breaker {
    pub window: Duration,
    pub minimum_calls: Count<1, 100_000>,
    pub failure_rate: Percent,
    pub slow_call_rate: Percent,
    /// `None`: slowness does not open it. Unless said otherwise, half of the deadline.
    pub slow_call_duration: Option<Duration>,
    pub open_for: Duration,
    pub half_open_calls: Count<1, 100>,
    /// `None`: what calls come to decides.
    pub force: Option<Force>,
    /// `None`: that of the service.
    pub mode: Option<Mode>,
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

/// What a breaker is held at, whatever calls come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
pub enum Force {
    /// Refusing.
    Open,
    /// Passing.
    Closed,
}

impl Force {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Closed => "closed",
        }
    }
}

/// Held so by an operator, and until when.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Forced {
    pub to: Force,
    /// Milliseconds since the Unix epoch: it ends by itself, also when the control plane is gone.
    pub until_ms: u64,
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
