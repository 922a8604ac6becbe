//! What the status of routes of the Gateway API says.

use std::time::Duration;

use kube::api::DeleteParams;
use serde_json::Value;

use super::cluster::Cluster;
use super::world::PATIENCE;

const GATEWAY: &str = "gateway.networking.k8s.io/v1";

/// Reasons of the conditions of our answer to the first parent; none while there is no answer.
async fn reasons(cluster: &Cluster, kind: &str, name: &str) -> Vec<(String, i64)> {
    let routes = cluster.objects(GATEWAY, kind, "boutique");
    let route = routes.get(name).await.expect("it is there");
    let answers = route.data["status"]["parents"].as_array().cloned();
    let mut answers = answers.into_iter().flatten();
    let ours = answers.find(|it| it["controllerName"] == "weir.dev/controller");
    let conditions = ours.and_then(|ours| ours["conditions"].as_array().cloned());
    let reason = |it: Value| {
        let text = it["reason"].as_str().unwrap_or_default().to_owned();
        (text, it["observedGeneration"].as_i64().unwrap_or_default())
    };
    conditions.into_iter().flatten().map(reason).collect()
}

async fn until_reasons(cluster: &Cluster, kind: &str, name: &str, wanted: &[&str]) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let found = reasons(cluster, kind, name).await;
        if found.iter().map(|(reason, _)| reason).eq(wanted) {
            return;
        }
        let late = tokio::time::Instant::now() > deadline;
        assert!(!late, "{kind} {name} says {found:?} and not {wanted:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn route(kind: &str, name: &str, service: &str, rules: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: {kind}\nmetadata: {{name: {name}, namespace: boutique}}\n\
         spec: {{parentRefs: [{{group: \"\", kind: Service, name: {service}}}], rules: {rules}}}\n"
    )
}

fn bytes(says: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: bytes, namespace: boutique}}\n\
         spec: {{clusterIP: 10.96.0.176, ports: [{{name: main, port: 80, {says}}}]}}\n"
    )
}

/// Each reason of the standard, as what a route names comes and goes.
pub(super) async fn a_route_says_in_its_status_what_becomes_of_it(cluster: &Cluster) {
    cluster
        .apply("apiVersion: v1\nkind: Namespace\nmetadata: {name: elsewhere}\n")
        .await;
    let to = |name: &str, port: u16| format!("[{{backendRefs: [{{name: {name}, port: {port}}}]}}]");
    let to_catalog = to("catalog", 3550);
    for (kind, name, service, rules) in [
        ("HTTPRoute", "good", "catalog", to_catalog.clone()),
        ("GRPCRoute", "good", "catalog", to_catalog.clone()),
        ("HTTPRoute", "orphan", "nobody", to_catalog.clone()),
        ("HTTPRoute", "lost", "catalog", to("later", 80)),
        (
            "HTTPRoute",
            "wide",
            "catalog",
            "[{filters: [{type: CORS}]}]".to_owned(),
        ),
        (
            "HTTPRoute",
            "far",
            "catalog",
            "[{backendRefs: [{name: spare, namespace: elsewhere, port: 80}]}]".to_owned(),
        ),
        (
            "HTTPRoute",
            "odd",
            "catalog",
            "[{backendRefs: [{group: storage.example, kind: Bucket, name: b}]}]".to_owned(),
        ),
    ] {
        cluster.apply(&route(kind, name, service, &rules)).await;
    }
    cluster
        .apply(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: front, namespace: boutique}\n\
             spec: {parentRefs: [{name: gateway}], rules: [{filters: [{type: CORS}], colour: blue}]}\n",
        )
        .await;
    cluster.apply(&bytes("appProtocol: tcp")).await;
    cluster
        .apply(&route("GRPCRoute", "bytes", "bytes", &to_catalog))
        .await;
    let plane = cluster.start().await;
    let both = ["Accepted", "ResolvedRefs"];
    let opaque = ["NotAllowedByListeners", "ResolvedRefs"];
    until_reasons(cluster, "GRPCRoute", "bytes", &opaque).await;
    cluster.apply(&bytes("appProtocol: grpc")).await;
    until_reasons(cluster, "GRPCRoute", "bytes", &both).await;
    until_reasons(cluster, "GRPCRoute", "good", &both).await;
    let conflicted = ["Conflicted", "ResolvedRefs"];
    until_reasons(cluster, "HTTPRoute", "good", &conflicted).await;
    let grpc_routes = cluster.objects(GATEWAY, "GRPCRoute", "boutique");
    let gone = grpc_routes.delete("good", &DeleteParams::default()).await;
    gone.expect("deleted");
    until_reasons(cluster, "HTTPRoute", "good", &both).await;
    for (name, wanted) in [
        ("orphan", &["NoMatchingParent", "ResolvedRefs"][..]),
        ("lost", &["Accepted", "BackendNotFound"]),
        ("wide", &["UnsupportedValue"]),
        ("far", &["Accepted", "RefNotPermitted"]),
        ("odd", &["Accepted", "InvalidKind"]),
        ("front", &[]),
    ] {
        until_reasons(cluster, "HTTPRoute", name, wanted).await;
    }
    let routes = cluster.objects(GATEWAY, "HTTPRoute", "boutique");
    let wide = routes.get("wide").await.expect("it is there");
    let told = wide.data["status"]["parents"][0]["conditions"][0]["message"].to_string();
    assert!(told.contains("`CORS` is not supported"), "{told}");

    for (namespace, name, ip) in [
        ("boutique", "later", "10.96.0.177"),
        ("elsewhere", "spare", "10.96.0.178"),
    ] {
        cluster
            .apply(&format!(
                "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
                 spec: {{clusterIP: {ip}, ports: [{{name: http, port: 80}}]}}\n"
            ))
            .await;
    }
    until_reasons(cluster, "HTTPRoute", "lost", &both).await;
    cluster
        .apply(
            "apiVersion: gateway.networking.k8s.io/v1beta1\nkind: ReferenceGrant\nmetadata: {name: all, namespace: elsewhere}\n\
             spec: {from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: boutique}], to: [{group: \"\", kind: Service}]}\n",
        )
        .await;
    until_reasons(cluster, "HTTPRoute", "far", &both).await;
    let before = reasons(cluster, "HTTPRoute", "wide").await[0].1;
    cluster
        .apply(&route("HTTPRoute", "wide", "catalog", &to_catalog))
        .await;
    until_reasons(cluster, "HTTPRoute", "wide", &both).await;
    let now = reasons(cluster, "HTTPRoute", "wide").await;
    assert!(
        now.iter().all(|(_, generation)| *generation > before),
        "{now:?}"
    );

    for (kind, name) in [
        ("HTTPRoute", "good"),
        ("GRPCRoute", "bytes"),
        ("HTTPRoute", "orphan"),
        ("HTTPRoute", "lost"),
        ("HTTPRoute", "wide"),
        ("HTTPRoute", "far"),
        ("HTTPRoute", "odd"),
        ("HTTPRoute", "front"),
    ] {
        let routes = cluster.objects(GATEWAY, kind, "boutique");
        let gone = routes.delete(name, &DeleteParams::default()).await;
        gone.expect("deleted");
    }
    plane.stop().await;
}

#[tokio::test]
async fn a_route_says_in_its_status_what_becomes_of_it_double() {
    let cluster = Cluster::double().await;
    cluster.api().set_absent(&grants("v1"));
    a_route_says_in_its_status_what_becomes_of_it(&cluster).await;
}

fn grants(version: &str) -> String {
    format!("apis/gateway.networking.k8s.io/{version}/referencegrants")
}

/// Gateway API 1.5 has it at v1, those before it have v1beta1 alone, and one day v1beta1 goes.
#[tokio::test]
async fn a_grant_holds_in_whichever_version_the_server_has_it() {
    let cluster = Cluster::double().await;
    cluster.api().set_absent(&grants("v1"));
    let grant = |version: &str| {
        format!(
            "apiVersion: gateway.networking.k8s.io/{version}\nkind: ReferenceGrant\nmetadata: {{name: all, namespace: elsewhere}}\n\
             spec: {{from: [{{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: boutique}}], to: [{{group: \"\", kind: Service}}]}}\n"
        )
    };
    let spare = "apiVersion: v1\nkind: Service\nmetadata: {name: spare, namespace: elsewhere}\n\
                 spec: {clusterIP: 10.96.0.178, ports: [{name: http, port: 80}]}\n";
    cluster.apply(spare).await;
    let rules = "[{backendRefs: [{name: spare, namespace: elsewhere, port: 80}]}]";
    cluster
        .apply(&route("HTTPRoute", "far", "catalog", rules))
        .await;
    cluster.apply(&grant("v1beta1")).await;
    let plane = cluster.start().await;
    let (granted, not_granted) = (
        ["Accepted", "ResolvedRefs"],
        ["Accepted", "RefNotPermitted"],
    );
    until_reasons(&cluster, "HTTPRoute", "far", &granted).await;

    cluster.api().install(&grants("v1"));
    cluster.api().set_absent(&grants("v1beta1"));
    until_reasons(&cluster, "HTTPRoute", "far", &not_granted).await;
    cluster.apply(&grant("v1")).await;
    until_reasons(&cluster, "HTTPRoute", "far", &granted).await;
    plane.stop().await;
}
