//! The log on disk: four tables of redb, written by one transaction at a time. After a write that failed redb does
//! nothing more until it is opened anew, which the writer does: a disk that was full is not full for ever.
//!
//! | table | key → value |
//! |---|---|
//! | events | seq → the fact, encoded |
//! | orders | order, version → seq |
//! | keys | order, idempotency key → seq |
//! | acks | consumer → the last seq that it is done with |

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};

use prost::Message;
use redb::{
    Builder, Database, Durability, ReadTransaction, ReadableDatabase, ReadableTable,
    ReadableTableMetadata, TableDefinition, WriteTransaction,
};
use tempfile::NamedTempFile;

use crate::append::{Append, Verdict, judge};
use crate::pb::OrderEvent;

const EVENTS: TableDefinition<u64, &[u8]> = TableDefinition::new("events");
const ORDERS: TableDefinition<(&str, u32), u64> = TableDefinition::new("orders");
const KEYS: TableDefinition<(&str, &str), u64> = TableDefinition::new("keys");
const ACKS: TableDefinition<&str, u64> = TableDefinition::new("acks");

/// redb's own default is a gigabyte.
const CACHE_BYTES: usize = 16 << 20;

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("the log cannot be used: {0}")]
    Storage(#[from] redb::Error),
    #[error("seq {seq} of the log is damaged: {error}")]
    Damaged { seq: u64, error: prost::DecodeError },
    #[error("the log cannot be opened just now")]
    Closed,
}

/// redb has an error type for each of its verbs.
trait Named<Value> {
    fn named(self) -> Result<Value, StoreError>;
}

impl<Value, Error: Into<redb::Error>> Named<Value> for Result<Value, Error> {
    fn named(self) -> Result<Value, StoreError> {
        self.map_err(|error| StoreError::Storage(error.into()))
    }
}

#[derive(Debug)]
pub struct Store {
    /// None after a write failed, until it can be opened again.
    database: RwLock<Option<Database>>,
    path: PathBuf,
}

impl Store {
    /// Creates it if it is not there.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        if std::fs::metadata(path).is_err() {
            create(path)?;
        }
        let database = builder().open(path).named()?;
        Ok(Self {
            database: RwLock::new(Some(database)),
            path: path.to_owned(),
        })
    }

    /// After an error. What the failed transaction wrote is there as a whole, or not at all: ask for the head again.
    pub fn reopen(&self) -> Result<(), StoreError> {
        let mut database = self
            .database
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        // The file is this process's alone until it is closed.
        drop(database.take());
        *database = Some(builder().open(&self.path).named()?);
        Ok(())
    }

    fn begin_read(&self) -> Result<ReadTransaction, StoreError> {
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        let database = database.as_ref().ok_or(StoreError::Closed)?;
        database.begin_read().named()
    }

    fn begin_write(&self) -> Result<WriteTransaction, StoreError> {
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        let database = database.as_ref().ok_or(StoreError::Closed)?;
        database.begin_write().named()
    }

    pub fn bytes(&self) -> u64 {
        std::fs::metadata(&self.path).map_or(0, |file| file.len())
    }

    /// The last seq; 0 of an empty log.
    pub fn head(&self) -> Result<u64, StoreError> {
        let transaction = self.begin_read()?;
        let events = transaction.open_table(EVENTS).named()?;
        let head = events.len().named()?;
        Ok(head)
    }

    pub fn orders(&self) -> Result<u64, StoreError> {
        let transaction = self.begin_read()?;
        let table = transaction.open_table(ORDERS).named()?;
        let mut orders = 0;
        for entry in table.iter().named()? {
            let (key, _) = entry.named()?;
            orders += u64::from(key.value().1 == 1);
        }
        Ok(orders)
    }

    pub fn acks(&self) -> Result<BTreeMap<String, u64>, StoreError> {
        let transaction = self.begin_read()?;
        let table = transaction.open_table(ACKS).named()?;
        let mut acks = BTreeMap::new();
        for entry in table.iter().named()? {
            let (consumer, seq) = entry.named()?;
            acks.insert(consumer.value().to_owned(), seq.value());
        }
        Ok(acks)
    }

    /// Appends all that may be, in one transaction, which is on disk when this returns.
    /// `head` is the last seq before, `room` how many more orders there may be; the answer has a verdict for each,
    /// and the seqs of the new.
    pub fn append(
        &self,
        appends: &[Append],
        acks: &BTreeMap<String, u64>,
        head: u64,
        room: u64,
        at: prost_types::Timestamp,
    ) -> Result<Batch, StoreError> {
        let mut transaction = self.begin_write()?;
        transaction
            .set_durability(Durability::Immediate)
            .map_err(|error| StoreError::Storage(error.into()))?;
        let mut batch = Batch {
            head,
            new_orders: 0,
            outcomes: Vec::with_capacity(appends.len()),
        };
        {
            let mut tables = Tables {
                events: transaction.open_table(EVENTS).named()?,
                orders: transaction.open_table(ORDERS).named()?,
                keys: transaction.open_table(KEYS).named()?,
            };
            for append in appends {
                let has_room = batch.new_orders < room;
                let outcome = tables.append(append, batch.head, has_room, at)?;
                if let Outcome::Appended { last, .. } = outcome {
                    batch.head = last;
                    // A new order is what expects no facts.
                    batch.new_orders += u64::from(append.expected_version == 0);
                }
                batch.outcomes.push(outcome);
            }
            let mut table = transaction.open_table(ACKS).named()?;
            for (consumer, seq) in acks {
                table.insert(consumer.as_str(), seq).named()?;
            }
        }
        if batch.head == head && acks.is_empty() {
            transaction.abort().named()?;
        } else {
            transaction.commit().named()?;
        }
        Ok(batch)
    }

    pub fn event(&self, seq: u64) -> Result<Option<OrderEvent>, StoreError> {
        let transaction = self.begin_read()?;
        let events = transaction.open_table(EVENTS).named()?;
        let Some(bytes) = events.get(seq).named()? else {
            return Ok(None);
        };
        let event = OrderEvent::decode(bytes.value());
        let event = event.map_err(|error| StoreError::Damaged { seq, error })?;
        Ok(Some(event))
    }

    /// Where the fact of an order with this version is in the log.
    pub fn seq_of(&self, order_id: &str, version: u32) -> Result<Option<u64>, StoreError> {
        let transaction = self.begin_read()?;
        let orders = transaction.open_table(ORDERS).named()?;
        let seq = orders.get((order_id, version)).named()?;
        Ok(seq.map(|seq| seq.value()))
    }
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE_BYTES);
    builder
}

/// An empty log that is there as a whole, or not: a process that was killed while it created one in its
/// place would leave a file that is no log, and could never start again.
fn create(path: &Path) -> Result<(), StoreError> {
    let folder = match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    let file = NamedTempFile::new_in(folder).named()?;
    let database = builder().create(file.path()).named()?;
    let transaction = database.begin_write().named()?;
    transaction.open_table(EVENTS).named()?;
    transaction.open_table(ORDERS).named()?;
    transaction.open_table(KEYS).named()?;
    transaction.open_table(ACKS).named()?;
    transaction.commit().named()?;
    drop(database);
    // Of two processes that are started at once, both find the log of the first.
    match file.persist_noclobber(path) {
        Err(refused) if refused.error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(refused.error).named();
        }
        _ => {}
    }
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .named()
}

#[derive(Debug)]
pub struct Batch {
    pub head: u64,
    pub new_orders: u64,
    /// One for each append, in their order.
    pub outcomes: Vec<Outcome>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Appended { first: u64, last: u64 },
    Refused(Verdict),
}

struct Tables<'transaction> {
    events: redb::Table<'transaction, u64, &'static [u8]>,
    orders: redb::Table<'transaction, (&'static str, u32), u64>,
    keys: redb::Table<'transaction, (&'static str, &'static str), u64>,
}

impl Tables<'_> {
    fn append(
        &mut self,
        append: &Append,
        head: u64,
        has_room: bool,
        at: prost_types::Timestamp,
    ) -> Result<Outcome, StoreError> {
        let order_id = append.order_id.as_str();
        let version = self.version(order_id)?;
        let mut seqs = Vec::with_capacity(append.events.len());
        for event in &append.events {
            let seq = self.keys.get((order_id, event.idempotency_key.as_str()));
            seqs.push(seq.named()?.map(|seq| seq.value()));
        }
        match judge(version, append.expected_version, &seqs, has_room) {
            Verdict::New => {}
            verdict => return Ok(Outcome::Refused(verdict)),
        }
        let (mut seq, mut version) = (head, version);
        for event in &append.events {
            seq += 1;
            version += 1;
            let event = OrderEvent {
                seq,
                version,
                at: Some(at),
                ..event.clone()
            };
            let key = (order_id, event.idempotency_key.as_str());
            self.keys.insert(key, seq).named()?;
            self.orders.insert((order_id, version), seq).named()?;
            let bytes = event.encode_to_vec();
            self.events.insert(seq, bytes.as_slice()).named()?;
        }
        Ok(Outcome::Appended {
            first: head + 1,
            last: seq,
        })
    }

    fn version(&self, order_id: &str) -> Result<u32, StoreError> {
        let mut range = self
            .orders
            .range((order_id, 0)..=(order_id, u32::MAX))
            .named()?;
        let last = range.next_back().transpose().named()?;
        Ok(last.map_or(0, |(key, _)| key.value().1))
    }
}
