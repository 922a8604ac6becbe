//! Who a sidecar is, and by whose signature.

use std::time::Duration;

use weir_control_plane::control_plane::ControlPlane;

use super::cluster::{Cluster, until};

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
