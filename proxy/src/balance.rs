//! Which endpoint gets the call: the better of two, chosen at random.
//!
//! ```text
//!   eligible                     two at random ─▶ the cheaper
//!   … the minority of its pool   against the cheapest gated one ─▶ the cheaper
//!   none eligible                draining ▶ gated: whatever is left (nobody, when some are merely full)
//! ```
//!
//! Power of two choices (Mitzenmacher 2001) as in Finagle, linkerd, Envoy and gRPC A48: nearly as even as asking
//! everybody, constant work, and no herd that runs to the one best endpoint. The cost is peak-EWMA × (in flight
//! + 1) by default ([`ewma`](crate::policy::ewma)), or the calls in flight alone.
//!
//! When most of a pool is gated Envoy sends to all hosts alike ("panic"). Here the few that work keep the traffic
//! until they are so loaded that even an endpoint that fails looks cheaper: it spills over in proportion.

use std::time::Duration;

use fastrand::Rng;
use tokio::time::Instant;

use crate::policy::ewma::Ewma;

/// What one more call to an endpoint would cost, in a unit that all of its pool share, and the share of calls
/// it should get (slow start, 0.1 to 1.0).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Load {
    pub cost: f64,
    pub weight: f64,
}

/// Whether an endpoint may be chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    Eligible,
    /// It would be eligible, but has as many calls in flight as it may. Worth waiting for.
    Full,
    /// Going away: only when nobody else is left.
    Draining,
    /// Its gate is open or half-open; its load is what [`Load::peak_ewma_gated`] or
    /// [`Load::least_request_gated`] say.
    Gated,
    /// Gone.
    Absent,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    pub standing: Standing,
    pub load: Load,
}

/// Where calls in flight are all that is compared, an endpoint that fails counts as many times as busy.
const GATED_REQUESTS: f64 = 10.0;

impl Load {
    /// `quiet_for`: how long its calls have waited without any answer. What has not come by now takes at least that
    /// long, and an endpoint that hangs should not get one call after the other until one of them has failed.
    pub fn peak_ewma(
        ewma: &Ewma,
        pending: u32,
        quiet_for: Duration,
        weight: f64,
        now: Instant,
    ) -> Self {
        let cost = ewma.cost_at_least(now, pending, quiet_for);
        Self { cost, weight }
    }

    pub fn peak_ewma_gated(ewma: &Ewma, pending: u32, penalty: Duration, now: Instant) -> Self {
        let cost = ewma.cost_at_least(now, pending, penalty);
        Self { cost, weight: 1.0 }
    }

    /// By calls in flight alone, whatever they take (`algorithm: LeastRequest`).
    pub fn least_request(pending: u32, weight: f64) -> Self {
        let cost = f64::from(pending) + 1.0;
        Self { cost, weight }
    }

    pub fn least_request_gated(pending: u32) -> Self {
        let cost = GATED_REQUESTS * (f64::from(pending) + 1.0);
        Self { cost, weight: 1.0 }
    }

    /// Of an endpoint that says that it is busy.
    #[must_use]
    pub fn dearer(self, factor: f64) -> Self {
        Self {
            cost: self.cost * factor,
            ..self
        }
    }

    fn weighted(&self) -> f64 {
        self.cost / self.weight
    }
}

/// One of `n` endpoints. `tried` are those that this request has failed on already; they are avoided as long
/// as there is any other. `None`: there is none, or none that is not full.
pub fn choose(
    n: usize,
    tried: &[usize],
    rng: &mut Rng,
    candidate: impl Fn(usize) -> Candidate,
) -> Option<usize> {
    if n == 1 && candidate(0).standing == Standing::Eligible {
        return Some(0);
    }
    let of = |wanted: Standing, untried: bool| {
        let candidate = &candidate;
        move |i: usize| {
            let Candidate { standing, load } = candidate(i);
            (standing == wanted && tried.contains(&i) != untried).then_some(load)
        }
    };
    let untried = of(Standing::Eligible, true);
    if let Some(choice) = two_at_once(n, rng, untried) {
        return Some(choice);
    }
    let best = sample(n, rng, untried).or_else(|| sample(n, rng, of(Standing::Eligible, false)));
    let count = |wanted| (0..n).filter(|&i| candidate(i).standing == wanted).count();
    let full = count(Standing::Full);
    if let Some(best) = best {
        if count(Standing::Eligible) + full >= count(Standing::Gated) {
            return Some(best);
        }
        let price = candidate(best).load.weighted();
        return cheapest(n, of(Standing::Gated, true))
            .filter(|(_, spill)| spill.weighted() < price)
            .map_or(Some(best), |(spill, _)| Some(spill));
    }
    if full > 0 {
        return None;
    }
    [Standing::Draining, Standing::Gated]
        .into_iter()
        .flat_map(|standing| [of(standing, true), of(standing, false)])
        .find_map(|load| pick(n, rng, load))
}

/// The better of two random ones among the endpoints `0..n` for which `load` is `Some`.
pub fn pick(n: usize, rng: &mut Rng, load: impl Fn(usize) -> Option<Load>) -> Option<usize> {
    two_at_once(n, rng, &load).or_else(|| sample(n, rng, &load))
}

/// Constant work, when both happen to be there: nearly always.
fn two_at_once(n: usize, rng: &mut Rng, load: impl Fn(usize) -> Option<Load>) -> Option<usize> {
    if n < 2 {
        return None;
    }
    let first = rng.usize(..n);
    let second = (first + rng.usize(1..n)) % n;
    Some(better((first, load(first)?), (second, load(second)?), rng))
}

/// The better of two that are drawn evenly from all there are, in one pass (reservoir sampling).
fn sample(n: usize, rng: &mut Rng, load: impl Fn(usize) -> Option<Load>) -> Option<usize> {
    let mut drawn = [None; 2];
    for (seen, one) in (0..n).filter_map(|i| Some((i, load(i)?))).enumerate() {
        let slot = if seen < 2 { seen } else { rng.usize(..=seen) };
        if slot < 2 {
            drawn[slot] = Some(one);
        }
    }
    let [first, second] = drawn;
    match (first?, second) {
        // The first slot favours whoever came first, and a tie goes to it.
        (first, Some(second)) if rng.bool() => Some(better(second, first, rng)),
        (first, Some(second)) => Some(better(first, second, rng)),
        ((only, _), None) => Some(only),
    }
}

fn cheapest(n: usize, load: impl Fn(usize) -> Option<Load>) -> Option<(usize, Load)> {
    (0..n)
        .filter_map(|i| Some((i, load(i)?)))
        .min_by(|(_, a), (_, b)| a.weighted().total_cmp(&b.weighted()))
}

/// The cheaper. If it is only cheaper because it is being spared (slow start), it wins only its share of the
/// comparisons: by cost ÷ weight alone it would get nothing until its ramp is over, and then everything at
/// once.
fn better(a: (usize, Load), b: (usize, Load), rng: &mut Rng) -> usize {
    let (cheap, dear) = if b.1.cost.total_cmp(&a.1.cost).is_lt() {
        (b, a)
    } else {
        (a, b)
    };
    let cheap_anyway = cheap.1.weighted() <= dear.1.weighted();
    if cheap_anyway || rng.f64() * dear.1.weight < cheap.1.weight {
        cheap.0
    } else {
        dear.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fastrand::Rng;
    use proptest::prelude::{
        Just, Strategy, prop, prop_assert, prop_assert_eq, prop_oneof, proptest,
    };

    const SEED: u64 = 7;
    const PICKS: usize = 20_000;

    fn load(cost: f64, weight: f64) -> Load {
        Load { cost, weight }
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
}
