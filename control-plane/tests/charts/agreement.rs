//! An API server refuses what `weir validate` refuses, in the same words, as far as it can see it; and it refuses
//! nothing that `weir validate` takes.
//!
//! `golden/verdicts.jsonl` has what an API server said of every good and every broken policy of `config/tests`.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use serde::Deserialize;
use weir_config::{Diagnostic, Reading, crd, read_bytes, schema};

use crate::{here, is_committed, oracle, read, root};

const VERDICTS: &str = "golden/verdicts.jsonl";
const LEFT: &str = "golden/left-to-the-webhook.txt";

/// What a rule misses there is written, under another name: that is told, and as one mistake.
const MISSED: [(&str, &str); 2] = [
    ("words-of-others.yaml", "spec.faults[0].abort"),
    ("wrong-place.yaml", "spec.rules[0].from[0]"),
];

#[derive(Debug, Deserialize)]
struct Fault {
    file: String,
    object: String,
    field: String,
    message: String,
    from: String,
}

#[test]
fn an_api_server_refuses_what_weir_validate_refuses_in_the_same_words() {
    let (mut told_rules, mut missed) = (BTreeSet::new(), 0);
    for fault in faults() {
        let reading = reading(&fault.file);
        // Of a name that it does not know, YAML 1.1 may have made another: `off` is false.
        let field = match fault.from.as_str() {
            "Unknown" => fault.field.rsplit_once('.').map_or("", |(map, _)| map),
            _ => &fault.field,
        };
        let at =
            |diagnostic: &&Diagnostic| diagnostic.is_error() && overlaps(path(diagnostic), field);
        let mut there = reading.errors.iter().filter(at).peekable();
        let place = format!(
            "{}: {} {}: {}",
            fault.file, fault.object, fault.field, fault.message
        );
        assert!(there.peek().is_some(), "{place}\nweir validate takes it");
        if fault.from == "Rule" {
            let same = there.any(|diagnostic| is_said(diagnostic, &fault.message));
            if !same && MISSED.contains(&(name_of(&fault.file), &fault.field)) {
                missed += 1;
                continue;
            }
            assert!(
                same,
                "{place}\nweir validate has other words: {:#?}",
                reading.errors
            );
            told_rules.insert(fault.message);
        }
    }
    assert_eq!(missed, MISSED.len(), "all others are told");
    // A rule that no example breaks proves nothing.
    let untold: Vec<_> = crd::rules::all()
        .filter(|rule| {
            let begins = rule.message.begins();
            !told_rules.iter().any(|told| told.starts_with(begins))
        })
        .map(|rule| rule.holds)
        .collect();
    assert!(untold.is_empty(), "no broken policy breaks {untold:#?}");
}

/// Policies in which an API server sees nothing, and what is wrong with them all the same.
#[test]
fn what_only_the_webhook_refuses_is_written_down() {
    let faults = verdicts();
    let mut left = String::new();
    for file in policies("broken") {
        for diagnostic in reading(&file).errors {
            let seen = faults.iter().any(|fault| {
                fault.file == file && (fault.object.is_empty() || is_about(&diagnostic, fault))
            });
            // What is wrong with the file is never sent.
            if diagnostic.is_error() && !diagnostic.path.is_empty() && !seen {
                let name = Path::new(&file).file_name().expect("a file");
                let name = name.to_string_lossy();
                writeln!(left, "{name}: {}: {}", diagnostic.path, diagnostic.message)
                    .expect("memory");
            }
        }
    }
    is_committed(&here(LEFT), &left);
}

fn is_about(diagnostic: &Diagnostic, fault: &Fault) -> bool {
    let named = |name: &str| name.split([' ', '/']).next_back().map(str::to_owned);
    let resource = diagnostic.resource.as_deref();
    resource.is_none_or(|resource| named(resource) == named(&fault.object))
}

#[test]
#[ignore = "builds Helm and an API server's validation with Go: run with -- --ignored"]
fn the_verdicts_are_an_api_servers() {
    let crds = oracle::crds();
    let mut asked = vec!["objects".to_owned(), crds];
    asked.extend(policies("broken"));
    asked.extend(policies("good"));
    let asked: Vec<&str> = asked.iter().map(String::as_str).collect();
    let verdicts = oracle::ask(&asked);
    is_committed(&here(VERDICTS), &verdicts);
    let good: Vec<Fault> = faults()
        .into_iter()
        .filter(|fault| fault.file.contains("/good/"))
        .collect();
    assert!(good.is_empty(), "{good:#?}");
}

fn verdicts() -> Vec<Fault> {
    let verdicts = read(&here(VERDICTS));
    let faults = verdicts.lines().map(serde_json::from_str);
    faults.map(|fault| fault.expect("a line of JSON")).collect()
}

/// Of our own kinds; what else is in those files nobody reads.
fn faults() -> Vec<Fault> {
    let is_ours = |fault: &Fault| {
        let kind = fault.object.split(' ').next().unwrap_or_default();
        schema::KINDS.iter().any(|ours| ours.name() == kind)
    };
    verdicts().into_iter().filter(is_ours).collect()
}

/// How files of the Gateway API begin: its own definitions say what an API server refuses.
const THEIRS: [&str; 3] = ["gateway", "grpc-route", "http-route"];

/// Relative to this crate, and the same on every machine.
fn policies(folder: &str) -> Vec<String> {
    let entries = std::fs::read_dir(root().join("config/tests").join(folder)).expect("policies");
    let mut files: Vec<String> = entries
        .map(|entry| {
            entry
                .expect("an entry")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .filter(|name| name.ends_with(".yaml"))
        .filter(|name| !THEIRS.iter().any(|theirs| name.starts_with(theirs)))
        .map(|name| format!("../config/tests/{folder}/{name}"))
        .collect();
    files.sort();
    assert!(files.len() >= 5, "{files:?}");
    files
}

fn reading(file: &str) -> Reading {
    let bytes = std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).expect("a file");
    read_bytes(file, &bytes)
}

/// In one line, which is what an API server has room for; numbers at the end of a sentence it cannot show.
fn is_said(diagnostic: &Diagnostic, told: &str) -> bool {
    let help = diagnostic.help.as_deref();
    let message = match help {
        None => Some(told),
        Some(help) => told
            .strip_suffix(help)
            .and_then(|told| told.strip_suffix("; ")),
    };
    let rest = message.and_then(|message| diagnostic.message.strip_prefix(message));
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(": "))
}

/// Within its object, which may be an item of a List.
fn name_of(file: &str) -> &str {
    file.rsplit('/').next().unwrap_or(file)
}

fn path(diagnostic: &Diagnostic) -> &str {
    let item = diagnostic.path.strip_prefix("items[");
    item.and_then(|rest| rest.split_once("]."))
        .map_or(&diagnostic.path, |(_, path)| path)
}

/// Whether one of two places is inside the other.
fn overlaps(a: &str, b: &str) -> bool {
    let inside = |inner: &str, outer: &str| {
        inner
            .strip_prefix(outer)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
    };
    a.is_empty() || b.is_empty() || inside(a, b) || inside(b, a)
}
