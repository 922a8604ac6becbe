//! Places in the app that lower tiers leave free, so that whoever matters more finds one when it comes.
//!
//! ```text
//!   critical waits while others are in ──▶ + ¼ place       ┌───────────────┬─────┐
//!   every 100 ms                       ──▶ − 5 %           │ all may enter │ kept│  limit
//!   critical is slowed in the app      ──▶ fewer may enter └───────────────┴─────┘
//! ```
//!
//! Taking the important first is not enough where requests are few and long: it still waits until somebody leaves who
//! matters less, and shares the app with as many of those as fit. How many places that takes is not configured but
//! found: as many as make waiting rare, and as it takes for whoever is [slowed](super::pace) to take no more than a quarter
//! longer than usual. (Ours. Netflix' partitioned limits and DAGOR's levels keep shares that somebody has to choose.)
//!
//! **Slowed.** The app takes the longer the more are in it, in proportion once all its cores have something to do. So how many
//! there may be when a lower tier enters moves by a fifth of the way (of its logarithm) to what would be right, each tick:
//! gradient limiters (Netflix' Gradient2) do the same for a whole app.

use super::priority::Tier;

/// For each of a higher tier that waits while others are in the app.
const STEP: f32 = 0.25;
/// What a tick leaves of it: half is gone after 1.4 s without anybody waiting.
const LEFT: f32 = 0.95;
/// In times of what is usual, the most that a tier takes.
pub const SLOWED: f32 = 1.25;
/// How much of the way to it a tick goes.
const GAIN: f32 = 0.2;
/// So many ticks with nobody else in the app, and it is somebody else's fault.
const IN_VAIN: u8 = 20;
/// How much more may enter after a tick in which nothing is known of who is spared.
const UNKNOWN: f32 = 1.05;

#[derive(Clone, Copy, Debug, Default)]
pub struct Headroom {
    places: f32,
    /// For this tier, and those above it.
    tier: Tier,
    spared: Option<Spared>,
}

/// A tier that was slowed, and how many there may be in the app when one of a lower tier enters.
#[derive(Clone, Copy, Debug)]
struct Spared {
    tier: Tier,
    room: f32,
    /// Ticks in which it was slowed, and nobody could be kept out any more.
    in_vain: u8,
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

    /// Ten times a second, as long as not all find room: this tier takes so much longer than usual, if that is known, while
    /// so many are in the app. Whether that helps: who is slowed with nobody else in the app is not slowed by others.
    pub fn spare(&mut self, tier: Tier, slowdown: Option<f32>, in_flight: u32, limit: u32) -> bool {
        let right = slowdown.map(|slowdown| SLOWED / slowdown);
        let known = self.spared.filter(|spared| spared.tier <= tier);
        let room = match known {
            Some(known) => known.room * right.map_or(UNKNOWN, |right| right.powf(GAIN)),
            None => in_flight as f32 * right.unwrap_or(1.0),
        };
        let is_in_vain = room <= 1.0 && right.is_some_and(|right| right < 1.0);
        let in_vain = match is_in_vain {
            true => 1 + known.map_or(0, |known| known.in_vain),
            false => 0,
        };
        let room = room.clamp(1.0, limit.max(1) as f32);
        self.spared = Some(Spared {
            tier,
            room,
            in_vain,
        });
        in_vain < IN_VAIN
    }

    /// All find room.
    pub fn spare_nobody(&mut self) {
        self.spared = None;
    }

    pub fn spared(&self) -> Option<Tier> {
        self.spared.map(|spared| spared.tier)
    }

    /// How many places one of this tier has to leave free, of so many. For those who waited never more than three quarters:
    /// whoever matters less is not to starve. Who is slowed leaves one place at least.
    pub fn kept_from(&self, tier: Tier, limit: u32) -> u32 {
        let waited_for = match tier > self.tier {
            true => (self.places as u32).min(limit / 4 * 3 + limit % 4 * 3 / 4),
            false => 0,
        };
        let spared = self.spared.filter(|spared| tier > spared.tier);
        let spared = spared.map_or(0, |it| limit.saturating_sub(it.room.round() as u32));
        waited_for.max(spared)
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

    /// As many as are in the app while it takes so much longer, until that is right.
    #[test]
    fn who_is_slowed_shares_the_app_with_fewer() {
        let mut headroom = Headroom::default();
        headroom.spare(Tier::Critical, Some(2.5), 40, LIMIT);
        assert_eq!(headroom.spared(), Some(Tier::Critical));
        assert_eq!(headroom.kept_from(Tier::Default, LIMIT), LIMIT - 20);
        assert_eq!(headroom.kept_from(Tier::Critical, LIMIT), 0);
        headroom.spare(Tier::Critical, Some(SLOWED), 40, LIMIT);
        assert_eq!(headroom.kept_from(Tier::Default, LIMIT), LIMIT - 20);
        for _ in 0..10 {
            headroom.spare(Tier::Critical, Some(9.0), 40, LIMIT);
        }
        assert_eq!(
            headroom.kept_from(Tier::Default, LIMIT),
            LIMIT - 1,
            "nobody starves"
        );
        for _ in 0..1000 {
            headroom.spare(Tier::Critical, Some(1.0), 40, LIMIT);
        }
        assert_eq!(headroom.kept_from(Tier::Default, LIMIT), 0);
    }

    /// It would have kept the app from everybody else for as long as they come.
    #[test]
    fn who_was_slowed_and_comes_no_more_is_spared_no_more() {
        let mut headroom = Headroom::default();
        headroom.spare(Tier::Critical, Some(9.0), 4, LIMIT);
        assert_eq!(headroom.kept_from(Tier::Default, LIMIT), LIMIT - 1);
        for _ in 0..100 {
            headroom.spare(Tier::Critical, None, 4, LIMIT);
        }
        assert_eq!(headroom.kept_from(Tier::Default, LIMIT), 0);
        headroom.spare(Tier::Critical, Some(9.0), 4, LIMIT);
        headroom.spare_nobody();
        assert_eq!(headroom.kept_from(Tier::Default, LIMIT), 0, "all find room");
    }

    /// Of what has become slower by itself the others would have been kept out for as long as they come.
    #[test]
    fn who_is_slowed_with_nobody_else_in_the_app_is_not_slowed_by_others() {
        let mut headroom = Headroom::default();
        let mut helps = |slowdown| headroom.spare(Tier::Critical, Some(slowdown), 1, LIMIT);
        assert!((0..19).all(|_| helps(3.0)));
        assert!(!helps(3.0));
        assert!(helps(1.0));
        assert!(helps(3.0), "it did for a moment");
    }

    #[test]
    fn a_higher_tier_that_is_slowed_is_spared_in_place_of_a_lower_one() {
        let mut headroom = Headroom::default();
        headroom.spare(Tier::Default, Some(2.5), 40, LIMIT);
        headroom.spare(Tier::Critical, Some(2.5), 20, LIMIT);
        assert_eq!(headroom.kept_from(Tier::Default, LIMIT), LIMIT - 10);
    }
}
