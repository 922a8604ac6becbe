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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::priority::{Priority, Tier};

    /// A second of 128 cohorts of critical and of sheddable requests, so many of each.
    fn second(
        cutoff: &mut Cutoff,
        critical: u32,
        sheddable: u32,
        completed: u32,
        overloaded: bool,
    ) {
        for _ in 0..SLOTS {
            for (tier, count) in [(Tier::Critical, critical), (Tier::Sheddable, sheddable)] {
                for cohort in 0..COHORTS {
                    (0..count).for_each(|_| cutoff.offered(Priority { tier, cohort }.rank()));
                }
            }
            cutoff.update(completed, overloaded);
        }
    }

    fn admitted(cutoff: &Cutoff, tier: Tier) -> u8 {
        let admits = |&cohort: &u8| cutoff.admits(Priority { tier, cohort }.rank());
        (0..COHORTS).filter(admits).count() as u8
    }

    /// Planted: counting from the least important.
    #[test]
    fn what_matters_is_taken_first_and_of_the_rest_what_fits() {
        let mut cutoff = Cutoff::default();
        assert_eq!(admitted(&cutoff, Tier::Sheddable), COHORTS, "open at first");
        (0..3).for_each(|_| second(&mut cutoff, 1, 10, 3840, true));
        assert_eq!(admitted(&cutoff, Tier::Critical), COHORTS);
        // 3840 a second are completed, 1280 are critical; 100 a second come in each sheddable cohort.
        assert_eq!(admitted(&cutoff, Tier::Sheddable), 25);
    }

    #[test]
    fn a_queue_that_sends_nobody_away_takes_a_little_more() {
        let mut cutoff = Cutoff::default();
        (0..3).for_each(|_| second(&mut cutoff, 1, 10, 3840, true));
        second(&mut cutoff, 1, 10, 3840, false);
        let more = admitted(&cutoff, Tier::Sheddable);
        assert!((27..=30).contains(&more), "{more}");
    }

    #[test]
    fn an_app_that_has_completed_nothing_yet_still_gets_the_first() {
        let mut cutoff = Cutoff::default();
        second(&mut cutoff, 1, 1, 0, true);
        assert!(cutoff.admits(0));
    }

    #[test]
    fn opened_it_takes_everybody_and_has_forgotten_what_it_counted() {
        let mut cutoff = Cutoff::default();
        (0..3).for_each(|_| second(&mut cutoff, 1, 10, 100, true));
        assert_eq!(admitted(&cutoff, Tier::Sheddable), 0);
        cutoff.open();
        assert_eq!(admitted(&cutoff, Tier::Sheddable), COHORTS);
        cutoff.update(100, false);
        assert_eq!(admitted(&cutoff, Tier::Sheddable), COHORTS);
    }
}
