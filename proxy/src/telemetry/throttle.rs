//! Tries that an overloaded service was spared.

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec};
use weir_config::snapshot::Mode;

use super::{METRICS, Registrar, mode_name};

pub(super) struct Families {
    throttled: IntCounterVec,
    throttling: IntGaugeVec,
}

impl Families {
    pub(super) fn new(of: &Registrar) -> Self {
        Self {
            throttled: of.counter(
                "weir_throttled_total",
                "Tries that an overloaded service was spared; with mode=observe they were sent all the same.",
                &["service", "mode"],
            ),
            throttling: of.gauge(
                "weir_throttling",
                "1 while calls to an overloaded service are dropped again and again.",
                &["service"],
            ),
        }
    }
}

/// The handles of the throttle of one service.
pub struct ThrottleMetrics {
    /// enforce, observe
    throttled: [IntCounter; 2],
    throttling: IntGauge,
}

impl ThrottleMetrics {
    pub fn new(service: &str) -> Self {
        let of = |mode| {
            METRICS
                .throttle
                .throttled
                .with_label_values(&[service, mode_name(mode)])
        };
        Self {
            throttled: [of(Mode::Enforce), of(Mode::Observe)],
            throttling: METRICS.throttle.throttling.with_label_values(&[service]),
        }
    }

    pub fn throttling(&self, is: bool) {
        self.throttling.set(is.into());
    }

    pub fn throttled(&self, mode: Mode) {
        self.of(mode).inc();
    }

    pub fn count(&self, mode: Mode) -> u64 {
        self.of(mode).get()
    }

    fn of(&self, mode: Mode) -> &IntCounter {
        match mode {
            Mode::Enforce => &self.throttled[0],
            Mode::Observe => &self.throttled[1],
        }
    }
}
