//! Pods whose sidecar is not what it would be if they started now.

use std::collections::BTreeMap;

use serde_json::Value;

use super::Finding;
use crate::injector::{self, InjectorSettings, Made, NamespaceContext, made_by};

/// More names than this help nobody.
const NAMES_MAX: usize = 10;

pub(super) fn check(
    pods: &[Value],
    namespaces: &[Value],
    deployment: &Value,
    control_plane: &str,
) -> Vec<Finding> {
    let settings = settings(deployment, control_plane);
    let namespaces: BTreeMap<String, NamespaceContext> = namespaces
        .iter()
        .map(NamespaceContext::from_object)
        .map(|namespace| (namespace.name.clone(), namespace))
        .collect();
    let (mut meshed, mut outside, mut old, mut unheard) = (0, Vec::new(), Vec::new(), Vec::new());
    for pod in pods {
        let text = |pointer: &str| {
            pod.pointer(pointer)
                .and_then(Value::as_str)
                .unwrap_or_default()
        };
        let name = format!("{}/{}", text("/metadata/namespace"), text("/metadata/name"));
        let is_over = matches!(text("/status/phase"), "Succeeded" | "Failed");
        let Some(namespace) = namespaces.get(text("/metadata/namespace")) else {
            continue;
        };
        match made_by(pod, namespace, &settings) {
            _ if is_over => {}
            Made::ByThis => meshed += 1,
            Made::Otherwise => {
                meshed += 1;
                old.push(name);
            }
            Made::WithoutSidecar => outside.push(name),
            Made::Unheard => unheard.push(name),
            Made::OutsideOnPurpose => {}
        }
    }
    let mut findings: Vec<Finding> = namespaces.values().filter_map(unclear).collect();
    findings.push(Finding::fine(format!("{meshed} pods are in the mesh")));
    if !old.is_empty() {
        findings.push(Finding::warning(
            format!("{} of them would be made otherwise now: {}", old.len(), named(&old)),
            "another version, or other settings or annotations: kubectl rollout restart what they belong to",
        ));
    }
    if !outside.is_empty() {
        findings.push(Finding::warning(
            format!(
                "{} pods should be in the mesh and are not: {}",
                outside.len(),
                named(&outside)
            ),
            "they are older than the label: kubectl rollout restart what they belong to",
        ));
    }
    if !unheard.is_empty() {
        findings.push(Finding::warning(
            format!(
                "{} pods ask for a sidecar where their namespace's word counts, which is no: {}",
                unheard.len(),
                named(&unheard)
            ),
            "take the label weir.dev/inject off the namespace or off the pods (kube-system and the control plane's own \
             namespace are never in the mesh)",
        ));
    }
    findings
}

/// Nobody asks the webhook about pods of such a namespace.
fn unclear(namespace: &NamespaceContext) -> Option<Finding> {
    let label = namespace.labels.get("weir.dev/inject")?;
    let name = &namespace.name;
    injector::asks(label).is_none().then(|| {
        Finding::wrong(
            format!("namespace {name} has the label weir.dev/inject={label}, which says neither yes nor no"),
            format!("kubectl label namespace {name} --overwrite weir.dev/inject=enabled, or =disabled"),
        )
    })
}

pub(super) fn named(names: &[String]) -> String {
    let shown = names[..names.len().min(NAMES_MAX)].join(", ");
    match names.len().checked_sub(NAMES_MAX) {
        None | Some(0) => shown,
        Some(more) => format!("{shown} and {more} more"),
    }
}

/// What the control plane tells its webhook, by its own environment.
pub(super) fn settings(deployment: &Value, namespace: &str) -> InjectorSettings {
    let containers = deployment.pointer("/spec/template/spec/containers");
    let environment = |name: &str| {
        let containers = containers.and_then(Value::as_array).into_iter().flatten();
        let mut variables =
            containers.flat_map(|container| container["env"].as_array().into_iter().flatten());
        let variable = variables.find(|variable| variable["name"] == name)?;
        variable["value"].as_str().map(str::to_owned)
    };
    let default = InjectorSettings::default();
    InjectorSettings {
        proxy_image: environment("WEIR_PROXY_IMAGE").unwrap_or(default.proxy_image),
        control_plane_addr: format!("weir-control-plane.{namespace}.svc:14180"),
        trust_domain: environment("WEIR_TRUST_DOMAIN").unwrap_or(default.trust_domain),
        log_level: environment("WEIR_PROXY_LOG").unwrap_or(default.log_level),
        token_audience: environment("WEIR_TOKEN_AUDIENCE").unwrap_or(default.token_audience),
        cni: environment("WEIR_CNI").is_some_and(|said| said == "true"),
        ..default
    }
}
