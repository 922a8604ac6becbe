//! Whether an endpoint of whose silence only few calls tell is awake.
//!
//! ```text
//!   endpoint  ●───────────────┬──────────── answered ──▶ it is, and those few are slow
//!             ├── a third ────┤ asked
//!             ├── the limit: four p99s ─────────────┤ stalled
//! ```
//!
//! So fewer than one call in a hundred asks, and the verdict comes when it would have come of many. An answer has half of the
//! limit at least, for to connect, to shake hands and to be answered takes three round trips.

use std::time::Duration;

use tokio::time::Instant;

use super::{Stall, StallContext};

#[derive(Clone, Copy, Debug)]
pub struct Doubt {
    quiet_since: Instant,
    asked: Option<Instant>,
}

impl Doubt {
    /// `None`: it has not been quiet for long enough.
    pub fn of(context: &StallContext, now: Instant) -> Option<Self> {
        let quiet_since = context.quiet_since()?;
        let quiet_for = now.saturating_duration_since(quiet_since);
        (quiet_for > context.limit() / 3).then_some(Self {
            quiet_since,
            asked: None,
        })
    }

    /// By an answer to a call.
    pub fn is_settled(&self, last_completion: Option<Instant>) -> bool {
        last_completion.is_some_and(|last| last > self.quiet_since)
    }

    /// Whether it is to be asked now. It is asked once.
    pub const fn asks(&mut self, now: Instant) -> bool {
        let asks = self.asked.is_none();
        if asks {
            self.asked = Some(now);
        }
        asks
    }

    /// It was asked, and has not answered in time, while another endpoint has answered somebody. `limit`: what is one
    /// [by now](super::limit).
    pub fn stall(
        &self,
        limit: Duration,
        others_last: Option<Instant>,
        now: Instant,
    ) -> Option<Stall> {
        let waited = now.saturating_duration_since(self.asked?);
        let quiet_for = now.saturating_duration_since(self.quiet_since);
        let peer_completed_since = others_last? > self.quiet_since;
        (peer_completed_since && waited > limit / 2 && quiet_for > limit)
            .then_some(Stall { quiet_for, limit })
    }
}
