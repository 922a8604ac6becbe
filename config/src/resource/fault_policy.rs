//! FaultPolicy (weir.dev/v1alpha1): what goes wrong with calls to a service, on purpose and for a while.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{GrpcStatus, Metadata, Object, RouteSelector, TargetRef, Targeting};
use crate::snapshot::BrokenConnection;
use crate::units::{Count, Duration, Moment};

pub type FaultPolicy = Object<FaultPolicySpec>;

impl Targeting for FaultPolicy {
    fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    fn target_refs(&self) -> &[TargetRef] {
        &self.spec.target_refs
    }
}

/// What goes wrong with calls to a service, in the sidecars of those who call it, and until when.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FaultPolicySpec {
    /// The Services, or ports of them, in its own namespace, whose callers meet the faults.
    #[schemars(length(min = 1, max = 16))]
    pub target_refs: Vec<TargetRef>,
    /// When it is over, in UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ends_at: Option<Moment>,
    /// How long it lasts from when it was created, 24h at most. One of the two must be said; of both, the earlier end
    /// holds. Sidecars end it by themselves, whoever else is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration: Option<Duration>,
    /// Of those that are for a call, none or one happens to it: their percentages add up, the first ones first.
    #[schemars(length(min = 1, max = 16))]
    pub faults: Vec<Fault>,
}

/// What may happen to a call. A delay may precede one of the others.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Fault {
    /// The calls it is for; all when absent.
    #[serde(rename = "match", skip_serializing_if = "Option::is_none")]
    pub matches: Option<RouteSelector>,
    /// The identities whose calls it is for, such as `ns/boutique/sa/checkout`; everybody's when absent.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub callers: Vec<String>,
    /// Of every 100 tries, 100 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub percentage: Option<Count<1, 100>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delay: Option<FaultDelay>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub abort: Option<FaultAbort>,
    /// What becomes of its connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connection: Option<BrokenConnection>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slow_body: Option<SlowBody>,
}

/// The call is sent so much later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FaultDelay {
    /// 10m at most.
    pub time: Duration,
    /// Up to so much more, evenly spread.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jitter: Option<Duration>,
}

/// The call is not sent, and answered with a status: one of the two, callers of the other sort get what means the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct FaultAbort {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http_status: Option<Count<400, 599>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grpc_status: Option<GrpcStatus>,
}

/// The body of the answer comes no faster than this.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SlowBody {
    pub bytes_per_second: Count<1, 1_000_000_000>,
}
