//! Files that are wrong, beside every word that is said about them; files that are right, and come back the same.
//!
//! `UPDATE=1 cargo test -p weir-config --test policies` writes the words anew: read them before committing.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use weir_config::{Diagnostic, Resource, parse, read_bytes};

#[test]
fn every_broken_policy_is_refused_in_the_words_beside_it() {
    let files = yaml_files("broken");
    assert!(files.len() >= 20, "found only {files:?}");
    let mut stale = Vec::new();
    for file in files {
        let bytes = std::fs::read(&file).expect("a readable file");
        let reading = read_bytes(&shown(&file), &bytes);
        assert!(
            !reading.errors.is_empty(),
            "{} was accepted",
            file.display()
        );
        reading.errors.iter().for_each(says_what_to_write);
        if !is_as_committed(&file, &rendered(&reading.errors)) {
            stale.push(file);
        }
    }
    assert!(
        stale.is_empty(),
        "other words than committed for {stale:?}: see with UPDATE=1 and git diff"
    );
}

/// One of them was refused by the control plane, and the shop went on without it.
#[test]
fn the_shops_own_policies_are_accepted() {
    for folder in ["k8s/policies", "chaos/policies", "faults"] {
        let files = yaml_files(&format!("../../demo-boutique/{folder}"));
        assert!(!files.is_empty(), "nothing in {folder}");
        for file in files {
            let text = std::fs::read_to_string(&file).expect("a readable file");
            if let Err(errors) = parse(&shown(&file), &text) {
                panic!("{}", rendered(&errors));
            }
        }
    }
}

/// A caret under the mistake, and a sentence by which its writer can go on.
fn says_what_to_write(diagnostic: &Diagnostic) {
    assert!(
        diagnostic.at.line > 0 && diagnostic.at.width > 0,
        "{diagnostic}"
    );
    let expected = ["expected ", "is missing"];
    let says = diagnostic.help.is_some()
        || expected
            .iter()
            .any(|words| diagnostic.message.contains(words));
    assert!(says || !diagnostic.is_error(), "{diagnostic}");
}

#[test]
fn every_good_policy_is_accepted_with_the_warnings_beside_it() {
    for file in yaml_files("good") {
        let text = std::fs::read_to_string(&file).expect("a readable file");
        let resources =
            parse(&shown(&file), &text).unwrap_or_else(|errors| panic!("{}", rendered(&errors)));
        assert!(!resources.is_empty(), "{} holds nothing", file.display());
        let warnings: Vec<Diagnostic> = resources
            .iter()
            .flat_map(|located| located.warnings.clone())
            .collect();
        assert!(
            is_as_committed(&file, &rendered(&warnings)),
            "other warnings for {}",
            file.display()
        );
    }
}

#[test]
fn what_is_written_back_reads_the_same() {
    for file in yaml_files("good") {
        let text = std::fs::read_to_string(&file).expect("a readable file");
        for located in parse(&shown(&file), &text).expect("a good file") {
            let mut before = located.value;
            let written = serde_saphyr::to_string(&before).expect("it can be written");
            let mut again = parse("again.yaml", &written)
                .unwrap_or_else(|errors| panic!("{written}\n{}", rendered(&errors)))
                .remove(0)
                .value;
            // A label's quotes are lost by the writer, not by us; status is not written at all.
            forget_status(&mut before);
            forget_status(&mut again);
            assert_eq!(before, again, "{written}");
        }
    }
}

fn forget_status(resource: &mut Resource) {
    match resource {
        Resource::ResiliencePolicy(policy) => policy.status = serde::de::IgnoredAny,
        Resource::FaultPolicy(policy) => policy.status = serde::de::IgnoredAny,
        Resource::AuthorizationPolicy(policy) => policy.status = serde::de::IgnoredAny,
        Resource::MeshConfig(mesh) => mesh.status = serde::de::IgnoredAny,
        Resource::HttpRoute(route) => route.status = serde::de::IgnoredAny,
        Resource::GrpcRoute(route) => route.status = serde::de::IgnoredAny,
        Resource::Service(_)
        | Resource::EndpointSlice(_)
        | Resource::Pod(_)
        | Resource::ReferenceGrant(_) => {}
    }
}

fn yaml_files(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests")
        .join(folder);
    let entries = std::fs::read_dir(&folder).expect("the folder is there");
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "yaml")
        })
        .collect();
    files.sort();
    files
}

/// The same on every machine.
fn shown(file: &Path) -> String {
    file.file_name()
        .expect("a file")
        .to_string_lossy()
        .into_owned()
}

fn rendered(diagnostics: &[Diagnostic]) -> String {
    let mut text = String::new();
    for diagnostic in diagnostics {
        if !text.is_empty() {
            text.push('\n');
        }
        write!(text, "{diagnostic}").expect("writing to memory");
    }
    text
}

/// No words and no file beside it are the same thing.
fn is_as_committed(file: &Path, words: &str) -> bool {
    let beside = file.with_extension("txt");
    if std::env::var_os("UPDATE").is_some() {
        if words.is_empty() {
            let _ = std::fs::remove_file(&beside);
        } else {
            std::fs::write(&beside, words).expect("the file beside it is written");
        }
    }
    std::fs::read_to_string(&beside).unwrap_or_default() == words
}
