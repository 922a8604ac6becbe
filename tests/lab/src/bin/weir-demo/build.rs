//! Builds what the demo needs and is missing, with a word on each step and how long it took.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use tokio::time::Instant;

use crate::AnyError;

/// A program that the demo needs, and Debian's package that has it.
const TOOLS: &[(&str, &str)] = &[
    ("nft", "nftables"),
    ("ip", "iproute2"),
    ("unshare", "util-linux"),
    ("redis-server", "redis-server"),
    ("go", "golang"),
    ("node", "nodejs"),
    ("npm", "npm"),
    ("python3", "python3-venv"),
];

const SERVICES: &[&str] = &[
    "redis",
    "cart",
    "catalog",
    "currency",
    "storefront",
    "recommendation",
];

/// The checkout: cargo says where this package is.
pub(crate) fn root() -> PathBuf {
    match std::env::var_os("CARGO_MANIFEST_DIR") {
        Some(package) => PathBuf::from(package).join("../..").components().collect(),
        None => PathBuf::from("."),
    }
}

pub(crate) fn everything(root: &Path) -> Result<(), AnyError> {
    tools()?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let crates = [
        "weir-proxy",
        "weir-control-plane",
        "weir-lab",
        "boutique-cart",
    ];
    let mut build = Command::new(cargo);
    build
        .current_dir(root)
        .args(["build", "--locked", "--quiet"]);
    for package in crates {
        build.args(["--package", package]);
    }
    step("sidecar, control plane, lab", &mut build)?;
    for service in SERVICES {
        let folder = root.join("demo-boutique").join(service);
        step(
            service,
            Command::new(folder.join("build")).current_dir(&folder),
        )?;
    }
    Ok(())
}

/// Says what is going on, and shows what was said only when it failed.
fn step(name: &str, command: &mut Command) -> Result<(), AnyError> {
    eprint!("  building {name} …");
    let started = Instant::now();
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("{command:?}: {error}"))?;
    let took = started.elapsed();
    if !output.status.success() {
        eprintln!(" failed");
        eprint!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        return Err(format!("{name} could not be built").into());
    }
    if took < Duration::from_millis(500) {
        eprintln!(" there");
    } else {
        eprintln!(" {:.1} s", took.as_secs_f64());
    }
    Ok(())
}

/// Installs what is missing when we may, and otherwise says how.
fn tools() -> Result<(), AnyError> {
    let mut packages: Vec<&str> = TOOLS
        .iter()
        .filter(|(tool, _)| !is_on_path(tool))
        .map(|(_, package)| *package)
        .collect();
    if packages.is_empty() {
        return Ok(());
    }
    packages.dedup();
    let line = format!(
        "apt-get install -y --no-install-recommends {}",
        packages.join(" ")
    );
    let root = rustix::process::geteuid().is_root();
    if !root || !is_on_path("apt-get") {
        return Err(format!(
            "missing: {}. On Debian, as root:\n  {line}",
            packages.join(", ")
        )
        .into());
    }
    let mut update = Command::new("apt-get");
    step("Debian's package lists", update.args(["update", "-qq"]))?;
    let mut install = Command::new("apt-get");
    install
        .args(["install", "-y", "-qq", "--no-install-recommends"])
        .args(&packages);
    install.env("DEBIAN_FRONTEND", "noninteractive");
    step(&packages.join(", "), &mut install)
}

fn is_on_path(tool: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let sbin = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(sbin)
        .any(|folder| folder.join(tool).is_file())
}
