//! What can go wrong in a lab, in words for the person at the terminal.

use std::io;
use std::path::PathBuf;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{file}: {message}", file = file.display())]
    Manifest { file: PathBuf, message: String },

    #[error("cannot {doing}: {source}")]
    Io { doing: String, source: io::Error },

    /// A program of the system (ip, nft, unshare) said no.
    #[error("`{command}` failed: {output}")]
    Command { command: String, output: String },

    /// The request itself makes no sense here: an unknown pod, a percentage above 100.
    #[error("{0}")]
    Request(String),

    /// The lab ended, or never came up.
    #[error("{0}")]
    Lab(String),
}

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Says what was being done when an I/O error happened: "cannot create /x/y: permission denied".
pub trait Doing<T> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<io::Error>> Doing<T> for std::result::Result<T, E> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| Error::Io {
            doing: what(),
            source: source.into(),
        })
    }
}
