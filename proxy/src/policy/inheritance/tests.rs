use proptest::prelude::*;

use super::*;
use crate::policy::priority::Tier;

const CAPACITY: usize = 8;

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn key(number: u64) -> TraceKey {
    let mut headers = http::HeaderMap::new();
    let text = format!("00-{:032x}-00000000000000ff-01", number + 1);
    let value = http::HeaderValue::from_str(&text).expect("a value");
    headers.insert(&crate::head::TRACEPARENT, value);
    TraceKey::of_headers(&headers).expect("a trace")
}

fn until(secs_left: u64, now: Instant) -> Inherited {
    Inherited {
        deadline: Deadline::after(secs(secs_left), now),
        is_retry: false,
        priority: Priority::default(),
    }
}

fn inheritance() -> (Inheritance, Instant) {
    (Inheritance::new(CAPACITY), Instant::now())
}

#[test]
fn a_call_of_the_app_inherits_while_it_is_asked_and_not_once_it_answers() {
    let (mut all, now) = inheritance();
    assert_eq!(all.inherit(key(1), now), None);
    assert!(all.enter(key(1), until(2, now), now));
    assert_eq!(all.inherit(key(1), now), Some(until(2, now)));
    assert_eq!(all.inherit(key(2), now), None, "of another trace");
    all.leave(key(1), End::Answered, now);
    assert_eq!(
        all.inherit(key(1), now),
        None,
        "work after the answer is free"
    );
    assert!(all.is_empty());
}

/// Planted bug that this finds: an entry that goes with its request, however that ended.
#[test]
fn an_app_that_was_given_up_on_is_bound_for_half_a_minute_more() {
    let (mut all, now) = inheritance();
    all.enter(key(1), until(2, now), now);
    all.leave(key(1), End::Abandoned, now + secs(2));
    let inherited = all.inherit(key(1), now + secs(31)).expect("still bound");
    assert!(inherited.deadline.is_over(now + secs(31)));
    assert_eq!(all.inherit(key(1), now + secs(32)), None);
    all.enter(key(2), until(2, now), now + secs(32));
    all.leave(key(2), End::Answered, now + secs(32));
    assert!(all.is_empty(), "and it is forgotten without a sweep");
}

#[test]
fn a_caller_that_leaves_early_takes_no_time_from_the_work_it_began() {
    let (mut all, now) = inheritance();
    all.enter(key(1), until(10, now), now);
    all.leave(key(1), End::Abandoned, now + secs(1));
    assert_eq!(all.inherit(key(1), now + secs(5)), Some(until(10, now)));
}

/// Planted bug that this finds: the minimum of the deadlines.
#[test]
fn nobody_shortens_the_time_of_others_by_reusing_their_trace() {
    let (mut all, now) = inheritance();
    all.enter(key(1), until(10, now), now);
    all.enter(key(1), until(1, now), now);
    assert_eq!(all.inherit(key(1), now), Some(until(10, now)));
    // Neither by being there first, nor by leaving.
    all.leave(key(1), End::Abandoned, now + secs(1));
    assert_eq!(all.inherit(key(1), now + secs(2)), Some(until(10, now)));
    all.leave(key(1), End::Answered, now + secs(3));
    assert_eq!(all.inherit(key(1), now + secs(3)), None);
}

#[test]
fn whoever_has_no_deadline_frees_those_under_the_same_trace() {
    let (mut all, now) = inheritance();
    let free = Inherited {
        deadline: Deadline::NEVER,
        is_retry: true,
        priority: Priority {
            tier: Tier::Sheddable,
            cohort: 0,
        },
    };
    all.enter(key(1), until(1, now), now);
    all.enter(key(1), free, now);
    let both = all.inherit(key(1), now).expect("live");
    assert_eq!(both.deadline, Deadline::NEVER);
    assert!(!both.is_retry, "one of them is a first attempt");
    assert_eq!(
        both.priority,
        Priority::default(),
        "and one of them matters"
    );
}

#[test]
fn a_retry_after_the_first_was_given_up_has_its_own_time_and_is_not_doomed() {
    let (mut all, now) = inheritance();
    all.enter(key(1), until(1, now), now);
    all.leave(key(1), End::Abandoned, now + secs(1));
    let later = now + secs(2);
    all.enter(key(1), until(1, later), later);
    assert_eq!(all.inherit(key(1), later), Some(until(1, later)));
    all.leave(key(1), End::Answered, later);
    assert_eq!(all.inherit(key(1), later), None);
}

#[test]
fn that_retries_are_exhausted_is_told_to_whoever_called_and_not_to_the_next_caller() {
    let (mut all, now) = inheritance();
    all.enter(key(1), until(1, now), now);
    all.exhaust(key(1));
    assert!(all.leave(key(1), End::Abandoned, now));
    all.enter(key(1), until(1, now), now);
    assert!(!all.leave(key(1), End::Answered, now));
    all.exhaust(key(7));
    assert!(all.is_empty(), "nobody is there to be told");
}

#[test]
fn the_abandoned_make_room_for_the_live_and_the_live_for_nobody() {
    let (mut all, now) = inheritance();
    for number in 0..CAPACITY as u64 {
        assert!(all.enter(key(number), until(9, now), now));
    }
    assert!(!all.enter(key(99), until(9, now), now), "full of live ones");
    assert!(all.enter(key(0), until(9, now), now), "one of them again");
    all.leave(key(3), End::Abandoned, now);
    assert!(all.enter(key(99), until(9, now), now));
    assert_eq!(all.inherit(key(3), now), None);
    assert!(all.inherit(key(4), now).is_some());
}

#[derive(Clone, Debug)]
enum Step {
    Enter(u64, u64),
    Leave(usize, bool),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0u64..20, 0u64..20).prop_map(|(trace, left)| Step::Enter(trace, left)),
        3 => (any::<usize>(), any::<bool>()).prop_map(|(which, answered)| Step::Leave(which, answered)),
        1 => (0u64..40).prop_map(Step::Wait),
    ]
}

proptest! {
    /// Bounded whatever comes; nobody who is live has less time than he brought; when all have been answered or
    /// forgotten nothing is left.
    #[test]
    fn it_is_bounded_and_takes_time_from_nobody(steps in prop::collection::vec(step(), 0..300)) {
        let (mut all, mut now) = inheritance();
        let mut live: Vec<(TraceKey, Inherited)> = Vec::new();
        for step in steps {
            match step {
                Step::Enter(trace, left) => {
                    let inherited = until(left, now);
                    if all.enter(key(trace), inherited, now) {
                        live.push((key(trace), inherited));
                    } else {
                        prop_assert!(live.len() >= CAPACITY);
                    }
                }
                Step::Leave(which, answered) if !live.is_empty() => {
                    let (key, _) = live.swap_remove(which % live.len());
                    all.leave(key, if answered { End::Answered } else { End::Abandoned }, now);
                }
                Step::Leave(..) => {}
                Step::Wait(passed) => now += secs(passed),
            }
            prop_assert!(all.known.len() <= CAPACITY && all.abandoned.len() <= CAPACITY);
            for (key, brought) in &live {
                let has = all.inherit(*key, now).expect("live");
                prop_assert_eq!(has.deadline.max(brought.deadline), has.deadline);
            }
        }
        for (key, _) in live {
            all.leave(key, End::Answered, now);
        }
        now += ABANDONED_FOR;
        for _ in 0..CAPACITY {
            all.enter(key(99), until(1, now), now);
            all.leave(key(99), End::Answered, now);
        }
        prop_assert!(all.is_empty());
    }
}
