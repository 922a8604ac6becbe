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

    fn limit(&self) -> Duration {
        self.pool_p99
            .saturating_mul(P99S)
            .max(LIMIT_MIN)
            .min(self.timeout.mul_f64(SHARE_OF_TIMEOUT_MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context(start: Instant) -> StallContext {
        StallContext {
            oldest_in_flight_start: Some(start),
            last_completion: None,
            pool_p99: Duration::from_millis(50),
            timeout: Duration::from_secs(1),
            peer_completed_since: true,
        }
    }

    fn after(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn four_p99s_of_silence_are_a_stall() {
        let start = Instant::now();
        assert_eq!(context(start).stalled_for(start + after(200)), None);
        assert_eq!(
            context(start).stalled_for(start + after(201)),
            Some(after(201))
        );
    }

    #[test]
    fn an_answer_starts_the_silence_anew() {
        let start = Instant::now();
        let answered = StallContext {
            last_completion: Some(start + after(150)),
            ..context(start)
        };
        assert_eq!(answered.stalled_for(start + after(350)), None);
        assert!(answered.stalled_for(start + after(351)).is_some());
    }

    #[test]
    fn a_pause_before_the_request_is_no_silence() {
        let start = Instant::now() + after(10_000);
        let after_a_pause = StallContext {
            last_completion: Some(start - after(9_000)),
            ..context(start)
        };
        assert_eq!(after_a_pause.stalled_for(start + after(150)), None);
    }

    #[test]
    fn an_idle_endpoint_never_stalls() {
        let start = Instant::now();
        let idle = StallContext {
            oldest_in_flight_start: None,
            last_completion: Some(start),
            ..context(start)
        };
        assert_eq!(idle.stalled_for(start + after(3_600_000)), None);
    }

    #[test]
    fn silence_everywhere_is_no_stall_of_one() {
        let start = Instant::now();
        let alone = StallContext {
            peer_completed_since: false,
            ..context(start)
        };
        assert_eq!(alone.stalled_for(start + after(10_000)), None);
    }

    #[test]
    fn the_limit_is_neither_shorter_than_a_pause_nor_longer_than_the_timeout() {
        let start = Instant::now();
        for (p99, timeout, limit) in [
            (1, 1000, 100),
            (50, 1000, 200),
            (900, 1000, 750),
            (1, 40, 30),
        ] {
            let context = StallContext {
                pool_p99: after(p99),
                timeout: after(timeout),
                ..context(start)
            };
            assert_eq!(
                context.limit(),
                after(limit),
                "p99 {p99} ms, timeout {timeout} ms"
            );
        }
    }
}
