//! The members of a pool, in the order in which they are chosen from, and what follows from all of them together.

use std::ops::Deref;
use std::sync::Arc;

use crate::balance::Pool;
use crate::member::Member;
use crate::policy::ring::Ring;

/// One snapshot: its parts fit together.
#[derive(Default)]
pub struct Members {
    /// Those nearby first, by address.
    list: Vec<Arc<Member>>,
    near: usize,
    /// Empty where all have the same weight.
    shares: Vec<f64>,
    draining: usize,
    /// When calls are told apart by a key.
    pub(super) ring: Option<Ring>,
}

impl Members {
    /// `zone`: the caller's own, where zones matter.
    pub(super) fn new(mut list: Vec<Arc<Member>>, zone: Option<&str>, hashes: bool) -> Self {
        // An endpoint of which nobody says where it is may be anywhere: it is not near.
        let is_near = |member: &Arc<Member>| zone.is_some() && member.zone().as_deref() == zone;
        list.sort_by_cached_key(|member| (!is_near(member), member.address()));
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

    /// `out`: how many are gated.
    pub(super) fn pool(&self, out: usize) -> Pool<'_> {
        let size = self.list.len();
        Pool {
            size,
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
