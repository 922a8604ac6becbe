//! What cannot be read, and never could: a control plane that starts on an empty folder has no last good content of it.

use serde_json::{Value, json};
use weir_config::Kind;
use weir_config::snapshot::{Authorization, MtlsMode, Workload};
use weir_control_plane::control_plane::ControlPlane;

use super::cluster::Cluster;
use super::status::condition;

fn policy(spec: &Value) -> String {
    json!({
        "apiVersion": "weir.dev/v1alpha1", "kind": "AuthorizationPolicy",
        "metadata": { "name": "cart", "namespace": "boutique" }, "spec": spec,
    })
    .to_string()
}

fn mesh(spec: &Value) -> String {
    json!({
        "apiVersion": "weir.dev/v1alpha1", "kind": "MeshConfig",
        "metadata": { "name": "mesh" }, "spec": spec,
    })
    .to_string()
}

/// What the sidecar of cart-0 is told of its own pod.
async fn workload(cluster: &Cluster, plane: &ControlPlane) -> Workload {
    let stream = cluster.connect(plane, "cart-0").await;
    stream.workload.expect("its own workload comes first")
}

fn allows_nobody(authorization: Option<&Authorization>) -> bool {
    let enforced = authorization.map(|it| &it.enforced);
    enforced.is_some_and(|it| it.allow.as_ref().is_some_and(Vec::is_empty))
}

/// security.md, C-9: whoever was kept out by it came in, until somebody mended it.
#[tokio::test]
async fn an_authorization_policy_that_cannot_be_read_lets_nobody_in() {
    let cluster = Cluster::double().await;
    let targets = json!([{ "kind": "Namespace", "name": "boutique" }]);
    let spec = json!({ "targetRefs": targets, "fromm": [], "rules": [{}] });
    cluster.apply(&policy(&spec)).await;
    let plane = cluster.start().await;
    let told = workload(&cluster, &plane).await;
    let authorization = told.default_port.authorization.as_ref();
    assert!(allows_nobody(authorization), "{told:?}");
    cluster
        .until(Kind::AuthorizationPolicy, "cart", |it| {
            let (reason, message) = condition(it, "Accepted");
            reason == "Invalid"
                && message.contains("nobody is allowed")
                && message.contains("fromm")
        })
        .await;

    // Once it can be read, what it says holds: here that nothing is denied.
    cluster
        .apply(&policy(&json!({ "targetRefs": targets, "rules": [{}] })))
        .await;
    let mut stream = cluster.connect(&plane, "cart-0").await;
    stream
        .until(|stream| {
            let told = stream.workload.as_ref().expect("a workload");
            !allows_nobody(told.default_port.authorization.as_ref())
        })
        .await;
    plane.stop().await;
}

/// An allowance beside it is none for those whom it denies, whoever they are.
#[tokio::test]
async fn a_denial_that_cannot_be_read_denies_everybody() {
    let cluster = Cluster::double().await;
    let targets = json!([{ "kind": "Namespace", "name": "boutique" }]);
    let allowed = policy(&json!({ "targetRefs": targets, "rules": [{}] }));
    cluster.apply(&allowed.replace("\"cart\"", "\"all\"")).await;
    let spec = json!({ "targetRefs": targets, "action": "Deny", "rules": [{ "form": [] }] });
    cluster.apply(&policy(&spec)).await;
    let plane = cluster.start().await;
    let told = workload(&cluster, &plane).await;
    let authorization = told.default_port.authorization.expect("an authorization");
    let [denied] = authorization.enforced.deny.as_slice() else {
        panic!("one rule that denies: {authorization:?}")
    };
    assert!(denied.from.is_none() && denied.to.is_none(), "{denied:?}");
    plane.stop().await;
}

/// It would have denied nobody.
#[tokio::test]
async fn an_audit_that_cannot_be_read_denies_nobody() {
    let cluster = Cluster::double().await;
    let targets = json!([{ "kind": "Namespace", "name": "boutique" }]);
    let spec = json!({ "targetRefs": targets, "mode": "Audit", "fromm": [] });
    cluster.apply(&policy(&spec)).await;
    let plane = cluster.start().await;
    let told = workload(&cluster, &plane).await;
    assert!(told.default_port.authorization.is_none(), "{told:?}");
    plane.stop().await;
}

#[tokio::test]
async fn of_a_mesh_config_that_cannot_be_read_what_is_strict_holds() {
    let cluster = Cluster::double().await;
    let spec = json!({ "mtls": "Strict", "defaultAuthorization": "Deny", "accesslog": "Enabled" });
    cluster.apply(&mesh(&spec)).await;
    let plane = cluster.start().await;
    let told = workload(&cluster, &plane).await;
    assert_eq!(told.mtls, MtlsMode::Strict);
    assert!(
        allows_nobody(told.default_port.authorization.as_ref()),
        "{told:?}"
    );
    plane.stop().await;
}
