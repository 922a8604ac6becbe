//! Episode: when something that comes and goes is worth telling, and when it is over.
//!
//! ```text
//!           seen for a second, no gap longer than `gap`
//!   Calm ──────────────────────────────────────────────▶ Told
//!     ▲                                                    │
//!     └──────────────── not seen for ten seconds ──────────┘
//! ```
//!
//! Whatever flaps is one episode: there are at most two words about it in ten seconds.

use std::time::Duration;

use tokio::time::Instant;

/// What passes sooner is nothing to tell people of.
const LASTS: Duration = Duration::from_secs(1);
const OVER: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub struct Episode {
    gap: Duration,
    state: State,
}

#[derive(Debug)]
enum State {
    Calm,
    Seen { since: Instant, last: Instant },
    Told { last: Instant },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Began,
    Ended,
}

impl Episode {
    /// `gap`: how long it may be out of sight and is the same still.
    pub fn new(gap: Duration) -> Self {
        let state = State::Calm;
        Self { gap, state }
    }

    /// Regularly, and whether it is so now.
    pub fn observe(&mut self, seen: bool, now: Instant) -> Option<Change> {
        let passed = |since: Instant| now.saturating_duration_since(since);
        match (&mut self.state, seen) {
            (State::Seen { since, last }, true) if passed(*last) <= self.gap => {
                *last = now;
                if passed(*since) >= LASTS {
                    self.state = State::Told { last: now };
                    return Some(Change::Began);
                }
            }
            (State::Calm | State::Seen { .. }, true) => {
                let (since, last) = (now, now);
                self.state = State::Seen { since, last };
            }
            (State::Told { last }, true) => *last = now,
            (State::Told { last }, false) if passed(*last) >= OVER => {
                self.state = State::Calm;
                return Some(Change::Ended);
            }
            (_, false) => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TICK: Duration = Duration::from_millis(100);

    /// What is told, and after how many ticks, of something that is seen as `seen` says.
    fn told(seen: impl IntoIterator<Item = bool>) -> Vec<(usize, Change)> {
        let mut episode = Episode::new(Duration::from_millis(500));
        let mut now = Instant::now();
        let told = seen.into_iter().enumerate().filter_map(|(tick, seen)| {
            now += TICK;
            Some((tick, episode.observe(seen, now)?))
        });
        told.collect()
    }

    fn pattern(runs: &[(bool, usize)]) -> Vec<bool> {
        let runs = runs.iter();
        runs.flat_map(|(seen, ticks)| std::iter::repeat_n(*seen, *ticks))
            .collect()
    }

    #[test]
    fn what_lasts_is_told_once_and_its_end_when_it_has_not_come_back() {
        let seen = pattern(&[
            (false, 10),
            (true, 300),
            (false, 99),
            (true, 1),
            (false, 200),
        ]);
        assert_eq!(told(seen), [(20, Change::Began), (509, Change::Ended)]);
    }

    #[test]
    fn a_short_gap_is_none_and_a_long_one_is() {
        let gap = |ticks| told(pattern(&[(true, 6), (false, ticks), (true, 6)]));
        assert_eq!(gap(4), [(10, Change::Began)]);
        assert_eq!(gap(5), []);
        assert_eq!(told(pattern(&[(true, 9)])), []);
    }

    proptest! {
        /// However it flaps, it begins and ends in turn, and no two episodes begin within ten seconds.
        #[test]
        fn it_cannot_flood(seen in proptest::collection::vec(any::<bool>(), 0..3000)) {
            let told = told(seen);
            for (place, (_, change)) in told.iter().enumerate() {
                let expected = if place % 2 == 0 { Change::Began } else { Change::Ended };
                prop_assert_eq!(*change, expected);
            }
            let begins: Vec<usize> = told.iter().step_by(2).map(|(tick, _)| *tick).collect();
            for pair in begins.windows(2) {
                prop_assert!(pair[1] - pair[0] >= 100);
            }
        }
    }
}
