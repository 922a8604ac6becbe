//! A sidecar whose container may use so much memory and no more.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::{HeaderMap, Response};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::grpc::{call, message};
use crate::world::{World, eventually, http2_over, labelled, of_the_runtime};

const LIMIT_KIB: u64 = 64 * 1024;
/// Of one head that is never ended, which a sidecar keeps until it is (64 KiB at most, ten seconds).
const HALF_A_HEAD: usize = 60 * 1024;
/// Three times what the sidecar may use.
const STRANGERS: usize = 3200;

fn world() -> World {
    let tight = labelled("tight", "app: tight", 1);
    let annotated = "metadata: {annotations: {config.weir.dev/proxy-memory-limit: 64Mi}, labels:";
    World::with(1, "", &tight.replace("metadata: {labels:", annotated))
}

/// As it says itself; what the kernel says has its program in it, which is large without optimisation.
fn used_kib(world: &World) -> u64 {
    world.metrics("tight").sum("weir_memory_used_bytes", &[]) as u64 / 1024
}

fn pressure(world: &World) -> f64 {
    world.metrics("tight").sum("weir_memory_pressure", &[])
}

/// `grpc-status`, and what the sidecar says of it.
async fn status_of(answer: hyper::Result<Response<Incoming>>) -> String {
    let (head, body) = answer.expect("an answer").into_parts();
    let text = |headers: &HeaderMap, name: &str| {
        let value = headers.get(name).and_then(|value| value.to_str().ok());
        value.map(str::to_owned)
    };
    let trailers = body
        .collect()
        .await
        .expect("to its end")
        .trailers()
        .cloned();
    let trailers = trailers.unwrap_or_default();
    let status = text(&head.headers, "grpc-status").or_else(|| text(&trailers, "grpc-status"));
    let said = text(&head.headers, "weir-proxy-error");
    [status, said]
        .into_iter()
        .flatten()
        .collect::<Vec<_>>()
        .join(" ")
}

/// Connections of which none ends its first head, and how much memory was in use at most, in KiB.
async fn attack(world: &World) -> (Vec<TcpStream>, u64) {
    let half = format!(
        "GET / HTTP/1.1\r\nhost: server\r\nx: {}",
        "a".repeat(HALF_A_HEAD)
    );
    let (mut strangers, mut most) = (Vec::new(), 0);
    for number in 0..STRANGERS {
        if let Ok(stream) = world.lab.dial(Some("tight"), "server:80") {
            let mut stream = of_the_runtime(stream);
            let sent = stream.write_all(half.as_bytes());
            let sent = tokio::time::timeout(Duration::from_secs(1), sent).await;
            strangers.extend(sent.is_ok_and(|sent| sent.is_ok()).then_some(stream));
        }
        if number % 20 == 0 {
            most = most.max(used_kib(world));
        }
    }
    (strangers, most)
}

/// The kernel would have ended it, with all its calls.
#[tokio::test(flavor = "multi_thread")]
async fn a_sidecar_refuses_before_it_has_used_all_its_memory_and_is_well_again_afterwards() {
    let world = world();
    let echo = || call("Echo", Full::new(message(&[1; 100])));
    let mut sender = http2_over::<Full<Bytes>>(world.dial_from(Some("tight"), "server:9090")).await;
    for _ in 0..20 {
        assert_eq!(status_of(sender.send_request(echo()).await).await, "0");
    }
    assert_eq!(pressure(&world), 0.0);
    let limit = world.metrics("tight").sum("weir_memory_limit_bytes", &[]);
    assert_eq!(limit, (LIMIT_KIB * 1024) as f64);

    let (strangers, most) = attack(&world).await;
    let refused = [("direction", "outbound"), ("reason", "out-of-memory")];
    let refused = world
        .metrics("tight")
        .sum("weir_rejected_connections_total", &refused);
    println!("{most} of {LIMIT_KIB} KiB; of {STRANGERS} connections {refused} refused");
    assert!(most < LIMIT_KIB, "{most} KiB");
    assert!(refused > 0.0 && pressure(&world) >= 1.0);

    let calls = (0..200).map(|_| {
        let mut sender = sender.clone();
        tokio::spawn(async move { status_of(sender.send_request(echo()).await).await })
    });
    let mut told = BTreeMap::<String, u32>::new();
    for answer in join_all(calls).await {
        *told.entry(answer.expect("it ends")).or_default() += 1;
    }
    println!("{told:?}");
    let [served, refused] = ["0", "8 out-of-memory"].map(|answer| told.remove(answer).unwrap_or(0));
    assert!(served >= 64 && refused > 0, "a few at a time, and not none");
    assert!(told.is_empty(), "and nothing else is wrong");

    drop(strangers);
    eventually("there is room again", || pressure(&world) == 0.0).await;
    for _ in 0..100 {
        assert_eq!(status_of(sender.send_request(echo()).await).await, "0");
    }
}
