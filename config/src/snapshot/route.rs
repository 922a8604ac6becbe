//! Calls to a service that have policies of their own.

use serde::{Deserialize, Serialize};

use super::Outbound;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Route {
    /// For metrics and logs: from the policy, never from a request.
    pub name: String,
    pub matches: RouteMatch,
    /// The user vouches that this call may be repeated.
    pub idempotent: bool,
    pub outbound: Outbound,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum RouteMatch {
    #[serde(rename_all = "camelCase")]
    Grpc {
        service: String,
        method: Option<String>,
    },
    #[serde(rename_all = "camelCase")]
    Http {
        method: Option<String>,
        path: PathMatch,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum PathMatch {
    Exact(String),
    /// By whole segments: `/a` matches `/a` and `/a/b`, not `/ab`.
    Prefix(String),
}
