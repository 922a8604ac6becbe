//! Where each request in the app is noted.

use tokio::time::Instant;

use crate::policy::fair::CallerIndex;
use crate::policy::priority::Tier;

/// Where a request in the app is noted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a place must be given back with leave()"]
pub struct Place(pub(super) u32);

/// The requests in the app. Numbers are used again, so it is as long as there were requests at once.
#[derive(Debug, Default)]
pub(super) struct Places {
    pub(super) slots: Vec<Option<Slot>>,
    free: Vec<u32>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    pub(super) caller: CallerIndex,
    pub(super) tier: Tier,
    pub(super) stream: bool,
    pub(super) since: Instant,
    /// The head of its answer is there: the app does not hang, and its reader may.
    pub(super) is_answered: bool,
}

impl Places {
    pub(super) fn take(
        &mut self,
        caller: CallerIndex,
        tier: Tier,
        stream: bool,
        since: Instant,
    ) -> Place {
        let slot = Some(Slot {
            caller,
            tier,
            stream,
            since,
            is_answered: false,
        });
        if let Some(free) = self.free.pop() {
            self.slots[free as usize] = slot;
            return Place(free);
        }
        self.slots.push(slot);
        Place((self.slots.len() - 1) as u32) // no more than the two caps, which are u32
    }

    pub(super) fn give_back(&mut self, place: Place) -> Slot {
        let slot = self.slots[place.0 as usize].take();
        self.free.push(place.0);
        slot.expect("a place is given back once")
    }

    pub(super) fn get(&mut self, place: Place) -> &mut Slot {
        self.slots[place.0 as usize]
            .as_mut()
            .expect("a place is valid until it is given back")
    }
}
