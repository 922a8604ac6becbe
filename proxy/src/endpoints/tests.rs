use http::{HeaderMap, HeaderName, HeaderValue, Response};

use super::*;
use crate::body::{Body, Duty, Guard};
use crate::facts;
use crate::policy::outcome::{Fault, Outcome};

/// A pool of `size` endpoints, none of which is ever connected to.
pub(crate) fn pool(size: u16) -> Arc<Endpoints> {
    let address = |number| ([127, 0, 0, 1], 1000 + number).into();
    pool_at(&(0..size).map(address).collect::<Vec<_>>())
}

pub(crate) fn pool_at(addresses: &[SocketAddr]) -> Arc<Endpoints> {
    let connector = Connector {
        identity: Arc::default(),
        mark: None,
    };
    let endpoints = Endpoints::new(
        "boutique/catalog:3550".into(),
        &Outbound::default(),
        1,
        connector,
        facts::channel().0,
        Arc::new(BackendMetrics::new("boutique/catalog:3550")),
    );
    let described = |address: &SocketAddr| Described {
        address: *address,
        identity: None,
        draining: false,
        pod: String::new(),
    };
    endpoints.update(true, addresses.iter().map(described).collect(), &[]);
    Arc::new(endpoints)
}

/// A call to one endpoint, whatever the balancer thinks of it.
fn call(endpoints: &Arc<Endpoints>, index: usize) -> Chosen {
    let (member, now) = (&endpoints.list()[index], Instant::now());
    let call = member.learnt().start(now);
    endpoints.started(member, call)
}

/// The endpoint answers 503 with these headers, and its answer is read to the end.
fn fail(endpoints: &Arc<Endpoints>, index: usize, headers: &[(&'static str, &'static str)]) {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = http::StatusCode::SERVICE_UNAVAILABLE;
    *response.headers_mut() = headers
        .iter()
        .map(|(name, value)| {
            (
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            )
        })
        .collect::<HeaderMap>();
    drop(Guard::new(call(endpoints, index)).settle(Ok(response)));
}

/// In nanoseconds.
fn cost(endpoints: &Endpoints, index: usize) -> f64 {
    let (list, now) = (endpoints.list(), Instant::now());
    let learnt = list[index].learnt();
    learnt.latency.cost(now, 0)
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_asks_for_patience_is_dearer_and_stays_out_for_longer() {
    for (header, seconds) in [
        (("retry-after", "9"), 9u32),
        (("grpc-retry-pushback-ms", "9000"), 9),
        (("retry-after", "86400"), 30),
    ] {
        let endpoints = pool(3);
        for _ in 0..5 {
            fail(&endpoints, 0, &[header]);
        }
        assert_eq!(cost(&endpoints, 0), f64::from(seconds) * 1e9, "{header:?}");
        let open_until = endpoints.list()[0].learnt().gate.open_until();
        let open_for = open_until.expect("five failures in a row") - Instant::now();
        let asked = Duration::from_secs(seconds.into());
        assert_eq!(open_for, asked, "{header:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_forbids_retrying_one_request_is_priced_like_any_that_fails() {
    let endpoints = pool(3);
    fail(&endpoints, 0, &[("grpc-retry-pushback-ms", "-1")]);
    assert_eq!(cost(&endpoints, 0), 1e9);
    assert_eq!(endpoints.list()[0].learnt().gate.state(), Phase::Closed);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_a_retry_drops_unread_is_still_a_failure() {
    let endpoints = pool(3);
    let mut response = Response::new(Body::full("try later".into()));
    *response.status_mut() = http::StatusCode::SERVICE_UNAVAILABLE;
    drop(Guard::new(call(&endpoints, 0)).settle(Ok(response)));
    assert_eq!(cost(&endpoints, 0), 1e9, "it was not the caller's whim");
}

/// Two workers, both at the last place at once, many times over: that each of them asked first is no excuse.
#[test]
fn workers_that_open_gates_at_the_same_moment_do_not_exceed_the_cap() {
    let pools: Vec<_> = (0..20_000).map(|_| pool(3)).collect();
    let arrived = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for index in 0..2 {
            let (pools, arrived) = (&pools, &arrived);
            scope.spawn(move || {
                for (round, endpoints) in pools.iter().enumerate() {
                    let mut chosen = call(endpoints, index);
                    chosen.connect_failed = true;
                    // A barrier that sleeps would wake them one after the other.
                    arrived.fetch_add(1, Ordering::SeqCst);
                    while arrived.load(Ordering::SeqCst) < 2 * (round + 1) {
                        std::thread::yield_now();
                    }
                    chosen.done(Outcome::Failure(Fault::Hard));
                }
            });
        }
    });
    for endpoints in pools {
        let open = |member: &&Arc<Member>| member.learnt().gate.state() == Phase::Open;
        let open = endpoints.list().iter().filter(open).count();
        assert_eq!(open, 1, "of three, one may be out");
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_waits_a_moment_for_the_first_endpoint_of_its_service() {
    let endpoints = pool_at(&[]);
    let begun = Instant::now();
    let arrival = async {
        tokio::time::sleep(Duration::from_millis(150)).await;
        let described = Described {
            address: ([127, 0, 0, 1], 1000).into(),
            identity: None,
            draining: false,
            pod: String::new(),
        };
        endpoints.update(false, vec![described], &[]);
    };
    tokio::join!(endpoints.first(), arrival);
    assert_eq!(begun.elapsed(), Duration::from_millis(150));
    assert!(endpoints.choose(&Context::opaque(0)).is_ok());
    endpoints.first().await;
    assert_eq!(
        begun.elapsed(),
        Duration::from_millis(150),
        "there is one now"
    );
}

#[tokio::test(start_paused = true)]
async fn a_service_without_endpoints_is_not_waited_for_for_ever() {
    let endpoints = pool_at(&[]);
    let begun = Instant::now();
    endpoints.first().await;
    assert_eq!(begun.elapsed(), FIRST_ENDPOINT_PATIENCE);
    let refused = endpoints.choose(&Context::opaque(0));
    assert!(matches!(refused, Err(Error::NoEndpoints { .. })));
}

/// How often each of two endpoints is chosen.
fn chosen(endpoints: &Arc<Endpoints>) -> [usize; 2] {
    let mut counts = [0; 2];
    for _ in 0..1000 {
        let choice = endpoints.choose(&Context::opaque(0));
        let choice = choice.unwrap_or_else(|error| panic!("both are there: {error}"));
        counts[usize::from(choice.member.address().port() - 1000)] += 1;
        choice.done(Outcome::Cancelled);
    }
    counts
}

/// An answer of an endpoint that says so of itself.
fn says(endpoints: &Arc<Endpoints>, index: usize, load: &'static str) {
    let mut response = Response::new(Body::empty());
    let value = HeaderValue::from_static(load);
    response.headers_mut().insert(&crate::head::LOAD, value);
    drop(Guard::new(call(endpoints, index)).settle(Ok(response)));
}

fn meshed(size: u16) -> Arc<Endpoints> {
    let endpoints = pool(0);
    let described = |number| Described {
        address: ([127, 0, 0, 1], 1000 + number).into(),
        identity: SpiffeId::parse("spiffe://weir.local/ns/boutique/sa/catalog"),
        draining: false,
        pod: String::new(),
    };
    endpoints.update(true, (0..size).map(described).collect(), &[]);
    endpoints
}

/// Planted: a price that leaves out what the endpoint says of itself.
#[tokio::test(start_paused = true)]
async fn an_endpoint_that_says_it_is_busy_is_spared_until_it_says_otherwise_or_nothing() {
    let endpoints = meshed(2);
    for index in [0, 1] {
        says(&endpoints, index, "0");
    }
    let [even, _] = chosen(&endpoints);
    assert!((400..600).contains(&even), "{even} of 1000");
    says(&endpoints, 0, "90");
    assert_eq!(chosen(&endpoints), [0, 1000]);
    assert!((0.4..0.5).contains(&endpoints.said_load(Instant::now())));
    tokio::time::advance(Duration::from_secs(5)).await;
    let [even, _] = chosen(&endpoints);
    assert!(
        (400..600).contains(&even),
        "{even} of 1000: it has said nothing for long"
    );
}

#[tokio::test(start_paused = true)]
async fn an_app_without_a_sidecar_has_no_say_in_how_busy_it_is() {
    let endpoints = pool(2);
    says(&endpoints, 0, "200");
    assert_eq!(endpoints.said_load(Instant::now()), 0.0);
}
