//! Concurrency limit (bulkhead): so many calls at once, so many waiting, the rest is refused now.
//!
//! ```text
//!   enter ─┬─ room ───────────▶ in flight ──▶ leave ─┐
//!          ├─ queue has room ─▶ waiting ◀── its turn ┘
//!          └─ else ───────────▶ Full          │
//!                                             └──▶ abandon: timeout, or the caller hung up
//! ```
//!
//! Accounting only: the layer owns wakers and timers. A place that becomes free is *handed* to the first waiter
//! rather than thrown open, so a newcomer cannot overtake the queue. That makes one race: a waiter may give up
//! after the place was handed to it and before it woke; [`Limit::abandon`] says so, and it is then its duty to
//! [`leave`](Limit::leave) like anybody in flight.
//!
//! Envoy's caps are soft and shared (`circuit_breakers`); these are exact, per service and per endpoint.

use super::queue::{Queue, WaiterId};

#[derive(Debug)]
pub struct Limit {
    in_flight_max: u32,
    in_flight: u32,
    queue: Queue,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// In flight: one [`Limit::leave`] is owed.
    Admitted,
    /// Waiting: until [`Limit::leave`] or [`Limit::admit_next`] returns this number, or [`Limit::abandon`].
    Queued(WaiterId),
    Full,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a place that was granted must be given back with leave()"]
pub enum Abandoned {
    /// It waited no longer; nothing is owed.
    Waiting,
    /// The place was its own already: one [`Limit::leave`] is owed.
    Granted,
}

impl Limit {
    pub fn new(in_flight_max: u32, queue_length_max: u32) -> Self {
        Self {
            in_flight_max,
            in_flight: 0,
            queue: Queue::new(queue_length_max),
        }
    }

    pub fn enter(&mut self) -> Entry {
        if self.in_flight < self.in_flight_max && self.queue.is_empty() {
            self.in_flight += 1;
            return Entry::Admitted;
        }
        self.queue.join().map_or(Entry::Full, Entry::Queued)
    }

    /// For a limit that only observes: in flight whatever the limit says. Whether [`Limit::enter`] would have let it in
    /// at once. One [`Limit::leave`] is owed either way.
    pub fn enter_regardless(&mut self) -> bool {
        let within = self.in_flight < self.in_flight_max && self.queue.is_empty();
        self.in_flight = self.in_flight.saturating_add(1);
        within
    }

    /// A call is over. The waiter returned, if any, is in flight from now on: wake it.
    pub fn leave(&mut self) -> Option<WaiterId> {
        debug_assert!(self.in_flight > 0, "leave() without enter()");
        self.in_flight = self.in_flight.saturating_sub(1);
        self.admit_next()
    }

    /// The next waiter that there is room for; it is in flight from now on. To be repeated until `None` after the
    /// limit was raised.
    pub fn admit_next(&mut self) -> Option<WaiterId> {
        if self.in_flight >= self.in_flight_max {
            return None;
        }
        let id = self.queue.pop()?;
        self.in_flight += 1;
        Some(id)
    }

    /// The next waiter, whether there is room or not; it is in flight from now on. To be repeated until `None`.
    pub fn admit_any(&mut self) -> Option<WaiterId> {
        let id = self.queue.pop()?;
        self.in_flight = self.in_flight.saturating_add(1);
        Some(id)
    }

    /// A waiter gives up.
    pub fn abandon(&mut self, id: WaiterId) -> Abandoned {
        if self.queue.leave(id) {
            Abandoned::Waiting
        } else {
            Abandoned::Granted
        }
    }

    pub fn in_flight(&self) -> u32 {
        self.in_flight
    }

    pub fn in_flight_max(&self) -> u32 {
        self.in_flight_max
    }

    /// In flight over the limit: 0.0 idle, 1.0 full.
    pub fn utilisation(&self) -> f32 {
        self.in_flight as f32 / self.in_flight_max.max(1) as f32
    }

    pub fn queued(&self) -> u32 {
        self.queue.len()
    }

    /// New limits. Nobody in flight or waiting is sent away; after a raise, wake with [`Limit::admit_next`].
    pub fn reconfigure(&mut self, in_flight_max: u32, queue_length_max: u32) {
        self.in_flight_max = in_flight_max;
        self.queue.set_length_max(queue_length_max);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn queued(entry: Entry) -> WaiterId {
        match entry {
            Entry::Queued(id) => id,
            other => panic!("expected to be queued, was {other:?}"),
        }
    }

    #[test]
    fn two_in_flight_one_waits_and_the_next_is_refused() {
        let mut limit = Limit::new(2, 1);
        assert_eq!(limit.enter(), Entry::Admitted);
        assert_eq!(limit.enter(), Entry::Admitted);
        let waiter = queued(limit.enter());
        assert_eq!(limit.enter(), Entry::Full);
        assert_eq!(limit.leave(), Some(waiter));
        assert_eq!((limit.in_flight(), limit.queued()), (2, 0));
        assert_eq!(limit.leave(), None);
        assert_eq!(limit.enter(), Entry::Admitted);
    }

    #[test]
    fn nobody_overtakes_the_queue() {
        let mut limit = Limit::new(1, 10);
        assert_eq!(limit.enter(), Entry::Admitted);
        let waiter = queued(limit.enter());
        limit.reconfigure(2, 10);
        let newcomer = queued(limit.enter());
        assert_eq!(limit.admit_next(), Some(waiter));
        assert_eq!(limit.admit_next(), None);
        assert_eq!(limit.leave(), Some(newcomer));
    }

    #[test]
    fn one_who_gives_up_after_its_turn_came_passes_the_place_on() {
        let mut limit = Limit::new(1, 2);
        assert_eq!(limit.enter(), Entry::Admitted);
        let (first, second) = (queued(limit.enter()), queued(limit.enter()));
        assert_eq!(limit.leave(), Some(first));
        assert_eq!(limit.abandon(first), Abandoned::Granted);
        assert_eq!(limit.leave(), Some(second));
        assert_eq!(limit.in_flight(), 1);
    }

    #[test]
    fn a_lower_limit_interrupts_nobody_and_admits_nobody_until_it_is_kept() {
        let mut limit = Limit::new(3, 5);
        for _ in 0..3 {
            assert_eq!(limit.enter(), Entry::Admitted);
        }
        let waiter = queued(limit.enter());
        limit.reconfigure(1, 5);
        assert_eq!(limit.leave(), None);
        assert_eq!(limit.leave(), None);
        assert_eq!(limit.leave(), Some(waiter));
    }

    #[derive(Clone, Debug)]
    enum Step {
        Enter,
        Leave,
        Abandon(usize),
        Reconfigure(u32, u32),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => Just(Step::Enter),
            4 => Just(Step::Leave),
            2 => any::<usize>().prop_map(Step::Abandon),
            1 => (1u32..6, 0u32..6).prop_map(|(a, b)| Step::Reconfigure(a, b)),
        ]
    }

    proptest! {
        /// Against callers that each know whether they are in flight or waiting: in flight never grows beyond
        /// the limit, waiting never beyond the queue, turns come in order, nobody waits while there is
        /// room, and when all have gone nothing is left.
        #[test]
        fn never_exceeds_never_wedges_and_forgets_nobody(steps in prop::collection::vec(step(), 0..300)) {
            let (mut in_flight_max, mut queue_max) = (3, 3);
            let mut limit = Limit::new(in_flight_max, queue_max);
            let (mut in_flight, mut waiting) = (0u32, Vec::<WaiterId>::new());
            for step in steps {
                let mut granted = Vec::new();
                let before = (in_flight, waiting.len() as u32);
                match step {
                    Step::Enter => match limit.enter() {
                        Entry::Admitted => { prop_assert!(before.0 < in_flight_max); in_flight += 1; }
                        Entry::Queued(id) => { prop_assert!(before.1 < queue_max); waiting.push(id); }
                        Entry::Full => prop_assert!(before.0 >= in_flight_max && before.1 >= queue_max),
                    },
                    Step::Leave if in_flight > 0 => {
                        in_flight -= 1;
                        granted.extend(limit.leave());
                    }
                    Step::Abandon(i) if !waiting.is_empty() => {
                        let id = waiting.remove(i % waiting.len());
                        prop_assert_eq!(limit.abandon(id), Abandoned::Waiting);
                    }
                    Step::Leave | Step::Abandon(_) => {}
                    Step::Reconfigure(flight, queue) => {
                        (in_flight_max, queue_max) = (flight, queue);
                        limit.reconfigure(flight, queue);
                        granted.extend(std::iter::from_fn(|| limit.admit_next()));
                    }
                }
                for id in granted {
                    prop_assert_eq!(waiting.remove(0), id, "in order");
                    in_flight += 1;
                    prop_assert!(in_flight <= in_flight_max);
                }
                prop_assert_eq!((limit.in_flight(), limit.queued()), (in_flight, waiting.len() as u32));
                prop_assert!(waiting.is_empty() || in_flight >= in_flight_max, "nobody waits for a free place");
            }
            while in_flight > 0 {
                in_flight -= 1;
                if limit.leave().is_some() { in_flight += 1; }
            }
            prop_assert_eq!((limit.in_flight(), limit.queued()), (0, 0));
        }
    }
}
