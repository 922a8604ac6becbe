//! Pod Security `restricted`, as the standard's page has it: what it would say of a pod. `charts/oracle.rs` holds it
//! against the admission plugin's own code.

use serde_json::{Value, json};

/// A container that may be in such a pod.
pub(crate) fn container(name: &str) -> Value {
    json!({
        "name": name, "image": "app:1",
        "securityContext": { "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] } },
    })
}

const VOLUMES: [&str; 8] = [
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
];

pub(crate) fn violations(pod: &Value) -> Vec<String> {
    let spec = &pod["spec"];
    let mut found = Vec::new();
    for shared in ["hostNetwork", "hostPID", "hostIPC"] {
        if spec[shared] == true {
            found.push(format!("the pod has {shared}"));
        }
    }
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    for volume in list(&spec["volumes"]) {
        let kinds = volume
            .as_object()
            .into_iter()
            .flatten()
            .filter(|(key, _)| *key != "name");
        found.extend(
            kinds
                .filter(|(kind, _)| !VOLUMES.contains(&kind.as_str()))
                .map(|(kind, _)| format!("a volume is {kind}")),
        );
    }
    let pods = &spec["securityContext"];
    if !list(&pods["sysctls"]).is_empty() {
        found.push("the pod sets sysctls".to_owned());
    }
    for container in ["initContainers", "containers", "ephemeralContainers"]
        .iter()
        .flat_map(|field| list(&spec[*field]))
    {
        let own = &container["securityContext"];
        let name = container["name"].as_str().unwrap_or_default();
        let mut say = |what: &str| found.push(format!("{name}: {what}"));
        let effective = |field: &str| {
            if own[field].is_null() {
                &pods[field]
            } else {
                &own[field]
            }
        };
        if own["privileged"] == true {
            say("privileged");
        }
        if own["allowPrivilegeEscalation"] != false {
            say("allowPrivilegeEscalation");
        }
        if *effective("runAsNonRoot") != true {
            say("runAsNonRoot");
        }
        if *effective("runAsUser") == 0 {
            say("runAsUser 0");
        }
        let profile = &effective("seccompProfile")["type"];
        if *profile != "RuntimeDefault" && *profile != "Localhost" {
            say("seccompProfile");
        }
        if !list(&own["capabilities"]["drop"]).contains(&"ALL".into()) {
            say("drops not ALL capabilities");
        }
        for added in list(&own["capabilities"]["add"]) {
            if added != "NET_BIND_SERVICE" {
                say(&format!("adds {added}"));
            }
        }
        if own.get("procMount").is_some_and(|mount| mount != "Default") {
            say("procMount");
        }
        if list(&container["ports"])
            .iter()
            .any(|port| port["hostPort"].as_u64().is_some_and(|port| port != 0))
        {
            say("hostPort");
        }
    }
    found
}
