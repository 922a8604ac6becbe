use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::BodyExt;
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::connector::Connector;
use crate::pool::Pool;

/// A connection, its other end, and the pool to which it may return.
async fn pair() -> (Connection, TcpStream, Pool) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let address = listener.local_addr().expect("it is bound");
    let (near, far) = tokio::join!(TcpStream::connect(address), listener.accept());
    let far = far.expect("it is accepted").0;
    let near = near.expect("it connects");
    (Connection::new(near), far, Pool::new(address, None))
}

fn request(method: &str, body: Body) -> Request<Body> {
    let builder = Request::builder().method(method).uri("/x?y=1");
    builder
        .header("host", "app:8080")
        .body(body)
        .expect("a request")
}

fn send(
    connection: Connection,
    request: Request<Body>,
    home: Home,
    interim: Option<Interim>,
) -> impl Future<Output = Result<Response<Body>, Failure>> {
    let (head, body) = request.into_parts();
    connection.send(&head, body, home, interim)
}

/// Reads what the endpoint is sent, up to `end`.
async fn heard(far: &mut TcpStream, end: &str) -> String {
    let mut all = Vec::new();
    while !String::from_utf8_lossy(&all).ends_with(end) {
        let read = far.read_buf(&mut all).await.expect("it can be read");
        assert_ne!(read, 0, "it ended at {:?}", String::from_utf8_lossy(&all));
    }
    String::from_utf8(all).expect("text")
}

/// What comes of an endpoint that answers `answer` and then, if `closes`, ends the connection.
async fn answered(
    method: &str,
    answer: &[u8],
    closes: bool,
) -> (Result<(http::response::Parts, Bytes), String>, bool) {
    let (connection, mut far, pool) = pair().await;
    far.write_all(answer).await.expect("there is room");
    if closes {
        far.shutdown().await.expect("it can be ended");
    }
    let sent = send(
        connection,
        request(method, Body::empty()),
        pool.home(),
        None,
    );
    let sent = tokio::time::timeout(Duration::from_secs(5), sent).await;
    let result = match sent.expect("it does not hang") {
        Ok(response) => {
            let (head, body) = response.into_parts();
            let body = tokio::time::timeout(Duration::from_secs(5), body.collect()).await;
            match body.expect("it does not hang") {
                Ok(body) => Ok((head, body.to_bytes())),
                Err(error) => Err(format!("body: {error}")),
            }
        }
        Err(Failure::Broken(error)) => Err(error.to_string()),
        Err(Failure::Unsent(error)) => Err(format!("unsent: {error}")),
        Err(Failure::Aborted(error)) => Err(format!("aborted: {error}")),
    };
    let kept = pool.has_idle_http1();
    (result, kept)
}

#[tokio::test]
async fn a_response_ends_where_its_head_says_and_its_connection_is_kept_only_if_that_is_certain() {
    let kept = true;
    for (method, answer, closes, body, keeps) in [
        (
            "GET",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
            false,
            "hello",
            kept,
        ),
        (
            "GET",
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            false,
            "",
            kept,
        ),
        ("GET", "HTTP/1.1 204 No Content\r\n\r\n", false, "", kept),
        (
            "GET",
            "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
            false,
            "",
            kept,
        ),
        (
            "HEAD",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
            false,
            "",
            kept,
        ),
        (
            "GET",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;ext=1\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n",
            false,
            "hello",
            kept,
        ),
        (
            "GET",
            "HTTP/1.1 200 OK\nContent-Length: 5\n\nhello",
            false,
            "hello",
            kept,
        ),
        (
            "GET",
            "HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 5\r\n\r\nhello",
            false,
            "hello",
            kept,
        ),
        (
            "GET",
            "HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello",
            false,
            "hello",
            !kept,
        ),
        (
            "GET",
            "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello",
            false,
            "hello",
            !kept,
        ),
        ("GET", "HTTP/1.1 200 OK\r\n\r\nhello", true, "hello", !kept),
        // Somebody speaks unasked: what would it answer next?
        (
            "GET",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhelloHTTP/1.1 200",
            false,
            "hello",
            !kept,
        ),
        (
            "HEAD",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
            false,
            "",
            !kept,
        ),
    ] {
        let (result, is_kept) = answered(method, answer.as_bytes(), closes).await;
        let (_, found) = result.unwrap_or_else(|error| panic!("{answer:?}: {error}"));
        assert_eq!(found, body, "{answer:?}");
        assert_eq!(is_kept, keeps, "{answer:?}");
    }
}

#[tokio::test]
async fn a_response_that_could_be_read_in_two_ways_is_read_in_none() {
    let ok = "HTTP/1.1 200 OK\r\n";
    let long = format!("{ok}x: {}\r\n\r\n", "y".repeat(HEAD_BYTES_MAX));
    let many = format!("{ok}{}\r\n", "x: y\r\n".repeat(101));
    for answer in [
        "",
        "garbage\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Le",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhello\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-3\r\nhel\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\nhel",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nbroken trailer\r\n\r\n",
        "HTTP/1.1 200 OK\r\nx y: 1\r\nContent-Length: 0\r\n\r\n",
        &long,
        &many,
    ] {
        let (result, kept) = answered("GET", answer.as_bytes(), true).await;
        let shown = &answer[..answer.len().min(100)];
        assert!(result.is_err(), "{shown:?} came through");
        assert!(!kept, "{shown:?}");
    }
}

#[tokio::test]
async fn heads_arrive_whole_however_they_are_cut_with_their_reason_and_all_their_fields() {
    let fields: String = (0..60).map(|n| format!("x-{n}: {n}\r\n")).collect();
    let answer = format!("HTTP/1.1 200 Quite All Right\r\n{fields}Content-Length: 2\r\n\r\nok");
    for cut in [
        1,
        9,
        30,
        answer.len() - 5,
        answer.len() - 3,
        answer.len() - 1,
    ] {
        let (connection, mut far, pool) = pair().await;
        let (first, second) = answer.as_bytes().split_at(cut);
        let speaking = async {
            far.write_all(first).await.expect("there is room");
            tokio::time::sleep(Duration::from_millis(5)).await;
            far.write_all(second).await.expect("there is room");
        };
        let sent = send(connection, request("GET", Body::empty()), pool.home(), None);
        let (Ok(response), ()) = tokio::join!(sent, speaking) else {
            panic!("cut at {cut}: no response");
        };
        assert_eq!(response.headers().len(), 61);
        let reason = response.extensions().get::<hyper::ext::ReasonPhrase>();
        assert_eq!(reason.expect("it is told").as_bytes(), b"Quite All Right");
        let body = response.into_body().collect().await.expect("a body");
        assert_eq!(body.to_bytes(), "ok");
    }
}

#[tokio::test]
async fn trailers_come_after_the_body() {
    let answer =
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nx-sum: 7\r\n\r\n";
    let (connection, mut far, pool) = pair().await;
    far.write_all(answer).await.expect("there is room");
    let sent = send(connection, request("GET", Body::empty()), pool.home(), None);
    let Ok(response) = sent.await else {
        panic!("no response");
    };
    let body = response.into_body().collect().await.expect("a body");
    assert_eq!(body.trailers().expect("trailers")["x-sum"], "7");
    assert!(pool.has_idle_http1());
}

#[tokio::test]
async fn a_request_is_written_as_its_head_and_body_are() {
    let whole = || Body::full("hello".into());
    let (chunked, with_trailers) = (
        streamed(b"5\r\nhello\r\n4\r\n you\r\n0\r\n\r\n").await,
        streamed(b"5\r\nhello\r\n0\r\nx-sum: 7\r\nx-not-announced: 8\r\n\r\n").await,
    );
    let head = "POST /x?y=1 HTTP/1.1\r\nhost: app:8080\r\n";
    for (body, more, expected) in [
        (Body::empty(), None, "\r\n".to_owned()),
        (whole(), None, "content-length: 5\r\n\r\nhello".to_owned()),
        (whole(), Some(("content-length", "5")), "content-length: 5\r\n\r\nhello".to_owned()),
        (
            chunked.0,
            None,
            "transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n4\r\n you\r\n0\r\n\r\n".to_owned(),
        ),
        (
            with_trailers.0,
            Some(("trailer", "x-sum")),
            "trailer: x-sum\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nx-sum: 7\r\n\r\n".to_owned(),
        ),
    ] {
        let (connection, mut far, pool) = pair().await;
        let mut request = request("POST", body);
        if let Some((name, value)) = more {
            let value = http::HeaderValue::from_static(value);
            request.headers_mut().insert(name, value);
        }
        let expected = format!("{head}{expected}");
        let answering = async {
            let heard = heard(&mut far, &expected[expected.len() - 5..]).await;
            let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
            far.write_all(answer).await.expect("there is room");
            heard
        };
        let (sent, heard) = tokio::join!(send(connection, request, pool.home(), None), answering);
        assert!(sent.is_ok());
        assert_eq!(heard, expected);
        assert!(pool.has_idle_http1(), "{expected:?}");
    }
}

/// A body of which nobody knows how long it will be, and who writes it: `chunks` so far.
pub(crate) async fn streamed(chunks: &[u8]) -> (Body, TcpStream) {
    let (Connection { reader, .. }, mut far, _) = pair().await;
    far.write_all(chunks).await.expect("there is room");
    let framing = Framing::Chunks(download::Chunk::Line);
    let download = Download::new(reader, BytesMut::new(), framing);
    (Body::http1(download), far)
}

#[tokio::test]
async fn a_body_that_is_not_as_long_as_was_announced_is_not_passed_on_as_whole() {
    for announced in ["4", "6", "+5", "5x"] {
        let (connection, mut far, pool) = pair().await;
        let mut request = request("POST", Body::full("hello".into()));
        let value = http::HeaderValue::from_static(announced);
        request.headers_mut().insert("content-length", value);
        let sent = send(connection, request, pool.home(), None);
        let sent = tokio::time::timeout(Duration::from_secs(5), sent).await;
        assert!(sent.expect("it does not wait for an answer").is_err());
        let mut heard = Vec::new();
        far.read_to_end(&mut heard).await.expect("it is closed");
        // What is missing of six, the app can see; what is too much for four, it would take for another request.
        assert_eq!(heard.ends_with(b"hello"), announced == "6", "{announced}");
        assert!(!pool.has_idle_http1());
    }
}

#[tokio::test]
async fn who_waits_has_no_buffer_and_only_what_was_small_leaves_its_own_to_the_next() {
    let there_is_a_spare = || {
        let spare = buffer::take();
        let is_one = spare.capacity() > 0;
        buffer::give_back(spare);
        is_one
    };
    for (length, is_small) in [(5, true), (3 * READ_BYTES, false), (7, true)] {
        let mut spare = buffer::take();
        spare.reserve(READ_BYTES);
        buffer::give_back(spare);
        let (connection, mut far, pool) = pair().await;
        let mut sent = pin!(send(
            connection,
            request("GET", Body::empty()),
            pool.home(),
            None
        ));
        let waits = sent.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert!(waits.is_pending());
        assert!(there_is_a_spare(), "nothing has come, so none was taken");
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
        let answer = [head.into_bytes(), vec![b'a'; length]].concat();
        far.write_all(&answer).await.expect("there is room");
        let Ok(response) = sent.await else {
            panic!("no response");
        };
        let body = response.into_body().collect().await.expect("whole");
        assert_eq!(body.to_bytes().len(), length);
        assert_eq!(there_is_a_spare(), is_small, "{length}");
    }
}

#[tokio::test]
async fn an_answer_that_comes_before_the_request_has_ended_does_not_wait_for_it() {
    let (connection, mut far, pool) = pair().await;
    let (body, mut caller) = streamed(b"").await;
    let request = request("POST", body);
    far.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n")
        .await
        .expect("there is room");
    let Ok(response) = send(connection, request, pool.home(), None).await else {
        panic!("no response");
    };
    // The app goes on reading while nobody reads its answer.
    heard(&mut far, "\r\n\r\n").await;
    let more = b"4\r\nmore\r\n";
    caller.write_all(more).await.expect("there is room");
    heard(&mut far, "more\r\n").await;
    caller.write_all(b"0\r\n\r\n").await.expect("there is room");
    heard(&mut far, "0\r\n\r\n").await;
    far.write_all(b"ok").await.expect("there is room");
    let body = response.into_body().collect().await.expect("a body");
    assert_eq!(body.to_bytes(), "ok");
}

/// A caller who did not end its request held a task and this connection for ever, also when the app had closed it.
#[tokio::test]
async fn an_app_that_closes_after_an_early_answer_is_sent_no_more_of_the_request() {
    let (connection, mut far, pool) = pair().await;
    let (body, mut caller) = streamed(b"").await;
    far.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
        .await
        .expect("there is room");
    let sent = send(connection, request("POST", body), pool.home(), None);
    let Ok(response) = sent.await else {
        panic!("no response");
    };
    heard(&mut far, "\r\n\r\n").await;
    drop(response);
    far.shutdown().await.expect("it is open");
    // Nobody listens any more, and so the caller hears.
    let refused = async {
        while caller.write_all(b"1\r\nx\r\n").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let refused = tokio::time::timeout(Duration::from_secs(5), refused);
    refused.await.expect("it is not read on");
}

/// Node breaks off an answer whose caller has ended its side: the shop's price ticks, with `Connection: close`, stopped
/// before the first.
#[tokio::test]
async fn an_app_that_is_still_answering_is_not_told_that_its_caller_has_ended() {
    const HEAD: &str = "HTTP/1.1 200 OK\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n";
    for is_early in [false, true] {
        let (connection, mut far, pool) = pair().await;
        let (uploaded, mut caller) = streamed(b"").await;
        let request = match is_early {
            false => request("GET", Body::empty()),
            true => request("POST", uploaded),
        };
        far.write_all(HEAD.as_bytes()).await.expect("there is room");
        let Ok(response) = send(connection, request, pool.home(), None).await else {
            panic!("no response");
        };
        heard(&mut far, "\r\n\r\n").await;
        if is_early {
            caller.write_all(b"0\r\n\r\n").await.expect("room");
            heard(&mut far, "0\r\n\r\n").await;
        }
        let mut byte = [0; 1];
        let more = tokio::time::timeout(Duration::from_millis(100), far.read(&mut byte));
        assert!(more.await.is_err(), "{is_early}: an end that is none");

        far.write_all(b"2\r\nok\r\n0\r\n\r\n").await.expect("room");
        let body = response.into_body().collect().await.expect("a body");
        assert_eq!(body.to_bytes(), "ok");
        let ended = tokio::time::timeout(Duration::from_secs(5), far.read(&mut byte));
        assert_eq!(ended.await.expect("it is closed").unwrap_or(0), 0);
    }
}

#[tokio::test]
async fn who_stops_reading_an_answer_closes_its_connection() {
    let (connection, mut far, pool) = pair().await;
    far.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello")
        .await
        .expect("there is room");
    let sent = send(connection, request("GET", Body::empty()), pool.home(), None);
    drop(sent.await);
    assert!(!pool.has_idle_http1());
    heard(&mut far, "\r\n\r\n").await;
    assert_eq!(far.read(&mut [0; 9]).await.unwrap_or(0), 0, "it is closed");
}

#[tokio::test]
async fn an_idle_connection_that_ended_or_spoke_is_not_used_again() {
    for word in [
        None,
        Some(b"HTTP/1.1 408 Request Timeout\r\n\r\n".as_slice()),
    ] {
        let (connection, mut far, _) = pair().await;
        assert!(connection.is_idle());
        match word {
            Some(word) => far.write_all(word).await.expect("there is room"),
            None => far.shutdown().await.expect("it can be ended"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(!connection.is_idle());
    }
}

/// The race that every app with a keep-alive timeout runs, and every one that ends. Only what its kernel has not may be sent
/// to another: the app may have acted upon all else.
#[tokio::test]
async fn what_came_after_the_peer_had_closed_is_unsent_and_what_came_before_is_not() {
    const REQUEST: &str =
        "POST /x?y=1 HTTP/1.1\r\nhost: app:8080\r\ncontent-length: 6\r\n\r\na body";
    for again in [false, true] {
        for (read, unsent) in [(None, true), (Some(REQUEST.len()), false), (Some(9), false)] {
            let (mut connection, mut far, pool) = pair().await;
            if again {
                let (answer, _) = tokio::join!(
                    send(connection, request("GET", Body::empty()), pool.home(), None),
                    async {
                        heard(&mut far, "\r\n\r\n").await;
                        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
                        far.write_all(answer).await.expect("there is room");
                    }
                );
                let body = answer.ok().expect("an answer").into_body();
                body.collect().await.expect("it is whole");
                connection = pool.idle_http1().expect("it was kept");
            }
            let body = Body::full("a body".into());
            let sending = send(connection, request("POST", body), pool.home(), None);
            let failure = match read {
                None => {
                    drop(far);
                    sending.await
                }
                Some(bytes) => {
                    let close = async {
                        let mut some = vec![0; bytes];
                        far.read_exact(&mut some).await.expect("it was sent");
                        drop(far);
                    };
                    tokio::join!(sending, close).0
                }
            };
            match failure {
                Err(Failure::Unsent(_)) => assert!(unsent, "{read:?} read, again: {again}"),
                Err(Failure::Broken(_)) => assert!(!unsent, "{read:?} read, again: {again}"),
                _ => panic!("nobody answered"),
            }
        }
    }
}

#[tokio::test]
async fn informational_responses_are_passed_on_and_the_final_one_is_the_answer() {
    let (connection, mut far, pool) = pair().await;
    far.write_all(
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    )
    .await
    .expect("there is room");
    let hints = crate::interim::Queue::default();
    let sent = send(
        connection,
        request("GET", Body::empty()),
        pool.home(),
        Some(hints.interim()),
    );
    let Ok(response) = sent.await else {
        panic!("no response");
    };
    assert_eq!(response.status(), 200);
    let hint = std::future::poll_fn(|cx| hints.poll(cx)).await;
    assert_eq!(hint.status(), 103);
    assert_eq!(hint.headers()["link"], "</a>");
    assert!(pool.has_idle_http1());
}

/// Planted: the kernel takes in megabytes of an answer that nobody reads.
#[tokio::test]
async fn an_answer_that_nobody_reads_fills_no_more_than_a_stream_of_http2() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let address = listener.local_addr().expect("it is bound");
    let connector = Connector {
        identity: Arc::default(),
        mark: None,
    };
    let connection = Pool::new(address, None).http1(&connector).await;
    let connection = connection.unwrap_or_else(|error| panic!("it listens: {error}"));
    let buffer = SockRef::from(connection.reader.as_ref()).recv_buffer_size();
    assert_eq!(buffer.expect("a socket"), 64 * 1024);
}

#[tokio::test]
async fn an_app_is_sent_no_trailer_that_says_where_its_request_ends_or_goes() {
    let (connection, mut far, pool) = pair().await;
    let chunks =
        b"5\r\nhello\r\n0\r\ncontent-length: 9\r\nhost: b\r\nx-weir-attempt: 2\r\nx-sum: 1\r\n\r\n";
    let (body, _caller) = streamed(chunks).await;
    let mut request = request("POST", body);
    let announced = "content-length, host, x-weir-attempt, x-sum";
    let value = http::HeaderValue::from_static(announced);
    request.headers_mut().insert("trailer", value);
    let sent = tokio::spawn(send(connection, request, pool.home(), None));
    let all = heard(&mut far, "x-sum: 1\r\n\r\n").await;
    assert!(all.ends_with("\r\n0\r\nx-sum: 1\r\n\r\n"), "{all:?}");
    sent.abort();
}
