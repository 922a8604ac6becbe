//! How many connections may be open: of both directions together, and fewer from outside, so that strangers cannot take
//! away what the app itself needs to call others; and of those each address has its share, so that none takes away what the
//! others need.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::shares::{self, Shares};
use crate::telemetry::Direction;

pub(super) struct Places {
    all_max: usize,
    all: AtomicUsize,
    inbound: Arc<Shares>,
}

/// Given back when it is dropped.
pub(super) struct Place {
    places: Arc<Places>,
    _inbound: Option<shares::Place>,
}

impl Places {
    /// `each_max`: from one address, of `inbound_max` from outside.
    pub(super) fn new(all_max: usize, inbound_max: usize, each_max: usize) -> Arc<Self> {
        Arc::new(Self {
            all_max,
            all: AtomicUsize::new(0),
            inbound: Shares::new(inbound_max, each_max),
        })
    }

    /// Of both directions.
    pub(super) fn open(&self) -> usize {
        self.all.load(Ordering::Relaxed)
    }

    pub(super) fn take(self: &Arc<Self>, direction: Direction, from: IpAddr) -> Option<Place> {
        let inbound = match direction {
            Direction::Inbound => Some(self.inbound.try_take(from)?),
            Direction::Outbound => None,
        };
        enter(&self.all, self.all_max).then(|| Place {
            places: self.clone(),
            _inbound: inbound,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.all.fetch_sub(1, Ordering::Relaxed);
    }
}

fn enter(count: &AtomicUsize, max: usize) -> bool {
    let one_more = |open| (open < max).then_some(open + 1);
    count
        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more)
        .is_ok()
}

#[cfg(test)]
mod tests {
    use super::Direction::{Inbound, Outbound};
    use super::*;

    fn address(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    fn taken(places: &Arc<Places>, direction: Direction) -> Vec<Place> {
        let next = |last| places.take(direction, address(last));
        (0..=u8::MAX).map_while(next).collect()
    }

    #[test]
    fn strangers_leave_the_apps_own_calls_a_quarter() {
        let places = Places::new(8, 6, 6);
        let strangers = taken(&places, Inbound);
        assert_eq!(strangers.len(), 6);
        let own = taken(&places, Outbound);
        assert_eq!(own.len(), 2, "and no more than all together");

        drop(strangers);
        assert_eq!(taken(&places, Outbound).len(), 6);
        drop(own);
        assert_eq!(taken(&places, Inbound).len(), 6, "nothing is lost");
    }

    #[test]
    fn who_finds_no_place_among_all_keeps_none_of_its_direction() {
        let places = Places::new(8, 6, 6);
        let own = taken(&places, Outbound);
        assert_eq!(own.len(), 8);
        assert!(places.take(Inbound, address(1)).is_none());
        drop(own);
        assert_eq!(taken(&places, Inbound).len(), 6);
    }

    /// One pod that opened 7,500 connections and said nothing kept everybody else out.
    #[test]
    fn one_address_leaves_the_others_their_places() {
        let places = Places::new(8, 6, 2);
        let greedy: Vec<_> = (0..8)
            .filter_map(|_| places.take(Inbound, address(1)))
            .collect();
        assert_eq!(greedy.len(), 2);
        assert!(places.take(Inbound, address(2)).is_some());
        let own = |_| places.take(Outbound, address(1));
        assert_eq!(
            (0..4).filter_map(own).count(),
            4,
            "the app's own have no share"
        );
    }
}
