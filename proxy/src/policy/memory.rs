//! How short of memory the sidecar is, from how much of its limit it uses.
//!
//! ```text
//!            ≥ 80 %, and still after the     ≥ 90 %
//!            allocator gave back its stock
//!   Enough ───────────────────────────▶ Short ─────▶ Critical
//!      ▲  └──────────────── ≥ 90 % ───────────────────▶ ▲ │
//!      │                                │  ▲               │
//!      └──────────── < 75 % ────────────┘  └─── < 85 % ────┘
//! ```
//!
//! The kernel ends whoever uses all of it, with every call in flight; who refuses some of them before that loses those
//! alone (Envoy's overload manager; resilience.md section 8). What an allocator has freed and keeps is used as the kernel
//! counts, and is room as we do: so it is asked to give that back before anybody is refused, where there is time for it.
//!
//! No clock, no lock: the caller looks often.

/// In percent of the limit.
const SHORT: u64 = 80;
const CRITICAL: u64 = 90;
/// So far below either it has passed.
const SLACK: u64 = 5;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Level {
    #[default]
    Enough,
    /// Few calls at a time are begun.
    Short,
    /// And few connections are taken.
    Critical,
}

#[derive(Debug, Default)]
pub struct Memory {
    level: Level,
    /// The allocator has been asked since it was last below.
    asked: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Observed {
    pub level: Level,
    /// The allocator should give back what it has in stock, before the next look.
    pub give_back: bool,
}

impl Memory {
    /// `used` and `limit` in bytes.
    pub fn observe(&mut self, used: u64, limit: u64) -> Observed {
        let percent = u128::from(used) * 100 / u128::from(limit.max(1));
        let is_above = |bound: u64, holds: bool| {
            let bound = if holds { bound - SLACK } else { bound };
            percent >= u128::from(bound)
        };
        let seen = if is_above(CRITICAL, self.level == Level::Critical) {
            Level::Critical
        } else if is_above(SHORT, self.level >= Level::Short) {
            Level::Short
        } else {
            Level::Enough
        };
        let is_news = self.level == Level::Enough && seen == Level::Short;
        if !is_news || self.asked {
            self.level = seen;
        }
        self.asked = seen > Level::Enough;
        Observed {
            level: self.level,
            give_back: self.asked,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Level::{Critical, Enough, Short};
    use super::*;

    const LIMIT: u64 = 1000;

    fn levels(memory: &mut Memory, used: &[u64]) -> Vec<Level> {
        let observe = |used: &u64| memory.observe(*used, LIMIT).level;
        used.iter().map(observe).collect()
    }

    #[test]
    fn a_stock_that_the_allocator_gives_back_is_no_shortage() {
        let mut memory = Memory::default();
        let asked = memory.observe(890, LIMIT);
        assert_eq!((asked.level, asked.give_back), (Enough, true));
        assert_eq!(levels(&mut memory, &[700, 820, 600]), [Enough; 3]);
        let asked = memory.observe(600, LIMIT);
        assert!(!asked.give_back);
    }

    #[test]
    fn what_is_used_is_a_shortage_until_there_is_room_again() {
        let mut memory = Memory::default();
        let used = [800, 800, 899, 900, 860, 849, 760, 749, 799];
        let expected = [
            Enough, Short, Short, Critical, Critical, Short, Short, Enough, Enough,
        ];
        assert_eq!(levels(&mut memory, &used), expected);
    }

    #[test]
    fn with_next_to_nothing_left_nobody_is_asked_first() {
        let mut memory = Memory::default();
        let observed = memory.observe(900, LIMIT);
        assert_eq!((observed.level, observed.give_back), (Critical, true));
    }

    #[test]
    fn while_it_lasts_the_allocator_is_asked_again() {
        let mut memory = Memory::default();
        for used in [850, 850, 950, 870, 780] {
            assert!(memory.observe(used, LIMIT).give_back, "{used}");
        }
        assert!(!memory.observe(740, LIMIT).give_back);
    }

    proptest! {
        /// Whatever it was before, above the bounds it is short and well below them it is not.
        #[test]
        fn two_looks_are_enough(before in prop::collection::vec(0..2000_u64, 0..20), used in prop_oneof![0..1200_u64, 1200..u64::MAX / 200]) {
            let mut memory = Memory::default();
            levels(&mut memory, &before);
            let level = levels(&mut memory, &[used, used])[1];
            match used {
                900.. => prop_assert_eq!(level, Critical),
                800..900 => prop_assert!(level >= Short),
                0..750 => prop_assert_eq!(level, Enough),
                _ => {}
            }
        }
    }
}
