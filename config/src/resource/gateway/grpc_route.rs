//! GRPCRoute (gateway.networking.k8s.io/v1).

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use super::{
    BackendRef, GatewayRoute, ParentRef, RouteFilter, Unsupported, ValueMatch, ValueMatchType,
    backends,
};
use crate::resource::{Kind, Metadata, metadata};

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GrpcRoute {
    #[serde(deserialize_with = "metadata::strict")]
    pub metadata: Metadata,
    pub spec: GrpcRouteSpec,
    /// Written by the control plane, never read.
    #[serde(default, skip_serializing)]
    pub status: IgnoredAny,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct GrpcRouteSpec {
    pub parent_refs: Vec<ParentRef>,
    /// Mean nothing where the parent is a Service.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hostnames: Vec<String>,
    #[serde(skip_serializing)]
    pub use_default_gateways: Option<Unsupported>,
    pub rules: Vec<GrpcRouteRule>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct GrpcRouteRule {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Any of them; every call when there is none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub matches: Vec<GrpcRouteMatch>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub filters: Vec<RouteFilter>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub backend_refs: Vec<BackendRef>,
    #[serde(skip_serializing)]
    pub session_persistence: Option<Unsupported>,
}

/// All that is said must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct GrpcRouteMatch {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<GrpcMethodMatch>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<ValueMatch>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct GrpcMethodMatch {
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub match_type: Option<ValueMatchType>,
    /// With its package; every service when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
}

impl GatewayRoute for GrpcRoute {
    const KIND: Kind = Kind::GrpcRoute;

    fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    fn parent_refs(&self) -> &[ParentRef] {
        &self.spec.parent_refs
    }

    fn backend_refs(&self) -> Vec<&BackendRef> {
        let rules = self.spec.rules.iter();
        backends(rules.map(|rule| (&rule.backend_refs[..], &rule.filters[..])))
    }
}
