//! The webhook, asked by an API server.

use std::time::Duration;

use serde_json::Value;

use super::cluster::Cluster;
use super::world::policy;

/// Only a real one asks. It reaches the webhook by a Service that stands for this machine.
pub(super) async fn the_api_server_asks_the_webhook(cluster: &Cluster) {
    let plane = cluster.start().await;
    let port = plane.webhook_address.expect("a webhook").port();
    cluster
        .apply(
            "apiVersion: v1\nkind: Service\nmetadata: {name: weir-control-plane, namespace: weir-system}\n\
             spec: {type: ExternalName, externalName: localhost}\n",
        )
        .await;
    for (kind, path, group, resources, operations) in [
        (
            "MutatingWebhookConfiguration",
            "/inject",
            "",
            "pods",
            "[CREATE]",
        ),
        (
            "ValidatingWebhookConfiguration",
            "/validate",
            "weir.dev",
            "resiliencepolicies",
            "[CREATE, UPDATE]",
        ),
    ] {
        let version = if group.is_empty() { "v1" } else { "v1alpha1" };
        cluster
            .apply(&format!(
                "apiVersion: admissionregistration.k8s.io/v1\nkind: {kind}\nmetadata: {{name: weir}}\n\
                 webhooks:\n- name: test.weir.dev\n  admissionReviewVersions: [v1]\n  sideEffects: None\n  failurePolicy: Fail\n  \
                 clientConfig: {{service: {{name: weir-control-plane, namespace: weir-system, path: {path}, port: {port}}}}}\n  \
                 namespaceSelector: {{matchLabels: {{kubernetes.io/metadata.name: boutique}}}}\n  \
                 rules: [{{apiGroups: [\"{group}\"], apiVersions: [{version}], resources: [{resources}], operations: {operations}}}]\n"
            ))
            .await;
    }
    // Until the control plane has written caBundle, the API server refuses all of them: failurePolicy is Fail.
    let pod = |name: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: boutique, labels: {{app: cart}}}}\n\
             spec: {{serviceAccountName: cart, containers: [{{name: cart, image: registry.invalid/none}}]}}\n"
        )
    };
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    let injected = loop {
        match cluster.try_apply(&pod("cart-9")).await {
            Ok(pod) => break pod,
            Err(error) => assert!(tokio::time::Instant::now() < deadline, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    let names = injected["spec"]["initContainers"]
        .as_array()
        .expect("init containers");
    let names: Vec<&Value> = names.iter().map(|it| &it["name"]).collect();
    assert_eq!(names, ["weir-init", "weir-proxy"], "{injected:#}");
    let refused = cluster
        .try_apply(&pod("cart-8").replace(
            "name: cart,",
            "name: cart, securityContext: {runAsUser: 14102},",
        ))
        .await;
    let refused = refused.expect_err("the sidecar's user").to_string();
    assert!(refused.contains("which is the sidecar's"), "{refused}");

    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    let refused = loop {
        match cluster.try_apply(&policy("catalog", "2 seconds")).await {
            Err(error) if error.to_string().contains("write it as 2s") => break error.to_string(),
            result => assert!(tokio::time::Instant::now() < deadline, "{result:?}"),
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    assert!(refused.contains("^^^"), "{refused}");
    cluster.apply(&policy("catalog", "5s")).await;
    let maps = cluster.objects("v1", "ConfigMap", "boutique");
    let map = maps
        .get("weir-trust-bundle")
        .await
        .expect("the trust bundle");
    let bundle = map.data["data"]["ca.crt"].as_str().expect("certificates");
    assert_eq!(
        bundle,
        std::fs::read_to_string(cluster.folder.path().join("ca.crt")).expect("a file")
    );
    plane.stop().await;
}
