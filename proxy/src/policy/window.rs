//! Exact counts of calls over a sliding span of time, in ten buckets.
//!
//! ```text
//!            span
//!   ├──┬──┬──┬──┬──┬──┬──┬──┬──┬──┤
//!   │ 3│ 0│ 7│ 7│ 9│ 8│ 0│ 1│ 4│ 2│◀ add
//!   └──┴──┴──┴──┴──┴──┴──┴──┴──┴──┘
//!    ▲ forgotten when time moves on by a tenth of the span
//! ```
//!
//! Hystrix's and linkerd's shape: a rate over real time, so an hour-old failure of a quiet service says
//! nothing (a window of the last N calls would still hold it). Costs 120 bytes and one division a call.

use std::time::Duration;
use tokio::time::Instant;

const BUCKETS: u64 = 10;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub calls: u32,
    pub failures: u32,
    pub slow: u32,
}

impl Counts {
    pub const SUCCESS: Self = Self {
        calls: 1,
        failures: 0,
        slow: 0,
    };
    pub const FAILURE: Self = Self {
        calls: 1,
        failures: 1,
        slow: 0,
    };

    /// 0.0 to 1.0; `None` when there was no call.
    pub fn success_rate(&self) -> Option<f64> {
        (self.calls > 0).then(|| f64::from(self.calls - self.failures) / f64::from(self.calls))
    }

    pub fn add(&mut self, other: Self) {
        self.calls = self.calls.saturating_add(other.calls);
        self.failures = self.failures.saturating_add(other.failures);
        self.slow = self.slow.saturating_add(other.slow);
    }
}

#[derive(Clone, Debug)]
pub struct Window {
    bucket_nanos: u64,
    /// Set by the first call; buckets are numbered from here.
    origin: Option<Instant>,
    /// The number of the bucket that is being filled.
    newest: u64,
    buckets: [Counts; BUCKETS as usize],
}

impl Window {
    pub fn new(span: Duration) -> Self {
        let span_nanos = u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
        Self {
            bucket_nanos: (span_nanos / BUCKETS).max(1),
            origin: None,
            newest: 0,
            buckets: Default::default(),
        }
    }

    pub fn add(&mut self, counts: Counts, now: Instant) {
        let origin = *self.origin.get_or_insert(now);
        let number = self.number(origin, now);
        for fresh in self.newest + 1..=number.min(self.newest + BUCKETS) {
            self.buckets[slot(fresh)] = Counts::default();
        }
        // Threads read the clock before they take the lock: time may seem to step back.
        self.newest = self.newest.max(number);
        self.buckets[slot(self.newest)].add(counts);
    }

    /// What happened during the span that ends at `now`.
    pub fn totals(&self, now: Instant) -> Counts {
        let mut totals = Counts::default();
        let Some(origin) = self.origin else {
            return totals;
        };
        let passed = self.number(origin, now).saturating_sub(self.newest);
        for back in 0..BUCKETS.saturating_sub(passed) {
            totals.add(self.buckets[slot(self.newest + BUCKETS - back)]);
        }
        totals
    }

    pub fn clear(&mut self) {
        self.origin = None;
        self.newest = 0;
        self.buckets = Default::default();
    }

    /// Another span; what was counted so far is kept as if it had happened just now.
    pub fn resize(&mut self, span: Duration, now: Instant) {
        let learnt = self.totals(now);
        *self = Self::new(span);
        self.add(learnt, now);
    }

    fn number(&self, origin: Instant, now: Instant) -> u64 {
        now.saturating_duration_since(origin).as_nanos() as u64 / self.bucket_nanos
    }
}

fn slot(number: u64) -> usize {
    (number % BUCKETS) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SPAN: Duration = Duration::from_secs(10);

    #[test]
    fn a_call_is_forgotten_once_the_span_is_over_and_not_before() {
        let (mut window, start) = (Window::new(SPAN), Instant::now());
        window.add(Counts::FAILURE, start);
        assert_eq!(
            window
                .totals(start + SPAN - Duration::from_millis(1))
                .failures,
            1
        );
        assert_eq!(window.totals(start + SPAN), Counts::default());
    }

    #[test]
    fn a_long_silence_forgets_everything() {
        let (mut window, start) = (Window::new(SPAN), Instant::now());
        for second in 0..10 {
            window.add(Counts::FAILURE, start + Duration::from_secs(second));
        }
        window.add(Counts::SUCCESS, start + Duration::from_secs(3600));
        assert_eq!(
            window.totals(start + Duration::from_secs(3600)),
            Counts::SUCCESS
        );
    }

    #[test]
    fn a_new_span_keeps_what_was_counted() {
        let (mut window, start) = (Window::new(SPAN), Instant::now());
        window.add(Counts::FAILURE, start);
        window.resize(Duration::from_secs(60), start);
        assert_eq!(window.totals(start + Duration::from_secs(59)).failures, 1);
    }

    #[test]
    fn a_clock_reading_from_before_the_last_one_is_counted_all_the_same() {
        let (mut window, start) = (Window::new(SPAN), Instant::now() + SPAN);
        window.add(Counts::SUCCESS, start);
        window.add(Counts::SUCCESS, start - Duration::from_millis(5));
        assert_eq!(window.totals(start).calls, 2);
    }

    proptest! {
        /// Against the obvious model: all calls with their times. The window may be coarse by one bucket.
        #[test]
        fn counts_what_a_list_of_all_calls_would_count(waits in proptest::collection::vec(0u64..4_000, 0..100)) {
            let (mut window, start) = (Window::new(SPAN), Instant::now());
            let (mut now, mut calls) = (start, Vec::new());
            for wait in waits {
                now += Duration::from_millis(wait);
                window.add(Counts::SUCCESS, now);
                calls.push(now);
            }
            let since = |span| calls.iter().filter(|&&call| now.duration_since(call) < span).count() as u32;
            let counted = window.totals(now).calls;
            prop_assert!(since(SPAN - SPAN / 10) <= counted && counted <= since(SPAN));
        }
    }
}
