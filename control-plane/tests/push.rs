//! Policy and endpoints on their way to sidecars, over real TLS.

mod world;

use std::time::Duration;

use tokio::time::Instant;
use tonic::Code;
use weir_config::pb::destination::Target;
use weir_config::{pb, snapshot};

use world::{World, pod, policy, service, slice};

const CATALOG: &str = "boutique/catalog:3550";
const CATALOG_ADDRESS: &str = "10.96.0.1:3550";

fn parsed(push: &pb::ToProxy) -> snapshot::Service {
    serde_json::from_slice(&push.services[0].policy_json).expect("a policy")
}

fn deadline_ms(push: &pb::ToProxy) -> u128 {
    parsed(push)
        .outbound
        .deadline
        .expect("a deadline")
        .as_millis()
}

#[tokio::test]
async fn a_sidecar_is_told_what_it_asked_for_and_only_that() {
    let world = World::new().await;
    let mut stream = world.connect("frontend-0").await;
    stream.subscribe(CATALOG_ADDRESS).await;
    let push = stream.next().await;
    assert_eq!(push.destinations.len(), 1);
    assert_eq!(
        push.destinations[0].target,
        Some(Target::Service(CATALOG.into()))
    );
    assert_eq!((push.services.len(), deadline_ms(&push)), (1, 2000));
    assert!(push.endpoints[0].reset);
    assert_eq!(
        stream.addresses(CATALOG),
        ["10.1.0.2:3550", "10.1.0.3:3550"]
    );
    let endpoint = &stream.endpoints[CATALOG]["10.1.0.2:3550"];
    assert_eq!(
        endpoint.identity,
        "spiffe://weir.local/ns/boutique/sa/catalog"
    );
    assert_eq!(
        (endpoint.pod.as_str(), endpoint.draining),
        ("boutique/catalog-0", false)
    );

    stream.subscribe("10.1.0.4:7070").await;
    let push = stream.next().await;
    let Some(Target::Endpoint(direct)) = &push.destinations[0].target else {
        panic!("a pod, not {push:?}")
    };
    assert_eq!(direct.identity, "spiffe://weir.local/ns/boutique/sa/cart");
    assert!(
        push.services.is_empty() && push.endpoints.is_empty(),
        "nothing that it has already"
    );

    stream.subscribe("[2001:db8::1]:443").await;
    let push = stream.next().await;
    assert_eq!(
        push.destinations[0].target,
        Some(Target::Outside(pb::Outside {}))
    );
    assert_eq!(push.destinations[0].address, "[2001:db8::1]:443");
}

#[tokio::test]
async fn a_change_of_endpoints_is_pushed_without_policy_and_a_change_of_policy_without_endpoints() {
    let world = World::new().await;
    let mut stream = world.connect("frontend-0").await;
    stream.subscribe(CATALOG_ADDRESS).await;
    stream.next().await;

    world.write("pod-catalog-9.yaml", &pod("catalog-9", "10.1.0.9"));
    world.write(
        "slice-catalog.yaml",
        &slice(
            "catalog",
            &[("10.1.0.3", "catalog-1"), ("10.1.0.9", "catalog-9")],
        ),
    );
    let push = stream.next().await;
    assert!(
        push.services.is_empty() && push.destinations.is_empty(),
        "{push:?}"
    );
    assert_eq!(push.endpoints[0].removed, ["10.1.0.2:3550"]);
    let changed: Vec<_> = push.endpoints[0]
        .changed
        .iter()
        .map(|endpoint| endpoint.address.as_str())
        .collect();
    assert_eq!(
        (changed, push.endpoints[0].reset),
        (vec!["10.1.0.9:3550"], false)
    );

    let before = world.facts("PushAcknowledged").len();
    world.write("policy.yaml", &policy("catalog", "3s"));
    let push = stream.next().await;
    assert_eq!(deadline_ms(&push), 3000);
    assert!(
        push.endpoints.is_empty() && push.destinations.is_empty(),
        "{push:?}"
    );
    world.write("policy.yaml", &policy("catalog", "4s"));
    stream.next().await;
    while world.facts("PushAcknowledged").len() < before + 2 {
        tokio::time::sleep(Duration::from_millis(20)).await; // within the test's own time
    }
}

#[tokio::test]
async fn a_bad_file_keeps_the_last_good_policy_in_force_and_is_on_record() {
    let world = World::new().await;
    let mut stream = world.connect("frontend-0").await;
    stream.subscribe(CATALOG_ADDRESS).await;
    stream.next().await;
    world.write("policy.yaml", &policy("catalog", "2 seconds"));
    let fact = world.fact("PolicyRejected").await;
    assert!(
        fact.subject.ends_with("policy.yaml") && fact.details.to_string().contains("2 seconds"),
        "{fact:?}"
    );
    assert!(stream.is_quiet().await, "nothing is pushed");
    let mut late = world.connect("cart-0").await;
    late.subscribe(CATALOG_ADDRESS).await;
    assert_eq!(
        deadline_ms(&late.next().await),
        2000,
        "the last good one is what others get"
    );
    world.write("policy.yaml", &policy("catalog", "5s"));
    assert_eq!(deadline_ms(&stream.next().await), 5000);
    let accepted = world.facts("PolicyAccepted");
    assert_eq!(accepted.len(), 2, "at the start, and when it was fixed");
}

#[tokio::test]
async fn a_service_that_goes_is_outside_and_comes_back_whole() {
    let world = World::new().await;
    let mut stream = world.connect("frontend-0").await;
    stream.subscribe("10.96.0.2:3550").await;
    stream.next().await;
    let all = service("catalog", "10.96.0.1") + &service("currency", "10.96.0.2");
    world.write("services.yaml", &service("catalog", "10.96.0.1"));
    let push = stream.next().await;
    assert_eq!(
        push.destinations[0].target,
        Some(Target::Outside(pb::Outside {}))
    );
    world.write("services.yaml", &all);
    let push = stream.next().await;
    assert_eq!(
        push.destinations[0].target,
        Some(Target::Service("boutique/currency:3550".into()))
    );
    assert_eq!(
        (push.services.len(), push.endpoints.len()),
        (1, 1),
        "policy and endpoints come with it"
    );
}

#[tokio::test]
async fn a_draining_pod_is_draining_for_everybody_else_at_once() {
    let world = World::new().await;
    let mut caller = world.connect("frontend-0").await;
    caller.subscribe(CATALOG_ADDRESS).await;
    caller.next().await;
    let pod = world.connect("catalog-0").await;
    let draining = |stream: &world::Stream| stream.endpoints[CATALOG]["10.1.0.2:3550"].draining;
    let told = Instant::now();
    pod.fact(pb::fact::Fact::Draining(pb::Draining {})).await;
    let push = caller.next().await;
    assert!(
        told.elapsed() < Duration::from_millis(500),
        "took {:?}",
        told.elapsed()
    );
    assert!(
        draining(&caller) && push.services.is_empty() && push.endpoints[0].changed.len() == 1,
        "{push:?}"
    );
    assert_eq!(
        world.fact("ProxyDraining").await.subject,
        "boutique/catalog-0"
    );
    drop(pod);
    assert!(
        caller.is_quiet().await,
        "it is gone, and drains for as long as its pod is there"
    );
    let pod = world.connect("catalog-0").await;
    caller.until(|caller| !draining(caller)).await;
    pod.fact(pb::fact::Fact::Draining(pb::Draining {})).await;
    caller.until(draining).await;
    pod.fact(pb::fact::Fact::Ready(pb::Ready {})).await;
    caller.until(|caller| !draining(caller)).await;
}

#[tokio::test]
async fn what_a_sidecar_refused_is_not_sent_again_until_it_is_another() {
    let world = World::new().await;
    let mut stream = world.connect("frontend-0").await;
    stream.subscribe(CATALOG_ADDRESS).await;
    stream.next().await;
    world.write("policy.yaml", &policy("catalog", "3s"));
    let push = stream.push().await;
    stream
        .nack(&push, "services[boutique/catalog:3550]: unknown field")
        .await;
    let fact = world.fact("PushRefused").await;
    assert!(fact.message.contains("unknown field"), "{fact:?}");
    assert!(stream.is_quiet().await, "no loop");
    // Endpoints still get through, alone.
    world.write(
        "slice-catalog.yaml",
        &slice("catalog", &[("10.1.0.3", "catalog-1")]),
    );
    let push = stream.next().await;
    assert!(push.services.is_empty());
    assert_eq!(stream.addresses(CATALOG), ["10.1.0.3:3550"]);
    world.write("policy.yaml", &policy("catalog", "4s"));
    assert_eq!(deadline_ms(&stream.next().await), 4000);
}

#[tokio::test]
async fn one_bad_service_does_not_hold_up_the_others_of_its_push() {
    let world = World::new().await;
    let mut stream = world.connect("frontend-0").await;
    stream.subscribe(CATALOG_ADDRESS).await;
    stream.next().await;
    stream.subscribe("10.96.0.2:3550").await;
    stream.next().await;
    world.write(
        "policy.yaml",
        &(policy("catalog", "3s") + &policy("currency", "7s")),
    );
    let push = stream.push().await;
    assert_eq!(push.services.len(), 2, "one change, one push");
    stream.nack(&push, "one of them is bad").await;
    let (mut refused, mut applied) = (0, 0);
    for _ in 0..2 {
        let push = stream.push().await;
        assert_eq!(push.services.len(), 1, "each alone");
        if push.services[0].service == CATALOG {
            refused += 1;
            stream.nack(&push, "this one").await;
        } else {
            applied += 1;
            stream.ack(&push).await;
        }
    }
    assert_eq!((refused, applied), (1, 1));
    assert!(stream.is_quiet().await, "and then there is peace");
}

#[tokio::test]
async fn a_stalled_sidecar_delays_nobody_and_is_dropped_and_gets_the_newest_state_when_it_is_back()
{
    let world = World::new().await;
    let mut stalled = world.connect("cart-0").await;
    stalled.subscribe(CATALOG_ADDRESS).await;
    stalled.push().await; // and never answers
    let mut healthy = world.connect("frontend-0").await;
    healthy.subscribe(CATALOG_ADDRESS).await;
    healthy.next().await;
    for seconds in 3..8 {
        let written = Instant::now();
        world.write("policy.yaml", &policy("catalog", &format!("{seconds}s")));
        assert_eq!(deadline_ms(&healthy.next().await), seconds * 1000);
        assert!(
            written.elapsed() < Duration::from_secs(2),
            "took {:?}",
            written.elapsed()
        );
    }
    let status = stalled.end().await;
    assert_eq!(status.code(), Code::Unavailable);
    assert!(
        status.message().contains("no answer"),
        "{}",
        status.message()
    );
    let mut back = world.connect("cart-0").await;
    back.subscribe(CATALOG_ADDRESS).await;
    assert_eq!(deadline_ms(&back.next().await), 7000);
}

#[tokio::test]
async fn a_slow_sidecar_gets_the_newest_state_and_not_every_one_between() {
    let world = World::new().await;
    let mut slow = world.connect("cart-0").await;
    slow.subscribe(CATALOG_ADDRESS).await;
    let first = slow.push().await;
    for n in 0..5 {
        let endpoints: Vec<String> = (0..=n).map(|host| format!("10.1.9.{host}")).collect();
        let endpoints: Vec<_> = endpoints
            .iter()
            .map(|ip| (ip.as_str(), "catalog-0"))
            .collect();
        let version = world.plane.mesh.version();
        world.write("slice-catalog.yaml", &slice("catalog", &endpoints));
        while world.plane.mesh.version() == version {
            tokio::time::sleep(Duration::from_millis(10)).await; // until it was read
        }
    }
    slow.ack(&first).await;
    slow.next().await;
    assert_eq!(slow.addresses(CATALOG).len(), 5, "all of it at once");
    assert!(slow.is_quiet().await);
}

#[tokio::test]
async fn a_newer_connection_of_a_pod_takes_the_place_of_the_older() {
    let world = World::new().await;
    let mut first = world.connect("cart-0").await;
    let _second = world.connect("cart-0").await;
    let status = first.end().await;
    assert!(
        status.message().contains("newer connection"),
        "{}",
        status.message()
    );
}

/// Each connection was on record twice, as fast as somebody made them.
#[tokio::test]
async fn a_sidecar_that_comes_and_goes_without_end_is_told_of_so_often_and_no_more() {
    let world = World::new().await;
    let credentials = world.certify("cart-0").await;
    for _ in 0..60 {
        let mut stream = world.connect_as(&credentials, "cart-0").await;
        stream.push().await;
    }
    let _other = world.connect("frontend-0").await;
    let count = |kind: &str, pod: &str| {
        let facts = world.facts(kind);
        facts.iter().filter(|fact| fact.subject == pod).count()
    };
    let mut synced = world.plane.journal.watch();
    while count("ProxyConnected", "boutique/frontend-0") == 0 {
        let changed = tokio::time::timeout(world::PATIENCE, synced.changed());
        changed.await.expect("in time").expect("the journal lives");
    }
    let told = count("ProxyConnected", "boutique/cart-0");
    assert!((20..40).contains(&told), "{told} of 60");
    assert!(count("ProxyDisconnected", "boutique/cart-0") <= told);
}

#[tokio::test]
async fn versions_grow_across_restarts_and_refused_policies_stay_refused() {
    let world = World::new().await;
    let mut stream = world.connect("frontend-0").await;
    stream.subscribe(CATALOG_ADDRESS).await;
    let before = stream.next().await.version;
    world.write("policy.yaml", "{{{ not yaml");
    world.fact("PolicyRejected").await;
    let world = world.restarted(|_| {}).await;
    let status = stream.end().await;
    assert!(status.code() != Code::Ok, "the old one is over");
    let mut stream = world.connect("frontend-0").await;
    stream.subscribe(CATALOG_ADDRESS).await;
    let push = stream.next().await;
    assert!(push.version > before, "{} after {before}", push.version);
    assert_eq!(
        deadline_ms(&push),
        2000,
        "the last good policy survived the restart"
    );
}
