//! A network namespace with a neighbour, and connections between the two.

use std::io::Read;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use socket2::{Domain, SockRef, Socket, Type};

use super::assert_own_namespace;

/// This namespace as a pod: a veth to a neighbour's namespace, which is also its default route.
pub(super) struct Pod {
    pub(super) neighbour: Child,
}

impl Pod {
    pub(super) fn new() -> Self {
        assert_own_namespace();
        let neighbour = Command::new("unshare")
            .args(["-n", "sh", "-c", "echo ready; exec sleep 60"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare runs");
        let mut pod = Self { neighbour };
        let mut ready = [0; 5];
        let stdout = pod.neighbour.stdout.as_mut().expect("piped");
        stdout
            .read_exact(&mut ready)
            .expect("its namespace is there");

        let pid = pod.neighbour.id().to_string();
        run_ok(
            "ip",
            &[
                "link", "add", "v0", "type", "veth", "peer", "name", "v1", "netns", &pid,
            ],
        );
        for link in ["lo", "v0"] {
            run_ok("ip", &["link", "set", link, "up"]);
        }
        let there = |ip: &[&str]| run_ok("nsenter", &[&["-n", "-t", &pid, "ip"], ip].concat());
        there(&["link", "set", "lo", "up"]);
        there(&["link", "set", "v1", "up"]);
        for (own, other) in [("10.77.0.2/24", "10.77.0.1"), ("fd77::2/64", "fd77::1")] {
            run_ok("ip", &["addr", "add", own, "dev", "v0", "nodad"]);
            run_ok("ip", &["route", "add", "default", "via", other]);
        }
        for address in [
            "10.77.0.1/24",
            "10.77.0.129/24",
            "fd77::1/64",
            "fd77::8001/64",
        ] {
            there(&["addr", "add", address, "dev", "v1", "nodad"]);
        }
        pod
    }

    pub(super) fn at_the_neighbour<T: Send + 'static>(
        &self,
        f: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        let namespace = format!("/proc/{}/ns/net", self.neighbour.id());
        let thread = std::thread::spawn(move || {
            let link = std::fs::File::open(namespace).expect("its namespace");
            let kind = rustix::thread::LinkNameSpaceType::Network;
            rustix::thread::move_into_link_name_space(link.as_fd(), Some(kind)).expect("enter it");
            f()
        });
        thread.join().expect("no panic")
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        let _ = self.neighbour.kill();
        let _ = self.neighbour.wait();
    }
}

pub(super) fn run_ok(program: &str, args: &[&str]) -> String {
    let path = std::env::var("PATH").unwrap_or_default();
    let output = Command::new(program)
        .args(args)
        // Where Debian keeps what ordinary users' paths leave out.
        .env("PATH", format!("{path}:/usr/sbin:/sbin"))
        .output()
        .unwrap_or_else(|error| {
            panic!("{program}: {error}\nOn Debian, as root:\n  apt-get install -y nftables iproute2 util-linux")
        });
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{program} {}: {said}",
        args.join(" ")
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub(super) fn nft(args: &[&str]) -> String {
    run_ok("nft", args)
}

pub(super) fn address(ip: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip.parse::<IpAddr>().expect("an address"), port)
}

fn socket(of: SocketAddr) -> Socket {
    Socket::new(Domain::for_address(of), Type::STREAM, None).expect("a socket")
}

pub(super) fn listen(ip: &str, port: u16) -> TcpListener {
    let socket = socket(address(ip, port));
    socket.set_reuse_address(true).expect("reuse");
    if ip == "::" {
        socket.set_only_v6(true).expect("v6 only");
    }
    socket.bind(&address(ip, port).into()).expect("bind");
    socket.listen(8).expect("listen");
    socket.into()
}

pub(super) fn dial(target: SocketAddr, mark: u32) -> std::io::Result<TcpStream> {
    let socket = socket(target);
    if mark != 0 {
        socket.set_mark(mark)?;
    }
    socket.connect_timeout(&target.into(), Duration::from_secs(2))?;
    Ok(socket.into())
}

/// Nothing listens at the neighbour, so its refusal shows that the connection went there.
pub(super) fn assert_reaches_the_neighbour(target: SocketAddr, mark: u32) {
    let refused = dial(target, mark).expect_err("nothing listens there");
    assert_eq!(
        refused.kind(),
        std::io::ErrorKind::ConnectionRefused,
        "{target}: {refused}"
    );
}

/// The original destination of the connection that waits in the listener's backlog.
pub(super) fn accepted(listener: &TcpListener) -> SocketAddr {
    listener.set_nonblocking(true).expect("nonblocking");
    let (stream, _) = listener.accept().expect("a connection waits");
    let socket = SockRef::from(&stream);
    let original = match stream.local_addr().expect("an address") {
        SocketAddr::V4(_) => socket.original_dst_v4(),
        SocketAddr::V6(_) => socket.original_dst_v6(),
    };
    original
        .expect("was redirected")
        .as_socket()
        .expect("an IP address")
}
