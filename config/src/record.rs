//! What a sidecar remembers of a request that did not go as it should: written by the sidecar, read by `weir explain`.

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// `x-request-id` if the caller sent one, else the trace id, else one that the sidecar made.
    pub id: String,
    /// The trace id, where there is one besides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<String>,
    /// Milliseconds since the Unix epoch, by the sidecar's clock.
    pub at_ms: u64,
    /// `outbound`: the app called; `inbound`: it was called.
    pub direction: String,
    /// "namespace/name:port"
    pub service: String,
    /// Empty: no route of a policy matched.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub route: String,
    /// Of the Gateway API, which sent it there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// Of the control plane, as it was in force.
    pub policy_version: u64,
    pub method: String,
    /// Without its query.
    pub path: String,
    pub protocol: String,
    /// SPIFFE id of who called, where it was proven.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caller: Option<String>,
    pub why: Kept,
    /// What was left when it came, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<u64>,
    /// Deadline, priority or attempt came from the call that the app answers.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub inherited: bool,
    /// Somebody further up had tried before.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_retry: bool,
    pub priority: String,
    /// Tries that failed, in order, and what was decided after each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tries: Vec<Try>,
    /// Who answered in the end, or failed last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    pub status: u16,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grpc_status: Option<String>,
    /// Reason of an answer that the sidecar made itself, as in `weir-proxy-error`, and the same for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// success, failure or cancelled
    pub outcome: String,
    pub took_us: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Try {
    /// Since the request came.
    pub ended_us: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// A status, or what went wrong.
    pub result: String,
    /// "again at once", "again after 12 ms", or why not again.
    pub then: String,
}

/// Why it was kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Kept {
    Failed,
    /// A policy answered in the service's place.
    Refused,
    Cancelled,
    Retried,
    /// Slower than 99 in 100.
    Slow,
    /// Nothing was wrong with it: one in so many is kept.
    Sampled,
}
