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
//!
//! Where few come they may all wait for the same endpoint, and no other has anything to answer. Then others are asked, too:
//! that one of them is awake is as good a comparison.

use std::time::Duration;

use tokio::time::Instant;

use super::{Stall, StallContext};
use crate::policy::gate::ProbeKind;

/// Of so many others that do not answer, the next will not, either.
pub(super) const OTHERS_MAX: u32 = 3;

#[derive(Clone, Copy, Debug)]
pub struct Doubt {
    quiet_since: Instant,
    asked: Option<Instant>,
    /// So many.
    others_asked: u32,
    /// Another endpoint has answered since, a call or a question.
    is_compared: bool,
}

impl Doubt {
    /// `None`: it has not been quiet for long enough.
    pub fn of(context: &StallContext, now: Instant) -> Option<Self> {
        let quiet_since = context.quiet_since()?;
        let quiet_for = now.saturating_duration_since(quiet_since);
        (quiet_for > context.limit() / 3).then_some(Self {
            quiet_since,
            asked: None,
            others_asked: 0,
            is_compared: false,
        })
    }

    /// By an answer to a call.
    pub fn is_settled(&self, last_completion: Option<Instant>) -> bool {
        last_completion.is_some_and(|last| last > self.quiet_since)
    }

    /// Who is to be asked now: it once, then one other at a time, as long as none has answered anybody.
    pub fn asks(&mut self, now: Instant) -> Option<ProbeKind> {
        if self.asked.is_none() {
            self.asked = Some(now);
            return Some(ProbeKind::Doubt);
        }
        let asks_another = !self.is_compared && self.others_asked < OTHERS_MAX;
        self.others_asked += u32::from(asks_another);
        asks_another.then_some(ProbeKind::Comparison)
    }

    /// Another endpoint was asked, and is awake.
    pub const fn compared(&mut self) {
        self.is_compared = true;
    }

    /// It was asked, and has not answered in time, while another endpoint has answered somebody. `limit`: what is one
    /// [by now](super::limit).
    pub fn stall(
        &mut self,
        limit: Duration,
        others_last: Option<Instant>,
        now: Instant,
    ) -> Option<Stall> {
        self.is_compared |= others_last.is_some_and(|last| last > self.quiet_since);
        let waited = now.saturating_duration_since(self.asked?);
        let quiet_for = now.saturating_duration_since(self.quiet_since);
        let is_over = waited > limit / 2 && quiet_for > limit;
        (self.is_compared && is_over).then_some(Stall { quiet_for, limit })
    }
}
