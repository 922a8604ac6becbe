mod properties;
mod released;
mod streams;

use super::backoff::CONNECT_OPEN_MAX;
use super::probing::{PROBE_MAX, RETRY_SAFE_WAIT};
use super::*;

const HARD: Outcome = Outcome::Failure(Fault::Hard);
const RAMP: Duration = Duration::from_secs(10);
const MIDDLE: u64 = u64::MAX / 2; // no jitter
const ALLOWED: Pool = Pool {
    success_rate: Some(1.0),
    may_open: true,
};
const ALONE: Pool = Pool {
    success_rate: Some(0.0),
    may_open: false,
};

fn gate() -> (Gate, Instant) {
    (Gate::new(Config::default(), RAMP), Instant::now())
}

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn call(gate: &mut Gate, outcome: Outcome, pool: Pool, now: Instant) {
    let ticket = gate.admit(now).expect("admitted");
    gate.record(ticket, outcome, now, MIDDLE, pool);
}

/// Open since `now`.
fn opened() -> (Gate, Instant) {
    let (mut gate, now) = gate();
    for _ in 0..5 {
        call(&mut gate, HARD, ALLOWED, now);
    }
    assert_eq!(gate.state(), Phase::Open);
    (gate, now)
}

/// Half-open, its synthetic probe passed.
fn probing() -> (Gate, Instant) {
    let (mut gate, mut now) = opened();
    now += open_for(&gate, now);
    assert_eq!(gate.wants_probe(now), Some(ProbeKind::Connect));
    gate.probe_result(ProbeResult::Passed, now, MIDDLE);
    (gate, now)
}

fn open_for(gate: &Gate, now: Instant) -> Duration {
    gate.open_until().expect("open") - now
}

fn about(a: Duration, b: Duration) -> bool {
    a.abs_diff(b) < Duration::from_millis(1)
}

const STALL: Stall = Stall {
    quiet_for: secs(1),
    limit: Duration::from_millis(120),
};

fn reasons(gate: &mut Gate) -> Vec<String> {
    std::iter::from_fn(|| gate.take_transition())
        .map(|t| format!("{} to {}: {}", t.from, t.to, t.reason))
        .collect()
}

#[test]
fn five_hard_failures_in_a_row_open_it_for_a_second() {
    let (mut gate, now) = gate();
    for _ in 0..4 {
        call(&mut gate, HARD, ALLOWED, now);
    }
    call(&mut gate, Outcome::Success, ALLOWED, now);
    for _ in 0..4 {
        call(&mut gate, HARD, Pool::default(), now);
    }
    assert_eq!(gate.state(), Phase::Closed, "a success ends the row");
    call(&mut gate, HARD, ALLOWED, now);
    assert!(gate.admit(now).is_none());
    assert!(!gate.is_eligible());
    assert!(about(open_for(&gate, now), secs(1)));
    assert_eq!(
        reasons(&mut gate),
        ["closed to open: 5 hard failures in a row"]
    );
    assert_eq!(gate.take_transition(), None, "reported once");
}

#[test]
fn overload_hasty_callers_and_hang_ups_never_open_it() {
    let (mut gate, now) = gate();
    for fault in [Fault::Overload, Fault::Deadline] {
        for _ in 0..100 {
            call(&mut gate, Outcome::Failure(fault), ALLOWED, now);
            call(&mut gate, Outcome::Cancelled, ALLOWED, now);
        }
    }
    assert_eq!(gate.state(), Phase::Closed);
    assert_eq!(gate.counts(now), Counts::default());
}

#[test]
fn an_endpoint_clearly_worse_than_its_pool_opens_and_one_that_fails_like_all_does_not() {
    for (pool_rate, then) in [(0.95, Phase::Open), (0.70, Phase::Closed)] {
        let (mut gate, now) = gate();
        let pool = Pool {
            success_rate: Some(pool_rate),
            may_open: true,
        };
        for outcome in [Outcome::Success, HARD].repeat(20) {
            if let Some(ticket) = gate.admit(now) {
                gate.record(ticket, outcome, now, MIDDLE, pool);
            }
        }
        assert_eq!(gate.state(), then, "pool at {pool_rate}");
    }
}

#[test]
fn a_bad_rate_of_few_calls_is_chance() {
    let (mut gate, now) = gate();
    for _ in 0..4 {
        call(&mut gate, Outcome::Success, ALLOWED, now);
        call(&mut gate, HARD, ALLOWED, now);
    }
    call(&mut gate, HARD, ALLOWED, now);
    assert_eq!(gate.state(), Phase::Closed, "nine calls");
    call(&mut gate, HARD, ALLOWED, now);
    assert_eq!(gate.state(), Phase::Open, "ten calls, 40 % succeeded");
}

#[test]
fn a_stall_opens_it_before_anything_has_failed() {
    let (mut gate, now) = gate();
    let _hanging = gate.admit(now);
    assert!(gate.stalled(now, STALL, true, MIDDLE));
    assert_eq!(
        reasons(&mut gate),
        ["closed to open: no answer for 1000 ms while other endpoints answered"]
    );
    assert!(
        !gate.stalled(now, STALL, true, MIDDLE),
        "it is open already"
    );
}

#[test]
fn one_failed_connect_opens_it_with_a_backoff_of_its_own() {
    let (mut gate, mut now) = gate();
    let mut waits = Vec::new();
    let ticket = gate.admit(now).expect("closed");
    gate.connect_failed(ticket, now, MIDDLE, true);
    for _ in 0..9 {
        waits.push(open_for(&gate, now));
        now += open_for(&gate, now);
        assert!(gate.wants_probe(now).is_some());
        gate.probe_result(ProbeResult::Failed, now, MIDDLE);
    }
    assert!(about(waits[0], Duration::from_millis(100)));
    assert!(about(waits[1], Duration::from_millis(200)));
    assert!(
        waits[8] <= CONNECT_OPEN_MAX && waits[8] > secs(8),
        "{waits:?}"
    );
}

#[test]
fn the_open_time_doubles_up_to_its_maximum_whatever_the_jitter() {
    for (rand, first) in [(0, 800), (MIDDLE, 1000), (u64::MAX, 1200)] {
        let (mut gate, mut now) = gate();
        for _ in 0..5 {
            let ticket = gate.admit(now).expect("closed");
            gate.record(ticket, HARD, now, rand, ALLOWED);
        }
        assert!(about(open_for(&gate, now), Duration::from_millis(first)));
        let mut last = Duration::ZERO;
        for _ in 0..20 {
            let wait = open_for(&gate, now);
            assert!(wait >= last && wait <= *Config::default().max_open_for);
            last = wait;
            now += wait;
            assert!(gate.wants_probe(now).is_some());
            gate.probe_result(ProbeResult::Failed, now, rand);
        }
        assert!(last >= secs(20), "{last:?}");
    }
}

#[test]
fn health_forgives_doublings() {
    for (healthy, expected) in [(0, 2), (30, 1)] {
        let (mut gate, mut now) = probing();
        for _ in 0..3 {
            call(&mut gate, Outcome::Success, ALLOWED, now);
        }
        now += secs(healthy);
        for _ in 0..5 {
            call(&mut gate, HARD, ALLOWED, now);
        }
        assert!(
            about(open_for(&gate, now), secs(expected)),
            "{healthy} s healthy"
        );
    }
}

#[test]
fn retry_after_keeps_it_open_for_longer_but_not_for_ever() {
    let (mut gate, now) = opened();
    gate.raise(Duration::from_millis(1), now);
    assert!(about(open_for(&gate, now), secs(1)), "it never shortens");
    gate.raise(secs(7), now);
    assert_eq!(open_for(&gate, now), secs(7));
    gate.raise(secs(86_400), now);
    assert_eq!(open_for(&gate, now), RETRY_AFTER_MAX);
}

#[test]
fn a_black_hole_costs_no_user_request_once_it_is_open() {
    let (mut gate, mut now) = opened();
    for _ in 0..10 {
        now += open_for(&gate, now);
        assert!(gate.admit(now).is_none(), "the synthetic probe comes first");
        assert!(!gate.wants_request(true, now));
        assert_eq!(gate.wants_probe(now), Some(ProbeKind::Connect));
        assert_eq!(gate.wants_probe(now), None, "handed out once");
        assert!(gate.admit(now).is_none(), "and must have passed");
        gate.probe_result(ProbeResult::Failed, now, MIDDLE);
        assert_eq!(gate.state(), Phase::Open);
    }
}

#[test]
fn a_silent_one_is_asked_before_a_request_tries_it_and_not_for_ever() {
    let (mut gate, mut now) = gate();
    assert!(gate.stalled(now, STALL, true, MIDDLE));
    for _ in 1..QUESTIONS {
        now += open_for(&gate, now);
        assert_eq!(gate.wants_probe(now), Some(ProbeKind::Question));
        gate.probe_result(ProbeResult::Unanswered, now, MIDDLE);
        assert_eq!(gate.state(), Phase::Open);
        assert!(!gate.wants_request(true, now));
    }
    now += open_for(&gate, now);
    assert_eq!(gate.wants_probe(now), Some(ProbeKind::Question));
    gate.probe_result(ProbeResult::Unanswered, now, MIDDLE);
    assert!(
        gate.wants_request(true, now),
        "it may be awake and not know the question"
    );

    let probe = gate.admit(now).expect("a probe");
    now += secs(1);
    assert!(gate.stalled(now, STALL, true, MIDDLE), "it was not");
    gate.record(probe, Outcome::Cancelled, now, MIDDLE, ALLOWED);
    now += open_for(&gate, now);
    assert_eq!(
        gate.wants_probe(now),
        Some(ProbeKind::Question),
        "and again"
    );
    gate.probe_result(ProbeResult::Unanswered, now, MIDDLE);
    assert_eq!(gate.state(), Phase::Open, "it is counted anew");
    now += open_for(&gate, now);
    assert_eq!(gate.wants_probe(now), Some(ProbeKind::Question));
    gate.probe_result(ProbeResult::Passed, now, MIDDLE);
    assert!(gate.wants_request(true, now), "awake");
}

#[test]
fn three_requests_one_at_a_time_bring_it_back_over_a_ramp() {
    let (mut gate, now) = probing();
    for _ in 0..3 {
        assert!(gate.wants_request(true, now));
        let probe = gate.admit(now).expect("a probe");
        assert!(gate.admit(now).is_none(), "one at a time");
        assert!(!gate.wants_request(true, now));
        gate.record(probe, Outcome::Success, now, MIDDLE, ALLOWED);
    }
    assert_eq!(gate.state(), Phase::Ramping);
    assert_eq!(gate.weight(now), 0.1);
    assert_eq!(gate.weight(now + secs(5)), 0.5);
    assert_eq!(
        gate.counts(now),
        Counts::default(),
        "what it did before is forgiven"
    );
    let _admitted = gate.admit(now + RAMP);
    assert_eq!(gate.state(), Phase::Closed);
    assert_eq!(gate.weight(now + RAMP), 1.0);
    assert_eq!(
        reasons(&mut gate)[1..],
        [
            "open to half-open: the open time is over",
            "half-open to ramping: 3 probes succeeded",
            "ramping to closed: the ramp is over"
        ]
    );
}

#[test]
fn a_failed_overloaded_or_stalled_probe_opens_it_for_twice_as_long() {
    for how in ["hard", "overload", "connect", "stall"] {
        let (mut gate, mut now) = probing();
        let probe = gate.admit(now).expect("a probe");
        match how {
            "hard" => gate.record(probe, HARD, now, MIDDLE, ALONE),
            "overload" => {
                gate.record(probe, Outcome::Failure(Fault::Overload), now, MIDDLE, ALONE);
            }
            "connect" => gate.connect_failed(probe, now, MIDDLE, false),
            _ => {
                now += secs(1);
                assert!(gate.stalled(now, STALL, false, MIDDLE));
            }
        }
        assert!(about(open_for(&gate, now), secs(2)), "{how}");
    }
}

/// A call that may not be repeated waits on when its endpoint is ejected: nobody was sent there meanwhile, so nobody was
/// answered, and each probe was cut off at the next look, until that call had ended.
#[test]
fn a_probe_has_as_long_as_any_call_however_long_others_have_waited() {
    let (mut gate, now) = probing();
    let probe = gate.admit(now).expect("a probe");
    let limit = STALL.limit;
    assert!(!gate.stalled(now + limit, STALL, true, MIDDLE));
    assert_eq!(gate.state(), Phase::HalfOpen);
    gate.answered(&probe);
    let later = now + secs(5);
    assert!(!gate.stalled(later, STALL, true, MIDDLE), "it is a stream");
}

/// It answered 503 and then hung: connected to, it seemed to be well, and each time a user's request found out.
#[test]
fn an_endpoint_whose_probe_hung_is_asked_something_before_the_next() {
    let (mut gate, mut now) = probing();
    let _probe = gate.admit(now).expect("a probe");
    now += secs(1);
    assert!(gate.stalled(now, STALL, true, MIDDLE));
    now += open_for(&gate, now);
    assert_eq!(gate.wants_probe(now), Some(ProbeKind::Question));
}

#[test]
fn a_cancelled_probe_gives_its_place_back() {
    let (mut gate, now) = probing();
    for outcome in [Outcome::Cancelled, Outcome::Failure(Fault::Deadline)].repeat(100) {
        call(&mut gate, outcome, ALLOWED, now);
    }
    assert_eq!(gate.state(), Phase::HalfOpen);
    assert!(gate.wants_request(true, now));
}

#[test]
fn a_probe_that_is_never_heard_of_again_is_replaced_and_no_longer_counts() {
    let (mut gate, now) = probing();
    let lost = gate.admit(now).expect("a probe");
    let later = now + PROBE_MAX;
    assert!(gate.admit(later - secs(1)).is_none());
    let _replacement = gate.admit(later).expect("another");
    gate.record(lost, HARD, later, MIDDLE, ALLOWED);
    assert_eq!(gate.state(), Phase::HalfOpen);

    let (mut gate, now) = opened();
    let later = now + secs(1);
    assert!(gate.wants_probe(later).is_some());
    assert!(gate.wants_probe(later + secs(9)).is_none());
    assert!(
        gate.wants_probe(later + PROBE_MAX).is_some(),
        "a lost synthetic probe too"
    );
}

#[test]
fn requests_that_cannot_be_retried_are_probes_only_when_no_other_comes() {
    let (gate, now) = probing();
    assert!(gate.wants_request(true, now));
    assert!(!gate.wants_request(false, now));
    assert!(gate.wants_request(false, now + RETRY_SAFE_WAIT));
}

#[test]
fn the_only_endpoint_never_opens_and_says_so_once() {
    let (mut gate, now) = gate();
    for _ in 0..1000 {
        call(&mut gate, HARD, ALONE, now);
    }
    let ticket = gate.admit(now).expect("still closed");
    gate.connect_failed(ticket, now, MIDDLE, false);
    assert!(!gate.stalled(now, STALL, false, MIDDLE));
    let report = gate.take_transition().expect("reported");
    assert!(!report.enforced);
    assert_eq!(report.reason, "5 hard failures in a row");
    assert_eq!(gate.take_transition(), None, "not a thousand times");
    call(&mut gate, HARD, ALLOWED, now);
    assert_eq!(gate.state(), Phase::Open, "until another endpoint is there");
}

#[test]
fn calls_from_before_the_opening_are_no_evidence() {
    let (mut gate, now) = gate();
    let early: Vec<_> = (0..6).map(|_| gate.admit(now).expect("closed")).collect();
    for _ in 0..5 {
        call(&mut gate, HARD, ALLOWED, now);
    }
    let later = now + secs(1);
    assert!(gate.wants_probe(later).is_some());
    gate.probe_result(ProbeResult::Passed, later, MIDDLE);
    let probe = gate.admit(later).expect("a probe");
    for ticket in early {
        gate.record(ticket, HARD, later, MIDDLE, ALLOWED);
    }
    gate.record(gate.admit_regardless(), HARD, later, MIDDLE, ALLOWED);
    assert_eq!(gate.state(), Phase::HalfOpen);
    gate.record(probe, Outcome::Success, later, MIDDLE, ALLOWED);
    assert!(gate.wants_request(true, later));
}

#[test]
fn a_new_policy_keeps_it_open_but_not_beyond_its_own_maximum() {
    let (mut gate, now) = opened();
    gate.raise(secs(30), now);
    let config = Config {
        max_open_for: weir_config::units::Duration::from_secs(3),
        ..Config::default()
    };
    gate.reconfigure(config, RAMP, now);
    assert_eq!(open_for(&gate, now), secs(3));
}
