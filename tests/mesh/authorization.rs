//! Who may call whom: enforced by the sidecar of whoever is called, by what mutual TLS proves.

use std::time::Instant;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http1::SendRequest;
use hyper::{Request, Response};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use crate::grpc;
use crate::world::{PATIENCE, World, eventually, hop, http1_over, http2_over, whole};

/// Only the caller may call, and nobody what is below /status.
fn policies(mode: &str) -> String {
    format!(
        "
apiVersion: weir.dev/v1alpha1
kind: AuthorizationPolicy
metadata: {{name: only-caller, namespace: tests}}
spec:
  targetRefs: [{{kind: Service, name: server}}]
  mode: {mode}
  rules: [{{from: [{{identity: ns/tests/sa/caller}}]}}]
---
apiVersion: weir.dev/v1alpha1
kind: AuthorizationPolicy
metadata: {{name: no-status, namespace: tests}}
spec:
  targetRefs: [{{kind: Service, name: server, sectionName: http-web}}]
  mode: {mode}
  action: Deny
  rules: [{{to: [{{http: {{pathPrefix: /status}}}}]}}]
"
    )
}

async fn get(sender: &mut SendRequest<Full<Bytes>>, path: &str) -> Response<String> {
    let request = Request::get(path).header("host", "server");
    let request = request.body(Full::default()).expect("a request");
    sender.ready().await.expect("the connection is kept");
    whole(sender.send_request(request).await.expect("an answer")).await
}

/// Until the same connection is answered otherwise.
async fn until(sender: &mut SendRequest<Full<Bytes>>, status: u16) -> Response<String> {
    let begun = Instant::now();
    loop {
        let answer = get(sender, "/").await;
        if answer.status() == status {
            return answer;
        }
        assert!(begun.elapsed() < PATIENCE, "still {}", answer.status());
    }
}

async fn grpc_status(world: &World, from: &str) -> Option<String> {
    let mut sender = http2_over(world.dial_from(Some(from), "server:9090")).await;
    let message = Full::new(grpc::message(b"x"));
    let answer = sender.send_request(grpc::call("Echo", message)).await;
    let answer = answer.expect("an answer");
    assert_eq!(answer.status(), 200, "gRPC has its own word for it");
    let status = answer.headers().get("grpc-status")?;
    Some(status.to_str().expect("a number").to_owned())
}

/// What comes back of what is sent to a port of which nobody knows the protocol.
async fn echo(world: &World, from: &str) -> Vec<u8> {
    let mut stream = world.dial_from(Some(from), "server:7000");
    let mut back = vec![0; 5];
    let exchanged = async {
        stream.write_all(b"hello").await?;
        stream.read_exact(&mut back).await
    };
    match exchanged.await {
        Ok(_) => back,
        Err(_) => Vec::new(),
    }
}

/// Planted bugs that this finds: identity by namespace of the address, a policy that holds for new connections only, paths
/// compared as they come.
#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_call_is_denied_in_its_own_protocol_on_open_connections_too() {
    let world = World::with(1, "", &hop("other"));
    let mut other = http1_over(world.dial_from(Some("other"), "server:80")).await;
    assert_eq!(
        get(&mut other, "/").await.status(),
        200,
        "nobody says who may"
    );
    assert_eq!(
        grpc_status(&world, "other").await,
        None,
        "it comes in the trailers"
    );
    assert_eq!(echo(&world, "other").await, b"hello");

    world.write_policy(&policies("Enforce"));
    let denied = until(&mut other, 403).await;
    assert_eq!(denied.headers()["weir-proxy-error"], "permission-denied");
    assert_eq!(grpc_status(&world, "other").await.as_deref(), Some("7"));
    assert_eq!(echo(&world, "other").await, b"");

    assert_eq!(grpc_status(&world, "caller").await, None);
    assert_eq!(echo(&world, "caller").await, b"hello");
    for (path, status) in [
        ("/", 200),
        ("/statusquo", 200),
        ("/status/200", 403),
        ("/%73tatus/200", 403),
        ("/x//status/200", 403),
        ("/x/..;/status/200", 403),
        ("/x/%2e%2e/status/200", 403),
        ("/x%2Fstatus/200", 403),
    ] {
        assert_eq!(
            world.get("server:80", path).await.status(),
            status,
            "{path}"
        );
    }

    let metrics = world.metrics("server");
    let nobody = [("policy", ""), ("reason", "allowed-by-nobody")];
    assert!(metrics.sum("weir_denied_total", &nobody) >= 3.0);
    let by_rule = [("policy", "tests/no-status"), ("reason", "denied-by-rule")];
    assert!(metrics.sum("weir_denied_total", &by_rule) >= 2.0);
    let unclear = [("policy", "tests/no-status"), ("reason", "cannot-decide")];
    assert!(metrics.sum("weir_denied_total", &unclear) >= 4.0);
    let reset = [("direction", "inbound"), ("reason", "permission-denied")];
    assert!(metrics.sum("weir_rejected_connections_total", &reset) >= 1.0);

    world.write_policy(&policies("Audit"));
    until(&mut other, 200).await;
    assert_eq!(world.get("server:80", "/status/200").await.status(), 200);
    let metrics = world.metrics("server");
    assert!(metrics.sum("weir_would_deny_total", &nobody) >= 1.0);
    assert!(metrics.sum("weir_would_deny_total", &by_rule) >= 1.0);
}

/// Planted bugs that this finds: the policy of the account is nobody's; it is everybody's.
#[tokio::test(flavor = "multi_thread")]
async fn a_policy_of_a_service_account_holds_on_all_ports_of_who_runs_as_it() {
    let world = World::with(1, "", &hop("other"));
    let mut other = http1_over(world.dial_from(Some("other"), "server:80")).await;
    assert_eq!(get(&mut other, "/").await.status(), 200);
    let of_account = |account: &str| {
        format!(
            "
apiVersion: weir.dev/v1alpha1
kind: AuthorizationPolicy
metadata: {{name: only-caller, namespace: tests}}
spec:
  targetRefs: [{{kind: ServiceAccount, name: {account}}}]
  rules: [{{from: [{{identity: ns/tests/sa/caller}}]}}]
"
        )
    };
    world.write_policy(&of_account("server"));
    until(&mut other, 403).await;
    assert_eq!(grpc_status(&world, "other").await.as_deref(), Some("7"));
    assert_eq!(echo(&world, "other").await, b"");
    assert_eq!(grpc_status(&world, "caller").await, None);
    assert_eq!(echo(&world, "caller").await, b"hello");

    world.write_policy(&of_account("other"));
    until(&mut other, 200).await;
}

/// A connection from `from` on which bytes come back as they are: to the opaque port, or by an upgrade.
async fn opened(world: &World, from: &str, upgrade: bool) -> TcpStream {
    if !upgrade {
        return world.dial_from(Some(from), "server:7000");
    }
    let mut stream = world.dial_from(Some(from), "server:80");
    let head = "GET / HTTP/1.1\r\nhost: server\r\nconnection: upgrade\r\nupgrade: lab-echo\r\n\r\n";
    stream.write_all(head.as_bytes()).await.expect("it is sent");
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        let byte = tokio::time::timeout(PATIENCE, stream.read_u8()).await;
        answer.push(byte.expect("in time").expect("an answer"));
    }
    assert!(answer.starts_with(b"HTTP/1.1 101 "), "{answer:?}");
    stream
}

/// Whether bytes still come back.
async fn is_open(stream: &mut TcpStream) -> bool {
    let exchanged = async {
        stream.write_all(b"hello").await?;
        stream.read_exact(&mut [0; 5]).await
    };
    let exchanged = tokio::time::timeout(PATIENCE, exchanged).await;
    exchanged.expect("an answer or an end").is_ok()
}

/// Planted bugs that this finds: asking for the right once, when a connection is opened; cutting everybody; an audit that
/// acts.
#[tokio::test(flavor = "multi_thread")]
async fn a_right_that_is_taken_away_ends_connections_on_which_nobody_asks_again() {
    let world = World::with(1, "", &hop("other"));
    let mut open = Vec::new();
    for from in ["other", "caller"] {
        for upgrade in [false, true] {
            let mut stream = opened(&world, from, upgrade).await;
            assert!(is_open(&mut stream).await, "{from} {upgrade}");
            open.push((from, stream));
        }
    }
    let counted = |name: &str, more: &[(&str, &str)]| world.metrics("server").sum(name, more);

    world.write_policy(&policies("Audit"));
    for (service, carries) in [
        ("tests/server:7000", "opaque"),
        ("tests/server:80", "upgraded"),
    ] {
        eventually(&format!("{carries} connections are asked about"), || {
            counted("weir_would_deny_total", &[("service", service)]) >= 1.0
        })
        .await;
    }
    for (from, stream) in &mut open {
        assert!(is_open(stream).await, "an audit has cut {from}'s");
    }

    world.write_policy(&policies("Enforce"));
    for (service, carries) in [
        ("tests/server:7000", "opaque"),
        ("tests/server:80", "upgraded"),
    ] {
        let labels = [("service", service), ("carries", carries)];
        eventually(&format!("the {carries} one is cut"), || {
            counted("weir_revoked_connections_total", &labels) == 1.0
        })
        .await;
    }
    for (from, stream) in &mut open {
        assert_eq!(is_open(stream).await, *from == "caller", "{from}'s");
    }
}

/// A gRPC stream on which messages travel both ways, and its first message back.
async fn streaming(world: &World, from: &str) -> (mpsc::Sender<Bytes>, Incoming) {
    let (frames, feed) = grpc::fed();
    let mut sender = http2_over(world.dial_from(Some(from), "server:9090")).await;
    feed.send(grpc::message(b"x")).await.expect("it is taken");
    let answer = sender.send_request(grpc::call("Echo", grpc::streaming(frames)));
    let answer = tokio::time::timeout(PATIENCE, answer).await;
    let mut body = answer.expect("in time").expect("an answer").into_body();
    assert!(said(&mut body).await.is_data());
    (feed, body)
}

async fn said(body: &mut Incoming) -> Frame<Bytes> {
    let frame = tokio::time::timeout(PATIENCE, body.frame()).await;
    frame.expect("in time").expect("no end").expect("no error")
}

/// Planted bugs that this finds: asking for the right once, when a stream begins; cutting everybody; an audit that acts; an
/// end that looks like the app's own.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_open_ends_with_the_right_to_it_and_says_so() {
    let world = World::with(1, "", &hop("other"));
    let (talks, mut other) = streaming(&world, "other").await;
    let (feed, mut caller) = streaming(&world, "caller").await;
    let service = [("service", "tests/server:9090")];

    world.write_policy(&policies("Audit"));
    eventually("streams are asked about", || {
        let would = world
            .metrics("server")
            .sum("weir_would_deny_total", &service);
        would >= 1.0
    })
    .await;
    talks.send(grpc::message(b"y")).await.expect("it is taken");
    assert!(said(&mut other).await.is_data(), "an audit has cut it");

    world.write_policy(&policies("Enforce"));
    let end = said(&mut other).await.into_trailers().expect("trailers");
    assert_eq!(end["grpc-status"], "7");
    let counted = world
        .metrics("server")
        .sum("weir_revoked_calls_total", &service);
    assert_eq!(counted, 1.0);
    feed.send(grpc::message(b"y")).await.expect("it is taken");
    assert!(said(&mut caller).await.is_data(), "whoever may goes on");
    drop(feed);
    let end = said(&mut caller).await.into_trailers().expect("trailers");
    assert_eq!(end["grpc-status"], "0");
}
