mod choice;
mod gates;
mod reach;

use http::{HeaderMap, HeaderName, HeaderValue, Response};
use weir_config::units::Count;

use super::*;
use crate::body::{Body, Duty, Guard};
use crate::error::Error;
use crate::facts;
use crate::policy::outcome::{Fault, Outcome};
use crate::policy::transition::Phase;
use crate::request::{Context, Request};

/// A pool of `size` endpoints, none of which is ever connected to.
pub(crate) fn pool(size: u16) -> Arc<Endpoints> {
    let address = |number| ([127, 0, 0, 1], 1000 + number).into();
    pool_at(&(0..size).map(address).collect::<Vec<_>>())
}

pub(crate) fn pool_at(addresses: &[SocketAddr]) -> Arc<Endpoints> {
    pool_told_to(facts::channel().0, addresses)
}

/// A pool that reports what its gates do.
fn pool_told_to(facts: Facts, addresses: &[SocketAddr]) -> Arc<Endpoints> {
    let connector = Connector {
        identity: Arc::default(),
        mark: None,
    };
    let endpoints = Endpoints::new(
        "boutique/catalog:3550".into(),
        &Outbound::default(),
        1,
        connector,
        facts,
        Arc::new(BackendMetrics::new("boutique/catalog:3550")),
    );
    let addresses = addresses.iter();
    endpoints.update(true, addresses.map(|it| described_at(*it)).collect(), &[]);
    Arc::new(endpoints)
}

pub(crate) fn described_at(address: SocketAddr) -> Described {
    Described {
        address,
        identity: None,
        draining: false,
        weight: 100,
        zone: None,
        pod: String::new(),
    }
}

/// A call to one endpoint, whatever the balancer thinks of it.
fn call(endpoints: &Arc<Endpoints>, index: usize) -> Chosen {
    let (member, now) = (&endpoints.list()[index], Instant::now());
    let call = member.learnt().start(true, now);
    endpoints.started(member, call)
}

/// The endpoint answers 503 with these headers, and its answer is read to the end.
pub(crate) fn fail(
    endpoints: &Arc<Endpoints>,
    index: usize,
    headers: &[(&'static str, &'static str)],
) {
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
async fn what_fails_after_discovery_took_an_endpoint_away_does_not_eject_it_once_more() {
    let addresses: Vec<SocketAddr> = (1..=3)
        .map(|number| ([127, 0, 7, number], 1).into())
        .collect();
    let endpoints = pool_at(&addresses);
    let state = || {
        let all = String::from_utf8(crate::telemetry::render()).expect("text");
        all.contains("endpoint=\"127.0.7.1:1\"")
    };
    let started: Vec<Guard<Chosen>> = (0..5).map(|_| Guard::new(call(&endpoints, 0))).collect();
    endpoints.update(false, Vec::new(), &addresses[..1]);
    for guard in started {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = http::StatusCode::SERVICE_UNAVAILABLE;
        drop(guard.settle(Ok(response)));
    }
    assert!(!state(), "nobody would ever say that this is over");
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

/// More idle connections than there may be calls to one endpoint.
#[tokio::test(start_paused = true)]
async fn opaque_connections_leave_calls_their_places_and_have_a_cap_of_their_own() {
    let mut outbound = Outbound::default();
    outbound.limits.per_endpoint = Count::of(2);
    outbound.limits.connections = Count::of(300);
    let endpoints = pool(2);
    endpoints.reconfigure(&outbound);
    let open = || {
        let (place, within) = endpoints.place_for_connection();
        let place = within.then_some(place)?;
        let mut guard = Guard::new(
            endpoints
                .choose(&Context::opaque(0))
                .expect("there is room"),
        );
        guard.duty().connected();
        Some((guard, place))
    };
    let mut connections: Vec<_> = (0..300).map(|_| open().expect("within the cap")).collect();
    assert!(open().is_none(), "one more");
    let there = |index: usize| endpoints.list()[index].connections();
    assert_eq!(there(0) + there(1), 300);
    assert!(
        there(0).abs_diff(there(1)) <= 2,
        "{} and {}",
        there(0),
        there(1)
    );
    assert_eq!(endpoints.in_flight(), 0, "they are no calls");

    let request = || {
        Box::new(Request {
            head: http::Request::new(()).into_parts().0,
            body: Body::empty(),
            context: Context::opaque(0),
        })
    };
    let mut calls = Vec::new();
    for _ in 0..4 {
        calls.push(Guard::new(
            endpoints.choose_for_request(&request()).expect("a place"),
        ));
    }
    assert!(
        endpoints.choose_for_request(&request()).is_err(),
        "of calls there are enough"
    );

    connections.pop();
    connections.push(open().expect("what is closed makes room"));
    assert!(open().is_none());
    drop((connections, calls));
    assert_eq!((there(0), there(1), endpoints.in_flight()), (0, 0, 0));
    assert_eq!(endpoints.connections.load(Ordering::Relaxed), 0);
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
                    chosen.done(Outcome::Failure(Fault::Hard), Instant::now());
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
        let described = described_at(([127, 0, 0, 1], 1000).into());
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
