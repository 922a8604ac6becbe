//! Several control planes on one API: who writes status, and of whom it tells.

use std::time::Duration;

use serde_json::Value;
use weir_config::Kind;
use weir_control_plane::control_plane::{Cluster as Where, ControlPlane};

use super::cluster::{Cluster, until};
use super::status::condition;
use super::world::{PATIENCE, policy};
use super::{CATALOG_ADDRESS, subscribed};

/// Of two control planes one writes; when it is gone the other does.
#[tokio::test]
async fn the_holder_of_the_lease_writes_status() {
    let cluster = Cluster::double().await;
    let lease = |holder: &str| {
        format!(
            "apiVersion: coordination.k8s.io/v1\nkind: Lease\nmetadata: {{name: weir-control-plane, namespace: weir-system}}\n\
             spec: {{holderIdentity: {holder}, leaseDurationSeconds: 15, renewTime: \"2026-11-26T03:00:00.000000Z\"}}\n"
        )
    };
    cluster.apply(&lease("another")).await;
    let plane = cluster.start().await;
    let attempts = || {
        let requests = cluster.api().requests();
        let looks = requests
            .iter()
            .filter(|line| line.starts_with("GET") && line.contains("/leases/"));
        looks.count()
    };
    until("it looks at the Lease twice", || attempts() >= 2).await;
    let policies = cluster.get(Kind::ResiliencePolicy, "catalog").await;
    assert!(
        policies["status"].is_null(),
        "another one writes: {policies}"
    );
    // Given up by its holder.
    cluster.apply(&lease("\"\"")).await;
    cluster
        .until(Kind::ResiliencePolicy, "catalog", |it| {
            condition(it, "Accepted").0 == "Accepted"
        })
        .await;
    plane.stop().await;
}

/// Nobody wrote status until it had expired.
#[tokio::test]
async fn whoever_leaves_gives_the_lease_up() {
    let cluster = Cluster::double().await;
    let leases = cluster.objects("coordination.k8s.io/v1", "Lease", "weir-system");
    let holder = async || {
        let lease = leases
            .get_opt("weir-control-plane")
            .await
            .expect("an answer");
        lease.map_or(Value::Null, |it| it.data["spec"]["holderIdentity"].clone())
    };
    let plane = cluster.start().await;
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while holder().await != "weir-control-plane-0" {
        assert!(tokio::time::Instant::now() < deadline, "nobody takes it");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    plane.stop().await;
    assert_eq!(holder().await, Value::Null);
}

/// A second one, beside the one that the cluster has.
async fn another(cluster: &Cluster) -> ControlPlane {
    numbered(cluster, 1).await
}

async fn numbered(cluster: &Cluster, number: usize) -> ControlPlane {
    let mut settings = cluster.settings();
    let path = |name: String| cluster.folder.path().join(name);
    settings.state = path(format!("state-{number}"));
    settings.operator_socket = Some(path(format!("operator-{number}.sock")));
    settings.trust_bundle_out = None;
    if let Where::Kubernetes(own) = &mut settings.cluster {
        own.pod = format!("weir-control-plane-{number}");
    }
    ControlPlane::start(settings).await.expect("it starts")
}

/// An operator asks one of them, and means everybody's callers: those of the others called on.
#[tokio::test]
async fn what_an_operator_holds_at_one_control_plane_holds_for_the_sidecars_of_all() {
    let cluster = Cluster::double().await;
    let first = cluster.start().await;
    let second = another(&cluster).await;
    let mut caller = subscribed(&cluster, &first).await;
    let socket = cluster.folder.path().join("operator-1.sock");
    let socket = format!("unix:{}", socket.display());
    let force = async |to: &str| {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_weir"));
        command.args(["--control-plane", &socket]);
        command.args(["breakers", "force", "boutique/catalog", to, "--for", "1m"]);
        let output = command.output().await.expect("it runs");
        assert!(output.status.success(), "{output:?}");
    };
    for (to, is_held) in [("open", true), ("auto", false)] {
        force(to).await;
        let policy = loop {
            let push = caller.next().await;
            if let Some(service) = push.services.first() {
                break String::from_utf8(service.policy_json.to_vec()).expect("JSON");
            }
        };
        assert_eq!(policy.contains("\"forced\":{"), is_held, "{to}: {policy}");
    }
    first.stop().await;
    second.stop().await;
}

/// It was told as all that there was, and a request that had gone by another's sidecars as one that had gone well.
#[tokio::test]
async fn whoever_asks_one_of_two_control_planes_is_told_of_the_other() {
    let cluster = Cluster::double().await;
    let asked = async |socket: &str, question: &[&str]| {
        let socket = cluster.folder.path().join(socket);
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_weir"));
        command.args(["--control-plane", &format!("unix:{}", socket.display())]);
        command.env("WEIR_NAMESPACE", "mesh").args(question);
        let output = command.output().await.expect("it runs");
        String::from_utf8(output.stderr).expect("text")
    };
    let first = numbered(&cluster, 0).await;
    let alone = asked("operator-0.sock", &["explain", "order-4711"]).await;
    assert!(alone.contains("no sidecar remembers"), "{alone}");
    assert!(!alone.contains("control planes"), "{alone}");

    let second = another(&cluster).await;
    for (socket, other) in [
        ("operator-0.sock", "weir-control-plane-1"),
        ("operator-1.sock", "weir-control-plane-0"),
    ] {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while !asked(socket, &["breakers"]).await.contains("asked 1 of 2") {
            assert!(tokio::time::Instant::now() < deadline, "{other} is unheard");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        for question in [
            &["breakers", "--all"][..],
            &["proxy", "status"],
            &["events", "--last", "1"],
            &["explain", "order-4711"],
        ] {
            let told = asked(socket, question).await;
            let same = format!("\n  kubectl -n mesh exec {other} -- weir --control-plane unix:");
            assert!(told.starts_with("asked 1 of 2 control planes"), "{told}");
            assert!(told.contains(&same), "{told}");
        }
        let told = asked(socket, &["explain", "order-4711"]).await;
        let unknown =
            "no sidecar of this control plane remembers order-4711: it went by those of others,";
        assert!(told.contains(unknown), "{told}");
    }
    first.stop().await;
    second.stop().await;
}

/// Of two control planes each knows its own sidecars only, and status tells of all of them. Planted bug that this finds:
/// whoever writes it counts its own.
#[tokio::test]
async fn status_counts_the_sidecars_of_every_control_plane() {
    let cluster = Cluster::double().await;
    let first = cluster.start().await;
    let second = another(&cluster).await;
    let told = |reason: &'static str, message: &'static str| {
        move |it: &Value| condition(it, "Enforced") == (reason.to_owned(), message.to_owned())
    };
    let policies = Kind::ResiliencePolicy;
    let mut prompt = subscribed(&cluster, &first).await;
    let mut late = cluster.connect(&second, "cart-0").await;
    late.subscribe(CATALOG_ADDRESS).await;
    late.next().await;
    cluster
        .until(
            policies,
            "catalog",
            told("Enforced", "acknowledged by 2 of 2 proxies"),
        )
        .await;

    cluster.apply(&policy("catalog", "3s")).await;
    prompt.next().await;
    let push = late.push().await;
    let waits = "acknowledged by 1 of 2 proxies; waiting for boutique/cart-0";
    cluster
        .until(policies, "catalog", told("PartiallyEnforced", waits))
        .await;
    late.ack(&push).await;
    cluster
        .until(
            policies,
            "catalog",
            told("Enforced", "acknowledged by 2 of 2 proxies"),
        )
        .await;
    drop(late);
    cluster
        .until(
            policies,
            "catalog",
            told("Enforced", "acknowledged by 1 of 1 proxies"),
        )
        .await;
    first.stop().await;
    second.stop().await;
}
