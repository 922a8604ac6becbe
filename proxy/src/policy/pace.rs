//! How much longer requests of a tier take in the app than they do while everybody finds room.
//!
//! ```text
//!   mean time │                 ╭─╮ now: the last 30 or so
//!   in app    │           ╭─────╯ ╰── slowed: more than a fifth above
//!             │───────────┴────────── calm: the last 1,000, while there was room for all
//!             └─────────────────────
//!              room for all │ saturated
//! ```
//!
//! The limit of the whole app ([`knee`](super::knee)) lets it take up to twice as long as it would unsaturated, for that is where
//! throughput is. Whoever matters more should not pay for it: [`headroom`](super::headroom) sees to that. Each tier is compared
//! with itself, for what matters may be what takes long.

use std::time::Duration;

/// So many requests back, `now` and `calm` forget.
const NOW: f32 = 30.0;
const CALM: f32 = 1000.0;
/// Of fewer, the mean of what takes an exponential time is chance.
const CALM_MIN: f32 = 100.0;
/// A tenth of a second each; after that, what is now is not known any more.
const QUIET_MAX: u8 = 10;

/// Of one tier.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pace {
    calm: Mean,
    now: Mean,
    /// Since the last tick.
    tick: Tick,
    /// Ticks without any.
    quiet: u8,
}

/// A moving mean, in seconds, of so many.
#[derive(Clone, Copy, Debug, Default)]
struct Mean {
    value: f32,
    count: f32,
}

#[derive(Clone, Copy, Debug, Default)]
struct Tick {
    seconds: f32,
    count: f32,
}

impl Pace {
    /// One was answered after so long in the app.
    pub fn took(&mut self, latency: Duration) {
        self.tick.seconds += latency.as_secs_f32();
        self.tick.count += 1.0;
    }

    /// Ten times a second. `saturated`: somebody found no room since the last time.
    pub fn tick(&mut self, saturated: bool) {
        let tick = std::mem::take(&mut self.tick);
        self.quiet = match tick.count > 0.0 {
            true => 0,
            false => self.quiet.saturating_add(1),
        };
        self.now.add(tick, NOW);
        if !saturated {
            self.calm.add(tick, CALM);
        }
    }

    /// It has become slower, and not for how much there is to do.
    pub fn became_slower(&mut self) {
        self.calm.value = self.calm.value.max(self.now.value);
    }

    /// In times what is usual. `None`: one of them is not known.
    pub fn slowdown(&self) -> Option<f32> {
        let is_known = self.calm.count >= CALM_MIN && self.quiet <= QUIET_MAX;
        (is_known && self.calm.value > 0.0).then(|| self.now.value / self.calm.value)
    }
}

impl Mean {
    fn add(&mut self, tick: Tick, count_max: f32) {
        if tick.count == 0.0 {
            return;
        }
        self.count = (self.count + tick.count).min(count_max.max(tick.count));
        let mean = tick.seconds / tick.count;
        self.value += (mean - self.value) * tick.count / self.count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const USUAL: Duration = Duration::from_millis(20);

    /// A hundred a second.
    fn ticks(pace: &mut Pace, latency: Duration, count: u32, saturated: bool) {
        for _ in 0..count {
            (0..10).for_each(|_| pace.took(latency));
            pace.tick(saturated);
        }
    }

    fn is(pace: &Pace, expected: f32) {
        let found = pace.slowdown().expect("it is known");
        assert!((found - expected).abs() < 0.05, "{found}");
    }

    #[test]
    fn what_takes_longer_than_while_there_was_room_is_slowed() {
        let mut pace = Pace::default();
        ticks(&mut pace, USUAL, 10, false);
        is(&pace, 1.0);
        ticks(&mut pace, USUAL * 2, 20, true);
        is(&pace, 2.0);
        ticks(&mut pace, USUAL * 3, 20, true);
        is(&pace, 3.0);
        ticks(&mut pace, USUAL, 20, true);
        is(&pace, 1.0);
    }

    #[test]
    fn saturation_is_not_what_anything_is_compared_with() {
        let mut pace = Pace::default();
        ticks(&mut pace, USUAL, 10, false);
        ticks(&mut pace, USUAL * 2, 1000, true);
        is(&pace, 2.0);
    }

    #[test]
    fn who_was_hardly_seen_with_room_for_all_is_compared_with_nothing() {
        let mut pace = Pace::default();
        ticks(&mut pace, USUAL, 9, false);
        ticks(&mut pace, USUAL * 9, 100, true);
        assert_eq!(pace.slowdown(), None);
    }

    #[test]
    fn what_was_a_second_ago_is_not_what_is_now() {
        let mut pace = Pace::default();
        ticks(&mut pace, USUAL, 10, false);
        (0..10).for_each(|_| pace.tick(true));
        is(&pace, 1.0);
        pace.tick(true);
        assert_eq!(pace.slowdown(), None);
    }

    #[test]
    fn an_app_that_has_become_slower_is_compared_with_what_it_is() {
        let mut pace = Pace::default();
        ticks(&mut pace, USUAL, 10, false);
        ticks(&mut pace, USUAL * 6, 20, true);
        pace.became_slower();
        is(&pace, 1.0);
    }

    #[test]
    fn what_is_usual_follows_as_long_as_there_is_room() {
        let mut pace = Pace::default();
        ticks(&mut pace, USUAL, 100, false);
        ticks(&mut pace, USUAL * 2, 600, false);
        is(&pace, 1.0);
    }
}
