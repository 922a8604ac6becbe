//! The programs that a lab and its tests need of the machine: installed when we may, named when we may not.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Mutex;

use crate::error::{Error, Result};

/// A program, and Debian's package that has it.
#[derive(Clone, Copy, Debug)]
pub struct Tool {
    pub program: &'static str,
    pub package: &'static str,
    /// What it must be able to do, where being there is not enough.
    proof: &'static [&'static str],
}

const fn tool(program: &'static str, package: &'static str) -> Tool {
    Tool {
        program,
        package,
        proof: &[],
    }
}

/// What every lab needs.
pub const LAB: &[Tool] = &[
    tool("nft", "nftables"),
    tool("ip", "iproute2"),
    tool("unshare", "util-linux"),
    tool("setpriv", "util-linux"),
];

/// What the tests ask the pods with.
pub const TESTS: &[Tool] = &[tool("curl", "curl"), tool("redis-server", "redis-server")];

/// What the pods of the injector's fixtures call.
pub const FIXTURES: &[Tool] = &[
    tool("nc", "netcat-openbsd"),
    tool("wget", "wget"),
    tool("curl", "curl"),
];

/// What the shop is built and run with.
pub const SHOP: &[Tool] = &[
    tool("redis-server", "redis-server"),
    tool("go", "golang"),
    tool("node", "nodejs"),
    tool("npm", "npm"),
    tool("javac", "openjdk-17-jdk-headless"),
    tool("mvn", "maven"),
    // Debian's own, which an unprivileged user can run, and which comes without venv.
    Tool {
        program: "python3",
        package: "python3-venv",
        proof: &["/usr/bin/python3", "-c", "import ensurepip, venv"],
    },
];

impl Tool {
    fn is_there(&self) -> bool {
        let able = |(program, arguments): (&&str, &[&str])| {
            let mut proof = Command::new(program);
            proof.args(arguments).stdin(Stdio::null());
            proof.stdout(Stdio::null()).stderr(Stdio::null());
            proof.status().is_ok_and(|status| status.success())
        };
        is_on_path(self.program) && self.proof.split_first().is_none_or(able)
    }
}

/// One at a time: several tests may need the same package.
static INSTALLING: Mutex<()> = Mutex::new(());

/// Installs what is missing of these when we are root on Debian; otherwise the error is the line that does.
pub fn provide(tools: &[&[Tool]]) -> Result<()> {
    let _one = INSTALLING
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut packages: Vec<&str> = tools
        .iter()
        .flat_map(|tools| tools.iter())
        .filter(|tool| !tool.is_there())
        .map(|tool| tool.package)
        .collect();
    packages.sort_unstable();
    packages.dedup();
    if packages.is_empty() {
        return Ok(());
    }
    let root = rustix::process::geteuid().is_root();
    if !root || !is_on_path("apt-get") {
        return Err(Error::Request(format!(
            "missing: {}. On Debian, as root:\n  apt-get install -y --no-install-recommends {}",
            packages.join(", "),
            packages.join(" ")
        )));
    }
    eprintln!("  installing {} …", packages.join(", "));
    apt_get(&["update", "-qq"])?;
    let mut install = vec!["install", "-y", "-qq", "--no-install-recommends"];
    install.extend(packages);
    apt_get(&install)
}

fn apt_get(arguments: &[&str]) -> Result<()> {
    let output = Command::new("apt-get")
        // Another test binary may be at it.
        .args(["-o", "DPkg::Lock::Timeout=300"])
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null())
        .output();
    let why = match output {
        Ok(output) if output.status.success() => return Ok(()),
        Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
        Err(error) => error.to_string(),
    };
    Err(Error::Request(format!(
        "apt-get {}: {why}",
        arguments.join(" ")
    )))
}

/// On the path, or where Debian keeps what is for root and ordinary users' paths leave out.
fn is_on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let more = ["/usr/sbin", "/sbin", "/usr/local/go/bin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(more)
        .any(|folder| folder.join(program).is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_or_cannot_do_its_job_is_noticed() {
        assert!(tool("sh", "dash").is_there());
        assert!(!tool("no-such-program", "none").is_there());
        let proven = |proof| Tool {
            proof,
            ..tool("sh", "dash")
        };
        assert!(proven(&["/bin/sh", "-c", "exit 0"]).is_there());
        assert!(!proven(&["/bin/sh", "-c", "exit 1"]).is_there());
        assert!(!proven(&["/no/such/program"]).is_there());
    }
}
