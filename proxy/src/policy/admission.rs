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
//! **Tiers.** Whoever matters more is taken first, and finds some places free when it has had to wait, or is slowed in the app
//! ([`headroom`](super::headroom)): a queue alone would let it wait until somebody leaves who matters less.
//!
//! **Fairness.** Within a tier, a caller that wants more than its share ([`callers`](super::callers)) goes after those that
//! do not, and it alone is subject to the cutoff by cohort.
//!
//! **Streams** (upgrades, event streams, long polls) last as long as their callers like: they are counted apart and the
//! limit does not learn from them.
//!
//! Observing, everybody gets in up to the hard cap, and what would have been shed is counted.

mod places;
mod reason;
mod streams;
mod ticks;

use std::time::Duration;

use tokio::time::Instant;

use super::callers::Callers;
use super::cutoff::Cutoff;
use super::fair::{CallerIndex, FairQueue, Waiter, WaiterId};
use super::headroom::{Headroom, SLOWED};
use super::knee::{Bounds, Ended, Knee, Met};
use super::pace::Pace;
use super::priority::{Priority, Tier};
use places::Places;
use ticks::{TICK, Ticks};

pub use places::Place;
pub use reason::Reason;

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
    /// Everybody gets in, and what would have been refused is counted.
    observes: bool,
    in_flight: u32,
    /// The same, by tier.
    of_tier: [u32; Tier::COUNT],
    headroom: Headroom,
    paces: [Pace; Tier::COUNT],
    streams: u32,
    counts: Counts,
    decisions: Vec<Decision<T>>,
    late: Vec<Waiter<T>>,
    ticks: Ticks,
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
            observes: false,
            in_flight: 0,
            of_tier: [0; Tier::COUNT],
            headroom: Headroom::default(),
            paces: [Pace::default(); Tier::COUNT],
            streams: 0,
            counts: Counts::default(),
            decisions: Vec::new(),
            late: Vec::new(),
            ticks: Ticks::new(now),
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

    /// Those who wait when it begins to observe wait no longer.
    pub fn set_observes(&mut self, observes: bool, now: Instant) {
        self.observes = observes;
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
            self.knee.on_arrival(match room {
                true => Met::Room,
                false if self.in_flight < self.limit() => Met::KeptRoom,
                false => Met::Limit,
            });
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
        if self.is_above_others(priority.tier) {
            self.headroom.widen(priority.tier, self.limit());
        }
        let id = self.queue.join(priority.tier, caller, until, who(), now);
        self.callers.get(caller).queued += 1;
        // The limit may have been raised since the last one left.
        self.admit_next(now);
        Entry::Queued { id, until }
    }

    /// How long one may wait: its caller must still be there when the app has answered.
    fn wait(&self, patience: Option<Duration>) -> Duration {
        let usual = self.knee.baseline().unwrap_or_default();
        let left = patience.map(|patience| patience.saturating_sub(usual));
        left.map_or(self.config.wait_max, |left| left.min(self.config.wait_max))
    }

    /// What would be done, if it were.
    fn observe(&mut self, tier: Tier) {
        let (mut limit, queue) = (self.knee.limit(), self.config.queue_length_max);
        if self.observes {
            limit = limit.min(self.config.in_flight_max);
        }
        let room = self.in_flight < limit;
        self.ticks.saturated |= !room;
        self.knee
            .on_arrival(if room { Met::Room } else { Met::Limit });
        if self.in_flight >= limit.saturating_add(queue) {
            self.counts.shed[tier.index()][Reason::QueueFull as usize] += 1;
        }
    }

    /// Who matters less than this tier is in the app.
    fn is_above_others(&self, tier: Tier) -> bool {
        let below = &self.of_tier[tier.index() + 1..];
        below.iter().any(|&in_app| in_app > 0)
    }

    /// For one of this tier.
    fn has_room(&self, tier: Tier) -> bool {
        let limit = self.limit();
        self.observes || self.in_flight + self.headroom.kept_from(tier, limit) < limit
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
        // The life of a stream is not what a request takes.
        if slot.stream {
            self.streams -= 1;
            self.callers.get(slot.caller).streams -= 1;
            return;
        }
        self.callers.get(slot.caller).took(latency);
        self.in_flight -= 1;
        self.of_tier[slot.tier.index()] -= 1;
        self.callers.get(slot.caller).in_flight -= 1;
        if ended == Ended::Answered {
            self.paces[slot.tier.index()].took(latency);
        }
        self.ticks.complete();
        self.knee.on_done(latency, ended, self.in_flight, now);
        self.tick(now);
        self.admit_next(now);
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

    /// Who matters more is not to be slowed by who does not, as long as not all find room.
    fn look_at_paces(&mut self) {
        let became_slower = self.knee.take_became_slower();
        for pace in &mut self.paces {
            pace.tick(self.ticks.saturated);
            if became_slower {
                pace.became_slower();
            }
        }
        if !self.config.enforced || !self.ticks.saturated {
            return self.headroom.spare_nobody();
        }
        let slowdown = |tier: Tier| self.paces[tier.index()].slowdown();
        let is_slowed = |tier: &Tier| {
            slowdown(*tier).is_some_and(|it| it > SLOWED) && self.is_above_others(*tier)
        };
        let slowed = Tier::ALL.into_iter().find(is_slowed);
        if let Some(tier) = slowed.into_iter().chain(self.headroom.spared()).min() {
            let (slowdown, limit) = (slowdown(tier), self.limit());
            let headroom = &mut self.headroom;
            if !headroom.spare(tier, slowdown, self.in_flight, limit) {
                self.paces[tier.index()].became_slower();
                headroom.spare_nobody();
            }
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
        self.look_at_paces();
        if self.ticks.saturated {
            self.counts.saturated += passed.min(2 * TICK);
            self.callers
                .divide(self.limit(), self.knee.baseline().unwrap_or_default());
            let completed = self.ticks.completed();
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

#[cfg(test)]
mod tests;
