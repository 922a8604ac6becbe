//! Two tries of one request at the same time: what each has to know of the other.

use std::net::SocketAddr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

#[derive(Debug, Default)]
pub struct Race {
    /// Where the first try went, and the second.
    to: [OnceLock<SocketAddr>; 2],
    over: AtomicBool,
}

impl Race {
    /// A try has chosen its endpoint; the second begins when it is known whom the first has chosen.
    pub fn chose(&self, address: SocketAddr) {
        let [first, second] = &self.to;
        let _ = first.set(address).or_else(|address| second.set(address));
    }

    pub fn first(&self) -> Option<SocketAddr> {
        self.tried().next()
    }

    pub fn tried(&self) -> impl Iterator<Item = SocketAddr> {
        self.to.iter().filter_map(OnceLock::get).copied()
    }

    /// There is a winner. Whoever has not been answered by now was cancelled, which says nothing about its endpoint.
    pub fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }
}
