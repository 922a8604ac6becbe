//! Callers who may not, and connections that were cut because they may no longer.

use prometheus::IntCounterVec;

use super::{METRICS, Registrar};

pub(super) struct Families {
    denied: IntCounterVec,
    would_deny: IntCounterVec,
    revoked: IntCounterVec,
    revoked_calls: IntCounterVec,
}

impl Families {
    pub(super) fn new(of: &Registrar) -> Self {
        Self {
            denied: of.counter(
                "weir_denied_total",
                "Requests and opaque connections whose caller may not, by the policy that says so (empty: none that it may).",
                &["service", "policy", "reason"],
            ),
            would_deny: of.counter(
                "weir_would_deny_total",
                "Those that would be denied if policies in mode Audit were enforced.",
                &["service", "policy", "reason"],
            ),
            revoked: of.counter(
                "weir_revoked_connections_total",
                "Open connections that were cut because a policy took away the right to them.",
                &["service", "carries"],
            ),
            revoked_calls: of.counter(
                "weir_revoked_calls_total",
                "Calls that were cut because a policy had taken away the right to them, and they did not end.",
                &["service"],
            ),
        }
    }
}

/// `policy`: its name, which the control plane says.
pub fn denied(service: &str, policy: Option<&str>, reason: &'static str) {
    let labels = [service, policy.unwrap_or_default(), reason];
    METRICS
        .authorization
        .denied
        .with_label_values(&labels)
        .inc();
}

pub fn would_deny(service: &str, policy: Option<&str>, reason: &'static str) {
    let labels = [service, policy.unwrap_or_default(), reason];
    METRICS
        .authorization
        .would_deny
        .with_label_values(&labels)
        .inc();
}

/// `carries`: "opaque" or "upgraded".
pub fn revoked(service: &str, carries: &'static str) {
    METRICS
        .authorization
        .revoked
        .with_label_values(&[service, carries])
        .inc();
}

pub fn revoked_call(service: &str) {
    METRICS
        .authorization
        .revoked_calls
        .with_label_values(&[service])
        .inc();
}
