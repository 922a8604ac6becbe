//! Who waits for an endpoint, and since when.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// Since when requests wait for the head of their response, oldest first.
#[derive(Default)]
pub struct Waiting {
    starts: VecDeque<Option<Instant>>,
    /// Number of the front entry.
    first: u64,
    /// Of those that wait.
    pub(super) count: u32,
}

impl Waiting {
    pub fn start(&mut self, now: Instant) -> u64 {
        self.starts.push_back(Some(now));
        self.count += 1;
        self.first + self.starts.len() as u64 - 1
    }

    /// Whether it still counted.
    pub fn end(&mut self, number: u64) -> bool {
        let index = number.checked_sub(self.first);
        let start = index.and_then(|index| self.starts.get_mut(index as usize));
        let counted = start.and_then(Option::take).is_some();
        self.count -= u32::from(counted);
        self.drop_while(|start| start.is_none());
        counted
    }

    /// Those that have waited for longer than that no longer count.
    pub(super) fn forget(&mut self, longer_than: Duration, now: Instant) {
        let waited = |start: Instant| now.saturating_duration_since(start);
        self.drop_while(|start| start.is_none_or(|start| waited(start) > longer_than));
    }

    fn drop_while(&mut self, gone: impl Fn(&Option<Instant>) -> bool) {
        while self.starts.front().is_some_and(&gone) {
            let front = self.starts.pop_front();
            self.count -= u32::from(front.flatten().is_some());
            self.first += 1;
        }
    }

    pub fn oldest(&self) -> Option<Instant> {
        self.starts.front().copied().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_waiting_request_is_known_in_whatever_order_they_end() {
        let now = Instant::now();
        let mut waiting = Waiting::default();
        let first = waiting.start(now);
        let second = waiting.start(now + Duration::from_secs(1));
        let third = waiting.start(now + Duration::from_secs(2));
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

    #[test]
    fn who_waits_for_longer_than_a_call_may_take_no_longer_counts_and_may_still_end() {
        let (now, second) = (Instant::now(), Duration::from_secs(1));
        let mut waiting = Waiting::default();
        let stream = waiting.start(now);
        let call = waiting.start(now + 9 * second);
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
