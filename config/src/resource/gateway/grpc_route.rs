//! GRPCRoute (gateway.networking.k8s.io/v1).

use serde::{Deserialize, Serialize};

use super::{
    BackendRef, RouteFilter, RouteRule, RouteSpec, Unsupported, ValueMatch, ValueMatchType,
    first_of_each,
};
use crate::resource::null::or_empty;
use crate::resource::{Kind, Object};

pub type GrpcRoute = Object<RouteSpec<GrpcRouteRule>>;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct GrpcRouteRule {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Any of them; every call when there is none.
    #[serde(deserialize_with = "or_empty", skip_serializing_if = "Vec::is_empty")]
    pub matches: Vec<GrpcRouteMatch>,
    #[serde(deserialize_with = "or_empty", skip_serializing_if = "Vec::is_empty")]
    pub filters: Vec<RouteFilter>,
    #[serde(deserialize_with = "or_empty", skip_serializing_if = "Vec::is_empty")]
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
    #[serde(deserialize_with = "or_empty", skip_serializing_if = "Vec::is_empty")]
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

impl RouteRule for GrpcRouteRule {
    const KIND: Kind = Kind::GrpcRoute;

    fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    fn matches_count(&self) -> usize {
        self.matches.len()
    }

    fn patterns_count(&self) -> usize {
        self.matches.iter().map(GrpcRouteMatch::patterns).sum()
    }

    fn backend_refs(&self) -> &[BackendRef] {
        &self.backend_refs
    }

    fn filters(&self) -> &[RouteFilter] {
        &self.filters
    }
}

impl GrpcRouteMatch {
    /// Those that count.
    pub fn headers(&self) -> impl Iterator<Item = &ValueMatch> {
        first_of_each(&self.headers, str::eq_ignore_ascii_case)
    }

    fn patterns(&self) -> usize {
        let of_method = self.method.as_ref().map_or(0, GrpcMethodMatch::patterns);
        of_method + self.headers().filter(|it| it.is_pattern()).count()
    }
}

impl GrpcMethodMatch {
    fn patterns(&self) -> usize {
        match self.match_type.unwrap_or_default() {
            ValueMatchType::RegularExpression => self.service.iter().chain(&self.method).count(),
            ValueMatchType::Exact => 0,
        }
    }
}
