//! Whether a pod is to be in the mesh: what the selectors of the webhooks come to (`charts/weir/templates/webhooks.yaml`),
//! for `weir inject`, the lab and `weir check`. The webhook itself decides by it, too: it may know less than the API server
//! that asks it, and then looks again ([`super::is_unasked`]).
//!
//! | namespace | pod | |
//! |---|---|---|
//! | kube-system, the control plane's own | whatever it says | no |
//! | no | whatever it says | no |
//! | neither yes nor no | whatever it says | nobody is asked; `weir inject` refuses |
//! | yes | no | no |
//! | yes | yes, nothing | yes |
//! | nothing | yes | yes |
//! | nothing | no, nothing | no |
//! | yes, nothing | neither yes nor no | refused |

use serde_json::Value;

use super::{INJECT_LABEL, InjectorSettings, NamespaceContext, Skip};

pub(super) enum Asked {
    Yes,
    No(Skip),
    /// The label that says neither.
    Unclear(String),
}

pub(super) fn asked(
    pod: &Value,
    namespace: &NamespaceContext,
    settings: &InjectorSettings,
) -> Asked {
    if settings.stays_outside(&namespace.name) {
        return Asked::No(Skip::System(namespace.name.clone()));
    }
    let of_namespace = namespace.labels.get(INJECT_LABEL);
    match of_namespace.map(|label| (label, asks(label))) {
        Some((label, Some(false))) => return Asked::No(Skip::NamespaceOptedOut(label.clone())),
        Some((label, None)) => return Asked::Unclear(label.clone()),
        Some((_, Some(true))) | None => {}
    }
    let Some(label) = of_pod(pod).or_else(|| of_namespace.cloned()) else {
        return Asked::No(Skip::NotSelected);
    };
    match asks(&label) {
        Some(true) => Asked::Yes,
        Some(false) => Asked::No(Skip::OptedOut(label)),
        None => Asked::Unclear(label),
    }
}

/// The pod asks for a sidecar, and nobody hears it: its namespace's word counts.
pub(super) fn is_unheard(
    pod: &Value,
    namespace: &NamespaceContext,
    settings: &InjectorSettings,
) -> bool {
    let asks = of_pod(pod).is_some_and(|label| asks(&label) == Some(true));
    let no = asked(pod, namespace, settings);
    asks && matches!(no, Asked::No(Skip::System(_) | Skip::NamespaceOptedOut(_)))
}

/// No webhook is asked about its pods, and it has not said that it wants that.
pub(super) fn is_unclear(namespace: &NamespaceContext) -> bool {
    let label = namespace.labels.get(INJECT_LABEL);
    label.is_some_and(|label| asks(label).is_none())
}

fn of_pod(pod: &Value) -> Option<String> {
    let labels = pod.pointer("/metadata/labels")?;
    Some(match labels.get(INJECT_LABEL)? {
        Value::String(label) => label.clone(),
        // Unquoted in YAML, `false` is no text; an API server would not take it.
        other => other.to_string(),
    })
}

/// Whether a label `weir.dev/inject` of this value asks for a sidecar; `None`: it says neither yes nor no.
pub fn asks(label: &str) -> Option<bool> {
    match label {
        "enabled" | "true" => Some(true),
        "disabled" | "false" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn said(namespace: &str, label: Option<&str>, pod: Option<&str>) -> &'static str {
        let mut context = NamespaceContext {
            name: namespace.to_owned(),
            ..NamespaceContext::default()
        };
        let label = label.map(|label| (INJECT_LABEL.to_owned(), label.to_owned()));
        context.labels.extend(label);
        let labels = pod.map_or(json!({}), |label| json!({ INJECT_LABEL: label }));
        let pod = json!({ "metadata": { "labels": labels } });
        match asked(&pod, &context, &InjectorSettings::default()) {
            Asked::Yes => "yes",
            Asked::No(_) => "no",
            Asked::Unclear(_) => "unclear",
        }
    }

    /// A pod's yes counted in a namespace that said no, where the cluster asks no webhook.
    #[test]
    fn whom_the_webhooks_are_not_asked_about_is_not_injected_elsewhere() {
        for (namespace, pod, expected) in [
            (Some("enabled"), None, "yes"),
            (Some("enabled"), Some("true"), "yes"),
            (Some("enabled"), Some("false"), "no"),
            (Some("enabled"), Some("Yes"), "unclear"),
            (Some("disabled"), Some("enabled"), "no"),
            (Some("false"), Some("true"), "no"),
            (Some("disabled"), None, "no"),
            (Some("Enabled"), Some("true"), "unclear"),
            (Some("Enabled"), Some("false"), "unclear"),
            (None, Some("enabled"), "yes"),
            (None, Some("disabled"), "no"),
            (None, Some("Yes"), "unclear"),
            (None, None, "no"),
        ] {
            assert_eq!(
                said("shop", namespace, pod),
                expected,
                "{namespace:?} {pod:?}"
            );
            for system in ["kube-system", "weir-system"] {
                assert_eq!(said(system, namespace, pod), "no", "{namespace:?} {pod:?}");
            }
        }
    }
}
