//! What Helm and an API server say, asked anew: their own code, built from `oracle/`.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use serde_json::json;

use crate::install::RENDERS;
use crate::{documents, here, is_committed, read, restricted, told};

/// Builds it once; Go keeps what it has built.
fn oracle() -> &'static PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let program = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("oracle");
        let built = Command::new("go")
            .args(["build", "-trimpath", "-o"])
            .arg(&program)
            .arg(".")
            .current_dir(here("oracle"))
            .output()
            .expect("this test needs Go: see oracle/go.mod for its version");
        let errors = String::from_utf8_lossy(&built.stderr);
        assert!(built.status.success(), "go build: {errors}");
        program
    })
}

pub(crate) fn ask(arguments: &[&str]) -> String {
    let answer = Command::new(oracle())
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("the oracle runs");
    let errors = String::from_utf8_lossy(&answer.stderr);
    assert!(answer.status.success(), "{arguments:?}: {errors}");
    String::from_utf8(answer.stdout).expect("UTF-8")
}

/// All CRDs in one file, as the oracle wants them.
pub(crate) fn crds() -> String {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("crds.yaml");
    std::fs::write(&path, told(&["crds"])).expect("a file");
    path.display().to_string()
}

#[test]
#[ignore = "builds Helm and an API server's validation with Go: run with -- --ignored"]
fn the_golden_files_are_what_helm_renders() {
    for (golden, values) in RENDERS {
        let mut asked = vec!["render", "../charts/weir"];
        asked.extend(values);
        is_committed(&here(&format!("golden/{golden}.yaml")), &ask(&asked));
    }
    is_committed(
        &here("golden/boutique.yaml"),
        &ask(&["render", "../charts/boutique"]),
    );
    let crds = documents(&ask(&["render", "../charts/weir-crds"]));
    assert_eq!(crds.len(), documents(&told(&["crds"])).len());
}

#[test]
#[ignore = "builds Helm and an API server's validation with Go: run with -- --ignored"]
fn what_set_means_is_what_helm_makes_of_it() {
    let sets = ask(&["sets", "tests/charts/sets.txt"]);
    is_committed(&here("golden/sets.jsonl"), &sets);
}

#[test]
#[ignore = "builds Helm and an API server's validation with Go: run with -- --ignored"]
fn helm_finds_nothing_to_complain_about() {
    for chart in ["weir-crds", "weir", "boutique"] {
        let found = ask(&["lint", &format!("../charts/{chart}")]);
        // An icon is all that Helm misses, and that is no mistake.
        assert_eq!(found, "", "{chart}");
    }
    let unknown = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("unknown.yaml");
    std::fs::write(&unknown, "replica: 2\n").expect("a file");
    let found = ask(&["lint", "../charts/weir", &unknown.display().to_string()]);
    assert!(found.contains("replica"), "the schema is closed: {found}");
}

#[test]
#[ignore = "builds Helm and an API server's validation with Go: run with -- --ignored"]
fn an_api_server_takes_every_definition_and_every_object() {
    let crds = crds();
    assert_eq!(ask(&["definitions", &crds]), "");
    let mut asked = vec!["objects".to_owned(), crds];
    for (golden, _) in RENDERS {
        asked.push(format!("tests/charts/golden/{golden}.yaml"));
    }
    asked.push("tests/charts/golden/boutique.yaml".to_owned());
    let installed = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("installed.yaml");
    std::fs::write(&installed, told(&["install", "--ha"])).expect("a file");
    asked.push(installed.display().to_string());
    let asked: Vec<&str> = asked.iter().map(String::as_str).collect();
    assert_eq!(ask(&asked), "");

    // It would notice.
    let broken = read(&installed).replace("  replicas:", "  replica:");
    std::fs::write(&installed, broken).expect("a file");
    let found = ask(&["objects", asked[1], &installed.display().to_string()]);
    assert!(found.contains("replica"), "{found}");
}

/// The rules of `restricted`, by the admission plugin that enforces them; our own reading of them says the same.
#[test]
#[ignore = "builds Helm and an API server's validation with Go: run with -- --ignored"]
fn pod_security_takes_what_is_injected_in_cni_mode() {
    let own = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "cart" },
        "spec": {
            "securityContext": { "runAsNonRoot": true, "seccompProfile": { "type": "RuntimeDefault" } },
            "initContainers": [restricted::container("wait")],
            "containers": [restricted::container("cart")],
            "volumes": [{ "name": "data", "emptyDir": {} }],
        },
    });
    let file = |name: &str, text: &str| {
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::write(&path, text).expect("a file");
        path.display().to_string()
    };
    let bare = file("bare.yaml", &own.to_string());
    let mut open = own.clone();
    open["spec"]["containers"][0]["securityContext"] =
        json!({ "privileged": true, "runAsUser": 0 });
    open["spec"]["hostPID"] = true.into();
    open["spec"]["volumes"][0] = json!({ "name": "data", "hostPath": { "path": "/" } });
    let verdicts = [
        ("as its author wrote it", bare.clone(), true),
        (
            "in CNI mode",
            file("cni.yaml", &told(&["inject", "--cni", "-f", &bare])),
            true,
        ),
        (
            "with NET_ADMIN",
            file("init.yaml", &told(&["inject", "-f", &bare])),
            false,
        ),
        ("open to all", file("open.yaml", &open.to_string()), false),
    ];
    for (what, file, is_taken) in verdicts {
        let told = ask(&["restricted", &file]);
        assert_eq!(told.is_empty(), is_taken, "{what}: {told}");
        let pod = &documents(&read(&PathBuf::from(&file)))[0];
        let ours = restricted::violations(pod);
        assert_eq!(ours.is_empty(), is_taken, "{what}: {ours:?}");
    }
}
