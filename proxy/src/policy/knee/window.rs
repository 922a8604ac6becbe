//! What the limiter saw between two looks at it.

use std::time::Duration;

use tokio::time::Instant;

use super::{CUT, Ended};

/// So few answers are no measure.
pub(super) const COMPLETIONS_MIN: u32 = 10;
/// More of a window's answers than this saying "overloaded" is as good as a long time in the app.
const OVERLOADED: f64 = 0.05;
/// Where most get no answer in time there is little to lose, and what they asked for fills the app meanwhile.
const CUT_FOR_NOTHING: f64 = 0.5;

#[derive(Debug)]
pub(super) struct Window {
    pub(super) since: Instant,
    pub(super) completed: u32,
    answered: u32,
    overloaded: u32,
    pub(super) given_up: u32,
    /// Of those answered and, as far as they waited, of those given up, in seconds.
    time_in_app: f64,
    pub(super) in_flight_at_start: u32,
    pub(super) in_flight_max: u32,
    pub(super) arrived: u32,
    /// Of those, who found no room.
    pub(super) met_limit: u32,
    /// And of those, for whom there was none because it is kept for others.
    pub(super) met_kept: u32,
}

impl Window {
    pub(super) fn new(since: Instant, in_flight: u32) -> Self {
        Self {
            since,
            completed: 0,
            answered: 0,
            overloaded: 0,
            given_up: 0,
            time_in_app: 0.0,
            in_flight_at_start: in_flight,
            in_flight_max: in_flight,
            arrived: 0,
            met_limit: 0,
            met_kept: 0,
        }
    }

    pub(super) fn add(&mut self, latency: Duration, ended: Ended) {
        match ended {
            Ended::Answered => {
                self.answered += 1;
                self.time_in_app += latency.as_secs_f64();
            }
            Ended::Overloaded => self.overloaded += 1,
            Ended::GivenUp => {
                self.given_up += 1;
                self.time_in_app += latency.as_secs_f64();
            }
            Ended::Failed => {}
            Ended::Unmeasured => return,
        }
        self.completed += 1;
    }

    /// Enough of them to mean something.
    pub(super) fn mean(&self) -> Option<f64> {
        let measured = self.answered + self.given_up;
        (measured >= COMPLETIONS_MIN.min(self.completed / 2).max(1))
            .then(|| self.time_in_app / f64::from(measured))
    }

    /// The app says so itself; or most go away without an answer, and more at once would only give up more at once. What is to be
    /// left of the limit then.
    pub(super) fn overload(&self) -> Option<f64> {
        if 2 * self.given_up > self.completed {
            return Some(CUT_FOR_NOTHING);
        }
        let overloaded = f64::from(self.overloaded) > OVERLOADED * f64::from(self.completed);
        overloaded.then_some(CUT)
    }

    /// Most found no room; where some did, it is full at times.
    pub(super) fn is_saturated(&self) -> bool {
        2 * self.met_limit > self.arrived
    }

    /// Most of those found some, and it was kept for others.
    pub(super) fn is_kept_free(&self) -> bool {
        self.is_saturated() && 2 * self.met_kept > self.met_limit
    }

    /// As much has ended as has begun, but for what may be chance.
    pub(super) fn kept_up(&self, in_flight: u32) -> bool {
        f64::from(in_flight)
            <= f64::from(self.in_flight_at_start) + f64::from(self.completed).sqrt()
    }
}
