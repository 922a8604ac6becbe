//! What a half-open gate has asked for, and what has come of it.

use std::time::Duration;

use tokio::time::Instant;

use super::Cause;

/// A probe that has not come back by now is replaced. It counts for nothing, unless its answer has begun well: then it is
/// a stream, which may go on for hours.
pub(super) const PROBE_MAX: Duration = Duration::from_secs(10);
/// How long the next probe waits for a request that could be retried elsewhere, should it fail.
pub(super) const RETRY_SAFE_WAIT: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Probing {
    pub(super) cause: Cause,
    synthetic: Synthetic,
    /// The one request that is allowed.
    request: Option<Asked>,
    /// Since when a request is awaited.
    vacant_since: Instant,
    pub(super) succeeded: u32,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Synthetic {
    Wanted,
    Running { since: Instant },
    Passed,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Asked {
    since: Instant,
    /// The head of its answer is there, and is good.
    answered: bool,
}

/// What has become of the request that was admitted.
pub(super) enum Overdue {
    /// Nobody knows.
    Lost,
    /// It is answered all the time.
    Stream,
}

impl Probing {
    pub(super) const fn new(cause: Cause, now: Instant) -> Self {
        Self {
            cause,
            synthetic: Synthetic::Wanted,
            request: None,
            vacant_since: now,
            succeeded: 0,
        }
    }

    /// Whether the synthetic probe is to be made now. It is handed out once.
    pub(super) fn starts_synthetic(&mut self, now: Instant) -> bool {
        let wanted = self.synthetic == Synthetic::Wanted;
        if wanted {
            self.synthetic = Synthetic::Running { since: now };
        }
        wanted
    }

    pub(super) const fn runs_synthetic(&self) -> bool {
        matches!(self.synthetic, Synthetic::Running { .. })
    }

    pub(super) fn synthetic_passed(&mut self, now: Instant) {
        self.synthetic = Synthetic::Passed;
        self.vacant_since = now;
    }

    pub(super) fn awaits_request(&self) -> bool {
        self.synthetic == Synthetic::Passed && self.request.is_none()
    }

    /// The same, for a request that can be retried elsewhere, should it fail, or cannot.
    pub(super) fn wants_request(&self, retry_safe: bool, now: Instant) -> bool {
        let waited = now.saturating_duration_since(self.vacant_since);
        self.awaits_request() && (retry_safe || waited >= RETRY_SAFE_WAIT)
    }

    /// Whether the request is there and has got no answer for so long.
    pub(super) fn has_waited(&self, limit: Duration, now: Instant) -> bool {
        match self.request {
            Some(Asked {
                since,
                answered: false,
            }) => now.saturating_duration_since(since) > limit,
            _ => false,
        }
    }

    pub(super) const fn ask(&mut self, now: Instant) {
        self.request = Some(Asked {
            since: now,
            answered: false,
        });
    }

    pub(super) const fn answered(&mut self) {
        if let Some(Asked { answered, .. }) = &mut self.request {
            *answered = true;
        }
    }

    /// The next request may come.
    pub(super) const fn vacate(&mut self, now: Instant) {
        self.request = None;
        self.vacant_since = now;
    }

    /// A synthetic probe that is lost is wanted anew; whether the request is overdue.
    pub(super) fn move_on(&mut self, now: Instant) -> Option<Overdue> {
        let is_over = |since: Instant| now.saturating_duration_since(since) >= PROBE_MAX;
        if matches!(self.synthetic, Synthetic::Running { since } if is_over(since)) {
            self.synthetic = Synthetic::Wanted;
        }
        let asked = self.request.filter(|asked| is_over(asked.since))?;
        Some(match asked.answered {
            true => Overdue::Stream,
            false => Overdue::Lost,
        })
    }
}
