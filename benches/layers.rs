//! `cargo bench --bench layers`: what each resilience layer costs a request while nothing is wrong, and all together.
//!
//! Every layer stands on a service that answers at once; what that takes by itself is taken off. So is no socket, no
//! parsing and no waiting in the figures. The subjects take turns of a few milliseconds, two hundred each, and the tenth
//! fastest turn counts: what else the machine does can only make a turn slower. About twenty seconds.

mod counting;

use std::future::ready;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use counting::allocations;
use futures_util::FutureExt;
use http::Response;
use tokio::time::Instant;
use tower::{Layer, Service, ServiceBuilder};
use weir_config::snapshot::{self, AccessLog as Format, Mode};
use weir_config::units::Count;
use weir_proxy::access_log::AccessLog;
use weir_proxy::body::Body;
use weir_proxy::connector::Connector;
use weir_proxy::endpoints::{Described, Endpoints};
use weir_proxy::error::Error;
use weir_proxy::facts;
use weir_proxy::layer::admission::{self, AdmissionLayer};
use weir_proxy::layer::attempt::{Attempt, Transport};
use weir_proxy::layer::authorize::{self, AuthorizeLayer};
use weir_proxy::layer::breaker::{self, BreakerLayer};
use weir_proxy::layer::deadline::DeadlineLayer;
use weir_proxy::layer::doomed::DoomedLayer;
use weir_proxy::layer::fallback::{Choices, FallbackLayer};
use weir_proxy::layer::fault;
use weir_proxy::layer::hedge::{self, HedgeLayer};
use weir_proxy::layer::inherit::{BequeathLayer, InheritLayer};
use weir_proxy::layer::limit::{self, LimitLayer};
use weir_proxy::layer::load::LoadLayer;
use weir_proxy::layer::observe::ObserveLayer;
use weir_proxy::layer::priority::PriorityLayer;
use weir_proxy::layer::rate_limit::{self, RateLimitLayer};
use weir_proxy::layer::retry::RetryLayer;
use weir_proxy::layer::throttle::{self, ThrottleLayer};
use weir_proxy::layer::{Answer, Call};
use weir_proxy::member::Member;
use weir_proxy::pipeline::{Outbound, outbound_over};
use weir_proxy::policy::budget::Budget;
use weir_proxy::recorder::Names;
use weir_proxy::request::{Context, Protocol, Request};
use weir_proxy::telemetry::{BackendMetrics, Direction, FallbackMetrics, RouteMetrics};

const TURNS: usize = 200;
const CALLS: usize = 500;
/// From the fastest.
const COUNTS: usize = 10;
/// Resilience.md section 12, G15.
const TARGET: Duration = Duration::from_micros(5);

const SERVICE: &str = "boutique/catalog:3550";
const CALLER: &str = "spiffe://weir.local/ns/boutique/sa/storefront";
const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// `None`: it waits for something.
type Calls = Box<dyn FnMut(Box<Request>) -> Option<Answer>>;
type Subject = (&'static str, Calls);

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    // Timers want one; none of them ever ends.
    let runtime = runtime.expect("a runtime can be made");
    let _inside = runtime.enter();
    let mut subjects = vec![("bare", over(Bare))];
    subjects.extend(outbound());
    subjects.extend(inbound());
    let mut turns = vec![Vec::with_capacity(TURNS); subjects.len()];
    for _ in 0..TURNS {
        for ((_, call), turns) in subjects.iter_mut().zip(&mut turns) {
            turns.push(turn(call));
        }
    }
    let costs: Vec<(f64, f64)> = turns.into_iter().map(judge).collect();
    let (bare_ns, bare_allocations) = costs[0];
    println!("{:<34} {:>8} {:>12}", "", "ns", "allocations");
    for ((name, _), (ns, allocations)) in subjects.iter().zip(&costs).skip(1) {
        let (ns, allocations) = (ns - bare_ns, allocations - bare_allocations);
        println!("{name:<34} {ns:>8.0} {allocations:>12.1}");
        if name.starts_with("all ") {
            let verdict = match ns <= TARGET.as_nanos() as f64 {
                true => "met",
                false => "missed",
            };
            println!("  at most {} ns a request: {verdict}\n", TARGET.as_nanos());
        }
    }
}

fn over(service: impl Call) -> Calls {
    Box::new(move |request| service.clone().call(request).now_or_never())
}

/// Nanoseconds and allocations a call.
fn turn(call: &mut dyn FnMut(Box<Request>) -> Option<Answer>) -> (f64, f64) {
    let requests: Vec<Box<Request>> = (0..CALLS).map(|_| request()).collect();
    let (before, begun) = (allocations(), Instant::now());
    for request in requests {
        let answer = call(request).expect("nobody waits for anything");
        let answer = answer.expect("nothing is wrong");
        // Or a fallback has answered.
        assert_eq!(answer.status(), 200);
    }
    let calls = CALLS as f64;
    let allocations = (allocations() - before) as f64;
    (
        begun.elapsed().as_nanos() as f64 / calls,
        allocations / calls,
    )
}

fn judge(mut turns: Vec<(f64, f64)>) -> (f64, f64) {
    turns.sort_by(|(a, _), (b, _)| a.total_cmp(b));
    turns[COUNTS]
}

fn answer() -> Answer {
    Ok(Response::new(Body::empty()))
}

fn request() -> Box<Request> {
    let head = http::Request::get("/products").header("host", "catalog:3550");
    let head = head.header("traceparent", TRACE).body(());
    let head = head.expect("it is valid").into_parts().0;
    Box::new(Request {
        context: Context {
            idempotent: true,
            upgrade: false,
            protocol: Protocol::Http2,
            caller: Some(CALLER.into()),
            names: Names::of(&head.headers, 0),
            ..Context::opaque(0)
        },
        head,
        body: Body::empty(),
    })
}

/// In place of the sockets.
#[derive(Clone, Copy)]
struct AtOnce;

impl Transport for AtOnce {
    async fn send(&self, _: &Endpoints, to: &Member, _: Box<Request>) -> Answer {
        let mut response = Response::new(Body::empty());
        response.body_mut().endpoint = Some(to.address());
        Ok::<_, Error>(response)
    }
}

fn endpoints(outbound: &snapshot::Outbound, metrics: &Arc<BackendMetrics>) -> Arc<Endpoints> {
    let connector = Connector {
        identity: Arc::default(),
        mark: None,
    };
    let endpoints = Endpoints::new(
        SERVICE.into(),
        outbound,
        1,
        connector,
        facts::channel().0,
        metrics.clone(),
    );
    let described = |number| Described {
        address: SocketAddr::from(([127, 0, 0, 1], number)),
        identity: None,
        draining: false,
        weight: 100,
        zone: None,
        pod: String::new(),
    };
    endpoints.update(true, (1..=3).map(described).collect(), &[]);
    Arc::new(endpoints)
}

fn outbound() -> Vec<Subject> {
    let policy = snapshot::Outbound::default();
    let service: Arc<str> = SERVICE.into();
    let metrics = Arc::new(BackendMetrics::new(SERVICE));
    let endpoints = endpoints(&policy, &metrics);
    let budget = Budget::new(policy.retries.budget, Instant::now());
    let budget = Arc::new(Mutex::new(budget));
    let throttle = Arc::new(throttle::Shared::new(service.clone(), endpoints.clone()));
    let limit = Arc::new(limit::Shared::new(
        service.clone(),
        1024,
        100,
        Duration::from_millis(100),
    ));
    let breaker = breaker::Shared::new(
        Some(snapshot::Breaker::default()),
        Mode::Enforce,
        service.clone(),
        String::new(),
        facts::channel().0,
        metrics.clone(),
    );
    let hedge = hedge::Shared::new(
        snapshot::Hedging::default(),
        SERVICE,
        budget.clone(),
        endpoints.clone(),
        throttle.clone(),
    );
    let fallback = FallbackLayer::new(Choices {
        stale: None,
        alternate: None,
        fixed: Some(snapshot::FallbackAnswer {
            grpc_status: 14,
            http_status: 503,
            message: String::new(),
        }),
        metrics: FallbackMetrics::new(SERVICE),
    });
    let breaker = BreakerLayer {
        breaker: Arc::new(breaker),
        deadline: Some(Duration::from_secs(15)),
    };
    let hedge = HedgeLayer {
        hedge: Arc::new(hedge),
        mode: Mode::Enforce,
    };
    let priority = PriorityLayer::new(&[]);
    let route = Outbound {
        service: service.clone(),
        route: "".into(),
        metrics: Arc::new(RouteMetrics::new(Direction::Outbound, SERVICE, "")),
        log: AccessLog::new(Direction::Outbound, Format::Disabled),
        inherit: InheritLayer {
            shared: Arc::default(),
            deadline: true,
        },
        priorities: Some(priority.clone()),
        fallback: Some(fallback.clone()),
        breaker: Some(breaker.clone()),
        deadline: DeadlineLayer {
            limit: Some(Duration::from_secs(15)),
        },
        limit: limit.clone(),
        retry: RetryLayer {
            retries: Arc::new(policy.retries.clone()),
            budget,
            endpoints: endpoints.clone(),
            metrics,
            hedges: true,
        },
        hedge: Some(hedge.clone()),
        throttle: ThrottleLayer {
            throttle,
            mode: Mode::Enforce,
        },
        endpoints: endpoints.clone(),
        faults: Arc::new(fault::Shared::new(service.clone())),
    };
    let observe = ObserveLayer {
        metrics: route.metrics.clone(),
        log: route.log.clone(),
        service: service.clone(),
        route: "".into(),
        endpoints: Some(endpoints.clone()),
    };
    let attempt = Attempt {
        endpoints,
        faults: Arc::new(fault::Shared::new(service)),
        transport: AtOnce,
    };
    vec![
        ("outbound: inherit", alone(route.inherit.clone())),
        ("outbound: priority", alone(priority)),
        ("outbound: observe", alone(observe)),
        ("outbound: fallback", alone(fallback)),
        ("outbound: breaker", alone(breaker)),
        ("outbound: deadline", alone(route.deadline)),
        ("outbound: limit", alone(LimitLayer { limit })),
        ("outbound: retry", alone(route.retry.clone())),
        ("outbound: hedge", alone(hedge)),
        ("outbound: throttle", alone(route.throttle.clone())),
        ("outbound: choice, one try", over(attempt)),
        ("all of outbound", over(outbound_over(route, AtOnce))),
    ]
}

fn inbound() -> Vec<Subject> {
    let service: Arc<str> = SERVICE.into();
    let rate_limits = rate_limit::Shared::default();
    let limits = [
        (snapshot::RateLimitKey::Caller, 1_000_000),
        (snapshot::RateLimitKey::Total, 1_000_000),
    ];
    let limits = limits.map(|(per, rate)| snapshot::RateLimit {
        requests_per_second: Count::of(rate),
        burst: Count::of(rate),
        per,
    });
    rate_limits.reconfigure(&limits, Mode::Enforce, &service);
    let rate_limits = Arc::new(rate_limits);
    let admission = Arc::new(admission::Shared::new(&snapshot::InboundLimits::default()));
    let observe = ObserveLayer {
        metrics: Arc::new(RouteMetrics::new(Direction::Inbound, SERVICE, "")),
        log: AccessLog::new(Direction::Inbound, Format::Disabled),
        service: service.clone(),
        route: "".into(),
        endpoints: None,
    };
    let rate_limit = RateLimitLayer {
        limits: rate_limits,
    };
    let authorize = AuthorizeLayer {
        authorization: Arc::new(authorize::Shared::default()),
    };
    let deadline = DeadlineLayer { limit: None };
    let priority = PriorityLayer::new(&[]);
    let load = LoadLayer {
        admission: admission.clone(),
    };
    let admit = AdmissionLayer {
        admission: admission.clone(),
    };
    let doomed = DoomedLayer::new(service, admission, Mode::Enforce);
    let bequeath = BequeathLayer {
        shared: Arc::default(),
    };
    let all = ServiceBuilder::new()
        .layer(observe.clone())
        .layer(authorize.clone())
        .layer(rate_limit.clone())
        .layer(deadline)
        .layer(priority.clone())
        .layer(load.clone())
        .layer(admit.clone())
        .layer(doomed.clone())
        .layer(bequeath.clone())
        .service(Bare);
    vec![
        ("inbound: observe", alone(observe)),
        ("inbound: authorize", alone(authorize)),
        ("inbound: rate limits", alone(rate_limit)),
        ("inbound: deadline", alone(deadline)),
        ("inbound: priority", alone(priority)),
        ("inbound: load", alone(load)),
        ("inbound: admission", alone(admit)),
        ("inbound: doomed", alone(doomed)),
        ("inbound: bequeath", alone(bequeath)),
        ("all of inbound", over(all)),
    ]
}

/// On a service that answers at once.
fn alone<L>(layer: L) -> Calls
where
    L: Layer<Bare, Service: Call>,
{
    over(layer.layer(Bare))
}

#[derive(Clone, Copy)]
struct Bare;

impl Service<Box<Request>> for Bare {
    type Response = Response<Body>;
    type Error = Error;
    type Future = std::future::Ready<Answer>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Error>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Box<Request>) -> Self::Future {
        ready(answer())
    }
}
