use http::Method;
use tower::service_fn;
use weir_config::units::{self, Count};

use super::*;
use crate::endpoints::tests::pool;
use crate::error::ConnectError;

const DEADLINE: Duration = Duration::from_secs(12);

fn layer(attempts: u32, per_try_secs: Option<u64>) -> RetryLayer {
    let retries = Retries {
        attempts: Count::of(attempts),
        per_try_timeout: per_try_secs.map(units::Duration::from_secs),
        backoff_base: units::Duration::from_millis(0),
        ..Retries::default()
    };
    RetryLayer {
        budget: Arc::new(Mutex::new(Budget::new(retries.budget, Instant::now()))),
        retries: Arc::new(retries),
        endpoints: pool(1),
        metrics: Arc::new(BackendMetrics::new("boutique/catalog:3550")),
        hedges: false,
    }
}

fn request(method: Method) -> Box<Request> {
    let mut head = http::Request::new(()).into_parts().0;
    let idempotent = crate::request::is_idempotent(&method)
        || head.headers.contains_key(&crate::head::IDEMPOTENCY_KEY);
    head.method = method;
    Box::new(Request {
        head,
        body: Body::empty(),
        context: RequestContext {
            deadline: Deadline::after(DEADLINE, Instant::now()),
            idempotent,
            upgrade: false,
            ..RequestContext::opaque(0)
        },
    })
}

/// How long each try of the request may take when every one meets a black hole.
async fn tries(layer: RetryLayer, request: Box<Request>) -> Vec<Duration> {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let black_hole = {
        let seen = seen.clone();
        service_fn(move |request: Box<Request>| {
            let RequestContext {
                try_until,
                deadline,
                share,
                ..
            } = request.context;
            let share = share.map_or(Deadline::NEVER, |share| share.until);
            let try_until = deadline.min(try_until).min(share);
            let left = try_until
                .remaining(Instant::now())
                .expect("there is an end");
            seen.lock().expect("not poisoned").push(left);
            async move {
                tokio::time::sleep(left).await;
                Err(if try_until == deadline {
                    Error::DeadlineExceeded { at: None }
                } else {
                    Error::PerTryTimeout {
                        address: ([127, 0, 0, 1], 1).into(),
                    }
                })
            }
        })
    };
    let answer: Answer = layer.layer(black_hole).call(request).await;
    assert!(answer.is_err());
    let seen = seen.lock().expect("not poisoned");
    seen.clone()
}

fn secs<const N: usize>(secs: [u64; N]) -> [Duration; N] {
    secs.map(Duration::from_secs)
}

#[tokio::test(start_paused = true)]
async fn a_black_hole_has_no_more_than_its_share_of_the_deadline() {
    let get = || request(Method::GET);
    assert_eq!(tries(layer(2, None), get()).await, secs([6, 6]));
    assert_eq!(tries(layer(3, None), get()).await, secs([4, 4, 4]));
    assert_eq!(tries(layer(3, Some(2)), get()).await, secs([2, 2, 2]));
    assert_eq!(tries(layer(2, Some(9)), get()).await, secs([6, 6]));
}

#[tokio::test(start_paused = true)]
async fn a_request_without_a_second_try_has_all_the_time_that_the_policy_gives_one() {
    let post = || request(Method::POST);
    assert_eq!(tries(layer(2, None), post()).await, secs([12]));
    assert_eq!(tries(layer(2, Some(3)), post()).await, secs([3]));
    assert_eq!(
        tries(layer(1, Some(3)), request(Method::GET)).await,
        secs([3])
    );
}

/// Half of its time was kept for a try that nobody would have made, and what takes longer than that failed.
#[tokio::test(start_paused = true)]
async fn a_try_has_all_the_time_where_the_policy_makes_no_other_of_what_takes_too_long() {
    let on = |unavailable| {
        let mut layer = layer(2, None);
        let retries = Arc::make_mut(&mut layer.retries);
        retries.on.unavailable = unavailable;
        retries.on.server_error = true;
        layer
    };
    assert_eq!(
        tries(on(false), request(Method::GET)).await,
        secs([12]),
        "it is not left with its endpoint either"
    );
    assert_eq!(tries(on(true), request(Method::GET)).await, secs([6, 6]));
    let leaves = Arc::new(Mutex::new(Vec::new()));
    let asked = leaves.clone();
    let answers = service_fn(move |request: Box<Request>| {
        let replayable = request.context.replayable;
        asked.lock().expect("not poisoned").push(replayable);
        std::future::ready(Ok(Response::new(Body::empty())))
    });
    for unavailable in [false, true] {
        let mut stack = on(unavailable).layer(answers.clone());
        let answer: Answer = stack.call(request(Method::GET)).await;
        assert!(answer.is_ok());
    }
    let leaves = leaves.lock().expect("not poisoned");
    assert_eq!(*leaves, [false, true], "whether it leaves who is ejected");
}

#[tokio::test(start_paused = true)]
async fn each_try_goes_out_whole_and_knows_where_the_others_failed() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let unreachable = {
        let seen = seen.clone();
        service_fn(move |request: Box<Request>| {
            let tried = request.context.tried.len();
            let headers = &request.head.headers;
            let mut seen = seen.lock().expect("not poisoned");
            seen.push((
                tried,
                headers["x-own"].clone(),
                headers.contains_key(&head::ATTEMPT),
            ));
            let address = ([127, 0, 0, 1], 1000 + tried as u16).into();
            let limit = Duration::from_secs(1);
            std::future::ready(Err(ConnectError::Timeout { address, limit }.into()))
        })
    };
    let mut request = request(Method::POST);
    let own = HeaderValue::from_static("kept");
    request.head.headers.insert("x-own", own.clone());
    let answer: Answer = layer(2, None).layer(unreachable).call(request).await;
    assert!(matches!(answer, Err(Error::Connect(_))));
    // The first repetition of what reached nobody does not count as an attempt.
    let expected = [
        (0, own.clone(), false),
        (1, own.clone(), false),
        (2, own, true),
    ];
    assert_eq!(*seen.lock().expect("not poisoned"), expected);
}

/// A sidecar whose app has too much to do says along with that when to come back, so all were held for a second whose
/// deadline let them; the others failed although two of three had room.
#[tokio::test(start_paused = true)]
async fn who_is_turned_away_by_one_busy_endpoint_goes_to_another_at_once() {
    for (endpoints, millis) in [(3, 0), (1, 1000)] {
        let mut layer = layer(2, None);
        layer.endpoints = pool(endpoints);
        let busy = layer.endpoints.list()[0].address();
        let sheds = service_fn(move |request: Box<Request>| {
            let mut response = Response::new(Body::empty());
            response.body_mut().endpoint = Some(busy);
            if request.context.tried.is_empty() {
                *response.status_mut() = http::StatusCode::SERVICE_UNAVAILABLE;
                let headers = response.headers_mut();
                headers.insert(&head::OVERLOAD, HeaderValue::from_static("local"));
                headers.insert(http::header::RETRY_AFTER, HeaderValue::from_static("1"));
            }
            std::future::ready(Ok(response))
        });
        let begun = Instant::now();
        let answer: Answer = layer.layer(sheds).call(request(Method::POST)).await;
        assert_eq!(answer.expect("an answer").status(), 200);
        assert_eq!(begun.elapsed(), Duration::from_millis(millis));
    }
}

/// Where nothing is retried nothing was earned, and after ten hedges there were no more.
#[tokio::test(start_paused = true)]
async fn what_is_not_retried_earns_hedges_all_the_same() {
    for (status, earned) in [(200, 100), (503, 0)] {
        let layer = layer(1, None);
        let budget = layer.budget.clone();
        let tokens = || budget.lock().expect("not poisoned").tokens().0;
        while tokens() >= 1000 {
            let paid = (budget.lock().expect("not poisoned"))
                .withdraw(crate::policy::budget::ATTEMPT, Instant::now());
            assert!(paid);
        }
        let before = tokens();
        let says = service_fn(move |_: Box<Request>| {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = http::StatusCode::from_u16(status).expect("a status");
            std::future::ready(Ok(response))
        });
        let answer: Answer = layer.layer(says).call(request(Method::GET)).await;
        assert_eq!(answer.expect("an answer").status(), status);
        assert_eq!(tokens(), before + earned);
    }
}

mod trailers {
    //! A gRPC call that fails behind its head.

    use bytes::Bytes;
    use http::{HeaderMap, HeaderValue};
    use http_body_util::BodyExt;
    use tokio::net::TcpListener;

    use super::*;
    use crate::endpoints::tests::pool_at;
    use crate::layer::alternate::Alternate;
    use crate::layer::attempt::{Attempt, Sockets};
    use crate::layer::fallback::{Choices, FallbackLayer};
    use crate::layer::fault;
    use crate::pipeline::Stack;
    use crate::request::Protocol;
    use crate::telemetry::FallbackMetrics;

    #[derive(Clone, Copy)]
    enum Says {
        Nothing,
        Message,
        Wait(Duration),
        Status(&'static str),
    }
    use Says::{Message, Nothing, Status, Wait};

    /// An app whose answers have a head, and then each what it is told to say. It never says more.
    async fn app(answers: Vec<Vec<Says>>) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let address = listener.local_addr().expect("it is bound");
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.expect("a sidecar");
            stream.set_nodelay(true).expect("a socket");
            let connection = h2::server::handshake(stream).await;
            let mut connection = connection.expect("a connection");
            let mut answers = answers.into_iter();
            while let Some(Ok((_, mut respond))) = connection.accept().await {
                let said = answers.next().expect("no more calls than answers");
                tokio::spawn(async move {
                    let head = Response::builder().header("content-type", "application/grpc");
                    let head = head.body(()).expect("a head");
                    let mut stream = respond.send_response(head, false).expect("a stream");
                    for says in said {
                        match says {
                            Nothing => std::future::pending().await,
                            Wait(time) => tokio::time::sleep(time).await,
                            Message => {
                                let message = Bytes::from_static(&[0, 0, 0, 0, 1, b'm']);
                                stream.send_data(message, false).expect("a stream");
                            }
                            Status(status) => {
                                let status = HeaderValue::from_static(status);
                                let status = [(head::GRPC_STATUS.clone(), status)];
                                let status = HeaderMap::from_iter(status);
                                stream.send_trailers(status).expect("a stream");
                            }
                        }
                    }
                });
            }
        });
        address
    }

    struct Called {
        answer: Response<Body>,
        budget: Arc<Mutex<Budget>>,
    }

    async fn call(idempotent: bool, answers: Vec<Vec<Says>>) -> Called {
        let over = |call: Retry<Attempt>| call;
        call_over(layer(2, None), over, idempotent, answers).await
    }

    /// `over`: what is above the retries.
    async fn call_over<S: Call>(
        layer: RetryLayer,
        over: impl FnOnce(Retry<Attempt>) -> S,
        idempotent: bool,
        answers: Vec<Vec<Says>>,
    ) -> Called {
        let endpoints = pool_at(&[app(answers).await]);
        let layer = RetryLayer {
            endpoints: endpoints.clone(),
            ..layer
        };
        let budget = layer.budget.clone();
        let mut request = request(Method::POST);
        request.head.uri = "http://app/a.B/C".parse().expect("a path");
        request.context.grpc = true;
        request.context.protocol = Protocol::Http2;
        request.context.idempotent = idempotent;
        let attempt = Attempt {
            endpoints,
            faults: Arc::new(fault::Shared::new("a/b:1".into())),
            transport: Sockets,
        };
        let answer = over(layer.layer(attempt)).call(request).await;
        Called {
            answer: answer.unwrap_or_else(|error| panic!("{error}")),
            budget,
        }
    }

    impl Called {
        /// Bytes of messages, and the status behind them.
        async fn read(self) -> (usize, String) {
            let whole = self.answer.into_body().collect().await.expect("no reset");
            let status = whole.trailers().map(|it| it[&head::GRPC_STATUS].clone());
            let status = status.expect("it has trailers");
            let status = status.to_str().expect("a number").to_owned();
            (whole.to_bytes().len(), status)
        }
    }

    fn good() -> Vec<Says> {
        vec![Message, Status("0")]
    }

    /// Only a status in the head was tried again, and the others were taken for success: they earned tokens.
    #[tokio::test]
    async fn a_status_behind_the_head_is_tried_again_while_no_message_has_passed() {
        let soon = Duration::from_millis(2);
        for failed in [vec![Status("14")], vec![Wait(soon), Status("14")]] {
            let called = call(true, vec![failed, good()]).await;
            assert_eq!(called.read().await, (6, "0".to_owned()));
        }
        let called = call(true, vec![vec![Message, Status("14")]]).await;
        assert_eq!(called.read().await, (6, "14".to_owned()));
    }

    #[tokio::test]
    async fn what_may_not_be_tried_again_is_passed_on_as_it_came_and_earns_nothing() {
        for (idempotent, status) in [(false, "14"), (true, "5")] {
            let called = call(idempotent, vec![vec![Status(status)]]).await;
            assert_eq!(called.read().await, (0, status.to_owned()));
        }
        let tokens = |called: &Called| called.budget.lock().expect("not poisoned").tokens();
        let failed = call(true, vec![vec![Status("14")], vec![Status("14")]]).await;
        assert!(tokens(&failed) < crate::policy::budget::Millitokens(9_050));
        assert_eq!(failed.read().await, (0, "14".to_owned()));
    }

    #[tokio::test]
    async fn the_head_of_a_stream_that_says_nothing_yet_is_not_kept_from_its_caller() {
        let called = call(true, vec![vec![Nothing]]);
        let called = tokio::time::timeout(DEADLINE / 2, called).await;
        let head = called.expect("it is there").answer.into_parts().0;
        assert!(head.headers.contains_key("content-type"));
    }

    /// On a route that hedges all heads waited, those too of calls that are made once.
    #[tokio::test]
    async fn the_head_of_what_may_not_be_hedged_is_not_kept_from_its_caller_for_a_moment() {
        let mut fastest = DEADLINE;
        for _ in 0..5 {
            let begun = Instant::now();
            let layer = RetryLayer {
                hedges: true,
                ..layer(2, None)
            };
            let called = call_over(layer, |call| call, false, vec![vec![Nothing]]).await;
            fastest = fastest.min(begun.elapsed());
            drop(called);
        }
        assert!(fastest < Duration::from_millis(45), "{fastest:?}");
    }

    /// What failed behind its head was tried again, and then passed on, while an alternate stood by.
    #[tokio::test]
    async fn what_fails_behind_its_head_is_asked_of_an_alternate() {
        let soon = Duration::from_millis(2);
        for last in [vec![Status("14")], vec![Wait(soon), Status("14")]] {
            let other = service_fn(|request: Box<Request>| {
                assert!(request.context.stands_in);
                let mut response = Response::new(Body::full("other".into()));
                let good = HeaderValue::from_static("0");
                response.headers_mut().insert(&head::GRPC_STATUS, good);
                std::future::ready(Ok(response))
            });
            let fallback = FallbackLayer::new(Choices {
                stale: None,
                alternate: Some(Alternate {
                    service: "a/spare:1".into(),
                    stack: Stack::new(other),
                    deadline: None,
                }),
                fixed: None,
                metrics: FallbackMetrics::new("a/b:1"),
            });
            let over = |call: Retry<Attempt>| fallback.layer(call);
            let answers = vec![vec![Status("14")], last];
            let called = call_over(layer(2, None), over, true, answers).await;
            let degraded = called.answer.headers().get(&head::DEGRADED).cloned();
            assert_eq!(degraded.expect("it stands in"), "alternate");
        }
    }
}
