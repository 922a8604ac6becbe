//! The log as the service uses it: a queue before the one writer, and a head that subscribers watch.
//!
//! Whoever appends while the writer syncs waits for the next transaction, together with all others who
//! do: a group commit that is never waited for longer than one that is under way.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use tokio::sync::{mpsc, oneshot, watch};

use crate::append::Append;
use crate::pb::OrderEvent;
use crate::store::{Outcome, Store, StoreError};

/// Appends that wait for the writer; more are refused.
const QUEUE_MAX: usize = 1024;
/// Appends in a transaction.
const GROUP_MAX: usize = 256;
const CONSUMERS_MAX: usize = 64;

#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("{QUEUE_MAX} appends wait already")]
    Busy,
    #[error("the log has {bytes} bytes, at most {bytes_max} are allowed")]
    Full { bytes: u64, bytes_max: u64 },
    #[error("{CONSUMERS_MAX} consumers are remembered already")]
    Consumers,
    /// Whether it was appended is not known: repeat it.
    #[error("{0}")]
    Unknown(String),
    #[error(transparent)]
    Store(#[from] StoreError),
}

struct Waiting {
    append: Append,
    answer: oneshot::Sender<Result<Outcome, LogError>>,
}

/// Acks of consumers. Written along with the next append: what a crash takes back of them is delivered again.
#[derive(Debug, Default)]
struct Acks {
    of: BTreeMap<String, u64>,
    unwritten: BTreeMap<String, u64>,
}

/// Clones share the log. The writer ends with the last of them.
#[derive(Clone, Debug)]
pub struct Log {
    store: Arc<Store>,
    queue: mpsc::Sender<Waiting>,
    head: watch::Receiver<u64>,
    acks: Arc<Mutex<Acks>>,
}

impl Log {
    pub fn open(path: &Path, bytes_max: u64) -> Result<Self, StoreError> {
        let store = Arc::new(Store::open(path)?);
        let (known, head) = watch::channel(store.head()?);
        let (queue, waiting) = mpsc::channel(QUEUE_MAX);
        let acks = Arc::new(Mutex::new(Acks {
            of: store.acks()?,
            ..Default::default()
        }));
        let writer = Writer {
            store: Arc::clone(&store),
            head: known,
            acks: Arc::clone(&acks),
            bytes_max,
        };
        std::thread::spawn(move || writer.run(waiting));
        Ok(Self {
            store,
            queue,
            head,
            acks,
        })
    }

    /// Resolves when it is on disk, or refused.
    pub async fn append(&self, append: Append) -> Result<Outcome, LogError> {
        let (answer, answered) = oneshot::channel();
        let waiting = Waiting { append, answer };
        self.queue.try_send(waiting).map_err(|_| LogError::Busy)?;
        let gone = |_| Err(LogError::Unknown("the writer has ended".to_owned()));
        answered.await.unwrap_or_else(gone)
    }

    pub fn head(&self) -> watch::Receiver<u64> {
        self.head.clone()
    }

    pub fn event(&self, seq: u64) -> Result<Option<OrderEvent>, StoreError> {
        self.store.event(seq)
    }

    pub fn seq_of(&self, order_id: &str, version: u32) -> Result<Option<u64>, StoreError> {
        self.store.seq_of(order_id, version)
    }

    /// The last seq that a consumer is done with.
    pub fn acked(&self, consumer: &str) -> u64 {
        let acks = self.acks.lock().unwrap_or_else(PoisonError::into_inner);
        acks.of.get(consumer).copied().unwrap_or_default()
    }

    /// An ack never goes back, nor beyond what there is.
    pub fn ack(&self, consumer: &str, seq: u64) -> Result<(), LogError> {
        let seq = seq.min(*self.head.borrow());
        let mut acks = self.acks.lock().unwrap_or_else(PoisonError::into_inner);
        let known = acks.of.get(consumer).copied();
        if known.is_none() && acks.of.len() >= CONSUMERS_MAX {
            return Err(LogError::Consumers);
        }
        if known.is_none_or(|known| known < seq) {
            acks.of.insert(consumer.to_owned(), seq);
            acks.unwritten.insert(consumer.to_owned(), seq);
        }
        Ok(())
    }
}

struct Writer {
    store: Arc<Store>,
    head: watch::Sender<u64>,
    acks: Arc<Mutex<Acks>>,
    bytes_max: u64,
}

impl Writer {
    fn run(self, mut queue: mpsc::Receiver<Waiting>) {
        while let Some(first) = queue.blocking_recv() {
            let mut group = vec![first];
            while group.len() < GROUP_MAX
                && let Ok(next) = queue.try_recv()
            {
                group.push(next);
            }
            self.write(group);
        }
        if let Err(error) = self.commit(&[]) {
            eprintln!("orderlog: the last acks were not written: {error}");
        }
    }

    fn write(&self, group: Vec<Waiting>) {
        let (appends, answers): (Vec<_>, Vec<_>) = group
            .into_iter()
            .map(|waiting| (waiting.append, waiting.answer))
            .unzip();
        // A caller that left does not hear it; what it appended is appended all the same.
        match self.commit(&appends) {
            Ok(outcomes) => {
                for (answer, outcome) in answers.into_iter().zip(outcomes) {
                    let _ = answer.send(Ok(outcome));
                }
            }
            Err(error) => {
                for answer in answers {
                    let _ = answer.send(Err(again(&error)));
                }
            }
        }
    }

    fn commit(&self, appends: &[Append]) -> Result<Vec<Outcome>, LogError> {
        let bytes = self.store.bytes();
        if bytes > self.bytes_max {
            let bytes_max = self.bytes_max;
            return Err(LogError::Full { bytes, bytes_max });
        }
        let acks = {
            let mut acks = self.acks.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut acks.unwritten)
        };
        let head = *self.head.borrow();
        let batch = self
            .store
            .append(appends, &acks, head, SystemTime::now().into())?;
        self.head.send_if_modified(|head| {
            let changed = *head != batch.head;
            *head = batch.head;
            changed
        });
        Ok(batch.outcomes)
    }
}

/// The same error for everybody who waited.
fn again(error: &LogError) -> LogError {
    match error {
        LogError::Full { bytes, bytes_max } => LogError::Full {
            bytes: *bytes,
            bytes_max: *bytes_max,
        },
        other => LogError::Unknown(other.to_string()),
    }
}
