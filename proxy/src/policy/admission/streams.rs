//! What lasts as long as its caller likes: upgrades, event streams, and long polls, which are found out by their age.

use std::time::Duration;

use tokio::time::Instant;

use super::places::{Place, Slot};
use super::{Admission, Arrival, Entry, Reason};
use crate::policy::fair::CallerIndex;

/// A request that is so much older than what is usual here is a long poll, as long as others get their answers.
const LONG: Duration = Duration::from_secs(1);
const LONG_BASELINES: u32 = 20;

impl<T> Admission<T> {
    pub(super) fn arrive_stream(
        &mut self,
        arrival: Arrival,
        caller: CallerIndex,
        now: Instant,
    ) -> Entry {
        if self.streams >= self.config.streams_max {
            let refused = self.shed(arrival.priority.tier, Reason::Streams);
            if !self.observes {
                return refused;
            }
        }
        self.streams += 1;
        self.counts.admitted += 1;
        self.callers.get(caller).streams += 1;
        let tier = arrival.priority.tier;
        Entry::Admitted(self.places.take(caller, tier, true, now))
    }

    /// It turns out to be a stream: it is counted with those from now on, as long as there is room among them.
    pub fn is_stream(&mut self, place: Place, now: Instant) {
        if self.reclassify(place) {
            self.admit_next(now);
        }
    }

    fn reclassify(&mut self, place: Place) -> bool {
        let slot = self.places.get(place);
        if slot.stream || self.streams >= self.config.streams_max {
            return false;
        }
        slot.stream = true;
        let tier = slot.tier;
        let caller = self.callers.get(slot.caller);
        caller.in_flight -= 1;
        caller.streams += 1;
        self.in_flight -= 1;
        self.of_tier[tier.index()] -= 1;
        self.streams += 1;
        true
    }

    /// The head of its answer is there, and more will follow.
    pub fn is_answered(&mut self, place: Place) {
        self.places.get(place).is_answered = true;
    }

    /// Others get their answers in time, and these do not: they are meant to last. Those that are answered and do not end
    /// wait for whoever reads them: were the app full of them, nobody else would ever get an answer.
    pub(super) fn find_long_polls(&mut self, now: Instant) {
        let baseline = self.knee.baseline();
        let old = LONG.max(baseline.unwrap_or_default() * LONG_BASELINES);
        let others_answered = baseline.is_some() && self.ticks.completed() > 0;
        for index in 0..self.places.slots.len() {
            let is_long = |slot: Slot| {
                let is_old = now.saturating_duration_since(slot.since) > old;
                !slot.stream && is_old && (slot.is_answered || others_answered)
            };
            if self.places.slots[index].is_some_and(is_long) {
                self.reclassify(Place(index as u32));
            }
        }
    }
}
