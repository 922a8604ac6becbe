//! Calls to a service: tries and retries, its breakers, and which of its endpoints are out.

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;

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
    endpoint_transitions: IntCounterVec,
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
            endpoint_transitions: of.counter(
                "weir_endpoint_transitions_total",
                "Changes of an endpoint's gate; gone with the endpoint.",
                &["service", "endpoint", "to", "reason"],
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
    /// To what and why, by endpoint: what there is to be forgotten with it.
    transitions: Mutex<HashMap<String, HashSet<[&'static str; 2]>>>,
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
            transitions: Mutex::default(),
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
        let [to, why] = [transition.to.as_str(), transition.why.as_str()];
        METRICS
            .backend
            .endpoint_transitions
            .with_label_values(&[&self.service, endpoint, to, why])
            .inc();
        let mut transitions = self.transitions.lock().expect("no panic while locked");
        let of_endpoint = transitions.entry(endpoint.to_owned()).or_default();
        of_endpoint.insert([to, why]);
        if transition.to == Phase::Open {
            METRICS.backend.ejections.with_label_values(&ejected).inc();
        }
    }

    pub fn endpoint_gone(&self, endpoint: &str) {
        let _ = METRICS
            .backend
            .endpoint_state
            .remove_label_values(&[&self.service, endpoint]);
        let mut transitions = self.transitions.lock().expect("no panic while locked");
        for [to, why] in transitions.remove(endpoint).unwrap_or_default() {
            let _ = METRICS.backend.endpoint_transitions.remove_label_values(&[
                &self.service,
                endpoint,
                to,
                why,
            ]);
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::transition::Why;

    #[test]
    fn what_an_endpoint_did_and_why_is_counted_for_as_long_as_it_is_there() {
        let metrics = BackendMetrics::new("telemetry/backend:1");
        let transition = |to, why| Transition {
            from: Phase::Closed,
            to,
            enforced: true,
            why,
            reason: String::new(),
        };
        let told = || {
            let all = String::from_utf8(crate::telemetry::render()).expect("text");
            let lines = all.lines().filter(|line| {
                line.starts_with("weir_endpoint_") && line.contains("telemetry/backend:1")
            });
            lines.map(str::to_owned).collect::<Vec<_>>()
        };
        metrics.endpoint_changed("10.0.0.1:1", &transition(Phase::Open, Why::Stall));
        metrics.endpoint_changed("10.0.0.1:1", &transition(Phase::Open, Why::Stall));
        metrics.endpoint_changed("10.0.0.1:1", &transition(Phase::Closed, Why::RampOver));
        metrics.endpoint_changed("10.0.0.2:1", &transition(Phase::Open, Why::ConnectFailed));
        let lines = told();
        assert_eq!(lines.len(), 5, "{lines:?}");
        let counted = "endpoint=\"10.0.0.1:1\",reason=\"stall\",service=\"telemetry/backend:1\",to=\"open\"} 2";
        assert!(lines.iter().any(|line| line.contains(counted)), "{lines:?}");
        metrics.endpoint_gone("10.0.0.1:1");
        let left = told();
        assert!(
            left.len() == 2 && left.iter().all(|it| it.contains("10.0.0.2")),
            "{left:?}"
        );
    }
}
