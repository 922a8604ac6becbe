//! Checks of the tree itself: who may know whom, links that lead somewhere, nothing left lying about.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every file of ours whose name ends like this, with what it says.
fn files(ending: &str) -> Vec<(PathBuf, String)> {
    const NOT_OURS: [&str; 6] = ["target", "node_modules", ".git", ".venv", "dist", "bin"];
    let mut found = Vec::new();
    let mut folders = vec![root()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder of the tree") {
            let path = entry.expect("an entry").path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if path.is_dir() {
                let is_programs = name == "bin" && !folder.ends_with("src");
                if !NOT_OURS.contains(&name.as_ref()) || (name == "bin" && !is_programs) {
                    folders.push(path);
                }
            } else if name.ends_with(ending)
                && let Ok(text) = fs::read_to_string(&path)
            {
                found.push((path, text));
            }
        }
    }
    assert!(!found.is_empty(), "there is no {ending} at all");
    found
}

fn shown(path: &Path) -> String {
    path.strip_prefix(root())
        .unwrap_or(path)
        .display()
        .to_string()
}

/// Dependencies point one way: config ← proxy, config ← control-plane, and these two meet only in tests.
#[test]
fn proxy_and_control_plane_do_not_know_each_other_and_the_shop_knows_nobody() {
    let manifest = |path: &str| fs::read_to_string(root().join(path)).expect("a crate's manifest");
    let knows = |path: &str, other: &str| manifest(path).contains(other);
    for (path, others) in [
        (
            "config/Cargo.toml",
            ["weir-proxy", "weir-control-plane", "weir-lab"].as_slice(),
        ),
        (
            "proxy/Cargo.toml",
            &["weir-control-plane", "weir-lab", "boutique"],
        ),
        (
            "control-plane/Cargo.toml",
            &["weir-proxy", "weir-lab", "boutique"],
        ),
        ("demo-boutique/cart/Cargo.toml", &["weir-"]),
        ("demo-boutique/chassis/rust/Cargo.toml", &["weir-"]),
        ("demo-boutique/load/Cargo.toml", &["weir-"]),
        ("demo-boutique/orderlog/Cargo.toml", &["weir-"]),
    ] {
        for other in others {
            assert!(!knows(path, other), "{path} knows {other}");
        }
    }
}

#[test]
fn policies_decide_and_do_nothing_else() {
    let folder = root().join("proxy/src/policy");
    let policies: Vec<_> = files(".rs")
        .into_iter()
        .filter_map(|(path, text)| Some((path.strip_prefix(&folder).ok()?.to_owned(), text)))
        .collect();
    assert!(policies.len() > 10, "{}", policies.len());
    for (path, text) in policies {
        for word in [
            "tokio::net",
            "tokio::spawn",
            "std::net",
            "Mutex",
            "fastrand",
            "Instant::now()",
            ".await;",
            ".await?",
        ] {
            let code = text.split("#[cfg(test)]").next().unwrap_or_default();
            let is_test = path.ends_with("tests.rs") || path.iter().any(|part| part == "tests");
            assert!(is_test || !code.contains(word), "{}: {word}", shown(&path));
        }
    }
}

/// Links between pages, `[text](path)` and `[text](path#part)`.
#[test]
fn every_link_of_the_documentation_leads_somewhere() {
    let mut links = 0;
    for (path, text) in files(".md") {
        for rest in text.split("](").skip(1) {
            let target = rest.split(')').next().unwrap_or_default();
            let target = target.split('#').next().unwrap_or_default();
            if target.is_empty() || target.contains("://") {
                continue;
            }
            links += 1;
            let folder = path.parent().expect("a file lies in a folder");
            assert!(folder.join(target).exists(), "{}: {target}", shown(&path));
        }
    }
    assert!(links >= 2, "{links}");
}

/// Every module that proxy/README.md names is there, and every module that is there is named.
#[test]
fn the_proxys_readme_names_its_files() {
    let readme = fs::read_to_string(root().join("proxy/README.md")).expect("it has one");
    let table = readme
        .split("## What belongs where")
        .nth(1)
        .expect("its table");
    let table = table.split("\n## ").next().unwrap_or_default();
    for entry in fs::read_dir(root().join("proxy/src")).expect("its sources") {
        let path = entry.expect("an entry").path();
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if path.is_file() && !["lib.rs", "main.rs"].contains(&name.as_str()) {
            let by_folder = format!("`{}/`", name.trim_end_matches(".rs"));
            let named = table.contains(&format!("`{name}`")) || table.contains(&by_folder);
            assert!(named, "{name} is not in the table");
        }
    }
}

#[test]
fn nothing_of_one_machine_is_in_the_tree() {
    // Spelt in parts, so that this file passes its own test.
    let words = [
        concat!("/wor", "k/main"),
        concat!("/ro", "ot/"),
        concat!("dbg", "!("),
    ];
    for ending in [".rs", ".md", ".yaml", ".toml", ".ts", ".go", ".py", ".sh"] {
        for (path, text) in files(ending) {
            for word in words {
                assert!(!text.contains(word), "{}: {word}", shown(&path));
            }
        }
    }
}

/// Of a package and all below it: which, and with which features.
fn built_for(selection: &[&str]) -> BTreeSet<String> {
    let tree = Command::new(env!("CARGO"))
        .current_dir(root())
        .args(["tree", "--locked", "--offline"])
        .args(["-e", "no-dev", "--prefix", "none", "-f", "{p} {f}"])
        .args(selection)
        .output()
        .expect("cargo runs");
    let said = String::from_utf8_lossy(&tree.stderr);
    assert!(tree.status.success(), "{said}");
    let lines = String::from_utf8(tree.stdout).expect("text");
    let again = " (*)";
    let lines = lines.lines().map(|line| line.trim_end_matches(again));
    lines.map(str::to_owned).collect()
}

/// `cargo demo` and `cargo chaos` build weir-lab alone, and what that starts builds the workspace. With a feature less
/// somewhere below, all above it is built twice: it cost each first demo and each run of CI a minute.
#[test]
fn what_the_demo_is_built_of_is_what_the_workspace_is_built_of() {
    let demo = built_for(&["--package", "weir-lab"]);
    let workspace = built_for(&["--workspace"]);
    let twice: Vec<_> = demo.difference(&workspace).collect();
    assert!(demo.len() > 100 && twice.is_empty(), "{twice:#?}");
}

/// Programs without tests, and documentation without examples, are not built to be tested. One that gets some has to be.
#[test]
fn nothing_that_has_tests_is_kept_from_being_tested() {
    let sources = files(".rs");
    let mut looked = 0;
    for (manifest, text) in files("Cargo.toml") {
        let package = manifest.parent().expect("it lies in a folder");
        let untested = text.split("\n[").filter(|it| it.contains("test = false"));
        for target in untested {
            let path = target.lines().find_map(|it| it.strip_prefix("path = "));
            let path = package.join(path.map_or("src", |path| path.trim_matches('"')));
            // A program of several files has a folder, but for that of the package.
            let own = match path.ends_with("main.rs") && !path.ends_with("src/main.rs") {
                true => path.with_file_name(""),
                false => path,
            };
            for (file, text) in sources.iter().filter(|(file, _)| file.starts_with(&own)) {
                looked += 1;
                let has_tests = match target.starts_with("lib]") {
                    true => has_doctest(text),
                    false => text.contains("#[cfg(test)]") || text.contains("#[test]"),
                };
                assert!(!has_tests, "{}: {}", shown(&manifest), shown(file));
            }
        }
    }
    assert!(looked > 100, "{looked} files");
}

/// The picture that the README shows is of the scenarios as they are: claims that came later were never drawn.
#[test]
fn the_picture_of_chaos_is_of_todays_claims() {
    let drawn = fs::read_to_string(root().join("demo-boutique/chaos/overview.svg"));
    let drawn = drawn.expect("the picture");
    let scenarios = files(".yaml");
    let scenarios = scenarios.iter().filter(|(path, _)| {
        path.parent()
            .is_some_and(|it| it.ends_with("chaos/scenarios"))
    });
    let mut looked = 0;
    for (path, text) in scenarios {
        let id = text.lines().find_map(|line| line.strip_prefix("id: "));
        let id = id.unwrap_or_else(|| panic!("{} has no id", shown(path)));
        let (_, must) = text.split_once("\nmust:\n").expect("claims");
        let claims = must
            .lines()
            .take_while(|line| line.starts_with([' ', '-', '#']));
        let claims = claims.filter(|line| line.starts_with("- ")).count();
        let (_, cell) = drawn
            .split_once(&format!(">{id} · "))
            .unwrap_or_else(|| panic!("{id} is not drawn"));
        let (told, _) = cell.split_once(" claims held<").expect("what it came to");
        let told = told.rsplit_once('>').expect("a text").1;
        assert_eq!(told, format!("{claims} of {claims}"), "{}", shown(path));
        looked += 1;
    }
    assert_eq!(looked, drawn.matches(" claims held<").count());
}

/// A block in documentation of which nobody says what it is, is Rust, and run.
fn has_doctest(text: &str) -> bool {
    let docs = text.lines().filter_map(|line| {
        let line = line.trim_start();
        line.strip_prefix("//!").or(line.strip_prefix("///"))
    });
    let fences = docs.filter_map(|line| line.trim_start().strip_prefix("```"));
    fences
        .step_by(2)
        .any(|kind| kind.is_empty() || kind.starts_with("rust"))
}
