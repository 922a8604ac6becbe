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

use serde::{Deserialize, Serialize};

use crate::engine::{Engine, Trouble};
use crate::shape::Shape;
use crate::stage::Stage;
use crate::subject::Kind;
use crate::tools;

const VALGRIND: &str = "/usr/bin/valgrind";
const SHAPES: [Shape; 3] = [Shape::Http1, Shape::GrpcSmall, Shape::TcpRequest];
/// Enough that what happens by the clock, not by the request, is below one percent.
const REQUESTS: u64 = 1000;
/// How wake-ups fall together varies, and with them gRPC by 2 or 3 %: the least of so many runs.
const REPEATS: usize = 3;
/// Growth that fails the gate.
const TOLERANCE: f64 = 0.05;
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
    /// For orientation: what hyper and tokio take with nothing in between.
    bare_relay: Counts,
}

/// Asked before minutes of building.
pub fn require() -> Result<(), Trouble> {
    match Path::new(VALGRIND).exists() {
        true => Ok(()),
        false => Err(Trouble::Failed(
            "valgrind is missing: apt-get install valgrind".into(),
        )),
    }
}

pub fn run(
    write: bool,
    profile: Option<&Path>,
    interrupted: Arc<AtomicBool>,
) -> Result<(), Trouble> {
    if write {
        tools::require_release().map_err(|error| Trouble::Io("--write".into(), error))?;
    }
    let mut engine = Engine::new(interrupted)?;
    if let Some(folder) = profile {
        let made = std::fs::create_dir_all(folder);
        made.map_err(|error| Trouble::Io(folder.display().to_string(), error))?;
    }
    let (counts, relay) = count_all(&mut engine, profile)?;
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/instructions.json");
    let explain = |error| Trouble::Io(path.display().to_string(), error);
    if write {
        return save(&path, counts, relay).map_err(explain);
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

/// Weir's and, beside them, the bare relay's: only where all is built as users get it, for the gate asks for Weir's alone.
fn count_all(engine: &mut Engine, profile: Option<&Path>) -> Result<(Counts, Counts), Trouble> {
    let mut stage = Stage::new()?;
    let scratch = stage.world.folder.join(SCRATCH);
    std::fs::create_dir_all(&scratch).map_err(|error| Trouble::Io(SCRATCH.into(), error))?;
    let has_relay = tools::is_release().map_err(|error| Trouble::Io("target".into(), error))?;
    let (mut weir, mut relay) = (Counts::new(), Counts::new());
    for shape in SHAPES {
        let mut of = |kind: &Kind| a_request(kind, shape, &mut stage, profile, engine);
        let mut least = of(&Kind::Weir)?;
        for _ in 1..REPEATS {
            least = least.min(of(&Kind::Weir)?);
        }
        print!("{shape:<12} {least:>8} instructions a request");
        weir.insert(shape.name().to_owned(), least);
        if has_relay {
            let floor = of(&Kind::Relay)?;
            let times = least as f64 / floor.max(1) as f64;
            print!(", {times:.2} × the bare relay's {floor}");
            relay.insert(shape.name().to_owned(), floor);
        }
        println!();
    }
    Ok((weir, relay))
}

fn a_request(
    kind: &Kind,
    shape: Shape,
    stage: &mut Stage,
    profile: Option<&Path>,
    engine: &mut Engine,
) -> Result<u64, Trouble> {
    let name = if *kind == Kind::Relay {
        "relay"
    } else {
        "weir"
    };
    let scratch = stage.world.folder.join(SCRATCH);
    let out = scratch.join(format!("callgrind.{name}.{shape}"));
    let mut count = |requests, keep| {
        stage.live(kind.clone(), wrapper(&out), shape, requests, engine)?;
        // The relay has one thread.
        let all = executed(&scratch, *kind != Kind::Relay, keep);
        all.map_err(|error| Trouble::Io(out.display().to_string(), error))
    };
    let once = count(REQUESTS, None)?;
    let twice = count(2 * REQUESTS, profile)?;
    if once == 0 {
        let text = format!("callgrind counted nothing of {shape}");
        return Err(Trouble::Failed(text));
    }
    Ok(twice.saturating_sub(once) / REQUESTS)
}

/// What the threads have executed, the main one where it is asked for; each has a file of its own, numbered. Kept where
/// that is asked for, else gone: the next run may have fewer threads.
fn executed(scratch: &Path, workers_only: bool, keep: Option<&Path>) -> io::Result<u64> {
    let mut all = 0;
    for file in std::fs::read_dir(scratch)? {
        let path = file?.path();
        let is_main = path.to_string_lossy().ends_with(MAIN_THREAD);
        if !(workers_only && is_main) {
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

fn save(path: &PathBuf, counts: Counts, relay: Counts) -> io::Result<()> {
    let committed = Committed {
        what: "release weir-proxy, one plain hop, policies on, one request after the other; callgrind, (I(2N)-I(N))/N".into(),
        rustc: tools::version(Path::new("rustc"), "--version"),
        instructions_per_request: counts,
        bare_relay: relay,
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
