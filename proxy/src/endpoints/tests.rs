use http::{HeaderMap, HeaderName, HeaderValue, Response};
use weir_config::units::{Count, Token};

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
        weight: 100,
        zone: None,
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

    let request = || Request {
        head: http::Request::new(()).into_parts().0,
        body: Body::empty(),
        context: Context::opaque(0),
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
            weight: 100,
            zone: None,
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
        weight: 100,
        zone: None,
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

fn described(number: u16, zone: &str, weight: u32) -> Described {
    Described {
        address: ([127, 0, 0, 1], 1000 + number).into(),
        identity: None,
        draining: false,
        weight,
        zone: Some(zone.to_owned()).filter(|zone| !zone.is_empty()),
        pod: String::new(),
    }
}

fn hashing(bounded_load: u32) -> Outbound {
    let mut outbound = Outbound::default();
    outbound.balance.algorithm = BalanceAlgorithm::ConsistentHash;
    outbound.consistent_hash = Some(weir_config::snapshot::ConsistentHash {
        by: weir_config::snapshot::HashBy::Header(Token::try_from("x-user").expect("a token")),
        bounded_load: bounded_load_of(bounded_load),
    });
    outbound
}

fn bounded_load_of(percent: u32) -> weir_config::units::Count<101, 1000> {
    i64::from(percent).try_into().expect("within its bounds")
}

fn by(user: &str) -> Request {
    let request = http::Request::get("http://cart/").header("x-user", user);
    Request {
        head: request.body(()).expect("a request").into_parts().0,
        body: Body::empty(),
        context: Context::opaque(0),
    }
}

/// Chosen for a call that ends at once.
fn goes_to(endpoints: &Arc<Endpoints>, request: &Request) -> SocketAddr {
    let chosen = endpoints.choose_for_request(request).expect("one is there");
    let address = chosen.member.address();
    chosen.done(Outcome::Success);
    address
}

#[tokio::test(start_paused = true)]
async fn calls_with_the_same_key_go_to_the_same_endpoint_through_reloads_and_back_after_a_gate() {
    let endpoints = pool(10);
    endpoints.reconfigure(&hashing(125));
    let users: Vec<Request> = (0..50).map(|n| by(&format!("user-{n}"))).collect();
    let own = |of: &Arc<Endpoints>| -> Vec<SocketAddr> {
        users.iter().map(|user| goes_to(of, user)).collect()
    };
    let before = own(&endpoints);
    assert_eq!(own(&endpoints), before);
    endpoints.reconfigure(&hashing(200));
    assert_eq!(own(&endpoints), before, "the policy was loaded again");
    let index = (endpoints.list().iter()).position(|member| member.address() == before[0]);
    for _ in 0..5 {
        fail(&endpoints, index.expect("it is there"), &[]);
    }
    let gated = before[0];
    for (before, after) in before.iter().zip(own(&endpoints)) {
        assert_eq!(*before != gated, *before == after, "only its keys move");
        assert_ne!(after, gated);
    }
}

#[tokio::test(start_paused = true)]
async fn one_user_alone_does_not_overload_an_endpoint() {
    let endpoints = pool(10);
    endpoints.reconfigure(&hashing(125));
    let held: Vec<_> = (0..100)
        .map(|_| {
            endpoints
                .choose_for_request(&by("ada"))
                .expect("there is room")
        })
        .collect();
    let most = endpoints
        .list()
        .iter()
        .map(|member| member.in_flight())
        .max();
    assert_eq!(most, Some(13), "1.25 times the average, rounded up");
    for chosen in held {
        chosen.done(Outcome::Success);
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_without_a_key_is_balanced_like_any() {
    let endpoints = pool(10);
    endpoints.reconfigure(&hashing(125));
    let mut plain = by("ada");
    plain.head.headers.clear();
    let seen: std::collections::HashSet<_> =
        (0..200).map(|_| goes_to(&endpoints, &plain)).collect();
    assert_eq!(seen.len(), 10);
}

#[tokio::test(start_paused = true)]
async fn calls_stay_in_the_zone_once_it_is_known_and_nobody_says_otherwise() {
    let endpoints = pool_at(&[]);
    let zones = ["a", "b", "c", ""];
    let all = (0..12).map(|n| described(n, zones[usize::from(n) % 4], 100));
    endpoints.update(true, all.collect(), &[]);
    let request = by("ada");
    let zones = |endpoints: &Arc<Endpoints>| {
        let zone_of = |address: SocketAddr| {
            let list = endpoints.list();
            let member = list.iter().find(|member| member.address() == address);
            member
                .expect("it is there")
                .zone()
                .map(|zone| zone.to_string())
        };
        let all = (0..300).map(|_| zone_of(goes_to(endpoints, &request)));
        all.collect::<std::collections::BTreeSet<_>>()
    };
    assert_eq!(
        zones(&endpoints).len(),
        4,
        "nobody knows where the caller is"
    );
    endpoints.set_zone(Some("b"));
    assert_eq!(zones(&endpoints), [Some("b".to_owned())].into());
    endpoints.update(false, vec![described(13, "b", 100)], &[]);
    assert_eq!(endpoints.list().near(), 4, "a new one is known to be near");
    let mut ignore = Outbound::default();
    ignore.balance.zone = ZonePreference::Ignore;
    endpoints.reconfigure(&ignore);
    assert_eq!(zones(&endpoints).len(), 4);
    endpoints.reconfigure(&Outbound::default());
    endpoints.set_zone(Some("elsewhere"));
    assert_eq!(zones(&endpoints).len(), 4, "nobody is near");
}

#[tokio::test(start_paused = true)]
async fn endpoints_get_their_weights_share_and_discovery_may_change_it() {
    let endpoints = pool_at(&[]);
    endpoints.update(true, (0..3).map(|n| described(n, "", 100)).collect(), &[]);
    let request = by("ada");
    let share = |endpoints: &Arc<Endpoints>| {
        let first = SocketAddr::from(([127, 0, 0, 1], 1000));
        let own = (0..3000)
            .filter(|_| goes_to(endpoints, &request) == first)
            .count();
        own as f64 / 3000.0
    };
    assert!((0.3..0.37).contains(&share(&endpoints)));
    endpoints.update(false, vec![described(0, "", 10)], &[]);
    let canary = share(&endpoints);
    assert!((0.03..0.07).contains(&canary), "10 of 210: {canary}");
}

#[tokio::test(start_paused = true)]
async fn very_rarely_called_endpoints_are_all_found_out_and_none_is_feared_for_ever() {
    let endpoints = pool(3);
    fail(&endpoints, 0, &[]);
    let mut seen = 0;
    for _ in 0..60 {
        tokio::time::advance(Duration::from_secs(60)).await;
        let chosen = endpoints.choose_for_request(&by("ada"));
        let chosen = chosen.expect("one is there");
        seen += usize::from(chosen.member.address() == endpoints.list()[0].address());
        // What the others take is learnt anew each time; without that, all would be forgotten alike.
        tokio::time::advance(Duration::from_millis(5)).await;
        let answer = Guard::new(chosen).settle(Ok(Response::new(Body::empty())));
        drop(answer);
    }
    assert!((12..=28).contains(&seen), "a call a minute: {seen} of 60");
}

#[tokio::test(start_paused = true)]
async fn the_only_endpoint_is_called_however_often_it_fails() {
    let endpoints = pool(1);
    for _ in 0..100 {
        fail(&endpoints, 0, &[]);
    }
    assert_eq!(
        goes_to(&endpoints, &by("ada")),
        endpoints.list()[0].address()
    );
}

/// How many of a pool get any of a thousand calls, one after the other.
fn called(endpoints: &Arc<Endpoints>) -> Vec<SocketAddr> {
    let mut called: Vec<SocketAddr> = (0..1000)
        .map(|_| {
            let chosen = endpoints.choose(&Context::opaque(0));
            chosen.expect("an endpoint").member.address()
        })
        .collect();
    called.sort_unstable();
    called.dedup();
    called
}

/// Planted: gated endpoints count as part of the aperture, and those that are left take the load of all.
#[tokio::test(start_paused = true)]
async fn of_a_large_pool_twenty_endpoints_are_called_and_others_take_the_place_of_those_that_fail()
{
    assert_eq!(called(&pool(50)).len(), 50);
    let endpoints = pool(500);
    let first = called(&endpoints);
    assert_eq!(first.len(), 20);
    let list = endpoints.list();
    let index = |address: &SocketAddr| list.iter().position(|m| m.address() == *address);
    let failing: Vec<usize> = first[..5].iter().filter_map(index).collect();
    for _ in 0..10 {
        for &index in &failing {
            fail(&endpoints, index, &[]);
        }
    }
    let second = called(&endpoints);
    assert_eq!(second.len(), 20);
    let kept = second
        .iter()
        .filter(|address| first.contains(address))
        .count();
    assert_eq!(kept, 15, "and no others change");
}

#[tokio::test(start_paused = true)]
async fn every_sidecar_calls_a_part_of_its_own_and_keeps_it_when_endpoints_come_and_go() {
    let (one, other) = (pool(500), pool(500));
    let (part, others) = (called(&one), called(&other));
    let shared = part
        .iter()
        .filter(|address| others.contains(address))
        .count();
    assert!(shared < 10, "{shared} of 20 alike");
    let gone = part[0];
    one.update(false, vec![described(9000, "a", 100)], &[gone]);
    let after = called(&one);
    let kept = after
        .iter()
        .filter(|address| part.contains(address))
        .count();
    assert!(kept >= 18 && !after.contains(&gone), "{kept} kept");
}

#[tokio::test(start_paused = true)]
async fn calls_that_pile_up_open_more_of_a_large_pool_and_a_full_part_is_no_end() {
    let (endpoints, request) = (pool(500), by("ada"));
    let held: Vec<Chosen> = (0..400)
        .map(|_| endpoints.choose_for_request(&request).expect("an endpoint"))
        .collect();
    let busy = |list: &[Arc<Member>]| list.iter().filter(|m| m.in_flight() > 0).count();
    assert_eq!(busy(&endpoints.list()), 20);
    tokio::time::advance(Duration::from_millis(50)).await;
    endpoints.tick(Instant::now());
    let wide = called(&endpoints).len();
    assert!(
        (80..=100).contains(&wide),
        "four in flight for each: {wide}"
    );
    drop(held);

    let endpoints = pool(500);
    let held: Vec<Chosen> = (0..20 * 256 + 1)
        .map(|_| {
            endpoints
                .choose_for_request(&request)
                .expect("there are others")
        })
        .collect();
    let list = endpoints.list();
    let most = list.iter().map(|member| member.in_flight()).max();
    assert_eq!(most, Some(256), "the most that one may have");
    assert!(busy(&list) > 20);
    drop(held);
}
