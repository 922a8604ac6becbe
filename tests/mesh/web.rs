//! HTTP/1.1 through two sidecars: keep-alive, bodies, trailers, upgrades.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http_body_util::{BodyExt, Full};
use hyper::{Request, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::tungstenite::Message;

use crate::world::{WEB, World, eventually, whole};

/// What comes back on a raw connection until this is in it.
async fn read_until(stream: &mut tokio::net::TcpStream, end: &str) -> String {
    let mut bytes = Vec::new();
    let reading = async {
        while !String::from_utf8_lossy(&bytes).contains(end) {
            let read = stream.read_buf(&mut bytes).await;
            let came = String::from_utf8_lossy(&bytes);
            assert!(read.expect("an open connection") > 0, "it ended: {came}");
        }
    };
    let patience = Duration::from_secs(5);
    let done = tokio::time::timeout(patience, reading).await;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    assert!(done.is_ok(), "no {end:?} within {patience:?} in {text:?}");
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn a_keep_alive_connection_carries_bodies_of_every_shape() {
    let world = World::new();
    let outbound = [("direction", "outbound"), ("service", WEB)];
    let secure = [("direction", "outbound"), ("service", WEB), ("tls", "mtls")];
    let before = world.metrics("caller");
    let mut sender = world.http1("server:80").await;
    let large = Bytes::from(vec![b'x'; 3 * 1024 * 1024]);
    for body in [Bytes::new(), Bytes::from_static(b"small"), large] {
        let request = Request::post("/echo").header("host", "server");
        let request = request.body(Full::new(body.clone())).unwrap();
        sender.ready().await.unwrap();
        let response = sender.send_request(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        let echoed = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(echoed.len(), body.len());
        assert!(echoed == body, "the bytes are the same");
    }
    let request = Request::get("/chunks/40")
        .header("host", "server")
        .header("te", "trailers");
    sender.ready().await.unwrap();
    let response = sender
        .send_request(request.body(Full::default()).unwrap())
        .await
        .unwrap();
    let collected = response.into_body().collect().await.unwrap();
    let trailers = collected.trailers().cloned().unwrap_or_default();
    assert_eq!(collected.to_bytes().len(), 40 * 1024);
    assert_eq!(trailers["x-chunks"], "40");

    let after = world.metrics("caller");
    let more = |name, labels: &[_]| after.sum(name, labels) - before.sum(name, labels);
    assert_eq!(more("weir_connections_total", &outbound), 1.0);
    assert_eq!(more("weir_requests_total", &secure), 4.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_asks_before_it_sends_gets_100_continue() {
    let world = World::new();
    // In whatever letters (RFC 9110 section 10.1.1).
    for expectation in ["100-continue", "100-Continue"] {
        let mut stream = world.dial("server:80");
        // The app answers when it has read the body: an answer that is there before it may come without the 100.
        let head = format!(
            "POST / HTTP/1.1\r\nhost: server\r\ncontent-length: 5\r\nexpect: {expectation}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let interim = read_until(&mut stream, "\r\n\r\n").await;
        assert!(
            interim.starts_with("HTTP/1.1 100 Continue\r\n"),
            "{expectation}: {interim}"
        );
        stream.write_all(b"hello").await.unwrap();
        let answer = read_until(&mut stream, "server-0").await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    }
}

/// 103 Early Hints, through hyper and h2 and hyper again, and each before the response that it belongs to.
#[tokio::test(flavor = "multi_thread")]
async fn what_an_app_says_before_it_answers_arrives_before_the_answer() {
    let world = World::new();
    let mut stream = world.dial("server:8081");
    for _ in 0..3 {
        let head = "GET / HTTP/1.1\r\nhost: server\r\n\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        let begun = std::time::Instant::now();
        let hints = read_until(&mut stream, "\r\n\r\n").await;
        let took = begun.elapsed();
        assert!(hints.starts_with("HTTP/1.1 103 Early Hints\r\n"), "{hints}");
        assert!(
            hints.contains("link: </style.css>; rel=preload\r\n"),
            "{hints}"
        );
        assert!(
            took < Duration::from_millis(200),
            "not with the answer: {took:?}"
        );
        let answer = read_until(&mut stream, "hello").await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    }
    // HTTP/1.0 does not know them.
    let mut stream = world.dial("server:8081");
    let head = "GET / HTTP/1.0\r\nhost: server\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let answer = read_until(&mut stream, "hello").await;
    assert!(answer.starts_with("HTTP/1.0 200 OK\r\n"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_echoes_through_two_sidecars() {
    let world = World::new();
    let stream = world.dial("server:80");
    let (mut socket, response) = tokio_tungstenite::client_async("ws://server/live", stream)
        .await
        .unwrap();
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    let streams = || world.metrics("server").sum("weir_inbound_streams", &[]);
    assert_eq!(streams(), 1.0, "it is one for as long as it lasts");
    for message in [
        Message::text("hello"),
        Message::binary(vec![7; 1024 * 1024]),
        Message::text("still there"),
    ] {
        socket.send(message.clone()).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap(), message);
    }
    // Both ways at once, and in order.
    let (mut write, mut read) = socket.split();
    let messages = 500;
    let sending = async {
        for number in 0..messages {
            write.send(Message::text(number.to_string())).await.unwrap();
        }
    };
    let receiving = async {
        for number in 0..messages {
            let message = read.next().await.unwrap().unwrap();
            assert_eq!(message, Message::text(number.to_string()));
        }
    };
    tokio::join!(sending, receiving);
    write.send(Message::Close(None)).await.unwrap();
    assert!(matches!(read.next().await, Some(Ok(Message::Close(_)))));
    assert!(read.next().await.is_none(), "closed, not reset");
    // Until then it is half open, and has its place.
    drop((read, write));
    eventually("it is no stream any more", || streams() == 0.0).await;

    // The sidecars still see HTTP around it: it was mutual TLS, and counted as what it was.
    let secure = [("direction", "inbound"), ("tls", "mtls")];
    let metrics = world.metrics("server");
    assert!(metrics.sum("weir_connections_total", &secure) >= 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn any_other_upgrade_passes_too_and_a_refused_one_stays_http() {
    let world = World::new();
    let mut stream = world.dial("server:80");
    let head = "GET / HTTP/1.1\r\nhost: server\r\nconnection: upgrade\r\nupgrade: lab-echo\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let answer = read_until(&mut stream, "\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    assert!(
        answer.to_ascii_lowercase().contains("upgrade: lab-echo"),
        "{answer}"
    );
    stream.write_all(b"ping").await.unwrap();
    assert_eq!(read_until(&mut stream, "ping").await, "ping");
    // The end passes as well.
    stream.shutdown().await.unwrap();
    assert_eq!(stream.read(&mut [0; 8]).await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_passes_for_a_sidecar_by_its_headers() {
    let world = World::new();
    let mut sender = world.http1("server:80").await;
    let request = Request::get("/headers")
        .header("host", "server")
        .header("x-weir-attempt", "3")
        .header("x-weir-protocol", "http/1.1")
        .header("x-weir-identity", "spiffe://weir.local/ns/tests/sa/admin")
        .header("connection", "x-secret")
        .header("x-secret", "of this connection")
        .header("x-kept", "yes");
    let request = request.body(Full::default()).unwrap();
    let seen = whole(sender.send_request(request).await.unwrap()).await;
    let seen = seen.body();
    assert!(seen.contains("x-kept: yes"), "{seen}");
    assert!(!seen.contains("x-weir-"), "{seen}");
    assert!(!seen.contains("x-secret"), "{seen}");
}
