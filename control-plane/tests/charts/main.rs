//! The charts: what `weir install` prints is what Helm makes of them, and an API server takes all of it.
//!
//! What Helm and an API server say is committed under `golden/`. It was written by their own code, the oracle, which
//! is Go and takes a minute or two to build, so the tests that ask it anew are run by
//!
//! ```sh
//! cargo test -p weir-control-plane --test charts -- --ignored --skip cluster          # UPDATE=1: writes down what they say
//! ```

mod agreement;
mod cluster;
mod install;
mod oracle;
#[path = "../restricted/mod.rs"]
mod restricted;
mod safety;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn here(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/charts")
        .join(file)
}

fn weir(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_weir"))
        .args(arguments)
        .output()
        .expect("weir runs")
}

/// What it prints, when all is well.
fn told(arguments: &[&str]) -> String {
    let output = weir(arguments);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {errors}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

fn documents(text: &str) -> Vec<Value> {
    let mut documents: Vec<Value> = serde_saphyr::from_multiple(text).expect("YAML");
    documents.retain(|document| !document.is_null());
    documents
}

/// Kind and name, by which objects are told apart.
fn name(object: &Value) -> String {
    let text = |pointer| {
        object
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_default()
    };
    format!("{} {}", text("/kind"), text("/metadata/name"))
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Compares with what is committed, or commits it.
fn is_committed(path: &Path, fresh: &str) {
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(path, fresh).expect("the committed file is written");
    }
    let committed = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        committed == fresh,
        "{} is stale: UPDATE=1 cargo test -p weir-control-plane --test charts -- --ignored --skip cluster, and read git diff",
        path.display()
    );
}
