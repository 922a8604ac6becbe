//! How busy an endpoint says it is: back-pressure from hop to hop.
//!
//! ```text
//!   callee: in flight over limit ─▶ below half: nothing is said
//!                                   above: x-weir-load: 50 … 200, in percent and steps of ten
//!   caller: ─▶ smoothed over a second, forgotten after five ─▶ price × 1 … 5 in the balancer, K of the throttle
//! ```
//!
//! What Prequal (NSDI'24) asks by probes and gRPC's A51 carries as ORCA reports, our sidecars know and say along with
//! each answer. Not in ORCA's form, `endpoint-load-metrics: TEXT application_utilization=0.63`: that is to be
//! written and parsed for every response, and a value that never repeats is never compressed. One of sixteen ready-made
//! values costs a reference count, and six bytes on the first response that has it; the usual case, a callee that is
//! not busy, costs nothing at all, because silence means so.

use std::time::Duration;

use http::HeaderValue;
use tokio::time::Instant;

/// Below half of what it can do, an endpoint is as good as idle.
const SAID_FROM: u32 = 50;
const STEP: u32 = 10;
/// A limit that was just cut to half of what is in flight. More is all the same.
const SAID_UP_TO: u32 = 200;

const SMOOTHING: Duration = Duration::from_secs(1);
/// So long after the last answer it is anybody's guess.
const EXPIRY: Duration = Duration::from_secs(5);
/// A busy endpoint is dearer, not banned: it may be the only one that answers.
const FACTOR_MAX: f64 = 5.0;

/// What to tell callers; `None`: nothing. `utilisation`: 1.0 is all that the app can do.
pub fn stamp(utilisation: f32) -> Option<HeaderValue> {
    #[rustfmt::skip]
    const VALUES: [&str; 16] = [
        "50", "60", "70", "80", "90", "100", "110", "120", "130", "140", "150", "160", "170", "180", "190", "200",
    ];
    // A float that does not fit becomes the nearest number that does, and what is none becomes zero.
    let percent = ((utilisation * 100.0).round() as u32).min(SAID_UP_TO);
    let step = percent.checked_sub(SAID_FROM)? / STEP;
    Some(HeaderValue::from_static(VALUES[step as usize]))
}

/// 1.0 is all that it can do. Malformed is as if it were absent, and that means little.
pub fn read(value: Option<&HeaderValue>) -> f64 {
    let percent = || value?.to_str().ok()?.parse::<u32>().ok();
    f64::from(percent().unwrap_or(0).min(SAID_UP_TO)) / 100.0
}

/// What one endpoint has said lately.
#[derive(Clone, Copy, Debug, Default)]
pub struct Load(Option<Said>);

#[derive(Clone, Copy, Debug)]
struct Said {
    /// 1.0 is all that it can do.
    smoothed: f64,
    at: Instant,
}

impl Load {
    pub fn observe(&mut self, load: f64, now: Instant) {
        self.0 = match self.0.filter(|said| said.is_fresh(now)) {
            // Never busy, and still not: nothing to keep.
            None if load == 0.0 => None,
            None => Some(Said {
                smoothed: load,
                at: now,
            }),
            Some(said) => {
                let passed = now.saturating_duration_since(said.at);
                let left = (-passed.div_duration_f64(SMOOTHING)).exp();
                Some(Said {
                    smoothed: said.smoothed * left + load * (1.0 - left),
                    at: said.at.max(now),
                })
            }
        };
    }

    pub fn get(&self, now: Instant) -> f64 {
        let said = self.0.filter(|said| said.is_fresh(now));
        said.map_or(0.0, |said| said.smoothed)
    }

    /// What a call costs there, against one to an endpoint that is half busy: a queue's 1 / (1 − utilisation).
    pub fn factor(&self, now: Instant) -> f64 {
        if self.0.is_none() {
            return 1.0;
        }
        let idle = 1.0 - self.get(now);
        (0.5 / idle.max(f64::EPSILON)).clamp(1.0, FACTOR_MAX)
    }
}

impl Said {
    fn is_fresh(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.at) < EXPIRY
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn what_is_said_is_what_is_understood_in_steps_of_ten() {
        for (busy, understood) in [
            (0.0, 0.0),
            (0.49, 0.0),
            (0.5, 0.5),
            (0.69, 0.6),
            (1.0, 1.0),
            (1.55, 1.5),
            (2.0, 2.0),
            (f32::INFINITY, 2.0),
            (f32::NAN, 0.0),
            (-1.0, 0.0),
        ] {
            assert_eq!(read(stamp(busy).as_ref()), understood, "{busy:?}");
        }
    }

    #[test]
    fn nonsense_means_nothing() {
        for text in ["", "-1", "busy", "1e9", "0x40"] {
            assert_eq!(read(Some(&HeaderValue::from_static(text))), 0.0, "{text:?}");
        }
        assert_eq!(read(Some(&HeaderValue::from_static("4000000000"))), 2.0);
    }

    /// Planted: without the expiry an endpoint that nobody calls because it was busy stays busy for ever.
    #[test]
    fn it_follows_within_seconds_and_forgets() {
        let (mut load, now) = (Load::default(), Instant::now());
        assert_eq!(load.factor(now), 1.0);
        load.observe(1.0, now);
        assert_eq!((load.get(now), load.factor(now)), (1.0, FACTOR_MAX));
        load.observe(0.0, now + millis(500));
        let half = load.get(now + millis(500));
        assert!((0.55..0.65).contains(&half), "{half}");
        for more in 1..=40 {
            load.observe(0.0, now + millis(500 + 100 * more));
        }
        assert!(load.get(now + millis(4500)) < 0.05);
        load.observe(1.0, now + millis(4600));
        let later = now + millis(4600) + EXPIRY;
        assert_eq!((load.get(later), load.factor(later)), (0.0, 1.0));
    }

    #[test]
    fn a_busy_endpoint_is_dearer_and_never_banned() {
        let now = Instant::now();
        let factor = |said: f64| {
            let mut load = Load::default();
            load.observe(said, now);
            load.factor(now)
        };
        let factors = [0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 2.0].map(factor);
        assert_eq!(factors[0], 1.0);
        assert!(
            factors.is_sorted() && factors[6] == FACTOR_MAX,
            "{factors:?}"
        );
    }
}
