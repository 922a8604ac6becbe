//! The log as the service uses it: a queue before the one writer, and a head that subscribers watch.
//!
//! Whoever appends while the writer syncs waits for the next transaction, together with all others who
//! do: a group commit that is never waited for longer than one that is under way.
//!
//! Where a write fails, as on a disk that is full, those who waited for it are told to try again, and so is everybody
//! until the log could be opened anew.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::{mpsc, oneshot, watch};

use crate::append::Append;
use crate::pb::OrderEvent;
use crate::settings::Limits;
use crate::store::{Outcome, Store, StoreError};

/// Appends that wait for the writer; more are refused.
const QUEUE_MAX: usize = 1024;
/// Appends in a transaction.
const GROUP_MAX: usize = 256;
const CONSUMERS_MAX: usize = 64;
/// How often a log that could not be opened is tried again.
const REOPEN_EVERY: Duration = Duration::from_millis(200);
const MIB: u64 = 1 << 20;

#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("{QUEUE_MAX} appends wait already")]
    Busy,
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
    orders: Arc<AtomicU64>,
    limits: Limits,
}

impl Log {
    pub fn open(path: &Path, limits: Limits) -> Result<Self, StoreError> {
        let store = Arc::new(Store::open(path)?);
        let (known, head) = watch::channel(store.head()?);
        let (queue, waiting) = mpsc::channel(QUEUE_MAX);
        let acks = Arc::new(Mutex::new(Acks {
            of: store.acks()?,
            ..Default::default()
        }));
        let orders = Arc::new(AtomicU64::new(store.orders()?));
        let writer = Writer {
            store: Arc::clone(&store),
            head: known,
            acks: Arc::clone(&acks),
            orders: Arc::clone(&orders),
            limits,
            has_warned: false,
        };
        std::thread::spawn(move || writer.run(waiting));
        Ok(Self {
            store,
            queue,
            head,
            acks,
            orders,
            limits,
        })
    }

    /// How far it is from taking no new orders, for people.
    pub fn fullness(&self) -> String {
        fullness(
            self.orders.load(Ordering::Relaxed),
            &self.store,
            self.limits,
        )
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

    /// The last seq on disk, of which the head may not have heard yet.
    pub fn last(&self) -> Result<u64, StoreError> {
        self.store.head()
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

fn fullness(orders: u64, store: &Store, limits: Limits) -> String {
    let (mib, mib_max) = (store.bytes() / MIB, limits.bytes_max / MIB);
    let orders_max = limits.orders_max;
    format!(
        "the log has {orders} of {orders_max} orders (LOG_ORDERS_MAX) and {mib} of {mib_max} MiB (LOG_MIB_MAX)"
    )
}

struct Writer {
    store: Arc<Store>,
    head: watch::Sender<u64>,
    acks: Arc<Mutex<Acks>>,
    orders: Arc<AtomicU64>,
    limits: Limits,
    has_warned: bool,
}

impl Writer {
    fn run(mut self, mut queue: mpsc::Receiver<Waiting>) {
        // What was nearly full when the process ended is so when the next one begins.
        self.warn();
        while let Some(first) = queue.blocking_recv() {
            let mut group = vec![first];
            while group.len() < GROUP_MAX
                && let Ok(next) = queue.try_recv()
            {
                group.push(next);
            }
            if self.write(group).is_err() {
                self.recover(&mut queue);
            }
            self.warn();
        }
        if let Err(error) = self.commit(&[]) {
            eprintln!("orderlog: the last acks were not written: {error}");
        }
    }

    /// Everybody who waited hears what came of it. An error: the log is not open any more.
    fn write(&self, group: Vec<Waiting>) -> Result<(), StoreError> {
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
                Ok(())
            }
            Err(error) => {
                eprintln!("orderlog: {error}; the log is opened anew");
                let reopened = self.reopen();
                for answer in answers {
                    let _ = answer.send(Err(LogError::Unknown(error.to_string())));
                }
                reopened
            }
        }
    }

    fn commit(&self, appends: &[Append]) -> Result<Vec<Outcome>, LogError> {
        let acks = {
            let mut acks = self.acks.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut acks.unwritten)
        };
        let (head, room) = (*self.head.borrow(), self.room());
        let now = SystemTime::now().into();
        let batch = match self.store.append(appends, &acks, head, room, now) {
            Ok(batch) => batch,
            Err(error) => {
                self.keep(acks);
                return Err(error.into());
            }
        };
        self.goes_on_at(batch.head);
        self.orders.fetch_add(batch.new_orders, Ordering::Relaxed);
        Ok(batch.outcomes)
    }

    /// How many more orders may be taken.
    fn room(&self) -> u64 {
        if self.store.bytes() > self.limits.bytes_max {
            return 0;
        }
        let orders = self.orders.load(Ordering::Relaxed);
        self.limits.orders_max.saturating_sub(orders)
    }

    /// Once: nothing is ever taken out of it, so it stays nearly full for as long as the process runs.
    fn warn(&mut self) {
        let orders = self.orders.load(Ordering::Relaxed);
        let nearly = self.limits.is_nearly_full(orders, self.store.bytes());
        if nearly && !self.has_warned {
            let fullness = fullness(orders, &self.store, self.limits);
            eprintln!("orderlog: {fullness}; beyond that it takes no new orders");
            self.has_warned = true;
        }
    }

    fn goes_on_at(&self, new: u64) {
        self.head.send_if_modified(|head| {
            let changed = *head != new;
            *head = new;
            changed
        });
    }

    /// Acks that were not written are written another time, unless later ones came.
    fn keep(&self, unwritten: BTreeMap<String, u64>) {
        let mut acks = self.acks.lock().unwrap_or_else(PoisonError::into_inner);
        for (consumer, seq) in unwritten {
            acks.unwritten.entry(consumer).or_insert(seq);
        }
    }

    /// Until the log is open again; whoever appends meanwhile is told to repeat it.
    fn recover(&self, queue: &mut mpsc::Receiver<Waiting>) {
        while let Err(error) = self.reopen() {
            while let Ok(waiting) = queue.try_recv() {
                let unknown = LogError::Unknown(error.to_string());
                let _ = waiting.answer.send(Err(unknown));
            }
            if queue.is_closed() {
                return;
            }
            std::thread::park_timeout(REOPEN_EVERY);
        }
    }

    /// The transaction that failed may be there all the same.
    fn reopen(&self) -> Result<(), StoreError> {
        self.store.reopen()?;
        let orders = self.store.orders()?;
        self.goes_on_at(self.store.head()?);
        self.orders.store(orders, Ordering::Relaxed);
        Ok(())
    }
}
