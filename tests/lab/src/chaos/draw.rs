//! The pictures of a session: one for each scenario, and a sheet with all of them. Drawn from the records by code of
//! our own, as text.

mod caption;
mod chart;
mod overview;
mod picture;
mod series;
mod svg;

use std::fs;
use std::path::Path;

use super::record::{Record, read_json};
use super::scenario::{self, Scenario};
use super::session::{About, Comparison, compare, record_of};
use crate::error::{Doing, Error, Result};
use crate::shop::Mesh;

/// A scenario with everything that was seen of it.
pub(crate) struct Subject {
    pub(crate) scenario: Scenario,
    pub(crate) off: Option<Record>,
    pub(crate) on: Option<Record>,
    pub(crate) comparison: Comparison,
}

/// Draws what is in the folder of a session, into it.
pub fn all(root: &Path, session: &Path) -> Result<()> {
    let about: About = read_json(&session.join("session.json"))?;
    let known = scenario::all(root)?;
    let mut subjects = Vec::new();
    for name in &about.scenarios {
        let scenario = known.iter().find(|one| one.name == *name);
        let scenario = scenario
            .ok_or_else(|| Error::Request(format!("{name} is no scenario any more")))?
            .clone();
        let load = |mesh| record_of(session, &scenario, mesh);
        let subject = Subject {
            off: load(Mesh::Off)?,
            on: load(Mesh::On)?,
            comparison: compare(session, &scenario)?,
            scenario,
        };
        let path = session.join(name).join("picture.svg");
        write(&path, &picture::render(&subject))?;
        subjects.push(subject);
    }
    write(&session.join("overview.svg"), &overview::render(&subjects))
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).doing(|| format!("write {}", path.display()))
}
