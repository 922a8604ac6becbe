//! Back-pressure: who does not read stops who sends, within a second, and nobody in between keeps what they sent.

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http_body_util::{BodyExt, Full};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::tungstenite::Message;

use crate::grpc::{call, fed, message, streaming};
use crate::world::World;

const BLOCKED_WITHIN: Duration = Duration::from_secs(1);
const RSS_GROWTH_MAX_KIB: i64 = 1024;

/// The memory of both sidecars, before and after.
struct Memory {
    before: [u64; 2],
}

const PODS: [&str; 2] = ["caller", "server"];

impl Memory {
    fn of(world: &World) -> Self {
        Self {
            before: PODS.map(|pod| world.sidecar_rss_kib(pod)),
        }
    }

    fn assert_flat(&self, world: &World, what: &str) {
        for (pod, before) in PODS.iter().zip(self.before) {
            let after = world.sidecar_rss_kib(pod);
            let growth = i64::try_from(after).unwrap() - i64::try_from(before).unwrap();
            println!("{what}: the sidecar of {pod} grew by {growth} KiB to {after} KiB");
            assert!(
                growth < RSS_GROWTH_MAX_KIB,
                "{what}: the sidecar of {pod} grew by {growth} KiB"
            );
        }
    }
}

/// Used once, so that what a first use costs is not taken for what a stall costs.
async fn warmed_up() -> World {
    let world = World::new();
    let mut sender = world.http2::<Full<Bytes>>("server:9090").await;
    for _ in 0..50 {
        unary(&mut sender).await;
    }
    let mut response = sender
        .send_request(call("Flood/warm", Full::default()))
        .await
        .unwrap();
    let mut bytes = 0;
    while bytes < 8 * 1024 * 1024 {
        let frame = response.body_mut().frame().await.unwrap().unwrap();
        bytes += frame.into_data().map_or(0, |data| data.len());
    }
    assert_eq!(
        world.get("server:80", "/chunks/2000").await.body().len(),
        2_048_000
    );
    world
}

async fn unary(sender: &mut hyper::client::conn::http2::SendRequest<Full<Bytes>>) -> Duration {
    let begun = Instant::now();
    let response = sender
        .send_request(call("Echo", Full::new(message(&[1; 100]))))
        .await
        .unwrap();
    let collected = response.into_body().collect().await.unwrap();
    assert_eq!(collected.trailers().unwrap()["grpc-status"], "0");
    begun.elapsed()
}

async fn median_of_unary(
    sender: &mut hyper::client::conn::http2::SendRequest<Full<Bytes>>,
) -> Duration {
    let mut all = Vec::new();
    for _ in 0..200 {
        all.push(unary(sender).await);
    }
    all.sort_unstable();
    all[all.len() / 2]
}

/// Asks until the number stands still; it has to within [`BLOCKED_WITHIN`].
async fn assert_blocked(world: &World, name: &str) -> u64 {
    tokio::time::sleep(BLOCKED_WITHIN).await;
    let blocked_at = world.ledger(name).await.expect("it has begun");
    tokio::time::sleep(BLOCKED_WITHIN).await;
    assert_eq!(
        world.ledger(name).await,
        Some(blocked_at),
        "{name}: its sender goes on"
    );
    blocked_at
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_reader_of_a_grpc_stream_blocks_its_sender_alone() {
    let world = warmed_up().await;
    let memory = Memory::of(&world);
    // The same connection carries the stalled stream and the others.
    let mut sender = world.http2::<Full<Bytes>>("server:9090").await;
    let before = median_of_unary(&mut sender).await;
    let mut stalled = sender
        .send_request(call("Flood/stalled", Full::default()))
        .await
        .unwrap();
    let first = stalled.body_mut().frame().await.unwrap().unwrap();
    let mut read = first.into_data().unwrap().len() as u64;
    let sent = assert_blocked(&world, "stalled").await;
    println!("blocked with {} KiB on their way", (sent - read) / 1024);
    memory.assert_flat(&world, "gRPC, one stalled stream");
    let beside = median_of_unary(&mut sender).await;
    println!("unary calls beside it: median {beside:?}, before {before:?}");
    assert!(
        beside < before * 3 + Duration::from_millis(2),
        "{beside:?}, before {before:?}"
    );

    // And it goes on where it stopped.
    while read < sent + 4 * 1024 * 1024 {
        let frame = tokio::time::timeout(Duration::from_secs(5), stalled.body_mut().frame());
        let frame = frame.await.expect("it goes on").unwrap().unwrap();
        read += frame.into_data().unwrap().len() as u64;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_does_not_read_blocks_its_client() {
    let world = warmed_up().await;
    let memory = Memory::of(&world);
    let mut sender = world.http2("server:9090").await;
    let (frames, feed) = fed();
    // Its answer never ends, and its head is not waited for.
    let call = sender.send_request(call("Hold/held", streaming(frames)));
    let _call = tokio::spawn(call);
    let chunk = message(&[9; 16 * 1024]);
    let mut sent = 0;
    let begun = Instant::now();
    while let Ok(taken) = tokio::time::timeout(BLOCKED_WITHIN, feed.send(chunk.clone())).await {
        taken.expect("the call goes on");
        sent += chunk.len();
        assert!(
            begun.elapsed() < Duration::from_secs(20),
            "nobody stops it after {sent} bytes"
        );
    }
    println!("blocked after {} KiB", sent / 1024);
    memory.assert_flat(&world, "gRPC, a server that does not read");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_whose_reader_stalls_blocks_its_sender() {
    let world = warmed_up().await;
    let memory = Memory::of(&world);
    let stream = world.dial("server:80");
    let (mut socket, _) = tokio_tungstenite::client_async("ws://server/live", stream)
        .await
        .unwrap();
    socket.send(Message::text("hello")).await.unwrap();
    assert!(socket.next().await.unwrap().unwrap().is_text());
    // Every message comes back, and nobody reads them: the app stops reading, and then we stop writing.
    let message = Message::binary(vec![1; 32 * 1024]);
    let mut sent = 0;
    let begun = Instant::now();
    while let Ok(taken) = tokio::time::timeout(BLOCKED_WITHIN, socket.send(message.clone())).await {
        taken.expect("the socket stays open");
        sent += 1;
        assert!(
            begun.elapsed() < Duration::from_secs(20),
            "nobody stops it after {sent} messages"
        );
    }
    println!("blocked after {sent} messages of 32 KiB");
    assert_blocked(&world, "websocket").await;
    memory.assert_flat(&world, "WebSocket");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_opaque_connection_whose_reader_stalls_blocks_its_sender() {
    let world = warmed_up().await;
    let memory = Memory::of(&world);
    let mut stream = world.dial("server:7001");
    stream.write_all(b"1").await.unwrap();
    assert_eq!(stream.read_u8().await.unwrap(), b'1');
    let chunk = vec![2; 64 * 1024];
    let mut sent = 0;
    let begun = Instant::now();
    while let Ok(written) = tokio::time::timeout(BLOCKED_WITHIN, stream.write(&chunk)).await {
        sent += written.expect("it stays open");
        assert!(
            begun.elapsed() < Duration::from_secs(20),
            "nobody stops it after {sent} bytes"
        );
    }
    println!(
        "blocked after {} KiB, most of them in the kernel's buffers",
        sent / 1024
    );
    memory.assert_flat(&world, "opaque");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_http1_download_blocks_the_app_that_sends_it() {
    let world = warmed_up().await;
    let memory = Memory::of(&world);
    let mut stream = world.dial("server:80");
    let head = "GET /chunks/200000 HTTP/1.1\r\nhost: server\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.read_exact(&mut [0; 4096]).await.unwrap();
    tokio::time::sleep(BLOCKED_WITHIN * 2).await;
    memory.assert_flat(&world, "HTTP/1.1 download");
    // All of it is still to be had.
    let mut rest = 0;
    let mut buffer = vec![0; 256 * 1024];
    while rest < 200_000 * 1024 - 4096 {
        let read = tokio::time::timeout(Duration::from_secs(5), stream.read(&mut buffer));
        rest += read.await.expect("it goes on").unwrap();
    }
}
