//! When requests are meant to be sent: drawn before the run, from a seed, so that no answer can delay the next question.

use std::time::Duration;

use crate::driver::Send;

/// How requests of one rate lie in time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Arrivals {
    /// As from very many users who know nothing of each other.
    Poisson,
    /// So many at once, at random times.
    Bursts(u32),
}

/// One rate for one while.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stretch {
    pub lasts: Duration,
    /// Requests a second.
    pub rate: f64,
}

pub fn schedule(arrivals: Arrivals, stretches: &[Stretch], seed: u64) -> Vec<Duration> {
    let mut random = fastrand::Rng::with_seed(seed);
    let at_once = match arrivals {
        Arrivals::Poisson => 1,
        Arrivals::Bursts(size) => size.max(1),
    };
    let mut times = Vec::new();
    let mut begin = Duration::ZERO;
    for stretch in stretches {
        let end = begin + stretch.lasts;
        let mean = f64::from(at_once) / stretch.rate;
        let mut at = begin;
        loop {
            at += Duration::from_secs_f64(-(1.0 - random.f64()).ln() * mean);
            if at >= end {
                break;
            }
            times.extend((0..at_once).map(|_| at));
        }
        begin = end;
    }
    times
}

/// Who sends what, from which callers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Source {
    pub path: &'static str,
    /// Requests a second.
    pub rate: f64,
    /// So many times as much while the fault lasts.
    pub surge: f64,
    /// It comes to that little by little, in the first half of the fault.
    pub ramps: bool,
    /// The first of its callers, and how many; one sends after the other.
    pub callers: [usize; 2],
}

/// Small enough to be none.
const RAMP_STEPS: u32 = 50;

/// All that is sent: the first source is what is watched.
pub fn sends(
    arrivals: Arrivals,
    sources: &[Source],
    [warm_up, fault, after]: [Duration; 3],
    seed: u64,
) -> Vec<Send> {
    let mut sends = Vec::new();
    for (which, source) in sources.iter().enumerate() {
        let stretch = |lasts, factor| Stretch {
            lasts,
            rate: source.rate * factor,
        };
        let mut stretches = vec![stretch(warm_up, 1.0)];
        match source.ramps {
            true => {
                let step = |step: u32| {
                    let risen = (f64::from(step) + 0.5) / f64::from(RAMP_STEPS);
                    stretch(fault / 2 / RAMP_STEPS, 1.0 + (source.surge - 1.0) * risen)
                };
                stretches.extend((0..RAMP_STEPS).map(step));
                stretches.push(stretch(fault / 2, source.surge));
            }
            false => stretches.push(stretch(fault, source.surge)),
        }
        stretches.push(stretch(after, 1.0));
        let times = schedule(arrivals, &stretches, seed.wrapping_add(which as u64));
        let [first, count] = source.callers;
        sends.extend(times.into_iter().enumerate().map(|(number, at)| Send {
            at,
            way: first + number % count,
            path: source.path,
            watched: which == 0,
        }));
    }
    sends.sort_by_key(|send| send.at);
    sends
}

#[cfg(test)]
mod tests {
    use super::*;

    const STRETCHES: [Stretch; 2] = [
        Stretch {
            lasts: Duration::from_secs(20),
            rate: 1000.0,
        },
        Stretch {
            lasts: Duration::from_secs(10),
            rate: 3000.0,
        },
    ];

    #[test]
    fn a_schedule_has_the_rates_that_were_asked_for_in_order() {
        for arrivals in [Arrivals::Poisson, Arrivals::Bursts(20)] {
            let times = schedule(arrivals, &STRETCHES, 7);
            assert!(times.is_sorted());
            let first = times.iter().filter(|at| **at < STRETCHES[0].lasts).count();
            let second = times.len() - first;
            assert!((19_000..21_000).contains(&first), "{arrivals:?} {first}");
            assert!((28_000..32_000).contains(&second), "{arrivals:?} {second}");
        }
    }

    #[test]
    fn sources_are_mixed_in_time_and_the_first_is_watched() {
        let source = |path, rate, callers| Source {
            path,
            rate,
            surge: 2.0,
            ramps: false,
            callers,
        };
        let sources = [source("/a", 100.0, [0, 2]), source("/b", 300.0, [2, 1])];
        let second = Duration::from_secs(1);
        let sends = sends(Arrivals::Poisson, &sources, [second * 10; 3], 3);
        assert!(sends.is_sorted_by_key(|send| send.at));
        let watched = sends.iter().filter(|send| send.watched).count();
        assert!((3600..4400).contains(&watched), "{watched}");
        assert!(sends.iter().all(|send| send.watched == (send.path == "/a")));
        assert!(sends.iter().all(|send| (send.way < 2) == send.watched));
        let both = [0, 1].map(|way| sends.iter().filter(|send| send.way == way).count());
        assert!(both[0].abs_diff(both[1]) <= 1, "{both:?}");
    }

    /// Planted bug: a ramp that begins at its end turns this red.
    #[test]
    fn a_ramp_rises_in_the_first_half_of_the_fault_and_then_stays() {
        let source = Source {
            path: "/a",
            rate: 100.0,
            surge: 10.0,
            ramps: true,
            callers: [0, 1],
        };
        let second = Duration::from_secs(1);
        let sends = sends(
            Arrivals::Poisson,
            &[source],
            [second * 10, second * 40, second * 10],
            3,
        );
        let between = |from, to| {
            let span = second * from..second * to;
            sends.iter().filter(|send| span.contains(&send.at)).count()
        };
        for (span, expected) in [
            ((0, 10), 1000),
            ((10, 20), 3250),
            ((20, 30), 7750),
            ((30, 50), 20_000),
            ((50, 60), 1000),
        ] {
            let sent = between(span.0, span.1);
            assert!(sent.abs_diff(expected) < expected / 8, "{span:?}: {sent}");
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_schedule_and_another_another() {
        let times = |seed| schedule(Arrivals::Poisson, &STRETCHES, seed);
        assert_eq!(times(1), times(1));
        assert_ne!(times(1), times(2));
    }
}
