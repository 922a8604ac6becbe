//! Calls to a service: tries and retries, its breakers, and which of its endpoints are out.

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use super::{Direction, METRICS, Registrar, would_refuse};
use crate::policy::outcome::Outcome;
use crate::policy::transition::{Phase, Transition};

pub(super) struct Families {
    attempts: IntCounterVec,
    retries: IntCounterVec,
    opaque_connections: IntGaugeVec,
    breaker_state: IntGaugeVec,
    breaker_transitions: IntCounterVec,
    breaker_forced: IntGaugeVec,
    endpoint_state: IntGaugeVec,
    ejections: IntCounterVec,
    would_eject: IntCounterVec,
}

impl Families {
    pub(super) fn new(of: &Registrar) -> Self {
        Self {
            attempts: of.counter(
                "weir_attempts_total",
                "Tries sent to an endpoint.",
                &["service", "class"],
            ),
            retries: of.counter("weir_retries_total", "Tries after the first.", &["service"]),
            opaque_connections: of.gauge(
                "weir_opaque_connections",
                "Opaque connections to a service that are open, or being opened, now.",
                &["service"],
            ),
            breaker_state: of.gauge(
                "weir_breaker_state",
                "0 closed, 1 open, 2 half-open.",
                &["service", "route"],
            ),
            breaker_transitions: of.counter(
                "weir_breaker_transitions_total",
                "Changes of the breaker's state.",
                &["service", "route", "to", "reason"],
            ),
            breaker_forced: of.gauge(
                "weir_breaker_forced",
                "1 while a policy or an operator holds the breaker as it is.",
                &["service", "route"],
            ),
            endpoint_state: of.gauge(
                "weir_endpoint_state",
                "0 closed, 1 open (ejected), 2 half-open, 3 ramping.",
                &["service", "endpoint"],
            ),
            ejections: of.counter(
                "weir_ejections_total",
                "Endpoints taken out because they failed, by reason.",
                &["service", "reason"],
            ),
            would_eject: of.counter(
                "weir_would_eject_total",
                "Endpoints that would have been taken out, but for mode Observe or the cap on how many may be.",
                &["service", "reason"],
            ),
        }
    }
}

/// The handles of one backend.
pub struct BackendMetrics {
    service: String,
    attempts: [IntCounter; 3],
    pub retries: IntCounter,
    pub opaque_connections: IntGauge,
}

impl BackendMetrics {
    pub fn new(service: &str) -> Self {
        let attempts = |class| {
            METRICS
                .backend
                .attempts
                .with_label_values(&[service, class])
        };
        Self {
            service: service.to_owned(),
            attempts: [
                attempts("success"),
                attempts("failure"),
                attempts("cancelled"),
            ],
            retries: METRICS.backend.retries.with_label_values(&[service]),
            opaque_connections: METRICS
                .backend
                .opaque_connections
                .with_label_values(&[service]),
        }
    }

    pub fn attempt(&self, outcome: Outcome) {
        match outcome {
            Outcome::Success => &self.attempts[0],
            Outcome::Failure(_) => &self.attempts[1],
            Outcome::Cancelled => &self.attempts[2],
        }
        .inc();
    }

    pub fn endpoint_changed(&self, endpoint: &str, transition: &Transition) {
        let ejected = [&self.service, transition.why.as_str()];
        if !transition.enforced {
            METRICS
                .backend
                .would_eject
                .with_label_values(&ejected)
                .inc();
            return;
        }
        METRICS
            .backend
            .endpoint_state
            .with_label_values(&[&self.service, endpoint])
            .set(number(transition.to));
        if transition.to == Phase::Open {
            METRICS.backend.ejections.with_label_values(&ejected).inc();
        }
    }

    pub fn endpoint_gone(&self, endpoint: &str) {
        let _ = METRICS
            .backend
            .endpoint_state
            .remove_label_values(&[&self.service, endpoint]);
    }

    pub fn breaker_state(&self, route: &str, phase: Phase) {
        METRICS
            .backend
            .breaker_state
            .with_label_values(&[&self.service, route])
            .set(number(phase));
    }

    pub fn breaker_changed(&self, route: &str, transition: &Transition, forced: bool) {
        self.breaker_state(route, transition.to);
        METRICS
            .backend
            .breaker_forced
            .with_label_values(&[&self.service, route])
            .set(forced.into());
        METRICS
            .backend
            .breaker_transitions
            .with_label_values(&[
                &self.service,
                route,
                transition.to.as_str(),
                transition.why.as_str(),
            ])
            .inc();
    }

    /// Off the common path: only while a policy observes and would refuse.
    pub fn would_refuse(&self, reason: &str) {
        would_refuse(Direction::Outbound, &self.service, reason);
    }
}

fn number(phase: Phase) -> i64 {
    match phase {
        Phase::Closed => 0,
        Phase::Open => 1,
        Phase::HalfOpen => 2,
        Phase::Ramping => 3,
    }
}
