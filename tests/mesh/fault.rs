//! A FaultPolicy on a service that is well: its callers' sidecars take the faults for real ones, and they end by
//! themselves.

use std::process::Command;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http1::SendRequest;
use hyper::{Request, Response};

use crate::world::{PATIENCE, WEB, World, binary, eventually, whole};

const CONTROL_PLANE: &str = "weir-control-plane";
const FAULT: &str = "x-weir-fault";

const BREAKER: &str = "
apiVersion: weir.dev/v1alpha1
kind: ResiliencePolicy
metadata: {name: server, namespace: tests}
spec:
  targetRefs: [{kind: Service, name: server}]
  outbound:
    circuitBreaker: {window: 10s, minimumCalls: 10, failureRate: 10, openFor: 1s}
";

/// Of the caller: another service account is not meant.
const HALF_FAIL: &str = "
---
apiVersion: weir.dev/v1alpha1
kind: FaultPolicy
metadata: {name: fails, namespace: tests}
spec:
  targetRefs: [{kind: Service, name: server, sectionName: http-web}]
  duration: 20s
  faults:
  - {callers: [ns/tests/sa/nobody], connection: BlackHole}
  - {callers: [ns/tests/sa/caller], percentage: 50, abort: {httpStatus: 503}}
";

fn faults(world: &World) -> usize {
    let state = world.sidecar_state("caller");
    let faults = state["services"][WEB]["faults"].as_array();
    faults.map_or(0, Vec::len)
}

fn said(world: &World) -> String {
    let socket = format!("unix:{}", world.lab.operator_socket().display());
    let mut command = Command::new(binary("weir"));
    command
        .args(["--control-plane", &socket, "proxy", "policy"])
        .args(["tests/caller-0", "--service", "tests/server"]);
    let output = tokio::task::block_in_place(|| command.output()).expect("weir runs");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

async fn get(sender: &mut SendRequest<Full<Bytes>>) -> Response<String> {
    let request = Request::get("/").header("host", "server");
    let request = request.body(Full::default()).expect("a request");
    sender.ready().await.expect("the connection is kept");
    whole(sender.send_request(request).await.expect("an answer")).await
}

/// Planted bugs that this finds: an abort that is no failure to the breaker, a fault that waits for a push to end.
#[tokio::test(flavor = "multi_thread")]
async fn half_of_the_calls_to_an_app_that_is_well_fail_for_a_while_and_then_none_with_nobody_to_end_it()
 {
    let world = World::with(1, BREAKER, "");
    assert_eq!(faults(&world), 0);
    world.write_policy(&format!("{BREAKER}{HALF_FAIL}"));
    eventually("the caller's sidecar knows", || faults(&world) == 1).await;
    let begun = Instant::now();
    assert!(said(&world).contains("FaultPolicy tests/fails faults[1]"));
    tokio::task::block_in_place(|| world.lab.stop(CONTROL_PLANE)).expect("it is frozen");

    let sum = |name: &str, labels: &[(&str, &str)]| world.metrics("caller").sum(name, labels);
    let opened = [("service", WEB), ("to", "open")];
    let mut sender = world.http1("server:80").await;
    let (mut marked, mut good) = (0, 0);
    while marked == 0 || good == 0 || sum("weir_breaker_transitions_total", &opened) == 0.0 {
        assert!(begun.elapsed() < Duration::from_secs(15), "{marked} {good}");
        for _ in 0..20 {
            let answer = get(&mut sender).await;
            let fault = answer.headers().get(FAULT);
            match answer.status().as_u16() {
                200 => good += 1,
                503 => marked += usize::from(fault.is_some_and(|policy| policy == "tests/fails")),
                other => panic!("{other}"),
            }
        }
    }
    println!(
        "{marked} aborted, {good} good, the breaker open after {:?}",
        begun.elapsed()
    );
    let aborted = [
        ("service", WEB),
        ("policy", "tests/fails"),
        ("kind", "abort"),
    ];
    assert!(sum("weir_faults_injected_total", &aborted) >= marked as f64);
    assert_eq!(
        sum("weir_faults_injected_total", &[("kind", "black-hole")]),
        0.0
    );
    assert!(sum("weir_retries_total", &[("service", WEB)]) > 0.0);
    let failed = [("direction", "inbound"), ("class", "failure")];
    assert_eq!(
        world.metrics("server").sum("weir_requests_total", &failed),
        0.0,
        "the app is well"
    );

    eventually("it is over, and the control plane is still frozen", || {
        faults(&world) == 0
    })
    .await;
    let lasted = begun.elapsed();
    assert!(
        lasted > Duration::from_secs(15) && lasted < Duration::from_secs(23),
        "{lasted:?}"
    );
    let mut sender = world.http1("server:80").await; // the other has idled for too long
    let since = Instant::now();
    let mut in_a_row = 0;
    while in_a_row < 50 {
        assert!(since.elapsed() < PATIENCE, "the breaker stays open");
        let answer = get(&mut sender).await;
        assert!(!answer.headers().contains_key(FAULT));
        in_a_row = if answer.status() == 200 {
            in_a_row + 1
        } else {
            0
        };
    }
    world.lab.cont(CONTROL_PLANE).expect("it goes on");
}
