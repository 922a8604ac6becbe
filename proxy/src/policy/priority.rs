//! Priority: whose request comes first when not all can be served.
//!
//! ```text
//!   tier    critical-plus ▸ critical ▸ default ▸ degraded ▸ best-effort ▸ sheddable     how much it matters
//!   cohort  0 ▸ 1 ▸ … ▸ 127                                                             whose turn it is, this hour
//!           └──────────── rank: 6 × 128 of them, the lower the better ────────────┘
//! ```
//!
//! Six tiers by 128 cohorts, as Uber's Cinnamon and WeChat's DAGOR have it. A cohort is drawn from what requests of
//! one user action have in common, their trace id, so that all hops serve the same actions instead of each another
//! part of everybody's; and from the hour, so that nobody is unlucky for long.
//!
//! The tier comes from the service's own policy, by the caller's proven identity or by route; else from the
//! `x-weir-criticality` of a caller that has proven an identity; else it is [`Tier::Default`]. From sidecar to sidecar
//! it reads `critical; cohort=17`, an item with a parameter as RFC 9651 writes it.

use std::sync::LazyLock;

use http::HeaderValue;

/// Cohorts in a tier.
pub const COHORTS: u8 = 128;
/// Places in the order of all requests.
pub const RANKS: usize = Tier::COUNT * COHORTS as usize;
const SECONDS_AN_HOUR: u64 = 3600;

/// How much a request matters, the most first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Tier {
    CriticalPlus,
    Critical,
    #[default]
    Default,
    Degraded,
    BestEffort,
    Sheddable,
}

impl Tier {
    pub const COUNT: usize = 6;
    pub const ALL: [Self; Self::COUNT] = [
        Self::CriticalPlus,
        Self::Critical,
        Self::Default,
        Self::Degraded,
        Self::BestEffort,
        Self::Sheddable,
    ];

    /// In headers and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CriticalPlus => "critical-plus",
            Self::Critical => "critical",
            Self::Default => "default",
            Self::Degraded => "degraded",
            Self::BestEffort => "best-effort",
            Self::Sheddable => "sheddable",
        }
    }

    pub const fn index(self) -> usize {
        self as usize
    }
}

/// What goes first: a small value that travels with the request, and through the app with its trace id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Priority {
    pub tier: Tier,
    /// 0 to 127.
    pub cohort: u8,
}

impl Priority {
    /// Of a request that says nothing of itself: `id` is what it shares with the other requests of its user action.
    pub fn of(tier: Tier, id: &[u8], unix_seconds: u64) -> Self {
        Self {
            tier,
            cohort: cohort(id, unix_seconds / SECONDS_AN_HOUR),
        }
    }

    /// The place in the order of all; lower goes first.
    pub const fn rank(self) -> usize {
        self.tier.index() * COHORTS as usize + self.cohort as usize
    }

    /// The value of `x-weir-criticality`. Made once, so it costs a reference count.
    pub fn header(self) -> HeaderValue {
        static VALUES: LazyLock<Vec<HeaderValue>> = LazyLock::new(|| {
            let ranks = Tier::ALL
                .iter()
                .flat_map(|tier| (0..COHORTS).map(move |cohort| (tier.as_str(), cohort)));
            let value = |(tier, cohort)| HeaderValue::try_from(format!("{tier}; cohort={cohort}"));
            ranks
                .map(|rank| value(rank).expect("it is printable ASCII"))
                .collect()
        });
        VALUES[self.rank().min(RANKS - 1)].clone()
    }

    /// `critical` or `critical; cohort=17`; without a cohort, the one of `otherwise`. `None`: malformed, which is as if
    /// it were absent.
    pub fn parse(value: &[u8], otherwise: Self) -> Option<Self> {
        let text = std::str::from_utf8(value).ok()?;
        let mut parts = text.split(';').map(str::trim);
        let name = parts.next()?;
        let tier = Tier::ALL.into_iter().find(|tier| tier.as_str() == name)?;
        let mut priority = Self { tier, ..otherwise };
        for part in parts {
            // Other parameters are somebody's future.
            if let Some(cohort) = part.strip_prefix("cohort=") {
                priority.cohort = cohort.parse().ok().filter(|&cohort| cohort < COHORTS)?;
            }
        }
        Some(priority)
    }
}

/// FNV-1a, and MurmurHash3's finaliser because the seven bits that count must depend on all others: cheap for the 32
/// bytes that ids have, and the same on every machine of the mesh.
fn cohort(id: &[u8], hour: u64) -> u8 {
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(PRIME);
    let mut hash = id.iter().fold(OFFSET ^ hour.wrapping_mul(PRIME), step);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    (hash >> 57) as u8 // 7 bits: 0 to 127
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_priority_survives_the_way_to_the_next_sidecar() {
        for tier in Tier::ALL {
            for cohort in 0..COHORTS {
                let priority = Priority { tier, cohort };
                let header = priority.header();
                let read = Priority::parse(header.as_bytes(), Priority::default());
                assert_eq!(read, Some(priority), "{header:?}");
            }
        }
    }

    #[test]
    fn what_is_malformed_says_nothing_and_what_is_unknown_is_skipped() {
        let otherwise = Priority {
            tier: Tier::Default,
            cohort: 5,
        };
        let read = |text: &str| Priority::parse(text.as_bytes(), otherwise);
        let critical = |cohort| Priority {
            tier: Tier::Critical,
            cohort,
        };
        assert_eq!(read("critical"), Some(critical(5)));
        assert_eq!(read("critical;cohort=3;later=1"), Some(critical(3)));
        for wrong in [
            "",
            "Critical",
            "critical-",
            "critical; cohort=128",
            "critical;cohort=-1",
            "critical;cohort=x",
            "2",
        ] {
            assert_eq!(read(wrong), None, "{wrong:?}");
        }
        assert_eq!(Priority::parse(b"critical\xff", otherwise), None);
    }

    #[test]
    fn ranks_put_every_cohort_of_a_tier_before_the_next_tier() {
        let mut ranks: Vec<usize> = Vec::new();
        for tier in Tier::ALL {
            ranks.extend((0..COHORTS).map(|cohort| Priority { tier, cohort }.rank()));
        }
        assert_eq!(ranks, (0..RANKS).collect::<Vec<_>>());
    }

    #[test]
    fn an_action_has_one_cohort_everywhere_for_an_hour_and_then_mostly_another() {
        let of = |id: &str, hour: u64| {
            Priority::of(Tier::Default, id.as_bytes(), hour * 3600 + 59).cohort
        };
        let ids: Vec<String> = (0..1280).map(|id| format!("{id:032x}")).collect();
        assert!(ids.iter().all(|id| of(id, 7) == Priority::of(Tier::Critical, id.as_bytes(), 7 * 3600).cohort));
        let same = ids.iter().filter(|id| of(id, 7) == of(id, 8)).count();
        assert!(same < 40, "{same} of 1280 kept their cohort");
        let mut sizes = [0; COHORTS as usize];
        ids.iter().for_each(|id| sizes[usize::from(of(id, 7))] += 1);
        assert!(
            sizes.iter().all(|&size| size < 40),
            "cohorts of like size: {sizes:?}"
        );
    }
}
