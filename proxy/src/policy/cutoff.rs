//! Cutoff: down to which priority requests are taken while not all can be.
//!
//! ```text
//!   arrivals of the last second, by rank        ▇▃▁▅▆▂▇▇▃▅▆▇▇▅
//!                                               └ capacity ┘▲
//!                                                           └ the cutoff: what comes after it is turned away
//! ```
//!
//! DAGOR's histogram (SoCC '18) with Cinnamon's 768 ranks: ten times a second the cutoff goes to where the arrivals of
//! the last second, counted from the most important, add up to what the app completes. A queue that had to send
//! somebody away takes 5 % off that, one that did not adds 1 %: what was counted lags behind what comes.

use super::priority::{COHORTS, RANKS};

/// The histogram is made of so many slots of a tenth of a second.
const SLOTS: usize = 10;
const LESS: f64 = 0.95;
const MORE: f64 = 1.01;
/// How much more than is completed may be taken: with less, an app that is only busy would turn some away; with more, the
/// queue has to do all the work.
const SHARE: (f64, f64) = (1.0, 1.5);

#[derive(Debug)]
pub struct Cutoff {
    slots: [Box<[u16]>; SLOTS],
    current: usize,
    /// Slots that have been counted, this one included: the first second is not a whole one yet.
    counted: usize,
    totals: Box<[u32]>,
    /// The last rank that is taken.
    rank: usize,
    share: f64,
}

impl Default for Cutoff {
    fn default() -> Self {
        Self {
            slots: std::array::from_fn(|_| vec![0; RANKS].into()),
            current: 0,
            counted: 1,
            totals: vec![0; RANKS].into(),
            rank: RANKS - 1,
            share: SHARE.1,
        }
    }
}

impl Cutoff {
    pub fn offered(&mut self, rank: usize) {
        let slot = &mut self.slots[self.current][rank];
        // A slot that is full is so far beyond any capacity that more makes no difference.
        if let Some(more) = slot.checked_add(1) {
            *slot = more;
            self.totals[rank] += 1;
        }
    }

    pub fn admits(&self, rank: usize) -> bool {
        rank <= self.rank
    }

    /// The last rank of the tier that it cuts through.
    pub fn end_of_tier(&self) -> usize {
        self.rank / usize::from(COHORTS) * usize::from(COHORTS) + usize::from(COHORTS) - 1
    }

    /// Ten times a second. `completed`: by the app in the last second.
    pub fn update(&mut self, completed: u32, overloaded: bool) {
        let step = if overloaded { LESS } else { MORE };
        self.share = (self.share * step).clamp(SHARE.0, SHARE.1);
        let wanted = f64::from(completed) * self.share * self.counted as f64 / SLOTS as f64;
        let mut offered = 0;
        let mut taken = |total: &u32| {
            offered += total;
            f64::from(offered) <= wanted
        };
        let ranks = self.totals.iter().take_while(|total| taken(total)).count();
        // The very first is always taken: an app that has completed nothing yet must get something.
        self.rank = ranks.saturating_sub(1);
        if ranks == RANKS {
            self.rank = RANKS - 1;
        }
        self.current = (self.current + 1) % SLOTS;
        self.counted = (self.counted + 1).min(SLOTS);
        let oldest = &mut self.slots[self.current];
        for (total, old) in self.totals.iter_mut().zip(oldest.iter_mut()) {
            *total -= u32::from(std::mem::take(old));
        }
    }

    /// Everybody is taken again, and what was counted is forgotten.
    pub fn open(&mut self) {
        for slot in &mut self.slots {
            slot.fill(0);
        }
        self.totals.fill(0);
        (self.current, self.counted) = (0, 1);
        (self.rank, self.share) = (RANKS - 1, SHARE.1);
    }
}
