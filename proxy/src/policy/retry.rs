//! Whether a failed attempt is worth another one.
//!
//! ```text
//!   attempt failed ─▶ provably unprocessed? ── yes ─▶ first time: again at once, elsewhere (0.1 token; shed: 1, in turn)
//!                          │ no                            else ─┐
//!                          ▼                                     ▼
//!                     idempotent, not committed, replayable ─▶ attempts, deadline, budget (1 token) ─▶ after a backoff, in turn
//! ```
//!
//! gRPC's A6 for the shape (transparent retries, pushback honoured exactly, commit at the first response
//! header), RFC 9110 for idempotency, and from the SRE book: retry in one layer only. A request that is a
//! retry already gets none here, and a failure that was retried further down says so and is final. The numbers
//! are those of resilience.md section 5.
//!
//! Stop reasons are checked from "must not" to "cannot afford": the budget is charged last and only for a retry
//! that will be made.

use std::time::Duration;
use tokio::time::Instant;
use weir_config::snapshot::Retries;

use super::budget::{Budget, TRANSPARENT};
use super::jitter;
use super::pushback::Pushback;

/// A failure that is known now is of more use than a second try that is further off: where all calls fail, those that
/// the savings pay for would stand in line for as long as their deadlines let them.
const TURN_WAIT_MAX: Duration = Duration::from_secs(1);

/// Nor is a second try for which the endpoint asks to be left alone for longer than its gate would believe it: without a
/// deadline the call would be held for as long as somebody writes into a header.
const PUSHBACK_MAX: Duration = Duration::from_secs(30);

/// What an answer, or the lack of one, means for retrying. The table from statuses is in `error.rs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It provably reached nobody: connect failed, stream refused, GOAWAY below its id, the request handed back.
    Unprocessed,
    /// 502, 503, 504, gRPC UNAVAILABLE, a reset before the response, a per-try timeout.
    Unavailable,
    /// Any other 5xx.
    ServerError,
    /// A status for which the rule of a route asks for another try, whatever the method.
    Named,
    /// Shed. `service: false`: by one endpoint's sidecar, before the app saw it, while others may have room.
    Overloaded { service: bool },
    /// It was retried below us already, in vain.
    Exhausted,
    /// An answer: good, or not to be improved by asking again.
    Final,
}

impl Verdict {
    /// Somebody worked in vain, or had too much work: a failure that tells something of the service.
    pub const fn is_failed_call(self) -> bool {
        match self {
            Self::Unavailable | Self::ServerError | Self::Named | Self::Overloaded { .. } => true,
            Self::Unprocessed | Self::Exhausted | Self::Final => false,
        }
    }
}

/// What has happened to the request so far, and what it allows.
#[derive(Clone, Copy, Debug)]
pub struct Attempt {
    /// The attempt that just failed; the first is 1. Transparent retries do not count.
    pub number: u32,
    /// Transparent retries made.
    pub transparent: u32,
    pub idempotent: bool,
    /// The response's head was passed on.
    pub committed: bool,
    /// The body is still whole in the replay buffer.
    pub replayable: bool,
    pub is_retry_from_downstream: bool,
    /// Until the deadline; `None`: there is none.
    pub remaining: Option<Duration>,
    /// How long an attempt usually takes (the pool's p50): no use in starting one that cannot end in time.
    pub typical: Duration,
    /// How long the rule of a route wants to be waited before another attempt, at least.
    pub wait_min: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// On another endpoint, if there is one. `counts`: as an attempt; else it was transparent.
    Retry {
        after: Duration,
        counts: bool,
    },
    Stop(Stop),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stop {
    /// Nothing to retry.
    Final,
    ExhaustedBelow,
    ServiceOverloaded,
    Committed,
    NotReplayable,
    NotIdempotent,
    /// The policy does not retry on this.
    NotConfigured,
    RetryFromDownstream,
    /// The endpoint asked not to be.
    Pushback,
    Attempts,
    Deadline,
    Budget,
}

impl Stop {
    /// Whether whoever is further up should not retry either (SRE book: in one layer only): it has been tried after
    /// `attempts`, cannot be afforded, or is not wanted below. Where this hop may not retry, another may.
    pub const fn exhausts(self, attempts: u32) -> bool {
        match self {
            Self::ExhaustedBelow | Self::ServiceOverloaded | Self::Pushback | Self::Budget => true,
            Self::Final
            | Self::Committed
            | Self::NotReplayable
            | Self::NotIdempotent
            | Self::NotConfigured
            | Self::RetryFromDownstream
            | Self::Attempts
            | Self::Deadline => attempts > 1,
        }
    }

    /// For metrics and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Final => "final",
            Self::ExhaustedBelow => "exhausted-below",
            Self::ServiceOverloaded => "service-overloaded",
            Self::Committed => "committed",
            Self::NotReplayable => "not-replayable",
            Self::NotIdempotent => "not-idempotent",
            Self::NotConfigured => "not-configured",
            Self::RetryFromDownstream => "retry-from-downstream",
            Self::Pushback => "pushback",
            Self::Attempts => "attempts",
            Self::Deadline => "deadline",
            Self::Budget => "budget",
        }
    }
}

/// `pushback`: what the endpoint itself asked for; it is honoured exactly.
pub fn decide(
    config: &Retries,
    attempt: Attempt,
    verdict: Verdict,
    pushback: Option<Pushback>,
    budget: &mut Budget,
    now: Instant,
    rand: u64,
) -> Decision {
    if is_failed_call(attempt, verdict) {
        budget.charge(now);
    }
    let retry = match worth(config, attempt, verdict, pushback, rand) {
        Err(stop) => return Decision::Stop(stop),
        Ok(retry) => retry,
    };
    if !in_time(attempt, retry.after) {
        return Decision::Stop(Stop::Deadline);
    }
    if pushback.is_some() && retry.after > PUSHBACK_MAX {
        return Decision::Stop(Stop::Pushback);
    }
    let (after, paid) = match retry.price {
        Price::Transparent => (retry.after, budget.withdraw(TRANSPARENT, now)),
        Price::Attempt => {
            let turn = budget.turn(now);
            let after = retry.after.max(turn);
            let soon = turn <= TURN_WAIT_MAX && in_time(attempt, after);
            (after, soon && budget.withdraw_in_turn(now))
        }
    };
    if paid {
        let counts = retry.counts;
        Decision::Retry { after, counts }
    } else {
        Decision::Stop(Stop::Budget)
    }
}

/// Once for a request.
fn is_failed_call(attempt: Attempt, verdict: Verdict) -> bool {
    attempt.number == 1 && attempt.transparent == 0 && verdict.is_failed_call()
}

struct Retry {
    after: Duration,
    counts: bool,
    price: Price,
}

enum Price {
    /// Nobody has been troubled: cheap, and without waiting for a turn.
    Transparent,
    Attempt,
}

/// What would be done, if there were time and money.
fn worth(
    config: &Retries,
    attempt: Attempt,
    verdict: Verdict,
    pushback: Option<Pushback>,
    rand: u64,
) -> Result<Retry, Stop> {
    let unprocessed = may_repeat(config, attempt, verdict)?;
    if attempt.committed {
        return Err(Stop::Committed);
    }
    if !attempt.replayable {
        return Err(Stop::NotReplayable);
    }
    if config.attempts.get() <= 1 {
        return Err(Stop::Attempts);
    }
    let pushback = match pushback {
        Some(Pushback::Never) => return Err(Stop::Pushback),
        Some(Pushback::After(delay)) => Some(delay),
        None => None,
    };
    if unprocessed && attempt.transparent == 0 && pushback.is_none() {
        return Ok(Retry {
            after: Duration::ZERO,
            counts: false,
            price: match verdict {
                // Where all shed, cheap retries would double what they have to shed.
                Verdict::Overloaded { .. } => Price::Attempt,
                _ => Price::Transparent,
            },
        });
    }
    if attempt.is_retry_from_downstream {
        return Err(Stop::RetryFromDownstream);
    }
    if attempt.number >= config.attempts.get() {
        return Err(Stop::Attempts);
    }
    Ok(Retry {
        after: pushback
            .unwrap_or_else(|| backoff(config, attempt.number, rand))
            .max(attempt.wait_min),
        counts: true,
        price: Price::Attempt,
    })
}

/// `Ok(true)`: because nobody has processed it. `Ok(false)`: because processing it twice does no harm.
fn may_repeat(config: &Retries, attempt: Attempt, verdict: Verdict) -> Result<bool, Stop> {
    let (configured, unprocessed) = match verdict {
        Verdict::Final => return Err(Stop::Final),
        Verdict::Named => return Ok(false),
        Verdict::Exhausted => return Err(Stop::ExhaustedBelow),
        Verdict::Overloaded { service: true } => return Err(Stop::ServiceOverloaded),
        Verdict::Unprocessed | Verdict::Overloaded { service: false } => {
            (config.on.unprocessed, true)
        }
        Verdict::Unavailable => (config.on.unavailable, false),
        Verdict::ServerError => (config.on.server_error, false),
    };
    if !configured {
        Err(Stop::NotConfigured)
    } else if !unprocessed && !attempt.idempotent {
        Err(Stop::NotIdempotent)
    } else {
        Ok(unprocessed)
    }
}

fn in_time(attempt: Attempt, after: Duration) -> bool {
    can_end(attempt.remaining, after.saturating_add(attempt.typical))
}

/// Whether what takes so long can end while somebody waits for it. `remaining`: until the deadline; `None`: there is none.
pub fn can_end(remaining: Option<Duration>, needed: Duration) -> bool {
    match remaining {
        Some(left) => left > needed || (left == needed && !left.is_zero()),
        None => true,
    }
}

/// Full jitter below `base × 2^(n−1)`.
fn backoff(config: &Retries, number: u32, rand: u64) -> Duration {
    let doublings = number.saturating_sub(1).min(31);
    let ceiling = config.backoff_base.saturating_mul(1 << doublings);
    jitter::full(ceiling.min(*config.backoff_max), rand)
}

#[cfg(test)]
mod tests;
