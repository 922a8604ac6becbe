use super::doubt::OTHERS_MAX;
use super::*;
use crate::policy::gate::ProbeKind;

fn context(start: Instant) -> StallContext {
    StallContext {
        oldest_in_flight_start: Some(start),
        last_completion: None,
        pool_p99: Duration::from_millis(50),
        timeout: Duration::from_secs(1),
        peer_completed_since: true,
        telling_start: None,
    }
}

fn after(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[test]
fn four_p99s_of_silence_are_a_stall() {
    let start = Instant::now();
    assert_eq!(context(start).stall(start + after(200)), None);
    let stall = Stall {
        quiet_for: after(201),
        limit: after(200),
    };
    assert_eq!(context(start).stall(start + after(201)), Some(stall));
}

#[test]
fn an_answer_starts_the_silence_anew() {
    let start = Instant::now();
    let answered = StallContext {
        last_completion: Some(start + after(150)),
        ..context(start)
    };
    assert_eq!(answered.stall(start + after(350)), None);
    assert!(answered.stall(start + after(351)).is_some());
}

#[test]
fn a_pause_before_the_request_is_no_silence() {
    let start = Instant::now() + after(10_000);
    let after_a_pause = StallContext {
        last_completion: Some(start - after(9_000)),
        ..context(start)
    };
    assert_eq!(after_a_pause.stall(start + after(150)), None);
}

#[test]
fn an_idle_endpoint_never_stalls() {
    let start = Instant::now();
    let idle = StallContext {
        oldest_in_flight_start: None,
        last_completion: Some(start),
        ..context(start)
    };
    assert_eq!(idle.stall(start + after(3_600_000)), None);
}

#[test]
fn silence_everywhere_is_no_stall_of_one() {
    let start = Instant::now();
    let alone = StallContext {
        peer_completed_since: false,
        ..context(start)
    };
    assert_eq!(alone.stall(start + after(10_000)), None);
}

#[test]
fn three_that_wait_for_a_p99_each_are_proof_and_fewer_are_none() {
    let start = Instant::now();
    let with_third = |third| StallContext {
        telling_start: Some(third),
        ..context(start)
    };
    let now = start + after(201);
    assert!(!context(start).is_telling(now), "they are two");
    assert!(!with_third(now - after(50)).is_telling(now));
    assert!(with_third(now - after(51)).is_telling(now));
}

#[test]
fn the_limit_is_neither_shorter_than_a_pause_nor_longer_than_the_timeout() {
    let start = Instant::now();
    for (p99, timeout, limit) in [
        (1, 1000, 100),
        (50, 1000, 200),
        (900, 1000, 750),
        (1, 40, 30),
    ] {
        let context = StallContext {
            pool_p99: after(p99),
            timeout: after(timeout),
            ..context(start)
        };
        assert_eq!(
            context.limit(),
            after(limit),
            "p99 {p99} ms, timeout {timeout} ms"
        );
    }
}

#[test]
fn an_endpoint_in_doubt_is_asked_after_a_third_of_the_limit_and_has_half_the_limit_and_all_of_it_to_answer()
 {
    let (start, limit) = (Instant::now(), after(200));
    assert!(Doubt::of(&context(start), start + after(66)).is_none());
    let late = start + after(151);
    for (asked, over) in [(start + after(67), start + limit), (late, late + limit / 2)] {
        let mut doubt = Doubt::of(&context(start), asked).expect("a third");
        let others_last = Some(start + after(1));
        let stall = |mut doubt: Doubt, now| doubt.stall(limit, others_last, now);
        assert_eq!(stall(doubt, asked + limit * 9), None, "not asked yet");
        assert_eq!(doubt.asks(asked), Some(ProbeKind::Doubt));
        assert_eq!(doubt.stall(limit, Some(start), asked), None, "not yet");
        assert_eq!(stall(doubt, over), None);
        let over = over + after(1);
        let quiet_for = over - start;
        assert_eq!(stall(doubt, over), Some(Stall { quiet_for, limit }));
        assert_eq!(doubt.stall(limit, Some(start), over), None, "all are quiet");
        assert_eq!(doubt.stall(limit, None, over), None, "alone");
    }
}

/// Whoever calls one after the other waits for the one that hangs, and nobody answers him meanwhile.
#[test]
fn others_are_asked_where_none_has_answered_since_and_few_of_those() {
    let (start, limit) = (Instant::now(), after(200));
    let others_last = Some(start);
    let silent = || {
        let mut doubt = Doubt::of(&context(start), start + after(67)).expect("a third");
        assert_eq!(doubt.asks(start + after(67)), Some(ProbeKind::Doubt));
        doubt
    };
    let mut doubt = silent();
    for _ in 0..OTHERS_MAX {
        assert_eq!(doubt.asks(start + limit), Some(ProbeKind::Comparison));
    }
    assert_eq!(doubt.asks(start + limit), None, "nobody answers");
    let over = start + limit + after(1);
    assert_eq!(doubt.stall(limit, others_last, over), None);
    doubt.compared();
    assert!(doubt.stall(limit, others_last, over).is_some());

    let mut doubt = silent();
    let answered = Some(start + after(68));
    assert_eq!(doubt.stall(limit, answered, start + after(100)), None);
    assert_eq!(doubt.asks(start + after(100)), None, "it can be compared");
}

#[test]
fn an_answer_to_a_call_settles_the_doubt() {
    let start = Instant::now();
    let doubt = Doubt::of(&context(start), start + after(67)).expect("a third");
    assert!(!doubt.is_settled(None));
    assert!(!doubt.is_settled(Some(start)));
    assert!(doubt.is_settled(Some(start + after(1))));
}
