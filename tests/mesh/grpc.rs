//! gRPC of every kind through two sidecars.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::StreamExt;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Body, Frame, Incoming};
use hyper::{Request, Response};

use crate::world::{BoxError, World};

/// With its prefix: not compressed, so many bytes.
pub(crate) fn message(payload: &[u8]) -> Bytes {
    let mut message = BytesMut::with_capacity(5 + payload.len());
    message.put_u8(0);
    message.put_u32(u32::try_from(payload.len()).expect("small"));
    message.put_slice(payload);
    message.freeze()
}

pub(crate) fn call<B>(method: &str, body: B) -> Request<B> {
    Request::post(format!("http://server:9090/lab.Echo/{method}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(body)
        .expect("a request")
}

/// A request body that is fed while the call runs.
pub(crate) fn fed() -> (
    futures_util::stream::BoxStream<'static, Result<Frame<Bytes>, BoxError>>,
    tokio::sync::mpsc::Sender<Bytes>,
) {
    let (feed, mut fed) = tokio::sync::mpsc::channel::<Bytes>(1);
    let frames = futures_util::stream::poll_fn(move |cx| fed.poll_recv(cx));
    let frames = frames.map(|bytes| Ok::<_, BoxError>(Frame::data(bytes)));
    (frames.boxed(), feed)
}

pub(crate) fn streaming(
    frames: futures_util::stream::BoxStream<'static, Result<Frame<Bytes>, BoxError>>,
) -> impl Body<Data = Bytes, Error = BoxError> + Send + Unpin + 'static {
    StreamBody::new(frames)
}

async fn status_of(response: Response<Incoming>) -> String {
    let head = response.headers().get("grpc-status").cloned();
    let collected = response.into_body().collect().await.expect("its end");
    let trailers = collected.trailers().cloned().unwrap_or_default();
    let status = trailers.get("grpc-status").cloned().or(head);
    status.map_or_else(String::new, |status| {
        String::from_utf8_lossy(status.as_bytes()).into_owned()
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_travel_both_ways_at_once_and_none_waits_for_another() {
    let world = World::new();
    let (frames, feed) = fed();
    let mut sender = world.http2("server:9090").await;
    let answering =
        tokio::spawn(async move { sender.send_request(call("Echo", streaming(frames))).await });
    // The head of the answer comes before the request's body ends, or this would never return.
    feed.send(message(b"0")).await.unwrap();
    let response = tokio::time::timeout(Duration::from_secs(5), answering);
    let response = response
        .await
        .expect("streams are not read ahead")
        .unwrap()
        .unwrap();
    assert_eq!(response.status(), 200);
    let mut body = response.into_body();
    let mut next = async || {
        let frame = tokio::time::timeout(Duration::from_secs(5), body.frame());
        frame
            .await
            .expect("a frame in time")
            .map(|frame| frame.unwrap())
    };
    assert_eq!(next().await.unwrap().into_data().unwrap(), message(b"0"));
    for number in 1..200 {
        let sent = message(number.to_string().as_bytes());
        feed.send(sent.clone()).await.unwrap();
        assert_eq!(next().await.unwrap().into_data().unwrap(), sent);
    }
    drop(feed);
    let trailers = next().await.unwrap().into_trailers().expect("trailers");
    assert_eq!(trailers["grpc-status"], "0");
    let secure = [
        ("direction", "outbound"),
        ("service", "tests/server:9090"),
        ("tls", "mtls"),
    ];
    assert_eq!(
        world.metrics("caller").sum("weir_requests_total", &secure),
        1.0
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn unary_calls_statuses_and_metadata_arrive_as_they_were_sent() {
    let world = World::new();
    let mut sender = world.http2::<Full<Bytes>>("server:9090").await;
    let unary = |method: &str| call(method, Full::new(message(b"question")));
    let response = sender.send_request(unary("Echo")).await.unwrap();
    assert_eq!(status_of(response).await, "0");
    for code in ["3", "5", "7", "16"] {
        let response = sender
            .send_request(unary(&format!("Fail/{code}")))
            .await
            .unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(status_of(response).await, code);
    }
    let mut request = unary("Headers");
    let headers = request.headers_mut();
    headers.insert("grpc-timeout", "2S".parse().unwrap());
    headers.insert(
        "traceparent",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
            .parse()
            .unwrap(),
    );
    headers.insert("x-bin", "AAEC".parse().unwrap());
    let response = sender.send_request(request).await.unwrap();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let seen = String::from_utf8_lossy(&body);
    assert!(
        seen.contains("te: trailers") && seen.contains("x-bin: AAEC"),
        "{seen}"
    );
    assert!(
        seen.contains("traceparent: 00-0af7651916cd43dd8448eb211c80319c-"),
        "{seen}"
    );
    // What is left of the two seconds, never more.
    let left = seen
        .lines()
        .find_map(|line| line.strip_prefix("grpc-timeout: "));
    let micros = left.and_then(|left| left.strip_suffix('u')?.parse::<u64>().ok());
    assert!(
        micros.is_some_and(|micros| (1_000_000..2_000_000).contains(&micros)),
        "{seen}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_that_passes_is_told_in_grpcs_own_words_and_the_app_is_let_off() {
    let world = World::new();
    let mut sender = world.http2("server:9090").await;
    let (frames, _feed) = fed();
    let mut request = call("Hold/deadline", streaming(frames));
    request
        .headers_mut()
        .insert("grpc-timeout", "300m".parse().unwrap());
    let begun = std::time::Instant::now();
    let response = sender.send_request(request).await.unwrap();
    assert_eq!(response.status(), 200, "gRPC never sees a bare 504");
    assert_eq!(status_of(response).await, "4");
    let took = begun.elapsed();
    assert!((250..800).contains(&took.as_millis()), "{took:?}");
    // Although its caller would go on sending.
    until_open(&world, "deadline", 0).await;
}

/// Before the head of the answer, and after it while both bodies are on their way.
#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_leaves_takes_its_call_with_it() {
    let world = World::new();
    for method in ["Stuck", "Hold"] {
        let name = format!("left-{method}");
        let mut sender = world.http2("server:9090").await;
        let (frames, feed) = fed();
        let request = call(&format!("{method}/{name}"), streaming(frames));
        let calling = tokio::spawn(async move {
            let answer = sender.send_request(request).await;
            std::future::pending::<()>().await;
            drop(answer);
        });
        feed.send(message(b"0")).await.unwrap();
        until_open(&world, &name, 1).await;
        calling.abort();
        // hyper's client lets go of a stream when it has neither an answer to read nor a body to send.
        drop(feed);
        until_open(&world, &name, 0).await;
    }
}

async fn until_open(world: &World, name: &str, wanted: u64) {
    let begun = std::time::Instant::now();
    while world.ledger(name).await.unwrap_or_default() != wanted {
        assert!(
            begun.elapsed() < Duration::from_secs(5),
            "{name}: not {wanted} open"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
