//! Who gets a certificate, who gets policy, and what everybody else is told.

mod world;

use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, KeyUsagePurpose, SanType};
use tonic::{Code, Status};
use weir_config::pb;
use weir_config::pb::from_proxy::Message;
use weir_config::pb::identity_client::IdentityClient;
use weir_control_plane::spiffe::SpiffeId;

use world::{Credentials, Stream, World, channel, hello, token};

async fn ask(world: &World, request: pb::CertifyRequest) -> Result<pb::CertifyResponse, Status> {
    let channel = channel(world.plane.address, &world.trust_bundle(), None)
        .await
        .expect("TLS");
    IdentityClient::new(channel)
        .certify(request)
        .await
        .map(tonic::Response::into_inner)
}

fn request() -> pb::CertifyRequest {
    with(|_| {})
}

/// A request of cart-0 in order, but for what `change` does to the CSR.
fn with(change: impl FnOnce(&mut CertificateParams)) -> pb::CertifyRequest {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::default();
    change(&mut params);
    let csr = params.serialize_request(&key).expect("a request");
    pb::CertifyRequest {
        csr: csr.der().to_vec().into(),
        token: token("cart-0"),
        pod_namespace: "boutique".to_owned(),
        pod_name: "cart-0".to_owned(),
    }
}

fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().expect("ASCII"))
}

#[tokio::test]
async fn a_sidecar_gets_a_certificate_by_its_token() {
    let world = World::new().await;
    let credentials = world.certify("cart-0").await;
    let identity = SpiffeId::of_certificate(&credentials.chain[0]).expect("an identity");
    assert_eq!(
        identity.to_string(),
        "spiffe://weir.local/ns/boutique/sa/cart"
    );
    assert_eq!(
        credentials.trust_bundle,
        world.trust_bundle(),
        "the file and the answer agree"
    );
    let fact = world.fact("CertificateIssued").await;
    assert_eq!(fact.subject, "boutique/cart-0");
    // Asking for one's own name is no mistake.
    let own = "spiffe://weir.local/ns/boutique/sa/cart";
    ask(
        &world,
        with(|params| params.subject_alt_names = vec![uri(own)]),
    )
    .await
    .expect("its own name");
}

/// Whoever may make a pod in the control plane's namespace, with its service account, was given its name: and every sidecar
/// would have taken policy and trust anchors from that pod.
#[tokio::test]
async fn no_pod_gets_the_control_planes_own_identity() {
    let world = World::new().await;
    let pod = |name: &str, account: &str| {
        world.write(
            &format!("{name}.yaml"),
            &format!(
                "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, namespace: weir-system}}, \
                 spec: {{serviceAccountName: {account}, containers: [{{name: weir-proxy, env: [{{name: WEIR_POD_NAME}}]}}]}}}}"
            ),
        );
        let tokens = world.path("tokens/weir-system");
        std::fs::create_dir_all(&tokens).expect("a folder");
        std::fs::write(tokens.join(name), token(name)).expect("a token");
        pb::CertifyRequest {
            token: token(name),
            pod_namespace: "weir-system".to_owned(),
            pod_name: name.to_owned(),
            ..request()
        }
    };
    let refused = ask(&world, pod("plane-0", "weir-control-plane")).await;
    let refused = refused.expect_err("it would be the control plane");
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused:?}");
    let told =
        "spiffe://weir.local/ns/weir-system/sa/weir-control-plane is the control plane's own";
    assert!(refused.message().contains(told), "{refused:?}");
    assert_eq!(
        world.fact("CertificateRefused").await.subject,
        "weir-system/plane-0"
    );
    ask(&world, pod("tool-0", "tool"))
        .await
        .expect("its neighbour is nobody else");
}

#[tokio::test]
async fn whoever_has_no_right_to_a_certificate_is_told_why() {
    let world = World::new().await;
    let mut damaged = request();
    let mut csr = damaged.csr.to_vec();
    *csr.last_mut().expect("bytes") ^= 1;
    damaged.csr = csr.into();
    let rsa = KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048)
        .expect("a key");
    let rsa = CertificateParams::default()
        .serialize_request(&rsa)
        .expect("a request")
        .der()
        .to_vec();
    let p521 = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P521_SHA512).expect("a key");
    let p521 = CertificateParams::default()
        .serialize_request(&p521)
        .expect("a request")
        .der()
        .to_vec();
    let own = "spiffe://weir.local/ns/boutique/sa/cart";
    let other = "spiffe://weir.local/ns/boutique/sa/checkout";
    let ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let grid = [
        (
            pb::CertifyRequest {
                token: String::new(),
                ..request()
            },
            Code::Unauthenticated,
            "not this pod's",
        ),
        (
            pb::CertifyRequest {
                token: "0".repeat(64),
                ..request()
            },
            Code::Unauthenticated,
            "not this pod's",
        ),
        (
            pb::CertifyRequest {
                token: token("catalog-0"),
                ..request()
            },
            Code::Unauthenticated,
            "not this pod's",
        ),
        (
            pb::CertifyRequest {
                pod_name: "catalog-0".into(),
                ..request()
            },
            Code::Unauthenticated,
            "not this pod's",
        ),
        (
            pb::CertifyRequest {
                pod_name: "nobody-0".into(),
                ..request()
            },
            Code::Unauthenticated,
            "no token",
        ),
        (
            pb::CertifyRequest {
                pod_namespace: "other".into(),
                ..request()
            },
            Code::Unauthenticated,
            "no token",
        ),
        (
            pb::CertifyRequest {
                pod_name: "../boutique/cart-0".into(),
                ..request()
            },
            Code::Unauthenticated,
            "names no pod",
        ),
        (
            pb::CertifyRequest {
                pod_name: "cart-0\0".into(),
                ..request()
            },
            Code::Unauthenticated,
            "names no pod",
        ),
        (
            pb::CertifyRequest {
                csr: vec![].into(),
                ..request()
            },
            Code::InvalidArgument,
            "PKCS#10",
        ),
        (
            pb::CertifyRequest {
                csr: vec![0x30; 500].into(),
                ..request()
            },
            Code::InvalidArgument,
            "PKCS#10",
        ),
        (
            pb::CertifyRequest {
                csr: vec![0; 20_000].into(),
                ..request()
            },
            Code::InvalidArgument,
            "limit",
        ),
        (damaged, Code::InvalidArgument, "not signed by its own key"),
        (
            pb::CertifyRequest {
                csr: rsa.into(),
                ..request()
            },
            Code::InvalidArgument,
            "RSA",
        ),
        (
            pb::CertifyRequest {
                csr: p521.into(),
                ..request()
            },
            Code::InvalidArgument,
            "another curve",
        ),
        (
            with(|params| params.is_ca = ca),
            Code::InvalidArgument,
            "CA certificate",
        ),
        (
            with(|params| params.key_usages = vec![KeyUsagePurpose::KeyCertSign]),
            Code::InvalidArgument,
            "CA certificate",
        ),
        (
            with(|params| params.subject_alt_names = vec![uri(other)]),
            Code::InvalidArgument,
            "its token does not",
        ),
        (
            with(|params| params.subject_alt_names = vec![uri(own), uri(other)]),
            Code::InvalidArgument,
            "its token does not",
        ),
        (
            with(|params| {
                params.subject_alt_names = vec![uri("spiffe://WEIR.local/ns/boutique/sa/cart")]
            }),
            Code::InvalidArgument,
            "its token does not",
        ),
        (
            with(|params| {
                params.subject_alt_names = vec![uri("spiffe://weir.local/ns/boutique/sa/c%61rt")]
            }),
            Code::InvalidArgument,
            "its token does not",
        ),
        (
            with(|params| {
                params.subject_alt_names =
                    vec![SanType::IpAddress("10.1.0.4".parse().expect("an address"))]
            }),
            Code::InvalidArgument,
            "its token does not",
        ),
        (
            with(|params| {
                params.subject_alt_names =
                    vec![SanType::DnsName("cart\0.evil".try_into().expect("ASCII"))]
            }),
            Code::InvalidArgument,
            "its token does not",
        ),
    ];
    let rows = grid.len();
    for (number, (request, code, reason)) in grid.into_iter().enumerate() {
        let status = ask(&world, request).await.expect_err(reason);
        assert_eq!(
            (status.code(), number),
            (code, number),
            "{}",
            status.message()
        );
        assert!(
            status.message().contains(reason),
            "row {number}: {} should say {reason}",
            status.message()
        );
    }
    // A pod whose file is not there.
    world::give_token(world.folder.path(), "ghost-0", &token("ghost-0"));
    let ghost = pb::CertifyRequest {
        token: token("ghost-0"),
        pod_name: "ghost-0".into(),
        ..request()
    };
    assert_eq!(
        ask(&world, ghost).await.expect_err("no such pod").code(),
        Code::NotFound
    );
    world
        .plane
        .journal
        .record(weir_control_plane::journal::Fact::ControlPlaneStopped {})
        .await
        .expect("flushed");
    assert_eq!(
        world.facts("CertificateRefused").len(),
        rows + 1,
        "every refusal is on record"
    );
    assert!(world.facts("CertificateIssued").is_empty());
}

#[tokio::test]
async fn whoever_guesses_tokens_is_soon_not_listened_to() {
    let world = World::new().await;
    let channel = channel(world.plane.address, &world.trust_bundle(), None)
        .await
        .expect("TLS");
    let mut client = IdentityClient::new(channel);
    let mut codes = Vec::new();
    for guess in 0..60 {
        let token = format!("{guess:064}");
        let status = client
            .certify(pb::CertifyRequest { token, ..request() })
            .await
            .expect_err("a guess");
        codes.push(status.code());
    }
    assert_eq!(codes[0], Code::Unauthenticated);
    assert_eq!(codes[59], Code::ResourceExhausted);
}

#[tokio::test]
async fn a_pod_gets_so_many_certificates_and_no_more() {
    let world = World::new().await;
    let mut refused = None;
    for _ in 0..40 {
        if let Err(status) = ask(&world, request()).await {
            refused = Some(status);
            break;
        }
    }
    assert_eq!(
        refused.expect("there is a limit").code(),
        Code::ResourceExhausted
    );
    world.certify("catalog-0").await; // others are not affected
}

#[tokio::test]
async fn policy_is_for_sidecars_with_a_certificate_of_their_own_pod() {
    let world = World::new().await;
    let bundle = world.trust_bundle();
    let address = world.plane.address;
    let cart = world.certify("cart-0").await;

    let nobody = channel(address, &bundle, None)
        .await
        .expect("TLS without a certificate is possible");
    let status = Stream::open(nobody, hello("boutique", "cart-0"))
        .await
        .err()
        .expect("no certificate, no policy");
    assert_eq!(status.code(), Code::Unauthenticated);
    assert!(
        status.message().contains("mutual TLS"),
        "{}",
        status.message()
    );

    let open = async |first: Message| {
        let channel = channel(address, &bundle, Some(&cart)).await.expect("TLS");
        Stream::open(channel, first)
            .await
            .expect("a stream")
            .end()
            .await
    };
    let status = open(hello("boutique", "catalog-0")).await;
    assert_eq!(status.code(), Code::PermissionDenied);
    assert!(
        status.message().contains("sa/catalog") && status.message().contains("sa/cart"),
        "{}",
        status.message()
    );
    assert_eq!(
        open(hello("boutique", "cart-7")).await.code(),
        Code::NotFound
    );
    assert_eq!(
        open(hello("../boutique", "cart-0")).await.code(),
        Code::InvalidArgument
    );
    let subscribe = Message::Subscribe(pb::Subscribe {
        address: "10.96.0.1:3550".into(),
    });
    assert_eq!(open(subscribe).await.code(), Code::InvalidArgument);
    let mut stream = world.connect("cart-0").await;
    stream.send(hello("boutique", "cart-0")).await;
    assert_eq!(
        stream.end().await.code(),
        Code::InvalidArgument,
        "a second Hello"
    );
    let mut stream = world.connect("cart-0").await;
    stream.subscribe("catalog:3550").await;
    assert_eq!(
        stream.end().await.code(),
        Code::InvalidArgument,
        "not an address"
    );
}

/// All pods of a service account have one identity: one of them took another's stream, and declared it draining.
#[tokio::test]
async fn a_pod_speaks_for_itself_and_not_for_another_of_its_service_account() {
    let world = World::new().await;
    let mut victim = world.connect("catalog-1").await;
    let liar = world.certify("catalog-0").await;
    let bundle = world.trust_bundle();
    let channel = channel(world.plane.address, &bundle, Some(&liar));
    let channel = channel.await.expect("TLS");
    let stream = Stream::open(channel, hello("boutique", "catalog-1")).await;
    let status = stream.expect("a stream").end().await;
    assert_eq!(status.code(), Code::PermissionDenied);
    assert!(status.message().contains("of pod catalog-0"), "{status}");
    assert!(victim.is_quiet().await, "its stream goes on");
}

#[tokio::test]
async fn a_certificate_of_somebody_else_s_authority_opens_nothing() {
    let world = World::new().await;
    let stranger = World::new().await;
    let foreign = stranger.certify("cart-0").await;
    // TLS 1.3: the client hears of it with its first read.
    let refused = match channel(world.plane.address, &world.trust_bundle(), Some(&foreign)).await {
        Err(_) => true,
        Ok(channel) => match Stream::open(channel, hello("boutique", "cart-0")).await {
            Err(_) => true,
            Ok(mut stream) => stream.end().await.code() != Code::Ok,
        },
    };
    assert!(refused, "policy went to a stranger");
    assert!(world.facts("ProxyConnected").is_empty());
    // And a sidecar of this mesh takes nothing from a control plane of another.
    let impostor = channel(stranger.plane.address, &world.trust_bundle(), None).await;
    assert!(
        impostor.is_err(),
        "a stranger was taken for the control plane"
    );
}

#[tokio::test]
async fn a_stream_ends_with_the_certificate_that_opened_it() {
    let world = World::with(world::folder(), |settings| {
        settings.leaf_lifetime = std::time::Duration::from_secs(3)
    })
    .await;
    let mut stream = world.connect("cart-0").await;
    let status = stream.end().await;
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains("expired"), "{}", status.message());
}

#[tokio::test]
async fn the_authority_rotates_without_anybody_being_cut_off() {
    let world = World::new().await;
    let old: Credentials = world.certify("cart-0").await;
    assert_eq!(old.trust_bundle.len(), 1);
    let world = world
        .restarted(|settings| settings.rotate_anchor = true)
        .await;
    assert_eq!(world.trust_bundle().len(), 2, "the file has both");
    // Signed by the old anchor, trusted still; and it is told of the new one.
    let mut stream = world.connect_as(&old, "cart-0").await;
    let push = stream.push().await;
    assert_eq!(push.trust_bundle.len(), 2);
    // New leaves are signed by the old one until everybody knows the new one.
    let fresh = world.certify("catalog-0").await;
    let channel = channel(world.plane.address, &old.trust_bundle, Some(&fresh))
        .await
        .expect("the old bundle suffices");
    Stream::open(channel, hello("boutique", "catalog-0"))
        .await
        .expect("a stream")
        .push()
        .await;
}
