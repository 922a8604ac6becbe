//! An endpoint as a member of its backend: what calls to it have taught.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard};

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::endpoint::Endpoint;
use crate::policy::ewma::Ewma;
use crate::policy::gate::Gate;
use crate::policy::ramp::Ramp;

pub struct Member {
    pub endpoint: Endpoint,
    /// `namespace/name` of its pod, for people.
    pub pod: String,
    draining: AtomicBool,
    pub in_flight: AtomicU32,
    /// Mirrors the gate, so that others can count without locking.
    pub eligible: AtomicBool,
    learnt: Mutex<Learnt>,
    /// Wakes those who wait for an answer when the gate opens.
    pub ejected: Notify,
}

/// What calls to an endpoint have taught. Shared by all workers; locked for nanoseconds at a time.
pub struct Learnt {
    pub gate: Gate,
    pub latency: Ewma,
    /// A new endpoint gets its share slowly.
    pub ramp: Ramp,
    pub waiting: Waiting,
    pub last_completion: Option<Instant>,
}

impl Member {
    pub fn new(endpoint: Endpoint, pod: String, learnt: Learnt) -> Self {
        Self {
            endpoint,
            pod,
            draining: AtomicBool::new(false),
            in_flight: AtomicU32::new(0),
            eligible: AtomicBool::new(true),
            learnt: Mutex::new(learnt),
            ejected: Notify::new(),
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.endpoint.address
    }

    pub fn learnt(&self) -> MutexGuard<'_, Learnt> {
        self.learnt.lock().expect("no panic while locked")
    }

    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    pub fn set_draining(&self, draining: bool) {
        self.draining.store(draining, Ordering::Relaxed);
    }

    pub fn is_eligible(&self) -> bool {
        self.eligible.load(Ordering::Relaxed)
    }

    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }
}

/// Since when requests wait for the head of their response, oldest first.
#[derive(Default)]
pub struct Waiting {
    starts: VecDeque<Option<Instant>>,
    /// Number of the front entry.
    first: u64,
}

impl Waiting {
    pub fn start(&mut self, now: Instant) -> u64 {
        self.starts.push_back(Some(now));
        self.first + self.starts.len() as u64 - 1
    }

    pub fn end(&mut self, number: u64) {
        if let Some(index) = number.checked_sub(self.first)
            && let Some(start) = self.starts.get_mut(index as usize)
        {
            *start = None;
        }
        while let Some(None) = self.starts.front() {
            self.starts.pop_front();
            self.first += 1;
        }
    }

    pub fn oldest(&self) -> Option<Instant> {
        self.starts.front().copied().flatten()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

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
}
