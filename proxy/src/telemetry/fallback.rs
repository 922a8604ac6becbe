//! What callers got instead of an error, and the answers kept for that.

use prometheus::core::Collector;
use prometheus::{IntCounter, IntCounterVec, IntGauge};

use super::{METRICS, Registrar};

pub(super) struct Families {
    fallbacks: IntCounterVec,
    stale_answers: IntGauge,
    stale_bytes: IntGauge,
}

impl Families {
    pub(super) fn new(of: &Registrar) -> Self {
        Self {
            fallbacks: of.counter(
                "weir_fallbacks_total",
                "Calls that failed, and what their callers got instead.",
                &["service", "kind"],
            ),
            stale_answers: of.single_gauge(
                "weir_stale_answers",
                "Answers kept for when nobody gives a fresh one.",
            ),
            stale_bytes: of.single_gauge("weir_stale_bytes", "What those take up; 16 MiB at most."),
        }
    }
}

/// What callers of one service got instead of an error.
pub struct FallbackMetrics {
    pub stale: IntCounter,
    pub alternate: IntCounter,
    pub fixed: IntCounter,
}

impl FallbackMetrics {
    pub fn new(service: &str) -> Self {
        let kind = |kind| {
            METRICS
                .fallback
                .fallbacks
                .with_label_values(&[service, kind])
        };
        Self {
            stale: kind("stale"),
            alternate: kind("alternate"),
            fixed: kind("fixed"),
        }
    }
}

/// How often callers of a service got something in place of its answer. For people: it goes through the whole family.
pub fn fallbacks(service: &str) -> u64 {
    let families = METRICS.fallback.fallbacks.collect();
    let series = families.iter().flat_map(|family| family.get_metric());
    let of_service = series.filter(|series| {
        let mut labels = series.get_label().iter();
        labels.any(|label| label.name() == "service" && label.value() == service)
    });
    let count: f64 = of_service
        .map(|series| series.get_counter().get_value())
        .sum();
    count as u64
}

pub fn stale_kept(answers: usize, bytes: usize) {
    let number = |size| i64::try_from(size).unwrap_or(i64::MAX);
    METRICS.fallback.stale_answers.set(number(answers));
    METRICS.fallback.stale_bytes.set(number(bytes));
}
