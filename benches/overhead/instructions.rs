//! The gate: how many instructions the release binary spends on a request.
//!
//! Wall-clock gates lie on shared machines; instructions repeat. The real `weir-proxy` runs under callgrind with a control
//! plane, a policy and a redirected connection, is sent N requests one after the other, then in a second run 2N. The
//! difference is what N requests cost: whatever happens once is in both. Only the worker's thread counts: on the main one keys are
//! made, whose entropy takes a different number of instructions each time.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::certificates::Certificates;
use crate::engine::{Engine, Trouble};
use crate::run::{Pace, Plan as Load};
use crate::shape::Shape;
use crate::subject::{Kind, Plan, Scale, Subject, World};
use crate::{tools, weir};

const VALGRIND: &str = "/usr/bin/valgrind";
const SHAPES: [Shape; 3] = [Shape::Http1, Shape::GrpcSmall, Shape::TcpRequest];
/// Enough that what happens by the clock, not by the request, is below one percent.
const REQUESTS: u64 = 1000;
/// Growth that fails the gate. Two runs of one binary differ by less than half a percent.
const TOLERANCE: f64 = 0.05;
/// Far more than it takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(100);

/// In callgrind's file names.
const MAIN_THREAD: &str = "-01";
/// Where callgrind writes.
const SCRATCH: &str = "profiles";

type Counts = BTreeMap<String, u64>;

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Committed {
    /// What was counted, for whoever opens the file.
    what: String,
    rustc: String,
    instructions_per_request: Counts,
}

pub fn run(
    write: bool,
    profile: Option<&Path>,
    interrupted: Arc<AtomicBool>,
) -> Result<(), Trouble> {
    if !Path::new(VALGRIND).exists() {
        return Err(Trouble::Failed(
            "valgrind is missing: apt-get install valgrind".into(),
        ));
    }
    let mut engine = Engine::new(interrupted)?;
    let counts = count_all(&mut engine, profile)?;
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/instructions.json");
    let explain = |error| Trouble::Io(path.display().to_string(), error);
    if write {
        return save(&path, counts).map_err(explain);
    }
    let committed = load(&path).map_err(explain)?;
    let grown = compare(&committed.instructions_per_request, &counts);
    if grown.is_empty() {
        return Ok(());
    }
    Err(Trouble::Failed(format!(
        "more than {:.0} % above benches/instructions.json: {}\n  take it away, or say in the commit why it is worth it and \
         run: cargo bench --bench overhead -- instructions --write",
        TOLERANCE * 100.0,
        grown.join(", ")
    )))
}

fn count_all(engine: &mut Engine, profile: Option<&Path>) -> Result<Counts, Trouble> {
    let explain = |error| Trouble::Io("preparing".into(), error);
    let target = tools::release_folder().map_err(explain)?;
    let folder = tempfile::Builder::new()
        .prefix("bench-run-")
        .tempdir_in(&target)
        .map_err(explain)?;
    let path = folder.path().to_path_buf();
    let mut world = World {
        certificates: Certificates::make(&path).map_err(explain)?,
        own: std::env::current_exe().map_err(explain)?,
        envoy: None,
        control_plane: Some(weir::ControlPlane::start(&target, &path).map_err(explain)?),
        binaries: target,
        wrapper: Vec::new(),
        folder: path,
    };
    std::fs::create_dir_all(world.folder.join(SCRATCH)).map_err(explain)?;
    let mut counts = Counts::new();
    for shape in SHAPES {
        let once = count(shape, REQUESTS, None, &mut world, engine)?;
        let twice = count(shape, 2 * REQUESTS, profile, &mut world, engine)?;
        let a_request = twice.saturating_sub(once) / REQUESTS;
        println!("{shape:<12} {a_request:>8} instructions a request");
        counts.insert(shape.name().to_owned(), a_request);
    }
    Ok(counts)
}

/// Instructions of one life of the sidecar that carries so many requests.
fn count(
    shape: Shape,
    requests: u64,
    profile: Option<&Path>,
    world: &mut World,
    engine: &mut Engine,
) -> Result<u64, Trouble> {
    let out = world
        .folder
        .join(SCRATCH)
        .join(format!("callgrind.{shape}"));
    world.wrapper = wrapper(&out);
    let plan = Plan {
        kind: Kind::Weir,
        hops: 1,
        policies: true,
        number: 0,
        scale: Scale::default(),
    };
    let target = plan.target(shape);
    let mut subject = Subject::start(plan, world, engine)?;
    let load = Load {
        shape,
        target,
        connections: 1,
        pace: Pace::Count { requests },
        warm_up: Duration::ZERO,
        time: PATIENCE,
        seed: 0,
    };
    let observed = crate::run::run(engine, &load, &|| Duration::ZERO)?;
    if observed.completed != requests {
        let fault = observed.fault.unwrap_or("too slow");
        return Err(Trouble::Failed(format!(
            "{shape}: {} of {requests} answers: {fault}",
            observed.completed
        )));
    }
    subject.processes[0].end(Duration::from_secs(20));
    let all =
        workers(&out, profile).map_err(|error| Trouble::Io(out.display().to_string(), error))?;
    if all == 0 {
        return Err(Trouble::Failed(format!("{} has no total", out.display())));
    }
    Ok(all)
}

/// What all threads but the main one have executed; each has a file of its own, numbered. Kept where that is asked for,
/// else gone: the next run may have fewer threads.
fn workers(out: &Path, keep: Option<&Path>) -> io::Result<u64> {
    let folder = out.parent().expect("a file lies in a folder");
    let mut all = 0;
    for file in std::fs::read_dir(folder)? {
        let path = file?.path();
        if !path.to_string_lossy().ends_with(MAIN_THREAD) {
            all += total(&std::fs::read_to_string(&path)?).unwrap_or(0);
        }
        if let (Some(keep), Some(name)) = (keep, path.file_name()) {
            std::fs::copy(&path, keep.join(name))?;
        }
        std::fs::remove_file(&path)?;
    }
    Ok(all)
}

fn wrapper(out: &Path) -> Vec<String> {
    let out = format!("--callgrind-out-file={}", out.display());
    [VALGRIND, "--tool=callgrind", "--separate-threads=yes", &out]
        .map(str::to_owned)
        .into()
}

fn total(profile: &str) -> Option<u64> {
    let line = profile
        .lines()
        .find_map(|line| line.strip_prefix("summary:"))?;
    line.trim().parse().ok()
}

/// Those that have grown too much.
fn compare(committed: &Counts, counts: &Counts) -> Vec<String> {
    let grown = |(shape, now): (&String, &u64)| {
        let Some(before) = committed.get(shape) else {
            return Some(format!("{shape} is not committed"));
        };
        let growth = *now as f64 / *before as f64 - 1.0;
        println!("{shape:<12} {:>+7.1} % beside {before}", growth * 100.0);
        (growth > TOLERANCE).then(|| format!("{shape} by {:.1} %", growth * 100.0))
    };
    counts.iter().filter_map(grown).collect()
}

fn load(path: &PathBuf) -> io::Result<Committed> {
    Ok(serde_json::from_str(&std::fs::read_to_string(path)?)?)
}

fn save(path: &PathBuf, counts: Counts) -> io::Result<()> {
    let committed = Committed {
        what: "release weir-proxy, one plain hop, policies on, one request after the other; callgrind, (I(2N)-I(N))/N".into(),
        rustc: tools::version(Path::new("rustc"), "--version"),
        instructions_per_request: counts,
    };
    std::fs::write(path, serde_json::to_string_pretty(&committed)? + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(http1: u64) -> Counts {
        Counts::from([("http1".to_owned(), http1)])
    }

    #[test]
    fn growth_beyond_the_tolerance_fails_and_less_is_welcome() {
        assert!(compare(&counts(1000), &counts(1049)).is_empty());
        assert!(compare(&counts(1000), &counts(500)).is_empty());
        assert_eq!(compare(&counts(1000), &counts(1060)), ["http1 by 6.0 %"]);
        assert_eq!(
            compare(&Counts::new(), &counts(1)),
            ["http1 is not committed"]
        );
    }

    #[test]
    fn callgrinds_total_is_found() {
        assert_eq!(
            total("events: Ir\nsummary: 123456\n\nfn=(1) main\n"),
            Some(123_456)
        );
        assert_eq!(total("events: Ir\n"), None);
    }
}
