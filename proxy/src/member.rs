//! An endpoint as a member of its backend, shared by all workers.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard};

use tokio::sync::Notify;

use crate::endpoint::Endpoint;
use crate::learnt::Learnt;

pub struct Member {
    pub endpoint: Endpoint,
    /// `namespace/name` of its pod, for people.
    pub pod: String,
    draining: AtomicBool,
    pub in_flight: AtomicU32,
    /// Mirrors the gate, so that others can count without locking.
    pub eligible: AtomicBool,
    /// Shared by all workers; locked for nanoseconds at a time.
    learnt: Mutex<Learnt>,
    /// Wakes those who wait for an answer when the gate opens.
    pub ejected: Notify,
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
