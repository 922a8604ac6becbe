//! What goes wrong on purpose.

use serde::{Deserialize, Serialize};

use super::RouteMatch;
use crate::units::{Count, Duration};

/// What may happen to a try of a call, and until when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Fault {
    /// `namespace/name`: for metrics, and for whoever wonders.
    pub policy: String,
    /// Milliseconds since the Unix epoch: it ends by itself, also when the control plane is gone.
    pub until_ms: u64,
    /// `None`: whatever is called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub matches: Option<RouteMatch>,
    /// `spiffe://…`; empty: whoever calls.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub callers: Vec<String>,
    pub percentage: Count<1, 100>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay: Option<FaultDelay>,
    /// After the delay. `None`: the call is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effect: Option<FaultEffect>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct FaultDelay {
    pub time: Duration,
    /// Up to so much more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jitter: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub enum FaultEffect {
    Abort(FaultAnswer),
    Connection(BrokenConnection),
    #[serde(rename_all = "camelCase")]
    SlowBody {
        bytes_per_second: Count<1, 1_000_000_000>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct FaultAnswer {
    /// gRPC callers.
    pub grpc_status: u8,
    /// HTTP callers.
    pub http_status: u16,
}

/// How a connection fails those who use it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub enum BrokenConnection {
    /// It breaks while the call is under way: what became of the call is not known.
    Reset,
    /// The call is taken, and nothing is ever answered.
    BlackHole,
    /// Its other end says goodbye and has not looked at the call: connections are made anew.
    GoAway,
}
