use std::time::Duration;

use http::{HeaderValue, Response};
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;
use tower::service_fn;
use weir_config::snapshot::{AccessRule, AccessRules, Authorization, Peer};

use super::*;
use crate::body::{Body, Guard};
use crate::layer::Answer;
use crate::request::Context as RequestContext;

const CHECKOUT: &str = "spiffe://weir.local/ns/boutique/sa/checkout";

fn only(identity: &str) -> AccessRules {
    AccessRules {
        deny: Vec::new(),
        allow: Some(vec![AccessRule {
            policy: "boutique/policy".into(),
            from: Some(vec![Peer {
                identity: Some(identity.into()),
                namespace: None,
                service_account: None,
            }]),
            to: None,
        }]),
    }
}

fn enforced(rules: AccessRules) -> Authorization {
    Authorization {
        enforced: rules,
        audited: None,
    }
}

fn service() -> Arc<str> {
    "boutique/payment:80".into()
}

async fn answer(authorization: &Arc<Shared>, caller: Option<&str>) -> Answer {
    asked(authorization, caller, false).await
}

async fn asked(authorization: &Arc<Shared>, caller: Option<&str>, upgrade: bool) -> Answer {
    let layer = AuthorizeLayer {
        authorization: authorization.clone(),
    };
    let app = service_fn(move |_: Box<Request>| async move {
        let mut response = Response::new(Body::empty());
        if upgrade {
            *response.status_mut() = http::StatusCode::SWITCHING_PROTOCOLS;
        }
        Ok::<_, Error>(response)
    });
    let mut head = http::Request::new(()).into_parts().0;
    for name in ["x-weir-caller", "x-forwarded-client-cert", "l5d-client-id"] {
        head.headers
            .insert(name, HeaderValue::from_static(CHECKOUT));
    }
    let request = Box::new(Request {
        head,
        body: Body::empty(),
        context: RequestContext {
            caller: caller.map(Into::into),
            upgrade,
            ..RequestContext::opaque(0)
        },
    });
    layer.layer(app).call(request).await
}

#[tokio::test]
async fn who_may_not_call_is_told_so_in_its_own_protocol_and_headers_prove_nothing() {
    let authorization = Arc::new(Shared::default());
    assert!(
        answer(&authorization, None).await.is_ok(),
        "nobody says who may"
    );
    authorization.reconfigure(Some(&enforced(only(CHECKOUT))), &service());
    assert!(answer(&authorization, Some(CHECKOUT)).await.is_ok());
    for caller in [None, Some("spiffe://weir.local/ns/boutique/sa/cart")] {
        let error = answer(&authorization, caller).await.err().expect("denied");
        let response = error.into_response(false);
        assert_eq!(response.status(), 403);
        assert_eq!(
            response.headers()[&crate::error::PROXY_ERROR],
            "permission-denied"
        );
        let error = answer(&authorization, caller).await.err().expect("denied");
        assert_eq!(
            error.into_response(true).headers()[&crate::head::GRPC_STATUS],
            "7"
        );
        assert!(authorization.admit_bytes(caller.map(Into::into)).is_err());
    }
}

#[tokio::test]
async fn a_right_that_is_taken_away_is_gone_with_the_next_request_and_an_audit_takes_none() {
    let authorization = Arc::new(Shared::default());
    authorization.reconfigure(Some(&enforced(only(CHECKOUT))), &service());
    assert!(answer(&authorization, Some(CHECKOUT)).await.is_ok());
    authorization.reconfigure(Some(&enforced(only("spiffe://a/ns/b/sa/c"))), &service());
    assert!(answer(&authorization, Some(CHECKOUT)).await.is_err());
    let audit = Authorization {
        audited: Some(only("spiffe://a/ns/b/sa/c")),
        ..enforced(only(CHECKOUT))
    };
    authorization.reconfigure(Some(&audit), &service());
    assert!(answer(&authorization, Some(CHECKOUT)).await.is_ok());
    authorization.reconfigure(None, &service());
    assert!(answer(&authorization, None).await.is_ok());
}

/// What an open connection finds out about its right by now.
async fn is_cut(right: &mut Right) -> bool {
    tokio::time::timeout(Duration::from_secs(1), right.taken_away())
        .await
        .is_ok()
}

/// Planted: asking once, when the connection is opened.
#[tokio::test(start_paused = true)]
async fn connections_on_which_nobody_asks_again_end_with_the_right_to_them() {
    const OTHER: &str = "spiffe://a/ns/b/sa/c";
    let authorization = Arc::new(Shared::default());
    let upgraded = async |caller: &str| {
        let mut response = asked(&authorization, Some(caller), true)
            .await
            .expect("it may");
        let right = response.extensions_mut().remove::<Right>();
        right.expect("an upgrade knows by what right it is there")
    };
    let bytes = |caller: &str| {
        authorization
            .admit_bytes(Some(caller.into()))
            .expect("it may")
    };
    let mut rights = [
        bytes(CHECKOUT),
        upgraded(CHECKOUT).await,
        bytes(OTHER),
        upgraded(OTHER).await,
    ];
    let mut cut = async |said: Option<&Authorization>| {
        authorization.reconfigure(said, &service());
        let mut cut = [false; 4];
        for (cut, right) in cut.iter_mut().zip(&mut rights) {
            *cut = is_cut(right).await;
        }
        cut
    };
    let everybody = AccessRules::default();
    let audit = Authorization {
        audited: Some(only(OTHER)),
        ..enforced(everybody)
    };
    assert_eq!(
        cut(Some(&audit)).await,
        [false; 4],
        "an audit cuts nobody off"
    );
    let checkout = enforced(only(CHECKOUT));
    assert_eq!(cut(Some(&checkout)).await, [false, false, true, true]);
    assert_eq!(
        cut(Some(&checkout)).await,
        [false; 4],
        "the same again is no news"
    );
    assert_eq!(cut(None).await, [false; 4]);
    assert_eq!(
        cut(Some(&enforced(only(OTHER)))).await,
        [true, true, false, false]
    );
}

/// A call whose answer is what `app` makes of it.
async fn call<F>(
    authorization: &Arc<Shared>,
    body: Body,
    app: impl Fn(Box<Request>) -> F + Clone + Send + 'static,
) -> Answer
where
    F: Future<Output = Answer> + Send + 'static,
{
    let authorization = authorization.clone();
    let request = Box::new(Request {
        head: http::Request::new(()).into_parts().0,
        body,
        context: RequestContext {
            caller: Some(CHECKOUT.into()),
            ..RequestContext::opaque(0)
        },
    });
    let layer = AuthorizeLayer { authorization };
    layer.layer(service_fn(app)).call(request).await
}

/// A body of which a byte has come and no more will, and what sends it: when that is dropped it ends.
async fn open_body(content_type: &'static str) -> (Response<Body>, tokio::io::DuplexStream) {
    let (client, mut server) = tokio::io::duplex(1024);
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(client));
    let (mut sender, connection) = handshake.await.expect("nothing is sent yet");
    tokio::spawn(connection);
    let request = http::Request::get("/").body(Body::empty());
    let asked = tokio::spawn(sender.send_request(request.expect("a request")));
    let asks = server.read(&mut [0; 1024]).await.expect("the request");
    assert!(asks > 0);
    let head =
        format!("HTTP/1.1 200 OK\r\ncontent-type: {content_type}\r\ncontent-length: 99\r\n\r\na");
    server.write_all(head.as_bytes()).await.expect("it is open");
    let response = asked.await.expect("it ends").expect("a head");
    let response = Guard::new(|_| ()).settle(Ok(response.map(Body::from)));
    (response.expect("a response"), server)
}

fn nobody() -> Authorization {
    enforced(only("spiffe://a/ns/b/sa/c"))
}

/// Planted: what is under way goes on for as long as it likes.
#[tokio::test(start_paused = true)]
async fn a_call_that_loses_its_right_may_end_and_is_cut_when_it_does_not() {
    let authorization = Arc::new(Shared::default());
    let never = |_: Box<Request>| std::future::pending();
    let cut = async |before: Option<&Authorization>| {
        let started = Instant::now();
        authorization.reconfigure(before, &service());
        let waits = call(&authorization, Body::empty(), never);
        let edits = async {
            tokio::time::sleep(Duration::from_secs(60)).await;
            authorization.reconfigure(Some(&nobody()), &service());
            tokio::time::sleep(Duration::from_secs(4)).await;
            authorization.reconfigure(Some(&enforced(only(CHECKOUT))), &service());
            tokio::time::sleep(Duration::from_secs(60)).await;
            authorization.reconfigure(Some(&nobody()), &service());
            std::future::pending::<()>().await;
        };
        let error = tokio::select! {
            answer = waits => answer.err().expect("there is none"),
            () = edits => unreachable!("it never ends"),
        };
        assert!(matches!(error, Error::Denied { .. }), "{error}");
        started.elapsed().as_secs()
    };
    for before in [None, Some(enforced(only(CHECKOUT)))] {
        assert_eq!(cut(before.as_ref()).await, 60 + 4 + 60 + 5);
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_goes_on_is_cut_in_its_own_protocol_and_an_audit_cuts_none() {
    for (content_type, grpc) in [("application/grpc", true), ("text/event-stream", false)] {
        let authorization = Arc::new(Shared::default());
        let (answer, _open) = open_body(content_type).await;
        let answer = Arc::new(std::sync::Mutex::new(Some(answer)));
        let app = move |_: Box<Request>| {
            let answer = answer.lock().expect("nobody panics").take();
            async move { Ok(answer.expect("it is called once")) }
        };
        let response = call(&authorization, Body::empty(), app).await;
        let mut body = response.expect("it may").into_body();
        body.frame().await.expect("a byte").expect("no error");
        let hour = Duration::from_secs(3600);
        if !grpc {
            let audit = Authorization {
                audited: Some(only("spiffe://a/ns/b/sa/c")),
                ..enforced(AccessRules::default())
            };
            authorization.reconfigure(Some(&audit), &service());
            let quiet = tokio::time::timeout(hour, body.frame()).await;
            assert!(quiet.is_err(), "an audit has cut it");
        }
        let since = Instant::now();
        let edit = async {
            // While it waits and nothing passes.
            tokio::time::sleep(Duration::from_secs(60)).await;
            authorization.reconfigure(Some(&nobody()), &service());
            std::future::pending::<()>().await;
        };
        let end = tokio::select! {
            // The body is not looked at once more because the policy was edited: something must wake it.
            biased;
            end = tokio::time::timeout(hour, body.frame()) => end,
            () = edit => unreachable!("it never ends"),
        };
        let end = end.expect("it is cut").expect("not as if it were whole");
        assert_eq!(since.elapsed().as_secs(), 60 + 5);
        match end {
            Ok(frame) if grpc => {
                let trailers = frame.into_trailers().expect("trailers");
                assert_eq!(trailers[&crate::head::GRPC_STATUS], "7");
            }
            Err(error) if !grpc => {
                assert!(error.to_string().contains("may not be called"), "{error}")
            }
            other => panic!("{content_type}: {:?}", other.map(|_| ())),
        }
    }
}

/// Whoever does not read what it is told may not go on sending, either.
#[tokio::test(start_paused = true)]
async fn what_is_sent_ends_with_the_right_to_send_it_whether_or_not_the_answer_is_read() {
    let authorization = Arc::new(Shared::default());
    let (upload, mut caller) = open_body("text/plain").await;
    let (pass, mut passed) = tokio::sync::mpsc::unbounded_channel();
    let app = move |mut request: Box<Request>| {
        let pass = pass.clone();
        tokio::spawn(async move {
            while let Some(frame) = request.body.frame().await {
                let _ = pass.send(frame.is_ok());
            }
        });
        async { Ok(open_body("text/plain").await.0) }
    };
    let _unread = call(&authorization, upload.into_body(), app)
        .await
        .expect("it may");
    assert_eq!(passed.recv().await, Some(true));
    authorization.reconfigure(Some(&nobody()), &service());
    for _ in 0..6 {
        caller.write_all(b"b").await.expect("it is open");
        assert_eq!(passed.recv().await, Some(true));
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let _ = caller.write_all(b"c").await; // it may have been cut by now
    assert_eq!(passed.recv().await, Some(false), "it is sent still");
}
