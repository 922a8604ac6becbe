//! What routes of the Gateway API make of calls to a service: which rule a call meets, and what that does.

use serde::{Deserialize, Serialize};

use super::ServiceKey;
use crate::units::Duration;

/// The rules that callers of a namespace meet. A call that none of them matches is answered 404.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Routing {
    /// Whose calls: those of the namespace in which the routes are. `None`: of everybody for whom there is no other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub callers: Option<String>,
    /// The first that matches applies.
    pub matches: Vec<RuleMatch>,
    pub rules: Vec<Rule>,
}

/// All that is said must hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct RuleMatch {
    /// Its place among the rules.
    pub rule: usize,
    pub path: PathCondition,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// Names in lower case.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<ValueCondition>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub query: Vec<ValueCondition>,
}

impl RuleMatch {
    /// How many of its conditions are regular expressions.
    pub fn patterns(&self) -> usize {
        let is_pattern = |text: &&TextCondition| matches!(text, TextCondition::Regex(_));
        let values = self.headers.iter().chain(&self.query);
        let of_values = values.map(|it| &it.value).filter(is_pattern).count();
        of_values
            + match &self.path {
                PathCondition::Regex(_) => 1,
                PathCondition::Grpc { service, method } => {
                    service.iter().chain(method).filter(is_pattern).count()
                }
                PathCondition::Any | PathCondition::Exact(_) | PathCondition::Prefix(_) => 0,
            }
    }
}

/// Of paths in the form in which they are compared ([`crate::path`]): with a slash at the end where there is one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum PathCondition {
    Any,
    Exact(String),
    /// By whole segments: `/a` matches `/a`, `/a/` and `/a/b`, not `/ab`. Without a slash at the end itself.
    Prefix(String),
    /// The whole path.
    Regex(String),
    /// A gRPC call of that service and method.
    Grpc {
        service: Option<TextCondition>,
        method: Option<TextCondition>,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum TextCondition {
    Exact(String),
    /// The whole text.
    Regex(String),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ValueCondition {
    pub name: String,
    pub value: TextCondition,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Rule {
    /// `HTTPRoute boutique/cart rules[0]`: for metrics and people, never from a request.
    pub name: String,
    #[serde(default, skip_serializing_if = "HeaderChanges::is_empty")]
    pub request: HeaderChanges,
    #[serde(default, skip_serializing_if = "HeaderChanges::is_empty")]
    pub response: HeaderChanges,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rewrite: Option<Rewrite>,
    /// Then nobody is called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redirect: Option<Redirect>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mirrors: Vec<Mirror>,
    /// One of them by their weights; calls of what is not there are answered 500.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub backends: Vec<RuleBackend>,
    /// In place of the deadline that a policy sets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Timeout>,
    /// In place of a policy's `perTryTimeout`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_try_timeout: Option<Timeout>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<RuleRetry>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Timeout {
    After(Duration),
    Unlimited,
}

/// Whatever the method, for the codes that are named; the budget is that of the service that is called.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct RuleRetry {
    /// First try included; `None`: as many as the policy says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempts: Option<u32>,
    /// Empty: the failures that the policy names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub codes: Vec<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backoff: Option<Duration>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct RuleBackend {
    /// `None`: there is no such service, or the route may not send calls to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<ServiceKey>,
    pub weight: u32,
    #[serde(default, skip_serializing_if = "HeaderChanges::is_empty")]
    pub request: HeaderChanges,
    #[serde(default, skip_serializing_if = "HeaderChanges::is_empty")]
    pub response: HeaderChanges,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Mirror {
    pub to: ServiceKey,
    /// So many of so many calls.
    pub numerator: u32,
    pub denominator: u32,
}

/// Applied in this order. Names in lower case.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct HeaderChanges {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub set: Vec<(String, String)>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub add: Vec<(String, String)>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub remove: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Rewrite {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathChange>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum PathChange {
    /// The whole path; a query stays.
    Full(String),
    /// Of the prefix that the rule matches.
    Prefix { of: String, to: String },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Redirect {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheme: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathChange>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    pub status: u16,
}

impl HeaderChanges {
    pub const fn is_empty(&self) -> bool {
        self.set.is_empty() && self.add.is_empty() && self.remove.is_empty()
    }
}

impl Timeout {
    pub const fn get(self) -> Option<Duration> {
        match self {
            Self::After(duration) => Some(duration),
            Self::Unlimited => None,
        }
    }
}

impl Routing {
    /// Whom its rules send calls to, or copies of calls.
    pub fn backends(&self) -> impl Iterator<Item = &ServiceKey> {
        self.rules.iter().flat_map(|rule| {
            let weighted = rule.backends.iter().filter(|backend| backend.weight > 0);
            let backends = weighted.filter_map(|backend| backend.to.as_ref());
            backends.chain(rule.mirrors.iter().map(|mirror| &mirror.to))
        })
    }
}
