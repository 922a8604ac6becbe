//! What the calls that an app makes take over from the call that it answers: deadline, priority, and that it is a retry.
//!
//! Both directions of a pod are one process, so a call that goes out under the trace of a call that came in is known to
//! be made because of it (resilience.md section 7); the app does nothing but pass on `traceparent`.
//!
//! ```text
//!   given to the app                      the app begins to answer
//!   ────────▶ live: calls under its trace ───────────────────────▶ forgotten: what follows is the app's own work
//!                 inherit                 deadline over, or the caller left
//!                                         ───────────────────────▶ abandoned for 30 s: calls still inherit, so that
//!                                                                   work nobody waits for is refused, then forgotten
//! ```
//!
//! **When it ends.** An app that answers 202 and goes on works on its own account: nobody waits, so no deadline of a caller
//! may cut that work. An app that has been given up on has not understood that yet, and what it still begins is wasted:
//! that is what the 30 s are for. The deadline does not end when the caller leaves before it: the work may be one that
//! must not stop half-way, and it was started with that much time.
//!
//! **Several calls under one trace** (two branches of a fan-in, a retry that meets its first try, or somebody who reuses a
//! trace id): nobody can tell for which of them the app makes a call, so it gets what is safe for all: the *latest*
//! deadline, the *first* attempt, the *highest* priority. Whoever reuses a trace id can so give others more time, up to
//! what their routes allow, but never less, and never put them further back. It stays so until all of them have ended.
//!
//! **Bounds.** A live one is a request in the app, and those are limited; the abandoned make room for the live, the oldest
//! first. Where there is no room at all, a request is simply not inherited from.
//!
//! No clock, no lock: the caller passes `now` and owns the synchronisation.

use std::collections::hash_map::Entry as Place;
use std::collections::{HashMap, VecDeque};
use std::time::Duration;
use tokio::time::Instant;

use super::deadline::Deadline;
use super::priority::Priority;
use crate::trace::TraceKey;

/// How long after it was given up an app is held to begin more of that work: longer than apps queue.
const ABANDONED_FOR: Duration = Duration::from_secs(30);
/// Looked at whenever something begins or ends, so that what is over goes without a sweep.
const FORGET_AT_ONCE: usize = 2;

/// What is inherited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inherited {
    pub deadline: Deadline,
    pub is_retry: bool,
    pub priority: Priority,
}

/// How a call to the app ended, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The app began to answer, or broke off.
    Answered,
    /// Its deadline passed, or its caller left, before that.
    Abandoned,
}

#[derive(Debug)]
pub struct Inheritance {
    known: HashMap<TraceKey, Known>,
    /// The oldest first. Some say what is no longer true: a trace that came back to life, or was abandoned again.
    abandoned: VecDeque<(TraceKey, Instant)>,
    capacity: usize,
}

#[derive(Debug)]
struct Known {
    inherited: Inherited,
    /// Calls in the app.
    live: u32,
    /// One of those that have ended was answered: what is left to do may be that one's own work.
    answered: bool,
    /// A call that was made under it has been retried in vain, or could not be afforded another try.
    exhausted: bool,
    /// Set while nothing is live.
    forget_at: Option<Instant>,
}

impl Inheritance {
    pub fn new(capacity: usize) -> Self {
        Self {
            known: HashMap::new(),
            abandoned: VecDeque::new(),
            capacity,
        }
    }

    /// A call goes to the app. `false`: there is no room, and it must not be [left](Self::leave).
    pub fn enter(&mut self, key: TraceKey, inherited: Inherited, now: Instant) -> bool {
        self.forget(now);
        if self.known.len() >= self.capacity && !self.known.contains_key(&key) {
            self.make_room();
        }
        let full = self.known.len() >= self.capacity;
        match self.known.entry(key) {
            Place::Vacant(_) if full => return false,
            Place::Vacant(place) => {
                place.insert(Known {
                    inherited,
                    live: 1,
                    answered: false,
                    exhausted: false,
                    forget_at: None,
                });
            }
            Place::Occupied(place) => {
                let known = place.into_mut();
                known.inherited = known.inherited.safe_for_both(inherited);
                known.live = known.live.saturating_add(1);
                if known.forget_at.take().is_some() {
                    (known.answered, known.exhausted) = (false, false);
                }
            }
        }
        true
    }

    /// It has ended. Whether a call that was made under its trace has [exhausted](Self::exhaust) its retries.
    pub fn leave(&mut self, key: TraceKey, end: End, now: Instant) -> bool {
        self.forget(now);
        let Some(known) = self.known.get_mut(&key) else {
            return false;
        };
        let exhausted = known.exhausted;
        known.live = known.live.saturating_sub(1);
        known.answered |= end == End::Answered;
        if known.live > 0 {
            return exhausted;
        }
        // Without a deadline there is nothing by which more work could be refused.
        if known.answered || known.inherited.deadline == Deadline::NEVER {
            self.known.remove(&key);
            return exhausted;
        }
        let forget_at = now + ABANDONED_FOR;
        known.forget_at = Some(forget_at);
        if self.abandoned.len() >= self.capacity {
            self.forget_oldest();
        }
        self.abandoned.push_back((key, forget_at));
        exhausted
    }

    /// For a call that the app makes under this trace.
    pub fn inherit(&self, key: TraceKey, now: Instant) -> Option<Inherited> {
        let known = self.known.get(&key)?;
        let forgotten = known.forget_at.is_some_and(|at| now >= at);
        (!forgotten).then_some(known.inherited)
    }

    /// Retrying has been tried below: whoever called the app need not try again.
    pub fn exhaust(&mut self, key: TraceKey) {
        if let Some(known) = self.known.get_mut(&key) {
            known.exhausted = true;
        }
    }

    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    fn forget(&mut self, now: Instant) {
        for _ in 0..FORGET_AT_ONCE {
            match self.abandoned.front() {
                Some((_, forget_at)) if now >= *forget_at => self.forget_oldest(),
                _ => return,
            };
        }
    }

    fn make_room(&mut self) {
        while self.known.len() >= self.capacity && !self.abandoned.is_empty() {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some((key, forget_at)) = self.abandoned.pop_front()
            && let Place::Occupied(known) = self.known.entry(key)
            && known.get().forget_at == Some(forget_at)
        {
            known.remove();
        }
    }
}

impl Inherited {
    fn safe_for_both(self, other: Self) -> Self {
        Self {
            deadline: self.deadline.max(other.deadline),
            is_retry: self.is_retry && other.is_retry,
            priority: self.priority.min(other.priority),
        }
    }
}

#[cfg(test)]
mod tests;
