//! What a policy is attached to, and which calls a part of it is for: the same words in every kind.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Metadata;

/// A policy: it says what it is attached to.
pub trait Targeting {
    fn metadata(&self) -> &Metadata;

    fn target_refs(&self) -> &[TargetRef];
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TargetRef {
    /// Empty for all kinds, so it may be left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 0))]
    pub group: Option<String>,
    pub kind: TargetKind,
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// The name of one port of the Service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub section_name: Option<String>,
}

#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
pub enum TargetKind {
    Service,
    Namespace,
    /// The workloads that run as it, and so have its identity.
    ServiceAccount,
}

/// Which calls a route is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum RouteSelector {
    Grpc(GrpcMatch),
    Http(HttpMatch),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GrpcMatch {
    /// With its package: `boutique.v1.Payment`.
    #[schemars(length(min = 1, max = 253))]
    pub service: String,
    /// Every method of the service when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub method: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct HttpMatch {
    /// GET, POST, …; every method when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32))]
    pub method: Option<String>,
    /// The whole path.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub path: Option<String>,
    /// By whole segments: `/a` matches `/a` and `/a/b`, not `/ab`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub path_prefix: Option<String>,
}
