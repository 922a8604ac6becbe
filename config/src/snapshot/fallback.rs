//! What callers get instead of an error.

use serde::{Deserialize, Serialize};

use super::ServiceKey;
use crate::units::Duration;

/// What the caller gets instead, when the call fails: the first of these that there is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Fallback {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stale: Option<Stale>,
    /// Another service of the mesh.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alternate: Option<ServiceKey>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<FallbackAnswer>,
}

/// The last good answer to the same GET.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Stale {
    /// At most; what the answer says of itself may be less.
    pub max_age: Duration,
}

impl Default for Stale {
    fn default() -> Self {
        Self {
            max_age: Duration::from_secs(600),
        }
    }
}

/// For calls that could not be made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct FallbackAnswer {
    /// gRPC callers.
    pub grpc_status: u8,
    /// HTTP callers.
    pub http_status: u16,
    pub message: String,
}
