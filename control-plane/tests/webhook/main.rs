//! The admission webhook over real TLS, asked as the API server asks.

mod bodies;
#[path = "../cluster/mod.rs"]
mod cluster;
#[path = "../../benches/control_plane/program.rs"]
mod program;
mod stale;
mod stopping;
mod trust;
#[path = "../world/mod.rs"]
mod world;

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http_body_util::{BodyExt, Full};
use hyper::Method;
use hyper::body::Bytes;
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use kube::api::{Patch, PatchParams};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::ServerName;
use serde_json::{Value, json};
use tokio::net::TcpSocket;
use weir_control_plane::control_plane::ControlPlane;
use weir_control_plane::injector::{InjectorSettings, NamespaceContext, Outcome, inject};

use cluster::Cluster;
use world::PATIENCE;

const NAME: &str = "weir-control-plane.weir-system.svc";

struct Webhook {
    cluster: Cluster,
    plane: ControlPlane,
}

impl Webhook {
    async fn start() -> Self {
        let cluster = Cluster::double().await;
        let plane = cluster.start().await;
        Self { cluster, plane }
    }

    async fn ask(&self, path: &str, body: impl Into<Bytes>) -> (u16, Value) {
        let answer = self.try_ask(NAME, path, body.into()).await;
        answer.expect("an answer")
    }

    async fn try_ask(&self, name: &'static str, path: &str, body: Bytes) -> Answer {
        let address = self.plane.webhook_address.expect("a webhook");
        let from = IpAddr::from([127, 0, 0, 1]);
        try_ask(&self.cluster, (from, address), name, path, body).await
    }

    /// The response to a review of `request`.
    async fn review(&self, path: &str, request: Value) -> Value {
        let review = json!({ "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request });
        let (status, answer) = self.ask(path, review.to_string()).await;
        assert_eq!(status, 200, "{answer}");
        assert_eq!(answer["kind"], "AdmissionReview");
        assert_eq!(
            answer["response"]["uid"], request["uid"],
            "the uid comes back"
        );
        answer["response"].clone()
    }
}

type Answer = Result<(u16, Value), Box<dyn std::error::Error>>;

/// As the API server asks the webhook of `cluster`; from an address, to one.
async fn try_ask(
    cluster: &Cluster,
    way: (IpAddr, SocketAddr),
    name: &'static str,
    path: &str,
    body: Bytes,
) -> Answer {
    let mut connection = Connection::open(cluster, way, name).await?;
    connection.ask(Method::POST, path, body).await
}

/// One that goes on after an answer.
struct Connection {
    sender: SendRequest<Full<Bytes>>,
    name: &'static str,
    _served: AbortOnDrop,
}

struct AbortOnDrop(tokio::task::JoinHandle<hyper::Result<()>>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Connection {
    async fn open(
        cluster: &Cluster,
        (from, to): (IpAddr, SocketAddr),
        name: &'static str,
    ) -> Result<Self, Box<dyn std::error::Error>> {
        let mut roots = RootCertStore::empty();
        for anchor in world::trust_bundle(cluster.folder.path()) {
            roots.add(anchor)?;
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::new(from, 0))?;
        let tcp = socket.connect(to).await?;
        let tls = tokio_rustls::TlsConnector::from(Arc::new(config));
        let tls = tls.connect(ServerName::try_from(name)?, tcp).await?;
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(tls)).await?;
        Ok(Self {
            sender,
            name,
            _served: AbortOnDrop(tokio::spawn(connection)),
        })
    }

    async fn ask(&mut self, method: Method, path: &str, body: Bytes) -> Answer {
        let request = hyper::Request::builder()
            .method(method)
            .uri(path)
            .header("host", self.name)
            .header("content-type", "application/json")
            .body(Full::new(body))?;
        let answer = self.sender.send_request(request);
        let answer = tokio::time::timeout(PATIENCE, answer).await??;
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await?.to_bytes();
        Ok((status, serde_json::from_slice(&body)?))
    }
}

fn creation(pod: &Value) -> Value {
    json!({
        "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
        "kind": { "group": "", "version": "v1", "kind": "Pod" },
        "operation": "CREATE", "namespace": "boutique", "object": pod,
    })
}

fn patched(pod: &Value, response: &Value) -> Value {
    let patch = STANDARD.decode(response["patch"].as_str().expect("a patch"));
    let patch: json_patch::Patch =
        serde_json::from_slice(&patch.expect("base64")).expect("a JSON patch");
    assert_eq!(response["patchType"], "JSONPatch");
    let mut pod = pod.clone();
    json_patch::patch(&mut pod, &patch).expect("it applies");
    pod
}

fn stories() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/injection");
    let entries = std::fs::read_dir(folder).expect("the fixtures' folder");
    let mut stories: Vec<PathBuf> = entries.map(|it| it.expect("an entry").path()).collect();
    stories.retain(|path| !path.to_string_lossy().ends_with(".expected.yaml"));
    stories.sort();
    assert!(stories.len() >= 15, "the fixtures are gone");
    stories
}

/// Each fixture of the injector, through admission: the patch applied is what `weir inject` writes, and a second
/// pass changes nothing.
#[tokio::test]
async fn every_story_is_injected_as_on_the_command_line_and_only_once() {
    let webhook = Webhook::start().await;
    let (mut injected, mut refused, mut left) = (0, 0, 0);
    for (number, story) in stories().into_iter().enumerate() {
        let text = std::fs::read_to_string(&story).expect("a fixture");
        let mut documents: Vec<Value> = serde_saphyr::from_multiple(&text).expect("YAML");
        let pod = documents.pop().expect("a pod");
        let context = documents.pop().map(|it| NamespaceContext::from_object(&it));
        let mut context = context.unwrap_or_else(|| NamespaceContext::enabled("boutique"));
        // A namespace of its own, so that one story's labels are not another's.
        context.name = format!("story-{number}");
        let namespace = json!({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": { "name": context.name, "labels": context.labels, "annotations": context.annotations },
        });
        webhook.cluster.apply(&namespace.to_string()).await;
        let mut request = creation(&pod);
        request["namespace"] = json!(context.name);
        let response = webhook.review("/inject", request.clone()).await;
        match inject(&pod, &context, &InjectorSettings::default()) {
            Ok(Outcome::Injected(expected)) => {
                assert_eq!(response["allowed"], true, "{}", story.display());
                let found = patched(&pod, &response);
                assert_eq!(found, expected, "{}", story.display());
                request["object"] = found;
                let again = webhook.review("/inject", request).await;
                assert_eq!(again["allowed"], true);
                assert!(again["patch"].is_null(), "{}: {again}", story.display());
                injected += 1;
            }
            Ok(Outcome::Skipped(_)) => {
                assert_eq!(response["allowed"], true, "{}", story.display());
                assert!(response["patch"].is_null(), "{}", story.display());
                left += 1;
            }
            Err(refusal) => {
                assert_eq!(response["allowed"], false, "{}", story.display());
                let message = response["status"]["message"].as_str().expect("why");
                assert!(message.contains(&refusal.to_string()), "{message}");
                refused += 1;
            }
        }
    }
    assert!(
        injected >= 8 && refused >= 2 && left >= 4,
        "{injected} {refused} {left}"
    );
    webhook.plane.stop().await;
}

#[tokio::test]
async fn a_pod_of_a_namespace_that_is_not_known_is_refused_rather_than_left_out() {
    let webhook = Webhook::start().await;
    let pod = json!({ "metadata": { "generateName": "cart-" }, "spec": { "containers": [{ "name": "cart" }] } });
    let mut request = creation(&pod);
    request["namespace"] = json!("just-made");
    let response = webhook.review("/inject", request.clone()).await;
    assert_eq!(response["allowed"], false);
    let message = response["status"]["message"].as_str().expect("why");
    for words in ["just-made", "no such namespace"] {
        assert!(message.contains(words), "{message}");
    }

    let namespaces = webhook.cluster.objects("v1", "Namespace", "");
    let namespace = json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": { "name": "just-made", "labels": { "weir.dev/inject": "enabled" } },
    });
    let (params, patch) = (PatchParams::apply("test"), Patch::Apply(&namespace));
    let (response, made) = tokio::join!(
        webhook.review("/inject", request),
        namespaces.patch("just-made", &params, &patch),
    );
    made.expect("made");
    assert_eq!(response["allowed"], true, "it is waited for: {response}");
    assert!(response["patch"].is_string());
    webhook.plane.stop().await;
}

/// A mistyped one on the namespace went to each of its pods, and nobody was told.
#[tokio::test]
async fn whoever_makes_a_pod_is_told_whose_annotations_mean_nothing() {
    let webhook = Webhook::start().await;
    let namespace = json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": {
            "name": "typos", "labels": { "weir.dev/inject": "enabled" },
            "annotations": { "config.weir.dev/drain-secs": "9", "config.weir.dev/drain-seconds": "9" },
        },
    });
    webhook.cluster.apply(&namespace.to_string()).await;
    let annotations = json!({ "config.weir.dev/log-lvl": "debug" });
    let pod = json!({
        "metadata": { "generateName": "cart-", "annotations": annotations },
        "spec": { "containers": [{ "name": "cart" }] },
    });
    let mut request = creation(&pod);
    request["namespace"] = json!("typos");
    let response = webhook.review("/inject", request).await;
    let warnings = response["warnings"].as_array().expect("warnings");
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    for (warning, whose) in warnings
        .iter()
        .zip(["log-lvl of the pod is", "drain-secs of namespace typos is"])
    {
        let warning = warning.as_str().expect("text");
        assert!(warning.contains(whose), "{warning}");
    }
    let injected = &patched(&pod, &response)["metadata"]["annotations"];
    assert_eq!(injected["config.weir.dev/drain-seconds"], "9");
    assert_eq!(
        injected["config.weir.dev/drain-secs"],
        Value::Null,
        "it would be the pod's own word"
    );
    webhook.plane.stop().await;
}

fn policy(spec: Value) -> Value {
    json!({
        "apiVersion": "weir.dev/v1alpha1", "kind": "ResiliencePolicy",
        "metadata": { "name": "cart", "namespace": "boutique", "uid": "u", "generation": 1, "managedFields": [] },
        "spec": spec,
    })
}

fn of_policy(operation: &str, old: Value, new: Value) -> Value {
    json!({
        "uid": "1", "kind": { "group": "weir.dev", "version": "v1alpha1", "kind": "ResiliencePolicy" },
        "operation": operation, "namespace": "boutique", "oldObject": old, "object": new,
    })
}

#[tokio::test]
async fn a_policy_is_validated_in_the_words_of_weir_validate() {
    let webhook = Webhook::start().await;
    let targets = json!([{ "kind": "Service", "name": "cart" }]);
    let good = policy(json!({ "targetRefs": targets, "outbound": { "deadline": "2s" } }));
    let bad = policy(
        json!({ "targetRefs": targets, "outbound": { "deadline": "2 seconds", "retrys": {} } }),
    );
    let empty = policy(json!({ "targetRefs": targets }));
    let review = async |request| webhook.review("/validate", request).await;

    let response = review(of_policy("CREATE", Value::Null, good.clone())).await;
    assert_eq!(
        (&response["allowed"], &response["warnings"]),
        (&json!(true), &Value::Null)
    );

    let response = review(of_policy("CREATE", Value::Null, bad.clone())).await;
    assert_eq!(response["allowed"], false);
    let message = response["status"]["message"].as_str().expect("why");
    for words in ["write it as 2s", "retrys", "spec.outbound.deadline", "^^^^"] {
        assert!(message.contains(words), "{words}: {message}");
    }
    assert!(!message.contains("managedFields"), "{message}");

    let response = review(of_policy("UPDATE", good.clone(), bad.clone())).await;
    assert_eq!(response["allowed"], false);

    // One that got past an older version may still be labelled, and let go of.
    let mut labelled = bad.clone();
    labelled["metadata"]["labels"] = json!({ "team": "a" });
    let response = review(of_policy("UPDATE", bad.clone(), labelled)).await;
    assert_eq!(response["allowed"], true, "{response}");
    let response = review(of_policy("DELETE", bad, Value::Null)).await;
    assert_eq!(response["allowed"], true, "{response}");

    let response = review(of_policy("CREATE", Value::Null, empty)).await;
    assert_eq!(response["allowed"], true);
    let warning = response["warnings"][0].as_str().expect("a warning");
    assert!(warning.contains("changes nothing"), "{warning}");
    webhook.plane.stop().await;
}

/// security.md, B-7: what is no review, too large, or for another name.
#[tokio::test]
async fn nonsense_is_answered_and_never_admitted() {
    let webhook = Webhook::start().await;
    for (body, part) in [
        ("", "not JSON"),
        ("{", "not JSON"),
        ("[]", "AdmissionReview"),
        (
            "{\"kind\":\"AdmissionReview\",\"apiVersion\":\"admission.k8s.io/v1beta1\"}",
            "v1beta1",
        ),
        (
            "{\"kind\":\"AdmissionReview\",\"apiVersion\":\"admission.k8s.io/v1\"}",
            "uid",
        ),
    ] {
        let (status, answer) = webhook.ask("/inject", body).await;
        assert_eq!(status, 400, "{body}");
        assert!(
            answer["message"].as_str().expect("why").contains(part),
            "{body}: {answer}"
        );
    }
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(webhook.ask("/validate", deep).await.0, 400);
    let review = |object: &str| {
        let request = creation(&Value::Null).to_string().replace("null", object);
        format!(
            "{{\"kind\":\"AdmissionReview\",\"apiVersion\":\"admission.k8s.io/v1\",\"request\":{request}}}"
        )
    };
    for (object, part) in [
        (format!("{}{}", "[".repeat(110), "]".repeat(110)), "levels"),
        (format!("[{}0]", "0,".repeat(50_000)), "values"),
    ] {
        let (status, answer) = webhook.ask("/inject", review(&object)).await;
        let response = &answer["response"];
        assert_eq!((status, &response["allowed"]), (200, &json!(false)));
        let why = response["status"]["message"].as_str().expect("why");
        assert!(why.contains(part), "{why}");
    }
    let response = webhook
        .review("/inject", creation(&json!({ "spec": 7 })))
        .await;
    assert_eq!(response["allowed"], false);
    assert_eq!(webhook.ask("/elsewhere", "").await.0, 404);

    let large = format!("\"{}\"", "x".repeat(9 * 1024 * 1024));
    // It may be cut off while it is still being sent.
    let answer = webhook.try_ask(NAME, "/inject", large.into()).await;
    assert!(
        answer.as_ref().map_or(true, |(status, _)| *status == 413),
        "{answer:?}"
    );

    let elsewhere = webhook.try_ask("weir-control-plane.other.svc", "/inject", Bytes::new());
    assert!(elsewhere.await.is_err(), "a certificate for any name");
    webhook.plane.stop().await;
}
