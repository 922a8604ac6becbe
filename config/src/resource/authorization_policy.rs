//! AuthorizationPolicy (weir.dev/v1alpha1): who may call what.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Metadata, Object, RouteSelector, TargetRef, Targeting};
use crate::snapshot::Access;

pub type AuthorizationPolicy = Object<AuthorizationPolicySpec>;

impl Targeting for AuthorizationPolicy {
    fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    fn target_refs(&self) -> &[TargetRef] {
        &self.spec.target_refs
    }
}

/// Who may call what, enforced by the sidecar of whoever is called.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AuthorizationPolicySpec {
    /// What it applies to, in its own namespace: Services, a ServiceAccount (all ports of the workloads that run as it) or
    /// the Namespace. Policies that deny hold wherever they apply; of those that allow, the ones of a port win over those
    /// of its Service, these over those of the ServiceAccount, and these over those of the Namespace.
    #[schemars(length(min = 1, max = 16))]
    pub target_refs: Vec<TargetRef>,
    /// Enforce, or Audit: count what would be denied, and let it pass. Enforce when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<AuthorizationMode>,
    /// What becomes of calls for which a rule is: Allow (and all others are denied) when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<Access>,
    /// Without any, nobody is allowed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub rules: Vec<AuthorizationRule>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AuthorizationMode {
    #[default]
    Enforce,
    Audit,
}

/// For calls of one of `from` to one of `to`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct AuthorizationRule {
    /// Whoever calls, proven or not, when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub from: Option<Vec<Peer>>,
    /// Whatever is called, bytes too, when absent. Paths are compared decoded; one that servers may read differently
    /// (`//`, `/../`, `%2F`, `;`) is denied.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub to: Option<Vec<RouteSelector>>,
}

/// Who calls, as mutual TLS has proven: an identity, or a namespace, a service account, or both.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Peer {
    /// `ns/boutique/sa/checkout`, or all of it with `spiffe://` and the trust domain.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048))]
    pub identity: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub namespace: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub service_account: Option<String>,
}
