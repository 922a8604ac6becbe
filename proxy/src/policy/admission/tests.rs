use proptest::prelude::*;

use super::*;

const SHORT: Duration = Duration::from_millis(1);

fn config(limit: u32, queue: u32) -> Config {
    Config {
        in_flight_max: 1000,
        streams_max: 2,
        queue_length_max: queue,
        wait_max: Duration::from_millis(100),
        adaptive: Bounds {
            min: limit,
            max: limit,
        },
        enforced: true,
    }
}

fn from(caller: u64, tier: Tier) -> Arrival {
    Arrival {
        priority: Priority { tier, cohort: 0 },
        caller,
        patience: None,
        stream: false,
    }
}

fn admitted(entry: Entry) -> Place {
    match entry {
        Entry::Admitted(place) => place,
        other => panic!("expected to get in, was {other:?}"),
    }
}

fn decided(admission: &mut Admission<u32>) -> Vec<(u32, Result<Place, Reason>)> {
    let decisions = admission.take_decisions();
    decisions
        .into_iter()
        .map(|decision| (decision.who, decision.verdict))
        .collect()
}

#[test]
fn there_is_room_or_one_waits_or_one_is_shed() {
    let now = Instant::now();
    let mut admission = Admission::new(config(1, 1), now);
    let first = admitted(admission.arrive(from(1, Tier::Default), now, || 1));
    let second = admission.arrive(from(1, Tier::Default), now, || 2);
    assert!(
        matches!(second, Entry::Queued { until, .. } if until == now + Duration::from_millis(100))
    );
    assert_eq!(
        admission.arrive(from(1, Tier::Default), now, || 3),
        Entry::Shed(Reason::QueueFull)
    );
    admission.leave(first, SHORT, Ended::Answered, now + SHORT);
    let decisions = decided(&mut admission);
    assert!(matches!(decisions[..], [(2, Ok(_))]), "{decisions:?}");
    assert_eq!((admission.in_flight(), admission.queued()), (1, 0));
    let counts = admission.counts();
    assert_eq!((counts.offered, counts.admitted, counts.waited), (3, 2, 1));
    assert_eq!(
        counts.shed[Tier::Default.index()][Reason::QueueFull as usize],
        1
    );
}

#[test]
fn what_matters_finds_a_place_once_it_has_had_to_wait_for_what_does_not() {
    let now = Instant::now();
    let mut admission = Admission::new(config(4, 9), now);
    let arrive =
        |admission: &mut Admission<u32>, tier, who| admission.arrive(from(1, tier), now, || who);
    let flood: Vec<Place> = (0..4)
        .map(|who| admitted(arrive(&mut admission, Tier::Sheddable, who)))
        .collect();
    for who in 10..14 {
        let waits = arrive(&mut admission, Tier::Critical, who);
        assert!(matches!(waits, Entry::Queued { .. }));
    }
    for place in flood {
        admission.leave(place, SHORT, Ended::Answered, now);
    }
    let mut inside: Vec<Place> = decided(&mut admission)
        .into_iter()
        .map(|(_, verdict)| verdict.expect("their turn"))
        .collect();
    assert!(matches!(
        arrive(&mut admission, Tier::Sheddable, 5),
        Entry::Queued { .. }
    ));
    let first = inside.pop().expect("four are in");
    admission.leave(first, SHORT, Ended::Answered, now);
    assert!(decided(&mut admission).is_empty(), "the place is kept");
    let _in = admitted(arrive(&mut admission, Tier::Critical, 14));
    for place in inside {
        admission.leave(place, SHORT, Ended::Answered, now);
    }
    let decisions = decided(&mut admission);
    assert!(matches!(decisions[..], [(5, Ok(_))]), "nobody starves");
}

/// How many of a flood are in at once, in the end, beside one critical request after the other, which take so long with so many.
fn beside(admission: &mut Admission<u32>, now: &mut Instant, takes: fn(usize) -> u64) -> usize {
    let mut beside = 0;
    for _ in 0..1000 {
        let critical = admitted(admission.arrive(from(1, Tier::Critical), *now, || 0));
        let mut flood = Vec::new();
        while let Entry::Admitted(place) = admission.arrive(from(2, Tier::Sheddable), *now, || 0) {
            flood.push(place);
        }
        beside = flood.len();
        let latency = Duration::from_millis(takes(beside));
        *now += latency;
        admission.leave(critical, latency, Ended::Answered, *now);
        for place in flood {
            admission.leave(place, latency, Ended::Answered, *now);
        }
    }
    beside
}

/// One that knows that a critical request takes 10 ms.
fn calm(now: &mut Instant) -> Admission<u32> {
    let mut admission = Admission::new(config(8, 0), *now);
    for _ in 0..200 {
        let place = admitted(admission.arrive(from(1, Tier::Critical), *now, || 0));
        *now += 10 * SHORT;
        admission.leave(place, 10 * SHORT, Ended::Answered, *now);
    }
    admission
}

/// It shared the app with as many as the limit lets in, and took twice as long: the limit is where throughput is.
#[test]
fn what_matters_is_not_slowed_in_the_app_by_a_flood_of_what_does_not() {
    let mut now = Instant::now();
    let mut admission = calm(&mut now);
    assert_eq!(beside(&mut admission, &mut now, |_| 10), 7);
    // Four cores: the fifth slows all by a quarter.
    let four_cores = |beside| 10 * (1 + beside as u64).max(4) / 4;
    let found = beside(&mut admission, &mut now, four_cores);
    assert!((3..=5).contains(&found), "{found}");
    assert_eq!(beside(&mut admission, &mut now, |_| 10), 7);
}

/// The others would have been kept out for as long as they come.
#[test]
fn what_matters_and_is_slow_by_itself_keeps_nobody_out() {
    let mut now = Instant::now();
    let mut admission = calm(&mut now);
    assert_eq!(beside(&mut admission, &mut now, |_| 40), 7);
}

#[test]
fn nobody_waits_longer_than_its_caller_does() {
    let now = Instant::now();
    let mut admission = Admission::new(config(1, 9), now);
    let _first = admitted(admission.arrive(from(1, Tier::Default), now, || 1));
    let hurried = |millis| Arrival {
        patience: Some(Duration::from_millis(millis)),
        ..from(1, Tier::Default)
    };
    let waits = admission.arrive(hurried(30), now, || 2);
    assert!(
        matches!(waits, Entry::Queued { until, .. } if until == now + Duration::from_millis(30))
    );
    assert_eq!(
        admission.arrive(hurried(0), now, || 3),
        Entry::Shed(Reason::Deadline)
    );
}

#[test]
fn who_matters_more_takes_the_place_of_who_matters_less_in_a_full_queue() {
    let now = Instant::now();
    let mut admission = Admission::new(config(1, 1), now);
    let first = admitted(admission.arrive(from(1, Tier::Default), now, || 1));
    admission.arrive(from(1, Tier::Sheddable), now, || 2);
    let critical = admission.arrive(from(1, Tier::Critical), now, || 3);
    assert!(matches!(critical, Entry::Queued { .. }));
    assert_eq!(decided(&mut admission), [(2, Err(Reason::QueueFull))]);
    admission.leave(first, SHORT, Ended::Answered, now + SHORT);
    assert!(matches!(decided(&mut admission)[..], [(3, Ok(_))]));
}

#[test]
fn streams_are_counted_apart_and_have_a_cap_of_their_own() {
    let now = Instant::now();
    let mut admission = Admission::new(config(1, 0), now);
    let stream = Arrival {
        stream: true,
        ..from(1, Tier::Default)
    };
    let one = admitted(admission.arrive(stream, now, || 1));
    let late = admitted(admission.arrive(from(1, Tier::Default), now, || 2));
    assert_eq!((admission.in_flight(), admission.streams()), (1, 1));
    admission.is_stream(late, now);
    assert_eq!((admission.in_flight(), admission.streams()), (0, 2));
    assert_eq!(
        admission.arrive(stream, now, || 3),
        Entry::Shed(Reason::Streams)
    );
    // A third that turns out to be one stays where it was: the limit of streams is none of requests.
    let third = admitted(admission.arrive(from(1, Tier::Default), now, || 4));
    admission.is_stream(third, now);
    assert_eq!((admission.in_flight(), admission.streams()), (1, 2));
    for place in [one, late, third] {
        admission.leave(place, SHORT, Ended::Answered, now);
    }
    assert_eq!((admission.in_flight(), admission.streams()), (0, 0));
}

#[test]
fn a_long_poll_is_found_out_while_others_are_answered_and_a_hung_app_is_not() {
    let start = Instant::now();
    let mut admission = Admission::new(config(10, 0), start);
    let _long = admitted(admission.arrive(from(1, Tier::Default), start, || 0));
    let hung_until = start + Duration::from_secs(3);
    let place = admitted(admission.arrive(from(1, Tier::Default), hung_until, || 0));
    assert_eq!(admission.streams(), 0, "nobody is answered: it hangs");
    admission.leave(place, SHORT, Ended::Answered, hung_until + SHORT);
    for millis in 0..2000 {
        let now = hung_until + SHORT * millis;
        let place = admitted(admission.arrive(from(1, Tier::Default), now, || 0));
        admission.leave(place, SHORT, Ended::Answered, now + SHORT);
    }
    assert_eq!((admission.in_flight(), admission.streams()), (0, 1));
}

/// Readers that stood still held all places of an app that was well, and nobody else got one: nothing completed, so none of
/// them was found out.
#[test]
fn who_is_answered_and_does_not_read_gives_the_place_to_others() {
    let start = Instant::now();
    let mut admission = Admission::new(config(2, 1), start);
    for _ in 0..2 {
        let place = admitted(admission.arrive(from(1, Tier::Default), start, || 0));
        admission.is_answered(place);
    }
    let later = start + Duration::from_secs(2);
    let _third = admitted(admission.arrive(from(2, Tier::Default), later, || 0));
    assert_eq!((admission.in_flight(), admission.streams()), (1, 2));
}

/// After one of an hour its caller seemed to want a thousand places, and came last for hundreds of requests.
#[test]
fn the_life_of_a_stream_is_not_what_a_request_of_its_caller_takes() {
    let now = Instant::now();
    let mut admission = Admission::new(config(10, 0), now);
    let stream = Arrival {
        stream: true,
        ..from(1, Tier::Default)
    };
    let hour = Duration::from_secs(3600);
    let place = admitted(admission.arrive(stream, now, || 0));
    admission.leave(place, hour, Ended::Answered, now + hour);
    let place = admitted(admission.arrive(from(1, Tier::Default), now + hour, || 0));
    let caller = admission.places.give_back(place).caller;
    assert_eq!(admission.callers.get(caller).cost(), Duration::ZERO);
}

/// Planted: nobody is let in when a long poll makes room.
#[test]
fn who_waits_gets_the_place_of_a_long_poll_that_was_found_out() {
    let start = Instant::now();
    let mut admission = Admission::new(config(2, 1), start);
    let _long = admitted(admission.arrive(from(1, Tier::Default), start, || 0));
    for millis in 1..950 {
        let now = start + SHORT * millis;
        let place = admitted(admission.arrive(from(1, Tier::Default), now, || 0));
        admission.leave(place, SHORT, Ended::Answered, now);
    }
    let _other = admitted(admission.arrive(from(1, Tier::Default), start + SHORT * 960, || 0));
    let waits = admission.arrive(from(1, Tier::Default), start + SHORT * 970, || 7);
    assert!(matches!(waits, Entry::Queued { .. }));
    // Anybody who comes makes it look: here a stream, which itself takes no place.
    let stream = Arrival {
        stream: true,
        ..from(2, Tier::Default)
    };
    let _stream = admitted(admission.arrive(stream, start + SHORT * 1060, || 0));
    assert_eq!(admission.streams(), 2);
    assert!(matches!(decided(&mut admission)[..], [(7, Ok(_))]));
}

#[test]
fn observing_lets_everybody_in_and_counts_whom_it_would_not_have() {
    let now = Instant::now();
    let mut admission = Admission::new(
        Config {
            enforced: false,
            ..config(2, 3)
        },
        now,
    );
    for _ in 0..10 {
        let _place = admitted(admission.arrive(from(1, Tier::Degraded), now, || 1));
    }
    let shed = admission.counts().shed[Tier::Degraded.index()];
    assert_eq!(
        shed[Reason::QueueFull as usize],
        5,
        "2 in the app, 3 in the queue"
    );
}

#[test]
fn the_hard_cap_holds_whatever_is_only_observed() {
    let now = Instant::now();
    let config = Config {
        in_flight_max: 2,
        enforced: false,
        ..config(2, 0)
    };
    let mut admission = Admission::new(config, now);
    let _places = [1, 2].map(|who| admitted(admission.arrive(from(1, Tier::Default), now, || who)));
    assert_eq!(
        admission.arrive(from(1, Tier::Default), now, || 3),
        Entry::Shed(Reason::QueueFull)
    );
}

/// `mode: Observe` held for what the limiter found out, and not for the limits that somebody wrote.
#[test]
fn a_policy_that_observes_refuses_nobody_and_counts_whom_it_would_have() {
    let now = Instant::now();
    let config = Config {
        in_flight_max: 2,
        enforced: false,
        ..config(100, 1)
    };
    let mut admission = Admission::new(config, now);
    let _places = [1, 2].map(|who| admitted(admission.arrive(from(1, Tier::Default), now, || who)));
    let waits = admission.arrive(from(1, Tier::Default), now, || 3);
    assert!(matches!(waits, Entry::Queued { .. }), "{waits:?}");
    admission.set_observes(true, now);
    assert!(matches!(decided(&mut admission)[..], [(3, Ok(_))]));
    for who in 4..14 {
        let _place = admitted(admission.arrive(from(1, Tier::Default), now, || who));
    }
    let stream = Arrival {
        stream: true,
        ..from(1, Tier::Default)
    };
    for who in 0..5 {
        let _place = admitted(admission.arrive(stream, now, || who));
    }
    let shed = admission.counts().shed[Tier::Default.index()];
    assert_eq!(shed[Reason::QueueFull as usize], 10);
    assert_eq!(shed[Reason::Streams as usize], 3, "two of them may be");
    admission.set_observes(false, now);
    let late = admission.arrive(stream, now, || 0);
    assert_eq!(late, Entry::Shed(Reason::Streams));
}

#[derive(Clone, Debug)]
enum Step {
    Arrive(u8, u64, bool),
    Leave(usize, u64),
    GiveUp(usize, bool),
    Stream(usize),
    Reconfigure(u32, u32, bool),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0u8..6, 0u64..6, any::<bool>()).prop_map(|(tier, caller, stream)| Step::Arrive(tier, caller, stream)),
        5 => (any::<usize>(), 0u64..50).prop_map(|(which, millis)| Step::Leave(which, millis)),
        1 => (any::<usize>(), any::<bool>()).prop_map(|(which, late)| Step::GiveUp(which, late)),
        1 => any::<usize>().prop_map(Step::Stream),
        1 => (1u32..6, 0u32..6, any::<bool>()).prop_map(|(limit, queue, enforced)| Step::Reconfigure(limit, queue, enforced)),
        2 => (0u64..150).prop_map(Step::Wait),
    ]
}

proptest! {
    /// Against callers that each know where they are: nobody gets in above the limit, the queue keeps its bound, nobody
    /// waits while there is room, everybody is decided about once, and when all have gone nothing is left.
    #[test]
    fn permits_never_leak_and_bounds_hold_in_any_order(steps in prop::collection::vec(step(), 0..300)) {
        let mut now = Instant::now();
        let mut set = config(3, 3);
        let mut admission = Admission::new(set, now);
        let (mut inside, mut waiting) = (Vec::<Place>::new(), Vec::<(u32, WaiterId)>::new());
        let mut next = 0;
        for step in steps {
            let before = (admission.in_flight(), admission.queued());
            match step {
                Step::Arrive(tier, caller, stream) => {
                    let arrival = Arrival { stream: stream && caller == 0, ..from(caller, Tier::ALL[usize::from(tier)]) };
                    next += 1;
                    match admission.arrive(arrival, now, || next) {
                        Entry::Admitted(place) => inside.push(place),
                        Entry::Queued { id, .. } => waiting.push((next, id)),
                        Entry::Shed(_) => {}
                    }
                }
                Step::Leave(which, millis) if !inside.is_empty() => {
                    let place = inside.swap_remove(which % inside.len());
                    admission.leave(place, Duration::from_millis(millis), Ended::Answered, now);
                }
                Step::GiveUp(which, late) if !waiting.is_empty() => {
                    let (_, id) = waiting.swap_remove(which % waiting.len());
                    prop_assert!(admission.give_up(id, late.then_some(Reason::QueueTimeout)));
                    prop_assert!(!admission.give_up(id, None));
                }
                Step::Stream(which) if !inside.is_empty() => admission.is_stream(inside[which % inside.len()], now),
                Step::Leave(..) | Step::GiveUp(..) | Step::Stream(_) => {}
                Step::Reconfigure(limit, queue, enforced) => {
                    set = Config { enforced, in_flight_max: 8, ..config(limit, queue) };
                    admission.reconfigure(set, now);
                }
                Step::Wait(millis) => now += Duration::from_millis(millis),
            }
            for (who, verdict) in decided(&mut admission) {
                let place = waiting.iter().position(|(waits, _)| *waits == who);
                waiting.swap_remove(place.expect("it waited, and is decided about once"));
                inside.extend(verdict);
            }
            prop_assert_eq!((admission.in_flight() + admission.streams()) as usize, inside.len());
            prop_assert_eq!(admission.queued() as usize, waiting.len());
            prop_assert!(admission.in_flight() <= admission.limit().max(before.0));
            prop_assert!(admission.queued() <= set.queue_length_max.max(before.1));
            prop_assert!(admission.streams() <= set.streams_max);
            let next = admission.queue.first_tier();
            prop_assert!(!next.is_some_and(|tier| admission.has_room(tier)), "nobody waits for a place that is free for it");
        }
        while let Some(place) = inside.pop() {
            admission.leave(place, SHORT, Ended::Unmeasured, now);
            for (_, verdict) in decided(&mut admission) {
                inside.extend(verdict);
            }
        }
        prop_assert_eq!((admission.in_flight(), admission.queued(), admission.streams()), (0, 0, 0));
        prop_assert!(admission.callers.are_gone());
    }
}
