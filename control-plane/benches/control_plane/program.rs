//! The real program, as a process of its own, on the API server of this one.

#![allow(dead_code)] // the tests of the webhook use another part of it

use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::time::Instant;

use crate::cluster::Cluster;

const START_PATIENCE: Duration = Duration::from_secs(60);
const STOP_PATIENCE: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// `USER_HZ`, which is that for every architecture that matters.
const TICKS_PER_SECOND: u64 = 100;

pub(crate) struct Program {
    child: Child,
    pub(crate) address: SocketAddr,
    pub(crate) webhook: SocketAddr,
}

impl Program {
    /// Returns when it serves, which is when everything has been listed.
    pub(crate) async fn start(cluster: &Cluster) -> Self {
        let folder = cluster.folder.path();
        let server = cluster.api().address();
        let config = folder.join("kubeconfig");
        let text = format!(
            "{{apiVersion: v1, kind: Config, current-context: c, contexts: [{{name: c, context: {{cluster: c, user: u}}}}], \
             users: [{{name: u, user: {{}}}}], clusters: [{{name: c, cluster: {{server: 'http://{server}'}}}}]}}"
        );
        std::fs::write(&config, text).expect("a file");
        let (address, webhook) = (free_address(), free_address());
        let child = Command::new(env!("CARGO_BIN_EXE_weir-control-plane"))
            .args(["--source", "kubernetes", "--log", "warn"])
            .args(["--pod-name", "weir-control-plane-0"])
            .arg("--webhook-listen")
            .arg(webhook.to_string())
            .arg("--listen")
            .arg(address.to_string())
            .arg("--state")
            .arg(folder.join("state"))
            .arg("--trust-bundle-out")
            .arg(folder.join("ca.crt"))
            .env("KUBECONFIG", config)
            .stdin(Stdio::null())
            .spawn()
            .expect("it was built");
        let mut program = Self {
            child,
            address,
            webhook,
        };
        let deadline = Instant::now() + START_PATIENCE;
        while tokio::net::TcpStream::connect(address).await.is_err() {
            let ended = program.child.try_wait().expect("it is ours");
            assert!(ended.is_none(), "it ended: {ended:?}");
            assert!(Instant::now() < deadline, "it does not serve");
            tokio::time::sleep(LOOK_EVERY).await;
        }
        program
    }

    pub(crate) fn rss_kib(&self) -> u64 {
        self.kib("VmRSS")
    }

    /// The most there ever was.
    pub(crate) fn peak_mib(&self) -> u64 {
        self.kib("VmHWM") / 1024
    }

    fn kib(&self, what: &str) -> u64 {
        let status = self.read("status");
        let line = status.lines().find(|line| line.starts_with(what));
        let kib = line.and_then(|line| line.split_whitespace().nth(1));
        kib.expect("a size").parse().expect("a number")
    }

    pub(crate) fn rss_mib(&self) -> u64 {
        self.rss_kib() / 1024
    }

    /// What it has computed so far.
    pub(crate) fn cpu(&self) -> Duration {
        let stat = self.read("stat");
        // The name in parentheses may have spaces; user and system time are fields 14 and 15.
        let (_, fields) = stat.rsplit_once(") ").expect("a name");
        let ticks = fields.split(' ').skip(11).take(2);
        let ticks: u64 = ticks.map(|it| it.parse::<u64>().expect("a number")).sum();
        Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND)
    }

    /// Whether it ended by itself when it was told to.
    pub(crate) async fn stop(mut self) -> bool {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        let _ = kill_process(pid.expect("a process"), Signal::TERM);
        let deadline = Instant::now() + STOP_PATIENCE;
        loop {
            if let Ok(Some(status)) = self.child.try_wait() {
                return status.success();
            }
            if Instant::now() > deadline {
                return false;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    fn read(&self, file: &str) -> String {
        let path = format!("/proc/{}/{file}", self.child.id());
        std::fs::read_to_string(path).expect("it runs, and this is Linux")
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address")
}
