//! The command: its files, its words, its exit codes.

#[allow(dead_code, reason = "each test binary uses its share")]
mod support;

use std::process::Output;
use std::sync::atomic::Ordering;

use hyper::http::StatusCode;
use rustix::process::{Pid, Signal, kill_process};
use support::{Protocol, Server, ok};
use tokio::process::Command;
use tokio::time::{Duration, Instant, sleep};

fn command(words: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_boutique-load"));
    command.args(words.split_whitespace()).kill_on_drop(true);
    command
}

async fn outcome(words: &str) -> Output {
    command(words)
        .output()
        .await
        .expect("the binary of this crate")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[tokio::test]
async fn a_good_run_ends_with_success_a_table_and_a_line_a_request() {
    let server = Server::ok().await;
    let folder = tempfile::tempdir().expect("a temporary directory");
    let file = folder.path().join("requests.jsonl");
    let words = format!(
        "shop http://{} --rate 100 --duration 500ms --arrivals constant --jsonl {}",
        server.addr,
        file.display()
    );
    let output = outcome(&words).await;
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let table = text(&output.stdout);
    for word in ["offered", "browse", "p99.9", "send lag", "100.00 %"] {
        assert!(table.contains(word), "{word} is missing in\n{table}");
    }
    let lines = std::fs::read_to_string(&file).expect("it was written");
    assert_eq!(lines.lines().count(), 50);
    for line in lines.lines() {
        let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
        let seconds = |key: &str| line[key].as_f64().expect("a number");
        assert!(seconds("t_intended") <= seconds("t_start"));
        assert!(seconds("t_start") <= seconds("t_end"));
        assert_eq!(
            (&line["class"], &line["status"]),
            (&"ok".into(), &200.into())
        );
        assert!(line["journey"].is_string());
    }
}

#[tokio::test]
async fn the_summary_is_json_where_it_is_asked_for_and_nothing_else_is_on_stdout() {
    let server = Server::ok().await;
    let words = format!(
        "http http://{}/x --rate 50 --duration 1200ms -o json",
        server.addr
    );
    let output = outcome(&words).await;
    let summary: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON only");
    assert_eq!(summary["totals"]["offered"], summary["totals"]["ok"]);
    assert_eq!(
        summary["series"]["points"].as_array().map(Vec::len),
        Some(2)
    );
    assert!(
        text(&output.stderr).contains("in flight"),
        "progress goes to stderr"
    );
}

#[tokio::test]
async fn too_little_success_fails_when_it_was_required() {
    let server = Server::start(Protocol::Http1, async |_| {
        let mut response = ok();
        *response.status_mut() = StatusCode::BAD_GATEWAY;
        response
    })
    .await;
    let words = format!("http http://{} --rate 50 --duration 200ms -q", server.addr);
    assert_eq!(outcome(&words).await.status.code(), Some(0), "it answered");
    let output = outcome(&format!("{words} --require-success 0.5")).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("below 0.5"));
}

#[tokio::test]
async fn a_run_that_nobody_answered_fails() {
    let output = outcome("http http://127.0.0.1:1 --rate 50 --duration 200ms -q").await;
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("nothing answered"));
}

#[tokio::test]
async fn what_may_not_be_loaded_is_a_usage_error_before_anything_is_sent() {
    for target in ["http://192.0.2.1", "http://10.244.0.1", "https://127.0.0.1"] {
        let output = outcome(&format!("shop {target} --rate 1 --duration 1s")).await;
        assert_eq!(output.status.code(), Some(2), "{target}");
        assert!(
            text(&output.stderr).contains(target),
            "{}",
            text(&output.stderr)
        );
    }
}

#[tokio::test]
async fn an_interrupted_run_still_reports() {
    let server = Server::ok().await;
    let words = format!("http http://{} --rate 50 --duration 60s -q", server.addr);
    let child = command(&words)
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("the binary of this crate");
    let patience = Instant::now() + Duration::from_secs(10);
    while server.busiest.load(Ordering::SeqCst) == 0 {
        assert!(Instant::now() < patience, "it sends nothing");
        sleep(Duration::from_millis(10)).await;
    }
    let pid = child
        .id()
        .and_then(|pid| Pid::from_raw(pid.try_into().ok()?));
    kill_process(pid.expect("it runs"), Signal::INT).expect("our own child");
    let output = child.wait_with_output().await.expect("it ends");
    assert_eq!(output.status.code(), Some(130));
    assert!(text(&output.stdout).contains("offered"));
}
