//! The two programs as an operator meets them: started, asked, killed, started again.

mod world;

use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use tokio::process::{Child, Command};
use tokio::time::Instant;
use weir_config::pb;

use world::{PATIENCE, Stream, World, certify, channel, folder, hello, policy, trust_bundle};

/// `weir-control-plane` on the directories of a world; it is killed when it goes out of scope.
struct Program {
    child: Child,
    address: std::net::SocketAddr,
}

fn command(folder: &Path, address: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weir-control-plane"));
    for (flag, path) in [
        ("--source", "source"),
        ("--state", "state"),
        ("--bootstrap-tokens", "tokens"),
        ("--operator-socket", "operator.sock"),
        ("--trust-bundle-out", "ca.crt"),
    ] {
        command.arg(flag).arg(folder.join(path));
    }
    command
        .args(["--listen", address])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    command
}

impl Program {
    async fn start(folder: &Path) -> Self {
        // A port that was free a moment ago; nobody else on loopback asks for it by number.
        let probe = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = probe.local_addr().expect("an address");
        drop(probe);
        let child = command(folder, &address.to_string())
            .spawn()
            .expect("it starts");
        let deadline = Instant::now() + PATIENCE;
        while tokio::net::TcpStream::connect(address).await.is_err() {
            assert!(Instant::now() < deadline, "it does not listen");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Self { child, address }
    }
}

async fn weir(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
    command.env(
        "WEIR_CONTROL_PLANE",
        format!("unix:{}", folder.join("operator.sock").display()),
    );
    command.args(arguments).stdin(Stdio::null());
    tokio::time::timeout(PATIENCE, command.output())
        .await
        .expect("it ends")
        .expect("it runs")
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("text")
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("text")
}

#[tokio::test]
async fn what_was_acknowledged_survives_being_killed_at_any_moment() {
    let folder = folder();
    let mut acked = Vec::new();
    for round in 0..6u64 {
        let mut program = Program::start(folder.path()).await;
        let bundle = trust_bundle(folder.path());
        let address = program.address;
        // Certificates as fast as they come, and the end in the middle of it.
        let asking = async {
            for pod in ["cart-0", "catalog-0", "catalog-1", "frontend-0"]
                .iter()
                .cycle()
            {
                match certify(address, &bundle, pod).await {
                    Ok(credentials) => {
                        let (_, parsed) =
                            x509_parser::parse_x509_certificate(&credentials.chain[0])
                                .expect("a leaf");
                        acked.push(format!("{:032x}", parsed.serial));
                    }
                    Err(_) => return,
                }
            }
        };
        let killed = async {
            tokio::time::sleep(Duration::from_millis(150 + 37 * round)).await;
            program.child.kill().await.expect("killed");
        };
        tokio::join!(asking, killed);
    }
    assert!(
        acked.len() > 6,
        "only {} certificates were had",
        acked.len()
    );
    let _program = Program::start(folder.path()).await;
    let events = weir(
        folder.path(),
        &["events", "--kind", "CertificateIssued", "-o", "json"],
    )
    .await;
    let journal = stdout(&events);
    let lost: Vec<_> = acked
        .iter()
        .filter(|serial| !journal.contains(serial.as_str()))
        .collect();
    assert!(
        lost.is_empty(),
        "{} of {} certificates are not on record",
        lost.len(),
        acked.len()
    );
    let mut seqs = Vec::new();
    for line in stdout(&weir(folder.path(), &["events", "-o", "json"]).await).lines() {
        let event: serde_json::Value = serde_json::from_str(line).expect("JSON");
        seqs.push(event["seq"].as_u64().expect("a number"));
    }
    assert!(
        seqs.iter().copied().eq(1..=seqs.len() as u64),
        "no gap and no repetition: {seqs:?}"
    );
}

#[tokio::test]
async fn a_second_control_plane_on_the_same_state_refuses_to_start() {
    let folder = folder();
    let _first = Program::start(folder.path()).await;
    let second = command(folder.path(), "127.0.0.1:0")
        .stderr(Stdio::piped())
        .output()
        .await
        .expect("it runs");
    assert_eq!(second.status.code(), Some(1));
    assert!(
        stderr(&second).contains("another control plane uses this journal"),
        "{}",
        stderr(&second)
    );
}

#[tokio::test]
async fn a_control_plane_that_is_told_to_stop_does_and_says_so() {
    let folder = folder();
    let mut program = Program::start(folder.path()).await;
    let pid = i32::try_from(program.child.id().expect("it runs")).expect("a pid");
    let pid = rustix::process::Pid::from_raw(pid).expect("a pid");
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("signalled");
    let status = tokio::time::timeout(PATIENCE, program.child.wait())
        .await
        .expect("in time")
        .expect("it ends");
    assert_eq!(status.code(), Some(0));
    assert!(
        !folder.path().join("operator.sock").exists(),
        "its socket is gone"
    );
    let _again = Program::start(folder.path()).await;
    let kinds = stdout(&weir(folder.path(), &["events", "-o", "json"]).await);
    assert!(kinds.contains("ControlPlaneStopped"), "{kinds}");
}

#[tokio::test]
async fn a_damaged_journal_is_named_and_not_replaced() {
    let folder = folder();
    std::fs::create_dir_all(folder.path().join("state")).expect("a folder");
    std::fs::write(folder.path().join("state/journal.redb"), "damaged").expect("a file");
    let output = command(folder.path(), "127.0.0.1:0")
        .stderr(Stdio::piped())
        .output()
        .await
        .expect("it runs");
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("journal.redb"),
        "{}",
        stderr(&output)
    );
}

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
async fn without_a_control_plane_the_command_line_says_so_and_still_validates() {
    let folder = folder();
    let output = weir(folder.path(), &["events"]).await;
    assert_eq!(output.status.code(), Some(3));
    assert!(
        stderr(&output).contains("operator.sock") && stdout(&output).is_empty(),
        "{}",
        stderr(&output)
    );

    let source = folder.path().join("source");
    let source = source.to_str().expect("text");
    let fine = weir(folder.path(), &["validate", "-f", source]).await;
    assert_eq!(fine.status.code(), Some(0), "{}", stderr(&fine));
    assert_eq!(stdout(&fine), "7 files, 1 policy: fine\n");
    world::write(
        folder.path(),
        "bad.yaml",
        &(policy("currency", "soon") + &policy("cart", "later")),
    );
    let bad = weir(folder.path(), &["validate", "-f", source]).await;
    assert_eq!(bad.status.code(), Some(1));
    assert!(
        stderr(&bad).contains("soon") && stderr(&bad).contains("later"),
        "all mistakes at once: {}",
        stderr(&bad)
    );
    world::write(folder.path(), "bad.yaml", &policy("no-such-service", "1s"));
    let warned = weir(folder.path(), &["validate", "-f", source]).await;
    assert_eq!(warned.status.code(), Some(0));
    assert!(
        stderr(&warned).contains("none of these files has"),
        "{}",
        stderr(&warned)
    );
}

#[tokio::test]
async fn inject_writes_the_same_pods_as_the_webhook_would_and_nothing_when_one_is_refused() {
    let folder = folder();
    let file = folder.path().join("deployment.yaml");
    let deployment = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: cart}\nspec:\n  template:\n    metadata: {labels: {app: cart}}\n    spec: {containers: [{name: cart, image: cart}]}\n---\napiVersion: v1\nkind: Service\nmetadata: {name: cart}\n";
    std::fs::write(&file, deployment).expect("written");
    let path = file.to_str().expect("text");
    let output = weir(folder.path(), &["inject", "-f", path]).await;
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let documents: Vec<serde_json::Value> =
        serde_saphyr::from_multiple(&stdout(&output)).expect("YAML");
    assert_eq!(documents.len(), 2);
    assert_eq!(
        documents[0]["spec"]["template"]["spec"]["initContainers"][1]["name"],
        "weir-proxy"
    );
    assert!(
        stderr(&output).contains("deployment default/cart: injected"),
        "{}",
        stderr(&output)
    );
    // Its own output comes out as it went in.
    std::fs::write(&file, &output.stdout).expect("written");
    let again = weir(folder.path(), &["inject", "-f", path]).await;
    assert_eq!(stdout(&again), stdout(&output));
    let refused = deployment.replace(
        "image: cart",
        "image: cart, securityContext: {runAsUser: 14102}",
    );
    std::fs::write(&file, refused).expect("written");
    let output = weir(folder.path(), &["inject", "-f", path]).await;
    assert_eq!(
        (output.status.code(), stdout(&output).as_str()),
        (Some(1), "")
    );
    assert!(stderr(&output).contains("14102"), "{}", stderr(&output));
}

/// Planted bug that this finds: what is forced lives in memory only.
#[tokio::test]
async fn what_is_forced_is_still_forced_after_a_crash_and_goes_with_a_word_or_with_its_time() {
    let folder = folder();
    let journal = async |kind: &str| {
        let events = weir(folder.path(), &["events", "--kind", kind]).await;
        stdout(&events).lines().count()
    };
    let mut program = Program::start(folder.path()).await;
    for (service, to, span) in [
        ("boutique/catalog", "open", "10m"),
        ("boutique/currency:3550", "closed", "1s"),
    ] {
        let force = ["breakers", "force", service, to, "--for", span];
        let output = weir(folder.path(), &force).await;
        assert!(output.status.success(), "{}", stderr(&output));
    }
    program.child.kill().await.expect("killed");
    let program = Program::start(folder.path()).await;

    // A sidecar that calls both is told what is held, by the control plane that has just started.
    let bundle = trust_bundle(folder.path());
    let credentials = certify(program.address, &bundle, "frontend-0")
        .await
        .expect("a certificate");
    let channel = channel(program.address, &bundle, Some(&credentials))
        .await
        .expect("TLS");
    let hello = hello("boutique", "frontend-0");
    let mut stream = Stream::open(channel, hello).await.expect("a stream");
    stream.next().await;
    let mut forced = std::collections::BTreeMap::new();
    for address in ["10.96.0.1:3550", "10.96.0.2:3550"] {
        stream.subscribe(address).await;
        for service in &stream.next().await.services {
            let policy: serde_json::Value =
                serde_json::from_slice(&service.policy_json).expect("JSON");
            forced.insert(service.service.clone(), policy["forced"]["to"].clone());
        }
    }
    assert_eq!(forced["boutique/catalog:3550"], "Open");
    let told = weir(
        folder.path(),
        &["proxy", "policy", "boutique/frontend-0", "--json"],
    )
    .await;
    let told: serde_json::Value = serde_json::from_str(&stdout(&told)).expect("JSON");
    let values = told["values"].as_array().expect("a list").clone();
    let by_operator = values.iter().filter(|value| value["from"] == "operator");
    assert!(by_operator.clone().count() >= 1, "{values:?}");
    let deadline = values.iter().find(|value| {
        value["service"] == "boutique/catalog:3550" && value["field"] == "outbound.deadline"
    });
    assert_eq!(
        deadline.expect("it is called")["from"],
        "ResiliencePolicy boutique/catalog"
    );

    let output = weir(
        folder.path(),
        &["breakers", "force", "boutique/catalog", "auto"],
    )
    .await;
    assert!(output.status.success(), "{}", stderr(&output));
    let begun = Instant::now();
    while journal("BreakerReleased").await < 2 {
        assert!(begun.elapsed() < PATIENCE, "both are let go of");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(journal("BreakerForced").await, 2);
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
