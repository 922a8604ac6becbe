//! `weir validate`: which files it reads, and what it says of several at once.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Output;

use super::world::{policy, service};
use super::{stderr, stdout, weir};

async fn validate(folder: &Path, names: &[&str]) -> Output {
    let paths = names
        .iter()
        .map(|name| folder.join(name).display().to_string());
    let mut arguments = vec!["validate".to_owned()];
    arguments.extend(paths.flat_map(|path| ["-f".to_owned(), path]));
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    weir(folder, &arguments).await
}

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    fs::create_dir(folder.path().join("policies")).expect("a folder");
    write(folder.path(), "policies/a.yaml", &policy("cart", "1s"));
    folder
}

fn write(folder: &Path, name: &str, text: &str) {
    fs::write(folder.join(name), text).expect("written");
}

/// Two links to the folder they are in did not end, and one made duplicates.
#[tokio::test]
async fn a_file_is_read_once_by_however_many_names() {
    let folder = folder();
    for name in ["x", "y"] {
        symlink(".", folder.path().join("policies").join(name)).expect("a link");
    }
    symlink("a.yaml", folder.path().join("policies/b.yaml")).expect("a link");
    for names in [
        &["policies"][..],
        &["policies", "policies/a.yaml"],
        &["policies/a.yaml", "policies/a.yaml", "policies/b.yaml"],
    ] {
        let fine = validate(folder.path(), names).await;
        assert_eq!(fine.status.code(), Some(0), "{}", stderr(&fine));
        assert_eq!(stdout(&fine), "1 file, 1 policy: fine\n", "{names:?}");
    }
}

#[tokio::test]
async fn what_cannot_be_read_does_not_keep_the_rest_from_being_checked() {
    let folder = folder();
    symlink("nowhere", folder.path().join("policies/0.yaml")).expect("a link");
    fs::write(folder.path().join("policies/1.yaml"), b"a: \xff\n").expect("written");
    write(folder.path(), "policies/2.json", "{\"kind\": 1}");
    write(
        folder.path(),
        "policies/z.yaml",
        &policy("currency", "soon"),
    );
    let bad = validate(folder.path(), &["absent.yaml", "policies"]).await;
    assert_eq!(bad.status.code(), Some(1));
    let told = stderr(&bad);
    for words in [
        "absent.yaml: No such file",
        "0.yaml: No such file",
        "the file is not UTF-8 from here on",
        "2.json:1:2",
        "found \"soon\"",
        "5 mistakes in 6 files",
    ] {
        assert!(told.contains(words), "{words} is not in\n{told}");
    }
}

#[tokio::test]
async fn nothing_to_check_is_not_fine() {
    let folder = folder();
    fs::create_dir(folder.path().join("empty")).expect("a folder");
    write(folder.path(), "blank.yaml", "");
    write(folder.path(), "comment.yaml", "# nothing\n---\n");
    for (name, words) in [
        (
            "empty",
            "empty: there is no file in it that ends in .yaml, .yml or .json",
        ),
        ("blank.yaml", "blank.yaml: a policy was looked for"),
        ("comment.yaml", "comment.yaml: a policy was looked for"),
    ] {
        let bad = validate(folder.path(), &[name]).await;
        assert_eq!((bad.status.code(), stdout(&bad).as_str()), (Some(1), ""));
        assert!(stderr(&bad).contains(words), "{}", stderr(&bad));
    }
    let stdin = weir(folder.path(), &["validate", "-f", "-"]).await;
    assert_eq!(stdin.status.code(), Some(1), "{}", stdout(&stdin));
    let fine = validate(folder.path(), &["policies", "comment.yaml"]).await;
    assert_eq!(fine.status.code(), Some(0), "{}", stderr(&fine));
}

/// It was fine, and no sidecar takes datagrams.
#[tokio::test]
async fn a_policy_on_datagrams_has_no_effect() {
    let folder = folder();
    let datagrams = service("cart", "10.0.0.1").replace("port: 3550", "port: 3550, protocol: UDP");
    write(folder.path(), "services.yaml", &datagrams);
    let told = stderr(&validate(folder.path(), &["services.yaml", "policies"]).await);
    assert!(
        told.contains("has no effect on cart: it has no TCP port there"),
        "{told}"
    );
}

/// The file of one mistake took its Services with it, so that each policy on them had no target.
#[tokio::test]
async fn a_service_beside_a_mistake_or_with_one_is_not_missing() {
    let folder = folder();
    let wrong = service("currency", "10.0.0.2").replace("port: 3550", "port: x");
    let texts = [
        service("cart", "10.0.0.1"),
        policy("catalog", "soon"),
        wrong,
    ];
    write(folder.path(), "services.yaml", &texts.concat());
    write(folder.path(), "policies/b.yaml", &policy("currency", "1s"));
    write(
        folder.path(),
        "policies/c.yaml",
        &service("other", "10.0.0.3"),
    );
    let bad = validate(folder.path(), &["services.yaml", "policies"]).await;
    let told = stderr(&bad);
    assert_eq!(bad.status.code(), Some(1), "{told}");
    assert!(told.contains("2 mistakes in 4 files"), "{told}");
    assert!(!told.contains("none of these files has"), "{told}");
}

/// Who runs as one is said by Deployments and the like, which are not read.
#[tokio::test]
async fn a_policy_of_a_service_account_has_its_target_whoever_is_in_the_files() {
    let folder = folder();
    let of_account = "apiVersion: weir.dev/v1alpha1\nkind: AuthorizationPolicy\nmetadata: {name: consumer, namespace: boutique}\n\
                      spec: {targetRefs: [{kind: ServiceAccount, name: consumer}], rules: [{from: [{namespace: monitoring}]}]}\n";
    let texts = [service("cart", "10.0.0.1"), of_account.to_owned()];
    write(folder.path(), "services.yaml", &texts.join("---\n"));
    let fine = validate(folder.path(), &["services.yaml"]).await;
    let told = stderr(&fine);
    assert_eq!(fine.status.code(), Some(0), "{told}");
    assert!(!told.contains("none of these files has"), "{told}");
}

#[tokio::test]
async fn what_is_said_of_several_files_is_an_object_a_line_too() {
    let folder = folder();
    let mesh = |name: &str| {
        format!(
            "apiVersion: weir.dev/v1alpha1\nkind: MeshConfig\nmetadata: {{name: {name}}}\nspec: {{}}\n---\n"
        )
    };
    let over = "apiVersion: weir.dev/v1alpha1\nkind: FaultPolicy\nmetadata: {name: past, namespace: boutique}\n\
                spec: {targetRefs: [{kind: Service, name: other}], endsAt: \"2020-01-01T00:00:00Z\", faults: [{abort: {httpStatus: 503}}]}\n---\n";
    let texts = [
        service("other", "10.0.0.1"),
        mesh("default"),
        mesh("mesh"),
        over.to_owned(),
    ];
    write(folder.path(), "policies/b.yaml", &texts.concat());
    let path = folder.path().join("policies").display().to_string();
    let asked = ["validate", "-o", "json", "-f", &path];
    let warned = weir(folder.path(), &asked).await;
    assert_eq!(
        (warned.status.code(), stderr(&warned).as_str()),
        (Some(0), "")
    );
    for (resource, line, words) in [
        (
            "ResiliencePolicy boutique/cart",
            1,
            "targets cart, which none of these files has",
        ),
        (
            "FaultPolicy boutique/past",
            16,
            "was over at 2020-01-01T00:00:00.000Z",
        ),
        ("MeshConfig mesh", 11, "default comes first"),
    ] {
        assert!(
            says(&warned, "Warning", resource, line, words),
            "{}",
            stdout(&warned)
        );
    }
    write(folder.path(), "policies/c.yaml", &policy("cart", "2s"));
    let bad = weir(folder.path(), &asked).await;
    assert_eq!(bad.status.code(), Some(1));
    let words = "the second would be refused";
    assert!(
        says(&bad, "Error", "ResiliencePolicy boutique/cart", 1, words),
        "{}",
        stdout(&bad)
    );
}

fn says(output: &Output, severity: &str, resource: &str, line: u64, words: &str) -> bool {
    stdout(output).lines().any(|text| {
        let object: serde_json::Value = serde_json::from_str(text).expect("JSON");
        object["severity"] == severity
            && object["resource"] == resource
            && object["at"]["line"] == line
            && object["message"]
                .as_str()
                .is_some_and(|it| it.contains(words))
    })
}
