//! The queue before the app: who waits, in what order they are taken, and who is sent away.
//!
//! ```text
//!   tier            callers, in turn       waiting
//!   critical   ▶  ┌ checkout ─────────  ▢            taken first
//!                 └ frontend ─────────  ▢ ▢
//!   default    ▶  ┌ frontend ─────────  ▢ ▢
//!                 └ crawler ──────────  ▢ ▢ ▢ ▢ ▢ ▢   standing for 100 ms: newest first, the rest within 50 ms or not at all
//! ```
//!
//! Tiers come one after the other. Within a tier callers come in turn: deficit round robin (Shreedhar and Varghese,
//! SIGCOMM '95), which is plain round robin as all requests weigh the same here; those that hold their share of the
//! app already come after those that do not. Each caller has a queue of its own in each tier, as in fq_codel (RFC 8290),
//! so that only those who make a queue stand wait in it. Within it: first come first served, until it has not been empty
//! for 100 ms; then newest first, and who has waited 50 ms is sent away (CoDel as Facebook runs it, ACM Queue 13(8)):
//! the newest is the one whose caller is still there.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::priority::Tier;

/// A queue that has not been empty for so long is a standing one (CoDel's interval).
pub const STANDING: Duration = Duration::from_millis(100);
/// What one may wait in it (CoDel's target). Facebook has 5 ms, and limits that do not move. Ours is found by what the app takes:
/// in the simulation the median is the same with 5, the worst of 200 seeds is not (back from a storm after 9 s rather than one,
/// p99 in bursts of twenty 528 ms rather than 307): there is nobody left to fill the places of who is through.
pub const WAIT_STANDING: Duration = Duration::from_millis(50);

/// A caller, as [`Admission`](super::admission::Admission) numbers them.
pub type CallerIndex = u32;

/// Where one waits, and its number there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WaiterId {
    tier: Tier,
    caller: CallerIndex,
    number: u64,
}

#[derive(Debug)]
pub struct Waiter<T> {
    pub id: WaiterId,
    pub since: Instant,
    until: Instant,
    /// Whoever acts on what is decided.
    pub who: T,
}

#[derive(Debug)]
pub struct FairQueue<T> {
    length_max: u32,
    length: u32,
    next_number: u64,
    /// By tier; those of a tier in the order of their turns, none of them empty.
    flows: [VecDeque<Flow<T>>; Tier::COUNT],
}

#[derive(Debug)]
struct Flow<T> {
    caller: CallerIndex,
    /// By number, ascending.
    waiting: VecDeque<Waiter<T>>,
    /// Since when it has not been empty.
    since: Instant,
}

impl<T> FairQueue<T> {
    pub fn new(length_max: u32) -> Self {
        Self {
            length_max,
            length: 0,
            next_number: 0,
            flows: std::array::from_fn(|_| VecDeque::new()),
        }
    }

    pub fn len(&self) -> u32 {
        self.length
    }

    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// The tier that is taken next.
    pub fn first_tier(&self) -> Option<Tier> {
        let waits = |tier: &Tier| !self.flows[tier.index()].is_empty();
        (!self.is_empty()).then(|| Tier::ALL.into_iter().find(waits))?
    }

    pub fn is_full(&self) -> bool {
        self.length >= self.length_max
    }

    /// A shorter queue sends nobody away; it only takes nobody in until it has shrunk.
    pub fn set_length_max(&mut self, length_max: u32) {
        self.length_max = length_max;
    }

    /// Waits until `until`, unless it is sent away before. Room has been made: [`FairQueue::make_room`].
    pub fn join(
        &mut self,
        tier: Tier,
        caller: CallerIndex,
        until: Instant,
        who: T,
        now: Instant,
    ) -> WaiterId {
        let id = WaiterId {
            tier,
            caller,
            number: self.next_number,
        };
        self.next_number += 1;
        self.length += 1;
        let flows = &mut self.flows[tier.index()];
        let place = flows.iter().position(|flow| flow.caller == caller);
        let flow = match place {
            Some(place) => &mut flows[place],
            None => {
                flows.push_back(Flow {
                    caller,
                    waiting: VecDeque::new(),
                    since: now,
                });
                flows.back_mut().expect("it was just added")
            }
        };
        flow.waiting.push_back(Waiter {
            id,
            since: now,
            until,
            who,
        });
        id
    }

    /// Whether there is room for one more of this tier and caller; where the queue is full, somebody who comes after it
    /// may have to go: of the lowest tier, the oldest of the caller who has the most waiting.
    pub fn make_room(
        &mut self,
        tier: Tier,
        caller: CallerIndex,
        now: Instant,
    ) -> Result<Option<Waiter<T>>, Full> {
        if !self.is_full() {
            return Ok(None);
        }
        if self.length_max == 0 {
            return Err(Full);
        }
        let lowest = (self.flows.iter().rposition(|flows| !flows.is_empty())).ok_or(Full)?;
        let flows = &self.flows[lowest];
        let length = |flow: &Flow<T>| flow.waiting.len();
        let longest = (0..flows.len())
            .max_by_key(|&place| length(&flows[place]))
            .ok_or(Full)?;
        let flow = &flows[longest];
        let own = flows.iter().find(|flow| flow.caller == caller);
        let goes = match lowest.cmp(&tier.index()) {
            std::cmp::Ordering::Greater => true,
            std::cmp::Ordering::Less => false,
            // Newest first: then the newcomer is the one to keep.
            _ if flow.caller == caller => flow.is_standing(now),
            _ => length(flow) > own.map_or(0, length) + 1,
        };
        if !goes {
            return Err(Full);
        }
        let gone = self.flows[lowest][longest].waiting.pop_front();
        self.length -= 1;
        self.drop_if_empty(lowest, longest);
        Ok(gone)
    }

    /// Whose turn it is. `has_share`: callers that hold their share of the app come after those that do not. Who has
    /// waited too long goes to `late`.
    pub fn pop(
        &mut self,
        has_share: impl Fn(CallerIndex) -> bool,
        late: &mut Vec<Waiter<T>>,
        now: Instant,
    ) -> Option<Waiter<T>> {
        for tier in 0..Tier::COUNT {
            while !self.flows[tier].is_empty() {
                let flows = &mut self.flows[tier];
                let entitled = flows.iter().position(|flow| !has_share(flow.caller));
                let place = entitled.unwrap_or(0); // idle shares are lent
                let before = late.len();
                let next = flows[place].take(late, now);
                self.length -= (late.len() - before) as u32 + u32::from(next.is_some());
                // Its next turn comes after everybody else's.
                if let Some(flow) = flows.remove(place)
                    && !flow.waiting.is_empty()
                {
                    flows.push_back(flow);
                }
                if next.is_some() {
                    return next;
                }
            }
        }
        None
    }

    /// One gives up; `None`: it waits no longer.
    pub fn leave(&mut self, id: WaiterId) -> Option<Waiter<T>> {
        let tier = id.tier.index();
        let flows = &mut self.flows[tier];
        let place = flows.iter().position(|flow| flow.caller == id.caller)?;
        let waiting = &mut flows[place].waiting;
        let found = waiting.binary_search_by_key(&id.number, |waiter| waiter.id.number);
        let waiter = waiting.remove(found.ok()?)?;
        self.length -= 1;
        self.drop_if_empty(tier, place);
        Some(waiter)
    }

    fn drop_if_empty(&mut self, tier: usize, place: usize) {
        if self.flows[tier][place].waiting.is_empty() {
            self.flows[tier].remove(place);
        }
    }
}

impl<T> Flow<T> {
    fn is_standing(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.since) >= STANDING
    }

    fn take(&mut self, late: &mut Vec<Waiter<T>>, now: Instant) -> Option<Waiter<T>> {
        if !self.is_standing(now) {
            while let Some(waiter) = self.waiting.pop_front() {
                if now < waiter.until {
                    return Some(waiter);
                }
                late.push(waiter);
            }
            return None;
        }
        let next = match self.waiting.pop_back() {
            Some(waiter) if now < waiter.until => Some(waiter),
            gone => {
                late.extend(gone);
                None
            }
        };
        // Whoever is left is older, so what has become too late for one is too late for all before it.
        while let Some(waiter) = self.waiting.front()
            && now.saturating_duration_since(waiter.since) > WAIT_STANDING
        {
            late.extend(self.waiting.pop_front());
        }
        next
    }
}

impl<T> Waiter<T> {
    pub fn tier(&self) -> Tier {
        self.id.tier
    }

    pub fn caller(&self) -> CallerIndex {
        self.id.caller
    }
}

impl WaiterId {
    pub fn tier(self) -> Tier {
        self.tier
    }

    pub fn caller(self) -> CallerIndex {
        self.caller
    }
}

/// There is no room, and nobody in the queue comes after the newcomer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

#[cfg(test)]
mod tests;
