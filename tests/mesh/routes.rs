//! Routes of the Gateway API, obeyed by the sidecar of whoever calls.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, Response};

use crate::load::{self, assert_all_served};
use crate::world::{World, binary, eventually, hop, whole};

/// One rule for each thing that a route can do; what none of these is for goes to `next` one time in ten.
const EVERYTHING: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: server, namespace: tests}
spec:
  parentRefs: [{group: '', kind: Service, name: server, port: 80}]
  rules:
  - matches: [{headers: [{name: x-canary, value: '1'}]}]
    backendRefs: [{name: next, port: 80}]
  - matches: [{path: {type: PathPrefix, value: /old}}]
    filters:
    - type: URLRewrite
      urlRewrite: {hostname: inner.example, path: {type: ReplacePrefixMatch, replacePrefixMatch: /headers}}
    - type: RequestHeaderModifier
      requestHeaderModifier: {set: [{name: x-added, value: by-the-route}], remove: [x-secret]}
    - type: ResponseHeaderModifier
      responseHeaderModifier: {add: [{name: x-answered, value: by-the-route}]}
    backendRefs: [{name: server, port: 80}]
  - matches: [{path: {type: PathPrefix, value: /moved}}]
    filters:
    - type: RequestRedirect
      requestRedirect: {hostname: new.example, statusCode: 301, path: {type: ReplacePrefixMatch, replacePrefixMatch: /here}}
  - matches: [{path: {type: Exact, value: /copied}}]
    filters: [{type: RequestMirror, requestMirror: {backendRef: {name: shadow, port: 80}}}]
    backendRefs: [{name: server, port: 80}]
  - matches: [{path: {type: PathPrefix, value: /delay}}]
    timeouts: {request: 200ms}
    backendRefs: [{name: server, port: 80}]
  - matches: [{path: {type: Exact, value: /leaf}, method: POST}]
    retry: {attempts: 2, codes: [500], backoff: 10ms}
    backendRefs: [{name: server, port: 80}]
  - matches: [{path: {type: Exact, value: /nowhere}}]
    backendRefs: [{name: nobody, port: 80}]
  - matches: [{path: {type: RegularExpression, value: '/(flip|leaves|leaf)(/[0-9]*)?'}}]
    backendRefs: [{name: server, port: 80}]
  - backendRefs: [{name: server, port: 80, weight: 90}, {name: next, port: 80, weight: 10}]
";

fn split(server: u32, next: u32) -> String {
    format!(
        "
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: server, namespace: tests}}
spec:
  parentRefs: [{{group: '', kind: Service, name: server}}]
  rules:
  - backendRefs: [{{name: server, port: 80, weight: {server}}}, {{name: next, port: 80, weight: {next}}}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {{name: server, namespace: tests}}
spec:
  parentRefs: [{{group: '', kind: Service, name: server, port: 9090}}]
  rules:
  - backendRefs: [{{name: server, port: 9090}}]
"
    )
}

async fn ask(world: &World, method: &str, path: &str, header: (&str, &str)) -> Response<String> {
    let mut sender = world.http1("server:80").await;
    let request = Request::builder().method(method).uri(path);
    let request = request.header("host", "server").header(header.0, header.1);
    let request = request.body(Full::<Bytes>::default()).expect("a request");
    whole(sender.send_request(request).await.expect("an answer")).await
}

fn header<'a>(response: &'a Response<String>, name: &str) -> &'a str {
    let value = response.headers().get(name);
    value.map_or("", |value| value.to_str().expect("text"))
}

fn weir(world: &World, arguments: &[&str]) -> String {
    let socket = format!("unix:{}", world.lab.operator_socket().display());
    let mut command = std::process::Command::new(binary("weir"));
    command.args(["--control-plane", &socket]).args(arguments);
    let output = tokio::task::block_in_place(|| command.output()).expect("weir runs");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The fewest and the most of `n` that have more than one chance in two million each: together one in a million.
fn binomial_bounds(n: u32, p: f64) -> (u32, u32) {
    const TAIL: f64 = 0.5e-6;
    let mut chances = vec![(1.0 - p).powi(n.try_into().expect("few"))];
    for k in 1..=n {
        let before = chances[chances.len() - 1];
        chances.push(before * f64::from(n - k + 1) / f64::from(k) * p / (1.0 - p));
    }
    let within = |chances: &mut dyn Iterator<Item = &f64>| {
        let mut sum = 0.0;
        let beyond = chances.take_while(|chance| {
            sum += **chance;
            sum < TAIL
        });
        u32::try_from(beyond.count()).expect("few")
    };
    let (few, many) = (
        within(&mut chances.iter()),
        within(&mut chances.iter().rev()),
    );
    (few, n - many)
}

#[tokio::test(flavor = "multi_thread")]
async fn each_call_goes_where_the_route_says_and_as_it_says() {
    let more = format!("{}{}", hop("next"), hop("shadow"));
    let world = World::with(1, EVERYTHING, &more);
    eventually("the caller's sidecar knows the others", || {
        let state = world.sidecar_state("caller");
        ["tests/next:80", "tests/shadow:80"].iter().all(|service| {
            let endpoints = state["services"][service]["endpoints"].as_array();
            endpoints.is_some_and(|endpoints| endpoints.len() == 1)
        })
    })
    .await;

    // By a header, by weight.
    let canary = ask(&world, "GET", "/page", ("x-canary", "1")).await;
    assert!(header(&canary, "x-pod").starts_with("next"), "{canary:?}");
    const CALLS: u32 = 500;
    let (mut sender, mut next) = (world.http1("server:80").await, 0);
    for _ in 0..CALLS {
        let request = Request::get("/page").header("host", "server");
        let request = request.body(Full::default()).expect("a request");
        sender.ready().await.expect("an open connection");
        let answer = whole(sender.send_request(request).await.expect("an answer")).await;
        assert_eq!(answer.status(), 200);
        next += u32::from(header(&answer, "x-pod").starts_with("next"));
    }
    let (few, many) = binomial_bounds(CALLS, 0.1);
    println!("{next} of {CALLS} went to the next one: {few} to {many} are likely");
    assert!((few..=many).contains(&next), "{next} of {CALLS}");

    // Rewritten; its own canonical form is what counts.
    let rewritten = ask(&world, "GET", "/%6fld?q=1", ("x-secret", "1")).await;
    for line in ["host: inner.example\n", "x-added: by-the-route\n"] {
        assert!(rewritten.body().contains(line), "{}", rewritten.body());
    }
    assert!(
        !rewritten.body().contains("x-secret"),
        "{}",
        rewritten.body()
    );
    assert_eq!(header(&rewritten, "x-answered"), "by-the-route");
    let moved = ask(&world, "GET", "/moved/a?q=1", ("x-a", "1")).await;
    assert_eq!(moved.status(), 301);
    assert_eq!(header(&moved, "location"), "http://new.example/here/a?q=1");

    // Copied to somebody who does not answer, which costs the call nothing.
    tokio::task::block_in_place(|| world.lab.stop_app("shadow/0")).expect("it is frozen");
    let begun = Instant::now();
    for _ in 0..5 {
        assert_eq!(
            ask(&world, "GET", "/copied", ("x-a", "1")).await.status(),
            200
        );
    }
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "{:?}",
        begun.elapsed()
    );
    tokio::task::block_in_place(|| world.lab.cont("shadow/0")).expect("it goes on");
    let of_shadow = [("direction", "inbound"), ("service", "tests/shadow:80")];
    eventually("the copies arrive, each once", || {
        world
            .metrics("shadow")
            .sum("weir_requests_total", &of_shadow)
            == 5.0
    })
    .await;
    let copies = [("backend", "tests/shadow:80"), ("result", "answered")];
    eventually("they are counted as copies", || {
        world.metrics("caller").sum("weir_mirrored_total", &copies) == 5.0
    })
    .await;

    // In time, and again.
    let begun = Instant::now();
    let late = ask(
        &world,
        "GET",
        "/delay/2000",
        ("x-request-id", "routes-late"),
    )
    .await;
    assert_eq!(late.status(), 504);
    assert!(
        begun.elapsed() < Duration::from_millis(1500),
        "{:?}",
        begun.elapsed()
    );
    let story = weir(&world, &["explain", "routes-late"]);
    assert!(
        story.contains("sent there by HTTPRoute tests/server rules[4]"),
        "{story}"
    );
    ask(&world, "GET", "/flip/500", ("x-a", "1")).await;
    let leaves = async || {
        let leaves = ask(&world, "GET", "/leaves", ("x-a", "1")).await;
        leaves.body().trim().parse::<u32>().expect("a number")
    };
    let before = leaves().await;
    assert_eq!(
        ask(&world, "POST", "/leaf", ("x-a", "1")).await.status(),
        500
    );
    assert_eq!(
        leaves().await - before,
        3,
        "a POST, because the rule says so"
    );
    let before = leaves().await;
    assert_eq!(
        ask(&world, "PATCH", "/leaf", ("x-a", "1")).await.status(),
        500
    );
    assert_eq!(leaves().await - before, 1, "no rule says so");

    let nowhere = ask(&world, "GET", "/nowhere", ("x-a", "1")).await;
    assert_eq!(nowhere.status(), 500);
    assert_eq!(header(&nowhere, "weir-proxy-error"), "no-backend");
    let told = weir(&world, &["proxy", "policy", "tests/caller-0"]);
    assert!(told.contains("HTTPRoute tests/server rules[8]"), "{told}");
    assert!(
        told.contains("tests/server:80 90/100, tests/next:80 10/100"),
        "{told}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edited_route_holds_within_a_second_and_costs_no_request() {
    let world = World::with(1, &split(1, 0), &hop("next"));
    let load = load::start(&world, "/page", Duration::from_millis(50)).await;
    let goes_to = async |pod: &str, within: Duration| {
        let begun = Instant::now();
        loop {
            let answer = world.get("server:80", "/page").await;
            if header(&answer, "x-pod").starts_with(pod) {
                return println!("to {pod} {:?} after the edit", begun.elapsed());
            }
            assert!(
                begun.elapsed() < within,
                "it still goes elsewhere: {answer:?}"
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    goes_to("server", Duration::from_secs(1)).await;
    for (server, next, pod) in [(0, 1, "next"), (1, 0, "server"), (0, 7, "next")] {
        world.write_policy(&split(server, next));
        goes_to(pod, Duration::from_secs(1)).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    // Without any it is as it was.
    world.write_policy("");
    goes_to("server", Duration::from_secs(1)).await;
    assert_all_served(&load.end().await, "a route that is edited four times");
}
