//! Builds what a lab runs and is missing, with a word on each step and how long it took.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use tokio::time::Instant;

use crate::error::{Error, Result};
use crate::toolbox;

const SERVICES: &[&str] = &[
    "redis",
    "cart",
    "catalog",
    "currency",
    "storefront",
    "recommendation",
    "orderlog",
    "orderview",
    "fulfilment",
    "notifier",
    "shipping",
    "checkout",
    "payment",
    "ads",
];

/// The checkout, as an absolute path: cargo says where the package is that it runs; else somebody stands in it.
pub fn root() -> PathBuf {
    let package = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    let package = package.or_else(|| std::env::current_dir().ok());
    let package = package.unwrap_or_else(|| PathBuf::from("."));
    let root = |folder: &&Path| folder.join("demo-boutique").is_dir();
    package
        .ancestors()
        .find(root)
        .unwrap_or(Path::new("."))
        .to_path_buf()
}

/// Sidecar, control plane and lab, in the profile of whoever asks.
pub fn mesh(root: &Path) -> Result<()> {
    toolbox::provide(&[toolbox::LAB])?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    // All of the workspace, as `cargo test` does it: a part of it would be built with other features, and everything
    // below it twice.
    build
        .current_dir(root)
        .args(["build", "--locked", "--quiet", "--workspace", "--bins"]);
    if !cfg!(debug_assertions) {
        build.arg("--release");
    }
    step("sidecar, control plane, lab, cart", &mut build)
}

/// The mesh and the shop.
pub fn everything(root: &Path) -> Result<()> {
    toolbox::provide(&[toolbox::LAB, toolbox::SHOP])?;
    mesh(root)?;
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
fn step(name: &str, command: &mut Command) -> Result<()> {
    eprint!("  building {name} …");
    let started = Instant::now();
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| Error::Request(format!("{command:?}: {error}")))?;
    let took = started.elapsed();
    if !output.status.success() {
        eprintln!(" failed");
        eprint!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        return Err(Error::Request(format!("{name} could not be built")));
    }
    if took < Duration::from_millis(500) {
        eprintln!(" there");
    } else {
        eprintln!(" {:.1} s", took.as_secs_f64());
    }
    Ok(())
}
