//! The members of a pool, in the order in which they are chosen from, and what follows from all of them together.

use std::ops::Deref;
use std::sync::Arc;

use crate::balance::Pool;
use crate::member::Member;
use crate::policy::aperture::WHOLE_UP_TO;
use crate::policy::ring::{self, Ring};

/// One snapshot: its parts fit together.
#[derive(Default)]
pub struct Members {
    /// Those nearby first; a large pool in an order of this sidecar's own, else by address.
    list: Vec<Arc<Member>>,
    near: usize,
    /// Empty where all have the same weight.
    shares: Vec<f64>,
    draining: usize,
    /// When calls are told apart by a key.
    pub(super) ring: Option<Ring>,
}

impl Members {
    /// `zone`: the caller's own, where zones matter. `own`: what makes this sidecar's order another than anybody else's.
    pub(super) fn new(
        mut list: Vec<Arc<Member>>,
        zone: Option<&str>,
        hashes: bool,
        own: u64,
    ) -> Self {
        // An endpoint of which nobody says where it is may be anywhere: it is not near.
        let is_near = |member: &Arc<Member>| zone.is_some() && member.zone().as_deref() == zone;
        let is_large = list.len() > WHOLE_UP_TO;
        let rank = |member: &Member| match is_large {
            true => ring::rank(own, member.address().to_string().as_bytes()),
            false => 0,
        };
        list.sort_by_cached_key(|member| (!is_near(member), rank(member), member.address()));
        let near = list.iter().filter(|member| is_near(member)).count();
        let heaviest = list.iter().map(|member| member.weight()).max();
        let heaviest = heaviest.unwrap_or_default();
        let even = list.iter().all(|member| member.weight() == heaviest);
        let shares = match even {
            true => Vec::new(),
            false => (list.iter())
                .map(|member| f64::from(member.weight()) / f64::from(heaviest))
                .collect(),
        };
        let ring = hashes.then(|| {
            let named = |member: &Arc<Member>| (member.address().to_string(), member.weight());
            Ring::new(&list.iter().map(named).collect::<Vec<_>>())
        });
        let draining = list.iter().filter(|member| member.is_draining()).count();
        Self {
            list,
            near,
            shares,
            draining,
            ring,
        }
    }

    /// How many of those nearby, and of the rest, have to be looked at to find so many that take calls.
    pub(super) fn reach(&self, width: usize) -> [usize; 2] {
        let (near, far) = self.list.split_at(self.near);
        [near, far].map(|part| {
            let takes_calls = |member: &Member| member.is_eligible() && !member.is_draining();
            let found = (part.iter().enumerate()).filter(|(_, member)| takes_calls(member));
            found.take(width).last().map_or(0, |(index, _)| index + 1)
        })
    }

    /// `out`: how many are gated. `reach`: as [`Self::reach`] found it, perhaps a moment ago.
    pub(super) fn pool(&self, out: usize, reach: [usize; 2]) -> Pool<'_> {
        let size = self.list.len();
        Pool {
            size,
            reach,
            near: self.near,
            shares: &self.shares,
            most_are_gated: out > size.saturating_sub(out + self.draining),
        }
    }

    /// How many are in the caller's own zone.
    pub fn near(&self) -> usize {
        self.near
    }

    pub(super) fn share(&self, index: usize) -> Option<f64> {
        self.shares.get(index).copied()
    }
}

impl Deref for Members {
    type Target = Vec<Arc<Member>>;

    fn deref(&self) -> &Vec<Arc<Member>> {
        &self.list
    }
}
