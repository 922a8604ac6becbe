//! What one more call to an endpoint would cost.

use std::time::Duration;

use tokio::time::Instant;

use crate::policy::ewma::Ewma;

/// What one more call to an endpoint would cost, in a unit that all of its pool share, and the share of calls
/// it should get (slow start, 0.1 to 1.0).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Load {
    pub cost: f64,
    pub weight: f64,
}

/// Where calls in flight are all that is compared, an endpoint that fails counts as many times as busy.
const GATED_REQUESTS: f64 = 10.0;

impl Load {
    /// `at_least`: what a call takes, as far as the endpoint's silence tells. One that hangs should not get one call after
    /// the other until one of them has failed.
    pub fn peak_ewma(
        ewma: &Ewma,
        pending: u32,
        at_least: Duration,
        weight: f64,
        now: Instant,
    ) -> Self {
        let cost = ewma.cost_at_least(now, pending, at_least);
        Self { cost, weight }
    }

    pub fn peak_ewma_gated(ewma: &Ewma, pending: u32, penalty: Duration, now: Instant) -> Self {
        let cost = ewma.cost_at_least(now, pending, penalty);
        Self { cost, weight: 1.0 }
    }

    /// By calls in flight alone, whatever they take (`algorithm: LeastRequest`).
    pub fn least_request(pending: u32, weight: f64) -> Self {
        let cost = f64::from(pending) + 1.0;
        Self { cost, weight }
    }

    pub fn least_request_gated(pending: u32) -> Self {
        let cost = GATED_REQUESTS * (f64::from(pending) + 1.0);
        Self { cost, weight: 1.0 }
    }

    /// Of an endpoint that says that it is busy.
    #[must_use]
    pub fn dearer(self, factor: f64) -> Self {
        Self {
            cost: self.cost * factor,
            ..self
        }
    }

    /// Of an endpoint that is to have that share of what others have: a call in flight there weighs more. One that is
    /// idle costs no more for it, for it is drawn less often as it is.
    pub fn with_share(self, share: f64, pending: u32) -> Self {
        let pending = f64::from(pending);
        let cost = self.cost * (pending / share + 1.0) / (pending + 1.0);
        Self { cost, ..self }
    }

    pub(super) fn weighted(&self) -> f64 {
        self.cost / self.weight
    }
}
