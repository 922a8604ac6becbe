use std::sync::{Arc, Mutex};

use http::StatusCode;
use http_body_util::BodyExt;

use super::*;

fn recorded() -> (
    Arc<Mutex<Vec<Outcome>>>,
    impl FnOnce(Outcome) + Send + 'static,
) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let clone = seen.clone();
    (seen, move |outcome| {
        clone.lock().expect("not poisoned").push(outcome)
    })
}

fn outcomes(seen: &Mutex<Vec<Outcome>>) -> Vec<Outcome> {
    seen.lock().expect("not poisoned").clone()
}

#[tokio::test]
async fn a_guard_fires_once_when_the_body_has_been_read() {
    let (seen, duty) = recorded();
    let response = Guard::new(duty)
        .settle(Ok(Response::new(Body::full("hello".into()))))
        .expect("a response");
    assert!(outcomes(&seen).is_empty(), "the body has not ended yet");
    let bytes = response
        .into_body()
        .collect()
        .await
        .expect("the body")
        .to_bytes();
    assert_eq!(bytes, "hello");
    assert_eq!(outcomes(&seen), [Outcome::Success]);
}

#[test]
fn a_caller_that_hangs_up_is_an_outcome_of_its_own() {
    let (seen, duty) = recorded();
    drop(Guard::new(duty).settle(Ok(Response::new(Body::full("hello".into())))));
    assert_eq!(outcomes(&seen), [Outcome::Cancelled]);
    let (seen, duty) = recorded();
    drop(Guard::new(duty));
    assert_eq!(outcomes(&seen), [Outcome::Cancelled]);
}

#[test]
fn guards_hear_of_the_end_from_the_innermost_to_the_outermost() {
    let order = Arc::new(Mutex::new(Vec::new()));
    let mut result = Ok(Response::new(Body::full("hello".into())));
    for name in ["inner", "middle", "outer"] {
        let order = order.clone();
        let duty = move |_| order.lock().expect("not poisoned").push(name);
        result = Guard::new(duty).settle(result);
    }
    drop(result);
    let order = order.lock().expect("not poisoned");
    assert_eq!(*order, ["inner", "middle", "outer"]);
}

#[test]
fn a_failure_is_one_whether_or_not_anybody_reads_it_to_the_end() {
    let (seen, duty) = recorded();
    let mut response = Response::new(Body::full("no".into()));
    *response.status_mut() = StatusCode::BAD_GATEWAY;
    drop(Guard::new(duty).settle(Ok(response)));
    assert_eq!(outcomes(&seen), [Outcome::Failure(Fault::Hard)]);
}

/// Without a status a caller's library says UNKNOWN, and so the endpoint is to be judged: a service whose process dies
/// behind a proxy that ends its answers neatly, or one that is no gRPC server at all.
#[tokio::test]
async fn a_grpc_call_that_ends_without_a_status_has_failed() {
    let grpc = |content: &'static str, body: Body| {
        let mut response = Response::new(body);
        let content = http::HeaderValue::from_static(content);
        let name = http::header::CONTENT_TYPE;
        response.headers_mut().insert(name, content);
        response
    };
    let hard = Outcome::Failure(Fault::Hard);
    for (content, outcome) in [
        ("application/grpc", hard),
        ("application/grpc+proto", hard),
        ("application/grpc;charset=utf-8", hard),
        ("application/grpc-web+proto", Outcome::Success),
        ("text/plain", Outcome::Success),
    ] {
        let (seen, duty) = recorded();
        let response = grpc(content, Body::full("hello".into()));
        let response = Guard::new(duty).settle(Ok(response)).expect("a response");
        assert!(outcomes(&seen).is_empty(), "trailers may still come");
        let _ = response.into_body().collect().await;
        assert_eq!(outcomes(&seen), [outcome], "{content}");

        let (seen, duty) = recorded();
        drop(Guard::new(duty).settle(Ok(grpc(content, Body::empty()))));
        assert_eq!(outcomes(&seen), [outcome], "{content} with no body");
        let empty = grpc(content, Body::empty());
        assert_eq!(
            super::outcome(&empty),
            outcome,
            "{content}, before it is read"
        );
    }

    let mut said = grpc("application/grpc", Body::empty());
    let ok = http::HeaderValue::from_static("0");
    said.headers_mut().insert(&head::GRPC_STATUS, ok);
    let (seen, duty) = recorded();
    drop(Guard::new(duty).settle(Ok(said)));
    assert_eq!(outcomes(&seen), [Outcome::Success]);

    let mut of_http = grpc("application/grpc", Body::empty());
    *of_http.status_mut() = StatusCode::NOT_FOUND;
    let (seen, duty) = recorded();
    drop(Guard::new(duty).settle(Ok(of_http)));
    assert_eq!(outcomes(&seen), [Outcome::Success], "UNIMPLEMENTED");
}

#[test]
fn a_body_that_was_at_its_end_from_the_start_is_complete() {
    let (seen, duty) = recorded();
    drop(Guard::new(duty).settle(Ok(Response::new(Body::empty()))));
    assert_eq!(outcomes(&seen), [Outcome::Success]);
}
