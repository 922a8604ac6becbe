//! `weir-lab chaos …` and `weir-lab report`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::scenario::{self, Scenario, folder};
use super::session::{About, Session, session};
use super::{draw, record};
use crate::build;
use crate::cli::{Chaos, ChaosRun, Mode};
use crate::error::{Doing, Error, Result};
use crate::shop::Mesh;

/// Files that are no connections of visitors.
const OTHER_FILES: u64 = 256;
const FILES: u64 = 8192;

pub fn carry_out(verb: Chaos) -> Result<ExitCode> {
    let root = build::root();
    match verb {
        Chaos::List => list(&root),
        Chaos::Show { name } => show(&root, &name),
        Chaos::Run(run) => perform(&root, run),
    }
}

fn list(root: &Path) -> Result<ExitCode> {
    for one in scenario::all(root)? {
        let gate = if one.gate { "gate" } else { "" };
        println!("{:<4} {:<20} {gate:<5} {}", one.id, one.name, one.title);
    }
    Ok(ExitCode::SUCCESS)
}

fn show(root: &Path, name: &str) -> Result<ExitCode> {
    for one in scenario::find(root, &[name.to_owned()])? {
        let path = folder(root)
            .join("scenarios")
            .join(format!("{}.yaml", one.name));
        let text = std::fs::read_to_string(&path).doing(|| format!("read {}", path.display()))?;
        println!("# {}\n{text}", path.display());
    }
    Ok(ExitCode::SUCCESS)
}

fn perform(root: &Path, asked: ChaosRun) -> Result<ExitCode> {
    let (mut scenarios, mut folder) = (scenario::find(root, &asked.names)?, default_folder(root));
    if asked.fault_policy {
        scenarios = scenario::by_fault_policy(&scenarios, &asked.names)?;
        // Beside a record without the mesh, of a fault that another made, it would be compared with that.
        folder = folder.with_file_name("chaos-fault-policy");
    }
    if !asked.no_build {
        build::everything(root)?;
    }
    let words: Vec<String> = std::env::args().skip(1).collect();
    let session = Session {
        scenarios,
        modes: match asked.mesh {
            _ if asked.fault_policy => vec![Mesh::On],
            Mode::Both => vec![Mesh::Off, Mesh::On],
            Mode::On => vec![Mesh::On],
            Mode::Off => vec![Mesh::Off],
        },
        quick: asked.quick,
        rootless: asked.rootless,
        folder: asked.out.unwrap_or(folder),
        command: format!("weir-lab {}", words.join(" ")),
    };
    run_session(root, session)
}

/// Where records go when nobody says.
pub fn default_folder(root: &Path) -> PathBuf {
    root.join("target/chaos")
}

/// Runs it to its end or to Ctrl-C; broken promises are a failure.
pub fn run_session(root: &Path, asked: Session) -> Result<ExitCode> {
    allow_files();
    let runtime = tokio::runtime::Runtime::new().doing(|| "start the runtime".to_owned())?;
    let broken = runtime.block_on(async {
        tokio::select! {
            broken = session(root, &asked) => broken.map(Some),
            _ = tokio::signal::ctrl_c() => Ok(None),
        }
    });
    // What still blocks in there is on its way to a lab that ends with this process.
    runtime.shutdown_background();
    let Some(broken) = broken? else {
        return Ok(ExitCode::from(130));
    };
    for promise in &broken {
        println!("broken promise: {promise}");
    }
    match broken.is_empty() {
        true => Ok(ExitCode::SUCCESS),
        false => Ok(ExitCode::FAILURE),
    }
}

/// Draws again, from the records of a session and the scenarios as they are now.
pub fn report(folder: &Path, overview: Option<&Path>) -> Result<ExitCode> {
    let root = build::root();
    draw::all(&root, folder)?;
    if let Some(path) = overview {
        let from = folder.join("overview.svg");
        std::fs::copy(&from, path).doing(|| format!("write {}", path.display()))?;
    }
    let about: About = record::read_json(&folder.join("session.json"))?;
    for name in &about.scenarios {
        println!("{}", folder.join(name).join("picture.svg").display());
    }
    println!("{}", folder.join("overview.svg").display());
    Ok(ExitCode::SUCCESS)
}

/// An overload has thousands of connections, and the usual limit of 1024 files is a default, not a decision.
fn allow_files() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    let needed = FILES + OTHER_FILES;
    if limit.current.is_some_and(|current| current < needed) {
        limit.current = Some(limit.maximum.map_or(needed, |maximum| maximum.min(needed)));
        let _ = setrlimit(Resource::Nofile, limit);
    }
}

/// The scenarios of a name, for `cargo demo`.
pub fn named(root: &Path, name: &str) -> Result<Vec<Scenario>, Error> {
    scenario::find(root, &[name.to_owned()])
}
