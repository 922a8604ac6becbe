//! Slow start: an endpoint that is new, or comes back, gets a growing share of its calls.
//!
//! ```text
//!   weight 1.0 ┤          ╭────────
//!              │       ╭──╯
//!          0.1 ┼───────╯
//!              └──────────┴────────▶ time since start
//!                        span
//! ```
//!
//! Envoy's slow-start formula `max(min, t^(1/aggression))` with aggression 1 and a floor of 10 %: caches
//! fill, JITs compile and pools connect under a load that grows linearly, and the floor makes sure that
//! there is some load to warm up with.

use std::time::Duration;
use tokio::time::Instant;

/// The share that the ramp starts with.
pub const WEIGHT_MIN: f64 = 0.1;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ramp {
    start: Instant,
    span: Duration,
}

impl Ramp {
    pub fn new(start: Instant, span: Duration) -> Self {
        Self { start, span }
    }

    /// From [`WEIGHT_MIN`] to 1.0, never falling.
    pub fn weight(&self, now: Instant) -> f64 {
        let passed = now.saturating_duration_since(self.start);
        if passed >= self.span {
            return 1.0;
        }
        passed.div_duration_f64(self.span).max(WEIGHT_MIN)
    }

    pub fn is_over(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.start) >= self.span
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn it_starts_at_a_tenth_is_linear_and_ends_at_one() {
        let start = Instant::now();
        let ramp = Ramp::new(start, Duration::from_secs(10));
        for (secs, weight) in [(0, 0.1), (1, 0.1), (2, 0.2), (5, 0.5), (10, 1.0), (99, 1.0)] {
            assert_eq!(
                ramp.weight(start + Duration::from_secs(secs)),
                weight,
                "after {secs} s"
            );
        }
    }

    #[test]
    fn no_span_is_no_ramp() {
        let now = Instant::now();
        assert_eq!(Ramp::new(now, Duration::ZERO).weight(now), 1.0);
        assert!(Ramp::new(now, Duration::ZERO).is_over(now));
    }

    proptest! {
        #[test]
        fn never_falls_and_never_leaves_its_bounds(span in 0u64..100_000, a in 0u64..200_000, b in 0u64..200_000) {
            let start = Instant::now();
            let ramp = Ramp::new(start, Duration::from_millis(span));
            let weight = |millis| ramp.weight(start + Duration::from_millis(millis));
            prop_assert!(weight(a.min(b)) <= weight(a.max(b)));
            prop_assert!((WEIGHT_MIN..=1.0).contains(&weight(a)));
        }
    }
}
