//! The control plane on the Kubernetes API: what it reads, what it survives, what it writes.
//!
//! The stories run on an API server in this process, which also misbehaves on demand. Those that need no
//! misbehaviour run on a real one, too, where `KUBE_APISERVER` and `ETCD` say where one is.

mod admission;
#[path = "../cluster/mod.rs"]
mod cluster;
mod definitions;
mod identity;
mod oddities;
mod replicas;
mod routes;
mod source;
mod status;
mod unreadable;
#[path = "../world/mod.rs"]
mod world;

use weir_config::resource::ObjectName;
use weir_config::snapshot;
use weir_control_plane::control_plane::ControlPlane;

use cluster::Cluster;
use world::Stream;

const CATALOG: &str = "boutique/catalog:3550";
const CATALOG_ADDRESS: &str = "10.96.0.101:3550";

fn pod(name: &str) -> ObjectName {
    ObjectName::new("boutique", name)
}

/// The deadline that `push` brings.
fn deadline_ms(push: &weir_config::pb::ToProxy) -> u128 {
    let policy: snapshot::Service =
        serde_json::from_slice(&push.services[0].policy_json).expect("a policy");
    policy.outbound.deadline.expect("a deadline").as_millis()
}

async fn subscribed(cluster: &Cluster, plane: &ControlPlane) -> Stream {
    let mut stream = cluster.connect(plane, "frontend-0").await;
    stream.subscribe(CATALOG_ADDRESS).await;
    let push = stream.next().await;
    assert_eq!(deadline_ms(&push), 2000);
    stream
}

/// Definitions of the Gateway API's kinds, which other projects install.
fn gateway_api() -> String {
    let text = include_str!("gateway-api.yaml");
    // The two kinds of routes differ in what their rules say, which is not looked at here.
    let (http, _) = text.split_once("\n---\n").expect("two documents");
    let grpc = http
        .replace("HTTPRoute", "GRPCRoute")
        .replace("httproute", "grpcroute");
    format!("{text}---\n{grpc}")
}

#[tokio::test]
#[ignore = "needs a real API server: KUBE_APISERVER and ETCD say where the programs are, see tests/kubernetes/README.md"]
async fn on_a_real_api_server() {
    let cluster = Cluster::real(cluster::real::Real::start().await).await;
    cluster.install_kinds().await;
    cluster.furnish().await;
    source::what_the_api_says_holds_in_a_sidecar(&cluster).await;
    cluster.furnish().await;
    source::a_malformed_policy_is_refused_alone(&cluster).await;
    cluster.furnish().await;
    identity::a_sidecar_is_who_its_token_says(&cluster).await;
    cluster.furnish().await;
    status::the_status_follows_the_sidecars(&cluster).await;
    cluster.furnish().await;
    admission::the_api_server_asks_the_webhook(&cluster).await;
}

/// With the definitions that people have: ours from the chart, and the Gateway API.
#[tokio::test]
#[ignore = "needs a real API server: KUBE_APISERVER and ETCD say where the programs are, see tests/kubernetes/README.md"]
async fn on_a_real_api_server_with_real_definitions() {
    let cluster = Cluster::real(cluster::real::Real::start().await).await;
    cluster.install(&definitions::definitions()).await;
    cluster.furnish().await;
    let install = async || cluster.install(&gateway_api()).await;
    let remove = async || {
        let definitions =
            cluster.objects("apiextensions.k8s.io/v1", "CustomResourceDefinition", "");
        let routes = "httproutes.gateway.networking.k8s.io";
        let now = kube::api::DeleteParams::default();
        definitions.delete(routes, &now).await.expect("deleted");
        let deadline = tokio::time::Instant::now() + world::PATIENCE;
        while definitions
            .get_opt(routes)
            .await
            .expect("an answer")
            .is_some()
        {
            assert!(tokio::time::Instant::now() < deadline, "it stays");
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    source::the_gateway_api_comes_and_goes(&cluster, install, remove).await;
    install().await;
    cluster.furnish().await;
    definitions::what_weir_validate_refuses_is_refused_in_the_same_words(&cluster).await;
    oddities::what_is_odd_is_judged_alike(&cluster).await;
    status::every_kind_says_how_far_it_has_come(&cluster).await;
    cluster.furnish().await;
    routes::a_route_says_in_its_status_what_becomes_of_it(&cluster).await;
    cluster.furnish().await;
    source::what_the_api_says_holds_in_a_sidecar(&cluster).await;
}
