//! The `loadBalancing:` block: which endpoint a call goes to.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::snapshot::{BalanceAlgorithm, ZonePreference};
use crate::units::{Count, Duration, Token};

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct LoadBalancing {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub algorithm: Option<BalanceAlgorithm>,
    /// How long a new endpoint takes to get its full share.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slow_start: Option<Duration>,
    /// Prefer, or Ignore: whether endpoints in the caller's own zone come first. Prefer when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<ZonePreference>,
    /// Which calls belong together, for `algorithm: ConsistentHash`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consistent_hash: Option<ConsistentHash>,
}

/// Calls of which this is the same go to the same endpoint: the value of a header or of a cookie, or an attribute. A
/// call that does not have it goes where PeakEwma sends it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ConsistentHash {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub header: Option<Token>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cookie: Option<Token>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attribute: Option<HashAttribute>,
    /// Percent of the average load that one endpoint may have before its calls go to the next; 125 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bounded_load: Option<Count<101, 1000>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum HashAttribute {
    /// Who calls: all pods of one service account.
    SourceIdentity,
    /// The path, without its query.
    Path,
}
