//! The version of the mesh's state: it only ever grows, across restarts too.
//!
//! A sidecar that reconnects to a control plane that started anew must not mistake its state for an older one. So
//! versions are reserved on disk in blocks: a restart begins with a block that nobody has seen, and a running
//! control plane writes once in many changes.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

const BLOCK: u64 = 10_000;

#[derive(Debug)]
pub struct Versions {
    /// `None`: only in memory, for tests.
    path: Option<PathBuf>,
    current: u64,
    reserved: u64,
}

impl Versions {
    pub fn open(path: &Path) -> std::io::Result<Self> {
        let reserved = match std::fs::read_to_string(path) {
            Ok(text) => text
                .trim()
                .parse()
                .map_err(|_| std::io::Error::new(ErrorKind::InvalidData, "not a version number"))?,
            Err(error) if error.kind() == ErrorKind::NotFound => 0,
            Err(error) => return Err(error),
        };
        reserve(path, reserved + BLOCK)?;
        Ok(Self {
            path: Some(path.to_owned()),
            current: reserved,
            reserved: reserved + BLOCK,
        })
    }

    pub fn in_memory() -> Self {
        Self {
            path: None,
            current: 0,
            reserved: u64::MAX,
        }
    }

    pub fn current(&self) -> u64 {
        self.current
    }

    pub fn advance(&mut self) -> u64 {
        self.current += 1;
        if self.current + BLOCK / 2 >= self.reserved
            && let Some(path) = &self.path
        {
            // Half a block early: a disk that is full now has time to recover before a version could be reused.
            match reserve(path, self.reserved + BLOCK) {
                Ok(()) => self.reserved += BLOCK,
                Err(error) => {
                    tracing::error!(path = %path.display(), %error, "versions cannot be reserved")
                }
            }
        }
        self.current
    }
}

fn reserve(path: &Path, up_to: u64) -> std::io::Result<()> {
    let temporary = path.with_extension("new");
    let mut file = File::create(&temporary)?;
    writeln!(file, "{up_to}")?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)?;
    match path.parent() {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_grow_across_restarts() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("version");
        let mut last = 0;
        for _ in 0..3 {
            let mut versions = Versions::open(&path).expect("opens");
            for _ in 0..BLOCK * 2 + 7 {
                let next = versions.advance();
                assert!(next > last, "{next} after {last}");
                last = next;
            }
        }
    }
}
