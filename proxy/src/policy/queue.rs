//! Who waits for a place, first come first served, up to a bound.
//!
//! ```text
//!   join ─▶ │ 7 │ 6 │ 4 │ 3 │ ─▶ pop
//!                 ▲
//!                 └ leave(5): gave up, from anywhere in the line
//! ```
//!
//! Only numbers wait here; the layer keeps the wakers. Numbers are never used twice, so giving up twice or too
//! late harms nobody.

use std::collections::VecDeque;

/// A waiter's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WaiterId(u64);

#[derive(Debug)]
pub struct Queue {
    length_max: u32,
    /// Ascending, so a waiter is found by bisection.
    waiting: VecDeque<WaiterId>,
    next_id: u64,
}

impl Queue {
    pub fn new(length_max: u32) -> Self {
        Self {
            length_max,
            waiting: VecDeque::new(),
            next_id: 0,
        }
    }

    /// `None`: it is full.
    pub fn join(&mut self) -> Option<WaiterId> {
        if self.len() >= self.length_max {
            return None;
        }
        let id = WaiterId(self.next_id);
        self.next_id += 1;
        self.waiting.push_back(id);
        Some(id)
    }

    /// Whose turn it is.
    pub fn pop(&mut self) -> Option<WaiterId> {
        self.waiting.pop_front()
    }

    /// Whether it was still waiting.
    pub fn leave(&mut self, id: WaiterId) -> bool {
        match self.waiting.binary_search(&id) {
            Ok(position) => self.waiting.remove(position).is_some(),
            Err(_) => false,
        }
    }

    pub fn len(&self) -> u32 {
        // length_max is a u32 and join() respects it.
        self.waiting.len() as u32
    }

    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// A shorter queue sends nobody away; it only takes nobody in until it has shrunk.
    pub fn set_length_max(&mut self, length_max: u32) {
        self.length_max = length_max;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_come_first_served_without_those_who_gave_up() {
        let mut queue = Queue::new(3);
        let ids: Vec<_> = (0..3).map(|_| queue.join().expect("room")).collect();
        assert_eq!(queue.join(), None, "full");
        assert!(queue.leave(ids[1]));
        let fourth = queue.join().expect("a place became free");
        let order: Vec<_> = std::iter::from_fn(|| queue.pop()).collect();
        assert_eq!(order, [ids[0], ids[2], fourth]);
    }

    #[test]
    fn giving_up_twice_or_after_ones_turn_changes_nothing() {
        let mut queue = Queue::new(3);
        let (first, second) = (queue.join().expect("room"), queue.join().expect("room"));
        assert_eq!(queue.pop(), Some(first));
        assert!(!queue.leave(first));
        assert!(queue.leave(second));
        assert!(!queue.leave(second));
        assert!(queue.is_empty());
    }

    #[test]
    fn a_queue_of_no_length_takes_nobody() {
        assert_eq!(Queue::new(0).join(), None);
    }

    #[test]
    fn a_shorter_queue_sends_nobody_away() {
        let mut queue = Queue::new(3);
        let first = queue.join();
        assert!(queue.join().is_some());
        queue.set_length_max(1);
        assert_eq!(queue.join(), None);
        assert_eq!(queue.pop(), first);
        assert_eq!(queue.len(), 1);
    }
}
