//! MeshConfig (weir.dev/v1alpha1): what holds for the whole mesh. There is one; the oldest wins.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Object, Outbound};
use crate::snapshot::{Access, AccessLog, MtlsMode};

pub type MeshConfig = Object<MeshConfigSpec>;

/// What holds for the whole mesh.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct MeshConfigSpec {
    /// The first part of every identity, `weir.local` when absent. It must be what the mesh's CA signs for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = "^[a-z0-9]([a-z0-9-]*[a-z0-9])?([.][a-z0-9]([a-z0-9-]*[a-z0-9])?)*$")
    )]
    pub trust_domain: Option<String>,
    /// Permissive (mutual TLS from sidecars, plain text from everybody else) when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtls: Option<MtlsMode>,
    /// Disabled when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access_log: Option<AccessLog>,
    /// Whether whoever calls may, as long as no AuthorizationPolicy says who: Allow when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_authorization: Option<Access>,
    /// What callers' sidecars do for a service as long as no policy says otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub defaults: Option<Outbound>,
}
