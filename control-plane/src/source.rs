//! Where the mesh's resources come from: the Kubernetes API ([`kubernetes`]), or directories of Kubernetes YAML, read
//! again when they change.
//!
//! Of directories, a poll of names, times and sizes: no kernel interface that overflows, works on every file system and through
//! ConfigMap symlinks. Files whose stamp is as it was are not opened.
//!
//! | file | noun |
//! |---|---|
//! | `files` | what each file says, and what changes when one says something else (pure) |
//! | `kubernetes/` | the API server, kind by kind |
//! | `memory` | the last good content of policy files, across restarts |

mod files;
pub mod kubernetes;
mod memory;

use std::collections::BTreeMap;
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::journal::{Fact, Journal};
use crate::mesh::{Change, Mesh};

use self::files::{Content, Files, Text};
pub use self::memory::Memory;

const POLL_EVERY: Duration = Duration::from_millis(150);
/// Larger than any mesh's objects in one file; a bomb otherwise.
pub(crate) const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;
const DEPTH_MAX: usize = 16;
/// A file written this shortly before it was read may change again without its times telling.
const TIMES_SETTLE: Duration = Duration::from_millis(50);

pub struct Source {
    roots: Vec<PathBuf>,
    files: Files,
    memory: Memory,
    stamps: BTreeMap<PathBuf, Stamp>,
    /// Said once, not at every poll.
    unreadable: Option<String>,
}

/// What a look at the directories brought.
#[derive(Default)]
pub struct Scan {
    pub changes: Vec<Change>,
    pub facts: Vec<Fact>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Stamp {
    modified: (i64, i64),
    changed: (i64, i64),
    bytes: u64,
    inode: u64,
}

impl Source {
    /// `memory`: a folder for the last good content of policy files.
    pub fn open(roots: Vec<PathBuf>, memory: PathBuf, trust_domain: &str) -> io::Result<Self> {
        for root in &roots {
            std::fs::metadata(root).map_err(|error| {
                io::Error::new(error.kind(), format!("{}: {error}", root.display()))
            })?;
        }
        Ok(Self {
            roots,
            files: Files::new(trust_domain),
            memory: Memory::new(memory),
            stamps: BTreeMap::new(),
            unreadable: None,
        })
    }

    /// What was in force before a restart, so that a file that is bad now has a last good content.
    pub fn recall(&mut self) -> Scan {
        let remembered = self
            .memory
            .recall()
            .into_iter()
            .map(|(name, text)| (name, Content::Text(text)));
        let scan = self.files.update(remembered.collect());
        // It was accepted once, and the journal has that already.
        Scan {
            changes: scan.changes,
            facts: Vec::new(),
        }
    }

    /// Reads what changed since the last time. Blocks.
    pub fn scan(&mut self) -> Scan {
        let found = match self.walk() {
            Ok(found) => {
                self.unreadable = None;
                found
            }
            Err(error) => {
                // A directory that cannot be listed is not an empty one: everything stays as it was.
                if self.unreadable.as_ref() != Some(&error) {
                    tracing::error!(
                        error,
                        "the source cannot be read; what was read before stays in force"
                    );
                    self.unreadable = Some(error);
                }
                return Scan::default();
            }
        };
        let mut news = Vec::new();
        let known = self.files.names().map(PathBuf::from);
        let gone: Vec<PathBuf> = known.filter(|path| !found.contains_key(path)).collect();
        for path in gone {
            self.stamps.remove(&path);
            news.push((display(&path), Content::Gone));
        }
        for (path, metadata) in found {
            let stamp = Stamp::of(&metadata);
            if self.stamps.get(&path) == Some(&stamp) {
                continue;
            }
            match read(&path, &metadata) {
                Content::Gone => continue, // it went while we looked: the next scan sees that
                content => news.push((display(&path), content)),
            }
            if is_settled(&metadata) {
                self.stamps.insert(path, stamp);
            }
        }
        if news.is_empty() {
            return Scan::default();
        }
        let update = self.files.update(news);
        for (name, text) in &update.remember {
            self.memory.keep(name, text.as_ref());
        }
        Scan {
            changes: update.changes,
            facts: update.facts,
        }
    }

    fn walk(&self) -> Result<BTreeMap<PathBuf, Metadata>, String> {
        let mut found = BTreeMap::new();
        for root in &self.roots {
            let metadata =
                std::fs::metadata(root).map_err(|error| format!("{}: {error}", root.display()))?;
            if metadata.is_dir() {
                walk_folder(root, DEPTH_MAX, &mut found)?;
            } else {
                found.insert(root.clone(), metadata);
            }
        }
        Ok(found)
    }
}

fn walk_folder(
    folder: &Path,
    depth: usize,
    found: &mut BTreeMap<PathBuf, Metadata>,
) -> Result<(), String> {
    let fail = |error: io::Error| format!("{}: {error}", folder.display());
    for entry in std::fs::read_dir(folder).map_err(fail)? {
        let entry = entry.map_err(fail)?;
        let path = entry.path();
        // Hidden ones are editors' and Kubernetes' own (`..data`), and files that are still being written.
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        let metadata = match std::fs::metadata(&path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue, // it went while we looked
            Err(error) => return Err(format!("{}: {error}", path.display())),
        };
        let is_yaml = path
            .extension()
            .is_some_and(|extension| extension == "yaml" || extension == "yml");
        if metadata.is_dir() && depth > 0 {
            walk_folder(&path, depth - 1, found)?;
        } else if metadata.is_file() && is_yaml {
            found.insert(path, metadata);
        }
    }
    Ok(())
}

fn read(path: &Path, metadata: &Metadata) -> Content {
    if metadata.len() > FILE_BYTES_MAX {
        return Content::Unreadable(format!("the file is larger than {FILE_BYTES_MAX} bytes"));
    }
    match std::fs::read_to_string(path) {
        Ok(text) => Content::Text(Text {
            text,
            written_ms: written_ms(metadata),
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Content::Gone,
        Err(error) => Content::Unreadable(error.to_string()),
    }
}

/// Never later than now: what a clock of somewhere else has written is not to last the longer for it.
fn written_ms(metadata: &Metadata) -> Option<u64> {
    let written = metadata.modified().ok()?.min(SystemTime::now());
    let since = written.duration_since(UNIX_EPOCH).ok()?;
    u64::try_from(since.as_millis()).ok()
}

fn display(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

fn is_settled(metadata: &Metadata) -> bool {
    let changed = UNIX_EPOCH + Duration::from_secs(metadata.ctime().try_into().unwrap_or_default());
    let changed =
        changed + Duration::from_nanos(metadata.ctime_nsec().try_into().unwrap_or_default());
    // A time in the future tells nothing: settled, or the file would be read for ever.
    SystemTime::now()
        .duration_since(changed)
        .is_ok_and(|age| age >= TIMES_SETTLE)
        || changed > SystemTime::now()
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
            bytes: metadata.len(),
            inode: metadata.ino(),
        }
    }
}

/// Runs for as long as the process does.
pub async fn watch(mut source: Source, mesh: Mesh, journal: Journal) {
    loop {
        tokio::time::sleep(POLL_EVERY).await;
        let scanned = tokio::task::spawn_blocking(move || {
            let scan = source.scan();
            (source, scan)
        });
        let scan;
        (source, scan) = scanned.await.expect("reading files does not panic");
        put_in_force(scan, &mesh, &journal);
    }
}

/// What was accepted is in force before the journal says so.
pub fn put_in_force(scan: Scan, mesh: &Mesh, journal: &Journal) {
    if !scan.changes.is_empty() {
        mesh.change(scan.changes);
    }
    for fact in scan.facts {
        if let Fact::PolicyRejected { file, diagnostics } = &fact {
            tracing::warn!(
                file,
                "refused, the last good content stays in force\n{}",
                diagnostics.join("\n")
            );
        }
        journal.note(fact);
    }
}

#[cfg(test)]
mod tests;
