//! Who a sidecar is, and by whose signature.

use std::time::Duration;

use rcgen::{CertificateParams, KeyPair};
use weir_config::pb;
use weir_config::pb::identity_client::IdentityClient;
use weir_control_plane::control_plane::ControlPlane;

use super::cluster::{Cluster, until};
use super::world;

/// Who a pod is, its service account's token says, reviewed by the API server.
pub(super) async fn a_sidecar_is_who_its_token_says(cluster: &Cluster) {
    let plane = cluster.start().await;
    let token = cluster.token("cart-0", &["weir.dev"]).await;
    let credentials = cluster
        .certify(plane.address, "cart-0", token.clone())
        .await;
    let credentials = credentials.expect("a certificate");
    let identity = weir_control_plane::spiffe::SpiffeId::of_certificate(&credentials.chain[0]);
    assert_eq!(
        identity.expect("an identity").to_string(),
        "spiffe://weir.local/ns/boutique/sa/cart"
    );
    let refused = cluster.certify(plane.address, "catalog-0", token).await;
    let refused = refused.expect_err("another pod's token");
    assert!(refused.message().contains("another pod"), "{refused:?}");
    for audiences in [&["vault"][..], &["weir.dev", "vault"]] {
        let token = cluster.token("cart-0", audiences).await;
        let refused = cluster.certify(plane.address, "cart-0", token).await;
        let refused = refused.expect_err("a token that others accept, too");
        assert_eq!(
            refused.code(),
            tonic::Code::Unauthenticated,
            "{audiences:?}"
        );
    }
    let forged = "e30.e30.c2ln".to_owned();
    let refused = cluster.certify(plane.address, "cart-0", forged).await;
    assert!(refused.is_err(), "a forged token");
    plane.stop().await;
}

#[tokio::test]
async fn a_sidecar_is_who_its_token_says_double() {
    a_sidecar_is_who_its_token_says(&Cluster::double().await).await;
}

fn reviews(cluster: &Cluster) -> usize {
    let requests = cluster.api().requests();
    let reviews = requests.iter().filter(|it| it.ends_with("/tokenreviews"));
    reviews.count()
}

/// A pod with a token of its own had one reviewed for every refusal, as often as it asked.
#[tokio::test]
async fn whoever_has_had_enough_certificates_costs_no_more_reviews() {
    let cluster = Cluster::double().await;
    let plane = cluster.start().await;
    let token = cluster.token("cart-0", &["weir.dev"]).await;
    let mut certificates = 0;
    for _ in 0..60 {
        let certified = cluster.certify(plane.address, "cart-0", token.clone());
        match certified.await {
            Ok(_) => certificates += 1,
            Err(refused) => assert_eq!(refused.code(), tonic::Code::ResourceExhausted),
        }
    }
    let reviews = reviews(&cluster);
    assert_eq!(reviews, certificates, "whoever is refused is not reviewed");
    assert!((20..=30).contains(&reviews), "{reviews}");
    // Its name is anybody's to say: what another pod asks for in it is not counted as its own.
    let other = cluster.certify(plane.address, "catalog-0", token).await;
    let refused = other.expect_err("another pod's token");
    assert!(refused.message().contains("another pod"), "{refused:?}");
    plane.stop().await;
}

/// Guesses that came together were all reviewed before the first was held against anybody.
#[tokio::test]
async fn guesses_that_come_together_are_reviewed_a_few_at_a_time() {
    const CONNECTIONS: usize = 16;
    const GUESSES_OF_ONE: usize = 15; // of the sixteen streams that a connection has
    let cluster = Cluster::double().await;
    let plane = cluster.start().await;
    let key = KeyPair::generate().expect("a key");
    let csr = CertificateParams::default().serialize_request(&key);
    let guess = pb::CertifyRequest {
        csr: csr.expect("a request").der().to_vec().into(),
        token: "e30.e30.c2ln".to_owned(),
        pod_namespace: "boutique".to_owned(),
        pod_name: "cart-0".to_owned(),
    };
    let bundle = world::trust_bundle(cluster.folder.path());
    let mut channels = Vec::new();
    for _ in 0..CONNECTIONS {
        let channel = world::channel(plane.address, &bundle, None).await;
        channels.push(channel.expect("TLS"));
    }
    cluster.api().set_latency(Duration::from_secs(1));
    let guesses = channels.iter().cycle().take(CONNECTIONS * GUESSES_OF_ONE);
    let guesses = guesses.map(|channel| {
        let (mut client, guess) = (IdentityClient::new(channel.clone()), guess.clone());
        async move { client.certify(guess).await }
    });
    for answer in futures_util::future::join_all(guesses).await {
        answer.expect_err("a guess");
    }
    cluster.api().set_latency(Duration::ZERO);
    let (at_once, all) = (cluster.api().reviewing_max(), reviews(&cluster));
    assert!(at_once <= 16, "{at_once} at a time");
    assert!((30..=70).contains(&all), "{all} of 240");
    plane.stop().await;
}

/// A second control plane finds the first one's CA, and both follow when it is rotated: no sidecar starts again.
#[tokio::test]
async fn control_planes_share_a_ca_and_rotate_it_without_a_restart() {
    let cluster = Cluster::double().await;
    let start = async |number: usize| {
        let mut settings = cluster.settings();
        settings.leaf_lifetime = Duration::from_secs(8); // looked after every four
        if number > 0 {
            settings.state = cluster.folder.path().join(format!("state-{number}"));
            settings.trust_bundle_out = None;
        }
        ControlPlane::start(settings).await.expect("it starts")
    };
    let (first, second) = (start(0).await, start(1).await);
    assert_eq!(first.mesh.trust_bundle().len(), 1);
    assert_eq!(first.mesh.trust_bundle(), second.mesh.trust_bundle());

    let secrets = cluster.objects("v1", "Secret", "weir-system");
    let asked =
        serde_json::json!({ "metadata": { "annotations": { "weir.dev/rotate-ca": "now" } } });
    let merge = kube::api::Patch::Merge(&asked);
    let params = kube::api::PatchParams::default();
    let patched = secrets.patch("weir-ca", &params, &merge).await;
    patched.expect("annotated");
    let mut stream = cluster.connect(&first, "frontend-0").await;
    stream.until(|stream| stream.trust_bundle == 2).await;
    until("both trust the new anchor", || {
        let (first, second) = (first.mesh.trust_bundle(), second.mesh.trust_bundle());
        first.len() == 2 && first == second
    })
    .await;
    let secret = secrets.get("weir-ca").await.expect("it is there");
    assert_eq!(
        secret.data["data"].as_object().map(serde_json::Map::len),
        Some(2)
    );
    assert!(
        secret.metadata.annotations.is_none_or(|it| it.is_empty()),
        "asked once, done once"
    );
    first.stop().await;
    second.stop().await;
}

/// A Secret that somebody made first, to keep it out of a backup or in an order of his own, ended every start in a panic.
#[tokio::test]
async fn an_empty_secret_gets_the_first_anchor() {
    let cluster = Cluster::double().await;
    let empty = "apiVersion: v1\nkind: Secret\ntype: Opaque\nmetadata: {name: weir-ca, namespace: weir-system, labels: {team: mesh}}\n";
    cluster.apply(empty).await;
    let mut other = cluster.settings();
    other.state = cluster.folder.path().join("state-1");
    other.trust_bundle_out = None;
    // Both find it empty: one of them is too late, and reads again.
    let (first, second) = tokio::join!(cluster.start(), ControlPlane::start(other));
    let second = second.expect("it starts");
    assert_eq!(first.mesh.trust_bundle().len(), 1);
    assert_eq!(first.mesh.trust_bundle(), second.mesh.trust_bundle());
    cluster.connect(&first, "cart-0").await;
    let secret = cluster.objects("v1", "Secret", "weir-system");
    let secret = secret.get("weir-ca").await.expect("it is there");
    let keys = secret.data["data"].as_object().expect("data").keys();
    assert_eq!(keys.collect::<Vec<_>>(), ["0001.pem"]);
    assert_eq!(
        secret.data["type"], "Opaque",
        "it is the one that was found"
    );
    assert_eq!(secret.metadata.labels.expect("labels")["team"], "mesh");
    first.stop().await;
    second.stop().await;
}

/// With the first of two removed, the next was written over the second: the one that signs, on which all rests.
#[tokio::test]
async fn a_successor_is_not_written_over_an_anchor_when_an_older_one_was_removed() {
    let cluster = Cluster::double().await;
    let secrets = cluster.objects("v1", "Secret", "weir-system");
    let start = async |state: &str| {
        let mut settings = cluster.settings();
        settings.state = cluster.folder.path().join(state);
        settings.leaf_lifetime = Duration::from_secs(2); // looked after every second
        ControlPlane::start(settings).await.expect("it starts")
    };
    let patch = async |patch: serde_json::Value| {
        let merge = kube::api::Patch::Merge(&patch);
        let params = kube::api::PatchParams::default();
        let patched = secrets.patch("weir-ca", &params, &merge).await;
        patched.expect("patched")
    };
    let rotated = async |plane: &ControlPlane, anchors: usize| {
        let asked =
            serde_json::json!({ "metadata": { "annotations": { "weir.dev/rotate-ca": "now" } } });
        patch(asked).await;
        until("there is another anchor", || {
            plane.mesh.trust_bundle().len() == anchors
        })
        .await;
    };
    let plane = start("state-0").await;
    rotated(&plane, 2).await;
    plane.stop().await;
    let before = patch(serde_json::json!({ "data": { "0001.pem": null } })).await;
    let plane = start("state-1").await;
    rotated(&plane, 2).await;
    plane.stop().await;
    let after = secrets.get("weir-ca").await.expect("it is there");
    let (before, after) = (&before.data["data"], &after.data["data"]);
    assert_eq!(after["0002.pem"], before["0002.pem"]);
    let keys = after.as_object().expect("data").keys();
    assert_eq!(keys.collect::<Vec<_>>(), ["0002.pem", "0003.pem"]);
}

/// A CA that cannot be read must never become a new one.
#[tokio::test]
async fn a_ca_that_cannot_be_read_is_an_error_and_stays() {
    let cluster = Cluster::double().await;
    let broken = "apiVersion: v1\nkind: Secret\nmetadata: {name: weir-ca, namespace: weir-system}\ndata: {0001.pem: bm9uc2Vuc2U=}\n";
    cluster.apply(broken).await;
    let error = ControlPlane::start(cluster.settings()).await.err();
    let error = error.expect("it does not start").to_string();
    assert!(error.contains("anchor of the CA cannot be read"), "{error}");
    let secret = cluster
        .objects("v1", "Secret", "weir-system")
        .get("weir-ca")
        .await;
    assert_eq!(
        secret.expect("it is there").data["data"]["0001.pem"],
        "bm9uc2Vuc2U="
    );
}
