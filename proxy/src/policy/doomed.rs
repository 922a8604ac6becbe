//! Whether the app can still answer in time: work that will be thrown away is refused before it begins.
//!
//! ```text
//!   time left ≥ the app's p50 ──▶ admitted
//!             = 0 ──────────────▶ refused: nobody waits
//!             < p50 ────────────▶ refused, but while nobody queues at most half of all calls in 10 s
//! ```
//!
//! p50 is of all calls to the port; where it has both quick and slow ones, the quick ones must not be refused for ever
//! because the slow ones are many. Finagle's deadline filter has a valve for that reason (20 % in 10 s, for clocks that
//! differ; ours are spans, so 50 % do). While a queue stands it stays shut: then each place is worth having, and
//! whoever takes one in vain takes it from somebody (resilience.md section 7).
//!
//! No clock, no lock: the caller passes `now` and owns the synchronisation.

use std::time::Duration;
use tokio::time::Instant;

use super::latency::Latency;
use super::window::{Counts, Window};

const WINDOW: Duration = Duration::from_secs(10);
/// With fewer answers in the last seconds nothing is known about how long one takes.
const SAMPLES_MIN: u64 = 20;

#[derive(Debug)]
pub struct Doomed {
    /// From the app's being asked to the head of its answer.
    latency: Latency,
    /// Calls that were answered or refused; a refusal counts as a failure.
    calls: Window,
}

impl Doomed {
    pub fn new(now: Instant) -> Self {
        Self {
            latency: Latency::new(now),
            calls: Window::new(WINDOW),
        }
    }

    /// Whether a call with so much time left may begin. `queued`: others wait for a place.
    pub fn admit(&mut self, left: Duration, queued: bool, now: Instant) -> bool {
        if left.is_zero() {
            return false;
        }
        if left >= self.typical(now) {
            return true;
        }
        let counts = self.calls.totals(now);
        let half = (counts.failures + 1) * 2 > counts.calls + 1;
        if half && !queued {
            return true;
        }
        self.calls.add(Counts::FAILURE, now);
        false
    }

    /// The app began to answer after `elapsed`.
    pub fn record(&mut self, elapsed: Duration, now: Instant) {
        self.latency.record(elapsed, now);
        self.calls.add(Counts::SUCCESS, now);
    }

    /// How long the app usually takes; zero while that is not known.
    pub fn typical(&mut self, now: Instant) -> Duration {
        match self.latency.p50(now) {
            Some(p50) if self.latency.samples() >= SAMPLES_MIN => p50,
            _ => Duration::ZERO,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// An app that has answered so many calls, each in 100 ms.
    fn learnt(calls: u64, now: Instant) -> Doomed {
        let mut doomed = Doomed::new(now);
        for _ in 0..calls {
            doomed.record(millis(100), now);
        }
        doomed
    }

    #[test]
    fn a_call_that_cannot_be_answered_in_time_is_refused_and_one_that_can_is_not() {
        let now = Instant::now();
        let mut doomed = learnt(100, now);
        assert!(!doomed.admit(millis(50), false, now));
        assert!(doomed.admit(millis(150), false, now));
    }

    #[test]
    fn nothing_is_refused_before_it_is_known_how_long_answers_take_but_what_is_over_is() {
        let now = Instant::now();
        for mut doomed in [Doomed::new(now), learnt(SAMPLES_MIN - 1, now)] {
            assert!(doomed.admit(millis(1), false, now));
            assert!(doomed.admit(millis(1), true, now));
            assert!(!doomed.admit(Duration::ZERO, false, now));
        }
        assert!(!learnt(SAMPLES_MIN, now).admit(millis(1), true, now));
    }

    #[test]
    fn what_was_learnt_is_forgotten_so_an_app_that_became_quick_is_called_again() {
        let now = Instant::now();
        let mut doomed = learnt(100, now);
        assert!(!doomed.admit(millis(50), true, now));
        let later = now + Duration::from_secs(11);
        assert!(doomed.admit(millis(50), true, later));
    }

    /// Planted bug that this finds: a valve that compares with all calls but does not count its own refusals.
    #[test]
    fn at_most_half_is_refused_while_nobody_queues_and_all_of_it_while_somebody_does() {
        let now = Instant::now();
        let mut doomed = learnt(100, now);
        let refused = |doomed: &mut Doomed, queued| {
            (0..1000)
                .filter(|_| !doomed.admit(millis(50), queued, now))
                .count()
        };
        assert_eq!(refused(&mut doomed, false), 100, "as many as were answered");
        assert_eq!(refused(&mut doomed, true), 1000);
    }

    proptest! {
        /// However calls come, whoever is refused without a queue is outnumbered by those who were answered.
        #[test]
        fn the_valve_holds_in_every_window(calls in prop::collection::vec((0u64..200, 0u64..200), 100..600)) {
            let mut now = Instant::now();
            let mut doomed = Doomed::new(now);
            let mut log = Vec::new();
            for (left, wait) in calls {
                now += millis(wait);
                let admitted = doomed.admit(millis(left + 1), false, now);
                if admitted {
                    doomed.record(millis(100), now);
                }
                log.push((now, admitted));
                let since = |span| move |(at, _): &&(Instant, bool)| now - *at < span;
                // The window is cut into tenths, so it reaches back nine to ten of them.
                let refused = log.iter().filter(since(WINDOW * 9 / 10)).filter(|(_, admitted)| !admitted).count();
                let answered = log.iter().filter(since(WINDOW)).filter(|(_, admitted)| *admitted).count();
                prop_assert!(admitted || refused <= answered, "{refused} refused, {answered} answered");
            }
        }
    }
}
