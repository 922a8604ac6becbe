//! Which endpoint gets the call: the better of two, chosen at random.
//!
//! ```text
//!   eligible                     two at random ─▶ the cheaper
//!   … of a large pool            of the part of it that this sidecar calls (`policy/aperture.rs`)
//!   … in two kinds of zones      the cheaper of two nearby, unless that costs 1.5 times what two far away do
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

mod load;

use std::ops::Range;

use fastrand::Rng;

pub use load::Load;

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

/// A call leaves its zone when what is nearby is this many times as loaded.
const FAR_FACTOR: f64 = 1.5;
/// In a large pool so many are drawn until two are found that may be chosen: with half of them gone it fails once in
/// thousands of calls, and then all are looked at.
const DRAWS_MAX: usize = 16;

/// What is known of a pool before any of its endpoints is looked at.
#[derive(Clone, Copy, Debug)]
pub struct Pool<'a> {
    pub size: usize,
    /// So many, the first ones, are in the caller's own zone. None or all: zones do not matter.
    pub near: usize,
    /// So many of those nearby, the first ones, and so many of the others are called as long as any of them can be.
    pub reach: [usize; 2],
    /// What each should be drawn for, relative to the one with the most: above 0.0, up to 1.0. Empty: all alike.
    pub shares: &'a [f64],
    /// Most are gated: those that work may need help.
    pub most_are_gated: bool,
}

/// One of `n` endpoints. `tried` are those that this request has failed on already; they are avoided as long
/// as there is any other. `None`: there is none, or none that is not full.
pub fn choose(
    n: usize,
    tried: &[usize],
    rng: &mut Rng,
    candidate: impl Fn(usize) -> Candidate,
) -> Option<usize> {
    let count = |wanted| (0..n).filter(|&i| candidate(i).standing == wanted).count();
    let passing = count(Standing::Eligible) + count(Standing::Full);
    Pool {
        most_are_gated: count(Standing::Gated) > passing,
        ..Pool::of(n)
    }
    .choose(tried, rng, candidate)
}

/// The better of two random ones among the endpoints `0..n` for which `load` is `Some`.
pub fn pick(n: usize, rng: &mut Rng, load: impl Fn(usize) -> Option<Load>) -> Option<usize> {
    let (index, _) = Pool::of(n).best(0..n, rng, load)?;
    Some(index)
}

impl Pool<'_> {
    /// All alike, and none gated.
    pub const fn of(size: usize) -> Self {
        Self {
            size,
            near: size,
            reach: [size; 2],
            shares: &[],
            most_are_gated: false,
        }
    }

    /// As [`choose`].
    pub fn choose(
        &self,
        tried: &[usize],
        rng: &mut Rng,
        candidate: impl Fn(usize) -> Candidate,
    ) -> Option<usize> {
        if self.size == 1 && candidate(0).standing == Standing::Eligible {
            return Some(0);
        }
        let of = |wanted: Standing, untried: bool| {
            let candidate = &candidate;
            move |i: usize| {
                let Candidate { standing, load } = candidate(i);
                (standing == wanted && tried.contains(&i) != untried).then_some(load)
            }
        };
        let best = self.nearest(rng, of(Standing::Eligible, true));
        let best = best.or_else(|| self.nearest(rng, of(Standing::Eligible, false)));
        if let Some((best, load)) = best {
            let help = self.most_are_gated.then(|| {
                let spill = self.least_penalised(rng, of(Standing::Gated, true));
                spill.filter(|(_, spill)| spill.weighted() < load.weighted())
            });
            return Some(help.flatten().map_or(best, |(spill, _)| spill));
        }
        if (0..self.size).any(|i| candidate(i).standing == Standing::Full) {
            return None;
        }
        [Standing::Draining, Standing::Gated]
            .into_iter()
            .flat_map(|standing| [of(standing, true), of(standing, false)])
            .find_map(|load| self.best(0..self.size, rng, load))
            .map(|(index, _)| index)
    }

    /// The best nearby, unless it is so loaded that one far away is worth the way: on load, not only when nobody nearby
    /// is left.
    fn nearest(
        &self,
        rng: &mut Rng,
        load: impl Fn(usize) -> Option<Load>,
    ) -> Option<(usize, Load)> {
        if self.near == 0 || self.near == self.size {
            return self.best(0..self.size, rng, load);
        }
        let near = self.best(0..self.near, rng, &load);
        let far = self.best(self.near..self.size, rng, &load);
        match (near, far) {
            (Some(near), Some(far))
                if near.1.weighted() > FAR_FACTOR * far.1.weighted_beside(&near.1) =>
            {
                Some(far)
            }
            (near, far) => near.or(far),
        }
    }

    /// The better of two that are drawn from those within reach in `range`, each by its share; from all there are when
    /// none of those can be chosen.
    fn best(
        &self,
        range: Range<usize>,
        rng: &mut Rng,
        load: impl Fn(usize) -> Option<Load>,
    ) -> Option<(usize, Load)> {
        let reach = self.reach[usize::from(range.start >= self.near)];
        let within = range.start..range.end.min(range.start + reach);
        let all = |range, rng: &mut Rng| sample(range, rng, |i| Some((load(i)?, self.share(i))));
        self.drawn(within.clone(), rng, &load)
            .or_else(|| all(within.clone(), rng))
            .or_else(|| (within != range).then(|| all(range, rng))?)
    }

    /// Constant work, as long as a good part of them is there.
    fn drawn(
        &self,
        range: Range<usize>,
        rng: &mut Rng,
        load: impl Fn(usize) -> Option<Load>,
    ) -> Option<(usize, Load)> {
        let n = range.len();
        if n < 2 {
            return None;
        }
        let first = self.draw(range.clone(), rng);
        // Alike as they mostly are, another one is known at once.
        let second = range.start + (first - range.start + rng.usize(1..n)) % n;
        let mut found = load(first).map(|load| (first, load));
        let alike = self.shares.is_empty();
        if alike && let Some(load) = load(second) {
            match found {
                Some(first) => return Some(better(first, (second, load), rng)),
                None => found = Some((second, load)),
            }
        }
        if alike && n <= DRAWS_MAX {
            return None; // to look at all of them is no more work
        }
        for _ in 0..DRAWS_MAX {
            let next = self.draw(range.clone(), rng);
            if found.is_some_and(|(first, _)| first == next) {
                continue;
            }
            let Some(load) = load(next) else { continue };
            match found {
                Some(first) => return Some(better(first, (next, load), rng)),
                None => found = Some((next, load)),
            }
        }
        None
    }

    /// By rejection: how often depends on how uneven the shares are, not on how many there are.
    fn draw(&self, range: Range<usize>, rng: &mut Rng) -> usize {
        if self.shares.is_empty() {
            return rng.usize(range);
        }
        for _ in 0..DRAWS_MAX {
            let index = rng.usize(range.clone());
            if rng.f64() < self.share(index) {
                return index;
            }
        }
        rng.usize(range)
    }

    fn share(&self, index: usize) -> f64 {
        self.shares.get(index).copied().unwrap_or(1.0)
    }

    /// The cheapest, in a large pool of as many as are worth looking at.
    fn least_penalised(
        &self,
        rng: &mut Rng,
        load: impl Fn(usize) -> Option<Load>,
    ) -> Option<(usize, Load)> {
        let cheapest = |of: &mut dyn Iterator<Item = usize>| {
            of.filter_map(|i| Some((i, load(i)?)))
                .min_by(|(_, a), (_, b)| a.weighted().total_cmp(&b.weighted()))
        };
        if self.size <= DRAWS_MAX {
            return cheapest(&mut (0..self.size));
        }
        cheapest(&mut (0..DRAWS_MAX).map(|_| rng.usize(..self.size)))
    }
}

/// The better of two that are drawn from all there are, each by its share, in one pass: every one gets a key,
/// and the two largest are drawn (Efraimidis and Spirakis, "Weighted random sampling with a reservoir", 2006).
fn sample(
    range: Range<usize>,
    rng: &mut Rng,
    load: impl Fn(usize) -> Option<(Load, f64)>,
) -> Option<(usize, Load)> {
    let mut drawn: [Option<(f64, (usize, Load))>; 2] = [None; 2];
    for index in range {
        let Some((load, share)) = load(index) else {
            continue;
        };
        let key = rng.f64().ln() / share;
        let beats = |of: &Option<(f64, _)>| of.is_none_or(|(largest, _)| key > largest);
        let one = Some((key, (index, load)));
        if beats(&drawn[0]) {
            drawn = [one, drawn[0]];
        } else if beats(&drawn[1]) {
            drawn[1] = one;
        }
    }
    let [first, second] = drawn;
    match (first?, second) {
        ((_, first), Some((_, second))) => Some(better(first, second, rng)),
        ((_, only), None) => Some(only),
    }
}

/// The cheaper. If it is only cheaper because it is being spared (slow start), it wins only its share of the
/// comparisons: by cost ÷ weight alone it would get nothing until its ramp is over, and then everything at
/// once.
fn better(a: (usize, Load), b: (usize, Load), rng: &mut Rng) -> (usize, Load) {
    let (cheap, dear) = if b.1.cost.total_cmp(&a.1.cost).is_lt() {
        (b, a)
    } else {
        (a, b)
    };
    let cheap_anyway = cheap.1.weighted() <= dear.1.weighted();
    if cheap_anyway || rng.f64() * dear.1.weight < cheap.1.weight {
        cheap
    } else {
        dear
    }
}

#[cfg(test)]
mod tests;
