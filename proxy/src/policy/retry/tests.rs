use super::*;
use proptest::prelude::*;
use weir_config::snapshot::{Budget as BudgetConfig, RetryOn};
use weir_config::units::Count;

const FIRST: Attempt = Attempt {
    number: 1,
    transparent: 0,
    idempotent: true,
    committed: false,
    wait_min: Duration::ZERO,
    replayable: true,
    is_retry_from_downstream: false,
    remaining: Some(Duration::from_secs(1)),
    typical: Duration::from_millis(20),
};
/// What the failure of a first attempt costs, in thousandths.
const FAILURE: u32 = 10;
const TRANSPARENTLY: Decision = Decision::Retry {
    after: Duration::ZERO,
    counts: false,
};

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn attempts(attempts: u32) -> Retries {
    Retries {
        attempts: Count::of(attempts),
        ..Retries::default()
    }
}

/// With a full budget; and what it cost.
fn decide_with(
    config: &Retries,
    attempt: Attempt,
    verdict: Verdict,
    pushback: Option<Pushback>,
) -> (Decision, u32) {
    let now = Instant::now();
    let mut budget = Budget::new(BudgetConfig::default(), now);
    let full = budget.tokens().0;
    let decision = decide(
        config,
        attempt,
        verdict,
        pushback,
        &mut budget,
        now,
        u64::MAX,
    );
    (decision, full - budget.tokens().0)
}

fn decision(attempt: Attempt, verdict: Verdict) -> Decision {
    decide_with(&Retries::default(), attempt, verdict, None).0
}

fn stopped(attempt: Attempt, verdict: Verdict) -> Stop {
    match decision(attempt, verdict) {
        Decision::Stop(stop) => stop,
        retry => panic!("{retry:?}"),
    }
}

#[test]
fn an_unavailable_endpoint_costs_an_idempotent_request_one_more_attempt() {
    let (decision, cost) = decide_with(&Retries::default(), FIRST, Verdict::Unavailable, None);
    let Decision::Retry {
        after,
        counts: true,
    } = decision
    else {
        panic!("{decision:?}")
    };
    assert!(after <= millis(25));
    assert_eq!(cost, 1000 + FAILURE);
    let second = Attempt { number: 2, ..FIRST };
    assert_eq!(stopped(second, Verdict::Unavailable), Stop::Attempts);
}

/// It was paid for, the caller waited for it until the deadline, and got that instead of the failure.
#[test]
fn a_route_that_wants_a_longer_wait_than_there_is_time_gets_no_retry_and_pays_for_none() {
    let patient = |wait_min| Attempt { wait_min, ..FIRST };
    let long = patient(millis(1500));
    let (decision, cost) = decide_with(&Retries::default(), long, Verdict::Unavailable, None);
    assert_eq!((decision, cost), (Decision::Stop(Stop::Deadline), FAILURE));
    let short = patient(millis(300));
    let (decision, _) = decide_with(&Retries::default(), short, Verdict::Unavailable, None);
    let after = millis(300);
    assert_eq!(
        decision,
        Decision::Retry {
            after,
            counts: true
        }
    );
}

#[test]
fn what_reached_nobody_is_tried_again_at_once_whatever_the_method() {
    let post = Attempt {
        idempotent: false,
        ..FIRST
    };
    let (decision, cost) = decide_with(&Retries::default(), post, Verdict::Unprocessed, None);
    assert_eq!(decision, TRANSPARENTLY);
    assert_eq!(cost, 100, "it pays, but little");
}

/// Where all shed, cheap retries would double what they have to shed.
#[test]
fn what_was_shed_may_go_elsewhere_at_once_but_for_the_full_price() {
    let post = Attempt {
        idempotent: false,
        ..FIRST
    };
    let shed = Verdict::Overloaded { service: false };
    let (decision, cost) = decide_with(&Retries::default(), post, shed, None);
    assert_eq!(decision, TRANSPARENTLY);
    assert_eq!(cost, 1000 + FAILURE);
}

#[test]
fn retries_that_are_due_together_go_out_one_after_the_other_and_who_cannot_wait_gives_up() {
    let now = Instant::now();
    let mut budget = Budget::new(
        BudgetConfig {
            burst: Count::of(50),
            ..BudgetConfig::default()
        },
        now,
    );
    for _ in 0..100 {
        budget.deposit(now);
    }
    let mut decide = |verdict| {
        let config = Retries::default();
        decide(&config, FIRST, verdict, None, &mut budget, now, 0)
    };
    let waits: Vec<_> = std::iter::from_fn(|| match decide(Verdict::Unavailable) {
        Decision::Retry { after, .. } => Some(after.as_millis()),
        Decision::Stop(stop) => {
            assert_eq!(stop, Stop::Budget);
            None
        }
    })
    .collect();
    // 8 % of a hundred a second, and the first at once; the last has to come in 980 ms.
    assert_eq!(waits.len(), 9, "{waits:?}");
    let turns = waits.windows(2).map(|pair| pair[1] - pair[0]);
    assert!(turns.into_iter().all(|turn| (115..126).contains(&turn)));
    assert_eq!(
        decide(Verdict::Unprocessed),
        TRANSPARENTLY,
        "it troubled nobody"
    );
}

#[test]
fn where_all_fail_nobody_stands_in_line_for_a_turn_that_is_far_off() {
    let now = Instant::now();
    let mut budget = Budget::new(BudgetConfig::default(), now);
    let patient = Attempt {
        remaining: Some(Duration::from_secs(15)),
        ..FIRST
    };
    let mut decide = || {
        let config = Retries::default();
        decide(
            &config,
            patient,
            Verdict::Unavailable,
            None,
            &mut budget,
            now,
            u64::MAX,
        )
    };
    // Of a few calls a second, one has a turn in each.
    let (first, second) = (decide(), decide());
    assert!(matches!(first, Decision::Retry { after, .. } if after <= millis(25)));
    assert!(matches!(second, Decision::Retry { after, .. } if after == millis(1000)));
    assert_eq!(decide(), Decision::Stop(Stop::Budget));
    assert!(
        budget.tokens().0 > 7_900,
        "what is not made is not paid for"
    );
}

#[test]
fn only_one_retry_is_transparent_the_next_one_counts_and_waits() {
    let again = Attempt {
        transparent: 1,
        idempotent: false,
        ..FIRST
    };
    let (decision, cost) = decide_with(&Retries::default(), again, Verdict::Unprocessed, None);
    assert!(matches!(decision, Decision::Retry { after, counts: true } if !after.is_zero()));
    assert_eq!(cost, 1000);
    let last = Attempt { number: 2, ..again };
    assert_eq!(stopped(last, Verdict::Unprocessed), Stop::Attempts);
}

#[test]
fn a_request_that_must_not_be_repeated_is_not() {
    let cases = [
        (
            Attempt {
                idempotent: false,
                ..FIRST
            },
            Verdict::Unavailable,
            Stop::NotIdempotent,
        ),
        (
            Attempt {
                committed: true,
                ..FIRST
            },
            Verdict::Unavailable,
            Stop::Committed,
        ),
        (
            Attempt {
                committed: true,
                ..FIRST
            },
            Verdict::Unprocessed,
            Stop::Committed,
        ),
        (
            Attempt {
                replayable: false,
                ..FIRST
            },
            Verdict::Unprocessed,
            Stop::NotReplayable,
        ),
        (
            Attempt {
                is_retry_from_downstream: true,
                ..FIRST
            },
            Verdict::Unavailable,
            Stop::RetryFromDownstream,
        ),
        (FIRST, Verdict::ServerError, Stop::NotConfigured),
        (FIRST, Verdict::Exhausted, Stop::ExhaustedBelow),
        (
            FIRST,
            Verdict::Overloaded { service: true },
            Stop::ServiceOverloaded,
        ),
        (FIRST, Verdict::Final, Stop::Final),
    ];
    for (attempt, verdict, stop) in cases {
        assert_eq!(stopped(attempt, verdict), stop, "{attempt:?} {verdict:?}");
    }
}

#[test]
fn a_retry_from_downstream_may_still_leave_an_endpoint_that_never_saw_it() {
    let from_below = Attempt {
        is_retry_from_downstream: true,
        ..FIRST
    };
    assert_eq!(decision(from_below, Verdict::Unprocessed), TRANSPARENTLY);
    let worked_on = stopped(from_below, Verdict::Unavailable);
    assert_eq!(worked_on, Stop::RetryFromDownstream, "in one layer only");
}

#[test]
fn one_attempt_means_no_retry_of_any_kind() {
    for (verdict, paid) in [(Verdict::Unavailable, FAILURE), (Verdict::Unprocessed, 0)] {
        let (decision, cost) = decide_with(&attempts(1), FIRST, verdict, None);
        assert_eq!((decision, cost), (Decision::Stop(Stop::Attempts), paid));
    }
}

#[test]
fn each_kind_of_failure_is_retried_only_when_the_policy_says_so() {
    let nothing = Retries {
        on: RetryOn {
            unprocessed: false,
            unavailable: false,
            server_error: false,
        },
        ..Retries::default()
    };
    let mut all = nothing.clone();
    all.on = RetryOn {
        unprocessed: true,
        unavailable: true,
        server_error: true,
    };
    for verdict in [
        Verdict::Unprocessed,
        Verdict::Unavailable,
        Verdict::ServerError,
    ] {
        let refused = decide_with(&nothing, FIRST, verdict, None).0;
        assert_eq!(refused, Decision::Stop(Stop::NotConfigured), "{verdict:?}");
        let retried = decide_with(&all, FIRST, verdict, None).0;
        assert!(matches!(retried, Decision::Retry { .. }), "{verdict:?}");
    }
}

#[test]
fn a_retry_that_could_not_end_in_time_is_not_started_and_costs_nothing() {
    for left in [0, 19, 44] {
        let late = Attempt {
            remaining: Some(millis(left)),
            ..FIRST
        };
        let decision = decide_with(&Retries::default(), late, Verdict::Unavailable, None);
        assert_eq!(
            decision,
            (Decision::Stop(Stop::Deadline), FAILURE),
            "{left} ms left"
        );
    }
    let unknown = Attempt {
        remaining: Some(Duration::ZERO),
        typical: Duration::ZERO,
        ..FIRST
    };
    assert_eq!(stopped(unknown, Verdict::Unprocessed), Stop::Deadline);
    let unbounded = Attempt {
        remaining: None,
        ..FIRST
    };
    assert!(matches!(
        decision(unbounded, Verdict::Unavailable),
        Decision::Retry { .. }
    ));
}

#[test]
fn pushback_is_obeyed_exactly_or_not_at_all() {
    let decide = |pushback| {
        decide_with(
            &Retries::default(),
            FIRST,
            Verdict::Unavailable,
            Some(pushback),
        )
        .0
    };
    for (pushback, expected) in [
        (
            Pushback::After(Duration::ZERO),
            Decision::Retry {
                after: Duration::ZERO,
                counts: true,
            },
        ),
        (
            Pushback::After(millis(300)),
            Decision::Retry {
                after: millis(300),
                counts: true,
            },
        ),
        (Pushback::After(millis(990)), Decision::Stop(Stop::Deadline)),
        (
            Pushback::After(Duration::MAX),
            Decision::Stop(Stop::Deadline),
        ),
        (Pushback::Never, Decision::Stop(Stop::Pushback)),
    ] {
        assert_eq!(decide(pushback), expected, "{pushback:?}");
    }
    let patient = Attempt {
        remaining: None,
        ..FIRST
    };
    for (seconds, retried) in [(30, true), (31, false), (86_400, false)] {
        let pushback = Some(Pushback::After(Duration::from_secs(seconds)));
        let decided = decide_with(&Retries::default(), patient, Verdict::Unavailable, pushback);
        let stopped = decided.0 == Decision::Stop(Stop::Pushback);
        assert_eq!(!stopped, retried, "a call without a deadline, {seconds} s");
    }
    let never = Some(Pushback::Never);
    assert_eq!(
        decide_with(&Retries::default(), FIRST, Verdict::Unprocessed, never).0,
        Decision::Stop(Stop::Pushback),
        "also what reached nobody"
    );
}

#[test]
fn an_empty_budget_stops_it() {
    let now = Instant::now();
    let mut budget = Budget::new(BudgetConfig::default(), now);
    for _ in 0..100 {
        assert!(budget.withdraw(TRANSPARENT, now));
    }
    for verdict in [Verdict::Unavailable, Verdict::Unprocessed] {
        let decision = decide(
            &Retries::default(),
            FIRST,
            verdict,
            None,
            &mut budget,
            now,
            0,
        );
        assert_eq!(decision, Decision::Stop(Stop::Budget));
    }
}

#[test]
fn the_backoff_doubles_up_to_its_maximum_with_full_jitter() {
    let config = attempts(5);
    for (number, ceiling) in [(1, 25), (2, 50), (3, 100), (4, 200), (5, 250), (40, 250)] {
        let longest = backoff(&config, number, u64::MAX);
        assert!(
            longest.abs_diff(millis(ceiling)) < millis(1),
            "{number}: {longest:?}"
        );
        assert_eq!(backoff(&config, number, 0), Duration::ZERO);
    }
}

prop_compose! {
    fn any_attempt()(
        number in 1u32..8,
        transparent in 0u32..3,
        idempotent: bool,
        committed in prop::bool::weighted(0.1),
        replayable in prop::bool::weighted(0.9),
        is_retry_from_downstream in prop::bool::weighted(0.1),
        remaining in prop::option::of(0u64..2_000),
        typical in 0u64..200,
        wait_min in prop_oneof![3 => Just(0), 1 => 0u64..3_000],
    ) -> Attempt {
        Attempt {
            number, transparent, idempotent, committed, replayable, is_retry_from_downstream,
            wait_min: millis(wait_min),
            remaining: remaining.map(millis),
            typical: millis(typical),
        }
    }
}

fn any_verdict() -> impl Strategy<Value = Verdict> {
    prop::sample::select(vec![
        Verdict::Unprocessed,
        Verdict::Unavailable,
        Verdict::ServerError,
        Verdict::Overloaded { service: true },
        Verdict::Overloaded { service: false },
        Verdict::Exhausted,
        Verdict::Final,
    ])
}

proptest! {
    /// No retry is ever unsafe, late, unpaid or beyond the limit; and what is not retried costs no more than a failure.
    #[test]
    fn never_repeats_what_must_not_be_and_never_exceeds(
        attempt in any_attempt(),
        verdict in any_verdict(),
        pushback in prop::option::of(prop_oneof![
            Just(Pushback::Never),
            prop_oneof![0u64..3_000, any::<u64>()].prop_map(|ms| Pushback::After(millis(ms))),
        ]),
        attempts_max in 1u32..=5,
        rand: u64,
    ) {
        let now = Instant::now();
        let config = attempts(attempts_max);
        let mut budget = Budget::new(BudgetConfig::default(), now);
        let decision = decide(&config, attempt, verdict, pushback, &mut budget, now, rand);
        let paid = 10_000 - budget.tokens().0;
        let failure = if is_failed_call(attempt, verdict) { FAILURE } else { 0 };
        let Decision::Retry { after, counts } = decision else {
            prop_assert_eq!(paid, failure);
            return Ok(());
        };
        let cheap = !counts && verdict == Verdict::Unprocessed;
        prop_assert_eq!(paid, failure + if cheap { 100 } else { 1000 });
        prop_assert!(!attempt.committed && attempt.replayable && pushback != Some(Pushback::Never));
        let unprocessed = matches!(verdict, Verdict::Unprocessed | Verdict::Overloaded { service: false });
        prop_assert!(attempt.idempotent || unprocessed);
        prop_assert!(!counts || !attempt.is_retry_from_downstream, "in one layer only");
        prop_assert!(unprocessed || matches!(verdict, Verdict::Unavailable));
        prop_assert!(attempts_max > 1 && (!counts || attempt.number < attempts_max));
        prop_assert!(counts || attempt.transparent == 0);
        prop_assert!(attempt.remaining.is_none_or(|left| left >= after + attempt.typical));
        let longest = pushback.map_or(millis(250), |_| PUSHBACK_MAX);
        prop_assert!(after <= longest.max(attempt.wait_min));
        prop_assert!(!counts || after >= attempt.wait_min);
    }

    /// However the attempts of one request fail, there are at most `attempts` plus one of them.
    #[test]
    fn one_request_ends_after_a_bounded_number_of_tries(
        verdicts in prop::collection::vec(any_verdict(), 20),
        attempts_max in 1u32..=5,
        rand: u64,
    ) {
        let now = Instant::now();
        let config = attempts(attempts_max);
        let mut budget = Budget::new(BudgetConfig::default(), now);
        let (mut attempt, mut tries) = (Attempt { remaining: None, ..FIRST }, 1);
        for verdict in verdicts {
            match decide(&config, attempt, verdict, None, &mut budget, now, rand) {
                Decision::Retry { counts: true, .. } => attempt.number += 1,
                Decision::Retry { counts: false, .. } => attempt.transparent += 1,
                Decision::Stop(_) => break,
            }
            tries += 1;
        }
        prop_assert!(tries <= attempts_max + 1);
    }
}
