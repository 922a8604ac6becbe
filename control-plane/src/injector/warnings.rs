//! What somebody wrote for the injector and has no effect where it stands: shown to the user, never a reason to refuse.

use serde_json::Value;

use super::knobs::{KNOBS, is_known};
use super::{INJECT_LABEL, KNOB_PREFIX, NamespaceContext};

/// Of a pod and its namespace: knobs that there are not, words in the place of others, and names that may not be found.
pub fn warnings(pod: &Value, namespace: &NamespaceContext) -> Vec<String> {
    let whose = "the pod".to_owned();
    let own = keys(pod, "annotations").map(|key| (key, whose.clone()));
    let own_labels = keys(pod, "labels").map(|key| (key, whose.clone()));
    let whose = format!("namespace {}", namespace.name);
    let inherited = namespace.annotations.keys();
    let inherited = inherited.map(|key| (key.as_str(), whose.clone()));
    let its_labels = namespace.labels.keys();
    let its_labels = its_labels.map(|key| (key.as_str(), whose.clone()));
    let annotations = own.chain(inherited);
    let annotations = annotations.filter_map(|(key, whose)| annotation_without_effect(key, &whose));
    let labels = own_labels.chain(its_labels);
    let labels = labels.filter_map(|(key, whose)| label_without_effect(key, &whose));
    let told = annotations.chain(labels);
    told.chain(names_are_elsewhere(pod)).collect()
}

/// Of what makes pods, which reaches none of them. `template`: where its pod is.
pub fn misplaced(object: &Value, kind: &str, template: &str) -> Vec<String> {
    let knobs = keys(object, "annotations").filter(|key| is_known(key) || *key == INJECT_LABEL);
    let knobs = knobs.map(|key| ("annotation", "annotations", key));
    let label = keys(object, "labels").filter(|key| *key == INJECT_LABEL);
    let labels = label.map(|key| ("label", "labels", key));
    let told = knobs.chain(labels);
    told.map(|(what, field, key)| {
        let field = if key == INJECT_LABEL { "labels" } else { field };
        format!(
            "{what} {key} of the {kind} reaches none of its pods: write it below {template}.metadata.{field}"
        )
    })
    .collect()
}

fn keys<'a>(object: &'a Value, field: &str) -> impl Iterator<Item = &'a str> {
    let map = object.get("metadata").and_then(|it| it.get(field));
    let map = map.and_then(Value::as_object).into_iter().flatten();
    map.map(|(key, _)| key.as_str())
}

fn annotation_without_effect(key: &str, whose: &str) -> Option<String> {
    if key == INJECT_LABEL {
        return Some(format!(
            "annotation {key} of {whose} has no effect: it is to be a label"
        ));
    }
    let is_strange = key.starts_with(KNOB_PREFIX) && !is_known(key);
    is_strange.then(|| {
        format!(
            "annotation {key} of {whose} is unknown and has no effect; known: {}",
            KNOBS.join(", ")
        )
    })
}

fn label_without_effect(key: &str, whose: &str) -> Option<String> {
    let is_ours = key.starts_with(KNOB_PREFIX);
    is_ours.then(|| format!("label {key} of {whose} has no effect: it is to be an annotation"))
}

fn names_are_elsewhere(pod: &Value) -> Option<String> {
    let policy = pod.pointer("/spec/dnsPolicy").and_then(Value::as_str);
    let policy = policy.filter(|policy| ["Default", "None"].contains(policy))?;
    Some(format!(
        "dnsPolicy {policy}: the sidecar asks for the control plane by its name in the cluster. Where that cannot be \
         resolved the pod never becomes ready: see to it in dnsConfig"
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_stands_where_it_has_no_effect_is_told() {
        let told = |kind: &str, key: &str, text: &str| {
            let pod = json!({ "metadata": { kind: { key: text } } });
            let told = warnings(&pod, &NamespaceContext::enabled("shop"));
            assert!(told.len() <= 1, "{told:?}");
            told.into_iter().next().unwrap_or_default()
        };
        let knob = "config.weir.dev/log-level";
        assert_eq!(told("annotations", knob, "debug"), "");
        assert!(told("labels", knob, "debug").contains("it is to be an annotation"));
        assert_eq!(told("labels", INJECT_LABEL, "enabled"), "");
        assert!(told("annotations", INJECT_LABEL, "enabled").contains("it is to be a label"));
        let unknown = told("annotations", "config.weir.dev/loglevel", "debug");
        assert!(
            unknown.contains("is unknown and has no effect"),
            "{unknown}"
        );
        let namespace = json!({ "metadata": { "annotations": { INJECT_LABEL: "enabled" }, "labels": { knob: "debug" } } });
        let told = warnings(&json!({}), &NamespaceContext::from_object(&namespace));
        assert_eq!(told.len(), 2, "{told:?}");
    }

    /// `weir inject` passed over them: the sidecar logged as before, and nobody knew why.
    #[test]
    fn what_stands_on_a_deployment_and_not_on_its_pods_is_told() {
        let metadata = |annotations: Value, labels: Value| {
            let object = json!({ "metadata": { "annotations": annotations, "labels": labels } });
            misplaced(&object, "Deployment", "spec.template")
        };
        let told = metadata(
            json!({ "config.weir.dev/log-level": "debug", "other": "x" }),
            json!({ INJECT_LABEL: "disabled", "app": "x" }),
        );
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told[0].ends_with("write it below spec.template.metadata.annotations"));
        assert!(told[1].ends_with("write it below spec.template.metadata.labels"));
        assert!(metadata(json!({}), json!({})).is_empty());
    }
}
