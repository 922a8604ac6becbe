//! The process: what it says, and how it ends.

use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::timeout;
use tonic::Streaming;
use tonic::transport::Channel;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

/// Starts the service on a free port and answers with the port it named.
async fn start(variables: &[(&str, &str)]) -> (Child, u16) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_boutique-cart"))
        .env("PORT", "0")
        .env("CHAOS_PORT", "0")
        .envs(variables.iter().copied())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("the binary of this crate");
    let stderr = child.stderr.take().expect("piped");
    let mut lines = BufReader::new(stderr).lines();
    let line = lines
        .next_line()
        .await
        .expect("readable")
        .expect("one line");
    let port = line
        .split(':')
        .filter_map(|part| part.split(',').next()?.parse().ok())
        .next();
    // Keep reading: a closed pipe would kill the service at its next line.
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    (child, port.unwrap_or_else(|| panic!("no port in {line:?}")))
}

fn signal(child: &Child, signal: Signal) {
    let pid = child
        .id()
        .and_then(|pid| Pid::from_raw(pid.try_into().ok()?));
    kill_process(pid.expect("it runs"), signal).expect("our own child");
}

#[tokio::test]
async fn sigterm_drains_and_ends_with_success() {
    let (mut child, port) = start(&[("DRAIN_DELAY_MS", "50")]).await;
    TcpStream::connect(("127.0.0.1", port))
        .await
        .expect("it listens where it says");
    signal(&child, Signal::TERM);
    let status = timeout(Duration::from_secs(5), child.wait())
        .await
        .expect("in time");
    assert!(status.expect("waited").success());
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    let (mut child, port) = start(&[("DRAIN_DELAY_MS", "60000")]).await;
    let mut health = watch_health(port).await;
    assert_eq!(next(&mut health).await, ServingStatus::Serving);
    signal(&child, Signal::TERM);
    // Two signals that nobody has looked at yet are one.
    assert_eq!(next(&mut health).await, ServingStatus::NotServing);
    signal(&child, Signal::TERM);
    let status = timeout(Duration::from_secs(10), child.wait())
        .await
        .expect("in time");
    assert_eq!(status.expect("waited").code(), Some(128 + 15));
}

async fn watch_health(port: u16) -> Streaming<HealthCheckResponse> {
    let endpoint = Channel::from_shared(format!("http://127.0.0.1:{port}")).expect("a valid URI");
    let channel = endpoint.connect().await.expect("it listens where it says");
    let mut client = HealthClient::new(channel);
    let watch = client.watch(HealthCheckRequest::default()).await;
    watch.expect("watched").into_inner()
}

async fn next(health: &mut Streaming<HealthCheckResponse>) -> ServingStatus {
    let next = timeout(Duration::from_secs(10), health.message()).await;
    let state = next.expect("in time").expect("no error");
    state.expect("a state").status()
}

#[tokio::test]
async fn a_wrong_variable_is_a_usage_error_that_names_it() {
    let output = Command::new(env!("CARGO_BIN_EXE_boutique-cart"))
        .env("SLOTS", "many")
        .output()
        .await
        .expect("the binary of this crate");
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("SLOTS=\"many\""), "{said}");
}
