//! Whom a call goes to: load that is said, keys, zones, weights.

use weir_config::units::Token;

use super::*;
use crate::identity::SpiffeId;

/// How often each of two endpoints is chosen.
fn chosen(endpoints: &Arc<Endpoints>) -> [usize; 2] {
    let mut counts = [0; 2];
    for _ in 0..1000 {
        let choice = endpoints.choose(&Context::opaque(0));
        let choice = choice.unwrap_or_else(|error| panic!("both are there: {error}"));
        counts[usize::from(choice.member.address().port() - 1000)] += 1;
        choice.done(Outcome::Cancelled, Instant::now());
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
        identity: SpiffeId::parse("spiffe://weir.local/ns/boutique/sa/catalog"),
        ..described_at(([127, 0, 0, 1], 1000 + number).into())
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

pub(super) fn described(number: u16, zone: &str, weight: u32) -> Described {
    Described {
        weight,
        zone: Some(zone.to_owned()).filter(|zone| !zone.is_empty()),
        ..described_at(([127, 0, 0, 1], 1000 + number).into())
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

pub(super) fn by(user: &str) -> Box<Request> {
    let request = http::Request::get("http://cart/").header("x-user", user);
    Box::new(Request {
        head: request.body(()).expect("a request").into_parts().0,
        body: Body::empty(),
        context: Context::opaque(0),
    })
}

/// Chosen for a call that ends at once.
fn goes_to(endpoints: &Arc<Endpoints>, request: &Request) -> SocketAddr {
    let chosen = endpoints.choose_for_request(request).expect("one is there");
    let address = chosen.member.address();
    chosen.done(Outcome::Success, Instant::now());
    address
}

#[tokio::test(start_paused = true)]
async fn calls_with_the_same_key_go_to_the_same_endpoint_through_reloads_and_back_after_a_gate() {
    let endpoints = pool(10);
    endpoints.reconfigure(&hashing(125));
    let users: Vec<Box<Request>> = (0..50).map(|n| by(&format!("user-{n}"))).collect();
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
        chosen.done(Outcome::Success, Instant::now());
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

/// An endpoint costs less the longer it is left alone, so most calls went to those far away, which nobody ever calls.
#[tokio::test(start_paused = true)]
async fn rare_calls_stay_in_their_zone_as_well() {
    let endpoints = pool_at(&[]);
    let zone = |number| if number == 0 { "near" } else { "far" };
    let all = (0..11).map(|number| described(number, zone(number), 100));
    endpoints.update(true, all.collect(), &[]);
    endpoints.set_zone(Some("near"));
    let mut far = 0;
    for _ in 0..300 {
        tokio::time::advance(Duration::from_secs(1)).await;
        let chosen = endpoints.choose_for_request(&by("ada"));
        let chosen = chosen.expect("one is there");
        far += usize::from(chosen.member.zone().as_deref() == Some("far"));
        tokio::time::advance(Duration::from_millis(5)).await;
        drop(Guard::new(chosen).settle(Ok(Response::new(Body::empty()))));
    }
    assert!(far <= 15, "{far} of 300 left their zone");
    // And they leave it when the one nearby has enough to do.
    let busy: Vec<_> = (0..20)
        .map(|_| Guard::new(endpoints.choose_for_request(&by("ada")).expect("a place")))
        .collect();
    let near = endpoints.list()[0].in_flight();
    assert!((1..=6).contains(&near), "{near} of {}", busy.len());
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
