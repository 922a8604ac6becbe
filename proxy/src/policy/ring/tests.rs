use proptest::prelude::*;

use super::*;
use crate::balance::Load;

const KEYS: u64 = 20_000;

fn names(numbers: impl IntoIterator<Item = usize>) -> Vec<(String, u32)> {
    let name = |number| format!("10.0.{}.{}:8080", number / 256, number % 256);
    (numbers.into_iter())
        .map(|number| (name(number), ORDINARY))
        .collect()
}

fn key(number: u64) -> u64 {
    hash(&number.to_le_bytes())
}

fn idle(standing: Standing) -> Place {
    Place {
        candidate: Candidate {
            standing,
            load: Load::of(1.0, 1.0),
        },
        in_flight: 0,
        weight: ORDINARY,
    }
}

const IDLE: Bound = Bound {
    in_flight: 0,
    factor: 1.25,
    available: 1.0,
};

/// Whose each key is while nobody is busy.
fn owners(of: &[(String, u32)]) -> Vec<String> {
    let ring = Ring::new(of);
    (0..KEYS)
        .map(|number| {
            let chosen = ring.choose(key(number), IDLE, &[], |_| idle(Standing::Eligible));
            of[chosen.expect("all are eligible")].0.clone()
        })
        .collect()
}

/// The share of keys whose owner differs.
fn moved(before: &[String], after: &[String]) -> f64 {
    let moved = before.iter().zip(after).filter(|(a, b)| a != b).count();
    moved as f64 / KEYS as f64
}

/// Planted bug: points that depend on the endpoint's place in the list move nearly all keys.
#[test]
fn an_endpoint_that_goes_takes_only_its_own_keys_with_it() {
    for n in [2, 3, 10, 100, 500] {
        let all = names(0..n);
        let before = owners(&all);
        let gone = &all[n / 2].0;
        let mut left = all.clone();
        left.remove(n / 2);
        let after = owners(&left);
        let stayed = before.iter().zip(&after).filter(|(b, _)| *b != gone);
        let others = stayed.filter(|(before, after)| before != after).count();
        // 500 endpoints have fewer points each: with one gone the others get some back.
        let allowed = if n > 400 { KEYS as usize / 50 } else { 0 };
        assert!(others <= allowed, "{n}: {others} keys of others moved");
        let share = moved(&before, &after);
        let fair = 1.0 / n as f64;
        assert!(
            share < 1.6 * fair + 0.02 && share > 0.4 * fair,
            "{n}: {share}"
        );
    }
}

#[test]
fn an_endpoint_that_comes_takes_its_share_from_everybody() {
    let before = owners(&names(0..10));
    let after = owners(&names(0..11));
    let changed: Vec<_> = before.iter().zip(&after).filter(|(b, a)| b != a).collect();
    let new = &names(10..11)[0].0;
    assert!(changed.iter().all(|(_, after)| *after == new));
    let share = changed.len() as f64 / KEYS as f64;
    assert!((0.06..0.13).contains(&share), "{share}");
}

#[test]
fn keys_are_even_and_follow_the_weight() {
    let mut of = names(0..10);
    of[3].1 = 300;
    of[4].1 = 50;
    let owners = owners(&of);
    let share = |index: usize| {
        let own = owners.iter().filter(|owner| **owner == of[index].0).count();
        own as f64 / KEYS as f64 / (f64::from(of[index].1) / 1150.0)
    };
    for index in 0..10 {
        assert!(
            (0.7..1.35).contains(&share(index)),
            "{index}: {}",
            share(index)
        );
    }
}

#[test]
fn sidecars_agree_whatever_order_they_heard_of_the_endpoints_in() {
    let forwards = names(0..20);
    let backwards: Vec<_> = forwards.iter().rev().cloned().collect();
    assert_eq!(owners(&forwards), owners(&backwards));
}

#[test]
fn a_key_whose_endpoint_is_gated_full_or_tried_goes_to_the_next_and_comes_back() {
    let of = names(0..5);
    let ring = Ring::new(&of);
    for number in 0..200 {
        let key = key(number);
        let place = |_| idle(Standing::Eligible);
        let own = ring.choose(key, IDLE, &[], place).expect("all are there");
        let tried = ring
            .choose(key, IDLE, &[own], place)
            .expect("four are left");
        for standing in [Standing::Gated, Standing::Full, Standing::Draining] {
            let place = |index| match index == own {
                true => idle(standing),
                false => idle(Standing::Eligible),
            };
            let next = ring.choose(key, IDLE, &[], place).expect("four are left");
            assert_eq!(next, tried, "always to the same next one");
            assert_ne!(next, own);
        }
        assert_eq!(ring.choose(key, IDLE, &[], place), Some(own));
    }
}

#[test]
fn one_key_that_everybody_asks_for_does_not_overload_its_endpoint() {
    let of = names(0..10);
    let ring = Ring::new(&of);
    let mut in_flight = [0u32; 10];
    for total in 0..1000 {
        let bound = Bound {
            in_flight: total,
            ..IDLE
        };
        let place = |index: usize| Place {
            in_flight: in_flight[index],
            ..idle(Standing::Eligible)
        };
        let chosen = ring.choose(key(7), bound, &[], place);
        in_flight[chosen.expect("somebody is below the average")] += 1;
    }
    assert_eq!(in_flight.iter().max(), Some(&125), "{in_flight:?}");
}

#[test]
fn an_endpoint_in_slow_start_gets_its_share_of_the_bound() {
    let bound = Bound {
        in_flight: 99,
        ..IDLE
    };
    assert_eq!(bound.of(100, 1000.0, 1.0), 13);
    assert_eq!(bound.of(100, 1000.0, 0.1), 2);
    assert_eq!(bound.of(1, 1000.0, 0.1), 1, "never nothing at all");
}

#[test]
fn the_memory_of_a_ring_is_bounded_and_nobody_is_left_out() {
    let ring = Ring::new(&names(0..5000));
    assert!(ring.points.len() <= POINTS_MAX);
    let mut present = vec![false; 5000];
    for (_, index) in &ring.points {
        present[*index as usize] = true;
    }
    assert!(present.iter().all(|present| *present));
    assert_eq!(
        Ring::new(&names(0..0)).choose(1, IDLE, &[], |_| idle(Standing::Eligible)),
        None
    );
}

proptest! {
    /// While all calls in flight are with eligible endpoints, one of them is below the bound and the walk finds it;
    /// nobody ever gets a call above it.
    #[test]
    fn never_above_the_bound_and_never_nobody(
        in_flight in prop::collection::vec(0u32..50, 1..12),
        key: u64,
    ) {
        let ring = Ring::new(&names(0..in_flight.len()));
        let total: u32 = in_flight.iter().sum();
        let bound = Bound { in_flight: total as usize, ..IDLE };
        let place = |index: usize| Place { in_flight: in_flight[index], ..idle(Standing::Eligible) };
        let chosen = ring.choose(key, bound, &[], place);
        let chosen = chosen.expect("the least loaded is below the average");
        let most = 1.25 * (f64::from(total) + 1.0) / in_flight.len() as f64;
        prop_assert!(f64::from(in_flight[chosen]) < most.ceil());
    }
}
