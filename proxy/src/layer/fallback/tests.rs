use std::sync::Mutex;
use std::time::Duration;

use http::Method;
use http_body_util::BodyExt;
use tower::service_fn;

use super::*;
use crate::body::Body;
use crate::layer::Answer;
use crate::layer::deadline::DeadlineLayer;
use crate::pipeline::Stack;
use crate::policy::deadline::Deadline;
use crate::policy::outcome::Fault;
use crate::replay::Replay;
use crate::request::Protocol;

/// What a server says, and what it was asked.
#[derive(Clone)]
struct Server {
    answer: Arc<Mutex<fn() -> Answer>>,
    asked: Arc<Mutex<Vec<Asked>>>,
}

struct Asked {
    body: String,
    context: RequestContext,
}

impl Server {
    fn new(answer: fn() -> Answer) -> Self {
        Self {
            answer: Arc::new(Mutex::new(answer)),
            asked: Arc::default(),
        }
    }

    fn says(&self, answer: fn() -> Answer) {
        *self.answer.lock().unwrap() = answer;
    }

    fn asked(&self) -> usize {
        self.asked.lock().unwrap().len()
    }

    fn stack(&self) -> Stack {
        let server = self.clone();
        Stack::new(service_fn(move |request: Box<Request>| {
            let server = server.clone();
            async move {
                let body = request.body.collect().await.map_err(Error::Aborted)?;
                let body = body.to_bytes();
                let body = String::from_utf8(body.to_vec()).expect("text");
                let context = request.context;
                server.asked.lock().unwrap().push(Asked { body, context });
                let answer = *server.answer.lock().unwrap();
                answer()
            }
        }))
    }
}

fn page() -> Answer {
    let mut response = Response::new(Body::full("page".into()));
    response
        .headers_mut()
        .insert("etag", HeaderValue::from_static("\"1\""));
    Ok(response)
}

fn status(status: u16) -> Answer {
    let mut response = Response::new(Body::full("sorry".into()));
    *response.status_mut() = StatusCode::from_u16(status).expect("a status");
    Ok(response)
}

fn nobody() -> Answer {
    Err(Error::NoEndpoints {
        service: "a/b:1".into(),
    })
}

fn reset() -> Answer {
    Err(Error::Upstream {
        address: "127.0.0.1:1".parse().expect("an address"),
        source: "reset".into(),
    })
}

fn request(method: Method, body: Body) -> Box<Request> {
    let idempotent = method == Method::GET;
    let head = http::Request::builder().method(method).uri("/quotes");
    let head = head.header("host", "quotes").body(()).expect("a request");
    Box::new(Request {
        head: head.into_parts().0,
        body,
        context: RequestContext {
            upgrade: false,
            idempotent,
            protocol: Protocol::Http1,
            ..RequestContext::opaque(0)
        },
    })
}

fn get() -> Box<Request> {
    request(Method::GET, Body::empty())
}

/// A body that comes in two parts, as one of a connection does.
fn post() -> Box<Request> {
    let body = Replay::new(Body::full("an order".into()));
    request(Method::POST, Body::attempt(body.attempt()))
}

fn shelf() -> Shelf {
    Shelf {
        shared: Arc::default(),
        service: "a/b:1".into(),
        age_max: Duration::from_secs(60),
    }
}

fn alternate(server: &Server) -> Alternate {
    Alternate {
        service: "a/spare:1".into(),
        stack: server.stack(),
        deadline: Some(Duration::from_secs(2)),
    }
}

fn fallback(
    primary: &Server,
    stale: Option<Shelf>,
    alternate: Option<Alternate>,
    fixed: Option<Fixed>,
) -> Fallback<Stack> {
    let choices = Choices {
        stale,
        alternate,
        fixed,
        metrics: FallbackMetrics::new("a/b:1"),
    };
    FallbackLayer::new(choices).layer(primary.stack())
}

/// Status, mark, reason, age and body.
async fn told(answer: Answer) -> (u16, String, String, String, String) {
    let (head, body) = answer.expect("an answer").into_parts();
    let header = |name: &str| {
        let value = head.headers.get(name);
        value
            .map_or("", |value| value.to_str().expect("text"))
            .to_owned()
    };
    let body = body.collect().await.expect("all of it").to_bytes();
    (
        head.status.as_u16(),
        header("x-weir-degraded"),
        header("weir-proxy-error"),
        header("age"),
        String::from_utf8(body.to_vec()).expect("text"),
    )
}

fn as_told(
    (status, mark, reason, age, body): (u16, &str, &str, &str, &str),
) -> (u16, String, String, String, String) {
    (status, mark.into(), reason.into(), age.into(), body.into())
}

const GOOD: (u16, &str, &str, &str, &str) = (200, "", "", "", "page");

#[tokio::test(start_paused = true)]
async fn a_page_that_has_passed_whole_is_given_again_with_its_age_and_marked() {
    let server = Server::new(page);
    let mut service = fallback(&server, Some(shelf()), None, None);
    assert_eq!(told(service.call(get()).await).await, as_told(GOOD));
    tokio::time::advance(Duration::from_millis(29_500)).await;
    server.says(nobody);
    let kept = (200, "stale", "no-endpoints", "30", "page");
    assert_eq!(told(service.call(get()).await).await, as_told(kept));
    let again = service.call(get()).await.expect("an answer");
    assert_eq!(again.headers()["etag"], "\"1\"", "its headers too");
    server.says(|| status(500));
    let kept = (200, "stale", "", "30", "page");
    assert_eq!(told(service.call(get()).await).await, as_told(kept));
    for own in [400, 429, 501] {
        server.says(match own {
            400 => || status(400),
            429 => || status(429),
            _ => || status(501),
        });
        let answer = told(service.call(get()).await).await;
        assert_eq!(
            answer,
            as_told((own, "", "", "", "sorry")),
            "the app's own word"
        );
    }
    server.says(nobody);
    let other = request(Method::HEAD, Body::empty());
    assert!(service.call(other).await.is_err(), "only what was asked");
    tokio::time::advance(Duration::from_secs(31)).await;
    assert!(service.call(get()).await.is_err(), "too old");
    assert_eq!(server.asked(), 9, "nobody was asked twice");
}

#[tokio::test]
async fn a_page_that_was_cut_is_too_long_or_was_written_to_is_not_given_again() {
    let server = Server::new(page);
    let mut service = fallback(&server, Some(shelf()), None, None);
    drop(service.call(get()).await.expect("an answer"));
    server.says(nobody);
    assert!(service.call(get()).await.is_err(), "nobody has read it");

    server.says(|| Ok(Response::new(Body::full(vec![b'.'; 64 * 1024 + 1].into()))));
    assert_eq!(told(service.call(get()).await).await.0, 200);
    server.says(nobody);
    assert!(service.call(get()).await.is_err(), "too long");

    server.says(page);
    assert_eq!(told(service.call(get()).await).await.0, 200);
    server.says(|| status(204));
    service.call(post()).await.expect("written");
    server.says(nobody);
    assert!(service.call(get()).await.is_err(), "it was true before");
}

/// A page that somebody had deleted came back as soon as the app failed.
#[tokio::test]
async fn a_page_of_which_a_later_answer_says_that_it_is_gone_or_secret_is_not_given_again() {
    fn with_cache_control(value: &'static str) -> Answer {
        let mut response = page()?;
        let value = HeaderValue::from_static(value);
        response.headers_mut().insert(header::CACHE_CONTROL, value);
        Ok(response)
    }
    let later: [(fn() -> Answer, bool); 7] = [
        (|| status(404), true),
        (|| status(410), true),
        (|| status(301), true),
        (|| with_cache_control("no-store"), true),
        (|| with_cache_control("private"), true),
        (|| status(304), false),
        (|| status(400), false),
    ];
    for (place, (says, outdated)) in later.into_iter().enumerate() {
        let server = Server::new(page);
        let mut service = fallback(&server, Some(shelf()), None, None);
        assert_eq!(told(service.call(get()).await).await, as_told(GOOD));
        server.says(says);
        told(service.call(get()).await).await;
        server.says(nobody);
        assert_eq!(service.call(get()).await.is_err(), outdated, "{place}");
    }
}

#[tokio::test]
async fn an_alternate_is_asked_once_with_the_whole_body_and_its_answer_is_marked() {
    let (primary, other) = (Server::new(nobody), Server::new(page));
    let mut service = fallback(&primary, None, Some(alternate(&other)), None);
    let answer = (200, "alternate", "no-endpoints", "", "page");
    assert_eq!(told(service.call(post()).await).await, as_told(answer));
    assert_eq!((primary.asked(), other.asked()), (1, 1));
    let asked = other.asked.lock().unwrap().pop().expect("it was asked");
    assert_eq!(asked.body, "an order");
    let context = asked.context;
    assert!(context.stands_in && context.is_retry, "it is the last try");
    let until = context.deadline.instant().expect("the route has one");
    assert_eq!(until, context.received + Duration::from_secs(2));

    primary.says(page);
    assert_eq!(told(service.call(get()).await).await, as_told(GOOD));
    primary.says(|| status(404));
    assert_eq!(told(service.call(get()).await).await.0, 404);
    assert_eq!(other.asked(), 0);
    primary.says(|| status(500));
    let answer = (200, "alternate", "", "", "page");
    assert_eq!(told(service.call(get()).await).await, as_told(answer));
}

#[tokio::test]
async fn what_may_have_been_done_is_not_done_by_somebody_else_as_well() {
    let (primary, other) = (Server::new(reset), Server::new(page));
    let mut service = fallback(&primary, None, Some(alternate(&other)), None);
    for (failure, may) in [
        (reset as fn() -> Answer, false),
        (|| status(503), false),
        (|| Err(Error::DeadlineExceeded { at: None }), false),
        (|| Err(Error::Internal("a bug")), false),
        (
            || {
                Err(Error::BreakerOpen {
                    service: "a/b:1".into(),
                    retry_after: Duration::ZERO,
                })
            },
            true,
        ),
        (
            || {
                status(503).map(|mut response| {
                    let yes = HeaderValue::from_static("1");
                    response.headers_mut().insert(&head::UNPROCESSED, yes);
                    response
                })
            },
            true,
        ),
        (
            || {
                status(503).map(|mut response| {
                    let whose = HeaderValue::from_static("local");
                    response.headers_mut().insert(&head::OVERLOAD, whose);
                    response
                })
            },
            true,
        ),
    ] {
        primary.says(failure);
        let before = other.asked();
        let answer = service.call(post()).await;
        assert_eq!(other.asked() - before, usize::from(may));
        assert_eq!(answer.is_ok_and(|answer| answer.status() == 200), may);
        let mut vouched = post();
        vouched.context.idempotent = true;
        assert_eq!(told(service.call(vouched).await).await.0, 200);
    }
}

#[tokio::test(start_paused = true)]
async fn an_alternate_that_fails_too_changes_nothing_and_nobody_is_asked_too_late() {
    let (primary, other) = (Server::new(reset), Server::new(nobody));
    let written = Fixed {
        grpc_status: 14,
        http_status: 503,
        message: "later".into(),
    };
    let mut bare = fallback(&primary, None, Some(alternate(&other)), None);
    let failed = bare.call(get()).await.map(drop);
    assert!(matches!(failed, Err(Error::Upstream { .. })), "{failed:?}");
    let mut service = fallback(&primary, None, Some(alternate(&other)), Some(written));
    let answer = (503, "fallback", "upstream-reset", "", "later");
    assert_eq!(told(service.call(get()).await).await, as_told(answer));
    assert_eq!(other.asked(), 2);
    // What the app says is not covered up by what is written.
    primary.says(|| status(500));
    assert_eq!(
        told(service.call(get()).await).await,
        as_told((500, "", "", "", "sorry"))
    );

    other.says(page);
    let mut late = get();
    late.context.deadline = Deadline::after(Duration::from_secs(1), late.context.received);
    tokio::time::advance(Duration::from_secs(1)).await;
    let before = other.asked();
    assert_eq!(told(service.call(late).await).await.0, 500);
    assert_eq!(other.asked(), before, "nobody waits for it any more");
}

/// Its own deadline was counted from before it was asked, and was over: it never answered, and its breaker opened.
#[tokio::test(start_paused = true)]
async fn who_stands_in_has_its_own_time_from_when_it_is_asked_and_no_more_than_the_call_has_left() {
    for (own, left, good) in [(2, 10, true), (10, 10, true), (10, 1, false)] {
        let takes = service_fn(|_: Box<Request>| async {
            tokio::time::sleep(Duration::from_millis(1500)).await;
            page()
        });
        let limit = Some(Duration::from_secs(own));
        let other = Alternate {
            service: "a/spare:1".into(),
            stack: Stack::new(DeadlineLayer { limit }.layer(takes)),
            deadline: None,
        };
        let mut service = fallback(&Server::new(reset), None, Some(other), None);
        let mut request = get();
        request.context.deadline =
            Deadline::after(Duration::from_secs(3 + left), request.context.received);
        tokio::time::advance(Duration::from_secs(3)).await;
        let answer = service.call(request).await;
        assert_eq!(answer.is_ok(), good, "{own} s of its own, {left} s left");
    }
}

#[tokio::test]
async fn who_stands_in_for_another_has_nobody_who_stands_in_for_him() {
    let (primary, other) = (Server::new(reset), Server::new(page));
    let mut service = fallback(&primary, Some(shelf()), Some(alternate(&other)), None);
    let mut request = get();
    request.context.stands_in = true;
    assert!(service.call(request).await.is_err());
    assert_eq!((primary.asked(), other.asked()), (1, 0));
}

#[tokio::test]
async fn a_grpc_status_of_failure_is_one_and_the_caller_gets_the_others_answer() {
    let failed = || {
        let mut response = Response::new(Body::empty());
        let status = HeaderValue::from_static("14");
        response.headers_mut().insert(&head::GRPC_STATUS, status);
        Ok(response)
    };
    let (primary, other) = (Server::new(failed), Server::new(page));
    let mut service = fallback(&primary, Some(shelf()), Some(alternate(&other)), None);
    let mut request = post();
    (request.context.grpc, request.context.idempotent) = (true, true);
    let answer = (200, "alternate", "", "", "page");
    assert_eq!(told(service.call(request).await).await, as_told(answer));
    let failure = Failure::of(&failed()).expect("it is one");
    assert!(!failure.reached_nobody);
    assert_eq!(outcome(&failed().unwrap()), Outcome::Failure(Fault::Hard));
}

/// Its last try reached nobody, and so it was made at another service, though the app had had the first.
#[tokio::test]
async fn a_post_that_a_rule_may_have_tried_again_is_made_nowhere_else() {
    for (codes, elsewhere) in [(vec![503], 0), (Vec::new(), 1)] {
        let (primary, other) = (Server::new(nobody), Server::new(page));
        let mut service = fallback(&primary, None, Some(alternate(&other)), None);
        let mut request = post();
        let rule = weir_config::snapshot::Rule {
            name: "HTTPRoute a/b rules[0]".into(),
            request: Default::default(),
            response: Default::default(),
            rewrite: None,
            redirect: None,
            mirrors: Vec::new(),
            backends: Vec::new(),
            deadline: None,
            per_try_timeout: None,
            retry: Some(weir_config::snapshot::RuleRetry {
                attempts: Some(2),
                codes,
                backoff: None,
            }),
        };
        request.context.terms = Some(Arc::new(Terms::new(&rule)));
        let _ = service.call(request).await;
        assert_eq!((primary.asked(), other.asked()), (1, elsewhere));
    }
}

fn fixed() -> Fixed {
    Fixed {
        grpc_status: 5,
        http_status: 204,
        message: "nothing today".into(),
    }
}

fn late() -> Answer {
    Err(Error::DeadlineExceeded { at: None })
}

#[tokio::test]
async fn what_nobody_answered_is_answered_in_the_callers_protocol_and_marked() {
    let mut service = fallback(&Server::new(late), None, None, Some(fixed()));
    let answer = (204, "fallback", "deadline-exceeded", "", "nothing today");
    assert_eq!(told(service.call(get()).await).await, as_told(answer));
    let mut request = post();
    request.context.grpc = true;
    let response = service.call(request).await.expect("an answer");
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["grpc-status"], "5");
    assert_eq!(response.headers()["grpc-message"], "nothing today");
    assert_eq!(response.headers()["x-weir-degraded"], "fallback");
}

#[tokio::test]
async fn what_the_caller_did_wrong_and_what_the_app_itself_answered_are_not_covered_up() {
    let wrong = Server::new(|| Err(Error::BadRequest("two Host headers")));
    let refused = fallback(&wrong, None, None, Some(fixed())).call(get());
    assert!(matches!(refused.await, Err(Error::BadRequest(_))));
    let own = Server::new(|| status(500));
    let answer = fallback(&own, None, None, Some(fixed())).call(get()).await;
    assert_eq!(told(answer).await, as_told((500, "", "", "", "sorry")));
}

/// The alternate has ten places, and whoever flooded had them all.
#[tokio::test]
async fn who_is_above_a_rate_limit_is_told_so() {
    fn limited(grpc: bool) -> Answer {
        let error = Error::RateLimited {
            service: "app".into(),
            per: "caller",
            retry_after: Duration::from_secs(1),
        };
        Ok(error.into_response(grpc))
    }
    let says: [(fn() -> Answer, bool); 3] = [
        (|| limited(false), false),
        (|| limited(true), true),
        (|| status(429), false),
    ];
    for (says, grpc) in says {
        let (primary, other) = (Server::new(page), Server::new(page));
        let choices = (Some(shelf()), Some(alternate(&other)), Some(fixed()));
        let mut service = fallback(&primary, choices.0, choices.1, choices.2);
        drop(told(service.call(get()).await).await);
        primary.says(says);
        let mut request = get();
        request.context.grpc = grpc;
        let response = service.call(request).await.expect("an answer");
        assert_eq!(response.status(), if grpc { 200 } else { 429 });
        assert!(!response.headers().contains_key(&DEGRADED));
        assert_eq!(other.asked(), 0);
    }
}
