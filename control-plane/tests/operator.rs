//! The two programs as an operator meets them: started, asked, killed, started again.

mod world;

use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use tokio::process::{Child, Command};
use tokio::time::Instant;
use weir_config::pb;

use world::{PATIENCE, World, certify, folder, policy, trust_bundle};

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
        })
    };
    stream.fact(opened(pb::BreakerState::Open)).await;
    let ejected = pb::EndpointChanged {
        service: service(),
        endpoint: "10.1.0.2:3550".to_owned(),
        from: pb::GateState::Closed.into(),
        to: pb::GateState::Open.into(),
        reason: "5 failures in a row".to_owned(),
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
