//! The files to be checked: each once, by whichever name it is met first.

use std::collections::HashSet;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::source::FILE_BYTES_MAX;

#[derive(Default)]
pub(super) struct Files {
    pub(super) found: Vec<File>,
    /// Where a link leads to what was met before: to read it again would make duplicates, or not end.
    seen: HashSet<PathBuf>,
}

pub(super) struct File {
    pub(super) name: String,
    /// Or why it cannot be had.
    pub(super) content: Result<Vec<u8>, String>,
}

impl Files {
    /// What was asked for by name: there must be something in it.
    pub(super) fn add(&mut self, path: &Path) {
        if path == Path::new("-") {
            if self.seen.insert(path.to_owned()) {
                self.push("<stdin>".to_owned(), read(io::stdin()));
            }
            return;
        }
        if let Ok(0) = self.enter(path) {
            let why = "there is no file in it that ends in .yaml, .yml or .json";
            self.push(path.display().to_string(), Err(io::Error::other(why)));
        }
    }

    /// How many files it stands for, those that were met before included; `Err`: it is told why not.
    fn enter(&mut self, path: &Path) -> Result<usize, ()> {
        let entered = self.try_enter(path);
        entered.map_err(|error| self.push(path.display().to_string(), Err(error)))
    }

    fn try_enter(&mut self, path: &Path) -> io::Result<usize> {
        let is_new = self.seen.insert(fs::canonicalize(path)?);
        if !is_new {
            return Ok(1);
        }
        if !fs::metadata(path)?.is_dir() {
            let content = fs::File::open(path).and_then(read);
            self.push(path.display().to_string(), content);
            return Ok(1);
        }
        let entries = fs::read_dir(path)?.map(|entry| Ok(entry?.path()));
        let mut entries = entries.collect::<io::Result<Vec<_>>>()?;
        entries.sort();
        entries.retain(|entry| is_to_be_read(entry));
        let inside = entries.iter().map(|entry| self.enter(entry).unwrap_or(1));
        Ok(inside.sum())
    }

    fn push(&mut self, name: String, content: io::Result<Vec<u8>>) {
        let content = content.map_err(|error| error.to_string());
        self.found.push(File { name, content });
    }
}

/// Of a directory: what kubectl would apply, and the directories in it. Hidden ones are editors' and Kubernetes' own.
fn is_to_be_read(entry: &Path) -> bool {
    let name = entry.file_name().unwrap_or_default();
    let extension = entry.extension().and_then(|extension| extension.to_str());
    let is_ours = matches!(extension, Some("yaml" | "yml" | "json"));
    !name.as_encoded_bytes().starts_with(b".") && (is_ours || entry.is_dir())
}

/// One byte more than is taken, so that too many are noticed.
fn read(from: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}
