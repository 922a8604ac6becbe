//! How many connections may be open: of both directions together, and fewer from outside, so that strangers cannot take
//! away what the app itself needs to call others.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::telemetry::Direction;

pub(super) struct Places {
    all_max: usize,
    inbound_max: usize,
    all: AtomicUsize,
    inbound: AtomicUsize,
}

/// Given back when it is dropped.
pub(super) struct Place {
    places: Arc<Places>,
    direction: Direction,
}

impl Places {
    pub(super) fn new(all_max: usize, inbound_max: usize) -> Arc<Self> {
        Arc::new(Self {
            all_max,
            inbound_max,
            all: AtomicUsize::new(0),
            inbound: AtomicUsize::new(0),
        })
    }

    pub(super) fn take(self: &Arc<Self>, direction: Direction) -> Option<Place> {
        if direction == Direction::Inbound && !enter(&self.inbound, self.inbound_max) {
            return None;
        }
        if !enter(&self.all, self.all_max) {
            self.leave_inbound(direction);
            return None;
        }
        Some(Place {
            places: self.clone(),
            direction,
        })
    }

    fn leave_inbound(&self, direction: Direction) {
        if direction == Direction::Inbound {
            self.inbound.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.all.fetch_sub(1, Ordering::Relaxed);
        self.places.leave_inbound(self.direction);
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

    fn taken(places: &Arc<Places>, direction: Direction) -> Vec<Place> {
        std::iter::from_fn(|| places.take(direction)).collect()
    }

    #[test]
    fn strangers_leave_the_apps_own_calls_a_quarter() {
        let places = Places::new(8, 6);
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
        let places = Places::new(8, 6);
        let own = taken(&places, Outbound);
        assert_eq!(own.len(), 8);
        assert!(places.take(Inbound).is_none());
        drop(own);
        assert_eq!(taken(&places, Inbound).len(), 6);
    }
}
