//! `cargo bench --bench guarantees`: what Weir guarantees when things break, on the real binary, beside Envoy.
//!
//! ```text
//!   tools, sandbox      build Weir, install Envoy; a network and a process table of our own      (with benches/overhead)
//!   plan                the experiments as data: what is asked, what breaks, what it has to be
//!   rounds              each case for every subject side by side, repeated with other seeds
//!     outage            one run: warm-up, fault, after
//!       subject         the proxies of callers: weir, envoy default, envoy best effort
//!       replica         the backends: simulated work, broken at will; they see what a proxy really sends
//!       driver          open loop, latency from the intended time
//!     evidence, figure  what is left behind, and what is read from it
//!   judge, misses       targets met or missed, and which misses are known
//!   table, archive      terminal and Markdown; JSON, and back
//! ```

#![allow(unreachable_pub)] // the modules of a program are its own
#![cfg_attr(test, allow(dead_code, unused_imports))] // the tests inside them run in tests/guarantees.rs

mod archive;
mod arguments;
mod backpressure;
mod blackhole;
mod chain;
mod client;
mod driver;
mod envoy;
mod evidence;
mod figure;
mod judge;
mod misses;
mod origin;
mod outage;
mod plan;
mod processor;
mod replica;
mod rolling;
mod rounds;
mod schedule;
mod station;
mod subject;
mod table;
mod trouble;
mod weir;

#[path = "../overhead/mesh.rs"]
mod mesh;
#[allow(dead_code)] // the other bench uses the rest
#[path = "../overhead/process.rs"]
mod process;
#[allow(dead_code)]
#[path = "../overhead/sandbox.rs"]
mod sandbox;
#[allow(dead_code)]
#[path = "../overhead/tools.rs"]
mod tools;

use std::io;
use std::process::ExitCode;
use std::rc::Rc;

use clap::Parser;
use rustix::process::{Resource, getrlimit, setrlimit};

use arguments::Arguments;
use mesh::ControlPlane;
use plan::Case;
use replica::Backends;
use rounds::{Results, Rounds};
use subject::{Kind, World};
use table::Report;
use trouble::Trouble;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let mut cases = plan::cases();
    cases.retain(|case| arguments.wants(case.experiment));
    if arguments.list {
        Report::list(&cases);
        return ExitCode::SUCCESS;
    }
    let ended = match arguments.from.is_empty() {
        false => gather(&arguments, &cases),
        true => inside(&arguments).and_then(|()| measure(&arguments, &cases)),
    };
    match ended {
        Ok(conclusion) => {
            let Conclusion {
                missed,
                unknown,
                unmeasured,
            } = conclusion;
            eprintln!(
                "targets missed: {missed}, of them not known to be: {unknown}; runs of Weir that came to nothing: {unmeasured}"
            );
            match conclusion.is_bad(arguments.strict) {
                true => ExitCode::FAILURE,
                false => ExitCode::SUCCESS,
            }
        }
        Err(Trouble::Interrupted) => ExitCode::from(130),
        Err(trouble) => {
            eprintln!("guarantees: {trouble}");
            ExitCode::FAILURE
        }
    }
}

/// Of what was measured before, one table.
fn gather(arguments: &Arguments, cases: &[Case]) -> Result<Conclusion, Trouble> {
    let mut results = Results::default();
    let mut headings = Vec::new();
    for path in &arguments.from {
        for heading in archive::read(path, cases, &mut results)? {
            if !headings.contains(&heading) {
                headings.push(heading);
            }
        }
    }
    let report = Report {
        cases,
        kinds: &kinds(arguments)?,
        headings,
        results: &results,
    };
    conclude(arguments, &report)?;
    Ok(Conclusion::of(&report))
}

/// Builds and installs outside, where there is a network; returns inside, where there is none.
fn inside(arguments: &Arguments) -> Result<(), Trouble> {
    if !sandbox::is_inside() {
        tools::require_release().map_err(Trouble::during("building"))?;
        tools::build().map_err(Trouble::during("building"))?;
        if !arguments.offline {
            tools::ensure_envoy();
        }
    }
    allow_connections().map_err(Trouble::during("the limit of open files"))?;
    sandbox::enter().map_err(Trouble::during("no sandbox"))?;
    blackhole::prepare().map_err(Trouble::during("nft"))?;
    process::pin(process::DRIVER_CORE).map_err(Trouble::during("pinning to a core"))
}

/// A queue of some seconds is ten thousand connections at each end of each proxy.
const OPEN_FILES: u64 = 100_000;

/// Of this process and of all that it starts.
fn allow_connections() -> io::Result<()> {
    let mut limit = getrlimit(Resource::Nofile);
    limit.maximum = limit.maximum.map(|most| most.max(OPEN_FILES));
    limit.current = limit.maximum;
    // Who is not root has to do with what there is.
    setrlimit(Resource::Nofile, limit).or_else(|_| {
        limit = getrlimit(Resource::Nofile);
        limit.current = limit.maximum;
        setrlimit(Resource::Nofile, limit)
    })?;
    Ok(())
}

fn measure(arguments: &Arguments, cases: &[Case]) -> Result<Conclusion, Trouble> {
    if cases.is_empty() {
        let known = "--list names those that there are";
        return Err(Trouble::Failed(format!("no such experiment: {known}")));
    }
    let kinds = kinds(arguments)?;
    let folder = folder().map_err(Trouble::during("a folder"))?;
    let world = Rc::new(world(&folder).map_err(Trouble::during("preparing"))?);
    // Of what is measured: the tree may have become another one by the end.
    let origin = origin::origin(world.envoy.as_deref());
    let rounds = Rounds {
        cases,
        kinds: &kinds,
        effort: arguments.effort(),
        seed: arguments.seed,
    };
    let mut results = Results::default();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Trouble::during("a runtime"))?;
    let ended = runtime.block_on(async {
        tokio::select! {
            () = rounds.run(&world, &mut results) => Ok(()),
            interrupted = interruption() => Err(interrupted),
        }
    });
    let report = Report {
        cases,
        kinds: &kinds,
        headings: vec![format!(
            "{} {origin}",
            rounds.effort.heading(arguments.seed)
        )],
        results: &results,
    };
    // What was measured before Ctrl-C is something.
    conclude(arguments, &report)?;
    ended.map(|()| Conclusion::of(&report))
}

/// What the exit code says.
struct Conclusion {
    missed: usize,
    /// Of them, without being known to be.
    unknown: usize,
    unmeasured: usize,
}

impl Conclusion {
    fn of(report: &Report<'_>) -> Self {
        let [unknown, missed] = report.missed();
        Self {
            missed,
            unknown,
            unmeasured: report.results.unmeasured(),
        }
    }

    fn is_bad(&self, strict: bool) -> bool {
        let missed = if strict { self.missed } else { self.unknown };
        missed + self.unmeasured > 0
    }
}

fn conclude(arguments: &Arguments, report: &Report<'_>) -> Result<(), Trouble> {
    report.print();
    write(arguments, report).map_err(Trouble::during("writing the results"))
}

fn kinds(arguments: &Arguments) -> Result<Vec<Kind>, Trouble> {
    let part = arguments
        .subject
        .as_deref()
        .unwrap_or_default()
        .to_lowercase();
    let mut kinds = Kind::ALL.to_vec();
    kinds.retain(|kind| kind.name().to_lowercase().contains(&part));
    match kinds.is_empty() {
        true => Err(Trouble::Failed(format!("no subject is called {part}"))),
        false => Ok(kinds),
    }
}

/// Goes when the bench ends.
fn folder() -> io::Result<tempfile::TempDir> {
    let target = tools::release_folder()?;
    tempfile::Builder::new()
        .prefix("bench-run-")
        .tempdir_in(target)
}

fn world(folder: &tempfile::TempDir) -> io::Result<World> {
    let binaries = tools::release_folder()?;
    Ok(World {
        control_plane: ControlPlane::start(&binaries, folder.path())?,
        folder: folder.path().to_path_buf(),
        binaries,
        envoy: tools::envoy(),
        backends: Backends::start()?,
    })
}

fn write(arguments: &Arguments, report: &Report<'_>) -> io::Result<()> {
    if let Some(path) = &arguments.json {
        std::fs::write(path, archive::write(report))?;
    }
    if let Some(path) = &arguments.markdown {
        std::fs::write(path, report.markdown())?;
    }
    Ok(())
}

/// Ctrl-C or SIGTERM.
async fn interruption() -> Trouble {
    use tokio::signal::unix::{SignalKind, signal};
    let terminate = async {
        match signal(SignalKind::terminate()) {
            Ok(mut terminate) => terminate.recv().await,
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate => {}
    }
    Trouble::Interrupted
}
