//! ResiliencePolicy (weir.dev/v1alpha1): how calls to a service are made, and how it takes them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Concurrency, InboundQueue, Metadata, Object, Outbound, PriorityRule, RateLimit, RouteSelector,
    TargetRef, Targeting,
};
use crate::snapshot::Mode;
use crate::units::{Count, Duration};

pub type ResiliencePolicy = Object<ResiliencePolicySpec>;

impl Targeting for ResiliencePolicy {
    fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    fn target_refs(&self) -> &[TargetRef] {
        &self.spec.target_refs
    }
}

/// How calls to a service are made, and how it takes them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ResiliencePolicySpec {
    /// What it applies to, in its own namespace. A port of a Service wins over the Service, and that over the
    /// Namespace; within one level the oldest policy wins.
    #[schemars(length(min = 1, max = 16))]
    pub target_refs: Vec<TargetRef>,
    /// Enforce, or Observe: decide and count, but do not act. Enforce when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// What every caller's sidecar does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outbound: Option<Outbound>,
    /// What the service's own sidecar does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inbound: Option<Inbound>,
    /// What is different for some calls. The most specific match applies, wherever it stands in the list.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 128))]
    pub routes: Vec<RoutePolicy>,
}

impl ResiliencePolicySpec {
    /// Whether it says anything that callers' sidecars do; one that says nothing at all is taken for one of them.
    pub const fn is_for_callers(&self) -> bool {
        self.outbound.is_some() || !self.routes.is_empty() || self.inbound.is_none()
    }
}

/// What the service's own sidecar does.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Inbound {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limits: Option<InboundLimits>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<Concurrency>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue: Option<InboundQueue>,
    /// Which calls go first when not all can be taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub priorities: Option<Vec<PriorityRule>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<RateLimit>,
    /// Several at once, each with a `per` of its own: a request must be within all of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4))]
    pub rate_limits: Vec<RateLimit>,
}

/// How many calls the app works on at once, and how many may wait for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct InboundLimits {
    /// In the app at once, whatever the sidecar finds out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub in_flight: Option<Count<1, 1_000_000>>,
    /// Waiting for a place among those in flight: an older name of `queue.size`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue: Option<Count<0, 100_000>>,
    /// The longest that one waits: an older name of `queue.maxWait`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue_timeout: Option<Duration>,
}

/// What is different for some calls.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RoutePolicy {
    #[serde(rename = "match")]
    pub matches: RouteSelector,
    /// These calls may safely be repeated: the second of two equal ones changes nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotent: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outbound: Option<Outbound>,
}
