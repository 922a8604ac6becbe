//! Several scenarios in one go: each without the mesh and with it, judged, drawn, and left in a folder.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::draw;
use super::provenance::Provenance;
use super::record::{Record, write_json};
use super::run::run;
use super::scenario::Scenario;
use super::stage::{Setting, Stage};
use super::table;
use super::verdict::Summary;
use crate::error::{Doing, Error, Result};
use crate::shop::Mesh;

/// For all pods, breakers and gates to be as they were.
const SETTLED_WITHIN: Duration = Duration::from_secs(60);
/// A few visitors meanwhile: a breaker closes only when somebody calls.
const VISITORS_PER_SECOND: f64 = 10.0;

pub struct Session {
    pub scenarios: Vec<Scenario>,
    /// In this order.
    pub modes: Vec<Mesh>,
    pub quick: bool,
    pub rootless: bool,
    /// Where records, summaries and pictures go.
    pub folder: PathBuf,
    /// As it was typed.
    pub command: String,
}

/// Of the whole session, as `session.json` has it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct About {
    #[serde(flatten)]
    pub provenance: Provenance,
    pub scenarios: Vec<String>,
}

/// One scenario's summary in each mode that was run, as `summary.json` has it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Comparison {
    pub off: Option<Summary>,
    pub on: Option<Summary>,
}

/// Where the record of a scenario in one mode is.
pub fn record_folder(session: &Path, scenario: &Scenario, mesh: Mesh) -> PathBuf {
    let mode = if mesh == Mesh::On { "on" } else { "off" };
    session.join(&scenario.name).join(mode)
}

/// Runs them all, and says what did not hold.
pub async fn session(root: &Path, session: &Session) -> Result<Vec<String>> {
    fs::create_dir_all(&session.folder).doing(|| format!("create {}", session.folder.display()))?;
    for scenario in &session.scenarios {
        forget(&session.folder, scenario, &session.modes)?;
    }
    let about = About {
        provenance: Provenance::of(&session.command, root),
        scenarios: session
            .scenarios
            .iter()
            .map(|one| one.name.clone())
            .collect(),
    };
    write_json(&session.folder.join("session.json"), &about)?;
    let mut broken = Vec::new();
    for mesh in &session.modes {
        let shops = Shops {
            root,
            session,
            provenance: &about.provenance,
        };
        broken.extend(rehearse(&shops, &session.scenarios, *mesh).await);
    }
    let mut rows = Vec::new();
    for scenario in &session.scenarios {
        let comparison = compare(&session.folder, scenario)?;
        // What an earlier session left is drawn beside this one's, and is no verdict on it.
        if session.modes.contains(&Mesh::On) {
            broken.extend(broken_promises(scenario, &comparison));
        }
        rows.push((scenario, comparison));
    }
    print!("{}", table::render(&rows));
    if let Err(error) = draw::all(root, &session.folder) {
        broken.push(format!("not all is drawn: {error}"));
    }
    println!("Records and pictures: {}", session.folder.display());
    Ok(broken)
}

/// Where scenarios are shown: shops in the lab, outside of tests.
trait Theatre {
    type Stage;

    async fn open(&self, setting: &Setting) -> Result<Self::Stage>;
    async fn settle(&self, stage: &Self::Stage) -> Result<()>;
    /// Leaves a record.
    async fn show(&self, stage: &Self::Stage, scenario: &Scenario, mesh: Mesh) -> Result<()>;
    async fn close(&self, stage: Self::Stage) -> Result<()>;
}

struct Shops<'a> {
    root: &'a Path,
    session: &'a Session,
    provenance: &'a Provenance,
}

impl Shops<'_> {
    /// Beside records of other sessions, perhaps.
    fn keep(&self, mut record: Record, scenario: &Scenario, mesh: Mesh) -> Result<()> {
        record.run.provenance = self.provenance.clone();
        record.save(&record_folder(&self.session.folder, scenario, mesh))
    }
}

impl Theatre for Shops<'_> {
    type Stage = Stage;

    async fn open(&self, setting: &Setting) -> Result<Stage> {
        Stage::open(self.root, setting, self.session.rootless).await
    }

    async fn settle(&self, stage: &Stage) -> Result<()> {
        settle(stage).await
    }

    async fn show(&self, stage: &Stage, scenario: &Scenario, mesh: Mesh) -> Result<()> {
        let record = run(stage, scenario, self.session.quick).await?;
        self.keep(record, scenario, mesh)
    }

    async fn close(&self, stage: Stage) -> Result<()> {
        let closed = tokio::task::spawn_blocking(move || stage.close()).await;
        closed.expect("closing does not panic")
    }
}

/// All scenarios in one mode; those that need the same shop have the same. Says which could not be shown, and why: that
/// is no reason to throw away what the others showed.
async fn rehearse<T: Theatre>(theatre: &T, scenarios: &[Scenario], mesh: Mesh) -> Vec<String> {
    let mut broken = Vec::new();
    let mut waiting: Vec<&Scenario> = scenarios
        .iter()
        .filter(|one| mesh == Mesh::On || one.only_with_mesh.is_none())
        .collect();
    while let Some(first) = waiting.first().copied() {
        let setting = Setting::of(first, mesh);
        let (now, later): (Vec<&Scenario>, Vec<&Scenario>) = waiting
            .into_iter()
            .partition(|one| Setting::of(one, mesh) == setting);
        waiting = later;
        let mut stage = None;
        for scenario in now {
            let here = match stage.take() {
                Some(stage) => Ok(stage),
                None => theatre.open(&setting).await,
            };
            let shown = match here {
                Ok(here) => show(theatre, here, scenario, mesh).await,
                Err(error) => Err(error),
            };
            match shown {
                Ok(well) => stage = well,
                Err(error) => broken.push(not_shown(scenario, mesh, &error)),
            }
        }
        if let Some(stage) = stage
            && let Err(error) = theatre.close(stage).await
        {
            broken.push(not_shown(first, mesh, &error));
        }
    }
    broken
}

/// One scenario. Returns the stage if it is well enough for another.
async fn show<T: Theatre>(
    theatre: &T,
    stage: T::Stage,
    scenario: &Scenario,
    mesh: Mesh,
) -> Result<Option<T::Stage>> {
    let shown = match theatre.settle(&stage).await {
        Ok(()) => {
            eprintln!("  {} {} …", scenario.id, scenario.title);
            theatre.show(&stage, scenario, mesh).await
        }
        Err(error) => Err(Error::Lab(format!(
            "before it the shop is not well: {error}"
        ))),
    };
    let well = match &shown {
        Ok(()) => theatre.settle(&stage).await,
        Err(_) => Ok(()),
    };
    // What does not heal shows in the scenario's own claims; the next one gets another shop.
    if let Err(error) = &well {
        eprintln!("  the shop did not become well again: {error}");
    }
    if shown.is_ok() && well.is_ok() {
        return Ok(Some(stage));
    }
    let closed = theatre.close(stage).await;
    shown.and(closed).map(|()| None)
}

fn not_shown(scenario: &Scenario, mesh: Mesh, error: &Error) -> String {
    let mode = if mesh == Mesh::On {
        "in the mesh"
    } else {
        "without the mesh"
    };
    let (id, name) = (&scenario.id, &scenario.name);
    let said = format!("{id} {name}: {mode} it was not shown to its end: {error}");
    eprintln!("  {said}");
    said
}

/// Until every pod is ready, every breaker closed and no endpoint ejected.
async fn settle(stage: &Stage) -> Result<()> {
    let until = Instant::now() + SETTLED_WITHIN;
    loop {
        let refused = |refused: boutique_load::Refused| Error::Request(refused.to_string());
        let visitors = stage
            .shop()
            .visitors(VISITORS_PER_SECOND, Duration::from_secs(1));
        let report = boutique_load::run(visitors.map_err(refused)?, |_| {}).await;
        let failures = report.failures();
        let why = match stage.shop().look()? {
            Some(why) => Some(why),
            None if !failures.is_empty() => Some(format!("pages fail: {failures:?}")),
            None => acting(stage).await,
        };
        match why {
            None => return Ok(()),
            Some(why) if Instant::now() >= until => return Err(Error::Lab(why)),
            Some(_) => {}
        }
    }
}

/// A sidecar that still acts on something.
async fn acting(stage: &Stage) -> Option<String> {
    for (workload, metrics) in stage.shop().metrics().await {
        for (name, idle) in [
            ("weir_breaker_state", &[0.0][..]),
            ("weir_endpoint_state", &[0.0, 3.0]),
        ] {
            let mut all = metrics.matching(name, &[]);
            if let Some(busy) = all.find(|series| !idle.contains(&series.value())) {
                let service = busy.label("service");
                return Some(format!(
                    "{name} of {service} in {workload} is {}",
                    busy.value()
                ));
            }
        }
    }
    None
}

/// A record of an earlier session would be drawn and judged as this one's where this one has none.
fn forget(session: &Path, scenario: &Scenario, modes: &[Mesh]) -> Result<()> {
    for mesh in modes {
        let folder = record_folder(session, scenario, *mesh);
        match fs::remove_dir_all(&folder) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            removed => removed.doing(|| format!("remove {}", folder.display()))?,
        }
    }
    Ok(())
}

/// None where it was not run, or not to its end.
pub fn record_of(session: &Path, scenario: &Scenario, mesh: Mesh) -> Result<Option<Record>> {
    let folder = record_folder(session, scenario, mesh);
    let is_whole = Record::is_whole(&folder);
    is_whole.then(|| Record::load(&folder)).transpose()
}

/// Judges what is in the folder, and writes it there.
pub fn compare(session: &Path, scenario: &Scenario) -> Result<Comparison> {
    let judged = |mesh| -> Result<Option<Summary>> {
        let record = record_of(session, scenario, mesh)?;
        Ok(record.map(|record| Summary::of(scenario, &record)))
    };
    let comparison = Comparison {
        off: judged(Mesh::Off)?,
        on: judged(Mesh::On)?,
    };
    let folder = session.join(&scenario.name);
    fs::create_dir_all(&folder).doing(|| format!("create {}", folder.display()))?;
    write_json(&folder.join("summary.json"), &comparison)?;
    Ok(comparison)
}

fn broken_promises(scenario: &Scenario, comparison: &Comparison) -> Vec<String> {
    let verdicts = comparison.on.iter().flat_map(|on| &on.verdicts);
    let broken = verdicts.filter(|verdict| !verdict.held);
    broken
        .map(|one| {
            format!(
                "{} {}: {}: {}, not {}",
                scenario.id, scenario.name, one.claim, one.measured, one.bound
            )
        })
        .collect()
}

#[cfg(test)]
mod tests;
