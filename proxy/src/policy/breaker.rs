//! Circuit breaker of a whole service: when too many calls fail or are slow, stop calling, then probe.
//!
//! ```text
//!            failure or slow rate reached,
//!            over ≥ minimum_calls of the window        open_for × 2^k ± 20 % over
//!   Closed ─────────────────────────────────▶ Open ────────────────────────────▶ HalfOpen
//!     ▲                                        ▲                                    │  │ ▲
//!     │                                        ├───────── more than one probe failed┤  └─┘ probes missing,
//!     │                                        └───────── none ever came back ──────┤      some succeeded:
//!     └─────────────────────────────────────────────────── enough probes succeeded ─┘      probe again
//! ```
//!
//! Resilience4j's semantics (time-based window, slow calls, several permitted half-open calls, a limit on
//! the time spent half-open) with numbers that can trip (resilience.md section 2). A binary breaker of a
//! whole service turns a partial outage into a full one (Brooker, "Will circuit breakers solve my problems?"),
//! so none exists unless a policy asks for it; single bad endpoints are the [gate](super::gate)'s business.
//!
//! A probe whose answer has begun well and goes on is a stream, which may last for hours: when half-open has lasted long
//! enough it counts as a success.
//!
//! From any state a policy or an operator may force it open or closed; when that ends it starts afresh, closed. A breaker
//! that is not armed (no policy asks for one) passes everything and learns nothing, but can be forced like any other.
//!
//! No clock, no dice, no I/O, no lock: the caller passes `now` and `rand` and owns the synchronisation.

use std::time::Duration;
use tokio::time::Instant;
use weir_config::snapshot::{Breaker as Config, Force};

use super::jitter;
use super::outcome::{Fault, Outcome};
use super::transition::{Phase, Transition, Transitions, Why};
use super::window::{Counts, Window};

/// `open_for` doubles at most this often: ×8.
const DOUBLINGS_MAX: u32 = 3;
/// Breakers of many sidecars open together; they should not come back together.
const JITTER: f64 = 0.2;
/// Half-open lasts at most this many `open_for` when its probes do not come back.
const PROBING_MAX: u32 = 2;
/// Each push works out anew, by a clock of its own, when an operator's word ends: so close together it is the same word.
const SAME_END: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub struct Breaker {
    config: Config,
    /// Whether a policy asks for it.
    armed: bool,
    state: State,
    window: Window,
    /// The k of `open_for × 2^k`: how often it opened again without a good while in between.
    reopened: u32,
    /// Drawn each time it opens: decides the jitter.
    rand: u64,
    closed_at: Option<Instant>,
    /// Bumped on every transition, so that a call admitted before it cannot be taken for a later probe.
    generation: u64,
    transitions: Transitions,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    Closed,
    Open { until: Instant },
    HalfOpen(Probes),
    Forced(Forced),
}

/// Held open or closed, whatever calls come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forced {
    pub to: Force,
    pub by: ForcedBy,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForcedBy {
    /// For as long as it says so.
    Policy,
    Operator {
        until: Instant,
    },
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Probes {
    /// In flight or settled; one that was cancelled is given back.
    granted: u32,
    succeeded: u32,
    failed: u32,
    /// Not settled, but their answers have begun well.
    going_on: u32,
    /// Probes that have not settled by now never will.
    until: Instant,
}

/// Proof of admission. Every ticket is spent exactly once, with [`Breaker::record`].
#[derive(Debug)]
#[must_use = "an admitted call must be recorded, also when it is cancelled"]
pub struct Ticket {
    generation: u64,
    probe: bool,
    going_on: bool,
}

impl Ticket {
    /// Then it is to be told of the head of its answer, too: [`Breaker::answered`].
    pub const fn is_probe(&self) -> bool {
        self.probe
    }
}

/// The call must not be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// When it is worth asking again.
    pub retry_after: Duration,
}

impl Breaker {
    /// `None`: no policy asks for one.
    pub fn new(config: impl Into<Option<Config>>) -> Self {
        let config = config.into();
        let armed = config.is_some();
        let config = config.unwrap_or_default();
        Self {
            window: Window::new(*config.window),
            config,
            armed,
            state: State::Closed,
            reopened: 0,
            rand: 0,
            closed_at: None,
            generation: 0,
            transitions: Transitions::default(),
        }
    }

    /// Whether a call may proceed at `now`. Refusal is immediate: nobody queues here.
    pub fn admit(&mut self, now: Instant, rand: u64) -> Result<Ticket, Refused> {
        self.move_on(now, rand);
        let ticket = Ticket {
            generation: self.generation,
            probe: matches!(self.state, State::HalfOpen(_)),
            going_on: false,
        };
        match &mut self.state {
            State::Closed => Ok(ticket),
            State::Forced(forced) => match forced.to {
                Force::Closed => Ok(ticket),
                Force::Open => Err(Refused {
                    retry_after: forced.ends_in(now).unwrap_or(*self.config.open_for),
                }),
            },
            State::HalfOpen(probes) if probes.granted < self.config.half_open_calls.get() => {
                probes.granted += 1;
                Ok(ticket)
            }
            State::HalfOpen(probes) => Err(Refused {
                retry_after: (probes.until - now).min(*self.config.open_for),
            }),
            State::Open { until } => Err(Refused {
                retry_after: *until - now,
            }),
        }
    }

    /// The head of its answer is there after `elapsed`, and is good.
    pub fn answered(&mut self, ticket: &mut Ticket, elapsed: Duration) {
        let is_good = self.evidence(Outcome::Success, elapsed) == Some(Counts::SUCCESS);
        if let State::HalfOpen(probes) = &mut self.state
            && ticket.generation == self.generation
            && is_good
            && !ticket.going_on
        {
            ticket.going_on = true;
            probes.going_on += 1;
        }
    }

    /// `elapsed` is what the caller of the service had to wait: to the head of a streamed response, to the
    /// end of any other.
    pub fn record(
        &mut self,
        ticket: Ticket,
        outcome: Outcome,
        elapsed: Duration,
        now: Instant,
        rand: u64,
    ) {
        if ticket.generation != self.generation || !self.armed {
            return; // admitted under an earlier state; it says nothing about this one
        }
        let evidence = self.evidence(outcome, elapsed);
        if let State::HalfOpen(probes) = &mut self.state {
            probes.going_on -= u32::from(ticket.going_on);
        }
        match (&mut self.state, evidence) {
            (State::Closed, Some(counts)) => {
                self.window.add(counts, now);
                if let Some((why, reason)) = self.trip_reason(now) {
                    self.open(why, reason, now, rand);
                }
            }
            (State::HalfOpen(probes), Some(counts)) => {
                match counts {
                    Counts::SUCCESS => probes.succeeded += 1,
                    _ => probes.failed += 1,
                }
                self.judge_probes(now, rand);
            }
            (State::HalfOpen(probes), None) => probes.granted -= 1,
            (State::Closed, None) | (State::Open { .. } | State::Forced(_), _) => {}
        }
    }

    pub fn state(&self) -> Phase {
        match self.state {
            State::Closed => Phase::Closed,
            State::Open { .. } => Phase::Open,
            State::HalfOpen(_) => Phase::HalfOpen,
            State::Forced(Forced { to, .. }) => match to {
                Force::Open => Phase::Open,
                Force::Closed => Phase::Closed,
            },
        }
    }

    pub fn is_forced(&self) -> bool {
        matches!(self.state, State::Forced(_))
    }

    pub fn is_held_by_operator(&self) -> bool {
        let by = match self.state {
            State::Forced(forced) => Some(forced.by),
            _ => None,
        };
        matches!(by, Some(ForcedBy::Operator { .. }))
    }

    /// From now on; `None`: what calls come to decides again, and what they came to before is forgotten.
    pub fn force(&mut self, forced: Option<Forced>, now: Instant) {
        match (self.state, forced.filter(|forced| !forced.is_over(now))) {
            (State::Forced(held), Some(forced)) if held.is_the_same_as(forced) => {}
            (_, Some(forced)) => {
                self.window.clear();
                self.transition(State::Forced(forced), Why::Forced, forced.reason(now));
            }
            (State::Forced(_), None) => self.unforce("it is no longer forced"),
            (_, None) => {}
        }
    }

    /// What time alone changes, for whoever looks while nobody calls.
    pub fn tick(&mut self, now: Instant) {
        match self.state {
            State::Forced(forced) if forced.is_over(now) => {
                self.unforce("the time for which it was forced is over");
            }
            // Where nobody calls it would be open for ever, to whoever asks who suffers.
            State::Open { until } if now >= until => {
                self.probe(Why::OpenTimeOver, "the open time is over".into(), now);
            }
            _ => {}
        }
    }

    /// A new policy: state and counts stay, so that editing a policy neither closes nor opens anything.
    pub fn reconfigure(&mut self, config: impl Into<Option<Config>>, now: Instant) {
        let Some(config) = config.into() else {
            return self.disarm();
        };
        self.armed = true;
        if config.window != self.config.window {
            self.window.resize(*config.window, now);
        }
        let other_probes = config.half_open_calls != self.config.half_open_calls;
        self.config = config;
        match self.state {
            State::Open { until } => {
                let until = until.min(now + self.open_for());
                self.state = State::Open { until };
            }
            State::HalfOpen(_) if other_probes => {
                let reason = "the number of probes was changed".into();
                self.probe(Why::PolicyChanged, reason, now);
            }
            State::HalfOpen(mut probes) => {
                let probing_for = *self.config.open_for * PROBING_MAX;
                probes.until = probes.until.min(now + probing_for);
                self.state = State::HalfOpen(probes);
            }
            State::Closed | State::Forced(_) => {}
        }
    }

    fn disarm(&mut self) {
        self.armed = false;
        self.window.clear();
        match self.state {
            State::Open { .. } | State::HalfOpen(_) => {
                let reason = "no policy asks for it any more".into();
                self.transition(State::Closed, Why::PolicyChanged, reason);
            }
            State::Closed | State::Forced(_) => {}
        }
    }

    /// The oldest transition that was not reported yet.
    pub fn take_transition(&mut self) -> Option<Transition> {
        self.transitions.take()
    }

    /// Before a call: as above, and half-open ends when its probes stay away.
    fn move_on(&mut self, now: Instant, rand: u64) {
        self.tick(now);
        let State::HalfOpen(probes) = self.state else {
            return;
        };
        if now < probes.until || probes.granted < self.config.half_open_calls.get() {
            return;
        }
        let Probes {
            granted,
            succeeded,
            failed,
            going_on,
            ..
        } = probes;
        let missing = granted - succeeded - failed - going_on;
        let reason = format!("{missing} of {granted} probes did not come back");
        if succeeded + going_on >= self.successes_min() {
            let reason =
                format!("{succeeded} of {granted} probes succeeded, {going_on} are being answered");
            self.close(reason, now);
        } else if succeeded + going_on > 0 {
            self.probe(Why::ProbesMissing, reason, now);
        } else {
            self.open(Why::ProbesMissing, reason, now, rand);
        }
    }

    /// How a call counts. `None`: it says nothing about the service.
    fn evidence(&self, outcome: Outcome, elapsed: Duration) -> Option<Counts> {
        let limit = self.config.slow_call_duration;
        let slow = u32::from(limit.is_some_and(|limit| elapsed >= *limit));
        let failures = match outcome {
            Outcome::Cancelled => return None,
            // The caller was too hasty, unless the policy calls that wait slow as well.
            Outcome::Failure(Fault::Deadline) if slow == 0 => return None,
            Outcome::Failure(Fault::Hard | Fault::Overload) => 1,
            Outcome::Failure(Fault::Deadline) | Outcome::Success => 0,
        };
        Some(Counts {
            calls: 1,
            failures,
            slow,
        })
    }

    fn trip_reason(&self, now: Instant) -> Option<(Why, String)> {
        let Counts {
            calls,
            failures,
            slow,
        } = self.window.totals(now);
        if calls < self.config.minimum_calls.get() {
            return None;
        }
        let reached = |count: u32, percent: u8| {
            count > 0 && u64::from(count) * 100 >= u64::from(percent) * u64::from(calls)
        };
        let window = self.config.window;
        if reached(failures, self.config.failure_rate.get()) {
            let reason = format!("{failures} of {calls} calls failed in {window}");
            Some((Why::FailureRate, reason))
        } else if reached(slow, self.config.slow_call_rate.get()) {
            let reason = format!("{slow} of {calls} calls were slow in {window}");
            Some((Why::SlowCallRate, reason))
        } else {
            None
        }
    }

    /// One probe may fail, as long as it is the minority; the verdict falls as soon as it is certain.
    fn judge_probes(&mut self, now: Instant, rand: u64) {
        let State::HalfOpen(probes) = self.state else {
            return;
        };
        let calls = self.config.half_open_calls.get();
        if probes.failed > calls - self.successes_min() {
            let reason = format!("{} of {calls} probes failed", probes.failed);
            self.open(Why::ProbesFailed, reason, now, rand);
        } else if probes.succeeded >= self.successes_min() {
            let reason = format!("{} of {calls} probes succeeded", probes.succeeded);
            self.close(reason, now);
        }
    }

    fn successes_min(&self) -> u32 {
        let calls = self.config.half_open_calls.get();
        let failed_max = ((calls - 1) / 2).min(1);
        calls - failed_max
    }

    fn close(&mut self, reason: String, now: Instant) {
        self.window.clear();
        self.closed_at = Some(now);
        self.transition(State::Closed, Why::ProbesSucceeded, reason);
    }

    fn unforce(&mut self, reason: &str) {
        self.reopened = 0;
        self.transition(State::Closed, Why::ForceEnded, reason.into());
    }

    fn probe(&mut self, why: Why, reason: String, now: Instant) {
        let probes = Probes {
            granted: 0,
            succeeded: 0,
            failed: 0,
            going_on: 0,
            until: now + *self.config.open_for * PROBING_MAX,
        };
        self.transition(State::HalfOpen(probes), why, reason);
    }

    fn open(&mut self, why: Why, reason: String, now: Instant, rand: u64) {
        let barely_closed = |at: Instant| now.saturating_duration_since(at) < *self.config.window;
        let again = self.state != State::Closed || self.closed_at.is_some_and(barely_closed);
        self.reopened = if again {
            (self.reopened + 1).min(DOUBLINGS_MAX)
        } else {
            0
        };
        self.rand = rand;
        let until = now + self.open_for();
        self.transition(State::Open { until }, why, reason);
    }

    fn open_for(&self) -> Duration {
        let base = *self.config.open_for * (1 << self.reopened);
        jitter::around(base, JITTER, self.rand)
    }

    fn transition(&mut self, state: State, why: Why, reason: String) {
        let from = self.state();
        self.state = state;
        self.generation += 1;
        self.transitions.push(Transition {
            from,
            to: self.state(),
            enforced: true,
            why,
            reason,
        });
    }
}

impl Forced {
    /// `None`: as long as a policy says so.
    fn ends_in(&self, now: Instant) -> Option<Duration> {
        match self.by {
            ForcedBy::Policy => None,
            ForcedBy::Operator { until } => Some(until.saturating_duration_since(now)),
        }
    }

    fn is_the_same_as(&self, other: Self) -> bool {
        let same_end = match (self.by, other.by) {
            (ForcedBy::Policy, ForcedBy::Policy) => true,
            (ForcedBy::Operator { until: one }, ForcedBy::Operator { until: another }) => {
                one.max(another).duration_since(one.min(another)) < SAME_END
            }
            (ForcedBy::Policy, _) | (_, ForcedBy::Policy) => false,
        };
        same_end && self.to == other.to
    }

    fn is_over(&self, now: Instant) -> bool {
        self.ends_in(now).is_some_and(|left| left.is_zero())
    }

    fn reason(&self, now: Instant) -> String {
        let to = self.to.as_str();
        match self.ends_in(now) {
            None => format!("forced {to} by its policy"),
            Some(left) => format!(
                "forced {to} by an operator for {} s",
                left.as_secs_f64().round()
            ),
        }
    }
}

#[cfg(test)]
mod tests;
