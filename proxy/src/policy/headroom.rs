//! Places in the app that lower tiers leave free, so that whoever matters more finds one when it comes.
//!
//! ```text
//!   critical waits while others are in ──▶ + ¼ place       ┌───────────────┬─────┐
//!   every 100 ms                       ──▶ − 5 %           │ all may enter │ kept│  limit
//!                                                          └───────────────┴─────┘
//! ```
//!
//! Taking the important first is not enough where requests are few and long: it still waits until somebody leaves who
//! matters less, and shares the app with as many of those as fit. How many places that takes is not configured but
//! found: as many as make waiting rare. (Ours. Netflix' partitioned limits and DAGOR's levels keep shares that somebody
//! has to choose.)

use super::priority::Tier;

/// For each of a higher tier that waits while others are in the app.
const STEP: f32 = 0.25;
/// What a tick leaves of it: half is gone after 1.4 s without anybody waiting.
const LEFT: f32 = 0.95;

#[derive(Clone, Copy, Debug, Default)]
pub struct Headroom {
    places: f32,
    /// For this tier, and those above it.
    tier: Tier,
}

impl Headroom {
    /// One of this tier has to wait; there are so many places in all.
    pub fn widen(&mut self, tier: Tier, limit: u32) {
        // What is kept for a tier is kept for all above it; less than a place is nothing.
        self.tier = match self.places < 1.0 {
            true => tier,
            false => self.tier.min(tier),
        };
        self.places = (self.places + STEP).min(limit as f32);
    }

    /// Ten times a second.
    pub fn narrow(&mut self) {
        self.places *= LEFT;
    }

    /// How many places one of this tier has to leave free, of so many: never more than three quarters, for whoever
    /// matters less is not to starve.
    pub fn kept_from(&self, tier: Tier, limit: u32) -> u32 {
        match tier > self.tier {
            true => (self.places as u32).min(limit / 4 * 3 + limit % 4 * 3 / 4),
            false => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: u32 = 100;

    fn after(waiting: &[Tier]) -> Headroom {
        let mut headroom = Headroom::default();
        for tier in waiting {
            headroom.widen(*tier, LIMIT);
        }
        headroom
    }

    #[test]
    fn lower_tiers_leave_free_what_higher_ones_had_to_wait_for() {
        let headroom = after(&[Tier::Critical; 8]);
        assert_eq!(headroom.kept_from(Tier::Sheddable, LIMIT), 2);
        assert_eq!(headroom.kept_from(Tier::Default, LIMIT), 2);
        assert_eq!(headroom.kept_from(Tier::Critical, LIMIT), 0);
        assert_eq!(headroom.kept_from(Tier::CriticalPlus, LIMIT), 0);
    }

    #[test]
    fn nobody_who_matters_less_starves() {
        let headroom = after(&[Tier::Critical; 1000]);
        assert_eq!(
            [1, 4, 10, LIMIT].map(|limit| headroom.kept_from(Tier::Sheddable, limit)),
            [0, 3, 7, 75]
        );
    }

    #[test]
    fn it_is_given_back_when_nobody_waits() {
        let mut headroom = after(&[Tier::Critical; 1000]);
        for _ in 0..100 {
            headroom.narrow();
        }
        assert_eq!(headroom.kept_from(Tier::Sheddable, LIMIT), 0);
    }

    #[test]
    fn a_tier_that_waits_below_another_one_narrows_nothing_for_that() {
        let mut headroom = after(&[Tier::Critical; 8]);
        headroom.widen(Tier::Degraded, LIMIT);
        assert!(headroom.kept_from(Tier::Default, LIMIT) > 0);
        let mut headroom = after(&[Tier::Degraded; 8]);
        headroom.widen(Tier::Critical, LIMIT);
        assert!(
            headroom.kept_from(Tier::Degraded, LIMIT) > 0,
            "all below the higher one"
        );
    }
}
