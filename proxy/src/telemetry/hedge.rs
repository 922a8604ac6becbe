//! Second tries beside a slow first one.

use prometheus::{IntCounter, IntCounterVec};

use super::{METRICS, Registrar};
use crate::policy::hedge::Withheld;

pub(super) struct Families {
    hedges: IntCounterVec,
    hedges_withheld: IntCounterVec,
}

impl Families {
    pub(super) fn new(of: &Registrar) -> Self {
        Self {
            hedges: of.counter(
                "weir_hedges_total",
                "Second tries beside a slow first one, by what they came to; observed ones were not made.",
                &["service", "result"],
            ),
            hedges_withheld: of.counter(
                "weir_hedges_withheld_total",
                "Slow calls that were not made a second time, by reason.",
                &["service", "reason"],
            ),
        }
    }
}

/// The handles of the hedging of one service.
pub struct HedgeMetrics {
    /// won, lost, failed, observed
    hedges: [IntCounter; 4],
    withheld: [IntCounter; Withheld::ALL.len()],
}

impl HedgeMetrics {
    pub fn new(service: &str) -> Self {
        let result = |result| METRICS.hedge.hedges.with_label_values(&[service, result]);
        let withheld = |reason: Withheld| {
            METRICS
                .hedge
                .hedges_withheld
                .with_label_values(&[service, reason.as_str()])
        };
        Self {
            hedges: ["won", "lost", "failed", "observed"].map(result),
            withheld: Withheld::ALL.map(withheld),
        }
    }

    /// It answered first.
    pub fn won(&self) {
        self.hedges[0].inc();
    }

    /// The first try did.
    pub fn lost(&self) {
        self.hedges[1].inc();
    }

    /// It had no good answer.
    pub fn failed(&self) {
        self.hedges[2].inc();
    }

    /// It would have been made.
    pub fn observed(&self) {
        self.hedges[3].inc();
    }

    pub fn withheld(&self, reason: Withheld) {
        self.withheld[reason as usize].inc();
    }
}
