//! Retry budget: extra attempts are paid for by earlier successes, not by requests.
//!
//! ```text
//!   success of a first attempt   +0.1 ─┐
//!   time                       +0.2/s ─┤▶ tokens, 0 to burst ─▶ −1 an extra attempt, −0.1 a transparent retry
//! ```
//!
//! A budget of 20 % of *requests* keeps a saturated service saturated: 1.2 × 80 % load never drains a queue of
//! dead work. A bucket that only successes fill pays nothing when nothing succeeds, and costs nothing at 5 %
//! random errors (resilience.md section 5; AWS SDKs and gRPC A6 have the idea, OSDI'22 the failure). One bucket
//! for each destination service and sidecar, shared by retries and hedges.
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

/// +0.2 tokens a second, so that a service that failed for long can be probed by a retry at all.
const FLOOR_EVERY: Duration = Duration::from_millis(5);

#[derive(Debug)]
pub struct Budget {
    per_success: u32,
    burst: u32,
    /// Thousandths; 0 to `burst`.
    tokens: u32,
    /// Up to when the floor has been paid in.
    refilled: Instant,
}

impl Budget {
    pub fn new(config: Config, now: Instant) -> Self {
        Self {
            per_success: per_success(config),
            burst: burst(config),
            tokens: burst(config),
            refilled: now,
        }
    }

    /// A first attempt succeeded.
    pub fn deposit(&mut self, now: Instant) {
        self.refill(now);
        self.put(self.per_success);
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
    use weir_config::units::Count;

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
        Retry(Millitokens),
        Wait(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            Just(Step::Succeed),
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
                    Step::Retry(cost) => if budget.withdraw(cost, now) { spent += u64::from(cost.0); },
                    Step::Wait(millis) => now += Duration::from_millis(millis),
                }
                let floor = now.duration_since(start).as_millis() as u64 / 5;
                prop_assert!(spent <= 10_000 + 100 * successes + floor);
                prop_assert!(budget.tokens <= budget.burst);
            }
        }

        /// It never wedges: five seconds after anything, a retry is possible.
        #[test]
        fn a_retry_becomes_possible_again(steps in prop::collection::vec(step(), 0..100)) {
            let (mut budget, mut now) = budget();
            for step in steps {
                match step {
                    Step::Succeed => budget.deposit(now),
                    Step::Retry(cost) => { let _ = budget.withdraw(cost, now); }
                    Step::Wait(millis) => now += Duration::from_millis(millis),
                }
            }
            prop_assert!(budget.withdraw(ATTEMPT, now + Duration::from_secs(5)));
        }
    }
}
