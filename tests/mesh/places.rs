//! Which endpoint a call goes to: the one that its key belongs to, or one that is near.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;

use crate::world::{World, eventually, http1_over, labelled, whole};

const HASHED: &str = "
apiVersion: weir.dev/v1alpha1
kind: ResiliencePolicy
metadata: {name: server, namespace: tests}
spec:
  targetRefs: [{kind: Service, name: server}]
  outbound: {loadBalancing: {algorithm: ConsistentHash, consistentHash: {header: x-user}}}
";

const FAR: &str = "
apiVersion: weir.dev/v1alpha1
kind: ResiliencePolicy
metadata: {name: zoned, namespace: tests}
spec:
  targetRefs: [{kind: Service, name: zoned}]
  outbound: {loadBalancing: {zone: Ignore}}
";

/// Which pod answers.
async fn asked(world: &World, from: &str, to: &str, user: &str) -> String {
    let mut sender = http1_over(world.dial_from(Some(from), to)).await;
    let request = Request::get("/").header("host", to).header("x-user", user);
    let request = request.body(Full::<Bytes>::default()).expect("a request");
    let response = whole(sender.send_request(request).await.expect("an answer")).await;
    assert_eq!(response.status(), 200, "{}", response.body());
    let pod = response.headers().get("x-pod").expect("the app says it");
    pod.to_str().expect("text").to_owned()
}

fn endpoints(world: &World, pod: &str, service: &str) -> usize {
    let state = world.sidecar_state(pod);
    let endpoints = state["services"][service]["endpoints"].as_array();
    endpoints.map_or(0, Vec::len)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_stays_with_its_endpoint_and_moves_when_that_one_goes_and_no_other_does() {
    let world = World::with(3, HASHED, "");
    let places = async || {
        let mut places = BTreeMap::new();
        for user in 0..40 {
            let user = format!("user-{user}");
            let pod = asked(&world, "caller", "server:80", &user).await;
            places.insert(user, pod);
        }
        places
    };
    let before = places().await;
    assert_eq!(places().await, before, "by another connection each time");
    let pods: BTreeSet<&String> = before.values().collect();
    assert_eq!(pods.len(), 3, "{before:?}");

    tokio::task::block_in_place(|| world.lab.scale("server", 2)).expect("one pod ends");
    eventually("the caller's sidecar knows", || {
        endpoints(&world, "caller", "tests/server:80") == 2
    })
    .await;
    let after = places().await;
    let left: BTreeSet<&String> = after.values().collect();
    assert_eq!(left.len(), 2, "{after:?}");
    let mut moved = 0;
    for (user, pod) in &before {
        if left.contains(pod) {
            assert_eq!(&after[user], pod, "{user} had no reason to move");
        } else {
            moved += 1;
        }
    }
    assert!(moved > 0, "somebody was there: {before:?}");
    assert_eq!(places().await, after, "and there they stay");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_own_zone_is_preferred_and_left_when_nobody_is_there() {
    let zoned = |name: &str, zone: &str, group: &str| {
        let labels = format!("app: {name}, group: {group}, topology.kubernetes.io/zone: {zone}");
        labelled(name, &labels, 1)
    };
    let service = "
apiVersion: v1
kind: Service
metadata: {name: zoned, namespace: tests}
spec:
  selector: {group: zoned}
  ports: [{name: http-web, port: 80, targetPort: 8080}]
";
    let all = [
        zoned("walker", "a", "callers"),
        zoned("near", "a", "zoned"),
        zoned("far", "b", "zoned"),
        service.to_owned(),
    ];
    let world = World::with(1, "", &all.concat());
    let ask = async || asked(&world, "walker", "zoned:80", "somebody").await;
    ask().await;
    eventually("the caller's sidecar knows both", || {
        endpoints(&world, "walker", "tests/zoned:80") == 2
    })
    .await;
    // A call now and then may go further: while the near one has just been slow, as measured on a busy machine.
    let mut near = 0;
    for _ in 0..40 {
        near += usize::from(ask().await.starts_with("near"));
    }
    assert!(near >= 36, "{near} of 40");

    world.write_policy(FAR);
    let mut pods = BTreeSet::new();
    let begun = std::time::Instant::now();
    while pods.len() < 2 && begun.elapsed() < crate::world::PATIENCE {
        pods.insert(ask().await);
    }
    assert_eq!(pods.len(), 2, "zones do not matter: {pods:?}");

    world.write_policy("");
    tokio::task::block_in_place(|| world.lab.scale("near", 0)).expect("its pod ends");
    eventually("the caller's sidecar knows", || {
        endpoints(&world, "walker", "tests/zoned:80") == 1
    })
    .await;
    for number in 0..10 {
        let pod = ask().await;
        assert!(pod.starts_with("far"), "{number}: {pod}");
    }
}
