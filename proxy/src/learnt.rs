//! What calls to one endpoint have taught, and what follows from it: whether it may be chosen, at what cost, and
//! whether it has gone silent.
//!
//! ```text
//!   start ─▶ answered (the head is there) ─▶ ended (the answer is, or never will be) ─▶ gate, average
//!                                                                                          │
//!   candidate ◀────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! Pure like a policy: [`endpoints`](crate::endpoints) locks it, the simulator of `tests/simulation` does not need to.

mod newest;
mod waiting;

use std::time::Duration;

use tokio::time::Instant;
use weir_config::snapshot::{Balance, BalanceAlgorithm, Gate as GateConfig, Outbound};
use weir_config::units::Percent;

use crate::balance::{Candidate, Load, Standing};
use crate::policy::ewma::{self, Ewma};
use crate::policy::gate::{Gate, Pool, ProbeKind, ProbeResult, Ticket};
use crate::policy::load::Load as SaidLoad;
use crate::policy::outcome::Outcome;
use crate::policy::ramp::Ramp;
use crate::policy::stall::{self, Doubt, Stall, StallContext, TELLING};
use crate::policy::transition::Phase;

pub use newest::Newest;
pub use waiting::Waiting;

/// What a silent endpoint is given when nothing else bounds a call.
const STALL_TIMEOUT: Duration = Duration::from_secs(15);
/// More than so many are likely to wait for the same thing, and tell no more about the endpoint.
const WAITING_MAX: u32 = 8;

/// What the policy says of a pool of endpoints.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    pub gate: GateConfig,
    pub balance: Balance,
    pub per_endpoint_max: u32,
    /// Opaque ones, to all endpoints.
    pub connections_max: usize,
    /// Of a whole call.
    pub timeout: Duration,
    /// Of a call that may be followed by another one.
    pub try_timeout: Duration,
}

pub struct Learnt {
    pub gate: Gate,
    pub latency: Ewma,
    /// What it says of itself.
    pub load: SaidLoad,
    /// A new endpoint gets its share slowly.
    pub ramp: Ramp,
    pub waiting: Waiting,
    pub last_completion: Option<Instant>,
    doubt: Option<Doubt>,
}

/// A call that goes to the endpoint. Every one is spent once, with [`Learnt::ended`].
#[derive(Debug)]
#[must_use = "a call that was started must be ended, also when it is cancelled"]
pub struct Started {
    ticket: Ticket,
    at: Instant,
    /// Its gate was open to everybody, so that it is worth leaving when that ends.
    pub eligible: bool,
    /// `None` once the head of the response is there.
    waiting: Option<u64>,
}

/// How a call ended, as far as an endpoint is judged by it.
#[derive(Clone, Copy, Debug)]
pub struct Ended {
    pub outcome: Outcome,
    /// There was no connection to send it on.
    pub connect_failed: bool,
    /// For how long the endpoint, which failed, asked to be left alone.
    pub retry_after: Option<Duration>,
    /// We have asked more often than we may, which says nothing about its health.
    pub over_quota: bool,
    /// Another try of the same request was faster: that is no word about this one, and hedges are not to move traffic.
    pub lost: bool,
}

impl Learnt {
    /// `first`: the pool was empty, so there is nobody to compare with and nothing to ramp up from. `seed`: what a call
    /// to the others takes, where that is known.
    pub fn new(config: &Config, first: bool, seed: Option<Duration>, now: Instant) -> Self {
        let slow_start = *config.balance.slow_start;
        let ramp_for = if first { Duration::ZERO } else { slow_start };
        Self {
            gate: Gate::new(config.gate, slow_start),
            latency: Ewma::new(seed.unwrap_or(ewma::SEED), now),
            load: SaidLoad::default(),
            ramp: Ramp::new(now, ramp_for),
            waiting: Waiting::default(),
            last_completion: None,
            doubt: None,
        }
    }

    /// What the balancer compares.
    pub fn candidate(
        &self,
        config: &Config,
        in_flight: u32,
        is_draining: bool,
        pool_p99: impl FnOnce() -> Duration,
        now: Instant,
    ) -> Candidate {
        let gated = !self.gate.is_eligible();
        let weight = self.gate.weight(now) * self.ramp.weight(now);
        Candidate {
            standing: if gated {
                Standing::Gated
            } else if in_flight >= config.per_endpoint_max {
                Standing::Full
            } else if is_draining {
                Standing::Draining
            } else {
                Standing::Eligible
            },
            load: match (config.balance.algorithm, gated) {
                (BalanceAlgorithm::PeakEwma | BalanceAlgorithm::ConsistentHash, false) => {
                    Load::peak_ewma(&self.latency, in_flight, self.at_least(now), weight, now)
                }
                (BalanceAlgorithm::PeakEwma | BalanceAlgorithm::ConsistentHash, true) => {
                    let penalty = ewma::penalty(pool_p99(), None);
                    Load::peak_ewma_gated(&self.latency, in_flight, penalty, now)
                }
                (BalanceAlgorithm::LeastRequest, false) => Load::least_request(in_flight, weight),
                (BalanceAlgorithm::LeastRequest, true) => Load::least_request_gated(in_flight),
            }
            .dearer(self.load.factor(now)),
        }
    }

    /// The balancer has named it. `bounded`: the call has a deadline.
    pub fn start(&mut self, bounded: bool, now: Instant) -> Started {
        // Nobody else is left when the balancer names an endpoint whose gate is shut.
        let ticket = self.gate.admit(now);
        let ticket = ticket.unwrap_or_else(|| self.gate.admit_regardless());
        self.start_with(ticket, bounded, now)
    }

    /// An endpoint that has just passed its synthetic probe needs a real request, and no balancer would choose it.
    pub fn start_probe(
        &mut self,
        retry_safe: bool,
        bounded: bool,
        now: Instant,
    ) -> Option<Started> {
        if !self.gate.wants_request(retry_safe, now) {
            return None;
        }
        let ticket = self.gate.admit(now)?;
        Some(self.start_with(ticket, bounded, now))
    }

    fn start_with(&mut self, ticket: Ticket, bounded: bool, now: Instant) -> Started {
        Started {
            ticket,
            at: now,
            eligible: self.gate.is_eligible(),
            waiting: Some(self.waiting.start(bounded, now)),
        }
    }

    /// Nobody waits for the head of an answer any longer: it is there, or this is no call with an answer.
    pub fn stop_waiting(&mut self, call: &mut Started) {
        if let Some(number) = call.waiting.take() {
            self.waiting.end(number);
        }
    }

    /// The head of the answer is there. Returns how long it took, if that is worth remembering for the whole pool: a
    /// failure that comes with the head is priced when the body has ended, and must not look fast until then.
    pub fn answered(
        &mut self,
        call: &mut Started,
        outcome: Outcome,
        now: Instant,
    ) -> Option<Duration> {
        self.stop_waiting(call);
        self.last_completion = Some(now);
        let elapsed = now.saturating_duration_since(call.at);
        (outcome == Outcome::Success).then(|| {
            self.gate.answered(&call.ticket);
            self.latency.observe(elapsed, now);
            elapsed
        })
    }

    /// An opaque connection is there, and more than that nobody will know of it: where it is a probe, it has succeeded.
    pub fn connected(&mut self, call: &mut Started, now: Instant, rand: u64) {
        self.stop_waiting(call);
        let over = self.gate.admit_regardless();
        let ticket = std::mem::replace(&mut call.ticket, over);
        if self.gate.state() == Phase::HalfOpen {
            let pool = Pool::default();
            self.gate.record(ticket, Outcome::Success, now, rand, pool);
        }
    }

    pub fn ended(
        &mut self,
        call: Started,
        end: Ended,
        pool_p99: impl FnOnce() -> Duration,
        pool: Pool,
        now: Instant,
        rand: u64,
    ) {
        let waited = call.waiting.is_some_and(|number| self.waiting.end(number));
        match end.outcome {
            Outcome::Failure(_) => {
                let price = ewma::penalty(pool_p99(), end.retry_after);
                self.latency.penalize(price, now);
            }
            // Given up on before it answered: it takes at least this long.
            Outcome::Cancelled if waited && !end.lost => {
                let elapsed = now.saturating_duration_since(call.at);
                self.latency.observe_at_least(elapsed, now);
            }
            Outcome::Success | Outcome::Cancelled => {}
        }
        if end.connect_failed {
            self.gate
                .connect_failed(call.ticket, now, rand, pool.may_open);
        } else {
            let of_health = match end.over_quota {
                true => Outcome::Success,
                false => end.outcome,
            };
            self.gate.record(call.ticket, of_health, now, rand, pool);
        }
        if let Some(retry_after) = end.retry_after {
            self.gate.raise(retry_after, now);
        }
    }

    /// What a call takes, as far as silence tells: of n that wait, one should be answered n times as often as each of them
    /// is. (The likeliest mean of n exponential times none of which has ended after t is no less than n × t.)
    fn at_least(&self, now: Instant) -> Duration {
        let since = self.quiet_since();
        let quiet_for = since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        quiet_for * self.waiting.count.min(WAITING_MAX)
    }

    /// `None`: nobody waits for it.
    fn quiet_since(&self) -> Option<Instant> {
        let oldest = self.waiting.oldest()?;
        Some(self.last_completion.map_or(oldest, |last| last.max(oldest)))
    }

    /// `None`: all is well, or nobody waits for it, or it is [still to be asked](Learnt::wants_probe). `others_last`: when
    /// another endpoint last answered. Alone there is nobody to compare with: the others' last answer is none, so nothing
    /// stalls. Of a pool that nobody has called lately it is not known what is slow: what a try may take is.
    pub fn stall(
        &mut self,
        others_last: Option<Instant>,
        pool_p99: Option<Duration>,
        config: &Config,
        now: Instant,
    ) -> Option<Stall> {
        // Whoever waits for longer than a call may take has no deadline: a stream, say, that has nothing to tell yet.
        self.waiting.forget(config.timeout, now);
        let last_completion = self.last_completion;
        let pool_p99 = pool_p99.unwrap_or(Duration::MAX);
        let context = self.quiet_since().map(|quiet_since| StallContext {
            oldest_in_flight_start: self.waiting.oldest(),
            last_completion,
            pool_p99,
            timeout: config.try_timeout,
            peer_completed_since: others_last.is_some_and(|last| last > quiet_since),
            telling_start: self.waiting.bounded(TELLING),
        });
        // A probe of one that is out is a question already.
        let is_out = !self.gate.is_eligible();
        let doubt = self.doubt.take();
        self.doubt = doubt.filter(|it| !is_out && !it.is_settled(last_completion));
        if is_out || context.is_some_and(|context| context.is_telling(now)) {
            return context?.stall(now);
        }
        if others_last.is_some() {
            self.doubt = self.doubt.or_else(|| Doubt::of(&context?, now));
        }
        let limit = stall::limit(pool_p99, config.try_timeout);
        self.doubt.as_mut()?.stall(limit, others_last, now)
    }

    /// The probe that the caller must perform now, if any. It is handed out once.
    pub fn wants_probe(&mut self, now: Instant) -> Option<ProbeKind> {
        let asks = self.doubt.as_mut().and_then(|doubt| doubt.asks(now));
        asks.or_else(|| self.gate.wants_probe(now))
    }

    /// What has come of it.
    pub fn probed(&mut self, kind: ProbeKind, result: ProbeResult, now: Instant, rand: u64) {
        match (kind, result) {
            // Those that wait for it are slow, or have nothing to be told yet, and count as silence no longer.
            (ProbeKind::Doubt, ProbeResult::Passed) => {
                // Too late, and it is out: whoever waits now has come as a probe.
                if self.doubt.take().is_some() {
                    self.waiting.forget(Duration::ZERO, now);
                }
            }
            (ProbeKind::Comparison, ProbeResult::Passed) => {
                self.doubt.as_mut().map(Doubt::compared);
            }
            (
                ProbeKind::Doubt | ProbeKind::Comparison,
                ProbeResult::Failed | ProbeResult::Unanswered,
            ) => {}
            (ProbeKind::Connect | ProbeKind::Question, _) => {
                self.gate.probe_result(result, now, rand);
            }
        }
    }
}

/// At most so many of `n` may be out at once, and never the last (resilience.md section 2).
pub fn open_max(n: usize, percent: Percent) -> usize {
    let share = n * usize::from(percent.get()) / 100;
    share.max(1).min(n.saturating_sub(1))
}

impl Config {
    pub fn of(outbound: &Outbound) -> Self {
        let timeout = outbound.deadline;
        let timeout = timeout.map_or(STALL_TIMEOUT, |timeout| timeout.get());
        let retries = &outbound.retries;
        let share = timeout / retries.attempts.get();
        let per_try = retries.per_try_timeout;
        Self {
            gate: outbound.gate,
            balance: outbound.balance,
            per_endpoint_max: outbound.limits.per_endpoint.get(),
            connections_max: outbound.limits.connections.get() as usize,
            timeout,
            try_timeout: per_try.map_or(share, |per_try| share.min(per_try.get())),
        }
    }
}

#[cfg(test)]
mod tests;
