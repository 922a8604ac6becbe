//! Two tries of one request at the same time: what each has to know of the other.

use std::net::SocketAddr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

#[derive(Debug, Default)]
pub struct Race {
    /// Where the first try went.
    first: OnceLock<SocketAddr>,
    over: AtomicBool,
}

impl Race {
    /// The first try has chosen its endpoint. If it is the second that says so, nothing happens.
    pub fn chose(&self, address: SocketAddr) {
        let _ = self.first.set(address);
    }

    pub fn first(&self) -> Option<SocketAddr> {
        self.first.get().copied()
    }

    /// There is a winner. Whoever has not been answered by now was cancelled, which says nothing about its endpoint.
    pub fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }
}
