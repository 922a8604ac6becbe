//! ReferenceGrant (gateway.networking.k8s.io/v1beta1, and v1, which is the same): whose routes may send calls to Services of its namespace.

use serde::{Deserialize, Serialize};

use super::super::Metadata;
use super::super::null::or_empty;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReferenceGrant {
    pub metadata: Metadata,
    #[serde(default, deserialize_with = "or_empty")]
    pub spec: ReferenceGrantSpec,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ReferenceGrantSpec {
    #[serde(deserialize_with = "or_empty")]
    pub from: Vec<GrantFrom>,
    #[serde(deserialize_with = "or_empty")]
    pub to: Vec<GrantTo>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GrantFrom {
    pub group: String,
    pub kind: String,
    pub namespace: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GrantTo {
    pub group: String,
    pub kind: String,
    /// Every one when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

impl ReferenceGrant {
    /// Whether routes of that kind and namespace may name a Service of ours.
    pub fn permits(&self, kind: &str, namespace: &str, service: &str) -> bool {
        let from = self.spec.from.iter().any(|from| {
            from.group == super::GATEWAY_GROUP && from.kind == kind && from.namespace == namespace
        });
        let to = self.spec.to.iter().any(|to| {
            to.group.is_empty()
                && to.kind == "Service"
                && to.name.as_deref().is_none_or(|name| name == service)
        });
        from && to
    }
}
