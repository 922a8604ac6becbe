//! Which endpoint a key belongs to, and who is next when that one has enough to do.
//!
//! ```text
//!            e2  e0    e1     e2  e1      e0
//!   ring ──●───●─────●──────●───●───────●──▶   every endpoint has many points on it
//!               key ▲└─────▶ its endpoint; gated, full or above the bound: the next point's
//! ```
//!
//! Consistent hashing (Karger et al. 1997) with bounded loads (Mirrokni, Thorup and Zadimoghaddam 2016): no endpoint
//! gets a call while it has its bound, a factor times the average, already. A ring rather than Maglev's table (Eisenbud
//! et al. 2016) because "the next" is what the bound needs and an endpoint that goes takes only its own keys with it;
//! rather than rendezvous hashing because a look-up is a binary search and not one hash for each of 500 endpoints.
//!
//! Points depend on the endpoint's address and weight alone, and hashes on nothing that differs between machines or
//! versions: all sidecars agree.

use crate::balance::{Candidate, Standing};

/// Of an endpoint of ordinary weight: its keys are even to about 1/√160, 8 %.
const POINTS: usize = 160;
/// Of all endpoints together: 1 MiB. More than 400 endpoints have fewer points each.
const POINTS_MAX: usize = 1 << 16;
/// Mirrokni et al.: 1/ε² points are looked at on average, 16 for a bound of 1.25. Beyond this nobody is near.
const WALK_MAX: usize = 128;
const ORDINARY: u32 = 100;

/// FNV-1a, and MurmurHash3's finaliser because all bits decide where on the ring it is.
pub fn hash(bytes: &[u8]) -> u64 {
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(PRIME);
    mixed(bytes.iter().fold(OFFSET, step))
}

/// Where `name` stands in `own`'s order of them: another order for each, and the same as long as both are.
pub fn rank(own: u64, name: &[u8]) -> u64 {
    mixed(hash(name) ^ own)
}

fn mixed(hash: u64) -> u64 {
    let hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

pub struct Ring {
    /// By hash; the endpoint's place in the list that the ring was made from.
    points: Box<[(u64, u32)]>,
    /// Of all endpoints.
    weight: f64,
}

/// What all endpoints have in flight together, and how much of the average one may have.
#[derive(Clone, Copy, Debug)]
pub struct Bound {
    pub in_flight: usize,
    /// 1.25, say.
    pub factor: f64,
    /// The share of endpoints that takes calls, above 0.0 and up to 1.0.
    pub available: f64,
}

/// What is looked at of an endpoint.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    pub candidate: Candidate,
    pub in_flight: u32,
    /// 100 is an ordinary endpoint's.
    pub weight: u32,
}

impl Ring {
    /// `endpoints`: what each is called everywhere, and its weight.
    pub fn new<T: AsRef<[u8]>>(endpoints: &[(T, u32)]) -> Self {
        let wanted: usize = endpoints.iter().map(|(_, weight)| points(*weight)).sum();
        // By whole points from the end of each endpoint's sequence, so that few keys move when the number changes.
        let scale = (POINTS_MAX as f64 / wanted.max(1) as f64).min(1.0);
        let mut all = Vec::with_capacity(wanted.min(POINTS_MAX));
        for (index, (name, weight)) in endpoints.iter().enumerate() {
            let own = hash(name.as_ref());
            let count = ((points(*weight) as f64 * scale) as usize).max(1);
            let index = u32::try_from(index).expect("discovery does not name four billion");
            let point = |number: usize| (mixed(own ^ mixed(number as u64 + 1)), index);
            all.extend((0..count).map(point));
        }
        all.sort_unstable();
        Self {
            points: all.into(),
            weight: endpoints.iter().map(|(_, weight)| f64::from(*weight)).sum(),
        }
    }

    /// The key's endpoint, or the first after it that is eligible and below the bound. `None`: there is none nearby.
    pub fn choose(
        &self,
        key: u64,
        bound: Bound,
        tried: &[usize],
        place: impl Fn(usize) -> Place,
    ) -> Option<usize> {
        self.walk(key).take(WALK_MAX).find(|index| {
            if tried.contains(index) {
                return false;
            }
            let place = place(*index);
            place.candidate.standing == Standing::Eligible
                && place.in_flight
                    < bound.of(place.weight, self.weight, place.candidate.load.weight)
        })
    }

    /// From the key on, once around; endpoints come as often as they have points.
    fn walk(&self, key: u64) -> impl Iterator<Item = usize> {
        let start = self.points.partition_point(|(point, _)| *point < key);
        let (before, after) = self.points.split_at(start);
        (after.iter().chain(before)).map(|(_, index)| *index as usize)
    }
}

impl Bound {
    /// So many may an endpoint have in flight, the next call included. `spared`: its share in slow start.
    fn of(self, weight: u32, of_all: f64, spared: f64) -> u32 {
        let share = f64::from(weight) / of_all / self.available;
        let calls = (self.in_flight as f64 + 1.0) * self.factor * share * spared;
        // A whole number must not become the next one by how it was divided; a bound that does not fit is none.
        (calls - 1e-9).ceil().max(1.0) as u32
    }
}

fn points(weight: u32) -> usize {
    (POINTS * weight as usize / ORDINARY as usize).max(1)
}

#[cfg(test)]
mod tests;
