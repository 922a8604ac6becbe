//! A copy of a package in which every bug is planted and none is switched on.

use std::collections::HashMap;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tempfile::TempDir;
use tokio::process::Command;

use crate::{Bug, Package, root};

/// Another name than its own: cargo tells packages apart by where they lie in their workspace, and the tests of the
/// copy must not be taken for those of the tree, with which it shares the built dependencies.
const FOLDER: &str = "planted";

const SWITCH: &str = r#"
/// Whether this bug is switched on.
pub(crate) fn is_planted(number: usize) -> bool {
    static PLANTED: std::sync::LazyLock<Option<usize>> = std::sync::LazyLock::new(|| {
        let number = std::env::var("WEIR_PLANTED").ok()?;
        Some(number.parse().expect("the number of a bug"))
    });
    *PLANTED == Some(number)
}
"#;

pub(crate) struct Copy(TempDir);

impl Copy {
    pub(crate) fn with(package: &Package) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let copy = folder.path().join(FOLDER);
        copy_tree(&root().join(package.folder), &copy);
        for other in package.beside {
            let link = folder.path().join(other);
            std::os::unix::fs::symlink(root().join(other), link).expect("a link");
        }
        for (number, bug) in package.bugs().enumerate() {
            plant(&copy.join("src").join(bug.file), bug, number);
        }
        let lib = copy.join("src/lib.rs");
        let text = fs::read_to_string(&lib).expect("the copy's lib.rs");
        fs::write(&lib, text + SWITCH).expect("the copy can be written");
        fs::write(folder.path().join("Cargo.toml"), workspace()).expect("its manifest");
        let lock = folder.path().join("Cargo.lock");
        fs::copy(root().join("Cargo.lock"), lock).expect("the lock file");
        Self(folder)
    }

    /// The programs that `cargo test` would run, by name.
    pub(crate) async fn build(&self, package: &Package) -> HashMap<String, PathBuf> {
        let mut tests: Vec<&str> = package.tests.iter().flat_map(|it| ["--test", it]).collect();
        if tests.is_empty() {
            tests.push("--lib");
        }
        let output = Command::new(env!("CARGO"))
            .args(["test", "--offline", "--no-run", "--message-format", "json"])
            .args(["--package", package.name])
            .args(tests)
            .arg("--target-dir")
            .arg(target_folder())
            .current_dir(self.0.path())
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .kill_on_drop(true)
            .output()
            .await
            .expect("cargo runs");
        let told = String::from_utf8(output.stdout).expect("JSON is UTF-8");
        if !output.status.success() {
            panic!("a bug does not compile:\n{}", errors(&told));
        }
        let built = told.lines().filter_map(|line| {
            let message: serde_json::Value = serde_json::from_str(line).ok()?;
            let executable = PathBuf::from(message.get("executable")?.as_str()?);
            Some((message["target"]["name"].as_str()?.to_owned(), executable))
        });
        built.collect()
    }
}

/// What the compiler says for people.
fn errors(told: &str) -> String {
    let error = |line: &str| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        let message = &message["message"];
        (message["level"] == "error").then(|| message["rendered"].as_str().map(str::to_owned))?
    };
    told.lines().filter_map(error).collect()
}

/// Where cargo has put this program: `…/target/debug/deps/mutations-…`.
fn target_folder() -> PathBuf {
    let own = std::env::current_exe().expect("this program has a path");
    let target = own.ancestors().nth(3).expect("it lies three folders deep");
    target.to_owned()
}

/// The tree's own, so that dependencies and profiles are the same and need not be built again, with one member.
fn workspace() -> String {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).expect("the tree's manifest");
    let (_, rest) = manifest
        .split_once("[workspace.package]")
        .expect("what its packages share");
    let (rest, _) = rest.split_once("\n[package]").expect("the root package");
    let rest = rest.replace(
        "{ path = \"config\" }",
        &format!("{{ path = {:?} }}", root().join("config")),
    );
    let mut text = String::new();
    write!(
        text,
        "[workspace]\nresolver = \"3\"\nmembers = [{FOLDER:?}]\n\n[workspace.package]{rest}"
    )
    .expect("memory");
    text
}

/// Statements stay statements; an expression gets parentheses, for what stands around it.
fn plant(path: &Path, bug: &Bug, number: usize) {
    let text = fs::read_to_string(path).expect("a file of the copy");
    let (code, planted) = (bug.code, bug.planted);
    let either = format!("if crate::is_planted({number}) {{ {planted} }} else {{ {code} }}");
    let either = match code.ends_with([';', '}']) {
        true => either,
        false => format!("({either})"),
    };
    let changed = text.replacen(code, &either, 1);
    assert!(text != changed, "{}: {}", bug.file, bug.what);
    fs::write(path, changed).expect("the copy can be written");
}

fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder of the tree") {
        let path = entry.expect("an entry").path();
        let copy = to.join(path.file_name().expect("it has a name"));
        if path.is_dir() {
            copy_tree(&path, &copy);
        } else {
            fs::copy(&path, &copy).expect("a file of the tree");
        }
    }
}
