//! How many endpoints of a large pool one sidecar calls.
//!
//! ```text
//!   pool, in an order of this sidecar's own   ●●●●●●●●●●●●●●●●●●●●○○○○○○○○○○○○○○ … 500
//!                                             └──── aperture ────┘◀─▶ wider with calls in flight, and when
//!                                                                     those in it say that they are busy
//! ```
//!
//! Every connection has its price: a TLS handshake, memory at both ends, and no two calls that could share a read, a
//! write and a wake-up. 64 calls on 500 connections cost twice what they cost on three (benches/README.md). Finagle's
//! aperture (load band, 15 s of smoothing) with the order of gRFC A68: by a hash of endpoint and sidecar, so that every
//! endpoint has its share of sidecars, and when one goes the others stay where they were.
//!
//! Which endpoints are in it is for whoever knows their gates: the first so many of those that take calls.
//!
//! No clock: the caller passes `now`.

use std::time::Duration;

use tokio::time::Instant;

/// A pool up to this size is called as a whole.
pub const WHOLE_UP_TO: usize = 50;
/// Enough for the choice of two to be a choice, and for one that fails to be one in many.
pub const LEAST: usize = 20;
/// So many calls in flight at each, and it is wide enough.
const CALLS_EACH: f64 = 4.0;
/// Above this share of what they can do, endpoints are busy, and others may not be.
const BUSY: f64 = 0.8;
/// While they are, it doubles in this time, …
const WIDENS_IN: Duration = Duration::from_secs(1);
/// … and it becomes narrower by this time's decay: connections that have been made are worth keeping for a while.
const NARROWS_IN: Duration = Duration::from_secs(15);

#[derive(Debug)]
pub struct Aperture {
    /// Calls in flight: the most of late.
    level: f64,
    /// How much wider than the calls in flight need, because endpoints are busy: 1.0 and more.
    strain: f64,
    as_of: Instant,
}

impl Aperture {
    pub const fn new(now: Instant) -> Self {
        Self {
            level: 0.0,
            strain: 1.0,
            as_of: now,
        }
    }

    /// To be asked a few times a second. `load`: how busy those in the aperture say they are; 1.0 is all they can do.
    pub fn width(&mut self, in_flight: u32, load: f64, pool: usize, now: Instant) -> usize {
        let passed = now.saturating_duration_since(self.as_of);
        self.as_of = now;
        if pool <= WHOLE_UP_TO {
            return pool;
        }
        let kept = (-passed.as_secs_f64() / NARROWS_IN.as_secs_f64()).exp();
        self.level = f64::from(in_flight).max(self.level * kept);
        self.strain = if load > BUSY {
            // Whoever was not asked for a minute has not been busy for a minute.
            let passed = passed.min(WIDENS_IN).as_secs_f64();
            self.strain * (passed / WIDENS_IN.as_secs_f64()).exp2()
        } else {
            1.0 + (self.strain - 1.0) * kept
        };
        let needed = (self.level / CALLS_EACH).max(LEAST as f64);
        self.strain = self.strain.min(pool as f64 / needed).max(1.0);
        // A fraction that is left of what has decayed is no endpoint more.
        ((needed * self.strain).round() as usize).min(pool)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TICK: Duration = Duration::from_millis(50);

    fn after(seconds: u64, aperture: &mut Aperture, in_flight: u32, load: f64) -> usize {
        let mut width = 0;
        for _ in 0..seconds * 20 {
            let now = aperture.as_of + TICK;
            width = aperture.width(in_flight, load, 500, now);
        }
        width
    }

    #[test]
    fn a_small_pool_is_called_as_a_whole_and_a_large_one_in_part() {
        let now = Instant::now();
        for (pool, width) in [(0, 0), (3, 3), (50, 50), (51, 20), (500, 20)] {
            assert_eq!(Aperture::new(now).width(64, 0.0, pool, now), width);
        }
    }

    #[test]
    fn it_is_wide_at_once_when_calls_pile_up_and_narrow_again_when_they_have_long_been_few() {
        let mut aperture = Aperture::new(Instant::now());
        assert_eq!(after(1, &mut aperture, 64, 0.0), 20);
        let now = aperture.as_of;
        assert_eq!(aperture.width(400, 0.0, 500, now), 100);
        assert!(after(5, &mut aperture, 64, 0.0) > 60, "not yet");
        assert_eq!(after(60, &mut aperture, 64, 0.0), 20);
        assert_eq!(aperture.width(10_000, 0.0, 500, aperture.as_of), 500);
    }

    /// Planted: the load that the endpoints tell of is not looked at, and those in the aperture drown beside idle ones.
    #[test]
    fn endpoints_that_are_busy_make_it_as_wide_as_the_pool_within_five_seconds() {
        let mut aperture = Aperture::new(Instant::now());
        assert_eq!(after(10, &mut aperture, 64, 0.79), 20);
        assert_eq!(after(5, &mut aperture, 64, 0.9), 500);
        assert!(after(10, &mut aperture, 64, 0.3) > 100, "not at once");
        assert_eq!(after(120, &mut aperture, 64, 0.3), 20);
    }

    #[test]
    fn an_hour_without_calls_counts_as_one_second_of_load() {
        let mut aperture = Aperture::new(Instant::now());
        let later = aperture.as_of + Duration::from_secs(3600);
        assert_eq!(aperture.width(64, 0.9, 500, later), 40);
    }

    proptest! {
        #[test]
        fn it_is_never_wider_than_the_pool_nor_narrower_than_it_may_be(
            steps in prop::collection::vec((0u32..5_000, 0.0..1.5, 0usize..1_000, 0u64..100_000), 1..50),
        ) {
            let mut aperture = Aperture::new(Instant::now());
            for (in_flight, load, pool, millis) in steps {
                let now = aperture.as_of + Duration::from_millis(millis);
                let width = aperture.width(in_flight, load, pool, now);
                prop_assert!(width <= pool && width >= pool.min(LEAST), "{width} of {pool}");
            }
        }
    }
}
