//! An app that hangs beside a sidecar that does not: connections and handshakes say nothing of it.

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::join_all;
use http_body_util::Full;
use hyper::Request;
use hyper::client::conn::http1::SendRequest;

use crate::world::{PATIENCE, World, hop, whole};

/// So many that some wait for it at the same time, and others are answered meanwhile.
const CALLERS: usize = 4;
const CALL_EVERY: Duration = Duration::from_millis(10);

async fn call(sender: &mut SendRequest<Full<Bytes>>) {
    sender.ready().await.expect("it is open");
    let request = Request::get("/").header("host", "steady");
    let request = request.body(Full::default()).expect("a request");
    let answer = whole(sender.send_request(request).await.expect("an answer")).await;
    assert_eq!(answer.status(), 200, "{}", answer.body());
    tokio::time::sleep(CALL_EVERY).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_hangs_is_asked_by_sidecars_and_tried_by_no_request_until_it_goes_on() {
    // Nobody but those who call it finds out.
    let steady = hop("steady").replace("replicas: 1", "replicas: 3");
    let unprobed = steady
        .lines()
        .filter(|line| !line.contains("readinessProbe"));
    let world = World::with(1, "", &unprobed.collect::<Vec<_>>().join("\n"));
    let mut senders = Vec::new();
    for _ in 0..CALLERS {
        senders.push(world.http1("steady:80").await);
    }
    let mut calls = async |count| {
        join_all(senders.iter_mut().map(async |sender| {
            for _ in 0..count {
                call(sender).await;
            }
        }))
        .await;
    };
    calls(100).await;
    let events = |kind| tokio::task::block_in_place(|| world.events(kind));
    tokio::task::block_in_place(|| world.lab.stop_app("steady/0")).expect("it is frozen");
    let frozen = Instant::now();
    let mut ejections = String::new();
    while ejections
        .matches("ejected: it did not answer the synthetic probe")
        .count()
        < 2
    {
        assert!(frozen.elapsed() < PATIENCE, "it is not asked: {ejections}");
        calls(20).await;
        ejections = events("EndpointEjected");
    }
    let stalls = ejections.matches("ejected: no answer for").count();
    assert_eq!(stalls, 1, "nobody waits for it again: {ejections}");

    tokio::task::block_in_place(|| world.lab.cont("steady/0")).expect("it goes on");
    let going_on = Instant::now();
    while events("EndpointReadmitted").is_empty() {
        assert!(going_on.elapsed() < PATIENCE, "it stays out");
        calls(20).await;
    }
}
