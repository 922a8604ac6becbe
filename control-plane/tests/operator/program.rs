//! `weir-control-plane` as a process: what is on record when it has been killed, and what it says when it cannot start.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::net::{TcpStream, UnixStream};
use tokio::process::{Child, Command};
use tokio::time::Instant;

use super::world::{PATIENCE, Stream, certify, channel, folder, hello, trust_bundle};
use super::{stderr, stdout, weir};

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
        let socket = folder.join("operator.sock");
        // It opens one after the other.
        while TcpStream::connect(address).await.is_err()
            || UnixStream::connect(&socket).await.is_err()
        {
            assert!(Instant::now() < deadline, "it does not listen");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Self { child, address }
    }
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
    let events = weir(folder.path(), &["events", "-o", "json"]).await;
    assert!(events.status.success(), "{}", stderr(&events));
    let kinds = stdout(&events);
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
