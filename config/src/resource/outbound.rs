//! The `outbound:` block: what a caller's sidecar does. Every field may be left out; what is left out comes
//! from the next less specific place (route, policy, mesh, built-in), see [`crate::merge`].

use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::{GrpcStatus, LoadBalancing};
use crate::snapshot::{Force, Mode};
use crate::units::{Count, Duration, Percent, Ratio};

/// What every caller's sidecar does.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Outbound {
    /// For the whole request, all attempts included; `Unlimited` for streams and long polls.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Deadline>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retries: Option<Retries>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hedging: Option<Hedging>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint_gate: Option<EndpointGate>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub circuit_breaker: Option<CircuitBreaker>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load_balancing: Option<LoadBalancing>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limits: Option<OutboundLimits>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fallback: Option<Fallback>,
}

/// A duration, or the word `Unlimited`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deadline {
    After(Duration),
    Unlimited,
}

/// Another try for a call that failed, paid for by those that succeeded.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Retries {
    /// First try included; 1 switches retrying off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempts: Option<Count<1, 5>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_try_timeout: Option<Duration>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backoff: Option<Backoff>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budget: Option<RetryBudget>,
    /// Which failures are worth another try; an empty list: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 3))]
    pub retry_on: Option<Vec<RetryCause>>,
}

/// How long to wait before another try: doubling from `base` to `max`, drawn at random below that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Backoff {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base: Option<Duration>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max: Option<Duration>,
}

/// What may be spent on retries: one for the destination service, shared by all its routes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RetryBudget {
    /// Retries that one success earns.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_success: Option<Ratio>,
    /// The most that can be saved up, and what a sidecar starts with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub burst: Option<Count<1, 1000>>,
}

#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
pub enum RetryCause {
    /// The request provably reached nobody: safe for every method.
    Unprocessed,
    /// 502, 503, 504, gRPC UNAVAILABLE, a reset before the response, a per-try timeout: idempotent requests only.
    Unavailable,
    /// Any other 5xx: idempotent requests only.
    ServerError,
}

/// A second try, elsewhere, beside a first that is slower than nearly all others; the first answer counts. Idempotent
/// calls only. Absent everywhere: no hedging.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Hedging {
    /// A call is slow when it takes longer than so many percent of its route's calls, 95 when absent; and never
    /// sooner than what `maxExtra` can pay for: with 2, after the 98th percentile.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after_percentile: Option<Count<50, 99>>,
    /// Percent of the calls that may be made twice, 2 when absent. Each also costs a retry of the budget.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_extra: Option<Count<1, 5>>,
}

/// Stop sending to one endpoint that fails, probe it, take it back slowly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct EndpointGate {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consecutive_failures: Option<Count<1, 1000>>,
    /// Percent: open when an endpoint succeeds less often than this, and clearly less often than its peers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub success_rate_below: Option<Percent>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub open_for: Option<Duration>,
    /// What `openFor` grows to while the endpoint keeps failing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_open_for: Option<Duration>,
    /// Never more of a service's endpoints than this; the last one is never gated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_open_percent: Option<Percent>,
    /// Observe: say which endpoints it would take out, and take out none. Only where it is said here: gates are there
    /// without a policy, so a policy that observes does not switch them off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
}

/// Stop calling a whole service that fails or crawls, then probe it. Absent everywhere: no breaker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct CircuitBreaker {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window: Option<Duration>,
    /// With fewer calls in the window it never opens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub minimum_calls: Option<Count<1, 100_000>>,
    /// Percent of failed calls that opens it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure_rate: Option<Percent>,
    /// Percent of slow calls that opens it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slow_call_rate: Option<Percent>,
    /// A call whose answer takes longer to begin is slow. Default: half of the deadline; without one, no call is slow.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slow_call_duration: Option<Duration>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub open_for: Option<Duration>,
    /// Probes while half-open.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub half_open_calls: Option<Count<1, 100>>,
    /// Open (refuse every call) or Closed (pass every call) for as long as this stands here, whatever calls come to. For
    /// some minutes there is `weir breakers force`, which ends by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub force: Option<Force>,
    /// Observe: open and close as calls go, count what it would refuse, and refuse nothing. The policy's own mode when
    /// absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
}

/// How much one sidecar asks of the service at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct OutboundLimits {
    /// To the whole service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub in_flight: Option<Count<1, 1_000_000>>,
    /// To one endpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_endpoint: Option<Count<1, 1_000_000>>,
    /// Opaque connections to the whole service, which are no calls: idle ones count too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connections: Option<Count<1, 1_000_000>>,
    /// Waiting for a place among those in flight.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue: Option<Count<0, 100_000>>,
    /// The longest that one waits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue_timeout: Option<Duration>,
}

/// What the caller gets instead, when the call fails: an answer kept from before, else that of another service, else
/// one that is written here (a gRPC or an HTTP answer, for calls that could not be made).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Fallback {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stale: Option<StaleAnswers>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alternate: Option<AlternateBackend>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grpc_status: Option<GrpcStatus>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http_status: Option<Count<200, 599>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub message: Option<String>,
}

/// The last good answer to the same GET (RFC 5861, `stale-if-error`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct StaleAnswers {
    /// How old it may be, unless it says itself that it may be less.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_age: Option<Duration>,
}

/// A port of another Service of the mesh.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AlternateBackend {
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// That of the policy, where it says none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub namespace: Option<String>,
    pub port: Count<1, 65_535>,
}

impl Deadline {
    const UNLIMITED: &str = "Unlimited";
    const NONE_HELP: &str = "write Unlimited for calls that may take as long as they like";

    /// Other words for no deadline at all.
    fn is_none(text: &str) -> bool {
        let word = text.to_ascii_lowercase();
        matches!(
            word.as_str(),
            "0s" | "0ms"
                | "0m"
                | "0h"
                | "none"
                | "never"
                | "infinite"
                | "infinity"
                | "inf"
                | "unlimited"
                | "off"
                | "no"
                | "disabled"
        )
    }

    /// `None`: as long as it takes.
    pub fn get(self) -> Option<Duration> {
        match self {
            Self::After(deadline) => Some(deadline),
            Self::Unlimited => None,
        }
    }
}

impl Serialize for Deadline {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::After(deadline) => deadline.serialize(serializer),
            Self::Unlimited => serializer.serialize_str(Self::UNLIMITED),
        }
    }
}

impl<'de> Deserialize<'de> for Deadline {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl de::Visitor<'_> for Text {
            type Value = Deadline;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(Duration::EXPECTED)
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Deadline, E> {
                if text == Deadline::UNLIMITED {
                    return Ok(Deadline::Unlimited);
                }
                Duration::from_text(text)
                    .map(Deadline::After)
                    .map_err(|error: E| match Deadline::is_none(text) {
                        true => E::custom(format!(
                            "expected {}, found {text:?}\n{}",
                            Duration::EXPECTED,
                            Deadline::NONE_HELP
                        )),
                        false => error,
                    })
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Deadline, E> {
                match number {
                    0 => Err(E::custom(format!(
                        "expected {}, found the number 0\n{}",
                        Duration::EXPECTED,
                        Deadline::NONE_HELP
                    ))),
                    _ => Err(Duration::without_unit(number as f64)),
                }
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Deadline, E> {
                Err(Duration::without_unit(number as f64))
            }

            fn visit_f64<E: de::Error>(self, number: f64) -> Result<Deadline, E> {
                Err(Duration::without_unit(number))
            }
        }
        deserializer.deserialize_str(Text)
    }
}

/// One pattern rather than two alternatives: an API server has no value that is one of two.
impl JsonSchema for Deadline {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Deadline".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "pattern": format!("^{}$|{}", Self::UNLIMITED, Duration::PATTERN),
            "minLength": 2,
            "maxLength": 24,
            "description": "A duration such as 250ms, 2s or 1m30s (GEP-2257), or Unlimited.",
            "examples": [Self::UNLIMITED]
        })
    }
}
