//! How a call finds its endpoint.

use serde::{Deserialize, Serialize};

use crate::units::{Count, Duration, Token};

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Balance {
    pub algorithm: BalanceAlgorithm,
    pub slow_start: Duration,
    #[serde(default)]
    pub zone: ZonePreference,
}

#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema,
)]
pub enum BalanceAlgorithm {
    /// Power of two choices by latency × load, a failure priced as a slow answer.
    #[default]
    PeakEwma,
    /// Power of two choices by requests in flight.
    LeastRequest,
    /// Calls with the same key go to the same endpoint, as long as it is not overloaded.
    ConsistentHash,
}

/// Whether endpoints in the caller's own zone come first.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema,
)]
pub enum ZonePreference {
    /// Where the zones of both sides are known: others only while those nearby are much more loaded.
    #[default]
    Prefer,
    Ignore,
}

/// Which calls belong together, and how uneven they may make the load.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ConsistentHash {
    pub by: HashBy,
    /// Percent of the average load that one endpoint may have.
    pub bounded_load: Count<101, 1000>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum HashBy {
    Header(Token),
    Cookie(Token),
    SourceIdentity,
    Path,
}

impl Default for Balance {
    fn default() -> Self {
        Self {
            algorithm: BalanceAlgorithm::default(),
            slow_start: Duration::from_secs(10),
            zone: ZonePreference::default(),
        }
    }
}

impl ConsistentHash {
    /// Mirrokni, Thorup and Zadimoghaddam, "Consistent Hashing with Bounded Loads", 2016: 1 + ε with ε = 1/4.
    pub const BOUNDED_LOAD: Count<101, 1000> = Count::of(125);
}
