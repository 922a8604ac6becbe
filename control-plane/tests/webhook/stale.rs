//! The webhook's view of namespaces is fed by a watch, which may be behind the API server that asks.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::cluster::Cluster;
use super::world::PATIENCE;
use super::{Webhook, creation};

const NAMESPACES: &str = "api/v1/namespaces";

/// A namespace with such labels and annotations.
fn namespace(name: &str, labels: Value, annotations: Value) -> String {
    json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": { "name": name, "labels": labels, "annotations": annotations },
    })
    .to_string()
}

fn labelled(name: &str, label: &str) -> String {
    namespace(name, json!({ "weir.dev/inject": label }), json!({}))
}

pub(super) fn plain(name: &str) -> String {
    namespace(name, json!({}), json!({}))
}

pub(super) fn pod_of(namespace: &str, labels: Value) -> Value {
    let mut request = creation(&json!({
        "metadata": { "generateName": "cart-", "labels": labels },
        "spec": { "containers": [{ "name": "cart" }] },
    }));
    request["namespace"] = json!(namespace);
    request
}

/// How often the API server was asked about one namespace, with a list or otherwise.
pub(super) fn lookups(cluster: &Cluster, name: &str) -> usize {
    let requests = cluster.api().requests().into_iter();
    let (get, list) = (
        format!("GET /api/v1/namespaces/{name}"),
        format!("metadata.name%3D{name}"),
    );
    let of_it = |request: &String| *request == get || request.contains(&list);
    requests.filter(of_it).count()
}

/// Returns when the watch has told the webhook of all namespaces that are there now: of the last one, so of the others.
pub(super) async fn told(webhook: &Webhook) {
    webhook.cluster.apply(&labelled("last", "enabled")).await;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let before = lookups(&webhook.cluster, "last");
        let response = webhook.review("/inject", pod_of("last", json!({}))).await;
        assert_eq!(response["allowed"], true, "{response}");
        if lookups(&webhook.cluster, "last") == before {
            return;
        }
        assert!(Instant::now() < deadline, "the watch tells nothing");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// `kubectl label ns shop weir.dev/inject=enabled && kubectl apply -f pods.yaml`: the watch had not told of the label yet, so
/// the pods were let in without a sidecar, and nobody was told.
#[tokio::test]
async fn a_pod_made_right_after_its_namespaces_label_is_injected() {
    let webhook = Webhook::start().await;
    let cluster = &webhook.cluster;
    cluster.apply(&plain("silent")).await;
    cluster.apply(&labelled("no", "disabled")).await;
    cluster.apply(&labelled("typo", "Enabled")).await;
    told(&webhook).await;
    cluster.api().hold_watches(NAMESPACES);
    for name in ["silent", "no", "typo", "new"] {
        let knobs = json!({ "config.weir.dev/drain-seconds": "9" });
        let labels = json!({ "weir.dev/inject": "enabled" });
        cluster.apply(&namespace(name, labels, knobs)).await;
        let response = webhook.review("/inject", pod_of(name, json!({}))).await;
        assert_eq!(response["allowed"], true, "{name}: {response}");
        assert!(response["patch"].is_string(), "{name}: left outside");
        let patched = super::patched(&pod_of(name, json!({}))["object"], &response);
        let knob = &patched["metadata"]["annotations"]["config.weir.dev/drain-seconds"];
        assert_eq!(knob, "9", "{name}: its annotations are as new as its label");
    }
    webhook.plane.stop().await;
}

/// Those that come while it is being asked want to know what is so then, and are told together.
#[tokio::test]
async fn a_hundred_pods_at_once_cost_the_api_server_one_question_at_a_time() {
    const LATENCY: Duration = Duration::from_millis(300);
    let webhook = Webhook::start().await;
    let cluster = &webhook.cluster;
    cluster.apply(&plain("shop")).await;
    told(&webhook).await;
    cluster.api().hold_watches(NAMESPACES);
    cluster.apply(&labelled("shop", "enabled")).await;
    cluster.api().set_latency(LATENCY);
    let begun = Instant::now();
    let review = || webhook.review("/inject", pod_of("shop", json!({})));
    let responses = futures_util::future::join_all((0..100).map(|_| review())).await;
    for response in responses {
        assert!(response["patch"].is_string(), "{response}");
    }
    let (asked, took) = (lookups(cluster, "shop"), begun.elapsed());
    println!("{asked} questions in {took:?}");
    let one_at_a_time = (took.as_millis() / LATENCY.as_millis()) as usize + 1;
    assert!(asked >= 1 && asked <= one_at_a_time, "{asked} in {took:?}");
    webhook.plane.stop().await;
}

/// In a namespace that is in the mesh for long, and in one whose pods ask for themselves.
#[tokio::test]
async fn where_nothing_is_new_the_api_server_is_asked_nothing() {
    let webhook = Webhook::start().await;
    let cluster = &webhook.cluster;
    cluster.apply(&labelled("shop", "enabled")).await;
    cluster.apply(&plain("jobs")).await;
    told(&webhook).await;
    let before = ["shop", "jobs"].map(|name| lookups(cluster, name));
    let asks = json!({ "weir.dev/inject": "true" });
    for (name, labels) in [("shop", json!({})), ("jobs", asks)] {
        let response = webhook.review("/inject", pod_of(name, labels)).await;
        assert!(response["patch"].is_string(), "{name}: {response}");
    }
    let declines = pod_of("jobs", json!({ "weir.dev/inject": "false" }));
    let response = webhook.review("/inject", declines).await;
    assert!(response["allowed"] == true && response["patch"].is_null());
    let after = ["shop", "jobs"].map(|name| lookups(cluster, name));
    assert_eq!(after, before);

    // The label was taken away between the API server's look at it and ours: what is so now counts.
    let response = webhook.review("/inject", pod_of("jobs", json!({}))).await;
    assert!(response["allowed"] == true && response["patch"].is_null());
    assert_eq!(lookups(cluster, "jobs"), before[1] + 1);
    webhook.plane.stop().await;
}

/// Half-meshed is worse than late.
#[tokio::test]
async fn whose_namespace_cannot_be_found_out_in_time_is_refused_and_told_why() {
    let webhook = Webhook::start().await;
    let cluster = &webhook.cluster;
    cluster.apply(&plain("shop")).await;
    told(&webhook).await;
    let refused = async |why: &str| {
        let asked = Instant::now();
        let response = webhook.review("/inject", pod_of("shop", json!({}))).await;
        assert_eq!(response["allowed"], false, "{response}");
        let message = response["status"]["message"].as_str().expect("why");
        for words in ["namespace shop", why, "try again in a moment"] {
            assert!(message.contains(words), "{message}");
        }
        assert!(asked.elapsed() < Duration::from_secs(4), "{message}");
    };
    cluster.api().set_latency(PATIENCE);
    refused("has not told within 2 s").await;
    cluster.api().set_latency(Duration::ZERO);
    cluster.api().set_away(true);
    refused("does not tell").await;
    // What is known to be in the mesh is injected all the while.
    let response = webhook.review("/inject", pod_of("last", json!({}))).await;
    assert!(response["patch"].is_string(), "{response}");
    webhook.plane.stop().await;
}
