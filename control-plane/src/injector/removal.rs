//! The way back: a pod with a sidecar goes in, the pod its author wrote comes out.
//!
//! Probes are given back as the sidecar would have asked them: a port that had a name comes back as its number.
//! Annotations that the injector copied from a namespace stay, for nobody can tell them from the author's own.

use serde_json::{Map, Value};

use super::probes;
use super::{
    HASH_ANNOTATION, IDENTITY_VOLUME, INIT_CONTAINER, PROXY_CONTAINER, STATUS_ANNOTATION,
    VALIDATE_CONTAINER, name, sidecar,
};

/// `None`: there is no sidecar in it.
pub fn uninject(pod: &Value) -> Option<Value> {
    let proxy = sidecar(pod)?;
    let originals = probes::originals(proxy);
    let mut pod = pod.clone();
    if let Some(spec) = pod.get_mut("spec").and_then(Value::as_object_mut) {
        let ours = [INIT_CONTAINER, VALIDATE_CONTAINER, PROXY_CONTAINER];
        remove(spec, "initContainers", &ours);
        remove(spec, "containers", &[PROXY_CONTAINER]);
        remove(spec, "volumes", &[IDENTITY_VOLUME]);
        probes::restore(spec, &originals);
    }
    if let Some(metadata) = pod.get_mut("metadata").and_then(Value::as_object_mut) {
        let annotations = metadata.get_mut("annotations");
        if let Some(annotations) = annotations.and_then(Value::as_object_mut) {
            annotations.shift_remove(STATUS_ANNOTATION);
            annotations.shift_remove(HASH_ANNOTATION);
        }
        drop_if_empty(metadata, "annotations");
    }
    if pod
        .get("metadata")
        .is_some_and(|metadata| metadata == &Value::Object(Map::new()))
        && let Some(pod) = pod.as_object_mut()
    {
        pod.shift_remove("metadata");
    }
    Some(pod)
}

fn remove(spec: &mut Map<String, Value>, list: &str, ours: &[&str]) {
    if let Some(list) = spec.get_mut(list).and_then(Value::as_array_mut) {
        list.retain(|item| !ours.contains(&name(item)));
    }
    if list != "containers" {
        drop_if_empty(spec, list);
    }
}

fn drop_if_empty(parent: &mut Map<String, Value>, field: &str) {
    let empty = match parent.get(field) {
        Some(Value::Array(list)) => list.is_empty(),
        Some(Value::Object(map)) => map.is_empty(),
        _ => false,
    };
    if empty {
        parent.shift_remove(field);
    }
}
