//! `cargo bench --bench sidecar`: what a sidecar costs while it does nothing, and what it allocates for one gRPC call.
//!
//! - Allocations of a unary gRPC call in the whole outbound half of the proxy, beside those of a bare relay of hyper.
//!   `tests/allocations.rs` holds them to what they are now.
//! - Resident memory of each idle sidecar of the boutique, in a lab.
//!
//! Exit code 1 where a target is missed, or could not be looked at.

mod allocations;
mod counting;
#[allow(dead_code, unreachable_pub)] // `overhead` uses the rest
#[path = "overhead/tools.rs"]
mod tools;

use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use allocations::BEYOND_HYPER_MAX;
use clap::{Parser, ValueEnum};

const CALLS: u64 = 10_000;
/// Python and Node take their time on a busy machine.
const READY: Duration = Duration::from_secs(120);
const IDLE_KIB_MAX: u64 = 10 * 1024;

#[derive(Parser)]
#[command(
    name = "cargo bench --bench sidecar --",
    bin_name = "cargo bench --bench sidecar --"
)]
struct Arguments {
    /// One of the two; both when absent.
    what: Option<What>,
    /// cargo says it to every bench.
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    /// What a gRPC call allocates. Seconds.
    Allocations,
    /// What the idle sidecars of the boutique weigh. Builds all of it in the release profile.
    Memory,
}

fn main() -> ExitCode {
    let asked = Arguments::parse().what;
    let mut met = true;
    if asked != Some(What::Memory) {
        met &= allocations();
    }
    if asked != Some(What::Allocations) {
        met &= memory().unwrap_or_else(|error| {
            eprintln!("sidecar: idle memory was not measured: {error}");
            false
        });
    }
    match met {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

fn allocations() -> bool {
    let counted = allocations::of_a_grpc_call(CALLS);
    let beyond = counted.beyond_hyper();
    println!("allocations per gRPC call (100 B each way), the proxy's thread:");
    println!("  a bare relay of hyper    {:>6.1}", counted.hyper);
    println!("  Weir                     {:>6.1}", counted.weir);
    println!("  Weir beyond hyper        {beyond:>6.1}");
    told(beyond <= BEYOND_HYPER_MAX, &BEYOND_HYPER_MAX.to_string())
}

/// Of every sidecar of an idle boutique.
fn memory() -> io::Result<bool> {
    tools::require_release()?;
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    weir_lab::build::everything(root).map_err(io::Error::other)?;
    // The sidecar by itself, after all else: that is the one that users get.
    tools::build()?;
    let programs = tools::release_folder()?;
    let mut builder = weir_lab::Lab::builder()
        .manifests(root.join("demo-boutique/k8s"))
        .mesh(true)
        .program(programs.join("weir-lab"))
        .bin_dir(programs);
    for image in weir_lab::image::boutique(&root.join("demo-boutique")) {
        builder = builder.image(image);
    }
    let lab = builder.start().map_err(io::Error::other)?;
    lab.wait_ready(READY).map_err(io::Error::other)?;
    // What they needed to start has been given back by then.
    let script = "sleep 10; for p in /proc/[0-9]*; do [ \"$(cat $p/comm)\" = weir-proxy ] && grep VmRSS $p/status; done; true";
    let output = lab.exec(None, &["sh", "-c", script]);
    let output = output.map_err(io::Error::other)?;
    let mut kib: Vec<u64> = output
        .stdout
        .lines()
        .filter_map(|line| line.split_whitespace().nth(1)?.parse().ok())
        .collect();
    kib.sort_unstable();
    let Some(most) = kib.last() else {
        return Err(io::Error::other(format!("there is no sidecar: {output:?}")));
    };
    println!(
        "resident memory of {} idle sidecars, KiB: {kib:?}",
        kib.len()
    );
    Ok(told(
        *most <= IDLE_KIB_MAX,
        &format!("{IDLE_KIB_MAX} KiB each"),
    ))
}

fn told(met: bool, limit: &str) -> bool {
    let verdict = if met { "met" } else { "missed" };
    println!("  at most {limit}: {verdict}\n");
    met
}
