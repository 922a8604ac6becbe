//! Where the journal is kept: one redb file, one table, number → fact as JSON.

use std::fmt;
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};

use std::sync::{Mutex, PoisonError};

use redb::{Builder, Database, DatabaseError, ReadableDatabase, ReadableTable, TableDefinition};
use serde::Deserialize;

use super::Event;
use super::kept::{Kept, Teller};

const FACTS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("facts");
/// The journal is read from its end: a page cache of this size holds all that is asked for.
const CACHE_BYTES: usize = 16 * 1024 * 1024;

/// An append-only log of facts.
pub trait Store: Send + Sync + 'static {
    /// Whole and durable when this returns, or not at all.
    fn append(&self, events: &[&Event]) -> Result<(), StoreError>;
    /// At most `limit` facts from `seq` on, oldest first.
    fn read(&self, seq: u64, limit: usize) -> Result<Vec<Event>, StoreError>;
    /// The oldest number kept, and the one that comes next.
    fn bounds(&self) -> Result<Range<u64>, StoreError>;
}

/// What could not be done, and why; text for the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreError(String);

impl StoreError {
    pub(super) fn new(doing: &str, error: impl fmt::Display) -> Self {
        Self(format!("{doing} the journal: {error}"))
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for StoreError {}

pub struct RedbStore {
    path: PathBuf,
    database: Database,
    kept: Mutex<Kept>,
}

impl RedbStore {
    /// Opens the file at `path` or makes it; keeps at most `facts_max` facts, of each teller its share. Whatever cannot be read is an error.
    pub fn open(path: &Path, facts_max: u64) -> Result<Self, StoreError> {
        let fail = |error: &dyn fmt::Display| StoreError(format!("{}: {error}", path.display()));
        if !path.exists() {
            create(path).map_err(|error| fail(&error))?;
        }
        // redb takes an empty file for a new database; ours is never empty, so it is a truncated one.
        if std::fs::metadata(path).map_err(|error| fail(&error))?.len() == 0 {
            return Err(fail(
                &"the journal is empty, which it never is: it was truncated. Restore it, or move it away to start a new one",
            ));
        }
        let mut builder = Builder::new();
        builder
            .set_cache_size(CACHE_BYTES)
            .set_check_integrity_on_open(true);
        let database = builder.open(path).map_err(|error| match error {
            DatabaseError::DatabaseAlreadyOpen => fail(&"another control plane uses this journal"),
            error => fail(&format_args!(
                "{error}. Restore it, or move it away to start a new one"
            )),
        })?;
        let kept = kept_in(&database, facts_max).map_err(|error| fail(&error))?;
        Ok(Self {
            path: path.to_owned(),
            database,
            kept: Mutex::new(kept),
        })
    }

    fn fail(&self, doing: &str, error: impl fmt::Display) -> StoreError {
        StoreError::new(doing, format_args!("{}: {error}", self.path.display()))
    }
}

fn kept_in(database: &Database, facts_max: u64) -> Result<Kept, redb::Error> {
    #[derive(Deserialize)]
    struct OfKind<'a> {
        kind: &'a str,
    }
    let mut kept = Kept::new(facts_max);
    for entry in database.begin_read()?.open_table(FACTS)?.iter()? {
        let (seq, json) = entry?;
        // One that cannot be read is somebody's to find who reads it.
        let teller = serde_json::from_slice(json.value())
            .map_or(Teller::Sidecar, |of: OfKind<'_>| Teller::of(of.kind));
        kept.push(teller, seq.value());
    }
    Ok(kept)
}

/// Under another name until it is whole: what has the journal's name is a journal.
fn create(path: &Path) -> Result<(), redb::Error> {
    let temporary = path.with_extension("new");
    if temporary.exists() {
        std::fs::remove_file(&temporary)?;
    }
    let database = Database::create(&temporary)?;
    let transaction = database.begin_write()?;
    transaction.open_table(FACTS)?;
    transaction.commit()?;
    drop(database);
    std::fs::rename(&temporary, path)?;
    if let Some(folder) = path.parent() {
        File::open(folder)?.sync_all()?;
    }
    Ok(())
}

impl Store for RedbStore {
    fn append(&self, events: &[&Event]) -> Result<(), StoreError> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let mut append = || -> Result<(), redb::Error> {
            let transaction = self.database.begin_write()?;
            {
                let mut facts = transaction.open_table(FACTS)?;
                for event in events {
                    let json = serde_json::to_vec(event).expect("an event is plain data");
                    facts.insert(event.seq, json.as_slice())?;
                    kept.push(Teller::of(&event.kind), event.seq);
                }
                while let Some(seq) = kept.pop() {
                    facts.remove(seq)?;
                }
            }
            // redb's default durability: synced when this returns.
            transaction.commit()?;
            Ok(())
        };
        append().map_err(|error| self.fail("writing", error))
    }

    fn read(&self, seq: u64, limit: usize) -> Result<Vec<Event>, StoreError> {
        let read = || -> Result<Vec<Event>, redb::Error> {
            let facts = self.database.begin_read()?.open_table(FACTS)?;
            let mut events = Vec::new();
            for entry in facts.range(seq..)?.take(limit) {
                let (key, json) = entry?;
                let event = serde_json::from_slice(json.value());
                events.push(event.map_err(|error| {
                    redb::Error::Corrupted(format!("fact {}: {error}", key.value()))
                })?);
            }
            Ok(events)
        };
        read().map_err(|error| self.fail("reading", error))
    }

    fn bounds(&self) -> Result<Range<u64>, StoreError> {
        let bounds = || -> Result<Range<u64>, redb::Error> {
            let facts = self.database.begin_read()?.open_table(FACTS)?;
            let first = facts.first()?.map(|(key, _)| key.value());
            let last = facts.last()?.map(|(key, _)| key.value());
            // Numbers start at 1: 0 means "from the oldest" to whoever asks.
            Ok(first.unwrap_or(1)..last.map_or(1, |last| last + 1))
        };
        bounds().map_err(|error| self.fail("reading", error))
    }
}
