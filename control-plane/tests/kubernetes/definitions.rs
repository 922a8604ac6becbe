//! The definitions that the charts install, on a real API server: what they refuse, and that they take what we write.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;
use serde_json::{Value, json};
use weir_config::{Kind, schema};

use super::cluster::Cluster;

/// What an API server's own code said of the broken policies; `charts` compares it with what `weir validate` says.
const VERDICTS: &str = include_str!("../charts/golden/verdicts.jsonl");

#[derive(Deserialize)]
struct Fault {
    file: String,
    object: String,
    message: String,
    from: String,
}

/// As `weir crds` prints them.
pub(super) fn definitions() -> String {
    let printed = Command::new(env!("CARGO_BIN_EXE_weir"))
        .arg("crds")
        .output();
    let printed = printed.expect("weir runs");
    assert!(printed.status.success(), "{printed:?}");
    String::from_utf8(printed.stdout).expect("UTF-8")
}

/// Every rule that a broken policy breaks is told by the server, in the words of `weir validate`; and it refuses none
/// that is in order.
pub(super) async fn what_weir_validate_refuses_is_refused_in_the_same_words(cluster: &Cluster) {
    let faults: Vec<Fault> = VERDICTS
        .lines()
        .map(|line| serde_json::from_str(line).expect("a line of JSON"))
        .collect();
    let mut rules = 0;
    for (file, object) in objects("broken") {
        let title = format!(
            "{} {}",
            text(&object, "/kind"),
            text(&object, "/metadata/name")
        );
        let wrong: Vec<&Fault> = faults
            .iter()
            .filter(|fault| fault.file.ends_with(&file) && fault.object == title)
            .collect();
        if !wrong.iter().any(|fault| fault.from == "Rule") {
            continue;
        }
        let refused = refusal(cluster, &object).await;
        let refused = refused.unwrap_or_else(|| panic!("{file}: {title} is taken"));
        // Of what is not as its schema says the server does not go on to ask whether it is sensible.
        if wrong.iter().any(|fault| fault.from == "Schema") {
            continue;
        }
        for fault in wrong.iter().filter(|fault| fault.from == "Rule") {
            let told = refused.iter().any(|told| told.contains(&fault.message));
            assert!(
                told,
                "{file}: {title}: {:?} and not {:?}",
                refused, fault.message
            );
            rules += 1;
        }
    }
    assert!(rules >= 50, "only {rules} rules were asked about");
    for (file, object) in objects("good") {
        let refused = refusal(cluster, &object).await;
        assert_eq!(refused, None, "{file}: {object}");
    }
}

/// All causes, as a server tells them that is asked to create the object and not to keep it.
pub(super) async fn refusal(cluster: &Cluster, object: &Value) -> Option<Vec<String>> {
    let kind = Kind::ALL
        .into_iter()
        .find(|kind| kind.name() == text(object, "/kind"))
        .expect("one of ours");
    let resource = weir_control_plane::source::kubernetes::resource(kind);
    let place = match kind {
        Kind::MeshConfig => String::new(),
        _ => "namespaces/boutique/".to_owned(),
    };
    let path = format!(
        "/apis/{}/{place}{}?dryRun=All",
        resource.api_version, resource.plural
    );
    let mut object = object.clone();
    if kind != Kind::MeshConfig {
        object["metadata"]["namespace"] = json!("boutique");
    }
    let request = http::Request::post(path)
        .header("content-type", "application/json")
        .body(object.to_string().into_bytes());
    let answer = cluster.client.request::<Value>(request.expect("a request"));
    match answer.await {
        Ok(_) => None,
        // Of that name there is one, which is looked at last.
        Err(kube::Error::Api(status)) if status.code == 409 => None,
        Err(kube::Error::Api(status)) => {
            let causes = status.details.map(|details| details.causes);
            let causes = causes.into_iter().flatten().map(|cause| cause.message);
            Some(causes.chain([status.message]).collect())
        }
        Err(error) => panic!("{error}"),
    }
}

/// Of our kinds, with the names of their files; what is no YAML is never sent.
pub(super) fn objects(folder: &str) -> Vec<(String, Value)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../config/tests")
        .join(folder);
    let entries = std::fs::read_dir(folder).expect("policies");
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.expect("an entry").path())
        .collect();
    files.retain(|path| path.extension().is_some_and(|it| it == "yaml"));
    files.sort();
    let mut objects = Vec::new();
    for path in files {
        let name = path.file_name().expect("a file").to_string_lossy();
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        // Each by itself: one that is broken as YAML does not take the others with it.
        for document in text.split("\n---") {
            let Ok(value) = serde_saphyr::from_str::<Value>(document) else {
                continue;
            };
            let items = value["items"].as_array().cloned();
            objects.extend(
                items
                    .unwrap_or_else(|| vec![value])
                    .into_iter()
                    .map(|it| (format!("/{name}"), it)),
            );
        }
    }
    objects.retain(|(_, object)| {
        let kind = text(object, "/kind");
        schema::KINDS.iter().any(|ours| ours.name() == kind)
            && object["apiVersion"] == Kind::MeshConfig.api_version()
    });
    objects
}

fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    let text = object.pointer(pointer).and_then(Value::as_str);
    text.unwrap_or_default()
}
