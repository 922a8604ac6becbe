//! Where a run comes from: what a reader needs to know to make it again, or to doubt it.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde::{Deserialize, Serialize};

/// The same for all runs of a session. Each run has its own copy: what is drawn side by side need not be of one session.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default)]
pub struct Provenance {
    /// As it was typed.
    pub command: String,
    /// When the session began, in UTC.
    pub date: String,
    pub machine: String,
    /// Version and commit of the mesh, and of the shop with it.
    pub mesh: String,
}

impl Provenance {
    pub fn of(command: &str, root: &Path) -> Self {
        Self {
            command: command.to_owned(),
            date: said_by(Command::new("date").args(["-u", "+%Y-%m-%d %H:%M UTC"])),
            machine: machine(),
            mesh: mesh(root),
        }
    }

    /// Of a record that is older than this.
    pub fn is_unknown(&self) -> bool {
        *self == Self::default()
    }
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
    let kernel = read("/proc/sys/kernel/osrelease");
    let profile = if cfg!(debug_assertions) {
        "debug"
    } else {
        "release"
    };
    format!(
        "{cores} × {model}, {:.0} GiB, Linux {}, {profile} build",
        kib / 1_048_576.0,
        kernel.trim()
    )
}

/// `+`: with changes that are in no commit. Of a source that is no repository, the version alone.
fn mesh(root: &Path) -> String {
    let describe = ["describe", "--always", "--exclude=*", "--dirty=+"];
    let commit = said_by(Command::new("git").arg("-C").arg(root).args(describe));
    let name = format!("weir {} {commit}", env!("CARGO_PKG_VERSION"));
    name.trim_end().to_owned()
}

/// Without a library: `date` is everywhere, and git where there is a commit.
fn said_by(command: &mut Command) -> String {
    let output = command
        .output()
        .ok()
        .filter(|output| output.status.success());
    output.map_or_else(String::new, |output| {
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_names_command_time_machine_and_commit() {
        let here = Provenance::of("weir-lab chaos run all", &crate::build::root());
        assert_eq!(here.command, "weir-lab chaos run all");
        let digits = |text: &str| text.chars().filter(char::is_ascii_digit).count();
        assert!(here.date.ends_with(" UTC") && digits(&here.date) == 12);
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").expect("Linux");
        assert!(here.machine.contains(&format!("Linux {}", kernel.trim())));
        assert!(here.machine.contains(" × ") && here.machine.contains(" build"));
        let version = format!("weir {}", env!("CARGO_PKG_VERSION"));
        assert!(here.mesh.starts_with(&version), "{}", here.mesh);
        let git = ["rev-parse", "--short", "HEAD"];
        let commit = said_by(
            Command::new("git")
                .arg("-C")
                .arg(crate::build::root())
                .args(git),
        );
        assert!(here.mesh.contains(&commit), "{} {commit}", here.mesh);
        assert!(!here.is_unknown());
    }

    #[test]
    fn a_source_that_is_no_repository_has_a_version() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        assert_eq!(
            mesh(folder.path()),
            format!("weir {}", env!("CARGO_PKG_VERSION"))
        );
    }
}
