//! Randomness for waits, so that many sidecars that failed together do not come back together.
//!
//! "Exponential Backoff And Jitter" (Brooker, AWS 2015): full jitter for retries spreads the work best; a
//! gate's open time is a promise to the operator and only varies around it.

use std::time::Duration;

/// Anything from zero to `max`.
pub fn full(max: Duration, rand: u64) -> Duration {
    max.mul_f64(unit(rand))
}

/// `base`, up to `share` of it less or more.
pub fn around(base: Duration, share: f64, rand: u64) -> Duration {
    base.mul_f64(1.0 - share + 2.0 * share * unit(rand))
}

/// 0.0 up to but not including 1.0, from the bits that a float can hold.
pub fn unit(rand: u64) -> f64 {
    (rand >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_whole_range_is_used() {
        assert_eq!(full(SECOND, 0), Duration::ZERO);
        assert!(full(SECOND, u64::MAX) > Duration::from_millis(999));
        assert_eq!(around(SECOND, 0.2, 0), Duration::from_millis(800));
        assert!(around(SECOND, 0.2, u64::MAX) > Duration::from_millis(1199));
    }

    proptest! {
        #[test]
        fn never_leaves_the_range(rand: u64, millis in 0u64..100_000) {
            let base = Duration::from_millis(millis);
            prop_assert!(full(base, rand) <= base);
            let about = around(base, 0.2, rand);
            prop_assert!(base.mul_f64(0.799) <= about && about <= base.mul_f64(1.201));
        }
    }
}
