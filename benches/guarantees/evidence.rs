//! What one run of one subject left behind, and how figures are taken from it.

use std::collections::HashMap;
use std::ops::Range;
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::driver::Sample;

/// Microseconds.
const LATENCY_MAX: u64 = 60_000_000;

/// Times are since the first request could be sent.
pub struct Evidence {
    /// What callers got, in the order of intended times.
    pub samples: Vec<Sample>,
    /// What each replica saw, in order.
    pub arrivals: Vec<Vec<Duration>>,
    /// The work that requests were, by the mean; of those that are not here nothing is known, and they count as one.
    pub work: HashMap<usize, f64>,
    /// When a request arrived that had arrived before, anywhere.
    pub again: Vec<Duration>,
    pub fault: Range<Duration>,
    pub end: Duration,
    /// Requests a second that the replicas can do while the fault lasts.
    pub capacity: f64,
    /// Of what the last hop of a chain began, how much nobody waited for any more.
    pub begun_too_late: Option<usize>,
    /// What stood still while nobody read.
    pub held: Option<Held>,
    /// What comes later is of no use to its caller.
    pub deadline: Duration,
    pub late: Histogram<u64>,
    /// CPU that the proxies took.
    pub cpu: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Held {
    /// What the app sent and no reader had, of one answer, in bytes: in the proxy and in the kernel's buffers of its sockets.
    pub bytes_each: u64,
    /// From the stop of the readers until the app could send no more.
    pub blocked_after: Duration,
    /// Of the proxy, KiB.
    pub resident_growth: u64,
    /// Reading on brought more, and nobody was cut off.
    pub resumed: bool,
}

/// One second of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Second {
    pub offered: usize,
    pub good: usize,
    pub arrived: usize,
}

impl Evidence {
    /// Warmed up, and nothing broken yet.
    pub fn healthy(&self) -> Range<Duration> {
        self.fault.start / 2..self.fault.start
    }

    pub fn after(&self) -> Range<Duration> {
        self.fault.end..self.end
    }

    /// What was meant to be sent in this span.
    pub fn offered(&self, span: &Range<Duration>) -> &[Sample] {
        let begin = self
            .samples
            .partition_point(|sample| sample.at < span.start);
        let end = self.samples.partition_point(|sample| sample.at < span.end);
        &self.samples[begin..end.max(begin)]
    }

    /// Share of those that were answered as they should.
    pub fn success(&self, span: &Range<Duration>) -> f64 {
        let offered = self.offered(span);
        let good = offered.iter().filter(|sample| sample.outcome.is_good());
        good.count() as f64 / offered.len().max(1) as f64
    }

    /// The work that was of use to its caller, answered as it should be and in time: in requests of the mean length.
    pub fn useful(&self, span: &Range<Duration>) -> f64 {
        let offered = self.offered(span).iter();
        offered
            .filter(|sample| sample.outcome.is_good() && sample.latency <= self.deadline)
            .map(|sample| self.work.get(&sample.number).unwrap_or(&1.0))
            .sum()
    }

    pub fn failed(&self, span: &Range<Duration>) -> usize {
        let offered = self.offered(span).iter();
        offered.filter(|sample| !sample.outcome.is_good()).count()
    }

    /// In milliseconds, of all callers: who got an error had waited for it.
    pub fn latency(&self, span: &Range<Duration>, quantile: f64) -> f64 {
        self.latency_of(span, quantile, |_| true)
    }

    pub fn latency_of(
        &self,
        span: &Range<Duration>,
        quantile: f64,
        wanted: impl Fn(&Sample) -> bool,
    ) -> f64 {
        let mut histogram = Histogram::<u64>::new_with_max(LATENCY_MAX, 3).expect("fine bounds");
        for sample in self.offered(span).iter().filter(|sample| wanted(sample)) {
            histogram.saturating_record(sample.latency.as_micros() as u64);
        }
        histogram.value_at_quantile(quantile) as f64 / 1000.0
    }

    pub fn arrived(&self, replica: usize, span: &Range<Duration>) -> &[Duration] {
        let arrivals = &self.arrivals[replica];
        let begin = arrivals.partition_point(|at| *at < span.start);
        let end = arrivals.partition_point(|at| *at < span.end);
        &arrivals[begin..end.max(begin)]
    }

    pub fn arrived_in_all(&self, span: &Range<Duration>) -> usize {
        let each = (0..self.arrivals.len()).map(|replica| self.arrived(replica, span).len());
        each.sum()
    }

    /// Of all that arrived, what this replica got.
    pub fn share(&self, replica: usize, span: &Range<Duration>) -> f64 {
        let all = self.arrived_in_all(span).max(1);
        self.arrived(replica, span).len() as f64 / all as f64
    }

    pub fn seconds(&self) -> Vec<Second> {
        steps(&(Duration::ZERO..self.end), Duration::from_secs(1))
            .map(|span| Second {
                offered: self.offered(&span).len(),
                good: self.offered(&span).len() - self.failed(&span),
                arrived: self.arrived_in_all(&span),
            })
            .collect()
    }
}

/// A span in equal parts; what is left over is left out.
pub fn steps(
    span: &Range<Duration>,
    step: Duration,
) -> impl Iterator<Item = Range<Duration>> + use<> {
    let (begin, end) = (span.start, span.end);
    let starts = (0..).map(move |number| begin + step * number);
    let spans = starts.map(move |start| start..start + step);
    spans.take_while(move |span| span.end <= end)
}
