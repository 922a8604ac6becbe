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

use std::time::Duration;
use tokio::time::Instant;

/// Quiet for this many pool p99s is a stall …
const P99S: u32 = 4;
/// … but no shorter time is, however fast the pool: a pause of a garbage collector is no stall.
const LIMIT_MIN: Duration = Duration::from_millis(100);
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
}

impl StallContext {
    /// For how long the endpoint has been silent, if that is a stall.
    pub fn stalled_for(&self, now: Instant) -> Option<Duration> {
        let started = self.oldest_in_flight_start?;
        let quiet_since = self
            .last_completion
            .map_or(started, |last| last.max(started));
        let quiet_for = now.saturating_duration_since(quiet_since);
        (self.peer_completed_since && quiet_for > self.limit()).then_some(quiet_for)
    }

    /// So long may be no answer.
    pub fn limit(&self) -> Duration {
        self.pool_p99
            .saturating_mul(P99S)
            .max(LIMIT_MIN)
            .min(self.timeout.mul_f64(SHARE_OF_TIMEOUT_MAX))
    }
}

#[cfg(test)]
mod tests;
