//! Endpoint gate: stop sending to one endpoint that fails or hangs, probe it, take it back slowly.
//!
//! ```text
//!             T1 hard failures in a row, T2 clearly worse than
//!             its pool, T3 stalled, T4 cannot be connected to         open time over
//!   Closed ────────────────────────────────────────────────▶ Open ──────────────────▶ HalfOpen
//!     ▲                                                      ▲ ▲                         │ │
//!     │                                                      │ └── a probe failed ───────┘ │
//!     │ ramp over                                            │                             │
//!     └────────────────── Ramping ───────── T1 … T4 ─────────┘                             │
//!                            ▲                                                             │
//!                            └──── synthetic probe passed, then 3 requests, one at a time ─┘
//! ```
//!
//! Sources: consecutive failures and backoff as in linkerd's and Finagle's failure accrual, rates over exact
//! buckets as in Hystrix, comparison with the pool as in gRFC A50 and Envoy's outlier detection, slow start as
//! in Envoy. What is ours: the [stall rule](super::stall), which notices a black hole long before its requests time out; the
//! synthetic first probe, so that a black hole costs no user request (resilience.md section 2), which asks a
//! silent one something, as active health checks would; the rule that nothing is ejected for failing like
//! everybody else.
//!
//! How many endpoints of a pool may be open at once is the pool's knowledge and comes in as `may_open`. Where
//! it is `false` (always, for the only endpoint of a service) the gate stays and only reports what it would have
//! done.

mod backoff;
mod probing;

use std::time::Duration;
use tokio::time::Instant;
use weir_config::snapshot::{Gate as Config, Mode};

use super::outcome::{Fault, Outcome};
use super::ramp::{Ramp, WEIGHT_MIN};
use super::stall::Stall;
use super::transition::{Phase, Transition, Transitions, Why};
use super::window::{Counts, Window};
use backoff::Backoff;
use probing::{Overdue, Probing};

/// T2 looks at this span …
const WINDOW: Duration = Duration::from_secs(5);
/// … when it saw at least this many calls: with fewer, chance looks like failure …
const WINDOW_CALLS_MIN: u32 = 10;
/// … and opens only when the pool does better by this much: if all fail alike, ejecting one helps nobody.
const BELOW_POOL_MIN: f64 = 0.20;
/// The longest that an endpoint's own Retry-After can keep it out.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(30);
const PROBE_SUCCESSES: u32 = 3;
/// A silent endpoint is asked so often before a request tries it all the same: one that is awake and answers no
/// question would stay out for ever.
const QUESTIONS: u32 = 3;

#[derive(Debug)]
pub struct Gate {
    config: Config,
    ramp_for: Duration,
    state: State,
    window: Window,
    failures_in_row: u32,
    backoff: Backoff,
    /// Questions in a row that nobody answered.
    unanswered: u32,
    /// Until then it has been said that it would open.
    reported_until: Option<Instant>,
    /// Bumped when it opens, and for each probe that is overdue: tickets from before are no evidence.
    generation: u64,
    transitions: Transitions,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    Closed,
    Open { until: Instant, cause: Cause },
    HalfOpen(Probing),
    Ramping(Ramp),
}

/// Decides which backoff applies when it opens again, and how it is probed.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Cause {
    Evidence,
    Silence,
    Connect,
}

/// Proof of admission. Every ticket is spent once, with [`Gate::record`] or [`Gate::connect_failed`].
#[derive(Debug)]
#[must_use = "an admitted call must be recorded, also when it is cancelled"]
pub struct Ticket(u64);

/// What the caller has to do to probe an endpoint: no user's request. The answer goes to [`Gate::probe_result`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeKind {
    /// Connect and shake hands.
    Connect,
    /// And ask something harmless: the kernel connects for an app that hangs, and its sidecar shakes hands.
    Question,
    /// The same, of one that is not out: the gate is not told, only whoever is in [doubt](super::stall::Doubt).
    Doubt,
    /// The same, of another one: so that the silence of this one is not compared with that of endpoints nobody calls.
    Comparison,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeResult {
    Passed,
    Failed,
    /// It was connected to, and did not react to the question.
    Unanswered,
}

/// What a gate must know of the endpoints around it. Only read when a call failed.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Pool {
    /// The success rate of the pool's eligible endpoints together, from their [`Gate::counts`].
    pub success_rate: Option<f64>,
    /// Whether one more endpoint may open.
    pub may_open: bool,
}

impl Gate {
    /// `ramp_for`: how long an endpoint that comes back is spared (the policy's `slowStart`).
    pub fn new(config: Config, ramp_for: Duration) -> Self {
        Self {
            config,
            ramp_for,
            state: State::Closed,
            window: Window::new(WINDOW),
            failures_in_row: 0,
            backoff: Backoff::default(),
            unanswered: 0,
            reported_until: None,
            generation: 0,
            transitions: Transitions::default(),
        }
    }

    pub fn admit(&mut self, now: Instant) -> Option<Ticket> {
        self.move_on(now);
        match &mut self.state {
            State::Closed | State::Ramping(_) => {}
            State::HalfOpen(probing) if probing.awaits_request() => probing.ask(now),
            State::HalfOpen(_) | State::Open { .. } => return None,
        }
        Some(Ticket(self.generation))
    }

    /// A ticket for the caller that has nowhere else to go. Its outcome is no evidence.
    pub fn admit_regardless(&self) -> Ticket {
        Ticket(u64::MAX)
    }

    /// The head of its answer is there, and is good; what follows may last for hours.
    pub fn answered(&mut self, ticket: &Ticket) {
        if let State::HalfOpen(probing) = &mut self.state
            && ticket.0 == self.generation
        {
            probing.answered();
        }
    }

    pub fn record(
        &mut self,
        ticket: Ticket,
        outcome: Outcome,
        now: Instant,
        rand: u64,
        pool: Pool,
    ) {
        if ticket.0 != self.generation {
            return;
        }
        match self.state {
            State::Closed | State::Ramping(_) => self.learn(outcome, now, rand, pool),
            State::HalfOpen(probing) => self.learn_from_probe(probing, outcome, now, rand),
            State::Open { .. } => {}
        }
    }

    /// Instead of [`Gate::record`], when there was no connection to send the call on (T4). One is enough: the
    /// next call would fare no better.
    pub fn connect_failed(&mut self, ticket: Ticket, now: Instant, rand: u64, may_open: bool) {
        if ticket.0 != self.generation {
            return;
        }
        let reason = || "it could not be connected to".to_owned();
        match self.state {
            State::Closed | State::Ramping(_) => {
                self.failures_in_row += 1;
                self.window.add(Counts::FAILURE, now);
                let why = Why::ConnectFailed;
                self.trip(Cause::Connect, why, reason, may_open, now, rand);
            }
            State::HalfOpen(probing) => {
                self.open(probing.cause, Why::ConnectFailed, reason(), now, rand);
            }
            State::Open { .. } => {}
        }
    }

    /// T3. To be told as long as it lasts, a few times a second. Whether it opened.
    pub fn stalled(&mut self, now: Instant, stall: Stall, may_open: bool, rand: u64) -> bool {
        let reason = || {
            let millis = stall.quiet_for.as_millis();
            format!("no answer for {millis} ms while other endpoints answered")
        };
        let before = self.generation;
        match self.state {
            State::Closed | State::Ramping(_) => {
                self.trip(Cause::Silence, Why::Stall, reason, may_open, now, rand);
            }
            // Its own silence, not that of calls from before: one that may not be repeated waits on, and nobody answers
            // while nobody is sent. Asked something first, an app that hangs costs no other call.
            State::HalfOpen(probing) if probing.has_waited(stall.limit, now) => {
                self.open(Cause::Silence, Why::Stall, reason(), now, rand);
            }
            State::HalfOpen(_) | State::Open { .. } => {}
        }
        self.generation != before
    }

    /// The endpoint's own word on when to come back: keeps an open gate open for longer.
    pub fn raise(&mut self, retry_after: Duration, now: Instant) {
        if let State::Open { until, .. } = &mut self.state {
            *until = (*until).max(now + retry_after.min(RETRY_AFTER_MAX));
        }
    }

    /// The probe that the caller must perform now, if any. It is handed out once.
    pub fn wants_probe(&mut self, now: Instant) -> Option<ProbeKind> {
        self.move_on(now);
        match &mut self.state {
            State::HalfOpen(probing) => {
                probing
                    .starts_synthetic(now)
                    .then_some(match probing.cause {
                        Cause::Silence => ProbeKind::Question,
                        Cause::Evidence | Cause::Connect => ProbeKind::Connect,
                    })
            }
            _ => None,
        }
    }

    pub fn probe_result(&mut self, result: ProbeResult, now: Instant, rand: u64) {
        let State::HalfOpen(probing) = &mut self.state else {
            return;
        };
        if !probing.runs_synthetic() {
            return;
        }
        let reason = match result {
            ProbeResult::Unanswered if self.unanswered + 1 < QUESTIONS => {
                self.unanswered += 1;
                "it did not answer the synthetic probe"
            }
            ProbeResult::Passed | ProbeResult::Unanswered => {
                self.unanswered = 0;
                probing.synthetic_passed(now);
                return;
            }
            ProbeResult::Failed => "the synthetic probe failed",
        };
        let cause = probing.cause;
        self.open(cause, Why::ProbesFailed, reason.into(), now, rand);
    }

    /// Whether the next request should go here, as a probe, rather than where the balancer would send it: no
    /// balancer would choose an endpoint that just failed. Requests that can be retried elsewhere go first.
    pub fn wants_request(&self, retry_safe: bool, now: Instant) -> bool {
        match self.state {
            State::HalfOpen(probing) => probing.wants_request(retry_safe, now),
            _ => false,
        }
    }

    /// Whether the balancer may choose it.
    pub fn is_eligible(&self) -> bool {
        matches!(self.state, State::Closed | State::Ramping(_))
    }

    /// The share of its calls that it should get, 0.1 to 1.0.
    pub fn weight(&self, now: Instant) -> f64 {
        match self.state {
            State::Closed => 1.0,
            State::Ramping(ramp) => ramp.weight(now),
            State::Open { .. } | State::HalfOpen(_) => WEIGHT_MIN,
        }
    }

    /// Its part of the pool's success rate.
    pub fn counts(&self, now: Instant) -> Counts {
        self.window.totals(now)
    }

    /// When an open gate wants its probe.
    pub fn open_until(&self) -> Option<Instant> {
        match self.state {
            State::Open { until, .. } => Some(until),
            _ => None,
        }
    }

    pub fn state(&self) -> Phase {
        match self.state {
            State::Closed => Phase::Closed,
            State::Open { .. } => Phase::Open,
            State::HalfOpen(_) => Phase::HalfOpen,
            State::Ramping(_) => Phase::Ramping,
        }
    }

    /// A new policy: what was learnt stays. One that only observes takes out nothing, also not what is out already.
    pub fn reconfigure(&mut self, config: Config, ramp_for: Duration, now: Instant) {
        self.config = config;
        self.ramp_for = ramp_for;
        if config.mode == Mode::Observe {
            return self.release();
        }
        if let State::Open { until, .. } = &mut self.state {
            *until = (*until).min(now + *config.max_open_for);
        }
    }

    fn release(&mut self) {
        if self.state == State::Closed {
            return;
        }
        self.generation += 1;
        self.failures_in_row = 0;
        let reason = "its policy only observes now".into();
        self.transition(State::Closed, Why::PolicyChanged, reason);
    }

    pub fn take_transition(&mut self) -> Option<Transition> {
        self.transitions.take()
    }

    fn learn(&mut self, outcome: Outcome, now: Instant, rand: u64, pool: Pool) {
        match outcome {
            Outcome::Success => {
                self.failures_in_row = 0;
                self.window.add(Counts::SUCCESS, now);
            }
            Outcome::Failure(Fault::Hard) => {
                self.failures_in_row += 1;
                self.window.add(Counts::FAILURE, now);
                self.judge(now, rand, pool);
            }
            // The balancer's penalty sends such an endpoint less; to send it nothing would be wrong.
            Outcome::Failure(Fault::Overload | Fault::Deadline) | Outcome::Cancelled => {}
        }
    }

    /// T1 and T2, after a hard failure.
    fn judge(&mut self, now: Instant, rand: u64, pool: Pool) {
        let in_row = self.failures_in_row;
        if in_row >= self.config.consecutive_failures.get() {
            let reason = || format!("{in_row} hard failures in a row");
            let why = Why::ConsecutiveFailures;
            return self.trip(Cause::Evidence, why, reason, pool.may_open, now, rand);
        }
        let counts = self.window.totals(now);
        let (Some(own), Some(pool_rate)) = (counts.success_rate(), pool.success_rate) else {
            return;
        };
        if counts.calls >= WINDOW_CALLS_MIN
            && own < self.config.success_rate_below.ratio()
            && pool_rate - own >= BELOW_POOL_MIN
        {
            let percent = |rate: f64| (rate * 100.0).round();
            let reason = || {
                let (own, pool) = (percent(own), percent(pool_rate));
                format!(
                    "{own} % of {} calls succeeded, {pool} % in the pool",
                    counts.calls
                )
            };
            let why = Why::SuccessRate;
            self.trip(Cause::Evidence, why, reason, pool.may_open, now, rand);
        }
    }

    fn learn_from_probe(
        &mut self,
        mut probing: Probing,
        outcome: Outcome,
        now: Instant,
        rand: u64,
    ) {
        match outcome {
            Outcome::Success => self.probe_succeeded(probing, now),
            Outcome::Cancelled | Outcome::Failure(Fault::Deadline) => {
                probing.vacate(now);
                self.state = State::HalfOpen(probing);
            }
            Outcome::Failure(Fault::Hard | Fault::Overload) => {
                let reason = "a probe failed".into();
                self.open(probing.cause, Why::ProbesFailed, reason, now, rand);
            }
        }
    }

    fn probe_succeeded(&mut self, mut probing: Probing, now: Instant) {
        probing.succeeded += 1;
        if probing.succeeded < PROBE_SUCCESSES {
            probing.vacate(now);
            self.state = State::HalfOpen(probing);
            return;
        }
        self.window.clear();
        self.failures_in_row = 0;
        self.backoff.recovered(now);
        let ramp = Ramp::new(now, self.ramp_for);
        let reason = format!("{} probes succeeded", probing.succeeded);
        self.transition(State::Ramping(ramp), Why::ProbesSucceeded, reason);
    }

    /// What time alone changes.
    fn move_on(&mut self, now: Instant) {
        match &mut self.state {
            State::Open { until, cause } if now >= *until => {
                let probing = Probing::new(*cause, now);
                let reason = "the open time is over".into();
                self.transition(State::HalfOpen(probing), Why::OpenTimeOver, reason);
            }
            State::HalfOpen(probing) => {
                let overdue = probing.move_on(now);
                // From here on its ticket is no evidence.
                self.generation += u64::from(overdue.is_some());
                match overdue {
                    Some(Overdue::Lost) => probing.vacate(now),
                    Some(Overdue::Stream) => {
                        let probing = *probing;
                        self.probe_succeeded(probing, now);
                    }
                    None => {}
                }
            }
            State::Ramping(ramp) if ramp.is_over(now) => {
                self.transition(State::Closed, Why::RampOver, "the ramp is over".into());
            }
            State::Open { .. } | State::Ramping(_) | State::Closed => {}
        }
    }

    /// Opens, or reports that it would have.
    fn trip(
        &mut self,
        cause: Cause,
        why: Why,
        reason: impl FnOnce() -> String,
        may_open: bool,
        now: Instant,
        rand: u64,
    ) {
        if may_open {
            self.open(cause, why, reason(), now, rand);
        } else if self.reported_until.is_none_or(|until| now >= until) {
            self.reported_until = Some(now + *self.config.max_open_for);
            self.transitions.push(Transition {
                from: self.state(),
                to: Phase::Open,
                enforced: false,
                why,
                reason: reason(),
            });
        }
    }

    fn open(&mut self, cause: Cause, why: Why, reason: String, now: Instant, rand: u64) {
        let until = now + self.backoff.next(&self.config, cause, now, rand);
        self.generation += 1;
        self.transition(State::Open { until, cause }, why, reason);
    }

    fn transition(&mut self, state: State, why: Why, reason: String) {
        let from = self.state();
        self.state = state;
        self.transitions.push(Transition {
            from,
            to: self.state(),
            enforced: true,
            why,
            reason,
        });
    }
}

#[cfg(test)]
mod tests;
