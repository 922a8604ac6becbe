//! Who calls the app, and who of them wants more of it than its share.
//!
//! ```text
//!   wants   ▂ ▂ ▃ ▇▇▇▇▇▇▇▇      arrivals a second × how long the app takes for each: places it would fill (Little's law)
//!   ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ the level at which all together fill the limit: who is above it wants too much
//! ```
//!
//! A share is max-min fair: nobody gets more than it wants, and what is left over is divided among those who want more. What
//! one wants is what it asked for in about the last second, not what it holds just now: two requests that happen to meet are
//! no flood. So many callers are known one by one; the rest are one caller together.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::time::Duration;

use super::fair::CallerIndex;

/// Callers that are told apart.
pub const CALLERS_MAX: usize = 256;
/// All callers beyond those.
const OTHERS: CallerIndex = 0;
/// What one wants is looked at so often a second.
const TICKS: f32 = 10.0;
/// Of a tick in what a caller wants, and of a request in what it costs.
const RATE_WEIGHT: f32 = 0.1;
const COST_WEIGHT: f32 = 1.0 / 32.0;

/// Who calls, and how much of the app each holds.
#[derive(Debug)]
pub struct Callers {
    known: Vec<Caller>,
    places: HashMap<u64, CallerIndex, BuildHasherDefault<AsItIs>>,
    /// Where the last search for one to forget ended.
    hand: usize,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Caller {
    key: u64,
    pub in_flight: u32,
    pub queued: u32,
    pub streams: u32,
    /// Since the last tick.
    pub arrived: u32,
    /// Arrivals a second.
    rate: f32,
    /// How long the app usually takes for it, in seconds; 0 before it is known.
    cost: f32,
    /// It wants more of the app than it would get if all shared alike.
    above_share: bool,
}

impl Caller {
    fn is_idle(&self) -> bool {
        self.in_flight + self.queued + self.streams + self.arrived == 0
    }

    #[cfg(test)]
    pub fn cost(&self) -> Duration {
        Duration::from_secs_f32(self.cost)
    }

    pub fn took(&mut self, latency: Duration) {
        let latency = latency.as_secs_f32();
        self.cost = if self.cost == 0.0 {
            latency
        } else {
            self.cost + (latency - self.cost) * COST_WEIGHT
        };
    }

    fn tick(&mut self) {
        let now = self.arrived as f32 * TICKS;
        self.rate += (now - self.rate) * RATE_WEIGHT;
        self.arrived = 0;
        self.above_share = false;
    }

    /// Places that its requests would fill if they all got in (Little's law).
    fn wanted(&self, usual: f32) -> f32 {
        self.rate * if self.cost > 0.0 { self.cost } else { usual }
    }
}

impl Default for Callers {
    fn default() -> Self {
        let mut known = Vec::with_capacity(CALLERS_MAX);
        known.push(Caller::default());
        Self {
            known,
            places: HashMap::with_capacity_and_hasher(CALLERS_MAX, BuildHasherDefault::default()),
            hand: 0,
        }
    }
}

impl Callers {
    /// A caller that is new takes the place of one that is idle; where none is, it is one of the others.
    pub fn find(&mut self, key: u64) -> CallerIndex {
        if let Some(&index) = self.places.get(&key) {
            return index;
        }
        let index = if self.known.len() < CALLERS_MAX {
            self.known.push(Caller::default());
            self.known.len() - 1
        } else {
            // A few looks a time: a flood of names must not cost more than that.
            let mut looks = (0..8).map(|look| 1 + (self.hand + look) % (CALLERS_MAX - 1));
            let idle = looks.find(|&index| self.known[index].is_idle());
            self.hand += 8;
            let Some(index) = idle else { return OTHERS };
            self.places.remove(&self.known[index].key);
            index
        };
        self.known[index] = Caller {
            key,
            ..Caller::default()
        };
        self.places.insert(key, index as CallerIndex);
        index as CallerIndex
    }

    pub fn get(&mut self, caller: CallerIndex) -> &mut Caller {
        &mut self.known[caller as usize]
    }

    pub fn is_above_share(&self, caller: CallerIndex) -> bool {
        self.known[caller as usize].above_share
    }

    /// What each wants is known from now on, and nobody wants too much.
    pub fn tick(&mut self) {
        self.known.iter_mut().for_each(Caller::tick);
    }

    /// Nobody holds or waits for anything.
    #[cfg(test)]
    pub fn are_gone(&self) -> bool {
        let holds = |caller: &Caller| caller.in_flight + caller.queued + caller.streams;
        self.known.iter().all(|caller| holds(caller) == 0)
    }

    /// Max-min fair: the level up to which everybody gets what it wants and all together get the limit.
    pub fn divide(&mut self, limit: u32, usual: Duration) {
        let usual = usual.as_secs_f32();
        let mut wanted: Vec<f32> = (self.known.iter().map(|caller| caller.wanted(usual)))
            .filter(|&wanted| wanted > 0.0)
            .collect();
        wanted.sort_unstable_by(f32::total_cmp);
        let mut left = limit as f32;
        for (place, &wants) in wanted.iter().enumerate() {
            let equal = left / (wanted.len() - place) as f32;
            if wants > equal {
                for caller in &mut self.known {
                    caller.above_share = caller.wanted(usual) > equal;
                }
                return;
            }
            left -= wants;
        }
    }
}

/// The keys are hashes already.
#[derive(Clone, Copy, Debug, Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(byte);
        }
    }

    fn write_u64(&mut self, key: u64) {
        self.0 = key;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Planted: a caller's demand never forgotten, so that everybody is above its share for ever.
    #[test]
    fn the_caller_that_wants_too_much_is_known_and_forgiven() {
        let mut callers = Callers::default();
        let (flood, polite) = (callers.find(7), callers.find(8));
        for _ in 0..20 {
            callers.get(flood).arrived = 100;
            callers.get(polite).arrived = 5;
            callers.tick();
            callers.divide(10, Duration::from_millis(20));
        }
        assert!(callers.is_above_share(flood) && !callers.is_above_share(polite));
        for _ in 0..50 {
            callers.get(polite).arrived = 5;
            callers.tick();
            callers.divide(10, Duration::from_millis(20));
        }
        assert!(!callers.is_above_share(flood));
    }

    #[test]
    fn a_flood_of_names_is_one_caller_and_costs_no_memory() {
        let mut callers = Callers::default();
        let mut found: Vec<CallerIndex> = (1..10_000u64)
            .map(|key| {
                let caller = callers.find(key << 32 | key);
                callers.get(caller).in_flight += 1;
                caller
            })
            .collect();
        assert_eq!(callers.known.len(), CALLERS_MAX);
        assert_eq!(
            found.iter().filter(|&&caller| caller == OTHERS).count(),
            9999 - (CALLERS_MAX - 1)
        );
        for caller in found.drain(..) {
            callers.get(caller).in_flight -= 1;
        }
        assert_ne!(callers.find(1), OTHERS, "who is idle makes room");
        assert_eq!(callers.places.len(), CALLERS_MAX - 1);
    }
}
