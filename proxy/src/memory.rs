//! The memory that the sidecar may use, and what it refuses when there is hardly any left.
//!
//! Each thing that a peer can make grow has a bound of its own; this is the one for all of them together, where the
//! sidecar's container has one. While it is short of memory little is done at a time, rather than nothing: a limit that
//! was chosen too low must not end all traffic.

mod allocator;
mod meter;

use std::io;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::body::Duty;
use crate::error::Error;
use crate::policy::memory::{Level, Memory as Policy, Observed};
use crate::policy::outcome::Outcome;
use crate::telemetry;
use meter::Meter;

/// While at most half is used.
const LOOK: Duration = Duration::from_millis(100);
/// Above that: whoever can send fills 40 MB in a second, which is a third of a small limit in 250 ms.
const CLOSE_LOOK: Duration = Duration::from_millis(10);
/// The allocator is locked meanwhile.
const GIVE_BACK: Duration = Duration::from_secs(1);
/// Begun while there is little memory, and not yet ended. Each may keep its head, 64 KiB of its body and two windows.
const CALLS_MAX: u32 = 64;
/// Open, when another one comes while there is next to none.
pub const CONNECTIONS_MAX: usize = 64;

/// Of the process, as its memory is.
pub static SIDECAR: Memory = Memory::new();

pub struct Memory {
    level: AtomicU8,
    calls: AtomicU32,
    /// How often the allocator was asked to give back what it has in stock.
    asked: AtomicU32,
}

/// Of a call that was begun while there was little memory; given back when it ends.
pub struct Place(&'static Memory);

impl Memory {
    const fn new() -> Self {
        Self {
            level: AtomicU8::new(Level::Enough as u8),
            calls: AtomicU32::new(0),
            asked: AtomicU32::new(0),
        }
    }

    /// For one more call. `None`: it needs none, there is memory enough.
    pub fn enter(&'static self) -> Result<Option<Place>, Error> {
        if !self.is(Level::Short) {
            return Ok(None);
        }
        let one_more = |calls| (calls < CALLS_MAX).then_some(calls + 1);
        match (self.calls).fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more) {
            Ok(_) => Ok(Some(Place(self))),
            Err(_) => Err(Error::OutOfMemory),
        }
    }

    /// For one more connection beside those that are open.
    pub fn has_room_beside(&self, open: usize) -> bool {
        !self.is(Level::Critical) || open < CONNECTIONS_MAX
    }

    fn is(&self, level: Level) -> bool {
        self.level.load(Ordering::Relaxed) >= level as u8
    }

    fn set(&self, level: Level) {
        self.level.store(level as u8, Ordering::Relaxed);
    }
}

/// It has nothing to learn from how the call went.
impl Duty for Place {
    fn done(self, _: Outcome, _: Instant) {}
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.calls.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Looks for as long as the process lasts. `given`: a limit in bytes that it was started with, beside its cgroup's.
pub async fn watch(given: Option<u64>) {
    let meter = match Meter::find(given) {
        Ok(Some(meter)) => meter,
        Ok(None) => return,
        Err(error) => return unknown(&error),
    };
    let (mut policy, mut last, mut asked) = (Policy::default(), Level::Enough, None);
    loop {
        let now = Instant::now();
        let (used, limit) = match meter.read() {
            Ok(read) => read,
            Err(error) => return unknown(&error),
        };
        let Observed { level, give_back } = policy.observe(used, limit);
        SIDECAR.set(level);
        telemetry::memory(used, limit, level);
        if level != last {
            last = level;
            tracing::warn!(used, limit, ?level, "memory");
        }
        if give_back && asked.is_none_or(|asked| now.duration_since(asked) >= GIVE_BACK) {
            asked = Some(now);
            SIDECAR.asked.fetch_add(1, Ordering::Relaxed);
            allocator::give_back();
        }
        sleep(if used < limit / 2 { LOOK } else { CLOSE_LOOK }).await;
    }
}

fn unknown(error: &io::Error) {
    tracing::warn!(%error, "the sidecar's memory cannot be measured: nothing is refused for it");
    SIDECAR.set(Level::Enough);
}

/// A worker's part in giving back.
#[derive(Default)]
pub struct Stock(u32);

impl Stock {
    /// A few times a second.
    pub fn tick(&mut self) {
        let asked = SIDECAR.asked.load(Ordering::Relaxed);
        if std::mem::replace(&mut self.0, asked) != asked {
            allocator::give_back_of_this_thread();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory(level: Level) -> &'static Memory {
        let memory = Box::leak(Box::new(Memory::new()));
        memory.set(level);
        memory
    }

    #[test]
    fn while_there_is_enough_nobody_is_counted() {
        let memory = memory(Level::Enough);
        for _ in 0..1000 {
            assert!(matches!(memory.enter(), Ok(None)));
        }
        assert!(memory.has_room_beside(10_000));
    }

    /// A limit that is too low for the sidecar alone would end all traffic otherwise.
    #[test]
    fn short_of_it_little_is_done_at_a_time_and_not_nothing() {
        for level in [Level::Short, Level::Critical] {
            let memory = memory(level);
            let all: Vec<_> = (0..100).map(|_| memory.enter()).collect();
            let begun = all
                .iter()
                .filter(|entered| matches!(entered, Ok(Some(_))))
                .count();
            assert_eq!(begun, 64, "{level:?}");
            drop(all);
            assert!(matches!(memory.enter(), Ok(Some(_))), "nothing is lost");
        }
    }

    #[test]
    fn with_next_to_none_few_connections_are_taken() {
        assert!(memory(Level::Short).has_room_beside(1000));
        assert!(memory(Level::Critical).has_room_beside(63));
        assert!(!memory(Level::Critical).has_room_beside(64));
    }
}
