use super::*;

fn context(start: Instant) -> StallContext {
    StallContext {
        oldest_in_flight_start: Some(start),
        last_completion: None,
        pool_p99: Duration::from_millis(50),
        timeout: Duration::from_secs(1),
        peer_completed_since: true,
    }
}

fn after(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[test]
fn four_p99s_of_silence_are_a_stall() {
    let start = Instant::now();
    assert_eq!(context(start).stalled_for(start + after(200)), None);
    assert_eq!(
        context(start).stalled_for(start + after(201)),
        Some(after(201))
    );
}

#[test]
fn an_answer_starts_the_silence_anew() {
    let start = Instant::now();
    let answered = StallContext {
        last_completion: Some(start + after(150)),
        ..context(start)
    };
    assert_eq!(answered.stalled_for(start + after(350)), None);
    assert!(answered.stalled_for(start + after(351)).is_some());
}

#[test]
fn a_pause_before_the_request_is_no_silence() {
    let start = Instant::now() + after(10_000);
    let after_a_pause = StallContext {
        last_completion: Some(start - after(9_000)),
        ..context(start)
    };
    assert_eq!(after_a_pause.stalled_for(start + after(150)), None);
}

#[test]
fn an_idle_endpoint_never_stalls() {
    let start = Instant::now();
    let idle = StallContext {
        oldest_in_flight_start: None,
        last_completion: Some(start),
        ..context(start)
    };
    assert_eq!(idle.stalled_for(start + after(3_600_000)), None);
}

#[test]
fn silence_everywhere_is_no_stall_of_one() {
    let start = Instant::now();
    let alone = StallContext {
        peer_completed_since: false,
        ..context(start)
    };
    assert_eq!(alone.stalled_for(start + after(10_000)), None);
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
