//! What there is only so much of, for all peers together and for each address: one that takes all it can leaves the
//! others theirs.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A handle; all clones hand out of the same.
#[derive(Clone)]
pub struct Shares(Arc<Inner>);

struct Inner {
    all_max: usize,
    of_one_max: usize,
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    all: usize,
    /// Only of those that have something, so it is as bounded as what there is to have.
    by_peer: HashMap<IpAddr, usize>,
}

/// Given back when it is dropped.
pub struct Share {
    shares: Shares,
    peer: IpAddr,
    amount: usize,
}

impl Shares {
    pub fn new(all_max: usize, of_one_max: usize) -> Self {
        Self(Arc::new(Inner {
            all_max,
            of_one_max,
            taken: Mutex::default(),
        }))
    }

    /// `None`: there is not so much left, or `peer` has its share.
    pub fn take(&self, peer: IpAddr, amount: usize) -> Option<Share> {
        let mut share = Share {
            shares: self.clone(),
            peer,
            amount: 0,
        };
        share.grow(amount).then_some(share)
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.0.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Share {
    /// Whether there was so much more to have; else it stays as it is.
    pub fn grow(&mut self, amount: usize) -> bool {
        let Inner {
            all_max,
            of_one_max,
            ..
        } = *self.shares.0;
        let mut taken = self.shares.taken();
        let has = taken.by_peer.get(&self.peer).copied().unwrap_or(0);
        if taken.all + amount > all_max || has + amount > of_one_max {
            return false;
        }
        taken.all += amount;
        if amount > 0 {
            taken.by_peer.insert(self.peer, has + amount);
        }
        drop(taken);
        self.amount += amount;
        true
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut taken = self.shares.taken();
        taken.all -= self.amount;
        if let Some(has) = taken.by_peer.get_mut(&self.peer) {
            *has -= self.amount;
            if *has == 0 {
                taken.by_peer.remove(&self.peer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_takes_all_it_can_leaves_the_others_theirs() {
        let (greedy, other) = (IpAddr::from([127, 0, 0, 2]), IpAddr::from([127, 0, 0, 1]));
        let shares = Shares::new(10, 6);
        let mut held = shares.take(greedy, 5).expect("within its share");
        assert!(held.grow(1) && !held.grow(1), "six are its share");
        assert!(shares.take(greedy, 1).is_none());
        let rest = shares.take(other, 4).expect("what is left");
        assert!(shares.take(other, 1).is_none(), "all is taken");
        drop(held);
        assert!(shares.take(other, 2).is_some() && shares.take(other, 3).is_none());
        drop(rest);
        let taken = shares.taken();
        assert_eq!(
            (taken.all, taken.by_peer.len()),
            (0, 0),
            "nobody is remembered"
        );
    }
}
