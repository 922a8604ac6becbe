//! Requests of a route, in one direction: how they ended, how long they took, which the sidecar answered itself.

use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec};

use super::{Direction, METRICS, Registrar};
use crate::policy::outcome::Outcome;

/// Half a millisecond to ten seconds.
const BUCKETS: &[f64] = &[
    0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15,
    0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0,
];

pub(super) struct Families {
    ended: IntCounterVec,
    duration: HistogramVec,
    refused: IntCounterVec,
    would_refuse: IntCounterVec,
}

impl Families {
    pub(super) fn new(of: &Registrar) -> Self {
        Self {
            ended: of.counter(
                "weir_requests_total",
                "Requests by how they ended.",
                &["direction", "service", "route", "class", "tls"],
            ),
            duration: of.histogram(
                "weir_request_duration_seconds",
                "From a request's head to its response's end.",
                &["direction", "service", "route"],
                BUCKETS,
            ),
            refused: of.counter(
                "weir_refused_total",
                "Requests that the sidecar answered itself, by reason.",
                &["direction", "service", "reason"],
            ),
            would_refuse: of.counter(
                "weir_would_refuse_total",
                "Requests that a policy in mode Observe would have refused, by reason.",
                &["direction", "service", "reason"],
            ),
        }
    }
}

/// The handles of one route of one service, in one direction.
pub struct RouteMetrics {
    /// success, failure, cancelled × plain, mutual TLS.
    requests: [[IntCounter; 2]; 3],
    duration: Histogram,
    direction: Direction,
    service: String,
}

impl RouteMetrics {
    pub fn new(direction: Direction, service: &str, route: &str) -> Self {
        let one = |class, tls| {
            METRICS.requests.ended.with_label_values(&[
                direction.as_str(),
                service,
                route,
                class,
                tls,
            ])
        };
        let both = |class| [one(class, "none"), one(class, "mtls")];
        Self {
            requests: [both("success"), both("failure"), both("cancelled")],
            duration: METRICS.requests.duration.with_label_values(&[
                direction.as_str(),
                service,
                route,
            ]),
            direction,
            service: service.to_owned(),
        }
    }

    pub fn direction(&self) -> Direction {
        self.direction
    }

    pub fn observe(&self, outcome: Outcome, mutual_tls: bool, seconds: f64) {
        let class = match outcome {
            Outcome::Success => 0,
            Outcome::Failure(_) => 1,
            Outcome::Cancelled => 2,
        };
        self.requests[class][usize::from(mutual_tls)].inc();
        self.duration.observe(seconds);
    }

    /// Off the common path, so a label look-up is fine.
    pub fn refused(&self, reason: &str) {
        refused(self.direction, &self.service, reason);
    }
}

/// Off the common path, like [`refused`].
pub fn would_refuse(direction: Direction, service: &str, reason: &str) {
    METRICS
        .requests
        .would_refuse
        .with_label_values(&[direction.as_str(), service, reason])
        .inc();
}

pub fn refused(direction: Direction, service: &str, reason: &str) {
    METRICS
        .requests
        .refused
        .with_label_values(&[direction.as_str(), service, reason])
        .inc();
}
