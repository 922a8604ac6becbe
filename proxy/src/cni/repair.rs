//! Pods that began without their rules, because the plugin was not there yet: their validator has stopped them, and only
//! a new network gives them rules. They are deleted, so that whoever made them makes them anew.

use std::time::Duration;

use serde_json::Value;

use super::api::{Api, ApiError};
use crate::redirect::NOT_REDIRECTED;

pub(super) const EVERY: Duration = Duration::from_secs(10);
/// At once: whatever is wrong, it does not empty a node.
const PODS_MAX: usize = 10;
/// As the injector names it.
const VALIDATOR: &str = "weir-validate";

/// One look at a node's pods.
pub(super) async fn round(api: &Api, node: &str) -> Result<(), String> {
    let pods = api.pods_of(node).await.map_err(|error| error.to_string())?;
    for pod in pods.iter().filter(|pod| is_stranded(pod)).take(PODS_MAX) {
        let text = |field: &str| pod["metadata"][field].as_str().unwrap_or_default();
        let (namespace, name) = (text("namespace"), text("name"));
        match api.delete(namespace, name, text("uid")).await {
            // It is gone, or another by now.
            Ok(()) | Err(ApiError::Unknown) => {
                tracing::info!("pod {namespace}/{name} had started without its rules: deleted")
            }
            Err(error) => return Err(format!("pod {namespace}/{name}: {error}")),
        }
    }
    Ok(())
}

/// Whether its validator has ended by saying that it is not redirected, and somebody would make it anew.
fn is_stranded(pod: &Value) -> bool {
    let statuses = pod
        .pointer("/status/initContainerStatuses")
        .and_then(Value::as_array);
    let mut validators = statuses
        .into_iter()
        .flatten()
        .filter(|status| status["name"] == VALIDATOR);
    let has_ended = validators.any(|status| {
        let ended = |state: &str| {
            status[state]["terminated"]["exitCode"].as_u64() == Some(NOT_REDIRECTED.into())
        };
        ended("state") || (ended("lastState") && status["state"]["terminated"].is_null())
    });
    let owners = pod
        .pointer("/metadata/ownerReferences")
        .and_then(Value::as_array);
    let is_owned =
        owners.is_some_and(|owners| owners.iter().any(|owner| owner["controller"] == true));
    has_ended && is_owned && pod["metadata"]["deletionTimestamp"].is_null()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(container: &str, state: Value, last: Value) -> Value {
        json!({
            "metadata": { "name": "cart-1", "ownerReferences": [{ "kind": "ReplicaSet", "controller": true }] },
            "status": { "initContainerStatuses": [{ "name": container, "state": state, "lastState": last }] },
        })
    }

    #[test]
    fn only_a_pod_whose_validator_said_so_and_that_somebody_makes_anew_is_stranded() {
        let ended = |code: u64| json!({ "terminated": { "exitCode": code } });
        let waits = || json!({ "waiting": { "reason": "CrashLoopBackOff" } });
        assert!(is_stranded(&pod("weir-validate", ended(95), json!({}))));
        assert!(is_stranded(&pod("weir-validate", waits(), ended(95))));
        assert!(
            !is_stranded(&pod("weir-validate", ended(0), ended(95))),
            "it is redirected by now"
        );
        assert!(
            !is_stranded(&pod("weir-validate", ended(1), json!({}))),
            "it could not be tried"
        );
        assert!(
            !is_stranded(&pod("migrate", ended(95), json!({}))),
            "the author's own"
        );
        let mut leaving = pod("weir-validate", ended(95), json!({}));
        leaving["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        assert!(!is_stranded(&leaving));
        let mut alone = pod("weir-validate", ended(95), json!({}));
        alone["metadata"]["ownerReferences"] = Value::Null;
        assert!(!is_stranded(&alone), "nobody would make it again");
    }
}
