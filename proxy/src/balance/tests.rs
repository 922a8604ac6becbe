use std::time::Duration;

use fastrand::Rng;
use proptest::prelude::{Just, Strategy, prop, prop_assert, prop_assert_eq, prop_oneof, proptest};
use tokio::time::Instant;

use super::*;
use crate::policy::ewma::Ewma;

const SEED: u64 = 7;
const PICKS: usize = 20_000;

fn load(cost: f64, weight: f64) -> Load {
    Load::of(cost, weight)
}

fn candidates(standings: &[(Standing, f64)]) -> Vec<Candidate> {
    let candidate = |&(standing, cost)| Candidate {
        standing,
        load: load(cost, 1.0),
    };
    standings.iter().map(candidate).collect()
}

/// The share of picks that each endpoint gets.
fn shares(n: usize, pick: impl Fn(&mut Rng) -> Option<usize>) -> Vec<f64> {
    let (mut rng, mut counts) = (Rng::with_seed(SEED), vec![0.0; n]);
    for _ in 0..PICKS {
        counts[pick(&mut rng).expect("somebody")] += 1.0 / PICKS as f64;
    }
    counts
}

fn chosen(of: &[Candidate], tried: &[usize]) -> Vec<f64> {
    shares(of.len(), |rng| choose(of.len(), tried, rng, |i| of[i]))
}

#[test]
fn equals_get_equal_shares() {
    for share in shares(5, |rng| pick(5, rng, |_| Some(load(1.0, 1.0)))) {
        assert!((0.19..0.21).contains(&share), "{share}");
    }
}

#[test]
fn the_dearest_of_many_gets_nothing_and_the_cheapest_does_not_get_all() {
    let costs = [1.0, 2.0, 3.0, 1000.0];
    let shares = shares(4, |rng| pick(4, rng, |i| Some(load(costs[i], 1.0))));
    assert_eq!(shares[3], 0.0);
    assert!((0.45..0.55).contains(&shares[0]), "no herd: {shares:?}");
}

#[test]
fn an_endpoint_in_slow_start_gets_its_share_even_when_all_are_idle() {
    for weight in [0.1, 0.5, 1.0] {
        let weights = [1.0, 1.0, 1.0, weight];
        let shares = shares(4, |rng| pick(4, rng, |i| Some(load(1.0, weights[i]))));
        let fair = weight / 4.0;
        assert!(
            (fair * 0.8..fair * 1.6).contains(&shares[3]),
            "{weight}: {shares:?}"
        );
    }
}

#[test]
fn slow_start_is_no_reason_to_prefer_an_endpoint_that_fails() {
    let of = [load(5e9, 1.0), load(10e6, 0.1)];
    let shares = shares(2, |rng| pick(2, rng, |i| Some(of[i])));
    assert!(shares[1] > 0.999);
}

#[test]
fn the_least_loaded_is_the_one_with_fewest_calls_in_flight() {
    let pending = [9, 3];
    let shares = shares(2, |rng| {
        pick(2, rng, |i| Some(Load::least_request(pending[i], 1.0)))
    });
    assert!(shares[1] > 0.999);
}

#[test]
fn a_few_eligible_among_many_get_equal_shares() {
    let mut of = candidates(&[(Standing::Absent, 1.0); 40]);
    for i in [3, 14, 15, 35] {
        of[i].standing = Standing::Eligible;
    }
    let shares = chosen(&of, &[]);
    for i in [3, 14, 15, 35] {
        assert!((0.23..0.27).contains(&shares[i]), "{i}: {shares:?}");
    }
}

#[test]
fn one_eligible_among_many_is_found() {
    let mut of = candidates(&[(Standing::Absent, 1.0); 100]);
    of[42].standing = Standing::Eligible;
    assert!(chosen(&of, &[])[42] > 0.999);
}

#[test]
fn a_retry_goes_elsewhere_as_long_as_there_is_an_elsewhere() {
    let of = candidates(&[
        (Standing::Eligible, 1.0),
        (Standing::Eligible, 900.0),
        (Standing::Eligible, 900.0),
    ]);
    assert_eq!(chosen(&of, &[0])[0], 0.0);
    assert!(chosen(&of, &[0, 1])[2] > 0.999);
    assert!(
        chosen(&of[..1], &[0])[0] > 0.999,
        "the only one is better than none"
    );
}

#[test]
fn a_draining_endpoint_is_chosen_only_when_nobody_else_is_left() {
    use Standing::{Absent, Draining, Eligible, Gated};
    let of = candidates(&[(Draining, 1.0), (Eligible, 900.0), (Gated, 1.0)]);
    assert_eq!(chosen(&of, &[])[0], 0.0);
    assert_eq!(chosen(&of, &[1])[0], 0.0, "rather the one that failed once");
    let of = candidates(&[(Draining, 900.0), (Absent, 1.0), (Gated, 1.0)]);
    assert!(
        chosen(&of, &[])[0] > 0.999,
        "rather than one that is known to fail"
    );
}

#[test]
fn traffic_spills_to_gated_endpoints_only_when_the_few_left_are_dearer() {
    use Standing::{Eligible, Gated};
    let spill = |eligible_cost: f64| {
        let of = candidates(&[
            (Eligible, eligible_cost),
            (Gated, 1000.0),
            (Gated, 5000.0),
            (Gated, 9000.0),
        ]);
        chosen(&of, &[])
    };
    assert!(spill(10.0)[0] > 0.999);
    let loaded = spill(2000.0);
    assert!(loaded[1] > 0.999, "to the least penalised: {loaded:?}");
    let half = candidates(&[
        (Eligible, 2000.0),
        (Eligible, 2000.0),
        (Gated, 1.0),
        (Gated, 1.0),
    ]);
    assert_eq!(chosen(&half, &[])[2..], [0.0, 0.0], "half a pool is enough");
}

#[test]
fn nobody_is_sent_to_an_endpoint_that_fails_because_the_good_ones_are_busy() {
    use Standing::{Draining, Full, Gated};
    let of = candidates(&[(Full, 1.0), (Gated, 1.0), (Gated, 1.0), (Draining, 1.0)]);
    let mut rng = Rng::with_seed(SEED);
    assert_eq!(choose(of.len(), &[], &mut rng, |i| of[i]), None);
}

#[test]
fn a_gated_endpoint_costs_more_than_an_idle_one_in_either_unit() {
    let now = Instant::now();
    let ewma = Ewma::new(Duration::from_millis(30), now);
    let penalty = Duration::from_secs(1);
    let later = now + Duration::from_secs(60);
    let idle = Load::peak_ewma(&ewma, 0, Duration::ZERO, 0.1, later).weighted();
    assert!(idle < Load::peak_ewma_gated(&ewma, 0, penalty, later).weighted());
    let few = Load::least_request(5, 1.0).weighted();
    assert!(few < Load::least_request_gated(0).weighted());
    assert!(Load::least_request(20, 1.0).weighted() > Load::least_request_gated(0).weighted());
}

#[test]
fn when_all_are_gated_the_call_still_goes_somewhere() {
    let of = candidates(&[(Standing::Gated, 5000.0), (Standing::Gated, 1000.0)]);
    assert!(chosen(&of, &[])[1] > 0.999);
}

#[test]
fn nobody_is_chosen_from_nobody() {
    let mut rng = Rng::with_seed(SEED);
    assert_eq!(pick(0, &mut rng, |_| Some(load(1.0, 1.0))), None);
    assert_eq!(pick(9, &mut rng, |_| None), None);
    let of = candidates(&[(Standing::Absent, 1.0); 3]);
    assert_eq!(choose(3, &[], &mut rng, |i| of[i]), None);
}

/// In flight at each, after so many calls of which none has ended: what a pool does under load.
fn filled(standings: &[(Standing, f64)], calls: u32, pool: Pool<'_>) -> Vec<u32> {
    let (mut rng, mut in_flight) = (Rng::with_seed(SEED), vec![0u32; standings.len()]);
    for _ in 0..calls {
        let candidate = |i: usize| {
            let (standing, latency) = standings[i];
            let cost = latency * (f64::from(in_flight[i]) + 1.0);
            let load = load(cost, 1.0).with_share(pool.share(i), in_flight[i]);
            Candidate { standing, load }
        };
        let chosen = pool.choose(&[], &mut rng, candidate);
        in_flight[chosen.expect("somebody")] += 1;
    }
    in_flight
}

const GOOD: (Standing, f64) = (Standing::Eligible, 30.0);
const BAD: (Standing, f64) = (Standing::Gated, 1000.0);

/// Planted bug: without `most_are_gated` in [`Pool::choose`] the few good ones get everything.
#[test]
fn in_a_panic_the_gated_help_in_proportion_and_only_when_it_is_cheaper() {
    for n in [1usize, 2, 3, 10, 500] {
        for eligible in [0, 1, n / 3, n / 2, n].into_iter().filter(|e| *e <= n) {
            let gated = n - eligible;
            let standings = [vec![GOOD; eligible], vec![BAD; gated]].concat();
            let pool = Pool {
                most_are_gated: gated > eligible,
                ..Pool::of(n)
            };
            let sum = |of: &[u32]| of.iter().sum::<u32>();
            let few = filled(&standings, 5 * eligible as u32, pool);
            assert_eq!(sum(&few[eligible..]), 0, "{n}, {eligible}: not needed yet");
            let calls = 200 * n as u32;
            let many = filled(&standings, calls, pool);
            let (good, bad) = (sum(&many[..eligible]), sum(&many[eligible..]));
            match (eligible, pool.most_are_gated) {
                (0, _) => assert_eq!(bad, calls, "{n}: whatever is left"),
                (_, false) => assert_eq!(bad, 0, "{n}, {eligible}: half a pool is enough"),
                (_, true) => {
                    // Equal costs: 30 × (in flight there) = 1000 × (in flight here).
                    let expected =
                        f64::from(calls) / (1.0 + eligible as f64 / gated as f64 * (1000.0 / 30.0));
                    let ratio = f64::from(bad) / expected;
                    assert!(
                        (0.6..1.4).contains(&ratio),
                        "{n}, {eligible}: {good} and {bad}"
                    );
                }
            }
        }
    }
}

#[test]
fn in_a_panic_the_less_penalised_of_those_that_fail_helps_more() {
    let standings = [GOOD, BAD, (Standing::Gated, 3000.0)];
    let pool = Pool {
        most_are_gated: true,
        ..Pool::of(3)
    };
    let filled = filled(&standings, 2000, pool);
    assert!(filled[0] > 20 * filled[1], "{filled:?}");
    assert!(filled[1] > 2 * filled[2] && filled[2] > 0, "{filled:?}");
}

/// Planted bug: two draws and then a look at all of them made it grow with the pool.
#[test]
fn one_choice_among_500_costs_no_more_than_one_among_10() {
    let looks = |n: usize, gated: usize, near: usize| {
        let (mut rng, looked) = (Rng::with_seed(SEED), std::cell::Cell::new(0u32));
        let pool = Pool {
            near,
            most_are_gated: 2 * gated > n,
            ..Pool::of(n)
        };
        for _ in 0..1000 {
            let candidate = |i: usize| {
                looked.set(looked.get() + 1);
                let (standing, cost) = if i < gated { BAD } else { GOOD };
                let load = load(cost, 1.0);
                Candidate { standing, load }
            };
            pool.choose(&[], &mut rng, candidate).expect("somebody");
        }
        f64::from(looked.get()) / 1000.0
    };
    assert_eq!(looks(500, 0, 500), 2.0);
    assert_eq!(looks(500, 0, 170), 4.0, "two nearby, two far away");
    for (gated, most) in [(50, 3.0), (250, 5.0), (375, 60.0)] {
        let looked = looks(500, gated, 500);
        assert!(looked < most, "{gated} gated: {looked} looked at");
    }
}

#[test]
fn shares_hold_when_all_are_idle_and_when_all_are_busy() {
    let weights = [1.0, 1.0, 0.5, 0.1];
    let pool = Pool {
        shares: &weights,
        ..Pool::of(4)
    };
    let idle = shares(4, |rng| {
        pool.choose(&[], rng, |_| Candidate {
            standing: Standing::Eligible,
            load: load(1.0, 1.0),
        })
    });
    let busy = filled(&[GOOD; 4], 4000, pool);
    for (index, weight) in weights.iter().enumerate() {
        let fair = weight / 2.6;
        let busy = f64::from(busy[index]) / 4000.0;
        for share in [idle[index], busy] {
            assert!(
                (fair * 0.75..fair * 1.35).contains(&share),
                "{index}: {idle:?}, {busy}"
            );
        }
    }
}

#[test]
fn calls_stay_in_their_zone_until_it_is_one_and_a_half_times_as_loaded() {
    let pool = Pool {
        near: 2,
        ..Pool::of(6)
    };
    let with = |near: f64| {
        let of = candidates(&[
            (Standing::Eligible, near),
            (Standing::Eligible, near),
            (Standing::Eligible, 10.0),
            (Standing::Eligible, 10.0),
            (Standing::Eligible, 10.0),
            (Standing::Eligible, 10.0),
        ]);
        let shares = shares(6, |rng| pool.choose(&[], rng, |i| of[i]));
        shares[0] + shares[1]
    };
    assert!(with(14.9) > 0.999, "a little slower is near enough");
    assert!(with(15.1) < 0.001, "on load, although all are eligible");
    let filled = filled(&[GOOD; 6], 600, pool);
    let near = f64::from(filled[0] + filled[1]) / 2.0;
    let far = f64::from(filled[2..].iter().sum::<u32>()) / 4.0;
    assert!((1.2..1.7).contains(&(near / far)), "{filled:?}");
}

#[test]
fn a_zone_without_anybody_who_is_eligible_is_left() {
    let pool = Pool {
        near: 1,
        ..Pool::of(3)
    };
    for standing in [Standing::Gated, Standing::Full, Standing::Draining] {
        let of = candidates(&[(standing, 1.0), GOOD, GOOD]);
        let shares = shares(3, |rng| pool.choose(&[], rng, |i| of[i]));
        assert_eq!(shares[0], 0.0, "{standing:?}");
    }
    let of = candidates(&[GOOD; 3]);
    let retry = shares(3, |rng| pool.choose(&[0], rng, |i| of[i]));
    assert_eq!(
        retry[0], 0.0,
        "a retry rather goes far than to the same again"
    );
}

fn any_candidate() -> impl Strategy<Value = Candidate> {
    let standing = prop::sample::select(vec![
        Standing::Eligible,
        Standing::Draining,
        Standing::Gated,
        Standing::Full,
        Standing::Absent,
    ]);
    let cost = prop_oneof![0.0..1e9, Just(0.0), Just(f64::INFINITY), Just(f64::NAN)];
    (standing, cost, 0.1..=1.0).prop_map(|(standing, cost, weight)| Candidate {
        standing,
        load: load(cost, weight),
    })
}

proptest! {
    /// Somebody is chosen if and only if somebody is there; never one that is absent; never a worse standing
    /// than needed; whatever the costs are.
    #[test]
    fn never_chooses_the_absent_and_never_misses_the_present(
        of in prop::collection::vec(any_candidate(), 0..20),
        tried in prop::collection::vec(0usize..20, 0..4),
        seed: u64,
    ) {
        use Standing::{Absent, Draining, Eligible, Full, Gated};
        let choice = choose(of.len(), &tried, &mut Rng::with_seed(seed), |i| of[i]);
        let count = |standing| of.iter().filter(|c| c.standing == standing).count();
        let (passing, left) = (count(Eligible) + count(Full), count(Draining) + count(Gated));
        prop_assert_eq!(choice.is_some(), count(Eligible) > 0 || (count(Full) == 0 && left > 0));
        let Some(choice) = choice else { return Ok(()) };
        let standing = of[choice].standing;
        prop_assert!(standing != Absent && standing != Full);
        prop_assert!(standing != Draining || passing == 0);
        prop_assert!(standing != Gated || passing < count(Gated));
        let untried = |i: usize| of[i].standing == Eligible && !tried.contains(&i);
        prop_assert!(!tried.contains(&choice) || !(0..of.len()).any(untried));
    }
}
