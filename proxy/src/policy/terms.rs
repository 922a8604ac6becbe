//! What a rule of a route says about how its calls are made, in place of what the policy of whoever is called says.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use weir_config::snapshot::{self, Retries, RetryOn, Timeout};
use weir_config::units::{self, Count};

/// Tries, where a rule asks for retries and neither it nor the policy says how many.
const ATTEMPTS: Count<1, 5> = Count::of(2);
const ATTEMPTS_MAX: u32 = 5;

#[derive(Debug)]
pub struct Terms {
    /// `HTTPRoute boutique/cart rules[0]`.
    pub rule: Arc<str>,
    deadline: Option<Timeout>,
    per_try: Option<Timeout>,
    retry: Option<snapshot::RuleRetry>,
    made: ArcSwapOption<Made>,
}

/// What was made of the policy that was asked for last, for the next request that goes there.
#[derive(Debug)]
struct Made {
    policy: Arc<Retries>,
    retries: Arc<Retries>,
}

impl Terms {
    pub fn new(rule: &snapshot::Rule) -> Self {
        Self {
            rule: rule.name.as_str().into(),
            deadline: rule.deadline,
            per_try: rule.per_try_timeout,
            retry: rule.retry.clone(),
            made: ArcSwapOption::empty(),
        }
    }

    /// Whether it says for how long the whole call may take, or that it may take as long as it likes.
    pub const fn sets_deadline(&self) -> bool {
        self.deadline.is_some()
    }

    pub fn deadline(&self) -> Option<Duration> {
        Some(self.deadline?.get()?.get())
    }

    /// Of whoever is called, as far as the rule says nothing else. The budget stays theirs.
    pub fn retries(&self, policy: &Arc<Retries>) -> Arc<Retries> {
        if self.per_try.is_none() && self.retry.is_none() {
            return policy.clone();
        }
        match &*self.made.load() {
            Some(made) if Arc::ptr_eq(&made.policy, policy) => return made.retries.clone(),
            _ => {}
        }
        let retries = Arc::new(self.make(policy));
        self.made.store(Some(Arc::new(Made {
            policy: policy.clone(),
            retries: retries.clone(),
        })));
        retries
    }

    fn make(&self, policy: &Retries) -> Retries {
        let mut retries = policy.clone();
        if let Some(per_try) = self.per_try {
            retries.per_try_timeout = per_try.get();
        }
        if let Some(retry) = &self.retry {
            let attempts = retry
                .attempts
                .map(|it| i64::from(it.clamp(1, ATTEMPTS_MAX)));
            retries.attempts = (attempts.and_then(|it| it.try_into().ok()))
                .unwrap_or(retries.attempts.max(ATTEMPTS));
            // Connections that cannot be made are meant by every retry of a rule, those that break off by one that names what
            // else is worth it. Where it does not, the policy does.
            retries.on = RetryOn {
                unprocessed: true,
                unavailable: retries.on.unavailable || !retry.codes.is_empty(),
                ..retries.on
            };
            if let Some(backoff) = retry.backoff {
                retries.backoff_base = backoff;
                retries.backoff_max = retries.backoff_max.max(backoff);
            }
        }
        retries
    }

    /// No try sooner than that after the last.
    pub fn wait_min(&self) -> Duration {
        let backoff = self.retry.as_ref().and_then(|retry| retry.backoff);
        backoff.map_or(Duration::ZERO, units::Duration::get)
    }

    /// Statuses that are worth another try, and no others are. `None`: those of the policy.
    pub fn codes(&self) -> Option<&[u16]> {
        let codes = self.retry.as_ref()?.codes.as_slice();
        (!codes.is_empty()).then_some(codes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms(retry: Option<snapshot::RuleRetry>, per_try: Option<Timeout>) -> Terms {
        Terms {
            rule: "HTTPRoute a/b rules[0]".into(),
            deadline: None,
            per_try,
            retry,
            made: ArcSwapOption::empty(),
        }
    }

    #[test]
    fn what_a_rule_does_not_say_is_the_policys() {
        let policy = Arc::new(Retries::default());
        assert!(Arc::ptr_eq(&terms(None, None).retries(&policy), &policy));
        let one = terms(None, Some(Timeout::After(units::Duration::from_secs(1))));
        let retries = one.retries(&policy);
        assert_eq!(retries.per_try_timeout, Some(units::Duration::from_secs(1)));
        assert_eq!(retries.attempts, policy.attempts);
        let none = terms(None, Some(Timeout::Unlimited)).retries(&retries);
        assert_eq!(none.per_try_timeout, None);
    }

    #[test]
    fn a_rule_says_how_often_and_how_late_and_the_budget_stays() {
        let policy = Arc::new(Retries {
            attempts: Count::of(1),
            ..Retries::default()
        });
        let retry = |attempts, backoff| snapshot::RuleRetry {
            attempts,
            codes: vec![503],
            backoff,
        };
        let late = units::Duration::from_secs(1);
        let three = terms(Some(retry(Some(3), Some(late))), None);
        let retries = three.retries(&policy);
        assert_eq!(retries.attempts.get(), 3);
        assert_eq!((retries.backoff_base, retries.backoff_max), (late, late));
        assert_eq!(retries.budget, policy.budget);
        assert_eq!(
            (three.wait_min(), three.codes()),
            (late.get(), Some(&[503][..]))
        );
        let some = terms(Some(retry(None, None)), None).retries(&policy);
        assert_eq!(some.attempts, ATTEMPTS, "it asks for another try");
        let none = terms(Some(retry(Some(1), None)), None).retries(&policy);
        assert_eq!(none.attempts.get(), 1);
    }

    /// A rule without `codes` had whatever is 502 to 504 tried again, against the policy.
    #[test]
    fn a_rule_that_names_no_statuses_leaves_to_the_policy_what_is_worth_another_try() {
        let on = RetryOn {
            unavailable: false,
            ..RetryOn::default()
        };
        let policy = Arc::new(Retries {
            on,
            ..Retries::default()
        });
        for codes in [Vec::new(), vec![503]] {
            let names = !codes.is_empty();
            let retry = snapshot::RuleRetry {
                attempts: Some(2),
                codes,
                backoff: None,
            };
            let retries = terms(Some(retry), None).retries(&policy);
            assert_eq!(
                (retries.on.unavailable, retries.on.unprocessed),
                (names, true)
            );
        }
    }

    #[test]
    fn what_is_made_of_a_policy_is_made_once_and_anew_for_another() {
        let first = Arc::new(Retries::default());
        let terms = terms(None, Some(Timeout::After(units::Duration::from_secs(1))));
        let made = terms.retries(&first);
        assert!(Arc::ptr_eq(&made, &terms.retries(&first)));
        let second = Arc::new(Retries {
            attempts: Count::of(5),
            ..Retries::default()
        });
        assert_eq!(terms.retries(&second).attempts.get(), 5);
        assert_eq!(terms.retries(&first).attempts, first.attempts);
    }
}
