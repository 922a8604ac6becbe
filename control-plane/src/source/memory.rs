//! The last good content of policy files, kept in the state directory: a restart while a file is bad must not take
//! its last good policy out of force.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::files::Text;

pub struct Memory {
    folder: PathBuf,
}

#[derive(Serialize, Deserialize)]
struct Remembered {
    file: String,
    text: String,
    #[serde(default)]
    written_ms: Option<u64>,
}

impl Memory {
    pub fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// File name and content. What cannot be read is left out: it is a copy.
    pub(super) fn recall(&self) -> Vec<(String, Text)> {
        let entries = std::fs::read_dir(&self.folder)
            .into_iter()
            .flatten()
            .flatten();
        let remembered = entries.filter(|entry| {
            entry
                .path()
                .extension()
                .is_some_and(|extension| extension == "json")
        });
        let read = |path: PathBuf| -> Option<Remembered> {
            serde_json::from_slice(&std::fs::read(path).ok()?).ok()
        };
        remembered
            .filter_map(|entry| read(entry.path()))
            .map(|it| {
                let (text, written_ms) = (it.text, it.written_ms);
                (it.file, Text { text, written_ms })
            })
            .collect()
    }

    /// The same, by file name.
    pub(super) fn recall_all(&self) -> HashMap<String, String> {
        let texts = self.recall().into_iter();
        texts.map(|(name, it)| (name, it.text)).collect()
    }

    /// `None`: forget it.
    pub(super) fn keep(&self, file: &str, text: Option<&Text>) {
        let path = self.folder.join(format!("{}.json", digest(file)));
        let result = match text {
            Some(text) => write(
                &self.folder,
                &path,
                &Remembered {
                    file: file.to_owned(),
                    text: text.text.clone(),
                    written_ms: text.written_ms,
                },
            ),
            None => std::fs::remove_file(&path).or_else(|error| match error.kind() {
                io::ErrorKind::NotFound => Ok(()),
                _ => Err(error),
            }),
        };
        if let Err(error) = result {
            tracing::error!(file, %error, "its content cannot be remembered: a restart while it is bad would lose it");
        }
    }
}

fn write(folder: &Path, path: &Path, remembered: &Remembered) -> io::Result<()> {
    std::fs::create_dir_all(folder)?;
    let temporary = path.with_extension("new");
    let mut file = File::create(&temporary)?;
    file.write_all(&serde_json::to_vec(remembered).expect("two strings are JSON"))?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)?;
    File::open(folder)?.sync_all()
}

fn digest(file: &str) -> String {
    Sha256::digest(file)
        .iter()
        .take(16)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
