//! What is noted from one look at shares and cutoff to the next.

use std::time::Duration;

use tokio::time::Instant;

/// How often shares and cutoff are worked out afresh.
pub(super) const TICK: Duration = Duration::from_millis(100);
/// Ticks in the second over which completions are counted.
const TICKS: usize = 10;

/// What is noted between two ticks.
#[derive(Debug)]
pub(super) struct Ticks {
    pub(super) next: Instant,
    pub(super) since: Instant,
    pub(super) saturated: bool,
    /// The queue sent somebody away.
    pub(super) overloaded: bool,
    completed: [u32; TICKS],
    current: usize,
}

impl Ticks {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            next: now + TICK,
            since: now,
            saturated: false,
            overloaded: false,
            completed: [0; TICKS],
            current: 0,
        }
    }

    /// In the last second.
    pub(super) fn completed(&self) -> u32 {
        self.completed.iter().sum()
    }

    pub(super) fn complete(&mut self) {
        self.completed[self.current] += 1;
    }

    pub(super) fn pass(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.since);
        let slots = (passed.as_millis() / TICK.as_millis()).clamp(1, TICKS as u128) as usize;
        for _ in 0..slots {
            self.current = (self.current + 1) % TICKS;
            self.completed[self.current] = 0;
        }
        self.since = now;
        self.next = now + TICK;
        self.saturated = false;
        self.overloaded = false;
    }
}
