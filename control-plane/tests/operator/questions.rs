//! `weir` with a control plane that it can ask.

use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::Instant;
use weir_config::pb;

use super::world::{PATIENCE, World, policy};
use super::{stderr, stdout, weir};

#[tokio::test]
async fn the_command_line_shows_what_happens() {
    let world = World::new().await;
    let folder = world.folder.path();
    let socket = std::fs::metadata(folder.join("operator.sock")).expect("a socket");
    let mode = std::os::unix::fs::PermissionsExt::mode(&socket.permissions());
    assert_eq!(mode & 0o777, 0o600, "its owner's only");
    let mut stream = world.connect("frontend-0").await;
    stream.subscribe("10.96.0.1:3550").await;
    stream.next().await;
    let service = || "boutique/catalog:3550".to_owned();
    let opened = |to: pb::BreakerState| {
        pb::fact::Fact::BreakerChanged(pb::BreakerChanged {
            service: service(),
            route: String::new(),
            from: pb::BreakerState::Closed.into(),
            to: to.into(),
            reason: "12 of 20 calls failed\u{1b}[2J".to_owned(),
            forced: false,
            observed: false,
        })
    };
    stream.fact(opened(pb::BreakerState::Open)).await;
    let ejected = pb::EndpointChanged {
        service: service(),
        endpoint: "10.1.0.2:3550".to_owned(),
        from: pb::GateState::Closed.into(),
        to: pb::GateState::Open.into(),
        reason: "5 failures in a row".to_owned(),
        held_back: false,
    };
    stream.fact(pb::fact::Fact::EndpointChanged(ejected)).await;
    world.fact("EndpointEjected").await;

    let breakers = stdout(&weir(folder, &["breakers"]).await);
    assert!(
        breakers.contains("12 of 20 calls failed") && !breakers.contains('\u{1b}'),
        "{breakers}"
    );
    assert_eq!(breakers.lines().count(), 3, "{breakers}");
    let json = stdout(
        &weir(
            folder,
            &["breakers", "-o", "json", "--service", "boutique/catalog"],
        )
        .await,
    );
    assert_eq!(
        json.lines()
            .filter(|line| line.contains("\"Open\""))
            .count(),
        2,
        "{json}"
    );

    let status = stdout(&weir(folder, &["proxy", "status"]).await);
    let row = status.lines().nth(1).expect("a row");
    assert!(
        row.starts_with("boutique/frontend-0") && row.contains("yes"),
        "{status}"
    );
    let nobody = weir(folder, &["proxy", "status", "boutique/nobody"]).await;
    assert_eq!(nobody.status.code(), Some(1));

    let last = stdout(
        &weir(
            folder,
            &["events", "--last", "1", "--kind", "BreakerOpened"],
        )
        .await,
    );
    assert_eq!(last.lines().count(), 1, "{last}");
    assert!(
        last.contains("boutique/catalog:3550") && last.contains("[boutique/frontend-0]"),
        "{last}"
    );
    let unknown = weir(folder, &["events", "--kind", "Nonsense"]).await;
    assert_eq!(unknown.status.code(), Some(2));
}

#[tokio::test]
async fn whoever_follows_sees_what_happens_from_now_on_and_is_told_of_the_end() {
    use tokio::io::{AsyncBufReadExt, BufReader};
    let world = World::new().await;
    let socket = format!("unix:{}", world.path("operator.sock").display());
    let mut follow = Command::new(env!("CARGO_BIN_EXE_weir"))
        .args([
            "--control-plane",
            &socket,
            "events",
            "--follow",
            "--kind",
            "PolicyRejected",
            "-o",
            "json",
        ])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("it runs");
    let mut lines = BufReader::new(follow.stdout.take().expect("piped")).lines();
    world.write("policy.yaml", &policy("catalog", "never"));
    let line = tokio::time::timeout(PATIENCE, lines.next_line())
        .await
        .expect("in time")
        .expect("read")
        .expect("a line");
    assert!(line.contains("never"), "{line}");
    let told = Instant::now();
    world.plane.stop().await;
    assert!(
        told.elapsed() < Duration::from_secs(3),
        "whoever follows must not hold up the end"
    );
    let status = tokio::time::timeout(PATIENCE, follow.wait())
        .await
        .expect("in time")
        .expect("it ends");
    assert_eq!(status.code(), Some(3));
}

#[tokio::test]
async fn a_sidecar_is_asked_what_it_remembers_and_a_silent_one_is_named() {
    let world = World::new().await;
    let mut stream = world.connect("frontend-0").await;
    let _silent = world.connect("cart-0").await;
    let record = serde_json::json!([{
        "id": "order-4711", "atMs": 1_700_000_000_000u64, "direction": "outbound",
        "service": "boutique/catalog:3550", "policyVersion": 7, "method": "GET", "path": "/",
        "protocol": "http2", "why": "failed", "priority": "default",
        "tries": [{"endedUs": 1500, "endpoint": "10.1.0.2:3550", "result": "503", "then": "not again: budget"}],
        "endpoint": "10.1.0.2:3550", "status": 503, "outcome": "failure", "tookUs": 1600,
    }]);
    let answering = async {
        let question = loop {
            // Whatever else is news comes first.
            let push = stream.push().await;
            match push.question {
                Some(question) => break question,
                None => stream.ack(&push).await,
            }
        };
        assert_eq!(question.request_id, "order-4711");
        let explained = pb::Explained {
            question: question.number,
            records_json: serde_json::to_vec(&record).expect("JSON").into(),
        };
        stream
            .send(pb::from_proxy::Message::Explained(explained))
            .await;
    };
    let path = world.folder.path();
    let (output, ()) = tokio::join!(weir(path, &["explain", "order-4711"]), answering);
    let story = stdout(&output);
    assert!(output.status.success(), "{}", stderr(&output));
    for part in [
        "boutique/frontend-0 called boutique/catalog:3550",
        "1.5 ms  10.1.0.2:3550: 503 → not again: budget",
        "it failed: status 503 by 10.1.0.2:3550",
    ] {
        assert!(story.contains(part), "{part:?} is missing in\n{story}");
    }
    assert!(
        stderr(&output).contains("boutique/cart-0 did not answer"),
        "{}",
        stderr(&output)
    );
    let none = weir(path, &["explain", "two words"]).await;
    assert_eq!(none.status.code(), Some(2), "{}", stderr(&none));
}
