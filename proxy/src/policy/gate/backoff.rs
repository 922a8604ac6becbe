//! How long an endpoint stays out: longer each time, and the way back for each span of health.

use std::time::Duration;

use tokio::time::Instant;
use weir_config::snapshot::Gate as Config;

use super::Cause;
use crate::policy::jitter;

/// T4: a refused connect is cheap to try again, so it starts low.
const CONNECT_OPEN_MIN: Duration = Duration::from_millis(100);
pub(super) const CONNECT_OPEN_MAX: Duration = Duration::from_secs(10);
const JITTER: f64 = 0.2;
/// One doubling of the open time is forgiven for each such span of health.
const HEALTHY: Duration = Duration::from_secs(30);

#[derive(Debug, Default)]
pub(super) struct Backoff {
    /// The k of `open_for × 2^k`, and the same for connects.
    doublings: u32,
    connect_doublings: u32,
    /// Since when it passes calls, if it was open before.
    healthy_since: Option<Instant>,
}

impl Backoff {
    pub(super) const fn recovered(&mut self, now: Instant) {
        self.healthy_since = Some(now);
    }

    /// It opens now: for how long.
    pub(super) fn next(
        &mut self,
        config: &Config,
        cause: Cause,
        now: Instant,
        rand: u64,
    ) -> Duration {
        if let Some(since) = self.healthy_since.take() {
            let healthy_for = now.saturating_duration_since(since);
            let forgiven = (healthy_for.as_secs() / HEALTHY.as_secs()) as u32;
            self.doublings = self.doublings.saturating_sub(forgiven);
            self.connect_doublings = self.connect_doublings.saturating_sub(forgiven);
        }
        let (doublings, first, max) = match cause {
            Cause::Evidence | Cause::Silence => {
                (&mut self.doublings, *config.open_for, *config.max_open_for)
            }
            Cause::Connect => (
                &mut self.connect_doublings,
                CONNECT_OPEN_MIN,
                CONNECT_OPEN_MAX,
            ),
        };
        // The jitter stays below the promised maximum, and still spreads there.
        let longest = max.div_f64(1.0 + JITTER);
        let open_for = first.saturating_mul(1 << *doublings).min(longest);
        if open_for < longest {
            *doublings = (*doublings + 1).min(u32::BITS - 1);
        }
        jitter::around(open_for, JITTER, rand)
    }
}
