//! Where figures come from: what somebody else needs to know to get the same.

use std::path::Path;
use std::process::Command;

use crate::tools;

/// Day, commit, machine, Envoy.
pub fn origin(envoy: Option<&Path>) -> String {
    let said = |program: &str, arguments: &[&str]| {
        let output = Command::new(program)
            .args(arguments)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .ok()
            .filter(|output| output.status.success())?;
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        (!text.is_empty()).then_some(text)
    };
    let unknown = || "unknown".to_owned();
    let commit = said("git", &["describe", "--always", "--dirty", "--exclude=*"]);
    let cores = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let models = cores
        .lines()
        .filter_map(|line| line.strip_prefix("model name"));
    let models: Vec<&str> = models
        .map(|line| line.trim_start_matches([' ', '\t', ':']))
        .collect();
    let envoy = envoy.map(|envoy| tools::version(envoy, "--version"));
    // <path> version: <commit>/<version>/<what else it is>
    let envoy = envoy
        .as_deref()
        .and_then(|text| text.split("version: ").nth(1)?.split('/').nth(1));
    format!(
        "{}, commit {}, {} cores of {}, Linux {}, {}.",
        said("date", &["-u", "+%Y-%m-%d"]).unwrap_or_else(unknown),
        commit.unwrap_or_else(unknown),
        models.len(),
        models.first().unwrap_or(&"unknown"),
        said("uname", &["-r"]).unwrap_or_else(unknown),
        envoy.map_or("no Envoy".to_owned(), |version| format!("Envoy {version}")),
    )
}
