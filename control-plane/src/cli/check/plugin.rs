//! CNI mode: whether every node has the plugin, and which pods started where it was not there yet.

use serde_json::Value;

use super::{Finding, pods};
use crate::injector::VALIDATE_CONTAINER;

/// What weir-validate ends with when its pod is not redirected (`proxy/src/redirect/validate.rs`).
const NOT_REDIRECTED: u64 = 95;

pub(super) fn check(deployment: &Value, plugins: &[Value], all: &[Value]) -> Vec<Finding> {
    let mut findings = Vec::new();
    if pods::settings(deployment, "").cni {
        findings.push(nodes(plugins.first()));
    }
    let stranded: Vec<String> = all
        .iter()
        .filter(|pod| is_stranded(pod))
        .map(name)
        .collect();
    if !stranded.is_empty() {
        findings.push(Finding::wrong(
            format!("{} pods are not redirected, and wait in weir-validate: {}", stranded.len(), pods::named(&stranded)),
            "weir-cni was not in place on their nodes when their networks were made. When it is (kubectl get pods -A -o \
             wide -l app.kubernetes.io/name=weir-cni), delete these pods; a restart of their containers does not help.\n\
             With cni.repair=true the nodes do that",
        ));
    }
    findings
}

fn nodes(plugin: Option<&Value>) -> Finding {
    let Some(plugin) = plugin else {
        return Finding::wrong(
            "there is no DaemonSet weir-cni, and pods get no rules without it",
            "weir install --cni | kubectl apply --server-side -f -",
        );
    };
    let count = |field: &str| plugin["status"][field].as_u64().unwrap_or(0);
    let (ready, wanted) = (count("numberReady"), count("desiredNumberScheduled"));
    let what = format!("{ready} of {wanted} nodes have the CNI plugin in place");
    match ready {
        ready if ready == wanted && wanted > 0 => Finding::fine(what),
        _ => Finding::wrong(
            what,
            "pods of the mesh do not start on the others: kubectl logs -A -l app.kubernetes.io/name=weir-cni",
        ),
    }
}

/// It has said so, and not found otherwise since.
fn is_stranded(pod: &Value) -> bool {
    let statuses = pod
        .pointer("/status/initContainerStatuses")
        .and_then(Value::as_array);
    let mut statuses = statuses.into_iter().flatten();
    let validator = statuses.find(|status| status["name"] == VALIDATE_CONTAINER);
    validator.is_some_and(|status| {
        let now = &status["state"]["terminated"];
        let last = if now.is_null() {
            &status["lastState"]["terminated"]
        } else {
            now
        };
        last["exitCode"].as_u64() == Some(NOT_REDIRECTED)
    })
}

fn name(pod: &Value) -> String {
    let text = |field: &str| pod["metadata"][field].as_str().unwrap_or_default();
    format!("{}/{}", text("namespace"), text("name"))
}
