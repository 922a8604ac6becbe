//! Inbound admission: who gets into the app now, who waits, and who is turned away.
//!
//! ```text
//!   arrive ─┬─ room, nobody waits ─────────────────────────────▶ in the app ──▶ leave
//!           └─ saturated ─┬─ below the cutoff, over its share ─▶ shed: priority    │
//!                         ├─ the queue has room, or makes some ▶ waits ◀── its turn ┘
//!                         └─ else ─────────────────────────────▶ shed: queue-full
//! ```
//!
//! It puts together the knee limiter ([`knee`](super::knee)), the queue ([`fair`](super::fair)), the cutoff by
//! priority ([`cutoff`](super::cutoff)) and the share of each caller. While there is room none of them has a say:
//! an idle app takes everybody, whatever their tier.
//!
//! **Tiers.** Whoever matters more is taken first, and finds some places free when it has had to wait
//! ([`headroom`](super::headroom)): a queue alone would let it wait until somebody leaves who matters less.
//!
//! **Fairness.** Within a tier, a caller that wants more than its share ([`callers`](super::callers)) goes after those that
//! do not, and it alone is subject to the cutoff by cohort.
//!
//! **Streams** (upgrades, event streams, long polls) last as long as their callers like: they are counted apart and the
//! limit does not learn from them.
//!
//! Observing, everybody gets in up to the hard cap, and what would have been shed is counted.

use std::time::Duration;

use tokio::time::Instant;

use super::callers::Callers;
use super::cutoff::Cutoff;
use super::fair::{CallerIndex, FairQueue, Waiter, WaiterId};
use super::headroom::Headroom;
use super::knee::{Bounds, Ended, Knee};
use super::priority::{Priority, Tier};

/// How often shares and cutoff are worked out afresh.
const TICK: Duration = Duration::from_millis(100);
/// Ticks in the second over which completions are counted.
const TICKS: usize = 10;
/// A request that is so much older than what is usual here is a long poll, as long as others get their answers.
const LONG: Duration = Duration::from_secs(1);
const LONG_BASELINES: u32 = 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// The hard cap, whatever the limiter thinks.
    pub in_flight_max: u32,
    pub streams_max: u32,
    pub queue_length_max: u32,
    pub wait_max: Duration,
    pub adaptive: Bounds,
    /// Whether what the limiter decides is done.
    pub enforced: bool,
}

/// Who comes, with what.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    pub priority: Priority,
    /// A hash of the caller's proven identity; 0 for all that have none.
    pub caller: u64,
    /// How long its caller waits for the answer, if that is known.
    pub patience: Option<Duration>,
    /// It will last as long as its caller likes.
    pub stream: bool,
}

#[derive(Debug, PartialEq)]
pub enum Entry {
    /// In the app: one [`Admission::leave`] is owed.
    Admitted(Place),
    /// Until [`Admission::take_decisions`] says what becomes of it, or until then at most.
    Queued {
        id: WaiterId,
        until: Instant,
    },
    Shed(Reason),
}

/// Where a request in the app is noted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a place must be given back with leave()"]
pub struct Place(u32);

/// Why somebody is turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Reason {
    /// Others matter more, or have had less.
    Priority,
    QueueFull,
    /// It waited for as long as it may.
    QueueTimeout,
    /// Its caller would be gone before the app could answer.
    Deadline,
    /// There are too many streams.
    Streams,
}

impl Reason {
    pub const COUNT: usize = 5;
    pub const ALL: [Self; Self::COUNT] = [
        Self::Priority,
        Self::QueueFull,
        Self::QueueTimeout,
        Self::Deadline,
        Self::Streams,
    ];

    /// In metrics and answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Priority => "priority",
            Self::QueueFull => "queue-full",
            Self::QueueTimeout => "queue-timeout",
            Self::Deadline => "deadline",
            Self::Streams => "too-many-streams",
        }
    }

    /// For people; plain ASCII, so that it fits a header as it is.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Priority => "the service has too much to do, and other requests come first",
            Self::QueueFull => "the service has too much to do, and its queue is full",
            Self::QueueTimeout => "the service has too much to do: waited in its queue in vain",
            Self::Deadline => "the service has too much to do to answer by the deadline",
            Self::Streams => "the service has too many streams open",
        }
    }
}

/// What becomes of one who waited.
#[derive(Debug)]
pub struct Decision<T> {
    pub who: T,
    pub verdict: Result<Place, Reason>,
    pub waited: Duration,
}

/// What has happened since the beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub offered: u64,
    pub admitted: u64,
    /// Or would have been, where it only observes.
    pub shed: [[u64; Reason::COUNT]; Tier::COUNT],
    /// How long somebody found no room.
    pub saturated: Duration,
    /// Those who waited and got in, and for how long in all.
    pub waited: u64,
    pub waited_for: Duration,
}

#[derive(Debug)]
pub struct Admission<T> {
    config: Config,
    knee: Knee,
    queue: FairQueue<T>,
    /// Made when it is first needed.
    cutoff: Option<Box<Cutoff>>,
    /// Arrivals are counted for it: somebody found no room a short time ago.
    counting: bool,
    callers: Callers,
    places: Places,
    in_flight: u32,
    /// The same, by tier.
    of_tier: [u32; Tier::COUNT],
    headroom: Headroom,
    streams: u32,
    counts: Counts,
    decisions: Vec<Decision<T>>,
    late: Vec<Waiter<T>>,
    ticks: Ticks,
}

/// What is noted between two ticks.
#[derive(Debug)]
struct Ticks {
    next: Instant,
    since: Instant,
    saturated: bool,
    /// The queue sent somebody away.
    overloaded: bool,
    completed: [u32; TICKS],
    current: usize,
}

impl<T> Admission<T> {
    pub fn new(config: Config, now: Instant) -> Self {
        Self {
            knee: Knee::new(config.bounds(), config.enforced, now),
            queue: FairQueue::new(config.queue_length_max),
            cutoff: None,
            counting: false,
            callers: Callers::default(),
            places: Places::default(),
            in_flight: 0,
            of_tier: [0; Tier::COUNT],
            headroom: Headroom::default(),
            streams: 0,
            counts: Counts::default(),
            decisions: Vec::new(),
            late: Vec::new(),
            ticks: Ticks {
                next: now + TICK,
                since: now,
                saturated: false,
                overloaded: false,
                completed: [0; TICKS],
                current: 0,
            },
            config,
        }
    }

    /// A new policy: what was learnt stays, and nobody who is in or waits is sent away.
    pub fn reconfigure(&mut self, config: Config, now: Instant) {
        self.config = config;
        self.knee.reconfigure(config.bounds(), config.enforced);
        self.queue.set_length_max(config.queue_length_max);
        self.admit_next(now);
    }

    /// `who` is asked for only when it has to wait.
    pub fn arrive(&mut self, arrival: Arrival, now: Instant, who: impl FnOnce() -> T) -> Entry {
        self.counts.offered += 1;
        self.tick(now);
        let caller = self.callers.find(arrival.caller);
        if arrival.stream {
            return self.arrive_stream(arrival, caller, now);
        }
        self.callers.get(caller).arrived += 1;
        let tier = arrival.priority.tier;
        let overtakes = self.queue.first_tier().is_none_or(|first| first > tier);
        let room = overtakes && self.has_room(tier);
        if self.config.enforced {
            self.knee.on_arrival(room);
        } else {
            self.observe(arrival.priority.tier);
        }
        if self.counting || !room {
            self.counting = true;
            let cutoff = self.cutoff.get_or_insert_default();
            cutoff.offered(arrival.priority.rank());
        }
        if room {
            return Entry::Admitted(self.enter(caller, tier, now));
        }
        self.saturated(arrival, caller, now, who)
    }

    fn saturated(
        &mut self,
        arrival: Arrival,
        caller: CallerIndex,
        now: Instant,
        who: impl FnOnce() -> T,
    ) -> Entry {
        self.ticks.saturated = true;
        let priority = arrival.priority;
        if let Some(cutoff) = &self.cutoff
            && !cutoff.admits(priority.rank())
            && (priority.rank() > cutoff.end_of_tier() || self.callers.is_above_share(caller))
        {
            return self.shed(priority.tier, Reason::Priority);
        }
        let wait = self.wait(arrival.patience);
        if wait.is_zero() {
            return self.shed(priority.tier, Reason::Deadline);
        }
        match self.queue.make_room(priority.tier, caller, now) {
            Ok(None) => {}
            Ok(Some(gone)) => self.send_away(gone, Reason::QueueFull, now),
            Err(_) => {
                self.ticks.overloaded = true;
                return self.shed(priority.tier, Reason::QueueFull);
            }
        }
        let until = now + wait;
        let below = &self.of_tier[priority.tier.index() + 1..];
        if below.iter().any(|&in_app| in_app > 0) {
            self.headroom.widen(priority.tier, self.limit());
        }
        let id = self.queue.join(priority.tier, caller, until, who(), now);
        self.callers.get(caller).queued += 1;
        // The limit may have been raised since the last one left.
        self.admit_next(now);
        Entry::Queued { id, until }
    }

    fn arrive_stream(&mut self, arrival: Arrival, caller: CallerIndex, now: Instant) -> Entry {
        if self.streams >= self.config.streams_max {
            return self.shed(arrival.priority.tier, Reason::Streams);
        }
        self.streams += 1;
        self.counts.admitted += 1;
        self.callers.get(caller).streams += 1;
        let tier = arrival.priority.tier;
        Entry::Admitted(self.places.take(caller, tier, true, now))
    }

    /// How long one may wait: its caller must still be there when the app has answered.
    fn wait(&self, patience: Option<Duration>) -> Duration {
        let usual = self.knee.baseline().unwrap_or_default();
        let left = patience.map(|patience| patience.saturating_sub(usual));
        left.map_or(self.config.wait_max, |left| left.min(self.config.wait_max))
    }

    /// What would be done, if it were.
    fn observe(&mut self, tier: Tier) {
        let (limit, queue) = (self.knee.limit(), self.config.queue_length_max);
        let room = self.in_flight < limit;
        self.ticks.saturated |= !room;
        self.knee.on_arrival(room);
        if self.in_flight >= limit.saturating_add(queue) {
            self.counts.shed[tier.index()][Reason::QueueFull as usize] += 1;
        }
    }

    /// For one of this tier.
    fn has_room(&self, tier: Tier) -> bool {
        let limit = self.limit();
        self.in_flight + self.headroom.kept_from(tier, limit) < limit
    }

    fn enter(&mut self, caller: CallerIndex, tier: Tier, now: Instant) -> Place {
        self.in_flight += 1;
        self.of_tier[tier.index()] += 1;
        self.counts.admitted += 1;
        self.callers.get(caller).in_flight += 1;
        self.knee.on_start(self.in_flight);
        self.places.take(caller, tier, false, now)
    }

    /// A request has left the app, `latency` after it got in.
    pub fn leave(&mut self, place: Place, latency: Duration, ended: Ended, now: Instant) {
        let slot = self.places.give_back(place);
        self.callers.get(slot.caller).took(latency);
        if slot.stream {
            self.streams -= 1;
            self.callers.get(slot.caller).streams -= 1;
            return;
        }
        self.in_flight -= 1;
        self.of_tier[slot.tier.index()] -= 1;
        self.callers.get(slot.caller).in_flight -= 1;
        self.ticks.completed[self.ticks.current] += 1;
        self.knee.on_done(latency, ended, self.in_flight, now);
        self.tick(now);
        self.admit_next(now);
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

    /// One who waits gives up: because its time is up, or (`None`) because its caller went away. Whether it waited
    /// still; else what became of it is on its way.
    pub fn give_up(&mut self, id: WaiterId, reason: Option<Reason>) -> bool {
        let Some(waiter) = self.queue.leave(id) else {
            return false;
        };
        self.callers.get(waiter.caller()).queued -= 1;
        if let Some(reason) = reason {
            self.ticks.overloaded = true;
            self.counts.shed[waiter.tier().index()][reason as usize] += 1;
        }
        true
    }

    /// What has become of those who waited; to be asked after each call.
    pub fn take_decisions(&mut self) -> Vec<Decision<T>> {
        std::mem::take(&mut self.decisions)
    }

    pub fn in_flight(&self) -> u32 {
        self.in_flight
    }

    pub fn streams(&self) -> u32 {
        self.streams
    }

    pub fn queued(&self) -> u32 {
        self.queue.len()
    }

    /// What holds now.
    pub fn limit(&self) -> u32 {
        if self.config.enforced {
            self.knee.limit().min(self.config.in_flight_max)
        } else {
            self.config.in_flight_max
        }
    }

    /// Whether what the limiter decides is done.
    pub fn is_enforced(&self) -> bool {
        self.config.enforced
    }

    /// What the limiter thinks, whether it acts or not.
    pub fn learnt_limit(&self) -> u32 {
        self.knee.limit()
    }

    /// Mean time in the app while it is not saturated.
    pub fn baseline(&self) -> Option<Duration> {
        self.knee.baseline()
    }

    pub fn counts(&self) -> Counts {
        self.counts
    }

    fn admit_next(&mut self, now: Instant) {
        while self
            .queue
            .first_tier()
            .is_some_and(|first| self.has_room(first))
        {
            let callers = &self.callers;
            let next = self
                .queue
                .pop(|caller| callers.is_above_share(caller), &mut self.late, now);
            while let Some(late) = self.late.pop() {
                self.send_away(late, Reason::QueueTimeout, now);
            }
            let Some(next) = next else { return };
            self.callers.get(next.caller()).queued -= 1;
            let waited = now.saturating_duration_since(next.since);
            self.counts.waited += 1;
            self.counts.waited_for += waited;
            let place = self.enter(next.caller(), next.tier(), now);
            self.decisions.push(Decision {
                who: next.who,
                verdict: Ok(place),
                waited,
            });
        }
    }

    fn send_away(&mut self, waiter: Waiter<T>, reason: Reason, now: Instant) {
        self.ticks.overloaded = true;
        self.callers.get(waiter.caller()).queued -= 1;
        self.counts.shed[waiter.tier().index()][reason as usize] += 1;
        self.decisions.push(Decision {
            waited: now.saturating_duration_since(waiter.since),
            who: waiter.who,
            verdict: Err(reason),
        });
    }

    fn shed(&mut self, tier: Tier, reason: Reason) -> Entry {
        self.counts.shed[tier.index()][reason as usize] += 1;
        Entry::Shed(reason)
    }

    /// Ten times a second, as long as anything happens.
    fn tick(&mut self, now: Instant) {
        if now < self.ticks.next {
            return;
        }
        let passed = now.saturating_duration_since(self.ticks.since);
        self.callers.tick();
        self.headroom.narrow();
        if self.ticks.saturated {
            self.counts.saturated += passed.min(2 * TICK);
            self.callers
                .divide(self.limit(), self.knee.baseline().unwrap_or_default());
            let completed = self.ticks.completed.iter().sum();
            if let Some(cutoff) = &mut self.cutoff {
                cutoff.update(completed, self.ticks.overloaded);
            }
        } else {
            if let Some(cutoff) = self.cutoff.as_mut().filter(|_| self.counting) {
                cutoff.open();
            }
            self.counting = false;
        }
        self.find_long_polls(now);
        // What is no longer kept is free.
        self.admit_next(now);
        self.ticks.pass(now);
    }

    /// Others get their answers in time, and these do not: they are meant to last.
    fn find_long_polls(&mut self, now: Instant) {
        let Some(baseline) = self.knee.baseline() else {
            return;
        };
        let old = LONG.max(baseline * LONG_BASELINES);
        if self.ticks.completed.iter().sum::<u32>() == 0 {
            return;
        }
        for index in 0..self.places.slots.len() {
            let is_old = |slot: Slot| now.saturating_duration_since(slot.since) > old;
            if self.places.slots[index].is_some_and(|slot| !slot.stream && is_old(slot)) {
                self.reclassify(Place(index as u32));
            }
        }
    }
}

impl Config {
    fn bounds(&self) -> Bounds {
        let max = self.adaptive.max.min(self.in_flight_max);
        Bounds {
            min: self.adaptive.min.min(max),
            max,
        }
    }
}

impl Ticks {
    fn pass(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.since);
        let slots = (passed.as_millis() / TICK.as_millis()).clamp(1, TICKS as u128) as usize;
        for _ in 0..slots {
            self.current = (self.current + 1) % TICKS;
            self.completed[self.current] = 0;
        }
        self.since = now;
        self.next = now + TICK;
        self.saturated = false;
        self.overloaded = false;
    }
}

/// The requests in the app. Numbers are used again, so it is as long as there were requests at once.
#[derive(Debug, Default)]
struct Places {
    slots: Vec<Option<Slot>>,
    free: Vec<u32>,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    caller: CallerIndex,
    tier: Tier,
    stream: bool,
    since: Instant,
}

impl Places {
    fn take(&mut self, caller: CallerIndex, tier: Tier, stream: bool, since: Instant) -> Place {
        let slot = Some(Slot {
            caller,
            tier,
            stream,
            since,
        });
        if let Some(free) = self.free.pop() {
            self.slots[free as usize] = slot;
            return Place(free);
        }
        self.slots.push(slot);
        Place((self.slots.len() - 1) as u32) // no more than the two caps, which are u32
    }

    fn give_back(&mut self, place: Place) -> Slot {
        let slot = self.slots[place.0 as usize].take();
        self.free.push(place.0);
        slot.expect("a place is given back once")
    }

    fn get(&mut self, place: Place) -> &mut Slot {
        self.slots[place.0 as usize]
            .as_mut()
            .expect("a place is valid until it is given back")
    }
}

#[cfg(test)]
mod tests;
