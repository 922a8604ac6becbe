//! What was seen in one run, on disk as it is in memory: everything that is judged or drawn comes from here.
//!
//! | file | a line |
//! |---|---|
//! | `requests.jsonl` | a request: when it was meant, sent and ended (seconds), its journey, status and class |
//! | `facts.jsonl` | a fact of the journal |
//! | `looks.jsonl` | what the watched sidecars said at one moment |
//! | `run.json` | the rest |

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::claim::Phase;
use super::provenance::Provenance;
use crate::error::{Doing, Error, Result};

/// The file that is written when all others are.
const LAST: &str = "run.json";

#[derive(Clone, Debug, Default)]
pub struct Record {
    pub run: Run,
    pub requests: Vec<Request>,
    pub facts: Vec<Fact>,
    pub looks: Vec<Look>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Run {
    /// None in records that are older than it.
    #[serde(default)]
    pub provenance: Provenance,
    pub mesh: bool,
    /// Since 1970, in milliseconds; all times of the record are seconds since then.
    pub started_ms: u64,
    pub marks: Marks,
    /// What was done, and when.
    pub steps: Vec<(f64, String)>,
    /// Before the fault and after: whatever else a claim is about.
    pub counts: BTreeMap<String, f64>,
}

/// When the phases began.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Marks {
    pub base: f64,
    pub fault: f64,
    pub recovery: f64,
    pub end: f64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Request {
    pub t_intended: f64,
    pub t_start: f64,
    pub t_end: f64,
    pub journey: String,
    pub status: Option<u16>,
    pub class: String,
    pub why: String,
    pub retry_after: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Fact {
    pub t: f64,
    pub kind: String,
    pub subject: String,
    pub reporter: String,
    pub message: String,
}

/// What the watched sidecars said.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Look {
    pub t: f64,
    /// Of all of them, to the focus; none when one did not answer.
    pub attempts: Option<f64>,
    pub in_flight: f64,
    pub limit: f64,
    pub connected: bool,
}

impl Marks {
    pub fn of(&self, phase: Phase) -> std::ops::Range<f64> {
        match phase {
            Phase::Base => self.base..self.fault,
            Phase::Fault => self.fault..self.recovery,
            Phase::Recovery => self.recovery..self.end,
            Phase::Whole => self.base..self.end,
        }
    }
}

impl Record {
    pub fn save(&self, folder: &Path) -> Result<()> {
        fs::create_dir_all(folder).doing(|| format!("create {}", folder.display()))?;
        write_lines(&folder.join("requests.jsonl"), &self.requests)?;
        write_lines(&folder.join("facts.jsonl"), &self.facts)?;
        write_lines(&folder.join("looks.jsonl"), &self.looks)?;
        write_json(&folder.join(LAST), &self.run)
    }

    /// Written to its end.
    pub fn is_whole(folder: &Path) -> bool {
        folder.join(LAST).exists()
    }

    pub fn load(folder: &Path) -> Result<Self> {
        Ok(Self {
            run: read_json(&folder.join(LAST))?,
            requests: read_lines(&folder.join("requests.jsonl"))?,
            facts: read_lines(&folder.join("facts.jsonl"))?,
            looks: read_lines(&folder.join("looks.jsonl"))?,
        })
    }
}

pub fn write_json(path: &Path, what: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(what).expect("plain data");
    fs::write(path, text + "\n").doing(|| format!("write {}", path.display()))
}

pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let text = fs::read_to_string(path).doing(|| format!("read {}", path.display()))?;
    serde_json::from_str(&text).map_err(|error| strange(path, &error))
}

fn write_lines(path: &Path, lines: &[impl Serialize]) -> Result<()> {
    let write = || {
        let mut file = BufWriter::new(File::create(path)?);
        for line in lines {
            serde_json::to_writer(&mut file, line)?;
            file.write_all(b"\n")?;
        }
        file.flush()
    };
    write().doing(|| format!("write {}", path.display()))
}

fn read_lines<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>> {
    let file = File::open(path).doing(|| format!("read {}", path.display()))?;
    let mut all = Vec::new();
    for line in BufReader::new(file).lines() {
        let line = line.doing(|| format!("read {}", path.display()))?;
        all.push(serde_json::from_str(&line).map_err(|error| strange(path, &error))?);
    }
    Ok(all)
}

fn strange(path: &Path, error: &serde_json::Error) -> Error {
    Error::Request(format!("{}: {error}", path.display()))
}
