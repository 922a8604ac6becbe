//! Who is let in, and who is told to come back: rate limits, throttles, hedges.

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::join_all;
use http_body_util::Full;
use hyper::{Request, Response};

use crate::grpc::{call, message};
use crate::world::{PATIENCE, WEB, World, eventually, http1_over, whole};

/// A caller may ask once a second.
fn limited(mode: &str) -> String {
    format!(
        "
apiVersion: weir.dev/v1alpha1
kind: ResiliencePolicy
metadata: {{name: server, namespace: tests}}
spec:
  targetRefs: [{{kind: Service, name: server}}]
  mode: {mode}
  inbound:
    rateLimits:
    - {{requestsPerSecond: 1, burst: 1, per: Caller}}
    - {{requestsPerSecond: 1000}}
"
    )
}

/// Asks until an answer is as wanted.
async fn until(
    world: &World,
    what: &str,
    wanted: impl Fn(&Response<String>) -> bool,
) -> Response<String> {
    let begun = Instant::now();
    loop {
        let answer = world.get("server:80", "/").await;
        if wanted(&answer) {
            return answer;
        }
        assert!(begun.elapsed() < PATIENCE, "{what}: {answer:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Planted: a limit that only new connections get would never hold between sidecars, whose connections stay open.
#[tokio::test(flavor = "multi_thread")]
async fn a_caller_above_its_rate_is_told_when_to_come_back_on_connections_that_are_open_too() {
    let world = World::new();
    let fine = |answer: &Response<String>| answer.status() == 200;
    let over = |answer: &Response<String>| answer.status() == 429;
    until(&world, "it works", fine).await;
    world.write_policy(&limited("Enforce"));

    let refused = until(&world, "the limit holds", over).await;
    let headers = refused.headers();
    assert_eq!(headers["weir-proxy-error"], "rate-limited");
    assert_eq!(headers["retry-after"], "1");
    assert_eq!(
        own_headers(&refused),
        ["x-weir-request-id"],
        "what else sidecars tell each other stays among them"
    );
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(world.get("server:80", "/").await.status(), 200, "as told");

    // Of the port that the gRPC service has; its own bucket, as every port has its own policy.
    let mut sender = world.http2::<Full<Bytes>>("server:9090").await;
    let echo = || call("Echo", Full::new(message(b"hello")));
    let first = sender.send_request(echo()).await.expect("an answer");
    assert_eq!(first.status(), 200);
    let refused = sender.send_request(echo()).await.expect("an answer");
    let headers = refused.headers();
    assert_eq!(headers["grpc-status"], "8", "RESOURCE_EXHAUSTED");
    let pushback = headers["grpc-retry-pushback-ms"]
        .to_str()
        .expect("a number");
    let pushback: u64 = pushback.parse().expect("a number");
    assert!((1..=1000).contains(&pushback), "{pushback} ms");

    let limited_by = |mode| {
        let labels = [("service", WEB), ("per", "caller"), ("mode", mode)];
        world
            .metrics("server")
            .sum("weir_rate_limited_total", &labels)
    };
    assert!(limited_by("enforce") >= 1.0);
    world.write_policy(&limited("Observe"));
    let before = Instant::now();
    while limited_by("observe") < 10.0 {
        until(&world, "it only observes", fine).await;
        assert!(before.elapsed() < PATIENCE);
    }
}

/// The app works on four calls at once, and nobody waits for a place.
const FOUR: &str = "
apiVersion: weir.dev/v1alpha1
kind: ResiliencePolicy
metadata: {name: server, namespace: tests}
spec:
  targetRefs: [{kind: Service, name: server}]
  outbound: {retries: {attempts: 1}}
  inbound: {concurrency: {adaptive: {min: 4, max: 4}}, queue: {size: 0, maxWait: 10ms}}
";

/// So many calls at once that take so long, and what became of them.
async fn at_once(world: &World, calls: usize, path: &'static str) -> Vec<Response<String>> {
    let mut running = Vec::new();
    for _ in 0..calls {
        let mut sender = world.http1("server:80").await;
        running.push(tokio::spawn(async move {
            let request = Request::get(path).header("host", "server");
            let request = request.body(Full::<Bytes>::default()).expect("a request");
            whole(sender.send_request(request).await.expect("an answer")).await
        }));
    }
    let mut answers = Vec::new();
    for call in running {
        answers.push(call.await.expect("no panic"));
    }
    answers
}

fn own_headers(answer: &Response<String>) -> Vec<&str> {
    let names = answer
        .headers()
        .keys()
        .map(hyper::header::HeaderName::as_str);
    names.filter(|name| name.starts_with("x-weir-")).collect()
}

/// Planted: stamping every answer, and passing the stamp on.
#[tokio::test(flavor = "multi_thread")]
async fn a_busy_app_is_known_to_its_callers_sidecar_and_to_nobody_else() {
    let world = World::with(1, FOUR, "");
    let said = || {
        let state = world.sidecar_state("caller");
        state["services"][WEB]["endpoints"][0]["load"]
            .as_f64()
            .expect("a load")
    };
    // Calls that looked whether the world is there may have met; what they left is forgotten by now.
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(world.get("server:80", "/").await.status(), 200);
    assert_eq!(said(), 0.0, "a single call is not half of four");
    let busy = at_once(&world, 4, "/delay/300");
    let stranger = async {
        tokio::time::sleep(Duration::from_millis(150)).await;
        let address = world.lab.pod("server").expect("there is one").address;
        let stream = world.dial_from(None, &format!("{address}:8080"));
        let mut sender = http1_over(stream).await;
        let request = Request::get("/").header("host", "server");
        let request = request.body(Full::<Bytes>::default()).expect("a request");
        whole(sender.send_request(request).await.expect("an answer")).await
    };
    let (answers, stranger) = tokio::join!(busy, stranger);
    for answer in &answers {
        assert_eq!(answer.status(), 200);
        assert_eq!(
            own_headers(answer),
            Vec::<&str>::new(),
            "the app asked its neighbour"
        );
    }
    assert!(said() >= 0.5, "{}", said());
    // The fifth at once: in plain text, from outside the mesh.
    assert_eq!(stranger.status(), 503, "there is no place");
    assert!(!stranger.headers().contains_key("x-weir-load"));
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(said(), 0.0, "forgotten");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_overloaded_service_is_spared_by_its_callers_sidecar_and_asked_again_when_it_has_room() {
    let world = World::with(1, FOUR, "");
    let mut refusals = Vec::new();
    for _ in 0..5 {
        for answer in at_once(&world, 40, "/delay/100").await {
            if answer.status() != 200 {
                assert_eq!(answer.status(), 503);
                let why = answer.headers()["weir-proxy-error"]
                    .to_str()
                    .expect("a word");
                refusals.push(why.to_owned());
            }
        }
    }
    let spared = refusals.iter().filter(|why| *why == "throttled").count();
    let by_service = refusals.len() - spared;
    println!("{by_service} refused by the service, {spared} spared it");
    assert!(
        by_service >= 10 && spared >= 20,
        "{by_service} and {spared}"
    );
    let labels = [("service", WEB), ("mode", "enforce")];
    let counted = world.metrics("caller").sum("weir_throttled_total", &labels);
    assert_eq!(counted, spared as f64);
    let state = world.sidecar_state("caller");
    let share = state["services"][WEB]["throttled"]
        .as_f64()
        .expect("a share");
    assert!((0.1..=0.9).contains(&share), "{share}");
    let fine = |answer: &Response<String>| answer.status() == 200;
    until(&world, "some are let through", fine).await;
}

/// Planted: a fact for each call that is dropped, and an end that is told while it goes on.
#[tokio::test(flavor = "multi_thread")]
async fn an_overload_is_told_when_it_begins_and_when_it_is_over() {
    let world = World::with(1, FOUR, "");
    let told = |kind: &str| -> Vec<serde_json::Value> {
        let events = tokio::task::block_in_place(|| world.events(kind));
        let events = events.lines().map(serde_json::from_str);
        events.map(|event| event.expect("JSON")).collect()
    };
    let active = |pod, name| world.metrics(pod).sum(name, &[("service", WEB)]);
    let begun = Instant::now();
    while told("SaturationBegan").is_empty() || told("ThrottleBegan").is_empty() {
        assert!(begun.elapsed() < PATIENCE, "nobody tells of it");
        for _ in 0..5 {
            at_once(&world, 40, "/delay/100").await;
        }
    }
    assert_eq!(active("server", "weir_inbound_saturated"), 1.0);
    assert_eq!(active("caller", "weir_throttling"), 1.0);

    for (ended, name, pod) in [
        ("SaturationEnded", "weir_inbound_saturated", "server"),
        ("ThrottleEnded", "weir_throttling", "caller"),
    ] {
        eventually(ended, || !told(ended).is_empty()).await;
        assert_eq!(active(pod, name), 0.0);
    }
    for kind in [
        "SaturationBegan",
        "SaturationEnded",
        "ThrottleBegan",
        "ThrottleEnded",
    ] {
        let events = told(kind);
        println!("{}", events[0]["message"]);
        assert_eq!(events.len(), 1, "{events:?}");
        assert_eq!(events[0]["subject"], WEB);
    }
    let details = |kind| told(kind)[0]["details"].clone();
    assert_eq!(details("SaturationBegan")["limit"], 4);
    let throttle = details("ThrottleBegan");
    assert!(
        throttle["accepted"].as_u64() < throttle["requests"].as_u64(),
        "{throttle}"
    );
    assert!(throttle["droppedPercent"].as_u64() > Some(0), "{throttle}");
}

/// One in a hundred is slow, and five may be made twice: so there are savings when an app hangs.
const HEDGED: &str = "
apiVersion: weir.dev/v1alpha1
kind: ResiliencePolicy
metadata: {name: server, namespace: tests}
spec:
  targetRefs: [{kind: Service, name: server}]
  routes:
  - match: {http: {method: PUT, pathPrefix: /echo}}
    outbound: {hedging: {afterPercentile: 99, maxExtra: 5}}
";

#[tokio::test(flavor = "multi_thread")]
async fn a_call_to_an_app_that_hangs_is_answered_by_another_and_the_first_is_told_to_stop() {
    let world = World::with(2, HEDGED, "");
    // Two at a time, so that both of the pods are called. Both may meet the one that hangs, and then nobody else answers.
    let mut senders = [
        world.http1("server:80").await,
        world.http1("server:80").await,
    ];
    let mut put = async || {
        let both = senders.each_mut().map(async |sender| {
            let begun = Instant::now();
            sender.ready().await.expect("it is open");
            let request = Request::put("/echo").header("host", "server");
            let request = request.body(Full::from("whole")).expect("a request");
            let answer = whole(sender.send_request(request).await.expect("an answer")).await;
            assert_eq!(
                (answer.status().as_u16(), answer.body().as_str()),
                (200, "whole")
            );
            begun.elapsed()
        });
        let took = join_all(both).await;
        took.into_iter().max().expect("two")
    };
    for _ in 0..200 {
        put().await;
    }
    let hedges = |result| {
        let labels = [("service", WEB), ("result", result)];
        world.metrics("caller").sum("weir_hedges_total", &labels)
    };
    let before = hedges("won");
    tokio::task::block_in_place(|| world.lab.stop_app("server/0")).expect("it can be stopped");
    let mut slowest = Duration::ZERO;
    let begun = Instant::now();
    while hedges("won") == before {
        assert!(begun.elapsed() < PATIENCE, "nobody met the one that hangs");
        for _ in 0..10 {
            slowest = slowest.max(put().await);
        }
    }
    let metrics = world.metrics("caller");
    for name in ["weir_hedges_total", "weir_hedges_withheld_total"] {
        for series in metrics.matching(name, &[("service", WEB)]) {
            let of = format!("{}{}", series.label("result"), series.label("reason"));
            println!("{name} {of} {}", series.value());
        }
    }
    println!("slowest {slowest:?}, {} hedges won", hedges("won") - before);
    assert!(slowest < Duration::from_millis(500), "{slowest:?}");
    let idle = || {
        let state = world.sidecar_state("caller");
        let endpoints = state["services"][WEB]["endpoints"].as_array().cloned();
        (endpoints.unwrap_or_default().iter()).all(|endpoint| endpoint["inFlight"] == 0)
    };
    eventually("nobody waits for the one that hangs", idle).await;
    tokio::task::block_in_place(|| world.lab.cont("server/0")).expect("it goes on");
}
