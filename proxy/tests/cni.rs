//! The installer on a node that is two folders, and the plugin under its own name.

#![expect(
    clippy::disallowed_methods,
    reason = "a real process lives in real time, and there is no clock to pause"
)]

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

const CHAIN: &str = r#"{"cniVersion":"1.0.0","name":"net","plugins":[{"type":"bridge"}]}"#;

struct Node(tempfile::TempDir);

impl Node {
    fn new() -> Self {
        let node = Self(tempfile::tempdir().expect("a folder"));
        for folder in ["bin", "net.d", "account"] {
            fs::create_dir(node.path(folder)).expect("a folder");
        }
        node.write("account/token", "one\n");
        node.write("account/ca.crt", "PEM");
        node
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).expect("a file");
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_weir-proxy"));
        command.arg("cni").args(words);
        for (flag, folder) in [
            ("--programs", "bin"),
            ("--networks", "net.d"),
            ("--networks-on-node", "net.d"),
        ] {
            command.arg(flag).arg(self.path(folder));
        }
        command
    }

    fn install(&self, name: &str) -> Installer {
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.path("log"));
        let child = self
            .command(&[
                "install",
                "--api-server",
                "https://10.96.0.1:443",
                "--installer",
                name,
            ])
            .arg("--service-account")
            .arg(self.path("account"))
            .env("WEIR_CNI_REPAIR", "false")
            .stdin(Stdio::null())
            .stderr(log.expect("a file"))
            .spawn();
        Installer(child.expect("it starts"))
    }

    fn status(&self) -> Output {
        self.command(&["status"]).output().expect("it runs")
    }

    fn eventually(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let until = Instant::now() + Duration::from_secs(30);
        while !holds(self) {
            let log = fs::read_to_string(self.path("log")).unwrap_or_default();
            assert!(Instant::now() < until, "{what}\n{log}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn plugins(&self, file: &str) -> Vec<String> {
        let text = fs::read_to_string(self.path("net.d").join(file)).unwrap_or_default();
        let network: Value = serde_json::from_str(&text).unwrap_or_default();
        let plugins = network["plugins"].as_array().cloned().unwrap_or_default();
        plugins
            .iter()
            .map(|plugin| plugin["type"].as_str().unwrap_or_default().to_owned())
            .collect()
    }

    fn is_in(&self) -> bool {
        self.plugins("10-net.conflist") == ["bridge", "weir-cni"]
    }

    fn kubeconfig(&self) -> String {
        fs::read_to_string(self.path("net.d/weir-cni.kubeconfig")).unwrap_or_default()
    }
}

struct Installer(Child);

impl Installer {
    /// As the kubelet ends it.
    fn end(mut self) {
        kill_process(Pid::from_child(&self.0), Signal::TERM).expect("it runs");
        let status = self.0.wait().expect("it ends");
        assert!(status.success(), "{status}");
    }
}

impl Drop for Installer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_installer_waits_for_a_network_joins_it_stays_in_it_and_leaves_it_at_its_end() {
    let node = Node::new();
    let installer = node.install("first");
    node.eventually("the plugin is there before the network", |node| {
        node.path("bin/weir-cni").exists()
    });
    assert!(!node.status().status.success(), "there is no network yet");
    node.write("net.d/10-net.conflist", CHAIN);
    node.eventually("it joins", Node::is_in);
    assert!(node.status().status.success());
    assert!(node.kubeconfig().contains("\"one\""));

    node.write("account/token", "two\n");
    node.eventually("the token is renewed", |node| {
        node.kubeconfig().contains("\"two\"")
    });
    node.write("net.d/10-net.conflist", CHAIN);
    node.eventually("somebody has taken it out", Node::is_in);
    fs::remove_file(node.path("bin/weir-cni")).expect("it is there");
    node.eventually("somebody has taken it away", |node| {
        node.path("bin/weir-cni").exists()
    });

    installer.end();
    assert_eq!(node.plugins("10-net.conflist"), ["bridge"]);
    assert!(
        !node.path("net.d/weir-cni.kubeconfig").exists()
            && !node.path("net.d/weir-cni.owner").exists()
    );
    assert!(
        node.path("bin/weir-cni").exists(),
        "for the ends of pods that began with it"
    );
}

#[test]
fn an_installer_that_has_a_successor_leaves_the_plugin_where_it_is() {
    let node = Node::new();
    node.write("net.d/10-net.conflist", CHAIN);
    let old = node.install("old");
    node.eventually("it joins", Node::is_in);
    let new = node.install("new");
    let owner =
        |node: &Node| fs::read_to_string(node.path("net.d/weir-cni.owner")).unwrap_or_default();
    node.eventually("the successor takes over", |node| owner(node) == "new");
    old.end();
    assert!(node.is_in(), "an upgrade leaves no gap");
    assert!(node.status().status.success());

    let back = node.install("old");
    node.eventually("it is back for a moment", |node| owner(node) == "old");
    back.end();
    node.eventually("its successor takes over again", |node| {
        owner(node) == "new" && node.is_in()
    });
    new.end();
    assert_eq!(node.plugins("10-net.conflist"), ["bridge"]);
}

#[test]
fn a_node_without_credentials_keeps_its_network_as_it_is() {
    let node = Node::new();
    node.write("net.d/10-net.conflist", CHAIN);
    fs::remove_file(node.path("account/token")).expect("it is there");
    let installer = node.install("first");
    node.eventually("it says why", |node| {
        fs::read_to_string(node.path("log"))
            .unwrap_or_default()
            .contains("account/token")
    });
    assert_eq!(
        node.plugins("10-net.conflist"),
        ["bridge"],
        "a plugin that can ask nobody would stop every pod"
    );
    node.write("account/token", "one");
    node.eventually("it joins", Node::is_in);
    installer.end();
}

/// What is not understood there would be passed over in silence.
#[test]
fn the_installer_knows_every_variable_that_the_chart_gives_it() {
    let chart = Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/weir/templates/cni.yaml");
    let chart = fs::read_to_string(chart).expect("the chart's DaemonSet");
    let help = Command::new(env!("CARGO_BIN_EXE_weir-proxy"))
        .args(["cni", "install", "--help"])
        .output();
    let help = String::from_utf8(help.expect("it runs").stdout).expect("text");
    let names = chart.split("name: WEIR_").skip(1);
    let names: Vec<&str> = names
        .map(|rest| rest.split([',', '\n', '}']).next().unwrap_or_default())
        .collect();
    assert!(names.len() >= 6, "{names:?}");
    for name in names {
        assert!(help.contains(&format!("[env: WEIR_{name}=")), "WEIR_{name}");
    }
}

#[test]
fn called_by_its_name_it_is_the_plugin() {
    let folder = tempfile::tempdir().expect("a folder");
    let named = folder.path().join("weir-cni");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_weir-proxy"), &named).expect("a link");
    let (code, answer) = ask(&named, "VERSION", r#"{"cniVersion":"1.1.0"}"#);
    assert_eq!(
        (code, &answer["supportedVersions"][4]),
        (Some(0), &Value::from("1.1.0"))
    );
    let (code, answer) = ask(
        &named,
        "ADD",
        r#"{"cniVersion":"1.1.0","name":"net","type":"weir-cni"}"#,
    );
    assert_eq!(
        (code, &answer["code"]),
        (Some(1), &Value::from(4)),
        "{answer}"
    );
}

/// Exit code and answer.
fn ask(plugin: &Path, command: &str, network: &str) -> (Option<i32>, Value) {
    let mut child = Command::new(plugin)
        .env_clear()
        .env("CNI_COMMAND", command)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(network.as_bytes()).expect("it listens");
    drop(stdin);
    let output = child.wait_with_output().expect("it ends");
    let answer = serde_json::from_slice(&output.stdout).expect("JSON");
    (output.status.code(), answer)
}
