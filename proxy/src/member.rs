//! An endpoint as a member of its backend, shared by all workers.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::Notify;
use weir_config::resource::WEIGHT_DEFAULT;

use crate::endpoint::Endpoint;
use crate::learnt::Learnt;
use crate::tally::Mirror;

pub struct Member {
    pub endpoint: Endpoint,
    /// `namespace/name` of its pod, for people.
    pub pod: String,
    draining: AtomicBool,
    /// 100 is an ordinary endpoint's.
    weight: AtomicU32,
    /// Where it is; `None`: nobody says so. Read when the pool changes, never by a request.
    zone: Mutex<Option<Arc<str>>>,
    pub in_flight: AtomicU32,
    pub mirror: Mirror,
    /// Opaque ones that are open. They are no calls: most are idle most of the time.
    pub connections: AtomicU32,
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
            weight: AtomicU32::new(WEIGHT_DEFAULT),
            zone: Mutex::new(None),
            in_flight: AtomicU32::new(0),
            mirror: Mirror::default(),
            connections: AtomicU32::new(0),
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

    pub fn weight(&self) -> u32 {
        self.weight.load(Ordering::Relaxed)
    }

    pub fn zone(&self) -> Option<Arc<str>> {
        self.zone.lock().expect("no panic while locked").clone()
    }

    /// What discovery says now of where it is and of its share.
    pub fn place(&self, weight: u32, zone: Option<&str>) {
        self.weight.store(weight.max(1), Ordering::Relaxed);
        *self.zone.lock().expect("no panic while locked") = zone.map(Arc::from);
    }

    pub fn is_eligible(&self) -> bool {
        self.mirror.is_eligible()
    }

    /// Ends when its gate opens. Where it was eligible before, that may have happened meanwhile.
    pub async fn until_ejected(&self, was_eligible: bool) {
        let ejected = self.ejected.notified();
        // From here on it is not missed.
        if !was_eligible || self.is_eligible() {
            ejected.await;
        }
    }

    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    pub fn connections(&self) -> u32 {
        self.connections.load(Ordering::Relaxed)
    }
}
