use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::DuplexStream;
use tokio::sync::mpsc;

use super::*;
use crate::gather::tests::Written;

/// Who asks, and who is asked.
async fn connection() -> (
    SendRequest<Bytes>,
    h2::server::Connection<DuplexStream, Bytes>,
) {
    let (near, far) = tokio::io::duplex(1024 * 1024);
    let (client, server) = tokio::join!(h2::client::handshake(near), h2::server::handshake(far));
    let (sender, connection) = client.expect("a client");
    tokio::spawn(connection);
    (sender, server.expect("a server"))
}

/// The next request, and the connection goes on.
async fn accept(
    mut connection: h2::server::Connection<DuplexStream, Bytes>,
) -> h2::server::SendResponse<Bytes> {
    let accepted = connection.accept().await.expect("a request");
    let (_, respond) = accepted.expect("a request");
    tokio::spawn(async move { while connection.accept().await.is_some() {} });
    respond
}

enum Piece {
    Data(Bytes),
    Trailers,
    /// With what no trailers may have.
    BadTrailers,
    Reset(Reason),
}

/// An answer on its way from an app through a sidecar. What is sent `at_once` is all there when the sidecar begins.
async fn answer(at_once: Vec<Piece>) -> (mpsc::UnboundedSender<Piece>, RecvStream) {
    let (mut to_app, app) = connection().await;
    let (mut to_sidecar, sidecar) = connection().await;
    let request = || Request::get("http://app/").body(()).expect("a request");

    let (pieces, mut sent) = mpsc::unbounded_channel();
    for piece in at_once {
        pieces
            .send(piece)
            .unwrap_or_else(|_| panic!("the app listens"));
    }
    let (asked, _) = to_app.send_request(request(), true).expect("to the app");
    tokio::spawn(async move {
        let mut respond = accept(app).await;
        let mut stream = respond
            .send_response(Response::new(()), false)
            .expect("a head");
        while let Some(piece) = sent.recv().await {
            match piece {
                Piece::Data(data) => stream.send_data(data, false).expect("data"),
                Piece::Trailers => stream.send_trailers(HeaderMap::new()).expect("trailers"),
                Piece::BadTrailers => {
                    // h2 sends none of those that it would refuse.
                    let fields = [
                        ("host", "a"),
                        ("x-weir-attempt", "2"),
                        ("content-length", "5"),
                        ("x-sum", "1"),
                    ];
                    let fields = fields.map(|(name, value)| {
                        (
                            http::HeaderName::from_static(name),
                            http::HeaderValue::from_static(value),
                        )
                    });
                    stream
                        .send_trailers(fields.into_iter().collect())
                        .expect("trailers");
                }
                Piece::Reset(reason) => stream.send_reset(reason),
            }
        }
    });
    let (head, body) = asked.await.expect("the app's head").into_parts();
    // Time stands still while anything is to be done.
    tokio::time::sleep(Duration::from_millis(1)).await;

    let (read, _) = to_sidecar
        .send_request(request(), true)
        .expect("to the sidecar");
    let mut respond = accept(sidecar).await;
    let stream = respond
        .send_response(Response::new(()), false)
        .expect("a head");
    let mut upload = Upload::new(Body::download(Download::new(body, &head.headers)), stream);
    tokio::spawn(std::future::poll_fn(move |cx| upload.poll(cx).map(drop)));
    (pieces, read.await.expect("the sidecar's head").into_body())
}

/// The next DATA frame that the caller gets.
async fn next(answer: &mut RecvStream) -> Option<Result<Bytes, h2::Error>> {
    let data = answer.data().await?;
    if let Ok(data) = &data {
        let released = answer.flow_control().release_capacity(data.len());
        released.expect("no more than came");
    }
    Some(data)
}

async fn lengths(answer: &mut RecvStream) -> Vec<usize> {
    let mut lengths = Vec::new();
    while let Some(data) = next(answer).await {
        lengths.push(data.expect("data").len());
    }
    lengths
}

fn data(length: usize) -> Piece {
    Piece::Data(Bytes::from(vec![b'x'; length]))
}

#[tokio::test(start_paused = true)]
async fn small_frames_that_are_there_at_once_go_as_one() {
    let mut pieces: Vec<_> = (0..100).map(|_| data(100)).collect();
    pieces.push(Piece::Trailers);
    let (_pieces, mut answer) = answer(pieces).await;
    assert_eq!(lengths(&mut answer).await, [100 * 100]);
    let trailers = answer.trailers().await.expect("no reset");
    assert!(trailers.is_some(), "they come behind what was put together");
}

#[tokio::test(start_paused = true)]
async fn what_is_put_together_fits_into_a_frame_that_every_peer_takes() {
    let mut pieces: Vec<_> = (0..50).map(|_| data(1029)).collect();
    pieces.push(Piece::Trailers);
    let (_pieces, mut answer) = answer(pieces).await;
    let lengths = lengths(&mut answer).await;
    assert_eq!(lengths.iter().sum::<usize>(), 50 * 1029);
    assert!(
        lengths.iter().all(|length| *length <= TOGETHER_MAX),
        "{lengths:?}"
    );
    assert!(lengths.len() <= 5, "{lengths:?}");
}

#[tokio::test(start_paused = true)]
async fn what_is_there_does_not_wait_for_what_is_not() {
    let (pieces, mut answer) = answer(Vec::new()).await;
    for length in [10, 20, 30] {
        pieces
            .send(data(length))
            .unwrap_or_else(|_| panic!("the app listens"));
        let came = next(&mut answer).await.expect("more").expect("data");
        assert_eq!(came.len(), length);
    }
}

#[tokio::test(start_paused = true)]
async fn a_large_frame_keeps_its_place_and_is_not_copied_together() {
    let pieces = vec![
        data(100),
        data(100),
        data(8 * 1024),
        data(100),
        Piece::Trailers,
    ];
    let (_pieces, mut answer) = answer(pieces).await;
    assert_eq!(lengths(&mut answer).await, [200, 8 * 1024, 100]);
}

/// `NO_ERROR` says only that what came before it is whole if it has an end: half a page was taken for one, and kept.
#[tokio::test(start_paused = true)]
async fn a_reset_behind_small_frames_is_passed_on_with_its_reason() {
    for reason in [Reason::INTERNAL_ERROR, Reason::NO_ERROR] {
        let (pieces, mut answer) = answer(vec![data(100), data(100)]).await;
        let came = next(&mut answer).await.expect("more").expect("data");
        assert_eq!(came.len(), 200);
        pieces
            .send(Piece::Reset(reason))
            .unwrap_or_else(|_| panic!("the app listens"));
        let error = next(&mut answer)
            .await
            .expect("no end")
            .expect_err("a reset");
        assert_eq!(error.reason(), Some(reason));
    }
}

/// RFC 9113 section 8.1: the answer is whole, and the rest of the request is not wanted.
#[tokio::test(start_paused = true)]
async fn a_reset_behind_the_end_takes_nothing_back() {
    let (mut to_app, app) = connection().await;
    let request = Request::post("http://app/").body(()).expect("a request");
    let (asked, mut rest) = to_app.send_request(request, false).expect("to the app");
    let mut respond = accept(app).await;
    let mut stream = respond
        .send_response(Response::new(()), false)
        .expect("a head");
    stream.send_data("whole".into(), true).expect("data");
    // h2 takes back what it has not yet written.
    tokio::time::sleep(Duration::from_millis(1)).await;
    stream.send_reset(Reason::NO_ERROR);

    let (head, body) = asked.await.expect("a head").into_parts();
    let reset = std::future::poll_fn(|cx| rest.poll_reset(cx)).await;
    assert_eq!(reset.expect("the rest is not wanted"), Reason::NO_ERROR);
    let body = Body::download(Download::new(body, &head.headers));
    let body = http_body_util::BodyExt::collect(body).await;
    assert_eq!(body.expect("no error").to_bytes(), "whole");
}

/// What a peer with that window gets of a request with a body that is there, and in how many writes it got it.
async fn ask(window: u32, body: Bytes) -> (Vec<usize>, usize) {
    let writes = Arc::new(Mutex::new(Vec::new()));
    let (near, far) = tokio::io::duplex(1024 * 1024);
    let near = Written(near, writes.clone());
    let mut builder = h2::server::Builder::new();
    builder.initial_window_size(window);
    let (client, server) = tokio::join!(
        h2::client::handshake(near),
        builder.handshake::<_, Bytes>(far)
    );
    let (mut sender, connection) = client.expect("a client");
    let mut server = server.expect("a server");
    tokio::spawn(connection);
    let (came, mut got) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(Ok((request, mut respond))) = server.accept().await {
            let came = came.clone();
            tokio::spawn(async move {
                let mut body = request.into_body();
                came.send(lengths(&mut body).await).expect("the test");
                let ended = respond.send_response(Response::new(()), true);
                ended.expect("a head");
            });
        }
    });
    // The settings of both are known.
    tokio::time::sleep(Duration::from_millis(1)).await;
    writes.lock().expect("no panic").clear();
    let request = Request::post("http://app/").body(()).expect("a request");
    let (response, stream) = sender.send_request(request, false).expect("to the app");
    let mut upload = Upload::new(Body::full(body), stream);
    std::future::poll_fn(|cx| upload.poll(cx))
        .await
        .expect("sent");
    let lengths = got.recv().await.expect("it came");
    response.await.expect("an answer");
    let writes = writes.lock().expect("no panic").len();
    (lengths, writes)
}

#[tokio::test(start_paused = true)]
async fn a_call_goes_as_one_write_with_its_body() {
    let (lengths, writes) = ask(65_535, Bytes::from_static(&[b'x'; 105])).await;
    assert_eq!(lengths, [105]);
    assert_eq!(writes, 1, "head and body");
}

#[tokio::test(start_paused = true)]
async fn a_body_that_goes_with_its_head_keeps_to_the_peers_window() {
    let (lengths, _) = ask(10, Bytes::from_static(&[b'x'; 105])).await;
    assert_eq!(lengths.iter().sum::<usize>(), 105);
    assert!(lengths.iter().all(|length| *length <= 10), "{lengths:?}");
}

#[tokio::test(start_paused = true)]
async fn trailers_say_nothing_of_the_message_its_connection_or_the_sidecars() {
    let (_pieces, mut answer) = answer(vec![data(5), Piece::BadTrailers]).await;
    assert_eq!(lengths(&mut answer).await, [5]);
    let trailers = answer.trailers().await.expect("no reset").expect("some");
    let names: Vec<_> = trailers.keys().map(http::HeaderName::as_str).collect();
    assert_eq!(names, ["x-sum"]);
}

/// h2 refuses to send those, and the peer waited for an end that never came.
#[tokio::test(start_paused = true)]
async fn a_request_whose_trailers_name_the_connection_ends_all_the_same() {
    let body = "5\r\nhello\r\n0\r\nconnection: close\r\nx-sum: 1\r\n\r\n";
    let (mut sender, mut server) = connection().await;
    let request = Request::post("http://app/").body(()).expect("a request");
    let (_response, stream) = sender.send_request(request, false).expect("to the app");
    let body = crate::http1::tests::streamed(body.as_bytes()).await.0;
    let mut upload = Upload::new(body, stream);
    tokio::spawn(async move {
        std::future::poll_fn(|cx| upload.poll(cx))
            .await
            .map_err(drop)
    });
    let (request, _respond) = server.accept().await.expect("one").expect("a request");
    tokio::spawn(async move { while server.accept().await.is_some() {} });
    let mut body = request.into_body();
    let ended = async {
        assert_eq!(lengths(&mut body).await, [5]);
        body.trailers().await.expect("no reset").expect("some")
    };
    let soon = Duration::from_secs(60);
    let trailers = tokio::time::timeout(soon, ended).await.expect("it ends");
    let names: Vec<_> = trailers.keys().map(http::HeaderName::as_str).collect();
    assert_eq!(names, ["x-sum"]);
}
