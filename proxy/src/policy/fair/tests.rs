use proptest::prelude::*;

use super::*;

const FAR: Duration = Duration::from_secs(10);

fn join(
    queue: &mut FairQueue<u32>,
    tier: Tier,
    caller: CallerIndex,
    who: u32,
    now: Instant,
) -> WaiterId {
    queue.join(tier, caller, now + FAR, who, now)
}

fn order(queue: &mut FairQueue<u32>, now: Instant) -> Vec<u32> {
    let mut late = Vec::new();
    std::iter::from_fn(|| {
        queue
            .pop(|_| false, &mut late, now)
            .map(|waiter| waiter.who)
    })
    .collect()
}

#[test]
fn tiers_come_one_after_the_other_and_callers_in_turn() {
    let now = Instant::now();
    let mut queue = FairQueue::new(100);
    for (who, (tier, caller)) in [
        (Tier::Default, 1),
        (Tier::Default, 1),
        (Tier::Default, 1),
        (Tier::Default, 2),
        (Tier::Sheddable, 3),
        (Tier::Critical, 1),
    ]
    .into_iter()
    .enumerate()
    {
        join(&mut queue, tier, caller, who as u32, now);
    }
    assert_eq!(order(&mut queue, now), [5, 0, 3, 1, 2, 4]);
    assert!(queue.is_empty());
}

/// Planted: taking callers in the order of their arrival only.
#[test]
fn who_holds_its_share_waits_for_those_who_do_not_but_an_idle_share_is_lent() {
    let now = Instant::now();
    let mut queue = FairQueue::new(100);
    for who in 0..3 {
        join(&mut queue, Tier::Default, 1, who, now);
    }
    join(&mut queue, Tier::Default, 2, 10, now);
    let mut late = Vec::new();
    let mut next = || {
        queue
            .pop(|caller| caller == 1, &mut late, now)
            .map(|waiter| waiter.who)
    };
    assert_eq!(
        [next(), next(), next(), next(), next()],
        [Some(10), Some(0), Some(1), Some(2), None]
    );
}

#[test]
fn a_queue_that_stands_serves_the_newest_and_sends_the_old_away() {
    let start = Instant::now();
    let mut queue = FairQueue::new(100);
    for who in 0..=20 {
        join(
            &mut queue,
            Tier::Default,
            1,
            who,
            start + Duration::from_millis(10) * who,
        );
    }
    let now = start + Duration::from_millis(200);
    let mut late = Vec::new();
    assert_eq!(
        queue
            .pop(|_| false, &mut late, now)
            .map(|waiter| waiter.who),
        Some(20)
    );
    let gone: Vec<u32> = late.iter().map(|waiter| waiter.who).collect();
    assert_eq!(
        gone,
        (0..15).collect::<Vec<_>>(),
        "more than {WAIT_STANDING:?}"
    );
    assert_eq!(queue.len(), 5);
}

#[test]
fn a_caller_that_makes_its_queue_stand_does_not_change_the_order_of_others() {
    let start = Instant::now();
    let mut queue = FairQueue::new(100);
    join(&mut queue, Tier::Default, 1, 0, start);
    let now = start + Duration::from_millis(150);
    join(&mut queue, Tier::Default, 2, 1, now);
    join(&mut queue, Tier::Default, 2, 2, now);
    assert_eq!(order(&mut queue, now), [0, 1, 2]);
}

#[test]
fn who_waited_too_long_is_not_taken() {
    let now = Instant::now();
    let mut queue = FairQueue::new(100);
    queue.join(Tier::Default, 1, now + Duration::from_millis(5), 0, now);
    join(&mut queue, Tier::Default, 1, 1, now);
    let mut late = Vec::new();
    let next = queue.pop(|_| false, &mut late, now + Duration::from_millis(5));
    assert_eq!((next.map(|waiter| waiter.who), late[0].who), (Some(1), 0));
}

/// Planted: making room by sending away whoever came first.
#[test]
fn a_full_queue_makes_room_at_the_cost_of_who_matters_least_or_has_most() {
    let now = Instant::now();
    let mut queue = FairQueue::new(3);
    join(&mut queue, Tier::Critical, 1, 0, now);
    join(&mut queue, Tier::Default, 1, 1, now);
    join(&mut queue, Tier::Default, 1, 2, now);
    let mut room = |tier, caller| {
        queue
            .make_room(tier, caller, now)
            .map(|gone| gone.map(|gone| gone.who))
    };
    assert_eq!(room(Tier::Sheddable, 2), Err(Full), "nobody comes after it");
    assert_eq!(room(Tier::Default, 1), Err(Full), "it has the most itself");
    assert_eq!(room(Tier::Default, 2), Ok(Some(1)));
    assert_eq!(room(Tier::Critical, 2), Ok(None), "there is room already");
    join(&mut queue, Tier::Default, 2, 3, now);
    let gone = queue
        .make_room(Tier::CriticalPlus, 1, now)
        .expect("it matters more");
    assert!([2, 3].contains(&gone.expect("somebody went").who));
    assert_eq!(
        FairQueue::<u32>::new(0)
            .make_room(Tier::Critical, 1, now)
            .map(drop),
        Err(Full)
    );
}

#[derive(Clone, Debug)]
enum Step {
    Join(u8, u32),
    Pop(u32),
    Leave(usize),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0u8..6, 0u32..5).prop_map(|(tier, caller)| Step::Join(tier, caller)),
        4 => (0u32..6).prop_map(Step::Pop),
        1 => any::<usize>().prop_map(Step::Leave),
        2 => (0u64..80).prop_map(Step::Wait),
    ]
}

proptest! {
    /// The queue is never longer than it may be, everybody who joins leaves exactly once, and a tier is served before
    /// any below it.
    #[test]
    fn everybody_leaves_exactly_once_and_the_bound_holds(steps in prop::collection::vec(step(), 0..300)) {
        let mut now = Instant::now();
        let mut queue = FairQueue::new(8);
        let mut inside: Vec<WaiterId> = Vec::new();
        for step in steps {
            let mut left: Vec<WaiterId> = Vec::new();
            match step {
                Step::Join(tier, caller) => {
                    let tier = Tier::ALL[usize::from(tier)];
                    if let Ok(gone) = queue.make_room(tier, caller, now) {
                        left.extend(gone.map(|gone| gone.id));
                        inside.push(queue.join(tier, caller, now + STANDING, 0u32, now));
                    }
                }
                Step::Pop(above) => {
                    let mut late = Vec::new();
                    let next = queue.pop(|caller| caller == above, &mut late, now);
                    left.extend(late.iter().map(|waiter| waiter.id));
                    if let Some(next) = next {
                        left.push(next.id);
                        let first = inside.iter().filter(|id| !left.contains(id) || **id == next.id).map(|id| id.tier).min();
                        prop_assert_eq!(Some(next.tier()), first);
                    } else {
                        prop_assert!(queue.is_empty());
                    }
                }
                Step::Leave(which) if !inside.is_empty() => {
                    let id = inside[which % inside.len()];
                    prop_assert!(queue.leave(id).is_some());
                    prop_assert!(queue.leave(id).is_none());
                    left.push(id);
                }
                Step::Leave(_) => {}
                Step::Wait(millis) => now += Duration::from_millis(millis),
            }
            for id in left {
                let place = inside.iter().position(|known| *known == id);
                inside.swap_remove(place.expect("it was inside, once"));
            }
            prop_assert!(queue.len() <= 8);
            prop_assert_eq!(queue.len() as usize, inside.len());
        }
    }

    /// Nobody starves in its tier: however much the others have waiting, one turn each comes first.
    #[test]
    fn a_caller_waits_for_one_turn_of_each_other(waiting in prop::collection::vec(0u32..6, 1..80)) {
        let now = Instant::now();
        let mut queue = FairQueue::new(1000);
        for &caller in &waiting {
            queue.join(Tier::Default, caller, now + FAR, caller, now);
        }
        queue.join(Tier::Default, 99, now + FAR, 99, now);
        let turns = order(&mut queue, now).iter().position(|&caller| caller == 99);
        prop_assert!(turns.expect("its turn came") <= 6);
    }
}
