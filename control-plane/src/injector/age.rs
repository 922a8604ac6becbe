//! Whether a pod's sidecar is the one that it would get now.

use serde_json::Value;

use super::asked::{is_unclear, is_unheard};
use super::knobs::Knobs;
use super::{
    HASH_ANNOTATION, InjectorSettings, NamespaceContext, STATUS_ANNOTATION, items, name, patch,
    sidecar, skip,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Made {
    /// By this version, with these settings.
    ByThis,
    /// By another version, or with what has been said otherwise since: it wants to start anew.
    Otherwise,
    /// It should have a sidecar, and was there before anybody said so.
    WithoutSidecar,
    /// It asks for one, in a namespace whose word counts and says no.
    Unheard,
    /// Nobody asks for one, or it cannot have one.
    OutsideOnPurpose,
}

pub fn made_by(pod: &Value, namespace: &NamespaceContext, settings: &InjectorSettings) -> Made {
    if sidecar(pod).is_none() {
        return match skip(pod, namespace, settings) {
            _ if is_unheard(pod, namespace, settings) => Made::Unheard,
            // No restart brings it a sidecar: its namespace is what is wrong.
            None if is_unclear(namespace) => Made::OutsideOnPurpose,
            None => Made::WithoutSidecar,
            Some(_) => Made::OutsideOnPurpose,
        };
    }
    match is_as_now(pod, namespace, settings) {
        true => Made::ByThis,
        false => Made::Otherwise,
    }
}

/// Whether it has a sidecar by this version, with these settings, whatever the pod's grace is by now: that is the pod's own,
/// and another webhook may have changed it since.
pub(super) fn may_be_completed(
    pod: &Value,
    namespace: &NamespaceContext,
    settings: &InjectorSettings,
) -> bool {
    sidecar(pod).is_some_and(|proxy| {
        let then = with_the_grace_of_then(pod, proxy);
        is_as_now(pod, namespace, settings)
            || then.is_some_and(|then| is_as_now(&then, namespace, settings))
    })
}

fn is_as_now(pod: &Value, namespace: &NamespaceContext, settings: &InjectorSettings) -> bool {
    let annotation = |name: &str| {
        let annotations = pod.pointer("/metadata/annotations")?;
        annotations.get(name)?.as_str()
    };
    Knobs::resolve(pod, namespace, settings).is_ok_and(|knobs| {
        annotation(HASH_ANNOTATION) == Some(&*knobs.hash())
            && annotation(STATUS_ANNOTATION) == Some(&*patch::status(&knobs))
    })
}

/// The sidecar was told it.
fn with_the_grace_of_then(pod: &Value, proxy: &Value) -> Option<Value> {
    let told = items(proxy.get("env")).find(|variable| name(variable) == patch::GRACE)?;
    let seconds: u64 = told.get("value")?.as_str()?.parse().ok()?;
    let mut pod = pod.clone();
    pod["spec"]["terminationGracePeriodSeconds"] = seconds.into();
    Some(pod)
}
