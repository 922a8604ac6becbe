//! What happens next, and when: a queue of events in virtual time, and the dice.
//!
//! ```text
//!   let mut engine = Engine::new(seed);
//!   engine.after(Duration::from_secs(1), Event::Arrival);
//!   while let Some(event) = engine.next() {      now = when it happens
//!       match event { … engine.after(…) … }
//!   }
//! ```
//!
//! Events of the same moment happen in the order in which they were announced. An event cannot be taken back: whoever
//! announces a timeout looks, when it comes, whether anybody still waits for it.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::time::Duration;

use fastrand::Rng;
use tokio::time::Instant;

pub struct Engine<E> {
    origin: Instant,
    now: Instant,
    pub rng: Rng,
    events: BinaryHeap<Announced<E>>,
    announced: u64,
}

struct Announced<E> {
    at: Instant,
    number: u64,
    event: E,
}

impl<E> Engine<E> {
    pub fn new(seed: u64) -> Self {
        // Policies only compare instants, so when the first one is does not matter.
        let origin = Instant::now();
        Self {
            origin,
            now: origin,
            rng: Rng::with_seed(seed),
            events: BinaryHeap::new(),
            announced: 0,
        }
    }

    pub fn now(&self) -> Instant {
        self.now
    }

    /// Since the beginning.
    pub fn elapsed(&self) -> Duration {
        self.now - self.origin
    }

    /// The moment that is so long after the beginning.
    pub fn moment(&self, since_origin: Duration) -> Instant {
        self.origin + since_origin
    }

    pub fn at(&mut self, at: Instant, event: E) {
        let number = self.announced;
        self.announced += 1;
        self.events.push(Announced { at, number, event });
    }

    pub fn after(&mut self, wait: Duration, event: E) {
        self.at(self.now + wait, event);
    }

    /// The next event; from then on it is the moment of that event.
    pub fn next(&mut self) -> Option<E> {
        let Announced { at, event, .. } = self.events.pop()?;
        self.now = self.now.max(at);
        Some(event)
    }

    /// The same, but not beyond the moment `until`.
    pub fn next_before(&mut self, until: Instant) -> Option<E> {
        if self.events.peek()?.at >= until {
            return None;
        }
        self.next()
    }

    /// The clock jumps forward, as after a suspended machine: everything that was due meanwhile happens late.
    pub fn jump(&mut self, by: Duration) {
        self.now += by;
    }
}

/// The earliest first: a heap gives out the greatest.
impl<E> Ord for Announced<E> {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}

impl<E> PartialOrd for Announced<E> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> Eq for Announced<E> {}

impl<E> PartialEq for Announced<E> {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

#[test]
fn events_happen_in_the_order_of_their_time_and_then_of_their_announcement() {
    let mut engine = Engine::new(0);
    let millis = Duration::from_millis;
    engine.after(millis(2), "third");
    engine.after(millis(1), "first");
    engine.after(millis(1), "second");
    let until = engine.moment(millis(2));
    let mut order = Vec::new();
    while let Some(event) = engine.next_before(until) {
        assert_eq!(engine.elapsed(), millis(1));
        order.push(event);
    }
    assert_eq!(order, ["first", "second"]);
    engine.jump(millis(10));
    assert_eq!(engine.next(), Some("third"));
    assert_eq!(engine.elapsed(), millis(11), "late, not back in time");
    assert_eq!(engine.next(), None);
}
