//! Answers that go on for hours, and connections of which nothing but their beginning is seen.

use super::*;

/// A probe whose answer has begun well and goes on.
fn stream(gate: &mut Gate, now: Instant) -> Ticket {
    assert!(gate.wants_request(true, now));
    let ticket = gate.admit(now).expect("a probe");
    gate.answered(&ticket);
    ticket
}

#[test]
fn an_endpoint_all_of_whose_calls_are_streams_is_taken_back() {
    let (mut gate, mut now) = probing();
    let mut open = Vec::new();
    for _ in 0..PROBE_SUCCESSES {
        open.push(stream(&mut gate, now));
        assert!(gate.admit(now + PROBE_MAX / 2).is_none(), "one at a time");
        now += PROBE_MAX;
        assert_eq!(gate.wants_probe(now), None);
    }
    assert_eq!(gate.state(), Phase::Ramping);
    // They end at last, and with them the app that they were sent to before.
    for ticket in open {
        gate.record(ticket, HARD, now, MIDDLE, ALLOWED);
    }
    assert_eq!(gate.counts(now), Counts::default());
    assert_eq!(gate.state(), Phase::Ramping);
}

#[test]
fn a_stream_that_ends_badly_before_it_has_lasted_is_a_probe_that_failed() {
    let (mut gate, now) = probing();
    let ticket = stream(&mut gate, now);
    let soon = now + PROBE_MAX / 2;
    gate.record(ticket, HARD, soon, MIDDLE, ALLOWED);
    assert_eq!(gate.state(), Phase::Open);
}

#[test]
fn an_answer_to_a_call_from_before_the_opening_is_no_stream_that_probes() {
    let (mut gate, now) = gate();
    let early = gate.admit(now).expect("closed");
    for _ in 0..5 {
        call(&mut gate, HARD, ALLOWED, now);
    }
    let later = now + secs(1);
    assert!(gate.wants_probe(later).is_some());
    gate.probe_result(ProbeResult::Passed, later, MIDDLE);
    let _silent = gate.admit(later).expect("a probe");
    gate.answered(&early);
    assert_eq!(gate.wants_probe(later + PROBE_MAX), None);
    assert!(
        gate.wants_request(true, later + PROBE_MAX),
        "the probe is lost, and has not succeeded"
    );
    let State::HalfOpen(probing) = gate.state else {
        panic!("{:?}", gate.state);
    };
    assert_eq!(probing.succeeded, 0);
}
