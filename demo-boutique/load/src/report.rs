//! What a run was like, from its samples: as a whole, by journey, over time, in a window.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use serde::Serialize;

use crate::outcome::Class;
use crate::plan::Description;
use crate::sample::Sample;
use crate::summary::{Percentiles, Summary, Times, Totals};

#[derive(Clone, Debug)]
pub struct Report {
    pub(crate) plan: Description,
    pub(crate) journeys: Vec<String>,
    pub(crate) samples: Vec<Sample>,
    /// Until the last answer.
    pub elapsed: Duration,
    /// Stopped before its time.
    pub interrupted: bool,
}

#[derive(Clone, Debug, Serialize)]
pub struct JourneyReport {
    pub journey: String,
    #[serde(flatten)]
    pub summary: Summary,
}

/// The requests that were meant to be sent in one interval, whenever they ended: the classes add up to
/// the load that was offered, and a stall shows where it began.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Point {
    /// Start of the interval, in seconds.
    pub t: f64,
    #[serde(flatten)]
    pub totals: Totals,
    /// Of everything sent.
    pub latency: Option<Percentiles>,
}

impl Report {
    pub fn summary(&self) -> Summary {
        Summary::of(&self.samples)
    }

    /// Of the requests that were meant to be sent in this part of the run.
    pub fn window(&self, times: Range<Duration>) -> Summary {
        Summary::of(
            self.samples
                .iter()
                .filter(|sample| times.contains(&sample.intended())),
        )
    }

    pub fn journeys(&self) -> Vec<JourneyReport> {
        let of = |(index, journey): (usize, &String)| {
            let samples = self.samples.iter();
            let own = samples.filter(|sample| usize::from(sample.journey()) == index);
            JourneyReport {
                journey: journey.clone(),
                summary: Summary::of(own),
            }
        };
        let all = self.journeys.iter().enumerate().map(of);
        all.filter(|journey| journey.summary.totals.offered > 0)
            .collect()
    }

    /// In order of their intended times, for what is not foreseen here.
    pub fn samples(&self) -> &[Sample] {
        &self.samples
    }

    pub fn journey_names(&self) -> &[String] {
        &self.journeys
    }

    /// What did not go well, by status or fault, and how often.
    pub fn failures(&self) -> BTreeMap<String, u64> {
        let mut failures = BTreeMap::new();
        for sample in &self.samples {
            if !matches!(sample.class(), Class::Ok | Class::Degraded) {
                *failures.entry(sample.why()).or_default() += 1;
            }
        }
        failures
    }

    /// Without gaps, from 0 to the last request. `interval` is a millisecond at least.
    pub fn series(&self, interval: Duration) -> Vec<Point> {
        let interval = interval.max(Duration::from_millis(1));
        let mut points = Vec::new();
        let mut times = Times::new();
        let mut samples = self.samples.iter().peekable();
        while samples.peek().is_some() {
            let count = u32::try_from(points.len()).expect("an hour has fewer milliseconds");
            let start = interval * count;
            let mut totals = Totals::default();
            times.clear();
            while let Some(sample) = samples.next_if(|next| next.intended() < start + interval) {
                totals.add(sample.class());
                if sample.class() != Class::Dropped {
                    times.record(sample.latency_us());
                }
            }
            points.push(Point {
                t: start.as_secs_f64(),
                totals,
                latency: times.percentiles(),
            });
        }
        points
    }

    /// Whether anything answered at all.
    pub fn reached(&self) -> bool {
        self.samples.iter().any(|sample| sample.status().is_some())
    }

    /// Requests served a second of the time in which they were offered.
    pub fn goodput(&self) -> f64 {
        let offered_for = self.elapsed.min(self.plan.duration());
        match offered_for.as_secs_f64() {
            0.0 => 0.0,
            seconds => self.summary().totals.served() as f64 / seconds,
        }
    }

    pub fn to_json(&self, interval: Duration) -> serde_json::Value {
        let summary = self.summary();
        serde_json::json!({
            "plan": self.plan,
            "elapsed_s": self.elapsed.as_secs_f64(),
            "interrupted": self.interrupted,
            "totals": summary.totals,
            "success_ratio": summary.totals.success_ratio(),
            "goodput_per_s": self.goodput(),
            "latency_ms": { "served": summary.served, "all": summary.all },
            "send_lag_ms": summary.send_lag,
            "failures": self.failures(),
            "journeys": self.journeys(),
            "series": { "interval_s": interval.as_secs_f64(), "points": self.series(interval) },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bounds::Bounds;
    use crate::journey::{Journey, Journeys};
    use crate::outcome::Outcome;
    use crate::plan::{Plan, Work};
    use crate::schedule::Arrivals;
    use crate::target::{Reach, Target};

    /// A run of ten seconds whose requests were meant at these seconds and took so many milliseconds.
    fn report(requests: &[(f64, u64)]) -> Report {
        let plan = Plan {
            target: Target::parse("127.0.0.1:1", &Reach::loopback()).expect("loopback"),
            work: Work::Http(Journeys::of(vec![Journey::get("get", "/")]).expect("valid")),
            rate: "1".parse().expect("valid"),
            arrivals: Arrivals::Constant,
            bounds: Bounds::new(Duration::from_secs(10)).expect("valid"),
            seed: 1,
            headers: Vec::new(),
        };
        let sample = |(seconds, took): &(f64, u64)| {
            let at = Duration::from_secs_f64(*seconds);
            let ok = Outcome::grpc(0);
            Sample::new(0, at, at, at + Duration::from_millis(*took), ok)
        };
        Report {
            plan: plan.describe(),
            journeys: plan.journeys(),
            samples: requests.iter().map(sample).collect(),
            elapsed: Duration::from_secs(11),
            interrupted: false,
        }
    }

    #[test]
    fn a_point_knows_only_its_own_interval_and_empty_ones_are_points_too() {
        let report = report(&[(0.1, 900), (0.2, 900), (2.5, 10)]);
        let points = report.series(Duration::from_secs(1));
        let told: Vec<_> = points
            .iter()
            .map(|point| {
                (
                    point.t,
                    point.totals.ok,
                    point.latency.map(|all| all.max.round()),
                )
            })
            .collect();
        assert_eq!(
            told,
            [(0.0, 2, Some(900.0)), (1.0, 0, None), (2.0, 1, Some(10.0))]
        );
    }

    #[test]
    fn goodput_counts_the_time_of_the_load_not_of_its_last_answer() {
        let requests: Vec<_> = (0..20).map(|half| (f64::from(half) / 2.0, 1_500)).collect();
        assert_eq!(report(&requests).goodput(), 2.0);
    }
}
