//! Breakers that somebody holds: an operator by `weir breakers force`, a policy by `circuitBreaker.force`.

use std::process::{Command, Output};
use std::time::Duration;

use crate::world::{WEB, World, binary, eventually};

const HELD_OPEN: &str = "
apiVersion: weir.dev/v1alpha1
kind: ResiliencePolicy
metadata: {name: server, namespace: tests}
spec:
  targetRefs: [{kind: Service, name: server}]
  outbound: {circuitBreaker: {force: Open}}
";

fn weir(world: &World, arguments: &[&str]) -> Output {
    let socket = format!("unix:{}", world.lab.operator_socket().display());
    let mut command = Command::new(binary("weir"));
    command.args(["--control-plane", &socket]).args(arguments);
    tokio::task::block_in_place(|| command.output()).expect("weir runs")
}

fn said(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

async fn status(world: &World) -> u16 {
    world.get("server:80", "/").await.status().as_u16()
}

async fn until_status(world: &World, wanted: u16) {
    let begun = std::time::Instant::now();
    while status(world).await != wanted {
        assert!(begun.elapsed() < Duration::from_secs(15), "never {wanted}");
    }
}

/// Planted bug that this finds: a control plane that does not let go when the time is over (the sidecar still does).
#[tokio::test(flavor = "multi_thread")]
async fn what_an_operator_forces_holds_at_once_is_seen_everywhere_and_ends_by_itself() {
    let world = World::new();
    assert_eq!(status(&world).await, 200);
    let force = [
        "breakers",
        "force",
        "tests/server:80",
        "open",
        "--for",
        "6s",
    ];
    let told = said(&weir(&world, &force));
    assert!(
        told.starts_with("tests/server:80 forced open until "),
        "{told}"
    );
    until_status(&world, 503).await;
    // Other ports of the service are not meant.
    let (mut sender, request) = (
        world.http2("server:9090").await,
        crate::grpc::call(
            "Echo",
            http_body_util::Full::new(crate::grpc::message(b"x")),
        ),
    );
    assert_eq!(sender.send_request(request).await.unwrap().status(), 200);

    let row = || said(&weir(&world, &["breakers", "--service", "tests/server"]));
    eventually("weir breakers shows it", || row().contains("Open (forced)")).await;
    assert!(row().contains("forced open by an operator"), "{}", row());
    let metrics = world.metrics("caller");
    let transition = [("service", WEB), ("to", "open"), ("reason", "forced")];
    assert_eq!(
        metrics.sum("weir_breaker_transitions_total", &transition),
        1.0
    );
    assert_eq!(metrics.sum("weir_breaker_forced", &[("service", WEB)]), 1.0);

    until_status(&world, 200).await;
    eventually("weir breakers shows that", || {
        row().contains("every breaker and gate is closed")
    })
    .await;
    let kinds = |kind| {
        tokio::task::block_in_place(|| world.events(kind))
            .lines()
            .count()
    };
    eventually("the journal has its end", || kinds("BreakerReleased") == 1).await;
    assert_eq!(kinds("BreakerForced"), 1);
    assert_eq!(kinds("BreakerOpened"), 1);
    assert_eq!(world.metrics("caller").sum("weir_breaker_forced", &[]), 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_is_stronger_than_a_policy_and_told_when_he_errs() {
    let world = World::with(1, HELD_OPEN, "");
    until_status(&world, 503).await;
    said(&weir(
        &world,
        &["breakers", "force", "tests/server", "closed"],
    ));
    until_status(&world, 200).await;
    said(&weir(
        &world,
        &["breakers", "force", "tests/server", "auto"],
    ));
    until_status(&world, 503).await;
    for (arguments, text, code) in [
        (
            ["tests/nobody", "open", "--for", "1m"],
            "there is no service tests/nobody",
            1,
        ),
        (
            ["server", "open", "--for", "1m"],
            "expected namespace/name",
            2,
        ),
        (["tests/server", "open", "--for", "25h"], "at most 24h", 2),
    ] {
        let output = weir(&world, &[&["breakers", "force"], &arguments[..]].concat());
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(told.contains(text), "{told}");
        assert_eq!(output.status.code(), Some(code), "{told}");
    }
}
