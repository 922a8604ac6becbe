//! Counts and percentiles of any set of samples.

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::outcome::Class;
use crate::sample::Sample;

/// Three digits from a microsecond to the longest a sample can hold.
const SIGNIFICANT_DIGITS: u8 = 3;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// Everything that was meant to be sent, whatever became of it: the sum of the classes.
    pub offered: u64,
    /// What was sent and came to an end: offered less dropped.
    pub done: u64,
    pub ok: u64,
    pub degraded: u64,
    pub shed: u64,
    pub error: u64,
    pub timeout: u64,
    /// Never sent: as many as may were in flight.
    pub dropped: u64,
}

impl Totals {
    pub fn add(&mut self, class: Class) {
        self.offered += 1;
        self.done += u64::from(class != Class::Dropped);
        let count = match class {
            Class::Ok => &mut self.ok,
            Class::Degraded => &mut self.degraded,
            Class::Shed => &mut self.shed,
            Class::Error => &mut self.error,
            Class::Timeout => &mut self.timeout,
            Class::Dropped => &mut self.dropped,
        };
        *count += 1;
    }

    /// Visitors who got a page, even if a lesser one.
    pub fn served(&self) -> u64 {
        self.ok + self.degraded
    }

    /// Of what was offered; 1 when nothing was.
    pub fn success_ratio(&self) -> f64 {
        match self.offered {
            0 => 1.0,
            offered => self.served() as f64 / offered as f64,
        }
    }
}

/// In milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Percentiles {
    pub mean: f64,
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    #[serde(rename = "p99.9")]
    pub p999: f64,
    pub max: f64,
}

/// All times from the intended time of sending.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Summary {
    pub totals: Totals,
    /// Latency of what was served: ok and degraded. None when nothing was.
    pub served: Option<Percentiles>,
    /// Latency of everything sent: failures and timeouts count with the time they took.
    pub all: Option<Percentiles>,
    /// How late requests were sent. More than a millisecond or two: this machine is too busy to measure.
    pub send_lag: Option<Percentiles>,
}

impl Summary {
    pub fn of<'a>(samples: impl IntoIterator<Item = &'a Sample>) -> Self {
        let mut totals = Totals::default();
        let (mut served, mut all, mut lag) = (Times::new(), Times::new(), Times::new());
        for sample in samples {
            let class = sample.class();
            totals.add(class);
            if class == Class::Dropped {
                continue;
            }
            all.record(sample.latency_us());
            lag.record(sample.lag_us());
            if matches!(class, Class::Ok | Class::Degraded) {
                served.record(sample.latency_us());
            }
        }
        Self {
            totals,
            served: served.percentiles(),
            all: all.percentiles(),
            send_lag: lag.percentiles(),
        }
    }
}

/// A histogram of microseconds.
pub(crate) struct Times(Histogram<u64>);

impl Times {
    pub(crate) fn new() -> Self {
        let histogram = Histogram::new_with_bounds(1, u32::MAX.into(), SIGNIFICANT_DIGITS);
        Self(histogram.expect("constant and valid bounds"))
    }

    pub(crate) fn record(&mut self, micros: u64) {
        self.0.saturating_record(micros);
    }

    /// None of nothing.
    pub(crate) fn percentiles(&self) -> Option<Percentiles> {
        let at = |quantile| self.0.value_at_quantile(quantile) as f64 / 1000.0;
        (!self.0.is_empty()).then(|| Percentiles {
            mean: self.0.mean() / 1000.0,
            p50: at(0.50),
            p90: at(0.90),
            p99: at(0.99),
            p999: at(0.999),
            max: self.0.max() as f64 / 1000.0,
        })
    }

    pub(crate) fn clear(&mut self) {
        // The histogram's own clear() keeps its maximum.
        self.0.reset();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::{Fault, Outcome};
    use hyper::http::StatusCode;
    use std::time::Duration;

    fn sample(milliseconds: u64, outcome: Outcome) -> Sample {
        let end = Duration::from_millis(milliseconds);
        Sample::new(0, Duration::ZERO, Duration::ZERO, end, outcome)
    }

    fn ok() -> Outcome {
        Outcome::http(StatusCode::OK, &hyper::HeaderMap::new())
    }

    #[test]
    fn percentiles_are_of_three_digits() {
        let samples: Vec<_> = (1..=1000).map(|ms| sample(ms, ok())).collect();
        let served = Summary::of(&samples).served.expect("a thousand samples");
        let near = |is: f64, should: f64| (is - should).abs() <= should * 0.001;
        assert!(
            near(served.p50, 500.0) && near(served.p90, 900.0),
            "{served:?}"
        );
        assert!(
            near(served.p99, 990.0) && near(served.p999, 999.0),
            "{served:?}"
        );
        assert!(
            near(served.max, 1000.0) && near(served.mean, 500.5),
            "{served:?}"
        );
    }

    #[test]
    fn a_quick_failure_does_not_flatter_what_was_served() {
        let refused = Outcome::Fault(Fault::Connect);
        let samples = [sample(100, ok()), sample(1, refused), sample(1, refused)];
        let summary = Summary::of(&samples);
        assert!(summary.served.expect("one").p50 >= 99.0);
        assert!(summary.all.expect("three").p50 <= 1.1);
        assert_eq!((summary.totals.offered, summary.totals.error), (3, 2));
    }

    #[test]
    fn what_was_dropped_is_offered_but_has_no_latency() {
        let summary = Summary::of(&[sample(0, Outcome::Fault(Fault::Dropped))]);
        assert_eq!((summary.totals.offered, summary.totals.done), (1, 0));
        assert_eq!(summary.all, None);
        assert_eq!(summary.totals.success_ratio(), 0.0);
    }
}
