//! Answers that go on for hours.

use super::*;

/// All probes have been let through, and their answers go on.
fn going_on(breaker: &mut Breaker, now: Instant) -> Vec<Ticket> {
    let mut probes: Vec<_> = (0..5)
        .map(|_| breaker.admit(now, MIDDLE).expect("a probe"))
        .collect();
    for probe in &mut probes {
        assert!(probe.is_probe());
        breaker.answered(probe, FAST);
    }
    probes
}

#[test]
fn a_service_all_of_whose_calls_are_streams_is_called_again() {
    let (mut breaker, now) = opened();
    let streams = going_on(&mut breaker, now);
    assert!(breaker.admit(now, MIDDLE).is_err(), "they may fail yet");
    let later = now + *config().open_for * PROBING_MAX;
    let ticket = breaker.admit(later, MIDDLE).expect("it is closed");
    assert_eq!((breaker.state(), ticket.is_probe()), (Phase::Closed, false));
    assert_eq!(
        reasons(&mut breaker).pop().expect("it is told"),
        "half-open to closed: 0 of 5 probes succeeded, 5 are being answered"
    );
    for stream in streams {
        breaker.record(stream, HARD, FAST, later, MIDDLE);
    }
    assert_eq!(breaker.window.totals(later), Counts::default());
}

#[test]
fn streams_that_end_badly_while_it_probes_open_it_again() {
    let (mut breaker, now) = opened();
    for stream in going_on(&mut breaker, now).into_iter().take(2) {
        breaker.record(stream, HARD, FAST, now, MIDDLE);
    }
    assert_eq!(breaker.state(), Phase::Open);
}

#[test]
fn streams_that_are_cancelled_give_their_permits_back() {
    let (mut breaker, now) = opened();
    for _ in 0..100 {
        for stream in going_on(&mut breaker, now) {
            breaker.record(stream, Outcome::Cancelled, FAST, now, MIDDLE);
        }
    }
    let State::HalfOpen(probes) = breaker.state else {
        panic!("{:?}", breaker.state);
    };
    assert_eq!((probes.granted, probes.going_on), (0, 0));
}

#[test]
fn an_answer_that_begins_late_is_no_good_sign() {
    let (mut breaker, now) = opened();
    let mut probes: Vec<_> = (0..5)
        .map(|_| breaker.admit(now, MIDDLE).expect("a probe"))
        .collect();
    for probe in &mut probes {
        breaker.answered(probe, SLOW);
    }
    let later = now + *config().open_for * PROBING_MAX;
    assert!(breaker.admit(later, MIDDLE).is_err());
    assert_eq!(breaker.state(), Phase::Open);
}
