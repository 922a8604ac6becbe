//! The stall rule (T3 of the endpoint gate): silence of one endpoint while its peers answer.
//!
//! ```text
//!   endpoint  ──●───●──●──────────────────────────▶ quiet since max(last answer, oldest request in flight)
//!   peers     ─●──●──●───●──●──●──●──●──●──●──●──▶
//!                      ├── limit ──┤ stalled
//! ```
//!
//! A black hole fails nothing until the first timeout, a second or more too late; but a pool that answers 99 %
//! within 30 ms makes a silence of 120 ms telling. Ours (resilience.md section 2): ejects in 150–200 ms where
//! rules that count failures need the request timeout first. The comparison with the peers keeps it quiet when
//! everything is slow.
//!
//! How telling depends on how many wait: one may be a slow call or a stream that has nothing to say yet, and where few
//! come nobody else would have been answered meanwhile. That three are among their slowest hundredth is a chance of one
//! in a million. Of fewer, and of those that have no deadline, nothing follows but a [`Doubt`]: the endpoint is asked.

mod doubt;

use std::time::Duration;
use tokio::time::Instant;

pub use doubt::Doubt;

/// Quiet for this many pool p99s is a stall …
const P99S: u32 = 4;
/// … but no shorter time is, however fast the pool: a pause of a garbage collector is no stall.
const LIMIT_MIN: Duration = Duration::from_millis(100);
/// So many calls that wait at the same time are not all slow by chance.
pub const TELLING: usize = 3;
/// It must speak before the try's own timeout does, also when it is asked only 20 times a second.
const SHARE_OF_TIMEOUT_MAX: f64 = 0.75;

/// What the rule looks at. *In flight* means waiting for the head of a response: a stream that is being
/// delivered is not waiting.
#[derive(Clone, Copy, Debug)]
pub struct StallContext {
    pub oldest_in_flight_start: Option<Instant>,
    pub last_completion: Option<Instant>,
    pub pool_p99: Duration,
    /// Of a try.
    pub timeout: Duration,
    /// Another endpoint of the pool has answered since this one went quiet.
    pub peer_completed_since: bool,
    /// Since when the [`TELLING`]th waits of those that have a deadline.
    pub telling_start: Option<Instant>,
}

/// A silence that is too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stall {
    pub quiet_for: Duration,
    /// So long it might have been.
    pub limit: Duration,
}

impl StallContext {
    pub fn stall(&self, now: Instant) -> Option<Stall> {
        let limit = self.limit();
        let quiet_for = now.saturating_duration_since(self.quiet_since()?);
        (self.peer_completed_since && quiet_for > limit).then_some(Stall { quiet_for, limit })
    }

    fn quiet_since(&self) -> Option<Instant> {
        let started = self.oldest_in_flight_start?;
        Some(
            self.last_completion
                .map_or(started, |last| last.max(started)),
        )
    }

    /// Whether those that wait are proof enough, slow as some calls are.
    pub fn is_telling(&self, now: Instant) -> bool {
        let waited = |start| now.saturating_duration_since(start);
        self.telling_start
            .is_some_and(|start| waited(start) > self.limit() / P99S)
    }

    fn limit(&self) -> Duration {
        limit(self.pool_p99, self.timeout)
    }
}

/// So long may be no answer. `timeout`: of a try.
pub fn limit(pool_p99: Duration, timeout: Duration) -> Duration {
    pool_p99
        .saturating_mul(P99S)
        .max(LIMIT_MIN)
        .min(timeout.mul_f64(SHARE_OF_TIMEOUT_MAX))
}

#[cfg(test)]
mod tests;
