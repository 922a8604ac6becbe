//! A resource that has a status.

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use super::{Metadata, metadata};

/// `S`: what its user wants. Nothing else may be said beside that.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Object<S> {
    #[serde(deserialize_with = "metadata::strict")]
    pub metadata: Metadata,
    pub spec: S,
    /// Written by the control plane, never read.
    #[serde(default, skip_serializing)]
    pub status: IgnoredAny,
}
