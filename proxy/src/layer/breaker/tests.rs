use std::sync::atomic::{AtomicU32, Ordering};

use futures_util::FutureExt;
use http::{HeaderValue, Response, StatusCode};
use tokio::sync::mpsc;
use tower::service_fn;
use weir_config::pb;
use weir_config::snapshot::Force;
use weir_config::units::Count;

use super::*;
use crate::body::Body;
use crate::error::PROXY_ERROR;
use crate::facts;
use crate::head;
use crate::layer::deadline::DeadlineLayer;
use crate::layer::limit::{self, LimitLayer};
use crate::policy::breaker::ForcedBy;
use crate::request::Context as RequestContext;

/// A service of which every call fails, and the breaker before it.
struct World {
    breaker: Arc<Shared>,
    asked: AtomicU32,
    told: Mutex<mpsc::Receiver<pb::Fact>>,
}

impl World {
    /// Two failures open it.
    fn new() -> Self {
        let config = Config {
            minimum_calls: Count::of(2),
            ..Config::default()
        };
        let service: Arc<str> = "breaker/layer:1".into();
        let metrics = Arc::new(BackendMetrics::new(&service));
        let (facts, told) = facts::channel();
        let route = String::new();
        Self {
            breaker: Arc::new(Shared::new(
                Some(config),
                Mode::Enforce,
                service,
                route,
                facts,
                metrics,
            )),
            asked: AtomicU32::new(0),
            told: Mutex::new(told),
        }
    }

    /// Of a service that says nothing, by callers who wait for that long.
    async fn hang(&'static self, limit: Duration, patience: Duration) -> Answer {
        let silent = service_fn(|_: Box<Request>| std::future::pending::<Answer>());
        let deadline = DeadlineLayer { limit: Some(limit) };
        let layer = BreakerLayer {
            breaker: self.breaker.clone(),
            deadline: Some(limit),
        };
        let mut request = request();
        request.context.deadline = Deadline::after(patience, request.context.received);
        layer.layer(deadline.layer(silent)).call(request).await
    }

    async fn ask(&'static self, service: impl Call) -> Answer {
        let layer = BreakerLayer {
            breaker: self.breaker.clone(),
            deadline: None,
        };
        layer.layer(service).call(request()).await
    }

    /// The head of an answer that goes on for as long as it is kept.
    async fn stream(&'static self) -> Answer {
        let says = |_: Box<Request>| ready(Ok(Response::new(Body::full("and so on".into()))));
        self.ask(service_fn(says)).await
    }

    async fn call(&'static self, mode: Mode) -> Answer {
        let observes = mode == Mode::Observe;
        self.breaker.observes.store(observes, Ordering::Relaxed);
        let failing = service_fn(|_: Box<Request>| {
            self.asked.fetch_add(1, Ordering::Relaxed);
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
            ready(Ok(response))
        });
        let layer = BreakerLayer {
            breaker: self.breaker.clone(),
            deadline: None,
        };
        layer.layer(failing).call(request()).await
    }

    /// And whether it is forced.
    fn state(&self) -> (Phase, bool) {
        let status = self.breaker.status();
        (status.phase, status.forced)
    }

    /// Of each fact since it was last asked for: the state, and whether nobody is refused by it.
    fn told(&self) -> Vec<(pb::BreakerState, bool)> {
        let mut told = self.told.lock().expect("no panic while locked");
        std::iter::from_fn(|| told.try_recv().ok())
            .filter_map(|fact| match fact.fact? {
                pb::fact::Fact::BreakerChanged(it) => Some((it.to(), it.observed)),
                _ => None,
            })
            .collect()
    }

    fn asked(&self) -> u32 {
        self.asked.load(Ordering::Relaxed)
    }
}

#[tokio::test(start_paused = true)]
async fn a_service_that_only_streams_is_called_again_after_it_failed() {
    let world = world();
    for _ in 0..2 {
        drop(world.call(Mode::Enforce).await.expect("an answer"));
    }
    tokio::time::advance(Duration::from_secs(6)).await;
    let mut streams = Vec::new();
    for _ in 0..5 {
        streams.push(world.stream().await.expect("a probe"));
    }
    assert!(world.stream().await.is_err(), "there are enough of them");
    tokio::time::advance(Duration::from_secs(10)).await;
    streams.push(world.stream().await.expect("it is closed"));
    assert_eq!(world.state(), (Phase::Closed, false));
}

#[tokio::test(start_paused = true)]
async fn who_asks_more_often_than_it_may_is_no_reason_to_stop_asking() {
    for (status, header, then) in [
        (429, None, Phase::Closed),
        (200, Some((&PROXY_ERROR, "rate-limited")), Phase::Closed),
        (503, Some((&head::OVERLOAD, "local")), Phase::Open),
        (429, Some((&head::OVERLOAD, "local")), Phase::Open),
    ] {
        let world = world();
        let says = move |_: Box<Request>| {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::from_u16(status).expect("a status");
            let headers = response.headers_mut();
            if status == 200 {
                headers.insert(&head::GRPC_STATUS, HeaderValue::from_static("8"));
            }
            if let Some((name, value)) = header {
                headers.insert(name, HeaderValue::from_static(value));
            }
            ready(Ok(response))
        };
        for _ in 0..2 {
            drop(world.ask(service_fn(says)).await.expect("an answer"));
        }
        assert_eq!(world.state(), (then, false), "{status}");
    }
}

/// A burst of one caller's own opened it, with nothing wrong with the service.
#[tokio::test(start_paused = true)]
async fn what_this_sidecar_refuses_is_no_word_about_the_service() {
    let full: fn() -> Error = || Error::QueueFull {
        service: "a/b:1".into(),
    };
    let busy: fn() -> Error = || Error::NoEndpointAvailable {
        service: "a/b:1".into(),
        ejected: 0,
        draining: 0,
        busy: 2,
    };
    let gone: fn() -> Error = || Error::NoEndpointAvailable {
        service: "a/b:1".into(),
        ejected: 2,
        draining: 0,
        busy: 0,
    };
    for (error, then) in [
        (full, Phase::Closed),
        (busy, Phase::Closed),
        (gone, Phase::Open),
    ] {
        let world = world();
        for _ in 0..2 {
            let refused = world.ask(service_fn(move |_: Box<Request>| ready(Err(error()))));
            assert!(refused.await.is_err());
        }
        assert_eq!(world.state(), (then, false), "{}", error());
    }
}

fn request() -> Box<Request> {
    Box::new(Request {
        head: http::Request::new(()).into_parts().0,
        body: Body::empty(),
        context: RequestContext::opaque(0),
    })
}

/// Calls that may not be repeated (POST, most of gRPC) end by the deadline and by nothing else: it stayed closed in the
/// very outage it is for.
#[tokio::test(start_paused = true)]
async fn a_service_that_hangs_until_the_policys_deadline_opens_it_and_a_hasty_caller_does_not() {
    let (second, world) = (Duration::from_secs(1), world());
    for _ in 0..10 {
        let ended = world.hang(second, second / 2).await;
        assert!(matches!(ended, Err(Error::DeadlineExceeded { .. })));
    }
    assert_eq!(world.state(), (Phase::Closed, false));
    for _ in 0..2 {
        let ended = world.hang(second, 5 * second).await;
        assert!(matches!(ended, Err(Error::DeadlineExceeded { .. })));
    }
    assert_eq!(world.state(), (Phase::Open, false));
}

/// Calls that never got a place opened it, with nobody asked.
#[tokio::test(start_paused = true)]
async fn whose_time_is_up_while_it_waits_for_a_place_is_no_word_about_the_service() {
    let (second, world) = (Duration::from_secs(1), world());
    let limit = limit::Shared::new("breaker/layer:1".into(), 1, 10, 10 * second);
    let limit = LimitLayer {
        limit: Arc::new(limit),
    };
    let silent = service_fn(|_: Box<Request>| std::future::pending::<Answer>());
    let mut held = limit.layer(silent).call(request());
    assert!((&mut held).now_or_never().is_none(), "it has the place");
    let layer = BreakerLayer {
        breaker: world.breaker.clone(),
        deadline: Some(second),
    };
    let deadline = DeadlineLayer {
        limit: Some(second),
    };
    let mut service = layer.layer(deadline.layer(limit.layer(silent)));
    for _ in 0..10 {
        let begun = Instant::now();
        let ended = service.call(request()).await;
        assert!(matches!(ended, Err(Error::QueueTimeout { .. })));
        assert_eq!(begun.elapsed(), second);
    }
    assert_eq!(world.state(), (Phase::Closed, false));
    drop(held);
    assert_eq!(limit.limit.load(), (0, 0));
}

/// A call that stands in for another comes late, and what it then has may be little.
#[tokio::test(start_paused = true)]
async fn the_time_that_a_call_took_elsewhere_is_not_held_against_a_service_that_stands_in() {
    let (second, world) = (Duration::from_secs(1), world());
    let layer = BreakerLayer {
        breaker: world.breaker.clone(),
        deadline: Some(second),
    };
    for _ in 0..10 {
        let mut request = request();
        tokio::time::advance(5 * second).await;
        request.context.begun = Instant::now();
        request.context.deadline = Deadline::after(second / 10, request.context.begun);
        let silent = service_fn(|_: Box<Request>| std::future::pending::<Answer>());
        let deadline = DeadlineLayer {
            limit: Some(second),
        };
        let ended = layer.layer(deadline.layer(silent)).call(request).await;
        assert!(matches!(ended, Err(Error::DeadlineExceeded { .. })));
    }
    assert_eq!(world.state(), (Phase::Closed, false));
}

fn world() -> &'static World {
    Box::leak(Box::new(World::new()))
}

#[tokio::test(start_paused = true)]
async fn an_open_breaker_answers_itself_and_the_service_is_not_asked() {
    let world = world();
    for _ in 0..2 {
        drop(world.call(Mode::Enforce).await.expect("an answer"));
    }
    assert_eq!(world.state(), (Phase::Open, false));
    let refused = world.call(Mode::Enforce).await;
    let Err(Error::BreakerOpen { retry_after, .. }) = refused else {
        panic!("{:?}", refused.map(|response| response.status()));
    };
    assert!(
        !retry_after.is_zero(),
        "the caller is told when to come back"
    );
    assert_eq!(world.asked(), 2);
}

#[tokio::test(start_paused = true)]
async fn one_that_only_observes_asks_all_the_same_but_whom_an_operator_forces_is_forced() {
    let world = world();
    for _ in 0..5 {
        drop(world.call(Mode::Observe).await.expect("an answer"));
    }
    assert_eq!(world.state(), (Phase::Open, false));
    assert_eq!(world.asked(), 5);
    let metrics = String::from_utf8(crate::telemetry::render()).expect("text");
    let counted = "weir_would_refuse_total{direction=\"outbound\",reason=\"circuit-breaker-open\",service=\"breaker/layer:1\"} 3";
    assert!(metrics.contains(counted), "{metrics}");
    // `mode: Observe` for all of a policy that forces was an outage.
    let force = |by| {
        let to = Force::Open;
        world.breaker.force(Some(Forced { to, by }));
    };
    force(ForcedBy::Policy);
    drop(world.call(Mode::Observe).await.expect("an answer"));
    assert_eq!(world.asked(), 6);
    let until = Instant::now() + Duration::from_secs(60);
    force(ForcedBy::Operator { until });
    let refused = world.call(Mode::Observe).await;
    assert!(matches!(refused, Err(Error::BreakerOpen { .. })));
    assert_eq!(world.asked(), 6);
}

/// `weir breakers`, the journal and the status told of an outage where nobody was refused.
#[tokio::test(start_paused = true)]
async fn one_that_refuses_nobody_says_so_and_when_that_changes() {
    use pb::BreakerState::Open;
    let world = world();
    for _ in 0..2 {
        drop(world.call(Mode::Observe).await.expect("an answer"));
    }
    assert_eq!(world.told(), [(Open, true)]);
    let config = Some(Config::default());
    world.breaker.reconfigure(config, Mode::Enforce);
    assert_eq!(world.told(), [(Open, false)]);
    world.breaker.reconfigure(config, Mode::Enforce);
    assert_eq!(world.told(), [], "it is known");
    world.breaker.reconfigure(config, Mode::Observe);
    assert_eq!(world.told(), [(Open, true)]);

    let to = Force::Open;
    let until = Instant::now() + Duration::from_secs(60);
    let by = ForcedBy::Operator { until };
    world.breaker.force(Some(Forced { to, by }));
    assert_eq!(world.told(), [(Open, false)]);
}
