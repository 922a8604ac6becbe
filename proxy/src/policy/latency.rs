//! How long calls take: p50 and p99 of a pool over the last 5 to 10 seconds, any percentile over a longer span.
//!
//! ```text
//!   previous 5 s   current 5 s
//!   ├─ counts ─┤   ├─ counts ─┤◀ record: one increment
//!        └────── quantile ─┘
//! ```
//!
//! Two rotating histograms with fixed logarithmic buckets (HdrHistogram's idea, eight buckets an octave: a
//! quantile is at most 12.5 % too long, never too short). Recording is an index and an increment, nothing is
//! allocated. p50 and p99 are what stall rule, penalties, retries and deadlines compare with, on every
//! request, so they are worked out ten times a second and remembered in between.

use std::time::Duration;
use tokio::time::Instant;

const SPAN: Duration = Duration::from_secs(5);
const REFRESH: Duration = Duration::from_millis(100);

/// Each octave (factor of two) is cut into this many buckets.
const CUTS: u32 = 8;
const CUT_BITS: u32 = CUTS.ilog2();
/// Longer than this (2^30 µs, 18 minutes) is all the same.
const MICROS_MAX: u64 = 1 << 30;
const BUCKETS: usize = bucket(MICROS_MAX) + 1;

#[derive(Debug)]
pub struct Latency {
    current: Histogram,
    previous: Histogram,
    span: Duration,
    /// When `current` began.
    since: Instant,
    known: Option<Known>,
}

#[derive(Debug)]
struct Histogram {
    counts: Box<[u32; BUCKETS]>,
    total: u64,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    at: Instant,
    p50: Duration,
    p99: Duration,
}

impl Latency {
    pub fn new(now: Instant) -> Self {
        Self::over(SPAN, now)
    }

    /// What is known goes back by one to two spans.
    pub fn over(span: Duration, now: Instant) -> Self {
        Self {
            current: Histogram::new(),
            previous: Histogram::new(),
            span,
            since: now,
            known: None,
        }
    }

    pub fn record(&mut self, rtt: Duration, now: Instant) {
        self.rotate(now);
        self.current.add(rtt);
    }

    /// `None` until the pool has answered at all, and again when it has not for a while.
    pub fn p50(&mut self, now: Instant) -> Option<Duration> {
        self.known(now).map(|known| known.p50)
    }

    pub fn p99(&mut self, now: Instant) -> Option<Duration> {
        self.known(now).map(|known| known.p99)
    }

    /// Worked out afresh: for what asks rarely. `share` is 0.0 to 1.0.
    pub fn quantile(&mut self, share: f64, now: Instant) -> Option<Duration> {
        self.rotate(now);
        let total = self.samples();
        let rank = ((total as f64 * share).ceil() as u64).clamp(1, total.max(1));
        let mut seen = 0;
        for bucket in 0..BUCKETS {
            seen +=
                u64::from(self.current.counts[bucket]) + u64::from(self.previous.counts[bucket]);
            if seen >= rank {
                return Some(Duration::from_micros(highest(bucket)));
            }
        }
        None
    }

    /// How many calls the quantiles stand on.
    pub fn samples(&self) -> u64 {
        self.current.total + self.previous.total
    }

    fn known(&mut self, now: Instant) -> Option<Known> {
        let fresh = |known: &Known| now.saturating_duration_since(known.at) < REFRESH;
        if !self.known.as_ref().is_some_and(fresh) {
            self.known = self
                .quantile(0.5, now)
                .zip(self.quantile(0.99, now))
                .map(|(p50, p99)| Known { at: now, p50, p99 });
        }
        self.known
    }

    fn rotate(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.since);
        if passed < self.span {
            return;
        }
        std::mem::swap(&mut self.current, &mut self.previous);
        self.current.clear();
        if passed >= 2 * self.span {
            self.previous.clear();
        }
        self.since = now;
    }
}

impl Histogram {
    fn new() -> Self {
        Self {
            counts: Box::new([0; BUCKETS]),
            total: 0,
        }
    }

    fn add(&mut self, rtt: Duration) {
        let micros = u64::try_from(rtt.as_micros()).unwrap_or(MICROS_MAX);
        self.counts[bucket(micros.min(MICROS_MAX))] += 1;
        self.total += 1;
    }

    fn clear(&mut self) {
        if self.total > 0 {
            self.counts.fill(0);
            self.total = 0;
        }
    }
}

/// Below 8 µs each microsecond has a bucket; above, the three bits after the leading one choose.
const fn bucket(micros: u64) -> usize {
    if micros < CUTS as u64 {
        return micros as usize;
    }
    let octave = micros.ilog2() - CUT_BITS;
    let cut = micros >> octave; // CUTS up to 2 × CUTS − 1
    (octave * CUTS) as usize + cut as usize
}

/// The longest latency, in µs, that falls into a bucket.
fn highest(bucket: usize) -> u64 {
    let (bucket, cuts) = (bucket as u64, u64::from(CUTS));
    if bucket < cuts {
        return bucket;
    }
    let octave = bucket / cuts - 1;
    ((bucket % cuts + cuts + 1) << octave) - 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn latency() -> (Latency, Instant) {
        let now = Instant::now();
        (Latency::new(now), now)
    }

    #[test]
    fn it_knows_nothing_before_the_first_call_and_after_a_long_silence() {
        let (mut latency, now) = latency();
        assert_eq!(latency.p99(now), None);
        latency.record(millis(5), now);
        assert!(latency.p99(now).is_some());
        assert_eq!(latency.p99(now + 2 * SPAN), None);
    }

    #[test]
    fn what_happened_in_the_last_five_seconds_always_counts() {
        let (mut latency, start) = latency();
        latency.record(millis(5), start);
        latency.record(millis(500), start + SPAN - millis(1));
        latency.record(millis(5), start + SPAN);
        assert_eq!(latency.samples(), 3);
        latency.record(millis(5), start + 2 * SPAN);
        assert_eq!(latency.samples(), 2, "the first two are forgotten");
    }

    #[test]
    fn one_outlier_in_a_hundred_moves_the_p99_and_not_the_median() {
        let (mut latency, now) = latency();
        for _ in 0..98 {
            latency.record(millis(10), now);
        }
        latency.record(millis(900), now);
        latency.record(millis(900), now);
        let (p50, p99) = (
            latency.p50(now).expect("known"),
            latency.p99(now).expect("known"),
        );
        assert!((millis(10)..millis(12)).contains(&p50), "{p50:?}");
        assert!((millis(900)..millis(1013)).contains(&p99), "{p99:?}");
    }

    #[test]
    fn a_remembered_quantile_is_a_tenth_of_a_second_old_at_most() {
        let (mut latency, now) = latency();
        latency.record(millis(10), now);
        let before = latency.p50(now);
        for _ in 0..9 {
            latency.record(millis(800), now);
        }
        assert_eq!(latency.p50(now + millis(99)), before);
        assert!(latency.p50(now + REFRESH) > before);
    }

    #[test]
    fn no_duration_is_out_of_range() {
        let (mut latency, now) = latency();
        latency.record(Duration::ZERO, now);
        latency.record(Duration::MAX, now);
        assert_eq!(latency.quantile(0.0, now), Some(Duration::ZERO));
        assert!(latency.quantile(1.0, now) >= Some(Duration::from_micros(MICROS_MAX)));
    }

    proptest! {
        #[test]
        fn a_bucket_is_at_most_an_eighth_wide(micros in 0..=MICROS_MAX) {
            let top = highest(bucket(micros));
            prop_assert!(micros <= top && top - micros <= micros / 8, "{micros} in a bucket up to {top}");
        }

        /// Against sorting all samples.
        #[test]
        fn a_quantile_is_never_too_short_and_at_most_an_eighth_too_long(
            mut micros in prop::collection::vec(0u64..10_000_000, 1..300),
            share in 0.0f64..1.0,
        ) {
            let (mut latency, now) = latency();
            for &sample in &micros {
                latency.record(Duration::from_micros(sample), now);
            }
            micros.sort_unstable();
            let rank = ((micros.len() as f64 * share).ceil() as usize).max(1);
            let exact = micros[rank - 1];
            let estimate = latency.quantile(share, now).expect("samples").as_micros() as u64;
            prop_assert!(exact <= estimate && estimate <= exact + exact / 8, "{exact} {estimate}");
        }
    }
}
