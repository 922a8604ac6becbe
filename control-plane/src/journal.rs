//! The journal: what happened in the mesh, in order, past tense, never changed afterwards.
//!
//! ```text
//!   record ─▶ bounded queue ─▶ writer thread: take all that wait, one commit, one sync ─▶ acked
//!                                                        │
//!   follow ◀── read from the store ◀── watch: highest synced number
//! ```
//!
//! Acked means synced. Whoever follows reads the store and is only woken by the watch, so a slow follower costs
//! nothing and misses nothing that is kept.
//!
//! A store that failed once is not written again (a failed fsync may have lost pages for good, and a second one
//! would lie about it): the mesh runs on, nothing is acked, and the reason is told to everybody who asks.

mod fact;
mod kept;
mod store;

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::{mpsc, oneshot, watch};

pub use self::fact::{Fact, KINDS};
use self::kept::Teller;
pub use self::store::{RedbStore, Store, StoreError};

/// Facts that wait for the writer. What is only noted is dropped beyond it, rather than kept in memory.
const QUEUE_MAX: usize = 16 * 1024;
/// Of them, places that sidecars and strangers leave to the control plane's own facts.
const QUEUE_RESERVED: usize = QUEUE_MAX / 4;
/// In one commit.
const BATCH_MAX: usize = 1024;

/// One fact as it is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    pub seq: u64,
    pub at_ms: u64,
    pub kind: String,
    pub subject: String,
    #[serde(default)]
    pub reporter: String,
    pub message: String,
    pub details: Value,
}

/// A handle; all clones write to the same log.
#[derive(Clone)]
pub struct Journal {
    queue: mpsc::Sender<Entry>,
    store: Arc<dyn Store>,
    /// The number the next fact gets: everything below it is synced.
    synced: watch::Receiver<u64>,
}

struct Entry {
    event: Event,
    ack: Option<oneshot::Sender<Result<u64, StoreError>>>,
}

impl Journal {
    pub fn open(store: impl Store) -> Result<Self, StoreError> {
        let store: Arc<dyn Store> = Arc::new(store);
        let next = store.bounds()?.end;
        let (queue, entries) = mpsc::channel(QUEUE_MAX);
        let (announce, synced) = watch::channel(next);
        let writer = Writer {
            store: store.clone(),
            entries,
            announce,
            next,
            broken: None,
        };
        // A thread of its own, not a task: it spends its life waiting for a disk.
        let thread = std::thread::Builder::new().name("journal".to_owned());
        thread
            .spawn(move || writer.run())
            .map_err(|error| StoreError::new("starting the writer", error))?;
        Ok(Self {
            queue,
            store,
            synced,
        })
    }

    /// Synced when this returns, with the fact's number.
    pub async fn record(&self, fact: Fact) -> Result<u64, StoreError> {
        let (ack, acked) = oneshot::channel();
        let entry = Entry {
            event: fact.into_event(now_ms()),
            ack: Some(ack),
        };
        let gone = || StoreError::new("writing", "the writer has stopped");
        self.queue.send(entry).await.map_err(|_| gone())?;
        acked.await.map_err(|_| gone())?
    }

    /// Written soon, by the clock of whoever saw it happen. Never waits.
    pub fn note_at(&self, fact: Fact, at_ms: u64) {
        let entry = Entry {
            event: fact.into_event(at_ms),
            ack: None,
        };
        let is_own = Teller::of(&entry.event.kind) == Teller::ControlPlane;
        let dropped = match self.queue.try_reserve() {
            Ok(place) if is_own || self.queue.capacity() >= QUEUE_RESERVED => {
                place.send(entry);
                return;
            }
            Ok(_) | Err(mpsc::error::TrySendError::Full(())) => Some(entry),
            // It stops.
            Err(mpsc::error::TrySendError::Closed(())) => None,
        };
        if let Some(entry) = dropped {
            tracing::warn!(
                kind = entry.event.kind,
                subject = entry.event.subject,
                "the journal's queue is full: fact dropped"
            );
        }
    }

    pub fn note(&self, fact: Fact) {
        self.note_at(fact, now_ms());
    }

    /// At most `limit` facts from `seq` on, oldest first. Reads the disk: the caller is on a thread that may block.
    pub fn read(&self, seq: u64, limit: usize) -> Result<Vec<Event>, StoreError> {
        self.store.read(seq, limit)
    }

    /// The numbers that are kept: the oldest, and the one that comes next.
    pub fn bounds(&self) -> Result<std::ops::Range<u64>, StoreError> {
        self.store.bounds()
    }

    /// Changes whenever something was synced.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.synced.clone()
    }
}

struct Writer {
    store: Arc<dyn Store>,
    entries: mpsc::Receiver<Entry>,
    announce: watch::Sender<u64>,
    next: u64,
    broken: Option<StoreError>,
}

impl Writer {
    fn run(mut self) {
        let mut batch = Vec::new();
        while self.entries.blocking_recv_many(&mut batch, BATCH_MAX) > 0 {
            let result = self.append(&mut batch);
            for entry in batch.drain(..) {
                let Some(ack) = entry.ack else { continue };
                let _ = ack.send(result.clone().map(|()| entry.event.seq));
            }
        }
    }

    fn append(&mut self, batch: &mut [Entry]) -> Result<(), StoreError> {
        if let Some(broken) = &self.broken {
            return Err(broken.clone());
        }
        for (entry, seq) in batch.iter_mut().zip(self.next..) {
            entry.event.seq = seq;
        }
        let events: Vec<&Event> = batch.iter().map(|entry| &entry.event).collect();
        if let Err(error) = self.store.append(&events) {
            tracing::error!(%error, "the journal is out of order: nothing is recorded any more until a restart");
            self.broken = Some(error.clone());
            return Err(error);
        }
        self.next += batch.len() as u64;
        self.announce.send_replace(self.next);
        Ok(())
    }
}

pub fn now_ms() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
