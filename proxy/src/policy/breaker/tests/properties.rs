//! Whatever happens, in whatever order.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Admit,
    Answer(usize, Duration),
    Finish(usize, Outcome, Duration),
    Lose(usize),
    Force(Force, u64),
    Reload { armed: bool },
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let outcome = prop::sample::select(vec![
        Outcome::Success,
        HARD,
        HARD,
        HASTY,
        Outcome::Failure(Fault::Overload),
        Outcome::Cancelled,
    ]);
    let elapsed = || prop::sample::select(vec![FAST, SLOW]);
    prop_oneof![
        8 => Just(Step::Admit),
        3 => (any::<usize>(), elapsed()).prop_map(|(i, e)| Step::Answer(i, e)),
        8 => (any::<usize>(), outcome, elapsed()).prop_map(|(i, o, e)| Step::Finish(i, o, e)),
        1 => any::<usize>().prop_map(Step::Lose),
        1 => (prop::sample::select(vec![Force::Open, Force::Closed]), 1u64..10)
            .prop_map(|(to, secs)| Step::Force(to, secs)),
        1 => any::<bool>().prop_map(|armed| Step::Reload { armed }),
        1 => (1u64..15).prop_map(Step::Wait),
    ]
}

proptest! {
    /// Whatever happened before, even if tickets were lost or somebody forced it, a call gets through after a bounded wait;
    /// half-open never has more probes than permitted; a stale outcome changes nothing.
    #[test]
    fn never_wedges_and_never_exceeds(
        steps in prop::collection::vec(step(), 0..400),
        rand: u64,
    ) {
        let config = Config { minimum_calls: Count::of(4), ..config() };
        let longest = (*config.open_for * (1 << DOUBLINGS_MAX)).mul_f64(1.0 + JITTER);
        let (mut b, mut now) = (Breaker::new(config), Instant::now());
        let mut in_flight: Vec<Ticket> = Vec::new();
        for step in steps {
            match step {
                Step::Admit => in_flight.extend(b.admit(now, rand)),
                Step::Answer(i, elapsed) if !in_flight.is_empty() => {
                    let place = i % in_flight.len();
                    b.answered(&mut in_flight[place], elapsed);
                }
                Step::Finish(i, outcome, elapsed) if !in_flight.is_empty() => {
                    let ticket = in_flight.swap_remove(i % in_flight.len());
                    let (stale, before) = (ticket.generation != b.generation, b.state);
                    b.record(ticket, outcome, elapsed, now, rand);
                    prop_assert!(!stale || before == b.state, "a stale outcome is no evidence");
                }
                Step::Lose(i) if !in_flight.is_empty() => drop(in_flight.swap_remove(i % in_flight.len())),
                Step::Answer(..) | Step::Finish(..) | Step::Lose(_) => {}
                Step::Reload { armed } => b.reconfigure(armed.then_some(config), now),
                Step::Force(to, secs) => b.force(held(to, now + Duration::from_secs(secs)), now),
                Step::Wait(secs) => now += Duration::from_secs(secs),
            }
            match b.state {
                State::HalfOpen(probes) => {
                    let current = in_flight.iter().filter(|t| t.generation == b.generation).count() as u32;
                    prop_assert!(probes.granted <= config.half_open_calls.get());
                    prop_assert!(current + probes.succeeded + probes.failed <= probes.granted);
                    prop_assert!(probes.going_on + probes.succeeded + probes.failed <= probes.granted);
                }
                State::Open { until } => prop_assert!(until <= now + longest),
                State::Forced(forced) => {
                    let admitted = b.admit(now, rand).is_ok();
                    prop_assert!(admitted == (forced.to == Force::Closed) || !b.is_forced());
                }
                State::Closed => {}
            }
        }
        for ticket in in_flight.drain(..) {
            b.record(ticket, Outcome::Cancelled, FAST, now, rand);
        }
        now += *config.open_for * PROBING_MAX;
        if b.admit(now, rand).is_err() {
            now += longest;
            prop_assert!(b.admit(now, rand).is_ok());
        }
    }

    /// Fast successes and cancelled calls alone never open it.
    #[test]
    fn success_never_opens(outcomes in prop::collection::vec(any::<bool>(), 0..300)) {
        let (mut b, now) = breaker();
        for success in outcomes {
            let outcome = if success { Outcome::Success } else { Outcome::Cancelled };
            call(&mut b, outcome, FAST, now);
        }
        prop_assert_eq!(b.state(), Phase::Closed);
    }
}
