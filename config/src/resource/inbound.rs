//! What a service's own sidecar learns, keeps waiting and prefers: the newer parts of the `inbound:` block.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{GrpcMatch, HttpMatch};
use crate::snapshot::Tier;
use crate::units::{Count, Duration};

/// How many calls the app works on at once, found out by the sidecar. Without this block it finds out all the same and
/// counts what it would refuse, but refuses nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Concurrency {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adaptive: Option<Adaptive>,
    /// Upgraded connections, event streams and long polls at once: they are counted apart.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub streams: Option<Count<0, 1_000_000>>,
}

/// Between which bounds the limit moves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Adaptive {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min: Option<Count<1, 1_000_000>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max: Option<Count<1, 1_000_000>>,
}

/// Who waits for the app, and for how long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct InboundQueue {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<Count<0, 100_000>>,
    /// The longest that one waits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_wait: Option<Duration>,
}

/// Which calls go first when not all can be taken. The first rule that matches applies; a call that none matches has the
/// tier that its caller's sidecar says, else Default.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PriorityRule {
    #[serde(rename = "match")]
    pub matches: PriorityMatch,
    pub tier: Tier,
}

/// All that is said must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct PriorityMatch {
    /// The caller, as its certificate proves it: `ns/boutique/sa/checkout`, or with the trust domain before it
    /// `spiffe://…/ns/boutique/sa/checkout`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub identity: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grpc: Option<GrpcMatch>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpMatch>,
}
