//! The programs that a lab and its tests need of the machine: installed when we may, named when we may not.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Mutex, Once};

use crate::error::{Error, Result};

/// A program, and Debian's package that has it.
#[derive(Clone, Copy, Debug)]
pub struct Tool {
    pub program: &'static str,
    pub package: &'static str,
    /// What it must be able to do, where being there is not enough.
    proof: &'static [&'static str],
    /// The least first number that `--version` may say; 0: any.
    least: u32,
}

const fn tool(program: &'static str, package: &'static str) -> Tool {
    Tool {
        program,
        package,
        proof: &[],
        least: 0,
    }
}

const fn at_least(least: u32, tool: Tool) -> Tool {
    Tool { least, ..tool }
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
    at_least(18, tool("node", "nodejs")),
    tool("npm", "npm"),
    // Whichever this Debian has: 17 in one, 21 in the next, and all can compile for 17.
    at_least(17, tool("javac", "default-jdk-headless")),
    tool("mvn", "maven"),
    // Debian's own, which an unprivileged user can run, and which comes without venv.
    Tool {
        program: "python3",
        package: "python3-venv",
        proof: &[
            "/usr/bin/python3",
            "-c",
            "import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 10))",
        ],
        least: 0,
    },
];

/// An older one runs the shop, but its HTTP/2 drops the calls in flight when a server stops gracefully.
const NODE_GOOD: u32 = 20;

impl Tool {
    fn is_there(&self) -> bool {
        let able = |(program, arguments): (&&str, &[&str])| {
            let mut proof = Command::new(program);
            proof.args(arguments).stdin(Stdio::null());
            proof.stdout(Stdio::null()).stderr(Stdio::null());
            proof.status().is_ok_and(|status| status.success())
        };
        is_on_path(self.program)
            && self.proof.split_first().is_none_or(able)
            && (self.least == 0 || self.version().is_some_and(|version| version >= self.least))
    }

    /// The first number that it says of itself.
    fn version(&self) -> Option<u32> {
        let mut asked = Command::new(self.program);
        asked.arg("--version").stdin(Stdio::null());
        let output = asked.output().ok()?;
        output.status.success().then_some(())?;
        first_number(&String::from_utf8_lossy(&output.stdout))
    }

    /// What it has to be, in words.
    fn wanted(&self) -> String {
        match self.least {
            0 => format!("{} that works ({})", self.program, self.package),
            least => format!("{} {least} or newer", self.program),
        }
    }
}

/// `v20.20.2`, `javac 17.0.15`
fn first_number(text: &str) -> Option<u32> {
    let digits = text.trim_start_matches(|letter: char| !letter.is_ascii_digit());
    let end = digits.find(|letter: char| !letter.is_ascii_digit());
    digits[..end.unwrap_or(digits.len())].parse().ok()
}

/// One at a time: several tests may need the same package.
static INSTALLING: Mutex<()> = Mutex::new(());

/// Installs what is missing of these when we are root on Debian; otherwise the error is the line that does.
pub fn provide(tools: &[&[Tool]]) -> Result<()> {
    let _one = INSTALLING
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    let missing: Vec<&Tool> = tools
        .iter()
        .flat_map(|tools| tools.iter())
        .filter(|tool| !tool.is_there())
        .collect();
    if !missing.is_empty() {
        install(&missing)?;
    }
    let needs_node = |tool: &Tool| tool.program == "node";
    if tools.iter().any(|tools| tools.iter().any(needs_node)) {
        warn_of_an_old_node();
    }
    Ok(())
}

fn install(missing: &[&Tool]) -> Result<()> {
    let mut packages: Vec<&str> = missing.iter().map(|tool| tool.package).collect();
    packages.sort_unstable();
    packages.dedup();
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
    apt_get(&install)?;
    match missing.iter().find(|tool| !tool.is_there()) {
        None => Ok(()),
        Some(tool) => Err(Error::Request(too_old(tool))),
    }
}

/// What Debian has was installed, and cannot do it.
fn too_old(tool: &Tool) -> String {
    format!(
        "needed: {}, and the package {} of this distribution is none: put a newer one first on the PATH",
        tool.wanted(),
        tool.package
    )
}

fn warn_of_an_old_node() {
    static ONCE: Once = Once::new();
    let version = tool("node", "nodejs").version();
    if let Some(warning) = version.and_then(of_an_old_node) {
        ONCE.call_once(|| eprintln!("  {warning}"));
    }
}

fn of_an_old_node(version: u32) -> Option<String> {
    (version < NODE_GOOD).then(|| {
        format!(
            "this is Node {version}: the shop runs, but services in TypeScript drop the calls in flight when they stop. \
             Node {NODE_GOOD} or newer does not: Debian 13 has it; elsewhere put a newer one first on the PATH"
        )
    })
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

/// The path, and where Debian keeps what is for root and ordinary users' paths leave out: `nft` is only there. What is
/// looked for on this path must be run with it, or it is found and then cannot be run.
pub fn path() -> OsString {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    for more in ["/usr/sbin", "/sbin", "/usr/local/go/bin"].map(PathBuf::from) {
        if !folders.contains(&more) {
            folders.push(more);
        }
    }
    // Whatever comes of a path can be put into one.
    std::env::join_paths(folders).unwrap_or(path)
}

fn is_on_path(program: &str) -> bool {
    std::env::split_paths(&path()).any(|folder| folder.join(program).is_file())
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

    #[test]
    fn one_that_is_too_old_is_not_there_and_who_cannot_install_another_is_told_what_to_do() {
        for (said, number) in [
            ("v20.20.2\n", Some(20)),
            ("javac 17.0.15\n", Some(17)),
            ("javac 21\n", Some(21)),
            ("", None),
            ("unknown", None),
        ] {
            assert_eq!(first_number(said), number, "{said:?}");
        }
        let bash = |least| at_least(least, tool("bash", "bash")); // says "GNU bash, version 5.…"
        assert!(bash(1).is_there());
        let old = bash(1000);
        assert!(!old.is_there());
        let said = too_old(&old);
        assert!(
            said.contains("bash 1000 or newer") && said.contains("PATH"),
            "{said}"
        );
        // Said and not silently accepted.
        let warning = of_an_old_node(18).expect("it drops calls");
        assert!(
            warning.contains("Node 18") && warning.contains("Node 20"),
            "{warning}"
        );
        assert_eq!(of_an_old_node(20), None);
    }

    #[test]
    fn the_shops_compiler_is_new_enough_for_what_its_pom_says() {
        let pom = std::fs::read_to_string(crate::build::root().join("demo-boutique/pom.xml"));
        let pom = pom.expect("it is there");
        let javac = SHOP.iter().find(|tool| tool.program == "javac");
        let least = javac.expect("it is needed").least;
        let release = format!("<maven.compiler.release>{least}</maven.compiler.release>");
        assert!(pom.contains(&release), "{least}");
    }
}
