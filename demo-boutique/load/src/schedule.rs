//! When each request is meant to be sent, and which one it is: drawn from a seed, before and independent
//! of anything that happens in the run.

use std::time::Duration;

use crate::bounds::Bounds;
use crate::rate::Rate;

/// How requests are spread over time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrivals {
    /// One every 1/rate seconds.
    Constant,
    /// As many independent visitors arrive: exponential gaps, bursts included.
    Poisson,
}

/// One request to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Since the start of the run.
    pub at: Duration,
    /// Index into the plan's journeys.
    pub journey: u16,
    /// Decides whatever else is random about the request: product, visitor.
    pub dice: u64,
}

#[derive(Clone, Debug)]
pub struct Schedule {
    rate: Rate,
    arrivals: Arrivals,
    weights: Vec<u32>,
    end: Duration,
    left: u64,
    random: fastrand::Rng,
    /// Of the latest arrival; None before the first.
    latest_seconds: Option<f64>,
}

impl Schedule {
    /// The same arguments give the same arrivals. Without weights there is one journey.
    pub fn new(
        rate: Rate,
        arrivals: Arrivals,
        bounds: &Bounds,
        weights: Vec<u32>,
        seed: u64,
    ) -> Self {
        Self {
            rate,
            arrivals,
            weights,
            end: bounds.end(),
            left: bounds.requests(),
            random: fastrand::Rng::with_seed(seed),
            latest_seconds: None,
        }
    }

    fn next_seconds(&mut self) -> Option<f64> {
        let requests = match (self.arrivals, self.latest_seconds) {
            (Arrivals::Constant, None) => 0.0,
            (Arrivals::Constant, Some(_)) => 1.0,
            // 1 - u is in (0, 1]: its logarithm is finite.
            (Arrivals::Poisson, _) => -(1.0 - self.random.f64()).ln(),
        };
        self.rate
            .advance(self.latest_seconds.unwrap_or(0.0), requests)
    }

    fn pick(&mut self) -> u16 {
        let total = self.weights.iter().map(|weight| u64::from(*weight)).sum();
        if total == 0 {
            return 0;
        }
        let mut drawn = self.random.u64(0..total);
        for (journey, weight) in (0..).zip(&self.weights) {
            match drawn.checked_sub(u64::from(*weight)) {
                Some(rest) => drawn = rest,
                None => return journey,
            }
        }
        unreachable!("drawn is less than the sum of the weights")
    }
}

impl Iterator for Schedule {
    type Item = Arrival;

    fn next(&mut self) -> Option<Arrival> {
        self.left = self.left.checked_sub(1)?;
        let seconds = self.next_seconds()?;
        self.latest_seconds = Some(seconds);
        let at = Duration::try_from_secs_f64(seconds).ok()?;
        (at < self.end).then(|| Arrival {
            at,
            journey: self.pick(),
            dice: self.random.u64(..),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn schedule(rate: &str, arrivals: Arrivals, seconds: u64, seed: u64) -> Schedule {
        let bounds = Bounds::new(Duration::from_secs(seconds)).expect("valid");
        let rate = rate.parse().expect("valid");
        Schedule::new(rate, arrivals, &bounds, vec![3, 0, 1], seed)
    }

    #[test]
    fn a_constant_rate_has_constant_gaps() {
        let arrivals: Vec<_> = schedule("4", Arrivals::Constant, 1, 1)
            .map(|arrival| arrival.at)
            .collect();
        assert_eq!(arrivals, [0, 250, 500, 750].map(Duration::from_millis));
    }

    #[test]
    fn poisson_arrivals_have_the_asked_rate_and_exponential_gaps() {
        let at: Vec<_> = schedule("200", Arrivals::Poisson, 100, 7)
            .map(|arrival| arrival.at.as_secs_f64())
            .collect();
        // 20000 expected, standard deviation 141.
        assert!((19_400..20_600).contains(&at.len()), "{}", at.len());
        let gaps: Vec<_> = at.windows(2).map(|pair| pair[1] - pair[0]).collect();
        let longer_than_the_mean = gaps.iter().filter(|gap| **gap > 1.0 / 200.0).count();
        let share = longer_than_the_mean as f64 / gaps.len() as f64;
        assert!(
            (share - (-1.0f64).exp()).abs() < 0.02,
            "{share} of gaps exceed the mean, expected 1/e"
        );
    }

    #[test]
    fn a_step_changes_the_rate_at_its_time() {
        let arrivals: Vec<_> = schedule("10,100@5s", Arrivals::Constant, 10, 1).collect();
        let before = arrivals
            .iter()
            .filter(|arrival| arrival.at < Duration::from_secs(5))
            .count();
        assert_eq!((before, arrivals.len()), (50, 550));
    }

    #[test]
    fn journeys_come_by_weight_and_never_without_one() {
        let picked: Vec<_> = schedule("1000", Arrivals::Constant, 10, 3)
            .map(|arrival| arrival.journey)
            .collect();
        let count = |journey| picked.iter().filter(|picked| **picked == journey).count();
        assert_eq!(count(1), 0);
        assert!((7_200..7_800).contains(&count(0)), "{} of 10000", count(0));
        assert_eq!(count(0) + count(2), picked.len());
    }

    #[test]
    fn the_number_of_requests_is_bounded() {
        let bounds =
            Bounds::new(Duration::from_secs(3600)).and_then(|bounds| bounds.max_requests(17));
        let rate = Rate::constant(50_000.0).expect("valid");
        let bounds = bounds.expect("valid");
        let arrivals = Schedule::new(rate, Arrivals::Poisson, &bounds, Vec::new(), 1);
        assert_eq!(arrivals.count(), 17);
    }

    proptest! {
        #[test]
        fn a_seed_repeats_itself_and_no_arrival_is_late_or_out_of_order(
            seed: u64, first in 1.0..300.0, second in 0.0..300.0, poisson: bool,
        ) {
            let arrivals = if poisson { Arrivals::Poisson } else { Arrivals::Constant };
            let rate = format!("{first},{second}@2s");
            let once: Vec<_> = schedule(&rate, arrivals, 4, seed).collect();
            let again: Vec<_> = schedule(&rate, arrivals, 4, seed).collect();
            prop_assert_eq!(&once, &again);
            prop_assert!(once.is_sorted_by_key(|arrival| arrival.at));
            prop_assert!(once.iter().all(|arrival| arrival.at < Duration::from_secs(4)));
        }
    }

    #[test]
    fn another_seed_gives_other_arrivals() {
        let first: Vec<_> = schedule("50", Arrivals::Poisson, 2, 1).collect();
        let second: Vec<_> = schedule("50", Arrivals::Poisson, 2, 2).collect();
        assert_ne!(first, second);
    }
}
