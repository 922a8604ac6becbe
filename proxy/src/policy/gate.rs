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

use std::time::Duration;
use tokio::time::Instant;
use weir_config::snapshot::Gate as Config;

use super::jitter;
use super::outcome::{Fault, Outcome};
use super::ramp::{Ramp, WEIGHT_MIN};
use super::stall::StallContext;
use super::transition::{Phase, Transition, Transitions, Why};
use super::window::{Counts, Window};

/// T2 looks at this span …
const WINDOW: Duration = Duration::from_secs(5);
/// … when it saw at least this many calls: with fewer, chance looks like failure …
const WINDOW_CALLS_MIN: u32 = 10;
/// … and opens only when the pool does better by this much: if all fail alike, ejecting one helps nobody.
const BELOW_POOL_MIN: f64 = 0.20;
/// T4: a refused connect is cheap to try again, so it starts low.
const CONNECT_OPEN_MIN: Duration = Duration::from_millis(100);
const CONNECT_OPEN_MAX: Duration = Duration::from_secs(10);
const JITTER: f64 = 0.2;
/// One doubling of the open time is forgiven for each such span of health.
const HEALTHY: Duration = Duration::from_secs(30);
/// The longest that an endpoint's own Retry-After can keep it out.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(30);
const PROBE_SUCCESSES: u32 = 3;
/// A probe that has not come back by now counts for nothing and is replaced.
const PROBE_MAX: Duration = Duration::from_secs(10);
/// A silent endpoint is asked so often before a request tries it all the same: one that is awake and answers no
/// question would stay out for ever.
const QUESTIONS: u32 = 3;
/// How long the next probe waits for a request that could be retried elsewhere, should it fail.
const RETRY_SAFE_WAIT: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub struct Gate {
    config: Config,
    ramp_for: Duration,
    state: State,
    window: Window,
    failures_in_row: u32,
    /// The k of `open_for × 2^k`, and the same for connects.
    doublings: u32,
    connect_doublings: u32,
    /// Questions in a row that nobody answered.
    unanswered: u32,
    /// Since when it passes calls, if it was open before.
    healthy_since: Option<Instant>,
    /// Until then it has been said that it would open.
    reported_until: Option<Instant>,
    /// Bumped when it opens, and for each lost probe: tickets from before are no evidence.
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

#[derive(Clone, Copy, Debug, PartialEq)]
struct Probing {
    cause: Cause,
    synthetic: Synthetic,
    /// When the one request that is allowed was admitted.
    request: Option<Instant>,
    /// Since when a request is awaited.
    vacant_since: Instant,
    succeeded: u32,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Synthetic {
    Wanted,
    Running { since: Instant },
    Passed,
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
            doublings: 0,
            connect_doublings: 0,
            unanswered: 0,
            healthy_since: None,
            reported_until: None,
            generation: 0,
            transitions: Transitions::default(),
        }
    }

    pub fn admit(&mut self, now: Instant) -> Option<Ticket> {
        self.move_on(now);
        match &mut self.state {
            State::Closed | State::Ramping(_) => {}
            State::HalfOpen(probing) if probing.awaits_request() => probing.request = Some(now),
            State::HalfOpen(_) | State::Open { .. } => return None,
        }
        Some(Ticket(self.generation))
    }

    /// A ticket for the caller that has nowhere else to go. Its outcome is no evidence.
    pub fn admit_regardless(&self) -> Ticket {
        Ticket(u64::MAX)
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

    /// T3. To be asked now and then while calls are in flight (a few times a second). Whether it opened.
    pub fn check_stall(
        &mut self,
        now: Instant,
        context: StallContext,
        may_open: bool,
        rand: u64,
    ) -> bool {
        let Some(quiet_for) = context.stalled_for(now) else {
            return false;
        };
        let reason = || {
            let millis = quiet_for.as_millis();
            format!("no answer for {millis} ms while other endpoints answered")
        };
        let before = self.generation;
        match self.state {
            State::Closed | State::Ramping(_) => {
                self.trip(Cause::Silence, Why::Stall, reason, may_open, now, rand);
            }
            State::HalfOpen(probing) if probing.request.is_some() => {
                self.open(probing.cause, Why::Stall, reason(), now, rand);
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
            State::HalfOpen(probing) if probing.synthetic == Synthetic::Wanted => {
                probing.synthetic = Synthetic::Running { since: now };
                Some(match probing.cause {
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
        if !matches!(probing.synthetic, Synthetic::Running { .. }) {
            return;
        }
        let reason = match result {
            ProbeResult::Unanswered if self.unanswered + 1 < QUESTIONS => {
                self.unanswered += 1;
                "it did not answer the synthetic probe"
            }
            ProbeResult::Passed | ProbeResult::Unanswered => {
                self.unanswered = 0;
                probing.synthetic = Synthetic::Passed;
                probing.vacant_since = now;
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
            State::HalfOpen(probing) => {
                let waited = now.saturating_duration_since(probing.vacant_since);
                probing.awaits_request() && (retry_safe || waited >= RETRY_SAFE_WAIT)
            }
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

    /// A new policy: what was learnt stays.
    pub fn reconfigure(&mut self, config: Config, ramp_for: Duration, now: Instant) {
        self.config = config;
        self.ramp_for = ramp_for;
        if let State::Open { until, .. } = &mut self.state {
            *until = (*until).min(now + *config.max_open_for);
        }
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

    fn learn_from_probe(&mut self, probing: Probing, outcome: Outcome, now: Instant, rand: u64) {
        let succeeded = match outcome {
            Outcome::Success => probing.succeeded + 1,
            Outcome::Cancelled | Outcome::Failure(Fault::Deadline) => probing.succeeded,
            Outcome::Failure(Fault::Hard | Fault::Overload) => {
                let reason = "a probe failed".into();
                return self.open(probing.cause, Why::ProbesFailed, reason, now, rand);
            }
        };
        if succeeded < PROBE_SUCCESSES {
            self.state = State::HalfOpen(Probing {
                request: None,
                vacant_since: now,
                succeeded,
                ..probing
            });
        } else {
            self.window.clear();
            self.failures_in_row = 0;
            self.healthy_since = Some(now);
            let ramp = Ramp::new(now, self.ramp_for);
            self.transition(
                State::Ramping(ramp),
                Why::ProbesSucceeded,
                format!("{succeeded} probes succeeded"),
            );
        }
    }

    /// What time alone changes.
    fn move_on(&mut self, now: Instant) {
        match &mut self.state {
            State::Open { until, cause } if now >= *until => {
                let probing = Probing {
                    cause: *cause,
                    synthetic: Synthetic::Wanted,
                    request: None,
                    vacant_since: now,
                    succeeded: 0,
                };
                let reason = "the open time is over".into();
                self.transition(State::HalfOpen(probing), Why::OpenTimeOver, reason);
            }
            State::HalfOpen(probing) => {
                let lost = |since: Instant| now.saturating_duration_since(since) >= PROBE_MAX;
                if matches!(probing.synthetic, Synthetic::Running { since } if lost(since)) {
                    probing.synthetic = Synthetic::Wanted;
                }
                if probing.request.is_some_and(lost) {
                    probing.request = None;
                    probing.vacant_since = now;
                    self.generation += 1;
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
        if let Some(since) = self.healthy_since.take() {
            let healthy_for = now.saturating_duration_since(since);
            let forgiven = (healthy_for.as_secs() / HEALTHY.as_secs()) as u32;
            self.doublings = self.doublings.saturating_sub(forgiven);
            self.connect_doublings = self.connect_doublings.saturating_sub(forgiven);
        }
        let (doublings, first, max) = match cause {
            Cause::Evidence | Cause::Silence => {
                let config = &self.config;
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
        let until = now + jitter::around(open_for, JITTER, rand);
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

impl Probing {
    fn awaits_request(&self) -> bool {
        self.synthetic == Synthetic::Passed && self.request.is_none()
    }
}

#[cfg(test)]
mod tests;
