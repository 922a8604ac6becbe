//! The trust bundle, where Kubernetes wants it.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use super::cluster::Cluster;
use super::world::PATIENCE;

/// Without it the API server would not believe the webhook, and no sidecar the control plane.
#[tokio::test]
async fn the_trust_bundle_is_where_kubernetes_wants_it_and_stays_there() {
    let cluster = Cluster::double().await;
    let configuration = |kind: &str, service: &str| {
        json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": { "name": service },
            "webhooks": [{
                "name": "a.weir.dev",
                "clientConfig": { "service": { "name": service, "namespace": "weir-system", "path": "/inject" } },
            }],
        })
        .to_string()
    };
    for kind in [
        "MutatingWebhookConfiguration",
        "ValidatingWebhookConfiguration",
    ] {
        cluster
            .apply(&configuration(kind, "weir-control-plane"))
            .await;
        cluster.apply(&configuration(kind, "somebody-else")).await;
    }
    let plane = cluster.start().await;
    let pem = std::fs::read_to_string(cluster.folder.path().join("ca.crt")).expect("a file");
    let api = "admissionregistration.k8s.io/v1";
    let bundle_of = async |kind: &str, name: &str| {
        let object = cluster
            .objects(api, kind, "")
            .get(name)
            .await
            .expect("it is there");
        object.data["webhooks"][0]["clientConfig"]["caBundle"].clone()
    };
    let deadline = tokio::time::Instant::now() + PATIENCE;
    for kind in [
        "MutatingWebhookConfiguration",
        "ValidatingWebhookConfiguration",
    ] {
        while bundle_of(kind, "weir-control-plane").await != STANDARD.encode(&pem) {
            assert!(
                tokio::time::Instant::now() < deadline,
                "{kind} has no caBundle"
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert!(
            bundle_of(kind, "somebody-else").await.is_null(),
            "another's"
        );
    }
    let map = async |namespace: &str| {
        let maps = cluster.objects("v1", "ConfigMap", namespace);
        let map = maps.get_opt("weir-trust-bundle").await.expect("an answer");
        map.map(|map| map.data["data"]["ca.crt"].clone())
    };
    while map("boutique").await != Some(json!(pem)) {
        assert!(tokio::time::Instant::now() < deadline, "no ConfigMap");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // A namespace that asks for sidecars later.
    cluster
        .apply("apiVersion: v1\nkind: Namespace\nmetadata: {name: later, labels: {weir.dev/inject: enabled}}\n")
        .await;
    while map("later").await != Some(json!(pem)) {
        assert!(
            tokio::time::Instant::now() < deadline,
            "no ConfigMap in the new namespace"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    plane.stop().await;
}

/// A namespace in which nothing could be written kept all that come after it from their trust bundle, and their pods from
/// starting; so did a configuration of somebody else's that names our Service.
#[tokio::test]
async fn one_place_that_takes_no_trust_bundle_does_not_keep_the_others_from_theirs() {
    let cluster = Cluster::double().await;
    cluster
        .api()
        .refuse_writes("/namespaces/boutique/configmaps");
    cluster
        .api()
        .refuse_writes("/mutatingwebhookconfigurations/copy");
    for (kind, name) in [
        ("MutatingWebhookConfiguration", "weir"),
        ("ValidatingWebhookConfiguration", "weir"),
    ] {
        cluster.apply(&configuration(kind, name)).await;
    }
    cluster.api().behind_its_back(
        "apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations",
        &configuration("MutatingWebhookConfiguration", "copy"),
    );
    cluster
        .apply("apiVersion: v1\nkind: Namespace\nmetadata: {name: zoo, labels: {weir.dev/inject: enabled}}\n")
        .await;
    let plane = cluster.start().await;
    let deadline = tokio::time::Instant::now() + PATIENCE;
    let told = async || {
        let maps = cluster.objects("v1", "ConfigMap", "zoo");
        let map = maps.get_opt("weir-trust-bundle").await.expect("an answer");
        let mut all = vec![map.is_some()];
        for kind in [
            "MutatingWebhookConfiguration",
            "ValidatingWebhookConfiguration",
        ] {
            let api = cluster.objects("admissionregistration.k8s.io/v1", kind, "");
            let found = api.get("weir").await.expect("it is there");
            all.push(found.data["webhooks"][0]["clientConfig"]["caBundle"].is_string());
        }
        all
    };
    while told().await != [true; 3] {
        assert!(tokio::time::Instant::now() < deadline, "{:?}", told().await);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    plane.stop().await;
}

/// The webhook takes such a pod in, and the bundle came when the control plane next looked, up to half a minute later.
#[tokio::test]
async fn a_pod_that_is_in_the_mesh_by_itself_does_not_wait_for_its_trust_bundle() {
    let cluster = Cluster::double().await;
    cluster
        .apply("apiVersion: v1\nkind: Namespace\nmetadata: {name: plain}\n")
        .await;
    let plane = cluster.start().await;
    let maps = |namespace: &str| cluster.objects("v1", "ConfigMap", namespace);
    let has_it = async |namespace: &str| {
        let map = maps(namespace).get_opt("weir-trust-bundle").await;
        map.expect("an answer").is_some()
    };
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !has_it("boutique").await {
        assert!(tokio::time::Instant::now() < deadline, "no ConfigMap");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(!has_it("plain").await, "nobody there needs it");
    let image = "image: registry.invalid/none";
    cluster
        .apply(&format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: job-0, namespace: plain}}\n\
             spec: {{containers: [{{name: job, {image}}}], initContainers: [{{name: weir-proxy, {image}, env: [{{name: WEIR_POD_NAME}}]}}]}}\n"
        ))
        .await;
    let made = tokio::time::Instant::now();
    while !has_it("plain").await {
        assert!(
            made.elapsed() < Duration::from_secs(2),
            "its pod waits for the next time that somebody looks"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    println!("its trust bundle came after {:?}", made.elapsed());
    plane.stop().await;
}

fn configuration(kind: &str, name: &str) -> String {
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": { "name": name },
        "webhooks": [{
            "name": "a.weir.dev",
            "clientConfig": {
                "service": { "name": "weir-control-plane", "namespace": "weir-system", "path": "/inject" },
            },
        }],
    })
    .to_string()
}
