//! What the status of policies and routes says.

use std::time::Duration;

use serde_json::Value;
use weir_config::{Kind, pb};

use super::cluster::Cluster;
use super::world::{PATIENCE, policy, slice};
use super::{CATALOG_ADDRESS, subscribed};

/// Message of a condition, of the first target.
pub(super) fn condition(object: &Value, name: &str) -> (String, String) {
    let conditions = &object["status"]["ancestors"][0]["conditions"];
    let mut found = conditions.as_array().into_iter().flatten();
    let found = found.rfind(|it| it["type"] == name);
    let text = |field: &str| {
        let text = found.and_then(|it| it[field].as_str());
        text.unwrap_or_default().to_owned()
    };
    (text("reason"), text("message"))
}

/// GEP-713, with the count of those who have it in force.
pub(super) async fn the_status_follows_the_sidecars(cluster: &Cluster) {
    let plane = cluster.start().await;
    let policies = Kind::ResiliencePolicy;
    cluster
        .until(policies, "catalog", |it| {
            condition(it, "Enforced").0 == "NoProxies"
        })
        .await;
    let mut prompt = subscribed(cluster, &plane).await;
    let mut late = cluster.connect(&plane, "cart-0").await;
    late.subscribe(CATALOG_ADDRESS).await;
    late.next().await;
    let in_force =
        |count: &'static str| move |it: &Value| condition(it, "Enforced").1.starts_with(count);
    cluster
        .until(policies, "catalog", in_force("acknowledged by 2 of 2"))
        .await;

    cluster.apply(&policy("catalog", "3s")).await;
    prompt.next().await;
    let push = late.push().await;
    let half = cluster
        .until(policies, "catalog", in_force("acknowledged by 1 of 2"))
        .await;
    let (reason, message) = condition(&half, "Enforced");
    assert_eq!(reason, "PartiallyEnforced");
    assert!(message.contains("boutique/cart-0"), "{message}");
    late.ack(&push).await;
    let whole = cluster
        .until(policies, "catalog", in_force("acknowledged by 2 of 2"))
        .await;
    let conditions = whole["status"]["ancestors"][0]["conditions"].as_array();
    for condition in conditions.expect("conditions") {
        assert_eq!(
            condition["observedGeneration"],
            whole["metadata"]["generation"]
        );
    }
    let managers = whole["metadata"]["managedFields"]
        .as_array()
        .expect("managers");
    assert!(
        managers
            .iter()
            .any(|it| it["manager"] == "weir-control-plane" && it["operation"] == "Apply"),
        "{managers:?}"
    );

    // A mistake, told in the words of `weir validate`.
    cluster.apply(&policy("catalog", "2 seconds")).await;
    let refused = cluster
        .until(policies, "catalog", |it| {
            condition(it, "Accepted").0 == "Invalid"
        })
        .await;
    let (_, message) = condition(&refused, "Accepted");
    assert!(message.contains("before stays in force"), "{message}");
    assert!(message.contains("write it as 2s"), "{message}");
    assert!(condition(&refused, "Enforced").0.is_empty());

    cluster.apply(&policy("nobody", "2s")).await;
    cluster
        .until(policies, "nobody", |it| {
            condition(it, "Accepted").0 == "TargetNotFound"
        })
        .await;
    cluster.delete(policies, "nobody").await;
    plane.stop().await;
}

#[tokio::test]
async fn the_status_follows_the_sidecars_double() {
    the_status_follows_the_sidecars(&Cluster::double().await).await;
}

fn targeting(kind: &str, name: &str, target: &str, rest: &str) -> String {
    format!(
        "apiVersion: weir.dev/v1alpha1\nkind: {kind}\nmetadata: {{name: {name}, namespace: boutique}}\n\
         spec:\n  targetRefs: [{{kind: Service, name: {target}}}]\n{rest}"
    )
}

/// Faults are in the sidecars of those who call, rights in those of who is called, and what holds for the mesh in all.
pub(super) async fn every_kind_says_how_far_it_has_come(cluster: &Cluster) {
    const FAULT: &str = "  endsAt: \"2100-01-01T00:00:00Z\"\n  faults: [{delay: {time: 1s}}]\n";
    const RIGHT: &str = "  rules: [{}]\n";
    let plane = cluster.start().await;
    let mut caller = subscribed(cluster, &plane).await;
    let mut called = cluster.connect(&plane, "catalog-0").await;
    let enforced = |is: [&'static str; 2]| {
        move |it: &Value| {
            let (reason, message) = condition(it, "Enforced");
            reason == is[0] && message.starts_with(is[1])
        }
    };

    cluster
        .apply(&targeting("FaultPolicy", "slow", "catalog", FAULT))
        .await;
    let push = caller.push().await;
    let none = ["PartiallyEnforced", "acknowledged by 0 of 1 proxies"];
    cluster
        .until(Kind::FaultPolicy, "slow", enforced(none))
        .await;
    caller.ack(&push).await;
    let all = ["Enforced", "acknowledged by 1 of 1 proxies"];
    cluster
        .until(Kind::FaultPolicy, "slow", enforced(all))
        .await;

    cluster
        .apply(&targeting("AuthorizationPolicy", "who", "catalog", RIGHT))
        .await;
    let push = called.push().await;
    cluster
        .until(Kind::AuthorizationPolicy, "who", enforced(none))
        .await;
    called.ack(&push).await;
    cluster
        .until(Kind::AuthorizationPolicy, "who", enforced(all))
        .await;

    for (kind, rest) in [("FaultPolicy", FAULT), ("AuthorizationPolicy", RIGHT)] {
        cluster
            .apply(&targeting(kind, "lost", "nobody", rest))
            .await;
    }
    for kind in [Kind::FaultPolicy, Kind::AuthorizationPolicy] {
        let lost = |it: &Value| condition(it, "Accepted").0 == "TargetNotFound";
        cluster.until(kind, "lost", lost).await;
        cluster.delete(kind, "lost").await;
    }

    let mesh = "apiVersion: weir.dev/v1alpha1\nkind: MeshConfig\nmetadata: {name: mesh}\nspec: {accessLog: Json}\n";
    cluster.apply(mesh).await;
    let configs = cluster.objects(Kind::MeshConfig.api_version(), "MeshConfig", "");
    let (first, second) = (caller.push().await, called.push().await);
    caller.ack(&first).await;
    let mut told = Vec::new();
    let deadline = tokio::time::Instant::now() + PATIENCE;
    let mut unacknowledged = Some(second);
    while told
        .last()
        .is_none_or(|last| *last != "acknowledged by 2 of 2 proxies")
    {
        let config = configs.get("mesh").await.expect("it is there");
        let config = serde_json::to_value(config).expect("JSON");
        let (_, message) = condition(&config, "Enforced");
        if message.starts_with("acknowledged by 1 of 2 proxies")
            && let Some(push) = unacknowledged.take()
        {
            called.ack(&push).await;
        }
        told.push(message);
        assert!(tokio::time::Instant::now() < deadline, "{:?}", told.last());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(unacknowledged.is_none(), "it was said before it was so");
    configs
        .delete("mesh", &kube::api::DeleteParams::default())
        .await
        .expect("deleted");
    pods_without_a_sidecar_are_told(cluster).await;
    for (kind, name) in [
        (Kind::FaultPolicy, "slow"),
        (Kind::AuthorizationPolicy, "who"),
    ] {
        cluster.delete(kind, name).await;
    }
    plane.stop().await;
}

/// In the status of `who`, which says who may call the catalog.
async fn pods_without_a_sidecar_are_told(cluster: &Cluster) {
    const TOLD: &str =
        "no sidecar stands before 1 of 3 pods, and anybody is let in there: boutique/catalog-7";
    const BARE: &str = "apiVersion: v1\nkind: Pod\nmetadata: {name: catalog-7, namespace: boutique, labels: {app: catalog}}\n\
                        spec: {serviceAccountName: catalog, containers: [{name: catalog, image: registry.invalid/none}]}\n";
    let meshed = [("10.1.0.2", "catalog-0"), ("10.1.0.3", "catalog-1")];
    let all = [&meshed[..], &[("10.1.0.7", "catalog-7")]].concat();
    cluster.apply(BARE).await;
    cluster.apply(&slice("catalog", &all)).await;
    let told = |it: &Value| {
        let (reason, message) = condition(it, "Enforced");
        reason == "PartiallyEnforced" && message.ends_with(TOLD)
    };
    let who = Kind::AuthorizationPolicy;
    cluster.until(who, "who", told).await;
    cluster.apply(&slice("catalog", &meshed)).await;
    cluster.until(who, "who", |it| !told(it)).await;
    cluster.delete(Kind::Pod, "catalog-7").await;
}

#[tokio::test]
async fn every_kind_says_how_far_it_has_come_double() {
    every_kind_says_how_far_it_has_come(&Cluster::double().await).await;
}

/// Of two callers' gates and breakers, in one condition that goes away with them.
#[tokio::test]
async fn the_status_counts_who_holds_what_open() {
    let cluster = Cluster::double().await;
    let plane = cluster.start().await;
    let first = subscribed(&cluster, &plane).await;
    let mut second = cluster.connect(&plane, "cart-0").await;
    second.subscribe(CATALOG_ADDRESS).await;
    second.next().await;
    let gate = |endpoint: &str, to: pb::GateState| {
        pb::fact::Fact::EndpointChanged(pb::EndpointChanged {
            service: super::CATALOG.to_owned(),
            endpoint: endpoint.to_owned(),
            to: to.into(),
            ..Default::default()
        })
    };
    let breaker = |to: pb::BreakerState| {
        pb::fact::Fact::BreakerChanged(pb::BreakerChanged {
            service: super::CATALOG.to_owned(),
            to: to.into(),
            ..Default::default()
        })
    };
    let told = |is: &'static str| move |it: &Value| condition(it, "BreakersOpen").1 == is;
    let policies = Kind::ResiliencePolicy;
    cluster
        .until(policies, "catalog", |it| {
            condition(it, "Enforced").0 == "Enforced"
        })
        .await;

    first.fact(gate("10.1.0.3:3550", pb::GateState::Open)).await;
    second
        .fact(gate("10.1.0.3:3550", pb::GateState::HalfOpen))
        .await;
    // Of an endpoint that is not there any more.
    second
        .fact(gate("10.1.0.99:3550", pb::GateState::Open))
        .await;
    first.fact(breaker(pb::BreakerState::Open)).await;
    cluster
        .until(
            policies,
            "catalog",
            told(
                "1 of 2 callers holds the circuit breaker of boutique/catalog:3550 open; \
                 1 of 2 callers holds catalog-1 open, 1 probes it",
            ),
        )
        .await;

    // It flaps, which costs the API server next to nothing.
    let writes = || {
        let requests = cluster.api().requests();
        let of_it = |line: &&String| line.starts_with("PATCH") && line.contains("/catalog/status");
        requests.iter().filter(of_it).count()
    };
    let (before, begun) = (writes(), tokio::time::Instant::now());
    while begun.elapsed() < Duration::from_secs(4) {
        for to in [pb::BreakerState::Closed, pb::BreakerState::Open] {
            first.fact(breaker(to)).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    assert!(writes() - before <= 1, "{} writes", writes() - before);

    // Whoever goes away holds nothing open, and a gate that is closed is told no longer.
    drop(first);
    cluster
        .until(policies, "catalog", told("1 of 1 callers probes catalog-1"))
        .await;
    second
        .fact(gate("10.1.0.3:3550", pb::GateState::Closed))
        .await;
    cluster.until(policies, "catalog", told("")).await;
    plane.stop().await;
}
