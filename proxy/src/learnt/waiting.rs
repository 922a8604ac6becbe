//! Who waits for an endpoint, and since when.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// So few that have ended may stay where they are.
const ENDED_MAX: usize = 64;

/// Since when requests wait for the head of their response, oldest first.
#[derive(Default)]
pub struct Waiting {
    /// By number, ascending.
    starts: VecDeque<Waiter>,
    next: u64,
    /// Of those that wait.
    pub(super) count: u32,
}

struct Waiter {
    number: u64,
    /// `None`: it has ended, and one before it has not.
    start: Option<Instant>,
    /// It has a deadline.
    bounded: bool,
}

impl Waiting {
    pub fn start(&mut self, bounded: bool, now: Instant) -> u64 {
        let number = self.next;
        self.next += 1;
        self.starts.push_back(Waiter {
            number,
            start: Some(now),
            bounded,
        });
        self.count += 1;
        number
    }

    /// Whether it still counted.
    pub fn end(&mut self, number: u64) -> bool {
        let found = self
            .starts
            .binary_search_by_key(&number, |waiter| waiter.number);
        let waiter = found.ok().and_then(|index| self.starts.get_mut(index));
        let counted = waiter.and_then(|waiter| waiter.start.take()).is_some();
        self.count -= u32::from(counted);
        self.drop_while(|start| start.is_none());
        self.compact();
        counted
    }

    /// Those that have waited for longer than that no longer count.
    pub(super) fn forget(&mut self, longer_than: Duration, now: Instant) {
        let waited = |start: Instant| now.saturating_duration_since(start);
        self.drop_while(|start| start.is_none_or(|start| waited(start) > longer_than));
    }

    fn drop_while(&mut self, gone: impl Fn(Option<Instant>) -> bool) {
        while let Some(front) = self.starts.pop_front_if(|waiter| gone(waiter.start)) {
            self.count -= u32::from(front.start.is_some());
        }
    }

    /// Whoever waits for hours must not keep a place for each of the thousands that came after it and have ended. Half of
    /// them go at a time, so that it costs each of them the same.
    fn compact(&mut self) {
        if self.starts.len() > 2 * self.count as usize + ENDED_MAX {
            self.starts.retain(|waiter| waiter.start.is_some());
        }
    }

    pub fn oldest(&self) -> Option<Instant> {
        self.starts.front().and_then(|waiter| waiter.start)
    }

    /// Since when the `n`th waits of those that have a deadline.
    pub(super) fn bounded(&self, n: usize) -> Option<Instant> {
        let bounded = self.starts.iter().filter(|waiter| waiter.bounded);
        bounded.filter_map(|waiter| waiter.start).nth(n - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_waiting_request_is_known_in_whatever_order_they_end() {
        let now = Instant::now();
        let mut waiting = Waiting::default();
        let first = waiting.start(true, now);
        let second = waiting.start(true, now + Duration::from_secs(1));
        let third = waiting.start(true, now + Duration::from_secs(2));
        waiting.end(second);
        assert_eq!(waiting.oldest(), Some(now));
        waiting.end(first);
        assert_eq!(waiting.oldest(), Some(now + Duration::from_secs(2)));
        waiting.end(first);
        waiting.end(third);
        assert_eq!(waiting.oldest(), None);
        assert!(
            waiting.starts.is_empty(),
            "nothing is kept of what has ended"
        );
    }

    /// An hour's long poll among a thousand calls a second kept sixteen bytes for each of those.
    #[test]
    fn one_that_waits_for_an_hour_does_not_keep_what_came_after_it_and_has_ended() {
        let now = Instant::now();
        let mut waiting = Waiting::default();
        let long = waiting.start(true, now);
        for millis in 1..=100_000 {
            let at = now + Duration::from_millis(millis);
            let (one, another) = (waiting.start(true, at), waiting.start(true, at));
            assert!(waiting.end(another) && waiting.end(one));
            assert!(!waiting.end(one), "it ends once");
            assert!(waiting.starts.len() <= ENDED_MAX + 4);
        }
        assert_eq!((waiting.oldest(), waiting.count), (Some(now), 1));
        assert!(waiting.end(long));
        assert!(waiting.starts.is_empty());
    }

    #[test]
    fn who_waits_without_a_deadline_is_passed_over_where_only_the_others_count() {
        let (now, second) = (Instant::now(), Duration::from_secs(1));
        let mut waiting = Waiting::default();
        let first = waiting.start(true, now);
        waiting.start(false, now + second);
        waiting.start(true, now + 2 * second);
        assert_eq!(waiting.bounded(2), Some(now + 2 * second));
        assert_eq!(waiting.bounded(3), None);
        waiting.end(first);
        assert_eq!(waiting.bounded(1), Some(now + 2 * second));
    }

    #[test]
    fn who_waits_for_longer_than_a_call_may_take_no_longer_counts_and_may_still_end() {
        let (now, second) = (Instant::now(), Duration::from_secs(1));
        let mut waiting = Waiting::default();
        let stream = waiting.start(true, now);
        let call = waiting.start(true, now + 9 * second);
        waiting.forget(10 * second, now + 10 * second);
        assert_eq!(waiting.oldest(), Some(now));
        waiting.forget(10 * second, now + 11 * second);
        assert_eq!(waiting.oldest(), Some(now + 9 * second));
        assert!(!waiting.end(stream));
        assert_eq!(waiting.oldest(), Some(now + 9 * second));
        assert!(waiting.end(call));
        assert_eq!(waiting.oldest(), None);
    }
}
