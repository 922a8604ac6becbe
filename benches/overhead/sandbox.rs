//! A network and a process table of our own: nothing of the machine's is touched, and nothing outlives the bench, however
//! it ends.
//!
//! In there all of 10/8 is this machine, so addresses are free:
//!
//! | address | what |
//! |---|---|
//! | 10.1.0.1 | the backend, for whoever calls it directly |
//! | 10.96.N.1 | what clients of subject N call; the kernel redirects that to the subject |
//! | 10.97.N.1 | the second hop of subject N, redirected as well |
//! | 10.2.N.1 | the pod behind Weir's second sidecar: redirected but for that sidecar itself |
//!
//! Every subject is reached through a redirection, because Weir has to be: all pay the same for it.

use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

/// Tells the program that it is inside already.
const INSIDE: &str = "WEIR_BENCH_INSIDE";

pub fn is_inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

/// Starts this program again, inside; returns only when it is there.
pub fn enter() -> io::Result<()> {
    if is_inside() {
        return prepare();
    }
    let mut command = Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command
        .args([
            "--net",
            "--pid",
            "--mount-proc",
            "--fork",
            "--kill-child=SIGKILL",
            "--",
        ])
        .arg(std::env::current_exe()?)
        .args(std::env::args_os().skip(1))
        .env(INSIDE, "1")
        .env("PATH", weir_lab::toolbox::path());
    let error = command.exec();
    Err(io::Error::new(
        error.kind(),
        format!("unshare (util-linux): {error}"),
    ))
}

fn prepare() -> io::Result<()> {
    for arguments in ["link set lo up", "route add local 10.0.0.0/8 dev lo"] {
        let arguments: Vec<&str> = arguments.split(' ').collect();
        succeed(Command::new("ip").args(&arguments), "ip (iproute2)")?;
    }
    // Short connections must not fill the table of connections of this namespace.
    let _ = std::fs::write(
        "/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_time_wait",
        "1",
    );
    let _ = std::fs::write(
        "/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_close",
        "1",
    );
    // All proxies call from one address here, where each pod has its own: what has ended is not to keep a port for a minute. The
    // kernel looks for one among the odd or the even first, and for long where those are gone: there are as many of each.
    let _ = std::fs::write("/proc/sys/net/ipv4/ip_local_port_range", "30000 64999");
    let _ = std::fs::write("/proc/sys/net/ipv4/tcp_tw_reuse", "1");
    nft("table ip bench {\nchain output {\ntype nat hook output priority -100;\n}\n}")
}

/// Sends what is meant for port `from` of `address` to a port of loopback; sockets with `mark` go straight through.
pub fn redirect(address: [u8; 4], from: u16, port: u16, mark: Option<u32>) -> io::Result<()> {
    let [a, b, c, d] = address;
    let exempt = mark.map_or(String::new(), |mark| format!("meta mark != {mark} "));
    nft(&format!(
        "add rule ip bench output ip daddr {a}.{b}.{c}.{d} {exempt}tcp dport {from} redirect to :{port}"
    ))
}

/// All ports of a network.
pub fn redirect_network(network: &str, port: u16) -> io::Result<()> {
    nft(&format!(
        "add rule ip bench output ip daddr {network} meta l4proto tcp redirect to :{port}"
    ))
}

/// Loads rules, in nft's own words.
pub fn nft(rules: &str) -> io::Result<()> {
    let mut command = Command::new("nft");
    command.args(["-f", "-"]).stdin(Stdio::piped());
    let explain =
        |error: io::Error| io::Error::new(error.kind(), format!("nft (nftables): {error}"));
    let mut child = command.spawn().map_err(explain)?;
    let mut input = child.stdin.take().expect("it was asked for");
    input.write_all(rules.as_bytes())?;
    drop(input);
    if child.wait()?.success() {
        Ok(())
    } else {
        Err(io::Error::other(format!("nft refused: {rules}")))
    }
}

fn succeed(command: &mut Command, name: &str) -> io::Result<()> {
    let status = command
        .status()
        .map_err(|error| io::Error::new(error.kind(), format!("{name}: {error}")))?;
    if status.success() {
        Ok(())
    } else {
        Err(io::Error::other(format!("{name} failed: {status}")))
    }
}
