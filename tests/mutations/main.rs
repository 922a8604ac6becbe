//! Planted bugs: for each policy and layer of the proxy at least one, for what matters most of the vocabulary and the
//! control plane some, and the test that must catch each.
//!
//! ```text
//!   bugs/   ──▶ a copy of a package, each bug beside what it replaces:     one build a package
//!                 if planted(7) { the bug } else { the code as it is }
//!           ──▶ its test, once with the bug and once without               one run each, some seconds in all
//! ```
//!
//! All bugs are compiled in together and switched on one by one by `WEIR_PLANTED`, so that the whole table costs one
//! build and not one a bug. What is replaced must therefore be an expression or statements, and not in a `const fn`.
//!
//! `cargo test --test mutations` only checks that the list still fits the code. The run itself:
//!
//! ```sh
//! cargo test --locked --test mutations -- --ignored --nocapture
//! ```

mod bugs;
mod copy;
mod others;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use bugs::{around, layers, policies};
use futures_util::{StreamExt, stream};
use tokio::process::Command;

/// A test that a bug keeps from ending has caught it, too.
const RUN_MAX: Duration = Duration::from_secs(60);

/// A mistake that somebody could make, and what must notice.
#[derive(Clone, Copy)]
pub(crate) struct Bug {
    /// What goes wrong.
    pub(crate) what: &'static str,
    /// Below the package's `src`.
    pub(crate) file: &'static str,
    /// An expression or statements that are there exactly once.
    pub(crate) code: &'static str,
    pub(crate) planted: &'static str,
    /// Its full path in the package's library; or, after the name of the file that has it, in its tests.
    pub(crate) caught_by: &'static str,
}

/// Whose bugs are planted together.
pub(crate) struct Package {
    pub(crate) name: &'static str,
    pub(crate) folder: &'static str,
    /// Folders beside its own of which it is made, too.
    pub(crate) beside: &'static [&'static str],
    /// The files below `tests` that catch them; none: the library's own tests do.
    pub(crate) tests: &'static [&'static str],
    lists: &'static [&'static [Bug]],
}

static PROXY: Package = Package {
    name: "weir-proxy",
    folder: "proxy",
    beside: &[],
    tests: &[],
    lists: &[policies::BUGS, layers::BUGS, around::BUGS],
};
static CONFIG: Package = Package {
    name: "weir-config",
    folder: "config",
    beside: &[],
    tests: &["authorization", "gateway", "compile"],
    lists: &[others::CONFIG],
};
static CONTROL_PLANE: Package = Package {
    name: "weir-control-plane",
    folder: "control-plane",
    beside: &["charts"],
    tests: &[],
    lists: &[others::CONTROL_PLANE],
};
static PACKAGES: [&Package; 3] = [&PROXY, &CONFIG, &CONTROL_PLANE];

impl Package {
    /// All of them, always in the same order: by its place each is switched on.
    pub(crate) fn bugs(&self) -> impl Iterator<Item = &'static Bug> + use<> {
        self.lists.iter().copied().flatten()
    }

    fn folder(&self) -> PathBuf {
        root().join(self.folder)
    }

    fn source(&self, file: &str) -> String {
        let path = self.folder().join("src").join(file);
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// The program that has a test, and the test's path there.
    fn program_of<'a>(&self, test: &'a str) -> (String, &'a str) {
        match test.split_once("::") {
            Some((file, rest)) if self.tests.contains(&file) => (file.to_owned(), rest),
            _ => (self.name.replace('-', "_"), test),
        }
    }

    /// The text in which a test is written, of all files that its module may be in.
    fn module_of(&self, test: &str) -> String {
        let mut path: Vec<&str> = test.split("::").collect();
        path.pop();
        let own = format!("src/{}.rs", path.join("/"));
        let inline = format!("src/{}.rs", path[..path.len() - 1].join("/"));
        let outside = format!("tests/{}.rs", path.join("/"));
        [own, inline, outside]
            .iter()
            .filter_map(|file| fs::read_to_string(self.folder().join(file)).ok())
            .collect()
    }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn every_bug_still_fits_the_code_and_the_test_that_is_to_catch_it_is_there() {
    for package in PACKAGES {
        for bug in package.bugs() {
            let places = package.source(bug.file).matches(bug.code).count();
            assert_eq!(places, 1, "{}: {}", bug.file, bug.code);
            assert_ne!(bug.code, bug.planted, "{}", bug.what);
            // It would be planted into this one, and its test would see nothing.
            let within = package.bugs().find(|other| {
                other.file == bug.file && other.code != bug.code && bug.planted.contains(other.code)
            });
            let within = within.map(|other| other.what);
            assert_eq!(within, None, "{}: {}", bug.file, bug.planted);
            let (_, name) = bug.caught_by.rsplit_once("::").expect("a path");
            let module = package.module_of(bug.caught_by);
            let is_there = module.contains(&format!("fn {name}("));
            assert!(is_there, "there is no {}", bug.caught_by);
        }
    }
}

/// `outcome.rs` names things and decides nothing; `chain.rs` is a test itself.
#[test]
fn every_policy_and_every_layer_has_a_bug() {
    const NONE: [&str; 2] = ["policy/outcome.rs", "layer/chain.rs"];
    let planted: BTreeSet<&str> = PROXY.bugs().map(|bug| bug.file).collect();
    for folder in ["policy", "layer"] {
        for entry in fs::read_dir(root().join("proxy/src").join(folder)).expect("sources") {
            let name = entry.expect("an entry").file_name();
            let file = format!("{folder}/{}", name.to_string_lossy());
            let needs = file.ends_with(".rs") && !NONE.contains(&file.as_str());
            assert!(!needs || planted.contains(file.as_str()), "{file} has none");
        }
    }
}

#[test]
fn the_readme_has_the_table_of_all_bugs_as_they_were_last_seen() {
    let path = root().join("tests/mutations/README.md");
    let readme = fs::read_to_string(path).expect("it has one");
    let mut bugs = 0;
    for package in PACKAGES {
        for bug in package.bugs() {
            let row = row(package, bug, "yes");
            assert!(readme.contains(&row), "{row}");
        }
        bugs += package.bugs().count();
    }
    let rows = readme
        .lines()
        .filter(|line| line.ends_with("| yes |"))
        .count();
    assert_eq!(rows, bugs, "bugs that are gone");
}

/// Files of the proxy are named without it: it has nearly all.
fn row(package: &Package, bug: &Bug, red: &str) -> String {
    let Bug {
        file,
        what,
        caught_by,
        ..
    } = bug;
    let folder = match package.folder {
        "proxy" => String::new(),
        other => format!("{other}/src/"),
    };
    let (_, test) = caught_by.rsplit_once("::").expect("a path");
    format!("| `{folder}{file}` | {what} | `{test}` | {red} |")
}

#[tokio::test]
#[ignore = "builds the proxy's tests once more: one to six minutes; .ci/run does it"]
async fn every_planted_bug_is_caught_by_its_test_and_by_no_accident() {
    all_are_caught(&PROXY).await;
}

#[tokio::test]
#[ignore = "builds the vocabulary's tests once more: half a minute; .ci/run does it"]
async fn every_bug_of_the_vocabulary_is_caught_by_its_test() {
    all_are_caught(&CONFIG).await;
}

#[tokio::test]
#[ignore = "builds the control plane's tests once more: a minute; .ci/run does it"]
async fn every_bug_of_the_control_plane_is_caught_by_its_test() {
    all_are_caught(&CONTROL_PLANE).await;
}

async fn all_are_caught(package: &Package) {
    let copy = copy::Copy::with(package);
    let programs = copy.build(package).await;
    let mut all: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    for bug in package.bugs() {
        let (program, test) = package.program_of(bug.caught_by);
        all.entry(program).or_default().insert(test);
    }
    for (program, tests) in &all {
        let without = run(&programs[program], tests.iter().copied(), None).await;
        let without = without.expect("without any bug they end");
        assert!(without.status.success(), "{}", told(&without));
        assert_eq!(passed(&without), tests.len(), "{}", told(&without));
    }

    let runs = package.bugs().enumerate().map(|(number, bug)| {
        let (program, test) = package.program_of(bug.caught_by);
        let program = &programs[&program];
        async move {
            let caught = match run(program, [test], Some(number)).await {
                None => true,
                // A panic while another unwinds aborts, and then libtest counts nothing.
                Some(output) => {
                    !output.status.success() && told(&output).contains("running 1 test")
                }
            };
            (bug, caught)
        }
    });
    let at_once = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let ran: Vec<_> = stream::iter(runs).buffered(at_once).collect().await;

    let (mut table, mut survived) = (String::new(), Vec::new());
    for (bug, caught) in ran {
        let red = if caught { "yes" } else { "NO" };
        writeln!(table, "{}", row(package, bug, red)).expect("memory");
        if !caught {
            survived.push(bug.what);
        }
    }
    println!("| file | planted | caught by | seen red |\n|---|---|---|---|\n{table}");
    assert!(survived.is_empty(), "nobody noticed: {survived:#?}");
}

/// `None`: it did not end.
async fn run<'a>(
    tests: &Path,
    names: impl IntoIterator<Item = &'a str>,
    bug: Option<usize>,
) -> Option<Output> {
    let mut command = Command::new(tests);
    command.arg("--exact").args(names);
    command.stdin(Stdio::null()).kill_on_drop(true);
    if let Some(number) = bug {
        command.env("WEIR_PLANTED", number.to_string());
    }
    let output = tokio::time::timeout(RUN_MAX, command.output()).await.ok()?;
    Some(output.expect("it was built to be run"))
}

fn told(output: &Output) -> String {
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8_lossy(&text).into_owned()
}

/// libtest: `test result: ok. 3 passed; 0 failed; …`.
fn passed(output: &Output) -> usize {
    let told = told(output);
    let count = told.split(" passed; ").next().unwrap_or_default();
    let count = count.rsplit(' ').next().unwrap_or_default();
    count.parse().expect("libtest counts")
}
