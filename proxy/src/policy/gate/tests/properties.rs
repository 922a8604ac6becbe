//! Whatever happens, in whatever order.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Admit,
    Answer(usize),
    Finish(usize, Outcome),
    FailConnect(usize),
    Lose(usize),
    Stall,
    Probe(ProbeResult),
    Raise(u64),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let outcome = prop::sample::select(vec![
        Outcome::Success,
        Outcome::Success,
        HARD,
        HARD,
        Outcome::Failure(Fault::Overload),
        Outcome::Failure(Fault::Deadline),
        Outcome::Cancelled,
    ]);
    prop_oneof![
        8 => Just(Step::Admit),
        3 => any::<usize>().prop_map(Step::Answer),
        8 => (any::<usize>(), outcome).prop_map(|(i, o)| Step::Finish(i, o)),
        1 => any::<usize>().prop_map(Step::FailConnect),
        1 => any::<usize>().prop_map(Step::Lose),
        1 => Just(Step::Stall),
        4 => prop::sample::select(&[
            ProbeResult::Passed,
            ProbeResult::Failed,
            ProbeResult::Unanswered,
        ]).prop_map(Step::Probe),
        1 => (0u64..100).prop_map(Step::Raise),
        3 => (1u64..12_000).prop_map(Step::Wait),
    ]
}

proptest! {
    /// Whatever happened before, tickets lost included: an endpoint that answers again is closed after a
    /// bounded time. On the way, never more than one request probes, no open time exceeds its maximum, a
    /// stale outcome changes nothing, and a pool that forbids it never sees a passing gate open.
    #[test]
    fn never_wedges_and_never_exceeds(
        steps in prop::collection::vec(step(), 0..300),
        rand: u64,
        may_open: bool,
    ) {
        let (mut gate, mut now) = gate();
        let pool = Pool { success_rate: Some(0.9), may_open };
        let mut in_flight: Vec<Ticket> = Vec::new();
        for step in steps {
            let pick = |i: usize, in_flight: &Vec<Ticket>| i % in_flight.len().max(1);
            match step {
                Step::Admit => in_flight.extend(gate.admit(now)),
                Step::Answer(i) if !in_flight.is_empty() => {
                    gate.answered(&in_flight[pick(i, &in_flight)]);
                }
                Step::Finish(i, outcome) if !in_flight.is_empty() => {
                    let ticket = in_flight.swap_remove(pick(i, &in_flight));
                    let (stale, before) = (ticket.0 != gate.generation, gate.state);
                    gate.record(ticket, outcome, now, rand, pool);
                    prop_assert!(!stale || before == gate.state, "a stale outcome is no evidence");
                }
                Step::FailConnect(i) if !in_flight.is_empty() => {
                    gate.connect_failed(in_flight.swap_remove(pick(i, &in_flight)), now, rand, may_open);
                }
                Step::Lose(i) if !in_flight.is_empty() => {
                    drop(in_flight.swap_remove(pick(i, &in_flight)));
                }
                Step::Answer(_) | Step::Finish(..) | Step::FailConnect(_) | Step::Lose(_) => {}
                Step::Stall => { gate.stalled(now, STALL, may_open, rand); }
                Step::Probe(result) => if gate.wants_probe(now).is_some() {
                    gate.probe_result(result, now, rand);
                },
                Step::Raise(secs) => gate.raise(Duration::from_secs(secs), now),
                Step::Wait(millis) => now += Duration::from_millis(millis),
            }
            match gate.state {
                State::HalfOpen(_) => {
                    let current = in_flight.iter().filter(|t| t.0 == gate.generation).count();
                    prop_assert!(current <= 1, "{current} requests probe");
                }
                State::Open { until, .. } => prop_assert!(until <= now + secs(30)),
                State::Closed | State::Ramping(_) => {}
            }
            prop_assert!(may_open || gate.state == State::Closed);
        }
        now += secs(30);
        if gate.wants_probe(now).is_some() {
            gate.probe_result(ProbeResult::Passed, now, rand);
        }
        for _ in 0..4 {
            if let Some(ticket) = gate.admit(now) {
                gate.record(ticket, Outcome::Success, now, rand, pool);
            }
            now += PROBE_MAX;
            if gate.wants_probe(now).is_some() {
                gate.probe_result(ProbeResult::Passed, now, rand);
            }
        }
        let _ticket = gate.admit(now + RAMP);
        prop_assert_eq!(gate.state(), Phase::Closed);
    }

    /// Opening takes a failure: successes and hang-ups alone never do it.
    #[test]
    fn success_never_opens(outcomes in prop::collection::vec(any::<bool>(), 0..300)) {
        let (mut gate, now) = gate();
        for success in outcomes {
            call(&mut gate, if success { Outcome::Success } else { Outcome::Cancelled }, ALLOWED, now);
        }
        prop_assert_eq!(gate.state(), Phase::Closed);
    }
}
