//! Simulated work: so many places, each taking a drawn time. Nothing burns CPU, so capacity is exact and the cores are
//! left for who is measured.
//!
//! A timer wakes up to a millisecond late. Who comes next is charged from when the place was *due* to be free, not from
//! the wake-up: otherwise the lateness of timers would eat a tenth of the capacity.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until};

/// First come, first served, by a fixed number of places.
pub struct Station {
    places: Arc<Semaphore>,
    /// The share of its pace that is left to each place, as the bits of an `f64`.
    pace: AtomicU64,
    due: Arc<Mutex<BinaryHeap<Reverse<Instant>>>>,
}

/// A place that is taken. Whoever leaves early (the caller went away) frees it at that moment.
struct Taken {
    until: Instant,
    due: Arc<Mutex<BinaryHeap<Reverse<Instant>>>>,
    _place: OwnedSemaphorePermit,
}

impl Station {
    pub fn new(places: usize) -> Self {
        let now = Instant::now();
        Self {
            places: Arc::new(Semaphore::new(places)),
            pace: AtomicU64::new(1.0_f64.to_bits()),
            due: Arc::new(Mutex::new((0..places).map(|_| Reverse(now)).collect())),
        }
    }

    /// For work that begins from now on: whoever waits when the pace is back waits no longer for having come before.
    pub fn set_pace(&self, share: f64) {
        self.pace.store(share.to_bits(), Ordering::Relaxed);
    }

    /// Waits for a place, then keeps it for as long as the work takes.
    pub async fn work(&self, arrived: Instant, takes: Duration) {
        let place = self.places.clone().acquire_owned();
        let place = place.await.expect("a station never closes");
        let free = self
            .due
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop();
        let Reverse(free) = free.expect("there is one for each place");
        let pace = f64::from_bits(self.pace.load(Ordering::Relaxed));
        let taken = Taken {
            until: arrived.max(free) + takes.div_f64(pace),
            due: self.due.clone(),
            _place: place,
        };
        sleep_until(taken.until).await;
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        let free = self.until.min(Instant::now());
        let mut due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
        due.push(Reverse(free));
    }
}

/// How long one piece of work takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Takes {
    Exponential {
        mean: Duration,
    },
    /// Mostly short, seldom long.
    Bimodal {
        short: Duration,
        long: Duration,
        long_share: f64,
    },
}

impl Takes {
    pub fn mean(self) -> Duration {
        match self {
            Self::Exponential { mean } => mean,
            Self::Bimodal {
                short,
                long,
                long_share,
            } => long.mul_f64(long_share) + short.mul_f64(1.0 - long_share),
        }
    }

    /// `random` is from 0 to below 1.
    pub fn draw(self, random: f64) -> Duration {
        match self {
            Self::Exponential { mean } => mean.mul_f64(-(1.0 - random).ln()),
            Self::Bimodal {
                short,
                long,
                long_share,
            } => match random < long_share {
                true => long,
                false => short,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drawn_work_has_the_mean_that_was_asked_for() {
        let mut random = fastrand::Rng::with_seed(1);
        let mut mean_of = |takes: Takes| {
            let drawn = (0..100_000).map(|_| takes.draw(random.f64()));
            drawn.sum::<Duration>().as_secs_f64() / 100_000.0
        };
        let milliseconds = Duration::from_millis;
        let mean = mean_of(Takes::Exponential {
            mean: milliseconds(8),
        });
        assert!((mean - 0.008).abs() < 0.0002, "{mean}");
        let mean = mean_of(Takes::Bimodal {
            short: milliseconds(2),
            long: milliseconds(62),
            long_share: 0.1,
        });
        assert!((mean - 0.008).abs() < 0.0004, "{mean}");
    }

    /// Planted bug: charging from the wake-up (`Instant::now()` in place of `free`) loses a tenth of the capacity.
    #[tokio::test(start_paused = true)]
    async fn capacity_is_exact_although_timers_are_late() {
        let station = Arc::new(Station::new(4));
        let begin = Instant::now();
        let work = (0..400).map(|_| {
            let station = station.clone();
            tokio::spawn(async move { station.work(begin, Duration::from_micros(2300)).await })
        });
        for work in work.collect::<Vec<_>>() {
            work.await.expect("it works");
        }
        let took = begin.elapsed();
        let exact = Duration::from_micros(2300) * 100;
        assert!(
            took >= exact && took <= exact + Duration::from_millis(2),
            "{took:?}"
        );
    }

    /// What came while little of the capacity was left cost five times as much for ever: the trigger was five times that of
    /// the paper, and nobody could have recovered from it in time.
    #[tokio::test(start_paused = true)]
    async fn what_waits_when_the_capacity_is_back_costs_no_more_than_what_comes_then() {
        let station = Station::new(1);
        let (begin, takes) = (Instant::now(), Duration::from_millis(10));
        station.set_pace(0.2);
        let first = station.work(begin, takes);
        let second = async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            station.set_pace(1.0);
            station.work(begin, takes).await;
        };
        tokio::join!(first, second);
        let took = begin.elapsed();
        assert!(
            took >= Duration::from_millis(60) && took < Duration::from_millis(63),
            "{took:?}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn who_goes_away_frees_the_place_at_once() {
        let station = Station::new(1);
        let begin = Instant::now();
        let long = station.work(begin, Duration::from_secs(10));
        let gone = tokio::time::timeout(Duration::from_millis(100), long).await;
        assert!(gone.is_err());
        station
            .work(Instant::now(), Duration::from_millis(50))
            .await;
        assert!(
            begin.elapsed() < Duration::from_millis(160),
            "{:?}",
            begin.elapsed()
        );
    }
}
