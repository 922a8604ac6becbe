//! What containers say, in files of bounded size.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;

/// A log that reached this size becomes `<name>.log.1`, in place of the one before.
const BYTES_MAX: u64 = 8 * 1024 * 1024;

/// The log of one container, over all its restarts.
#[derive(Clone, Debug)]
pub struct Log(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    file: File,
    written: u64,
}

impl Log {
    pub fn open(path: PathBuf) -> io::Result<Self> {
        let file = append(&path)?;
        let written = file.metadata()?.len();
        Ok(Self(Arc::new(Mutex::new(Inner {
            path,
            file,
            written,
        }))))
    }

    /// A line by the lab itself.
    pub fn note(&self, text: &str) {
        self.write(format!("[weir-lab] {text}\n").as_bytes());
    }

    pub fn write(&self, bytes: &[u8]) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // A full disk must not end a container: its words are lost, it goes on.
        let _ = inner.write(bytes);
    }

    /// A pipe into the log, for a child's stdout and stderr. Reading ends with the last writer.
    pub fn streams(&self) -> io::Result<(Stdio, Stdio)> {
        let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        let mut reader = pipe::Receiver::from_owned_fd(reader)?;
        let log = self.clone();
        tokio::spawn(async move {
            let mut buffer = vec![0; 16 * 1024];
            while let Ok(read @ 1..) = reader.read(&mut buffer).await {
                log.write(&buffer[..read]);
            }
        });
        Ok((writer.try_clone()?.into(), writer.into()))
    }
}

impl Inner {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.written >= BYTES_MAX {
            let mut old = self.path.clone().into_os_string();
            old.push(".1");
            fs::rename(&self.path, old)?;
            self.file = append(&self.path)?;
            self.written = 0;
        }
        self.file.write_all(bytes)?;
        self.written += bytes.len() as u64;
        Ok(())
    }
}

fn append(path: &PathBuf) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chatty_container_fills_two_files_and_no_more() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("chatty.log");
        let log = Log::open(path.clone()).unwrap();
        let megabyte = vec![b'x'; 1024 * 1024];
        for _ in 0..40 {
            log.write(&megabyte);
        }
        let sizes: u64 = fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().metadata().unwrap().len())
            .sum();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
        assert!(sizes <= 2 * BYTES_MAX, "{sizes}");
        log.note("restarted");
        assert!(
            fs::read_to_string(path)
                .unwrap()
                .ends_with("[weir-lab] restarted\n")
        );
    }
}
