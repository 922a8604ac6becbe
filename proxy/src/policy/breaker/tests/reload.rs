//! Policies that come, change and go.

use super::*;

/// It would have refused calls for ever: of its probes nothing was learnt.
#[test]
fn an_open_breaker_that_no_policy_asks_for_any_more_passes_everything() {
    let (mut probing, probed) = opened();
    let _probe = probing.admit(probed, MIDDLE).expect("a probe");
    for (mut breaker, now) in [opened(), (probing, probed)] {
        breaker.reconfigure(None, now);
        let told = std::iter::from_fn(|| breaker.take_transition()).last();
        let told = told.expect("it is told");
        assert_eq!((told.to, told.why), (Phase::Closed, Why::PolicyChanged));
        for _ in 0..1000 {
            call(&mut breaker, HARD, FAST, now);
        }
        breaker.reconfigure(config(), now);
        assert_eq!(breaker.state(), Phase::Closed, "it starts afresh");
        for _ in 0..20 {
            call(&mut breaker, HARD, FAST, now);
        }
        assert_eq!(breaker.state(), Phase::Open, "and is armed again");
    }
}

/// Each push says when an operator's word ends, and each sidecar works out how long that is from now.
#[test]
fn an_operators_word_that_is_pushed_again_is_no_news() {
    let (mut breaker, now) = breaker();
    let (millisecond, minute) = (Duration::from_millis(1), Duration::from_secs(60));
    breaker.force(held(Force::Open, now + minute), now);
    assert!(breaker.take_transition().is_some());
    for until in [now + minute - millisecond, now + minute + millisecond] {
        breaker.force(held(Force::Open, until), now);
        assert_eq!(breaker.take_transition(), None);
    }
    breaker.force(held(Force::Open, now + 2 * minute), now);
    assert!(breaker.take_transition().is_some(), "held for longer");
    breaker.force(held(Force::Closed, now + 2 * minute), now);
    assert!(breaker.take_transition().is_some(), "the other way");
}

/// Half-open by a policy of an hour, it waited two for probes that hung, whatever the policy said by then.
#[test]
fn a_new_policy_does_not_wait_for_lost_probes_for_longer_than_it_says() {
    let hour = Config {
        open_for: units::Duration::from_secs(3600),
        ..config()
    };
    let (mut breaker, now) = breaker();
    breaker.reconfigure(hour, now);
    for _ in 0..20 {
        call(&mut breaker, HARD, FAST, now);
    }
    let now = now + *hour.open_for;
    let _lost: Vec<_> = (0..5)
        .map(|_| breaker.admit(now, MIDDLE).expect("a probe"))
        .collect();
    breaker.reconfigure(hour, now);
    breaker.reconfigure(config(), now);
    let refused = breaker.admit(now, MIDDLE).expect_err("they are under way");
    assert_eq!(refused.retry_after, *config().open_for);
    let later = now + *config().open_for * PROBING_MAX;
    assert!(breaker.admit(later, MIDDLE).is_err());
    assert_eq!(breaker.state(), Phase::Open, "they did not come back");
}
