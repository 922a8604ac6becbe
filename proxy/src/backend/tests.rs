//! A policy that is edited while calls are made, over real sockets: routes and stacks are new, what was learnt is not.

mod alternates;

use std::net::SocketAddr;
use std::sync::atomic::AtomicU32;

use futures_util::future::join_all;
use http::StatusCode;
use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use weir_config::pb;
use weir_config::snapshot::AccessLog as Format;
use weir_config::units::{self, Count};

use super::*;
use crate::body::Body;
use crate::endpoints::Described;
use crate::error::Error;
use crate::facts;
use crate::pipeline::Stack;
use crate::policy::transition::Phase;
use crate::request::Context;
use crate::telemetry::Direction;

pub(crate) fn environment() -> Environment {
    Environment {
        workers: 1,
        connector: Connector {
            identity: Arc::default(),
            mark: None,
        },
        facts: facts::channel().0,
        outbound_log: AccessLog::new(Direction::Outbound, Format::Disabled),
        inbound_log: AccessLog::new(Direction::Inbound, Format::Disabled),
        inherit: Arc::default(),
        stale: Arc::default(),
        backends: Arc::default(),
    }
}

/// An app that answers every request with the same status, as soon as it may.
pub(crate) struct App {
    pub(crate) address: SocketAddr,
    status: u16,
    pub(crate) answers: Semaphore,
    connections: AtomicU32,
    asked: AtomicU32,
}

impl App {
    pub(crate) async fn start(status: u16) -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let app = Arc::new(Self {
            address: listener.local_addr().expect("it is bound"),
            status,
            answers: Semaphore::new(1000),
            connections: AtomicU32::new(0),
            asked: AtomicU32::new(0),
        });
        let serving = app.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                serving.connections.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(serving.clone().serve(stream));
            }
        });
        app
    }

    /// One request after the other, none of which has a body.
    async fn serve(self: Arc<Self>, mut stream: TcpStream) {
        let answer = format!("HTTP/1.1 {} .\r\ncontent-length: 0\r\n\r\n", self.status);
        let mut head = Vec::new();
        while stream.read_buf(&mut head).await.is_ok_and(|read| read > 0) {
            if !head.ends_with(b"\r\n\r\n") {
                continue;
            }
            head.clear();
            self.asked.fetch_add(1, Ordering::Relaxed);
            self.answers.acquire().await.expect("it is open").forget();
            if stream.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
        }
    }

    fn asked(&self) -> u32 {
        self.asked.load(Ordering::Relaxed)
    }

    fn connections(&self) -> u32 {
        self.connections.load(Ordering::Relaxed)
    }
}

pub(crate) fn request(idempotent: bool) -> Box<Request> {
    let head = http::Request::get("http://catalog/").body(());
    Box::new(Request {
        head: head.expect("it is one").into_parts().0,
        body: Body::empty(),
        context: Context {
            idempotent,
            upgrade: false,
            ..Context::opaque(0)
        },
    })
}

/// Until the answer has been read to its end.
pub(crate) async fn answered(mut stack: Stack, request: Box<Request>) -> Result<StatusCode, Error> {
    let response = tower::Service::call(&mut stack, request).await?;
    let status = response.status();
    response.into_body().collect().await.expect("it is whole");
    Ok(status)
}

pub(crate) fn policy(outbound: snapshot::Outbound) -> snapshot::Service {
    snapshot::Service {
        key: snapshot::ServiceKey {
            namespace: "boutique".into(),
            name: "reload".into(),
            port: 3550,
        },
        protocol: snapshot::Protocol::Http,
        mode: snapshot::Mode::Enforce,
        forced: None,
        outbound,
        routes: Vec::new(),
        priorities: Vec::new(),
        faults: Vec::new(),
        routing: Vec::new(),
    }
}

pub(crate) fn backend(outbound: snapshot::Outbound, apps: &[&Arc<App>]) -> Arc<Backend> {
    let backend = Backend::new(&policy(outbound), environment());
    backend.endpoints.update(true, described(apps), &[]);
    Arc::new(backend)
}

fn described(apps: &[&Arc<App>]) -> Vec<Described> {
    let described = |app: &&Arc<App>| Described {
        address: app.address,
        identity: None,
        draining: false,
        weight: 100,
        zone: None,
        pod: String::new(),
    };
    apps.iter().map(described).collect()
}

impl Backend {
    /// As a new request finds its way: by the routes of the policy that is in force now.
    pub(crate) async fn call(&self, mut request: Box<Request>) -> Result<StatusCode, Error> {
        let stack = self.routes().stack(&mut request).clone();
        answered(stack, request).await
    }

    fn tokens(&self) -> u32 {
        self.budget.lock().expect("free").tokens().0
    }
}

fn breaking(open_for_secs: u64, burst: u32) -> snapshot::Outbound {
    snapshot::Outbound {
        deadline: Some(units::Duration::from_millis(500)),
        breaker: Some(snapshot::Breaker {
            minimum_calls: Count::of(5),
            open_for: units::Duration::from_secs(open_for_secs),
            ..snapshot::Breaker::default()
        }),
        retries: snapshot::Retries {
            budget: snapshot::Budget {
                burst: Count::of(burst),
                ..snapshot::Budget::default()
            },
            ..snapshot::Retries::default()
        },
        ..snapshot::Outbound::default()
    }
}

#[tokio::test]
async fn a_new_policy_keeps_breakers_open_and_what_retries_have_spent() {
    let app = App::start(503).await;
    let backend = backend(breaking(60, 3), &[&app]);
    while backend.breakers()[0].1.phase != Phase::Open {
        let status = backend.call(request(true)).await;
        assert_eq!(status.expect("the app's own"), 503);
        assert!(app.asked() < 50, "half of all calls fail");
    }
    let (asked, tokens) = (app.asked(), backend.tokens());
    assert!(tokens < 2_000, "of three a retry has taken one: {tokens}");

    // Longer open, and more to be saved: neither closes it, and nobody is given what he has not earned.
    backend.reconfigure(&policy(breaking(120, 50)));
    assert_eq!(backend.breakers()[0].1.phase, Phase::Open);
    let refused = backend.call(request(true)).await;
    assert!(matches!(refused, Err(Error::BreakerOpen { .. })));
    assert_eq!(app.asked(), asked);
    // A token each five seconds comes in whatever happens.
    assert!(backend.tokens() <= tokens + 1_000, "{}", backend.tokens());
}

#[tokio::test]
async fn a_breaker_that_a_new_policy_has_no_more_does_not_look_open_for_ever() {
    let app = App::start(503).await;
    let (facts, mut told) = facts::channel();
    let environment = Environment {
        facts,
        ..environment()
    };
    let backend = Backend::new(&policy(breaking(60, 3)), environment);
    backend.endpoints.update(true, described(&[&app]), &[]);
    while backend.breakers()[0].1.phase != Phase::Open {
        let status = backend.call(request(true)).await;
        assert_eq!(status.expect("the app's own"), 503);
    }
    backend.reconfigure(&policy(snapshot::Outbound::default()));
    assert!(backend.breakers().is_empty());
    let told = std::iter::from_fn(|| told.try_recv().ok());
    let said = told.filter_map(|fact| match fact.fact {
        Some(pb::fact::Fact::BreakerChanged(changed)) => Some(changed.to()),
        _ => None,
    });
    let said: Vec<_> = said.collect();
    assert_eq!(said, [pb::BreakerState::Open, pb::BreakerState::Closed]);
}

fn gating(deadline_secs: u64) -> snapshot::Outbound {
    let mut outbound = snapshot::Outbound {
        deadline: Some(units::Duration::from_secs(deadline_secs)),
        hedging: Some(snapshot::Hedging::default()),
        ..snapshot::Outbound::default()
    };
    outbound.gate.consecutive_failures = Count::of(1);
    outbound.gate.open_for = units::Duration::from_secs(20);
    outbound
}

#[tokio::test]
async fn a_new_policy_keeps_gates_latencies_hedges_and_connections() {
    let (good, bad) = (App::start(200).await, App::start(500).await);
    let backend = backend(gating(10), &[&good, &bad]);
    // Together: what is in flight drives some of them to the one that fails.
    let begin = join_all((0..16).map(|_| backend.call(request(false)))).await;
    assert!(begin.iter().all(Result::is_ok));
    let member = |app: &Arc<App>| {
        let list = backend.endpoints.list();
        let is_meant = |member: &&Arc<_>| crate::member::Member::address(member) == app.address;
        list.iter().find(is_meant).expect("it is there").clone()
    };
    let (works, fails) = (member(&good), member(&bad));
    let open_until = fails.learnt().gate.open_until();
    assert!(open_until.is_some(), "one failure opens it");
    let (asked, connections) = (bad.asked(), good.connections());
    let learnt = |now| works.learnt().latency.cost(now, 0);
    let now = Instant::now();
    let cost = learnt(now);
    assert!(cost < 30e6, "its seed is 30 ms: {cost}");
    let p50 = backend.endpoints.p50(now);
    assert!(!p50.is_zero());
    let hedge = backend.hedges.lock().expect("free")[""].clone();

    backend.reconfigure(&policy(gating(11)));
    // The control plane says all it knows again when the stream to it has broken.
    backend
        .endpoints
        .update(true, described(&[&bad, &good]), &[]);
    assert!(Arc::ptr_eq(&member(&good), &works));
    assert_eq!(fails.learnt().gate.open_until(), open_until);
    assert_eq!((learnt(now), backend.endpoints.p50(now)), (cost, p50));
    assert!(Arc::ptr_eq(
        &backend.hedges.lock().expect("free")[""],
        &hedge
    ));
    for _ in 0..10 {
        let status = backend.call(request(false)).await;
        assert_eq!(status.expect("an answer"), 200);
    }
    assert_eq!(bad.asked(), asked, "its gate is open");
    assert_eq!(good.connections(), connections, "none was made anew");
}

fn one_at_a_time(queue: u32) -> snapshot::Outbound {
    let mut outbound = snapshot::Outbound::default();
    outbound.limits.in_flight = Count::of(1);
    outbound.limits.queue = Count::of(queue);
    outbound.limits.queue_timeout = units::Duration::from_secs(20);
    outbound
}

#[tokio::test]
async fn calls_in_flight_and_those_that_wait_outlive_their_policy() {
    let app = App::start(200).await;
    app.answers.forget_permits(1000);
    let backend = backend(one_at_a_time(5), &[&app]);
    let call = || {
        let backend = backend.clone();
        tokio::spawn(async move { backend.call(request(false)).await })
    };
    let (first, second) = (call(), call());
    let load = async |wanted| {
        while backend.limit().load() != wanted {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    load((1, 1)).await;
    backend.reconfigure(&policy(one_at_a_time(1)));
    assert_eq!(backend.limit().load(), (1, 1));
    let refused = backend.call(request(false)).await;
    assert!(
        matches!(refused, Err(Error::QueueFull { .. })),
        "it is one limit"
    );
    app.answers.add_permits(2);
    for call in [first, second] {
        let status = call.await.expect("no panic");
        assert_eq!(status.expect("an answer"), 200);
    }
    load((0, 0)).await;
}
