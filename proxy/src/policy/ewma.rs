//! What one more call to an endpoint would cost: a moving average of its latency, quick to rise and slow to
//! fall, with a failure priced as a slow answer.
//!
//! ```text
//!   cost  ┤   ╭╮ failure: priced at seconds
//!         │   │╰─╮
//!         │   │  ╰──╮  e^(−t/decay), idle or not: it will be tried again
//!         │ ╭─╯     ╰────╮
//!         ┼─╯            ╰────────
//! ```
//!
//! Peak-EWMA is Finagle's (`loadbalancer/Ewma.scala`; tower and linkerd have it too): cost = latency ×
//! (calls in flight + 1), a peak is believed at once. Without a price for failures it sends 60 % of the
//! traffic to an endpoint that fails fast, because nothing is faster; with it, that endpoint is avoided with
//! no gate at all (resilience.md section 3, linkerd 2026-06).

use std::time::Duration;
use tokio::time::Instant;

/// Time constant of the decay.
const DECAY: Duration = Duration::from_secs(10);
/// The same for an endpoint that was penalised and answers again: it should not wait a minute for its share.
const DECAY_RECOVERING: Duration = Duration::from_secs(5);
const RECOVERING_SUCCESSES: u32 = 3;
/// The penalty is over when the estimate is no more than this many times what is really observed.
const RECOVERED_FACTOR: f64 = 2.0;

/// For an endpoint that nothing is known about, in a pool that nothing is known about.
pub const SEED: Duration = Duration::from_millis(30);

/// A failure costs this many pool p99s, within bounds …
const PENALTY_P99S: u32 = 10;
const PENALTY_MIN: Duration = Duration::from_secs(1);
const PENALTY_MAX: Duration = Duration::from_secs(5);
/// … or what the endpoint asked for, up to this.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(30);

/// The latency that a failure is recorded as.
pub fn penalty(pool_p99: Duration, retry_after: Option<Duration>) -> Duration {
    let asked = retry_after.unwrap_or_default().min(RETRY_AFTER_MAX);
    pool_p99
        .saturating_mul(PENALTY_P99S)
        .clamp(PENALTY_MIN, PENALTY_MAX)
        .max(asked)
}

#[derive(Clone, Copy, Debug)]
pub struct Ewma {
    nanos: f64,
    updated: Instant,
    penalised: Option<Penalised>,
}

#[derive(Clone, Copy, Debug)]
struct Penalised {
    successes_since: u32,
}

impl Ewma {
    /// `seed`: the median of the pool that the endpoint joins, or [`SEED`].
    pub fn new(seed: Duration, now: Instant) -> Self {
        Self {
            nanos: nanos(seed),
            updated: now,
            penalised: None,
        }
    }

    /// A call succeeded; `rtt` is the time to the head of the response (unary) or to its first data (stream).
    pub fn observe(&mut self, rtt: Duration, now: Instant) {
        if let Some(penalised) = &mut self.penalised {
            penalised.successes_since += 1;
        }
        self.learn(nanos(rtt), now);
        if self.nanos <= nanos(rtt) * RECOVERED_FACTOR {
            self.penalised = None;
        }
    }

    /// A call was given up on after `elapsed`, unanswered: it would have taken longer, so this can only raise.
    pub fn observe_at_least(&mut self, elapsed: Duration, now: Instant) {
        if nanos(elapsed) > self.nanos {
            self.learn(nanos(elapsed), now);
        }
    }

    /// A call failed; see [`penalty`].
    pub fn penalize(&mut self, penalty: Duration, now: Instant) {
        self.learn(nanos(penalty), now);
        self.penalised = Some(Penalised { successes_since: 0 });
    }

    /// What one more call would cost, in nanoseconds, while `pending` are in flight.
    pub fn cost(&self, now: Instant, pending: u32) -> f64 {
        self.nanos * self.left(now) * (f64::from(pending) + 1.0)
    }

    /// The same for an endpoint of which more is known than its answers tell: it has not answered for so long, or it is
    /// known to fail. While its gate is open its average falls for want of calls, not because it got better.
    pub fn cost_at_least(&self, now: Instant, pending: u32, latency: Duration) -> f64 {
        let least = nanos(latency) * (f64::from(pending) + 1.0);
        self.cost(now, pending).max(least)
    }

    /// In nanoseconds: what a call took, while there were any.
    pub const fn when_last_called(&self) -> f64 {
        self.nanos
    }

    fn learn(&mut self, sample: f64, now: Instant) {
        let left = self.left(now);
        self.nanos = if sample > self.nanos {
            sample
        } else {
            self.nanos * left + sample * (1.0 - left)
        };
        self.updated = self.updated.max(now);
    }

    /// How much of the estimate the time since the last call has left.
    fn left(&self, now: Instant) -> f64 {
        let recovering = self
            .penalised
            .is_some_and(|p| p.successes_since >= RECOVERING_SUCCESSES);
        let decay = if recovering { DECAY_RECOVERING } else { DECAY };
        let passed = now.saturating_duration_since(self.updated);
        (-passed.div_duration_f64(decay)).exp()
    }
}

fn nanos(duration: Duration) -> f64 {
    duration.as_nanos() as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn ewma() -> (Ewma, Instant) {
        let now = Instant::now();
        (Ewma::new(millis(30), now), now)
    }

    #[test]
    fn it_starts_at_its_seed_and_grows_with_what_is_in_flight() {
        let (ewma, now) = ewma();
        assert_eq!(ewma.cost(now, 0), 30e6);
        assert_eq!(ewma.cost(now, 9), 300e6);
    }

    #[test]
    fn a_peak_is_believed_at_once_and_forgotten_slowly() {
        let (mut ewma, now) = ewma();
        ewma.observe(millis(500), now);
        assert_eq!(ewma.cost(now, 0), 500e6);
        ewma.observe(millis(10), now + millis(100));
        assert!(ewma.cost(now + millis(100), 0) > 490e6);
        for second in 1..60 {
            ewma.observe(millis(10), now + millis(1000 * second));
        }
        let cost = ewma.cost(now + millis(59_000), 0);
        assert!((10e6..15e6).contains(&cost), "{cost}");
    }

    #[test]
    fn failing_fast_is_no_way_to_look_fast() {
        let (mut failing, now) = ewma();
        let mut healthy = failing;
        failing.penalize(penalty(millis(30), None), now);
        healthy.observe(millis(40), now);
        assert!(failing.cost(now, 0) > healthy.cost(now, 20));
    }

    #[test]
    fn an_idle_endpoint_gets_cheap_enough_to_be_tried_again() {
        let (mut ewma, now) = ewma();
        ewma.penalize(millis(5000), now);
        assert!(ewma.cost(now + millis(120_000), 0) < 1e6);
    }

    #[test]
    fn a_gated_endpoint_does_not_get_cheap_by_waiting() {
        let (mut ewma, now) = ewma();
        ewma.penalize(millis(5000), now);
        let later = now + millis(120_000);
        assert_eq!(ewma.cost_at_least(now, 1, millis(1000)), 10_000e6);
        assert_eq!(ewma.cost_at_least(later, 1, millis(1000)), 2000e6);
    }

    #[test]
    fn a_caller_that_hangs_up_early_makes_nothing_look_fast() {
        let (mut ewma, now) = ewma();
        ewma.observe_at_least(millis(1), now + millis(5000));
        assert_eq!(ewma.cost(now, 0), 30e6);
        ewma.observe_at_least(millis(900), now);
        assert_eq!(ewma.cost(now, 0), 900e6);
    }

    #[test]
    fn three_successes_halve_the_time_a_penalty_lasts() {
        let (mut one, now) = ewma();
        one.penalize(millis(5000), now);
        let mut three = one;
        one.observe(millis(30), now);
        for _ in 0..3 {
            three.observe(millis(30), now);
        }
        let later = now + millis(5000);
        let (one, three) = (one.cost(later, 0), three.cost(later, 0));
        assert!((one / 5000e6 - (-0.5f64).exp()).abs() < 0.01, "{one}");
        assert!((three / 5000e6 - (-1.0f64).exp()).abs() < 0.01, "{three}");
    }

    #[test]
    fn the_quick_decay_ends_with_the_penalty() {
        let (mut ewma, mut now) = ewma();
        ewma.penalize(millis(1000), now);
        for _ in 0..300 {
            now += millis(100);
            ewma.observe(millis(30), now);
        }
        assert!(ewma.penalised.is_none());
    }

    #[test]
    fn a_penalty_is_ten_p99s_within_bounds_or_what_the_endpoint_asks_for() {
        for (p99, asked, is) in [
            (10, None, 1000),
            (200, None, 2000),
            (9000, None, 5000),
            (200, Some(0), 2000),
            (200, Some(8000), 8000),
            (200, Some(86_400_000), 30_000),
        ] {
            assert_eq!(penalty(millis(p99), asked.map(millis)), millis(is));
        }
    }

    proptest! {
        /// Between the smallest and the largest it was told, finite, and never rising by itself.
        #[test]
        fn stays_within_what_it_was_told(
            samples in prop::collection::vec((1u64..10_000, 0u64..20_000, any::<bool>()), 1..100)
        ) {
            let (mut ewma, mut now) = ewma();
            let (mut least, mut most) = (30e6, 30e6f64);
            for (rtt, wait, failed) in samples {
                now += millis(wait);
                let sample = nanos(millis(rtt));
                (least, most) = (sample.min(least), sample.max(most));
                if failed { ewma.penalize(millis(rtt), now) } else { ewma.observe(millis(rtt), now) }
                let cost = ewma.cost(now, 0);
                prop_assert!(least * 0.999 <= cost && cost <= most * 1.001, "{least} {cost} {most}");
                prop_assert!(ewma.cost(now + millis(1), 0) <= cost);
            }
        }
    }
}
