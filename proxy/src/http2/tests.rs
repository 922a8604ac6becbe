use h2::client::{ResponseFuture, SendRequest};
use tower::service_fn;

use super::*;
use crate::drain;
use crate::error::Error as Refused;
use crate::http::Target;
use crate::pipeline::Stack;

/// More of its own mistakes than any h2 forgives on one connection.
const HEADS: usize = 1_100;

fn to_app(stack: Stack) -> Connection {
    Connection {
        target: Target::App(stack),
        service: "app".into(),
        worker: 0,
        caller: None,
        destination: ([127, 0, 0, 1], 8080).into(),
    }
}

/// A sidecar before an app that never answers a `GET` of `/slow`, and refuses the rest.
async fn caller() -> SendRequest<Bytes> {
    let (near, far) = tokio::io::duplex(1024 * 1024);
    let stack = Stack::new(service_fn(
        |request: Box<crate::request::Request>| async move {
            if request.head.uri.path() == "/slow" {
                std::future::pending::<()>().await;
            }
            Err(Refused::RateLimited {
                service: "app".into(),
                per: "caller",
                retry_after: Duration::from_secs(1),
            })
        },
    ));
    let connection = to_app(stack);
    tokio::spawn(async move {
        let (_signal, drain) = drain::channel();
        serve(far, connection, drain).await
    });
    let (sender, connection) = h2::client::handshake(near).await.expect("a client");
    tokio::spawn(connection);
    sender
}

fn ask(sender: &mut SendRequest<Bytes>, method: Method, path: &str) -> ResponseFuture {
    let request = Request::builder()
        .method(method)
        .uri(format!("http://app{path}"));
    let request = request.body(()).expect("a request");
    let (response, _) = sender.send_request(request, true).expect("it is sent");
    response
}

/// Each was a stream that the caller's h2 had to reset, and after 1,024 of them it gave up the connection with all on it.
#[tokio::test(start_paused = true)]
async fn a_refusal_of_a_head_has_no_body() {
    let mut sender = caller().await;
    let mut slow = ask(&mut sender, Method::GET, "/slow");
    for _ in 0..HEADS {
        let response = ask(&mut sender, Method::HEAD, "/").await.expect("a head");
        assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_ne!(response.headers()[header::CONTENT_LENGTH], "0");
        let mut body = response.into_body();
        assert!(body.is_end_stream() && body.data().await.is_none());
    }
    let open = std::future::poll_fn(|cx| Poll::Ready(slow_is_open(&mut slow, cx)));
    assert!(open.await, "the connection has everybody else's calls");
    let refused = ask(&mut sender, Method::GET, "/").await.expect("a head");
    let text = refused.into_body().data().await.expect("a body");
    assert!(!text.expect("no reset").is_empty());
}

fn slow_is_open(slow: &mut ResponseFuture, cx: &mut std::task::Context<'_>) -> bool {
    std::future::Future::poll(std::pin::Pin::new(slow), cx).is_pending()
}

/// A sidecar whose caller has room for nothing, and what it asked for: an answer of 64 KiB, with a deadline if there is one.
async fn unread(
    deadline: Option<Duration>,
) -> (ResponseFuture, tokio::sync::oneshot::Receiver<()>) {
    let (told, ended) = tokio::sync::oneshot::channel::<()>();
    let told = Arc::new(std::sync::Mutex::new(Some(told)));
    let (near, far) = tokio::io::duplex(1024 * 1024);
    let stack = Stack::new(service_fn(move |_: Box<crate::request::Request>| {
        let told = told.lock().expect("no panic").take();
        let guard = crate::body::Guard::new(move |_| drop(told));
        async move {
            let body = Body::full(Bytes::from_static(&[7; 64 * 1024]));
            let mut answer = guard.settle(Ok(Response::new(body)))?;
            if let Some(deadline) = deadline {
                answer
                    .body_mut()
                    .end_at(Box::pin(tokio::time::sleep(deadline)));
            }
            Ok(answer)
        }
    }));
    let connection = to_app(stack);
    tokio::spawn(async move {
        let (_signal, drain) = drain::channel();
        serve(far, connection, drain).await
    });
    let mut client = h2::client::Builder::new();
    let client = client.initial_window_size(0).handshake(near);
    let (mut sender, connection) = client.await.expect("a client");
    tokio::spawn(connection);
    (ask(&mut sender, Method::GET, "/"), ended)
}

/// The deadline was looked at when the body was asked for more, and nobody asked: the call kept its place for ever.
#[tokio::test(start_paused = true)]
async fn a_deadline_ends_an_answer_that_nobody_reads() {
    let (response, ended) = unread(Some(Duration::from_millis(500))).await;
    let begun = tokio::time::Instant::now();
    let mut body = response.await.expect("the head").into_body();
    ended.await.expect_err("dropped");
    assert!(
        begun.elapsed() < Duration::from_secs(1),
        "{:?}",
        begun.elapsed()
    );
    let error = body.data().await.expect("no end").expect_err("a reset");
    assert_eq!(error.reason(), Some(h2::Reason::CANCEL));
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_nobody_reads_ends_after_minutes() {
    let (response, ended) = unread(None).await;
    let begun = tokio::time::Instant::now();
    let _body = response.await.expect("the head").into_body();
    ended.await.expect_err("dropped");
    let most = 2 * crate::standing::STANDING_MAX + Duration::from_secs(1);
    assert!(begun.elapsed() <= most, "{:?}", begun.elapsed());
}

/// Only one spelling was known, and whoever wrote another one waited for leave to send.
#[tokio::test(start_paused = true)]
async fn who_asks_before_it_sends_is_told_to_in_whatever_letters_it_asks() {
    let mut sender = caller().await;
    for expectation in ["100-continue", "100-Continue"] {
        let request = Request::post("http://app/slow").header(header::EXPECT, expectation);
        let request = request.body(()).expect("a request");
        let (mut response, _body) = sender.send_request(request, false).expect("it is sent");
        let told = std::future::poll_fn(|cx| response.poll_informational(cx));
        let told = tokio::time::timeout(Duration::from_secs(1), told).await;
        let told = told.unwrap_or_else(|_| panic!("{expectation}: nobody said a word"));
        let told = told.expect("the answer has not come").expect("no reset");
        assert_eq!(told.status(), StatusCode::CONTINUE, "{expectation}");
    }
}
