//! HTTPRoute (gateway.networking.k8s.io/v1).

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::{
    BackendRef, RouteFilter, RouteRule, RouteSpec, Unsupported, ValueMatch, first_of_each,
};
use crate::resource::null::or_empty;
use crate::resource::{Kind, Object};
use crate::units::{Count, Duration};

pub type HttpRoute = Object<RouteSpec<HttpRouteRule>>;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct HttpRouteRule {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Any of them; every call when there is none.
    #[serde(deserialize_with = "or_empty", skip_serializing_if = "Vec::is_empty")]
    pub matches: Vec<HttpRouteMatch>,
    #[serde(deserialize_with = "or_empty", skip_serializing_if = "Vec::is_empty")]
    pub filters: Vec<RouteFilter>,
    #[serde(deserialize_with = "or_empty", skip_serializing_if = "Vec::is_empty")]
    pub backend_refs: Vec<BackendRef>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeouts: Option<RouteTimeouts>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry: Option<RouteRetry>,
    #[serde(skip_serializing)]
    pub session_persistence: Option<Unsupported>,
}

/// All that is said must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct HttpRouteMatch {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<RoutePath>,
    #[serde(deserialize_with = "or_empty", skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<ValueMatch>,
    #[serde(deserialize_with = "or_empty", skip_serializing_if = "Vec::is_empty")]
    pub query_params: Vec<ValueMatch>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RoutePath {
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub match_type: Option<PathMatchType>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum PathMatchType {
    Exact,
    #[default]
    PathPrefix,
    RegularExpression,
}

/// GEP-1742. `0s`: none, not even that of a policy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RouteTimeouts {
    /// Of the whole call, all tries included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<RouteTimeout>,
    /// Of one try.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backend_request: Option<RouteTimeout>,
}

/// `None`: `0s`, or otherwise zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteTimeout(pub Option<Duration>);

/// GEP-1731.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RouteRetry {
    /// Worth another try whatever the method: whoever writes this vouches for it.
    #[serde(deserialize_with = "or_empty", skip_serializing_if = "Vec::is_empty")]
    pub codes: Vec<Count<400, 599>>,
    /// After the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempts: Option<Count<0, 4>>,
    /// The shortest; doubled from try to try.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backoff: Option<RouteBackoff>,
}

/// Written as a timeout is, and never zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct RouteBackoff(pub Duration);

impl RouteRule for HttpRouteRule {
    const KIND: Kind = Kind::HttpRoute;

    fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// It writes one of every path where there is none.
    fn matches_count(&self) -> usize {
        self.matches.len().max(1)
    }

    fn patterns_count(&self) -> usize {
        self.matches.iter().map(HttpRouteMatch::patterns).sum()
    }

    fn backend_refs(&self) -> &[BackendRef] {
        &self.backend_refs
    }

    fn filters(&self) -> &[RouteFilter] {
        &self.filters
    }
}

impl HttpRouteMatch {
    /// Those that count.
    pub fn headers(&self) -> impl Iterator<Item = &ValueMatch> {
        first_of_each(&self.headers, str::eq_ignore_ascii_case)
    }

    /// Those that count.
    pub fn query_params(&self) -> impl Iterator<Item = &ValueMatch> {
        first_of_each(&self.query_params, str::eq)
    }

    fn patterns(&self) -> usize {
        let values = self.headers().chain(self.query_params());
        let path = self.path.as_ref().map(RoutePath::match_type);
        usize::from(path == Some(PathMatchType::RegularExpression))
            + values.filter(|it| it.is_pattern()).count()
    }
}

impl RoutePath {
    pub fn match_type(&self) -> PathMatchType {
        self.match_type.unwrap_or_default()
    }

    pub fn value(&self) -> &str {
        self.value.as_deref().unwrap_or("/")
    }
}

impl<'de> Deserialize<'de> for RouteBackoff {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Duration::of_route(deserializer).map(Self)
    }
}

impl<'de> Deserialize<'de> for RouteTimeout {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Timeout;
        impl de::Visitor<'_> for Timeout {
            type Value = RouteTimeout;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a duration such as 250ms, or 0s for none")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<RouteTimeout, E> {
                Duration::from_route(text).map(RouteTimeout)
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<RouteTimeout, E> {
                self.visit_f64(number as f64)
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<RouteTimeout, E> {
                self.visit_f64(number as f64)
            }

            fn visit_f64<E: de::Error>(self, number: f64) -> Result<RouteTimeout, E> {
                Err(match number {
                    0.0 => E::custom(
                        "expected a duration such as 250ms, or 0s for none, found the number 0\nwrite 0s",
                    ),
                    _ => Duration::without_unit(number),
                })
            }
        }
        deserializer.deserialize_str(Timeout)
    }
}

impl Serialize for RouteTimeout {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Some(duration) => duration.serialize(serializer),
            None => serializer.serialize_str("0s"),
        }
    }
}
