mod properties;
mod reload;
mod streams;

use super::*;
use weir_config::units::{self, Count};

const FAST: Duration = Duration::from_millis(10);
const MIDDLE: u64 = 1 << 63; // no jitter
const SLOW: Duration = Duration::from_millis(800);
const HARD: Outcome = Outcome::Failure(Fault::Hard);
const HASTY: Outcome = Outcome::Failure(Fault::Deadline);

fn config() -> Config {
    Config {
        slow_call_duration: Some(units::Duration::from_millis(800)),
        ..Config::default()
    }
}

fn breaker() -> (Breaker, Instant) {
    (Breaker::new(config()), Instant::now())
}

fn call(breaker: &mut Breaker, outcome: Outcome, elapsed: Duration, now: Instant) {
    let ticket = breaker.admit(now, MIDDLE).expect("admitted");
    breaker.record(ticket, outcome, elapsed, now, MIDDLE);
}

/// An open breaker, and the first moment at which it lets a probe through.
fn opened() -> (Breaker, Instant) {
    let (mut breaker, now) = breaker();
    for _ in 0..20 {
        call(&mut breaker, HARD, FAST, now);
    }
    assert_eq!(breaker.state(), Phase::Open);
    (breaker, now + *config().open_for)
}

fn reasons(breaker: &mut Breaker) -> Vec<String> {
    std::iter::from_fn(|| breaker.take_transition())
        .map(|t| format!("{} to {}: {}", t.from, t.to, t.reason))
        .collect()
}

#[test]
fn half_of_the_calls_failing_opens_it_but_not_below_the_minimum_of_calls() {
    let (mut breaker, now) = breaker();
    for _ in 0..10 {
        call(&mut breaker, HARD, FAST, now);
    }
    for _ in 0..9 {
        call(&mut breaker, Outcome::Success, FAST, now);
    }
    assert_eq!(
        breaker.state(),
        Phase::Closed,
        "19 calls are too few to judge"
    );
    call(&mut breaker, Outcome::Success, FAST, now);
    assert_eq!(
        breaker
            .admit(now, MIDDLE)
            .expect_err("it is open")
            .retry_after,
        *config().open_for
    );
    assert_eq!(
        reasons(&mut breaker),
        ["closed to open: 10 of 20 calls failed in 10s"],
        "reported once"
    );
    assert_eq!(breaker.take_transition(), None);
}

#[test]
fn slow_answers_open_it_even_when_all_succeed() {
    let (mut breaker, now) = breaker();
    for _ in 0..20 {
        call(&mut breaker, Outcome::Success, SLOW, now);
    }
    assert_eq!(
        reasons(&mut breaker),
        ["closed to open: 20 of 20 calls were slow in 10s"]
    );
}

#[test]
fn callers_that_hang_up_or_are_too_hasty_are_no_evidence() {
    let (mut breaker, now) = breaker();
    for _ in 0..100 {
        call(&mut breaker, Outcome::Cancelled, SLOW, now);
        call(&mut breaker, HASTY, FAST, now);
    }
    assert_eq!(breaker.window.totals(now), Counts::default());
    for _ in 0..20 {
        call(&mut breaker, HASTY, SLOW, now);
    }
    assert_eq!(
        breaker.state(),
        Phase::Open,
        "a wait that the policy calls slow counts"
    );
}

#[test]
fn failures_older_than_the_window_are_forgotten() {
    let (mut breaker, now) = breaker();
    for _ in 0..19 {
        call(&mut breaker, HARD, FAST, now);
    }
    call(&mut breaker, HARD, FAST, now + *config().window);
    assert_eq!(breaker.state(), Phase::Closed);
}

#[test]
fn half_open_lets_five_probes_through_and_closes_when_four_succeed() {
    let (mut breaker, now) = opened();
    let mut probes: Vec<_> = (0..5)
        .map(|_| breaker.admit(now, MIDDLE).expect("a probe"))
        .collect();
    assert!(breaker.admit(now, MIDDLE).is_err(), "the sixth is refused");
    breaker.record(probes.pop().expect("five"), HARD, FAST, now, MIDDLE);
    for probe in probes.drain(..3) {
        breaker.record(probe, Outcome::Success, FAST, now, MIDDLE);
    }
    assert_eq!(breaker.state(), Phase::HalfOpen);
    breaker.record(probes.remove(0), Outcome::Success, FAST, now, MIDDLE);
    assert_eq!(breaker.state(), Phase::Closed);
    assert_eq!(
        reasons(&mut breaker)[1..],
        [
            "open to half-open: the open time is over",
            "half-open to closed: 4 of 5 probes succeeded"
        ]
    );
}

#[test]
fn two_bad_probes_open_it_again_for_twice_as_long_up_to_eight_times() {
    let (mut breaker, mut now) = opened();
    for factor in [2, 4, 8, 8] {
        call(&mut breaker, HARD, FAST, now);
        call(&mut breaker, Outcome::Success, SLOW, now);
        let wait = breaker.admit(now, MIDDLE).expect_err("open").retry_after;
        assert_eq!(wait, *config().open_for * factor);
        now += wait;
    }
}

#[test]
fn a_service_that_fails_right_after_it_recovered_is_left_alone_for_longer() {
    let (mut breaker, now) = opened();
    for _ in 0..4 {
        call(&mut breaker, Outcome::Success, FAST, now);
    }
    let (relapse, much_later) = (now + FAST, now + *config().window);
    for (at, factor) in [(relapse, 2), (much_later, 1)] {
        let mut breaker = Breaker {
            window: breaker.window.clone(),
            transitions: Transitions::default(),
            ..breaker
        };
        for _ in 0..20 {
            call(&mut breaker, HARD, FAST, at);
        }
        let wait = breaker.admit(at, MIDDLE).expect_err("open").retry_after;
        assert_eq!(wait, *config().open_for * factor);
    }
}

#[test]
fn breakers_that_open_together_come_back_apart_and_each_says_when() {
    let shortest = config().open_for.mul_f64(1.0 - JITTER);
    let longest = config().open_for.mul_f64(1.0 + JITTER);
    let mut last = Duration::ZERO;
    for rand in [0, MIDDLE / 2, MIDDLE, u64::MAX] {
        let (mut breaker, now) = breaker();
        for _ in 0..20 {
            let ticket = breaker.admit(now, MIDDLE).expect("closed");
            breaker.record(ticket, HARD, FAST, now, rand);
        }
        let wait = breaker.admit(now, MIDDLE).expect_err("open").retry_after;
        assert!(
            wait > last && (shortest..=longest).contains(&wait),
            "{wait:?}"
        );
        last = wait;
        breaker.reconfigure(config(), now);
        let early = now + wait - Duration::from_millis(1);
        let still = breaker.admit(early, MIDDLE).expect_err("open").retry_after;
        assert_eq!(
            still,
            Duration::from_millis(1),
            "the same policy changes nothing"
        );
        assert!(breaker.admit(now + wait, MIDDLE).is_ok());
    }
}

#[test]
fn a_single_permitted_probe_may_not_fail() {
    let (mut breaker, now) = opened();
    let one = Config {
        half_open_calls: Count::of(1),
        ..config()
    };
    breaker.reconfigure(one, now);
    call(&mut breaker, HARD, FAST, now);
    assert_eq!(breaker.state(), Phase::Open);
}

#[test]
fn a_cancelled_probe_gives_its_permit_back() {
    let (mut breaker, now) = opened();
    for _ in 0..1000 {
        call(&mut breaker, Outcome::Cancelled, FAST, now);
    }
    assert_eq!(breaker.state(), Phase::HalfOpen);
}

#[test]
fn where_nobody_calls_it_is_half_open_once_its_time_is_over() {
    let (mut breaker, now) = opened();
    breaker.tick(now);
    assert_eq!(breaker.state(), Phase::HalfOpen);
    for _ in 0..config().half_open_calls.get() {
        call(&mut breaker, Outcome::Success, FAST, now);
    }
    assert_eq!(breaker.state(), Phase::Closed);
}

#[test]
fn a_call_from_before_the_opening_is_no_probe() {
    let (mut breaker, now) = breaker();
    let early: Vec<_> = (0..10)
        .map(|_| breaker.admit(now, MIDDLE).expect("closed"))
        .collect();
    for _ in 0..20 {
        call(&mut breaker, HARD, FAST, now);
    }
    let later = now + *config().open_for;
    let _probe = breaker.admit(later, MIDDLE).expect("half-open");
    for ticket in early {
        breaker.record(ticket, Outcome::Success, FAST, later, MIDDLE);
    }
    assert_eq!(breaker.state(), Phase::HalfOpen);
}

#[test]
fn probes_that_never_come_back_open_it_again_unless_others_succeeded() {
    for (succeeded, then) in [(0, Phase::Open), (1, Phase::HalfOpen)] {
        let (mut breaker, now) = opened();
        for _ in 0..succeeded {
            call(&mut breaker, Outcome::Success, FAST, now);
        }
        let lost: Vec<_> = (succeeded..5)
            .map(|_| breaker.admit(now, MIDDLE).expect("a probe"))
            .collect();
        let later = now + *config().open_for * PROBING_MAX;
        assert_eq!(
            breaker.admit(later, MIDDLE).is_ok(),
            then == Phase::HalfOpen
        );
        assert_eq!(breaker.state(), then);
        drop(lost);
    }
}

#[test]
fn a_new_policy_neither_closes_nor_forgets() {
    let (mut breaker, now) = breaker();
    for _ in 0..19 {
        call(&mut breaker, HARD, FAST, now);
    }
    let mut strict = config();
    strict.window = units::Duration::from_secs(20);
    breaker.reconfigure(strict, now);
    call(&mut breaker, HARD, FAST, now);
    assert_eq!(
        breaker.state(),
        Phase::Open,
        "what was counted before still counts"
    );
    strict.open_for = units::Duration::from_secs(1);
    breaker.reconfigure(strict, now);
    let wait = breaker
        .admit(now, MIDDLE)
        .expect_err("still open")
        .retry_after;
    assert_eq!(
        wait,
        Duration::from_secs(1),
        "but not for longer than the new policy says"
    );
}

fn held(to: Force, until: Instant) -> Option<Forced> {
    let by = ForcedBy::Operator { until };
    Some(Forced { to, by })
}

/// Planted bug that this finds: a forced state that only whoever set it can end.
#[test]
fn what_an_operator_forces_ends_by_itself_and_starts_afresh() {
    let (mut breaker, now) = breaker();
    let until = now + Duration::from_secs(60);
    breaker.force(held(Force::Open, until), now);
    let refused = breaker
        .admit(now + Duration::from_secs(50), 0)
        .expect_err("held open");
    assert_eq!(refused.retry_after, Duration::from_secs(10));
    assert!(breaker.is_forced());
    let _ticket = breaker.admit(until, 0).expect("its time is over");
    let told: Vec<_> = std::iter::from_fn(|| breaker.take_transition())
        .map(|transition| (transition.to, transition.why, transition.reason))
        .collect();
    assert_eq!(
        told,
        [
            (
                Phase::Open,
                Why::Forced,
                "forced open by an operator for 60 s".into()
            ),
            (
                Phase::Closed,
                Why::ForceEnded,
                "the time for which it was forced is over".into()
            ),
        ]
    );
}

#[test]
fn a_breaker_that_is_forced_closed_passes_whatever_fails_and_remembers_none_of_it() {
    let (mut breaker, now) = breaker();
    breaker.force(held(Force::Closed, now + Duration::from_secs(60)), now);
    for _ in 0..1000 {
        let ticket = breaker.admit(now, 0).expect("held closed");
        breaker.record(
            ticket,
            Outcome::Failure(Fault::Hard),
            Duration::ZERO,
            now,
            0,
        );
    }
    breaker.force(None, now);
    let ticket = breaker.admit(now, 0).expect("it starts afresh");
    breaker.record(
        ticket,
        Outcome::Failure(Fault::Hard),
        Duration::ZERO,
        now,
        0,
    );
    assert_eq!(breaker.state(), Phase::Closed);
}

#[test]
fn calls_that_were_admitted_before_it_was_forced_say_nothing_about_what_comes_after() {
    let (mut breaker, now) = breaker();
    let tickets: Vec<_> = (0..100)
        .map(|_| breaker.admit(now, 0).expect("closed"))
        .collect();
    breaker.force(held(Force::Closed, now + Duration::from_secs(1)), now);
    breaker.force(None, now);
    for ticket in tickets {
        breaker.record(
            ticket,
            Outcome::Failure(Fault::Hard),
            Duration::ZERO,
            now,
            0,
        );
    }
    assert_eq!(breaker.state(), Phase::Closed);
}

#[test]
fn the_same_force_again_is_no_news_and_one_that_is_over_forces_nothing() {
    let (mut breaker, now) = breaker();
    breaker.force(held(Force::Open, now), now);
    assert_eq!(
        (breaker.state(), breaker.take_transition()),
        (Phase::Closed, None)
    );
    let policy = Some(Forced {
        to: Force::Open,
        by: ForcedBy::Policy,
    });
    breaker.force(policy, now);
    assert!(breaker.take_transition().is_some());
    breaker.force(policy, now);
    assert_eq!(breaker.take_transition(), None);
    breaker.tick(now + Duration::from_secs(1_000_000));
    assert_eq!(breaker.state(), Phase::Open, "a policy has no end");
}

#[test]
fn without_a_policy_it_passes_everything_learns_nothing_and_can_be_forced() {
    let (mut breaker, now) = (Breaker::new(None), Instant::now());
    for _ in 0..1000 {
        let ticket = breaker.admit(now, 0).expect("not armed");
        breaker.record(
            ticket,
            Outcome::Failure(Fault::Hard),
            Duration::ZERO,
            now,
            0,
        );
    }
    assert_eq!(breaker.take_transition(), None);
    breaker.force(held(Force::Open, now + Duration::from_secs(1)), now);
    assert!(breaker.admit(now, 0).is_err());
}
