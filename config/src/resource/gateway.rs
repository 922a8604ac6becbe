//! Routes of the Gateway API (gateway.networking.k8s.io), as far as they have a Service as parent (GAMMA).
//!
//! The standard is wider than what a sidecar does. What is not supported is there as [`Unsupported`], so that it is
//! refused by name rather than passed over.

mod filter;
mod grpc_route;
mod http_route;
mod reference_grant;
mod route;

use std::borrow::Cow;

use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer, Serialize};

use super::ObjectName;
use super::null::or_empty;
use crate::units::Count;

pub use filter::{
    FilterType, Fraction, Header, HeaderChanges, Mirror, PathRewrite, PathRewriteType, Redirect,
    RouteFilter, UrlRewrite,
};
pub use grpc_route::{GrpcMethodMatch, GrpcRoute, GrpcRouteMatch, GrpcRouteRule};
pub use http_route::{
    HttpRoute, HttpRouteMatch, HttpRouteRule, PathMatchType, RouteBackoff, RoutePath, RouteRetry,
    RouteTimeout, RouteTimeouts,
};
pub use reference_grant::{GrantFrom, GrantTo, ReferenceGrant, ReferenceGrantSpec};
pub use route::{GatewayRoute, RouteRule, RouteSpec};

/// The API group of the routes.
pub const GATEWAY_GROUP: &str = "gateway.networking.k8s.io";

const SERVICE: &str = "Service";

/// What a route is attached to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ParentRef {
    /// That of Gateways when absent, as the standard says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// The route's own when absent. A route in another namespace than its Service is for callers of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    pub name: String,
    /// The name of one port of the Service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub section_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
}

/// Where calls go; its weight and filters are those of a rule's list and mean nothing for a mirror.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct BackendRef {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    pub name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Of the calls, as a share of the sum of the list; 1 when absent, 0: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight: Option<Count<0, 1_000_000>>,
    #[serde(deserialize_with = "or_empty", skip_serializing_if = "Vec::is_empty")]
    pub filters: Vec<RouteFilter>,
}

/// A header that a request must have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ValueMatch {
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub match_type: Option<ValueMatchType>,
    pub name: String,
    pub value: String,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ValueMatchType {
    #[default]
    Exact,
    RegularExpression,
}

/// A field of the standard that is there and means nothing to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unsupported;

impl<'de> Deserialize<'de> for Unsupported {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        IgnoredAny::deserialize(deserializer).map(|_| Self)
    }
}

impl ValueMatch {
    pub fn is_pattern(&self) -> bool {
        self.match_type == Some(ValueMatchType::RegularExpression)
    }
}

/// Of equivalent names the first counts, and the others must be ignored, as the standard says.
fn first_of_each(
    values: &[ValueMatch],
    is_same: fn(&str, &str) -> bool,
) -> impl Iterator<Item = &ValueMatch> {
    let is_first = move |place: usize, value: &ValueMatch| {
        !(values[..place].iter()).any(|earlier| is_same(&earlier.name, &value.name))
    };
    (values.iter().enumerate())
        .filter(move |(place, value)| is_first(*place, value))
        .map(|(_, value)| value)
}

impl ParentRef {
    pub fn is_service(&self) -> bool {
        self.kind.as_deref() == Some(SERVICE) && matches!(self.group.as_deref(), Some("" | "core"))
    }

    /// `own`: the namespace of the route.
    pub fn service(&self, own: &str) -> ObjectName {
        ObjectName::new(self.namespace.as_deref().unwrap_or(own), &self.name)
    }
}

impl BackendRef {
    pub fn is_service(&self) -> bool {
        self.kind.as_deref().is_none_or(|kind| kind == SERVICE)
            && matches!(self.group.as_deref(), None | Some("" | "core"))
    }

    pub fn service(&self, own: &str) -> ObjectName {
        ObjectName::new(self.namespace.as_deref().unwrap_or(own), &self.name)
    }

    pub fn weight(&self) -> u32 {
        self.weight.map_or(1, Count::get)
    }

    /// `Service boutique/cart`, as people call it.
    pub fn title(&self, own: &str) -> String {
        let kind = self.kind.as_deref().map_or(SERVICE.into(), Cow::Borrowed);
        format!("{kind} {}", self.service(own))
    }
}
