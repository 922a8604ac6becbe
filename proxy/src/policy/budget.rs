//! Retry budget: extra attempts are paid for by earlier successes, not by requests, and taken in turns.
//!
//! ```text
//!   success of a first attempt   +0.1 ─┐
//!   its failure                 −0.01 ─┤▶ tokens, 0 to burst ─▶ −1 an extra attempt, −0.1 a transparent retry
//!   time                       +0.2/s ─┘                             │
//!                                                                    ▼ one after the other: 8 % of the calls of a second
//! ```
//!
//! A budget of 20 % of *requests* keeps a saturated service saturated: 1.2 × 80 % load never drains a queue of
//! dead work. A bucket that only successes fill pays nothing when nothing succeeds, and costs nothing at 5 %
//! random errors (resilience.md section 5; AWS SDKs and gRPC A6 have the idea, OSDI'22 the failure). One bucket
//! for each destination service and sidecar, shared by retries and hedges.
//!
//! Savings are for one endpoint that fails, not for a service that does: spent at once by twenty sidecars, ten tokens
//! each are a quarter more load in the very second in which the service falters. So failures take from them, as in A6,
//! and retries take turns, also the last one that is saved for (G5 in `tests/simulation`). More turns than 30 % failures
//! let come in, so that those are limited by what is earned (G8). Who lets more be earned or saved than by default lets
//! as many more turns come.
//!
//! Counted in thousandths, in integers: no rounding error lets a retry through.

use std::time::Duration;
use tokio::time::Instant;
use weir_config::snapshot::Budget as Config;

/// Thousandths of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Millitokens(pub u32);

/// A retry or a hedge.
pub const ATTEMPT: Millitokens = Millitokens(1000);
/// A retry of what provably reached nobody: cheap, but not free.
pub const TRANSPARENT: Millitokens = Millitokens(100);

/// What a first attempt costs that fails, retried or not. Hardly anything while failures are rare; where ten of
/// eleven fail, all that the eleventh brings in.
const FAILURE: Millitokens = Millitokens(10);

/// Retries take turns: there is one for so many first attempts of the last second as earn this much, 12.5 of them by
/// default …
const EARNED_A_TURN: f64 = 1.25;
/// … and at least one a second, or as many more as can be saved up more than by default.
const TURN_MAX: Duration = Duration::from_secs(1);
const BURST_OF_TURN_MAX: Duration = Duration::from_secs(10);

/// Nobody says when a success will pay for a try.
const ASK_AGAIN: Duration = Duration::from_millis(50);

/// +0.2 tokens a second, so that a service that failed for long can be probed by a retry at all.
const FLOOR_EVERY: Duration = Duration::from_millis(5);

#[derive(Clone, Debug)]
pub struct Budget {
    per_success: u32,
    burst: u32,
    /// Thousandths; 0 to `burst`.
    tokens: u32,
    /// Up to when the floor has been paid in.
    refilled: Instant,
    calls: Calls,
    /// When the next retry may go out.
    turn: Instant,
}

/// First attempts, by the second.
#[derive(Clone, Debug)]
struct Calls {
    this_second: u32,
    last_second: u32,
    since: Instant,
}

impl Budget {
    pub fn new(config: Config, now: Instant) -> Self {
        Self {
            per_success: per_success(config),
            burst: burst(config),
            tokens: burst(config),
            refilled: now,
            calls: Calls {
                this_second: 0,
                last_second: 0,
                since: now,
            },
            turn: now,
        }
    }

    /// A first attempt succeeded.
    pub fn deposit(&mut self, now: Instant) {
        self.calls.count(now);
        self.refill(now);
        self.put(self.per_success);
    }

    /// A first attempt failed.
    pub fn charge(&mut self, now: Instant) {
        self.calls.count(now);
        self.refill(now);
        self.tokens = self.tokens.saturating_sub(FAILURE.0);
    }

    /// Whether an extra attempt may be made. To be asked when it is decided, before any backoff.
    #[must_use]
    pub fn withdraw(&mut self, cost: Millitokens, now: Instant) -> bool {
        self.refill(now);
        match self.tokens.checked_sub(cost.0) {
            Some(left) => {
                self.tokens = left;
                true
            }
            None => false,
        }
    }

    /// How long a retry that is decided now has to wait for its turn.
    pub fn turn(&self, now: Instant) -> Duration {
        self.turn.saturating_duration_since(now)
    }

    /// The same as [`Budget::withdraw`] of an [`ATTEMPT`], and the turn is taken.
    #[must_use]
    pub fn withdraw_in_turn(&mut self, now: Instant) -> bool {
        let paid = self.withdraw(ATTEMPT, now);
        if paid {
            self.turn = self.turn.max(now) + self.between_turns();
        }
        paid
    }

    fn between_turns(&self) -> Duration {
        let earned_a_second = self.calls.a_second() * f64::from(self.per_success) / 1000.0;
        let of_calls = Duration::from_secs(1).mul_f64(EARNED_A_TURN / earned_a_second);
        let of_burst = BURST_OF_TURN_MAX * 1000 / self.burst;
        of_calls.min(of_burst).min(TURN_MAX)
    }

    /// How long a try that is still waited for goes on: as long as no other one would be paid for, it is all there is.
    /// Zero: another one may take its place now.
    pub fn until_another(&mut self, now: Instant) -> Duration {
        self.refill(now);
        if self.tokens < ATTEMPT.0 {
            return ASK_AGAIN;
        }
        self.turn(now)
    }

    pub fn tokens(&self) -> Millitokens {
        Millitokens(self.tokens)
    }

    /// A new policy: what was saved stays, as far as it fits.
    pub fn reconfigure(&mut self, config: Config) {
        self.per_success = per_success(config);
        self.burst = burst(config);
        self.tokens = self.tokens.min(self.burst);
    }

    fn refill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.refilled);
        let steps = passed.as_nanos() / FLOOR_EVERY.as_nanos();
        // More than fills the bucket is not worth counting exactly.
        let Ok(steps) = u32::try_from(steps) else {
            self.refilled = now;
            return self.put(self.burst);
        };
        self.refilled += FLOOR_EVERY * steps;
        self.put(steps);
    }

    fn put(&mut self, tokens: u32) {
        self.tokens = self.tokens.saturating_add(tokens).min(self.burst);
    }
}

impl Calls {
    fn count(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.since).as_secs();
        if passed > 0 {
            self.last_second = if passed == 1 { self.this_second } else { 0 };
            self.this_second = 0;
            self.since = now;
        }
        self.this_second = self.this_second.saturating_add(1);
    }

    /// At least one: somebody asks.
    fn a_second(&self) -> f64 {
        f64::from(self.this_second.max(self.last_second).max(1))
    }
}

fn per_success(config: Config) -> u32 {
    (config.per_success.get() * 1000.0).round().max(1.0) as u32
}

fn burst(config: Config) -> u32 {
    config.burst.get() * 1000
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use weir_config::units::{Count, Ratio};

    fn budget() -> (Budget, Instant) {
        let now = Instant::now();
        (Budget::new(Config::default(), now), now)
    }

    fn emptied() -> (Budget, Instant) {
        let (mut budget, now) = budget();
        for _ in 0..10 {
            assert!(budget.withdraw(ATTEMPT, now));
        }
        (budget, now)
    }

    #[test]
    fn it_starts_with_its_burst_and_then_refuses() {
        let (mut budget, now) = budget();
        let retries = (0..100).filter(|_| budget.withdraw(ATTEMPT, now)).count();
        assert_eq!(retries, 10);
        assert!(!budget.withdraw(TRANSPARENT, now));
    }

    #[test]
    fn ten_successes_pay_for_one_retry() {
        let (mut budget, now) = emptied();
        for _ in 0..9 {
            budget.deposit(now);
            assert!(!budget.withdraw(ATTEMPT, now));
        }
        budget.deposit(now);
        assert!(budget.withdraw(ATTEMPT, now));
        assert!(!budget.withdraw(ATTEMPT, now));
    }

    #[test]
    fn failures_take_from_the_savings_hardly_anything_while_they_are_rare_and_all_when_nothing_works()
     {
        for (failing, in_a_hundred, retries) in
            [(5, 100, 5), (50, 100, 4), (91, 100, 0), (100, 100, 0)]
        {
            let (mut budget, now) = emptied();
            for round in 0..in_a_hundred {
                if round < in_a_hundred - failing {
                    budget.deposit(now);
                } else {
                    budget.charge(now);
                }
            }
            let paid = (0..failing)
                .filter(|_| budget.withdraw(ATTEMPT, now))
                .count();
            assert_eq!(paid, retries, "{failing} %");
        }
    }

    #[test]
    fn retries_take_turns_and_busy_callers_more_of_them() {
        for (calls, wait) in [(1, 1000), (40, 312), (1000, 12)] {
            let (mut budget, now) = budget();
            for _ in 0..calls {
                budget.deposit(now);
            }
            assert_eq!(budget.turn(now), Duration::ZERO, "the first goes at once");
            for turn in 1..=3 {
                assert!(budget.withdraw_in_turn(now));
                let expected = turn * wait;
                let waits = budget.turn(now).as_millis();
                assert!(
                    (expected..expected + 3).contains(&waits),
                    "{calls}: {waits}"
                );
            }
            assert_eq!(budget.turn(now + Duration::from_secs(3)), Duration::ZERO);
        }
    }

    /// They were paced by what is earned by default, whatever was earned.
    #[test]
    fn who_earns_or_saves_more_has_more_turns_and_who_earns_less_has_fewer() {
        for (per_success, burst, calls, wait) in [
            (0.1, 10, 1000, 12.5),
            (1.0, 10, 1000, 1.25),
            (0.01, 10, 1000, 125.0),
            (0.1, 100, 1, 100.0),
            (1.0, 1000, 1, 10.0),
            (0.01, 1, 1, 1000.0),
        ] {
            let (_, now) = budget();
            let config = Config {
                per_success: Ratio::try_from(per_success).expect("a ratio"),
                burst: Count::of(burst),
            };
            let mut budget = Budget::new(config, now);
            for _ in 0..calls {
                budget.deposit(now);
            }
            assert!(budget.withdraw_in_turn(now));
            let waits = budget.turn(now).as_secs_f64() * 1000.0;
            assert!((waits - wait).abs() < 0.01, "{config:?}: {waits} ms");
        }
    }

    #[test]
    fn a_second_without_calls_is_not_taken_for_a_busy_one() {
        let (mut budget, now) = budget();
        for _ in 0..1000 {
            budget.deposit(now);
        }
        let later = now + Duration::from_secs(60);
        budget.deposit(later);
        assert!(budget.withdraw_in_turn(later));
        assert_eq!(budget.turn(later), TURN_MAX);
    }

    #[test]
    fn without_any_success_there_is_one_retry_in_five_seconds() {
        let (mut budget, now) = emptied();
        let mut retries = 0;
        for millis in 0..60_000 {
            retries += u32::from(budget.withdraw(ATTEMPT, now + Duration::from_millis(millis)));
        }
        assert_eq!(retries, 11, "one each 5 s in 60 s, less the last");
    }

    #[test]
    fn asking_often_earns_no_more_than_asking_rarely() {
        let (mut often, now) = emptied();
        let (mut rarely, _) = emptied();
        rarely.refilled = often.refilled;
        for millis in 1..=4_999 {
            often.refill(now + Duration::from_millis(millis));
        }
        rarely.refill(now + Duration::from_millis(4_999));
        assert_eq!(often.tokens(), rarely.tokens());
        assert_eq!(often.tokens(), Millitokens(999));
    }

    #[test]
    fn savings_are_bounded_even_after_a_year() {
        let (mut budget, now) = budget();
        for _ in 0..1000 {
            budget.deposit(now);
        }
        assert_eq!(budget.tokens(), Millitokens(10_000));
        budget.deposit(now + Duration::from_secs(365 * 86_400));
        assert_eq!(budget.tokens(), Millitokens(10_000));
    }

    #[test]
    fn a_smaller_burst_takes_savings_away_and_a_larger_one_gives_none() {
        let (mut budget, _) = budget();
        for (burst, tokens) in [(3, 3_000), (50, 3_000)] {
            budget.reconfigure(Config {
                burst: Count::of(burst),
                ..Config::default()
            });
            assert_eq!(budget.tokens(), Millitokens(tokens));
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Succeed,
        Fail,
        Retry(Millitokens),
        Wait(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            Just(Step::Succeed),
            Just(Step::Fail),
            prop::sample::select(vec![ATTEMPT, TRANSPARENT]).prop_map(Step::Retry),
            (0u64..3_000).prop_map(Step::Wait),
        ]
    }

    proptest! {
        /// The amplification bound: whatever the order of events, extra attempts never cost more than burst +
        /// 0.1 a success + 0.2 a second; and the bucket stays between empty and full.
        #[test]
        fn never_pays_out_more_than_was_paid_in(steps in prop::collection::vec(step(), 0..500)) {
            let (mut budget, start) = budget();
            let (mut now, mut successes, mut spent) = (start, 0u64, 0u64);
            for step in steps {
                match step {
                    Step::Succeed => { successes += 1; budget.deposit(now); }
                    Step::Fail => budget.charge(now),
                    Step::Retry(cost) => if budget.withdraw(cost, now) { spent += u64::from(cost.0); },
                    Step::Wait(millis) => now += Duration::from_millis(millis),
                }
                let floor = now.duration_since(start).as_millis() as u64 / 5;
                prop_assert!(spent <= 10_000 + 100 * successes + floor);
                prop_assert!(budget.tokens <= budget.burst);
            }
        }

        /// In any second there are no more retries than turns: one at once, one a second, one for each 12.5 calls of the
        /// busiest second.
        #[test]
        fn no_second_has_more_retries_than_turns(waits in prop::collection::vec(0u64..200, 1..300)) {
            let (mut budget, mut now) = budget();
            let (mut sent, mut calls) = (Vec::new(), Vec::new());
            for wait in waits {
                now += Duration::from_millis(wait);
                budget.deposit(now);
                calls.push(now);
                let at = now + budget.turn(now);
                if budget.withdraw_in_turn(now) {
                    sent.push(at);
                }
            }
            let second = Duration::from_secs(1);
            let within = |of: &[Instant], from: Instant| of.iter().filter(|&&at| at >= from && at < from + second).count();
            let busiest = calls.iter().map(|&from| within(&calls, from)).max().unwrap_or(0);
            for &from in &sent {
                prop_assert!(within(&sent, from) as f64 <= 2.0 + busiest as f64 / 12.5);
            }
        }

        /// It never wedges: five seconds after anything, a retry is possible.
        #[test]
        fn a_retry_becomes_possible_again(steps in prop::collection::vec(step(), 0..100)) {
            let (mut budget, mut now) = budget();
            for step in steps {
                match step {
                    Step::Succeed => budget.deposit(now),
                    Step::Fail => budget.charge(now),
                    Step::Retry(cost) => { let _ = budget.withdraw(cost, now); }
                    Step::Wait(millis) => now += Duration::from_millis(millis),
                }
            }
            prop_assert!(budget.withdraw(ATTEMPT, now + Duration::from_secs(5)));
        }
    }
}
