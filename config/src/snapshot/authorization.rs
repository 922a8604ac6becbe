//! Who may call a port.

use serde::{Deserialize, Serialize};

use super::RouteMatch;

/// What becomes of a call.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema,
)]
pub enum Access {
    #[default]
    Allow,
    Deny,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Authorization {
    pub enforced: AccessRules,
    /// Those together with the ones that only audit; `None`: there are none of these.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audited: Option<AccessRules>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct AccessRules {
    /// One that is for a call denies it.
    pub deny: Vec<AccessRule>,
    /// One of them must be for a call. `None`: nobody says who may, so all others may.
    pub allow: Option<Vec<AccessRule>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct AccessRule {
    /// `namespace/name`
    pub policy: String,
    /// `None`: whoever calls.
    pub from: Option<Vec<Peer>>,
    /// `None`: whatever is called.
    pub to: Option<Vec<RouteMatch>>,
}

/// All that it says must hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Peer {
    /// `spiffe://…`
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_account: Option<String>,
}
