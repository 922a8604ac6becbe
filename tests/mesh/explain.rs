//! What an operator is told: why a request came to what it came to, and which values hold for a sidecar.

use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use serde_json::Value;

use crate::world::{World, binary, eventually, hop, whole};

const RETRIED: &str = "
apiVersion: weir.dev/v1alpha1
kind: ResiliencePolicy
metadata: {name: server, namespace: tests}
spec:
  targetRefs: [{kind: Service, name: server}]
  outbound: {retries: {attempts: 3}}
  routes:
  - match: {http: {pathPrefix: /delay}}
    outbound: {deadline: 100ms}
";

const TRACE_ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

fn weir(world: &World, arguments: &[&str]) -> std::process::Output {
    let socket = format!("unix:{}", world.lab.operator_socket().display());
    let mut command = std::process::Command::new(binary("weir"));
    command.args(["--control-plane", &socket]).args(arguments);
    tokio::task::block_in_place(|| command.output()).expect("weir runs")
}

fn said(world: &World, arguments: &[&str]) -> String {
    let output = weir(world, arguments);
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The id that the answer says it can be asked for by.
async fn ask(world: &World, to: &str, path: &str, header: Option<(&str, &str)>) -> (u16, String) {
    let mut sender = world.http1(to).await;
    let mut request = Request::get(path).header("host", "server");
    if let Some((name, value)) = header {
        request = request.header(name, value);
    }
    let request = request.body(Full::<Bytes>::default()).expect("a request");
    let response = whole(sender.send_request(request).await.expect("an answer")).await;
    let id = response.headers().get("x-weir-request-id");
    let id = id.map(|id| id.to_str().expect("text").to_owned());
    (response.status().as_u16(), id.unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_failed_is_explained_by_the_id_on_its_answer() {
    let world = World::with(1, RETRIED, "");
    // By the caller's own: the deadline of a route, and no query. First, while another try is paid for: this one ends at its share.
    let header = Some(("x-request-id", "order-4711"));
    let (status, id) = ask(&world, "server:80", "/delay/400?secret=1", header).await;
    assert_eq!((status, id.as_str()), (504, "order-4711"));
    let story = said(&world, &["explain", &id]);
    println!("{story}");
    assert!(story.contains("took longer than one try may"), "{story}");
    assert!(story.contains("route "), "{story}");
    assert!(!story.contains("secret"), "{story}");
    // Both ends tell of it: the other one as soon as it has heard that nobody waits any more.
    let told = [
        "tests/server-0 was called",
        "by spiffe://weir.local/ns/tests/sa/caller",
    ];
    eventually("both ends tell of it", || {
        let story = said(&world, &["explain", &id]);
        told.iter().all(|part| story.contains(part))
    })
    .await;

    // By a name that the sidecar made: every try, and why there was no more.
    let (status, id) = ask(&world, "server:80", "/status/503", None).await;
    assert_eq!(status, 503);
    assert!(id.starts_with("weir-"), "{id}");
    let story = said(&world, &["explain", &id]);
    println!("{story}");
    for part in [
        "tests/caller-0 called tests/server:80",
        "GET /status/503",
        ": 503 → again",
        "not again: attempts",
    ] {
        assert!(story.contains(part), "{part:?} is missing in\n{story}");
    }
    assert_eq!(story.matches(": 503 → ").count(), 3, "{story}");

    // What went well is not kept, and says nothing of itself.
    let (status, id) = ask(&world, "server:80", "/", Some(("x-request-id", "fine-1"))).await;
    assert_eq!((status, id.as_str()), (200, ""));
    let unknown = weir(&world, &["explain", "fine-1"]);
    assert_eq!(unknown.status.code(), Some(1));
    let told = String::from_utf8_lossy(&unknown.stderr).into_owned();
    assert!(told.contains("no sidecar remembers fine-1"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_is_explained_through_all_its_hops() {
    let world = World::with(1, "", &[hop("b"), hop("c")].concat());
    let trace = format!("00-{TRACE_ID}-00f067aa0ba902b7-01");
    let header = Some(("traceparent", trace.as_str()));
    let path = "/after/0/c/work/0/1/503";
    // Sidecars get to know a service when it is first used.
    eventually("the whole way works", || {
        tokio::task::block_in_place(|| {
            let asking = ask(&world, "b:80", path, None);
            tokio::runtime::Handle::current().block_on(asking).0 == 503
        })
    })
    .await;
    let (status, id) = ask(&world, "b:80", path, header).await;
    assert_eq!((status, id.as_str()), (503, TRACE_ID));
    let lines = said(&world, &["explain", TRACE_ID, "--json"]);
    let told: Vec<Value> = lines
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    let of = |pod: &str, direction: &str| {
        let mut told = told.iter();
        told.find(|told| told["pod"] == pod && told["record"]["direction"] == direction)
            .unwrap_or_else(|| panic!("nothing {direction} of {pod} in {lines}"))["record"]
            .clone()
    };
    assert_eq!(of("tests/caller-0", "outbound")["service"], "tests/b:80");
    assert_eq!(
        of("tests/b-0", "inbound")["caller"],
        "spiffe://weir.local/ns/tests/sa/caller"
    );
    let below = of("tests/b-0", "outbound");
    assert_eq!(below["inherited"], true, "{below}");
    assert_eq!(below["tries"].as_array().map(Vec::len), Some(2), "{below}");
    assert_eq!(of("tests/c-0", "inbound")["status"], 503);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_values_that_hold_for_a_sidecar_are_told_with_who_said_them() {
    let world = World::with(1, RETRIED, "");
    let table = said(
        &world,
        &[
            "proxy",
            "policy",
            "tests/caller-0",
            "--service",
            "tests/server:80",
        ],
    );
    let row = |field: &str| {
        let mut rows = table.lines();
        let words = |row: &str| {
            row.split_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        let found = rows.find(|row| words(row).get(1).is_some_and(|name| name == field));
        words(found.unwrap_or_else(|| panic!("no {field} in\n{table}")))[2..].join(" ")
    };
    assert_eq!(row("outbound.deadline"), "15s default");
    assert_eq!(
        row("outbound.retries.attempts"),
        "3 ResiliencePolicy tests/server"
    );
    assert_eq!(
        row("routes[0].outbound.deadline"),
        "100ms ResiliencePolicy tests/server routes[0]"
    );
    assert_eq!(
        row("routes[0].outbound.retries.attempts"),
        "3 ResiliencePolicy tests/server"
    );
    assert_eq!(row("outbound.circuitBreaker"), "- default");
    let json = said(&world, &["proxy", "policy", "tests/server-0", "--json"]);
    let json: Value = serde_json::from_str(&json).expect("JSON");
    let values = json["values"].as_array().expect("a list");
    let in_flight = values
        .iter()
        .find(|value| value["field"] == "inbound.limits.inFlight");
    assert_eq!(in_flight.expect("it serves")["from"], "default");
    let nobody = weir(&world, &["proxy", "policy", "tests/nobody"]);
    assert_eq!(nobody.status.code(), Some(1));
}
