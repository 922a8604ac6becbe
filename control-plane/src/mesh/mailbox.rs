//! What is new for one sidecar: names of things, never the things themselves.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use weir_config::snapshot::ServiceKey;

/// Bounded by what the sidecar subscribed to, however long it does not look.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dirty {
    pub addresses: HashSet<SocketAddr>,
    pub services: HashSet<ServiceKey>,
    pub workload: bool,
    pub trust_bundle: bool,
    /// Not worth waiting for more: endpoints, or an answer to a question.
    pub urgent: bool,
}

#[derive(Default)]
pub struct Mailbox {
    inner: Mutex<Inner>,
    wake: Notify,
}

#[derive(Default)]
struct Inner {
    dirty: Dirty,
    /// Of the first mark since the last look.
    since: Option<Instant>,
}

impl Dirty {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl Mailbox {
    pub fn mark(&self, mark: impl FnOnce(&mut Dirty)) {
        let mut inner = self.lock();
        mark(&mut inner.dirty);
        inner.since.get_or_insert_with(Instant::now);
        drop(inner);
        self.wake.notify_one();
    }

    /// Returns when there is something to take: at once when it is urgent, else `debounce` after the first mark,
    /// so that what belongs together goes out together. May be dropped and called again without losing time.
    pub async fn ripe(&self, debounce: Duration) {
        loop {
            let woken = self.wake.notified();
            let since = {
                let inner = self.lock();
                if inner.dirty.urgent {
                    return;
                }
                inner.since
            };
            match since {
                None => woken.await,
                Some(since) => {
                    if tokio::time::timeout_at(since + debounce, woken)
                        .await
                        .is_err()
                    {
                        return;
                    }
                }
            }
        }
    }

    pub fn take(&self) -> Dirty {
        let mut inner = self.lock();
        inner.since = None;
        std::mem::take(&mut inner.dirty)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
