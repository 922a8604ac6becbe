//! Several scenarios in one go: each without the mesh and with it, judged, drawn, and left in a folder.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::draw;
use super::record::{Record, write_json};
use super::run::run;
use super::scenario::Scenario;
use super::stage::{Setting, Stage};
use super::table;
use super::verdict::Summary;
use crate::error::{Doing, Error, Result};
use crate::shop::Mesh;

/// For all pods, breakers and gates to be as they were.
const SETTLED_WITHIN: Duration = Duration::from_secs(20);
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
    /// As it was typed, for the captions.
    pub command: String,
}

/// Of the whole session, as `session.json` has it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct About {
    pub command: String,
    pub machine: String,
    pub date: String,
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
    let about = About {
        command: session.command.clone(),
        machine: machine(),
        date: date(),
        scenarios: session
            .scenarios
            .iter()
            .map(|one| one.name.clone())
            .collect(),
    };
    write_json(&session.folder.join("session.json"), &about)?;
    for mesh in &session.modes {
        rehearse(root, session, *mesh).await?;
    }
    let mut broken = Vec::new();
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
    draw::all(root, &session.folder)?;
    println!("Records and pictures: {}", session.folder.display());
    Ok(broken)
}

/// All scenarios in one mode; those that need the same shop have the same.
async fn rehearse(root: &Path, session: &Session, mesh: Mesh) -> Result<()> {
    let mut waiting: Vec<&Scenario> = session
        .scenarios
        .iter()
        .filter(|one| mesh == Mesh::On || one.only_with_mesh.is_none())
        .collect();
    while let Some(first) = waiting.first() {
        let setting = Setting::of(first, mesh);
        let (now, later): (Vec<&Scenario>, Vec<&Scenario>) = waiting
            .into_iter()
            .partition(|one| Setting::of(one, mesh) == setting);
        waiting = later;
        let mut stage = None;
        for scenario in now {
            let here = match stage.take() {
                Some(stage) => stage,
                None => Stage::open(root, &setting, session.rootless).await?,
            };
            if let Err(error) = settle(&here).await {
                let name = &scenario.name;
                return Err(Error::Lab(format!(
                    "before {name} the shop is not well: {error}"
                )));
            }
            eprintln!("  {} {} …", scenario.id, scenario.title);
            let record = run(&here, scenario, session.quick).await?;
            record.save(&record_folder(&session.folder, scenario, mesh))?;
            match settle(&here).await {
                Ok(()) => stage = Some(here),
                // What does not heal shows in the scenario's own claims; the next one gets another shop.
                Err(error) => {
                    eprintln!("  the shop did not become well again: {error}");
                    here.close()?;
                }
            }
        }
        if let Some(stage) = stage {
            tokio::task::spawn_blocking(move || stage.close())
                .await
                .expect("closing does not panic")?;
        }
    }
    Ok(())
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

/// Judges what is in the folder, and writes it there.
pub fn compare(session: &Path, scenario: &Scenario) -> Result<Comparison> {
    let judged = |mesh| -> Result<Option<Summary>> {
        let folder = record_folder(session, scenario, mesh);
        if !folder.exists() {
            return Ok(None);
        }
        Ok(Some(Summary::of(scenario, &Record::load(&folder)?)))
    };
    let comparison = Comparison {
        off: judged(Mesh::Off)?,
        on: judged(Mesh::On)?,
    };
    write_json(
        &session.join(&scenario.name).join("summary.json"),
        &comparison,
    )?;
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

fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let model = read("/proc/cpuinfo");
    let model = model
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("unknown", |(_, model)| model)
        .to_owned();
    let kib = read("/proc/meminfo");
    let kib: f64 = kib
        .split_whitespace()
        .nth(1)
        .and_then(|kib| kib.parse().ok())
        .unwrap_or_default();
    let profile = if cfg!(debug_assertions) {
        "debug"
    } else {
        "release"
    };
    format!(
        "{cores} × {model}, {:.0} GiB, {profile} build",
        kib / 1_048_576.0
    )
}

/// The day, without a library: `date` is everywhere.
fn date() -> String {
    let output = std::process::Command::new("date")
        .args(["-u", "+%Y-%m-%d %H:%M UTC"])
        .output();
    output.map_or_else(
        |_| String::new(),
        |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
    )
}
