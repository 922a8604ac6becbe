//! Which facts are kept when there is no room for all. Sidecars tell a hundred facts a second each if somebody wants it
//! so, and strangers cause one with every attempt: neither may push out what the control plane itself did.
//!
//! Each teller has a share, and may have more while the others do not need theirs: when there are too many, the oldest
//! of whoever is furthest beyond its share goes.

use std::collections::VecDeque;

/// Whose doing a fact is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Teller {
    ControlPlane,
    Sidecar,
    /// Whoever asks for a certificate and gets none.
    Stranger,
}

const TELLERS: usize = 3;
/// Of eight parts of all, in the order of tellers.
const PARTS: [usize; TELLERS] = [4, 3, 1];

/// The numbers of the facts that are kept, oldest first, by teller.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    facts_max: usize,
    by_teller: [VecDeque<u64>; TELLERS],
}

impl Teller {
    pub(super) fn of(kind: &str) -> Self {
        match kind {
            "ControlPlaneStarted"
            | "ControlPlaneStopped"
            | "TrustAnchorIntroduced"
            | "PolicyAccepted"
            | "PolicyRejected"
            | "SourceLost"
            | "SourceRegained"
            | "CertificateIssued"
            | "BreakerForced"
            | "BreakerReleased" => Self::ControlPlane,
            "CertificateRefused" => Self::Stranger,
            _ => Self::Sidecar,
        }
    }
}

impl Kept {
    pub(super) fn new(facts_max: u64) -> Self {
        Self {
            facts_max: usize::try_from(facts_max).unwrap_or(usize::MAX),
            by_teller: Default::default(),
        }
    }

    /// Of those before it the newest.
    pub(super) fn push(&mut self, teller: Teller, seq: u64) {
        self.by_teller[teller as usize].push_back(seq);
    }

    /// The next that has to go; `None`: there is room for all.
    pub(super) fn pop(&mut self) -> Option<u64> {
        let count: usize = self.by_teller.iter().map(VecDeque::len).sum();
        if count <= self.facts_max {
            return None;
        }
        // In parts of one, so that a share of less than a fact is one, too.
        let beyond = |(facts, part): &(&mut VecDeque<u64>, usize)| {
            (facts.len() * 8).saturating_sub(self.facts_max.saturating_mul(*part))
        };
        let tellers = self.by_teller.iter_mut().zip(PARTS);
        let (furthest, _) = tellers.max_by_key(beyond)?;
        furthest.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::KINDS;

    fn with(facts_max: u64, told: &[(Teller, u64)]) -> (Kept, Vec<u64>) {
        let mut kept = Kept::new(facts_max);
        let (mut seq, mut gone) = (0, Vec::new());
        for (teller, count) in told {
            for _ in 0..*count {
                seq += 1;
                kept.push(*teller, seq);
                gone.extend(std::iter::from_fn(|| kept.pop()));
            }
        }
        (kept, gone)
    }

    #[test]
    fn whoever_is_alone_has_all_and_loses_the_oldest() {
        for teller in [Teller::ControlPlane, Teller::Sidecar, Teller::Stranger] {
            let (kept, gone) = with(80, &[(teller, 100)]);
            assert_eq!(gone, (1..=20).collect::<Vec<_>>());
            assert_eq!(kept.by_teller[teller as usize].len(), 80);
        }
        let (_, gone) = with(1, &[(Teller::Stranger, 1), (Teller::Sidecar, 1)]);
        assert_eq!(gone.len(), 1);
    }

    #[test]
    fn nobody_is_pushed_below_its_share_by_the_others() {
        use Teller::{ControlPlane, Sidecar, Stranger};
        let (kept, gone) = with(80, &[(ControlPlane, 50), (Stranger, 10), (Sidecar, 1000)]);
        let counts = kept.by_teller.map(|facts| facts.len());
        assert_eq!(counts, [40, 30, 10]);
        assert!(
            !gone.contains(&11) && gone.contains(&10),
            "the newest forty stay"
        );
        let (kept, _) = with(80, &[(ControlPlane, 5), (Sidecar, 1000), (Stranger, 1000)]);
        assert_eq!(kept.by_teller[ControlPlane as usize].len(), 5);
    }

    #[test]
    fn what_the_control_plane_does_is_not_what_others_say() {
        let own = KINDS
            .iter()
            .filter(|kind| Teller::of(kind) == Teller::ControlPlane);
        assert_eq!(own.count(), 10);
        assert_eq!(Teller::of("BreakerOpened"), Teller::Sidecar);
        assert_eq!(Teller::of("CertificateIssued"), Teller::ControlPlane);
        assert_eq!(Teller::of("CertificateRefused"), Teller::Stranger);
    }
}
