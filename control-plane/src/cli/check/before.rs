//! What must hold before Weir is installed.

use serde_json::Value;

use super::{Finding, kubectl::Kubectl, pods};
use crate::injector;

/// Native sidecars are on from 1.29, and so are the webhook's conditions.
const MINOR_MIN: u32 = 29;

pub(super) fn version(answer: &Value) -> Vec<Finding> {
    let server = &answer["serverVersion"];
    let shown = server["gitVersion"].as_str().unwrap_or("of no version");
    let number = |field: &str| -> Option<u32> {
        let text = server[field].as_str()?;
        text.trim_end_matches(|c: char| !c.is_ascii_digit())
            .parse()
            .ok()
    };
    vec![match (number("major"), number("minor")) {
        (Some(1), Some(minor)) if minor >= MINOR_MIN => {
            Finding::fine(format!("the API server answers: Kubernetes {shown}"))
        }
        _ => Finding::wrong(
            format!("the API server answers: Kubernetes {shown}"),
            format!(
                "Weir needs 1.{MINOR_MIN} or newer: a sidecar is an init container that goes on"
            ),
        ),
    }]
}

pub(super) fn check(kubectl: &Kubectl, namespace: &str) -> Result<Vec<Finding>, String> {
    let mut findings = Vec::new();
    let there = ["-n", namespace];
    for what in [
        &["customresourcedefinitions.apiextensions.k8s.io"][..],
        &["namespaces"],
        &["clusterroles.rbac.authorization.k8s.io"],
        &["clusterrolebindings.rbac.authorization.k8s.io"],
        &["mutatingwebhookconfigurations.admissionregistration.k8s.io"],
        &["validatingwebhookconfigurations.admissionregistration.k8s.io"],
        &["deployments.apps", there[0], there[1]],
        &["serviceaccounts", there[0], there[1]],
        &["services", there[0], there[1]],
        &["roles.rbac.authorization.k8s.io", there[0], there[1]],
    ] {
        let name = what[0].split('.').next().unwrap_or_default();
        findings.push(match kubectl.may("create", what)? {
            true => Finding::fine(format!("you may create {name}")),
            false => Finding::wrong(
                format!("you may not create {name}"),
                "ask somebody who may: weir install prints all that is made",
            ),
        });
    }
    findings.extend(definitions(&kubectl.list(&["crd"])?));
    let deployment = kubectl.list(&["deployment", "weir-control-plane", "-n", namespace])?;
    let is_cni = (deployment.first()).is_some_and(|it| pods::settings(it, namespace).cni);
    if !is_cni {
        findings.extend(pod_security(&kubectl.list(&["namespace"])?));
    }
    Ok(findings)
}

/// Definitions of another version are replaced by an installation; policies stay.
fn definitions(crds: &[Value]) -> Vec<Finding> {
    let ours = super::installed::definitions(crds);
    let has_any = crds.iter().any(|crd| crd["spec"]["group"] == "weir.dev");
    match has_any {
        false => vec![Finding::fine("there are no definitions of weir.dev yet")],
        true => ours
            .into_iter()
            .map(|finding| match finding.state {
                super::State::Fine => finding,
                _ => Finding::warning(finding.what, "an installation replaces it; policies stay"),
            })
            .collect(),
    }
}

/// weir-init writes rules of the pod's own network, for which it needs NET_ADMIN.
pub(super) fn pod_security(namespaces: &[Value]) -> Vec<Finding> {
    let label = |namespace: &Value, name: &str| {
        let label = namespace["metadata"]["labels"][name].as_str();
        label.unwrap_or_default().to_owned()
    };
    let refused = namespaces.iter().filter(|namespace| {
        let level = label(namespace, "pod-security.kubernetes.io/enforce");
        injector::asks(&label(namespace, "weir.dev/inject")) == Some(true)
            && ["baseline", "restricted"].contains(&&*level)
    });
    let warnings = refused.map(|namespace| {
        let name = namespace["metadata"]["name"].as_str().unwrap_or_default();
        Finding::warning(
            format!("namespace {name} is to be in the mesh, and its Pod Security level refuses NET_ADMIN"),
            "weir-init needs it, once, in the pod's own network: pods there will not start.\n\
             In CNI mode nodes do it instead (weir install --cni); or enforce `privileged` there, and `restricted` by \
             warn and audit",
        )
    });
    warnings.collect()
}
