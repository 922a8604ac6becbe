//! Connections, and what was found out about each.

use prometheus::{IntCounterVec, IntGauge, IntGaugeVec};

use super::{Direction, METRICS, Registrar};

pub(super) struct Families {
    connections: IntCounterVec,
    open_connections: IntGaugeVec,
    rejected_connections: IntCounterVec,
    detection: IntCounterVec,
}

impl Families {
    pub(super) fn new(of: &Registrar) -> Self {
        Self {
            connections: of.counter(
                "weir_connections_total",
                "Connections accepted, by what they carried.",
                &["direction", "service", "tls", "protocol"],
            ),
            open_connections: of.gauge(
                "weir_open_connections",
                "Connections open now.",
                &["direction"],
            ),
            rejected_connections: of.counter(
                "weir_rejected_connections_total",
                "Connections that were refused, by reason.",
                &["direction", "reason"],
            ),
            detection: of.counter(
                "weir_detection_total",
                "How the protocol of a connection was found out.",
                &["direction", "service", "verdict", "why"],
            ),
        }
    }
}

pub fn connection(direction: Direction, service: &str, mutual_tls: bool, protocol: &str) {
    let tls = if mutual_tls { "mtls" } else { "none" };
    METRICS
        .connections
        .connections
        .with_label_values(&[direction.as_str(), service, tls, protocol])
        .inc();
}

pub fn open_connections(direction: Direction) -> IntGauge {
    METRICS
        .connections
        .open_connections
        .with_label_values(&[direction.as_str()])
}

pub fn rejected_connection(direction: Direction, reason: &str) {
    METRICS
        .connections
        .rejected_connections
        .with_label_values(&[direction.as_str(), reason])
        .inc();
}

/// What was decided about a connection's protocol, and why: HTTP policy is never lost silently.
pub fn detected(direction: Direction, service: &str, verdict: &str, why: &str) {
    METRICS
        .connections
        .detection
        .with_label_values(&[direction.as_str(), service, verdict, why])
        .inc();
}
