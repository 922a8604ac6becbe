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
    /// What one call took when it was last called, and how many would be there with the next one. The cost is less while
    /// it is left alone: so that it is tried again, not because it got better.
    latency: f64,
    queue: f64,
}

/// Where calls in flight are all that is compared, an endpoint that fails counts as many times as busy.
const GATED_REQUESTS: f64 = 10.0;

impl Load {
    /// Of which no more is known.
    pub const fn of(cost: f64, weight: f64) -> Self {
        Self {
            cost,
            weight,
            latency: 0.0,
            queue: 1.0,
        }
    }

    /// `at_least`: what a call takes, as far as the endpoint's silence tells. One that hangs should not get one call after
    /// the other until one of them has failed.
    pub fn peak_ewma(
        ewma: &Ewma,
        pending: u32,
        at_least: Duration,
        weight: f64,
        now: Instant,
    ) -> Self {
        Self {
            cost: ewma.cost_at_least(now, pending, at_least),
            weight,
            latency: ewma.when_last_called(),
            queue: f64::from(pending) + 1.0,
        }
    }

    pub fn peak_ewma_gated(ewma: &Ewma, pending: u32, penalty: Duration, now: Instant) -> Self {
        Self::of(ewma.cost_at_least(now, pending, penalty), 1.0)
    }

    /// By calls in flight alone, whatever they take (`algorithm: LeastRequest`).
    pub fn least_request(pending: u32, weight: f64) -> Self {
        Self::of(f64::from(pending) + 1.0, weight)
    }

    pub fn least_request_gated(pending: u32) -> Self {
        Self::of(GATED_REQUESTS * (f64::from(pending) + 1.0), 1.0)
    }

    /// Of an endpoint that says that it is busy.
    #[must_use]
    pub fn dearer(self, factor: f64) -> Self {
        Self {
            cost: self.cost * factor,
            latency: self.latency * factor,
            ..self
        }
    }

    /// Of an endpoint that is to have that share of what others have: a call in flight there weighs more. One that is
    /// idle costs no more for it, for it is drawn less often as it is.
    pub fn with_share(self, share: f64, pending: u32) -> Self {
        let pending = f64::from(pending);
        let factor = (pending / share + 1.0) / (pending + 1.0);
        Self {
            cost: self.cost * factor,
            queue: self.queue * factor,
            ..self
        }
    }

    pub(super) fn weighted(&self) -> f64 {
        self.cost / self.weight
    }

    /// The same, of an endpoint far away that may have been left alone for long because there is one nearby: it is no better
    /// than it was, as far as `near` is not worse.
    pub(super) fn weighted_beside(&self, near: &Self) -> f64 {
        let least = self.latency.min(near.latency) * self.queue;
        self.cost.max(least) / self.weight
    }
}
