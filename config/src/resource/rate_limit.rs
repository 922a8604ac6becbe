//! `rateLimit:` of the `inbound:` block: how often the service lets itself be called.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::units::Count;

/// So many requests in every second; what comes on top is answered 429, or RESOURCE_EXHAUSTED, with the time after
/// which it is worth coming back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RateLimit {
    pub requests_per_second: Count<1, 1_000_000>,
    /// Requests that may come at once after a pause. Absent: as many as a second allows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst: Option<Count<1, 1_000_000>>,
    /// Whose requests are counted together: Total, Caller, Method, or {header: NAME}. Absent: Total.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per: Option<RateLimitKey>,
}

/// Whose requests are counted together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub enum RateLimitKey {
    /// Everybody's.
    #[default]
    Total,
    /// Those of each caller, as proven by mutual TLS; callers without it share one limit.
    Caller,
    /// Those of each gRPC method, or of each HTTP method.
    Method,
    /// Those with the same value of this header, which callers choose as they like: no protection from who lies.
    #[serde(rename = "header")]
    Header(#[schemars(length(min = 1, max = 64))] String),
}
