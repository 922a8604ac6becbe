//! What callers got instead of an error, and the answers kept for that.

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

pub fn stale_kept(answers: usize, bytes: usize) {
    let number = |size| i64::try_from(size).unwrap_or(i64::MAX);
    METRICS.fallback.stale_answers.set(number(answers));
    METRICS.fallback.stale_bytes.set(number(bytes));
}
