//! Where rules of routes sent calls and copies of them.

use prometheus::{IntCounter, IntCounterVec};

use super::{METRICS, Registrar};

pub(super) struct Families {
    routed: IntCounterVec,
    mirrored: IntCounterVec,
}

impl Families {
    pub(super) fn new(of: &Registrar) -> Self {
        Self {
            routed: of.counter(
                "weir_routed_total",
                "Calls that a rule of a route sent to a backend (empty: to one that is not there).",
                &["service", "route", "backend"],
            ),
            mirrored: of.counter(
                "weir_mirrored_total",
                "Copies of calls by what became of them: answered, failed, or left out because there were too many or the body was too long.",
                &["service", "route", "backend", "result"],
            ),
        }
    }
}

/// Of one backend of one rule.
#[derive(Clone, Debug)]
pub struct RoutedMetrics(IntCounter);

impl RoutedMetrics {
    pub fn new(service: &str, rule: &str, backend: Option<&str>) -> Self {
        let labels = [service, rule, backend.unwrap_or_default()];
        Self(METRICS.routing.routed.with_label_values(&labels))
    }

    pub fn count(&self) {
        self.0.inc();
    }
}

#[derive(Clone, Debug)]
pub struct MirrorMetrics {
    pub answered: IntCounter,
    pub failed: IntCounter,
    pub left_out: IntCounter,
}

impl MirrorMetrics {
    pub fn new(service: &str, rule: &str, backend: &str) -> Self {
        let result = |result| {
            let labels = [service, rule, backend, result];
            METRICS.routing.mirrored.with_label_values(&labels)
        };
        Self {
            answered: result("answered"),
            failed: result("failed"),
            left_out: result("left-out"),
        }
    }
}
