//! The text by snapshot; the effect in network namespaces of our own, without root.
//!
//! A test that needs a namespace runs this test binary again under `unshare`, with the name of an
//! ignored test that does the work inside. Those are not meant to be run by hand: outside a
//! namespace of their own they would rewrite this machine's rules, and they refuse to.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use clap::Parser;
use socket2::{Domain, SockRef, Socket, Type};

use super::verify::{Family, Untested, verify};
use super::*;

mod kernel;

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    init: InitArgs,
}

fn args(flags: &[&str]) -> InitArgs {
    let program = ["init"];
    Cli::try_parse_from(program.iter().chain(flags))
        .expect("valid flags")
        .init
}

fn rendered(flags: &[&str]) -> String {
    args(flags).rules().expect("valid").install()
}

#[test]
fn the_default_rules_read_like_this() {
    let expected = r#"add table inet weir
delete table inet weir
table inet weir {
  set skip_in {
    type inet_service
    flags interval
    elements = { 14190-14191 }
  }
  set skip_out {
    type inet_service
    flags interval
  }
  set skip_cidr {
    type ipv4_addr
    flags interval
  }
  set skip_cidr6 {
    type ipv6_addr
    flags interval
  }
  chain pre {
    type nat hook prerouting priority -100; policy accept;
    tcp dport @skip_in return
    meta l4proto tcp redirect to :14143
  }
  chain out {
    type nat hook output priority -100; policy accept;
    meta skuid 14102 return
    oifname "lo" return
    tcp dport @skip_out return
    ip daddr @skip_cidr return
    ip6 daddr @skip_cidr6 return
    meta l4proto tcp redirect to :14140
  }
}
"#;
    assert_eq!(rendered(&[]), expected);
}

#[test]
fn every_knob_shows_up_in_its_place() {
    let text = rendered(&[
        "--inbound-port=4143",
        "--outbound-port=4140",
        "--proxy-uid=2000",
        "--proxy-mark=0x14102",
        "--skip-inbound-ports=22,9000-9010",
        "--skip-outbound-ports=25",
        "--skip-outbound-cidrs=169.254.169.254,fd00::1/8",
    ]);
    let expected = r#"  set skip_in {
    type inet_service
    flags interval
    elements = { 22, 9000-9010, 14190-14191 }
  }
  set skip_out {
    type inet_service
    flags interval
    elements = { 25 }
  }
  set skip_cidr {
    type ipv4_addr
    flags interval
    elements = { 169.254.169.254/32 }
  }
  set skip_cidr6 {
    type ipv6_addr
    flags interval
    elements = { fd00::/8 }
  }
  chain pre {
    type nat hook prerouting priority -100; policy accept;
    tcp dport @skip_in return
    meta l4proto tcp redirect to :4143
  }
  chain out {
    type nat hook output priority -100; policy accept;
    meta skuid 2000 return
    meta mark 0x14102 return
    oifname "lo" return
    tcp dport @skip_out return
    ip daddr @skip_cidr return
    ip6 daddr @skip_cidr6 return
    meta l4proto tcp redirect to :4140
  }
}
"#;
    assert!(text.ends_with(expected), "{text}");
}

#[test]
fn a_mark_replaces_the_user_and_mark_zero_is_none() {
    let marked = rendered(&["--proxy-mark=82178"]);
    assert!(
        marked.contains("meta mark 0x14102 return") && !marked.contains("skuid"),
        "{marked}"
    );
    for none in ["--proxy-mark=0", "--proxy-mark="] {
        assert_eq!(
            rendered(&[none]),
            rendered(&[]),
            "every socket carries mark 0"
        );
    }
}

#[test]
fn flags_that_would_open_the_mesh_are_refused() {
    assert!(matches!(
        args(&["--inbound-port=5", "--outbound-port=5"]).rules(),
        Err(InitError::SamePort(5))
    ));
    for bad in [
        "--proxy-uid=0",
        "--inbound-port=0",
        "--proxy-mark=1x",
        "--skip-outbound-cidrs=cart",
    ] {
        assert!(Cli::try_parse_from(["init", bad]).is_err(), "{bad}");
    }
}

/// The pod is 10.77.0.2 and fd77::2, its only neighbour 10.77.0.1 and fd77::1.
const POD: [&str; 2] = ["10.77.0.2", "fd77::2"];
const NEIGHBOUR: [&str; 2] = ["10.77.0.1", "fd77::1"];
const MARK: u32 = 0x14102;

#[test]
fn rules_redirect_both_families_survive_a_rerun_and_go_without_a_trace() {
    inside(&["-Urn"], "inside_installs_redirects_and_removes");
}

#[test]
fn the_sidecars_user_is_exempt_and_nobody_else() {
    inside(
        &["-Un", "--map-user=14102", "--keep-caps"],
        "inside_exempts_the_user",
    );
}

#[test]
fn an_unproven_redirection_fails_the_init() {
    inside(&["-Urn"], "inside_fails_when_not_redirected");
}

#[test]
fn without_net_admin_the_refusal_says_so() {
    let drop = [
        "-Urn",
        "setpriv",
        "--bounding-set=-net_admin",
        "--inh-caps=-net_admin",
    ];
    inside(&drop, "inside_is_refused_without_net_admin");
}

#[test]
#[ignore = "run by rules_redirect_both_families_survive_a_rerun_and_go_without_a_trace"]
fn inside_installs_redirects_and_removes() {
    let pod = Pod::new();
    let skips = [
        "--skip-outbound-ports=7000",
        "--skip-outbound-cidrs=10.77.0.128/25,fd77::8000/113",
    ];
    let args = args(&[&["--proxy-mark=0x14102"], &skips[..]].concat());

    init(&args).expect("first run");
    let first = nft(&["-s", "list", "ruleset"]);
    init(&args).expect("second run");
    assert_eq!(
        nft(&["-s", "list", "ruleset"]),
        first,
        "a rerun changes nothing"
    );
    assert_eq!(first.matches("table ").count(), 1, "{first}");
    let proof = verify(&args.rules().expect("valid")).expect("redirected");
    assert_eq!(
        (proof.v4, proof.v6),
        (Family::Redirected, Family::Redirected)
    );

    outbound_goes_to_the_sidecar();
    inbound_goes_to_the_sidecar(&pod);
    self_calls_stay_direct();

    let remove = InitArgs {
        remove: true,
        ..args
    };
    for _ in 0..2 {
        init(&remove).expect("removing what is not there is fine");
        assert_eq!(nft(&["list", "ruleset"]), "");
    }
}

fn outbound_goes_to_the_sidecar() {
    for (loopback, neighbour) in ["127.0.0.1", "::1"].into_iter().zip(NEIGHBOUR) {
        let sidecar = listen(loopback, 14140);
        let target = address(neighbour, 9);
        let _app = dial(target, 0).expect("redirected");
        assert_eq!(accepted(&sidecar), target);

        assert_reaches_the_neighbour(target, MARK);
        assert_reaches_the_neighbour(address(neighbour, 7000), 0);
    }
    assert_reaches_the_neighbour(address("10.77.0.129", 9), 0);
    assert_reaches_the_neighbour(address("fd77::8001", 9), 0);

    // A dual-stack socket that writes IPv4 as IPv6.
    let sidecar = listen("127.0.0.1", 14140);
    let _app = dial(address("::ffff:10.77.0.1", 9), 0).expect("redirected");
    assert_eq!(accepted(&sidecar), address(NEIGHBOUR[0], 9));
}

fn inbound_goes_to_the_sidecar(pod: &Pod) {
    for (any, own) in ["0.0.0.0", "::"].into_iter().zip(POD) {
        let (sidecar, admin) = (listen(any, 14143), listen(any, 14191));
        let target = address(own, 8080);
        let _peer = pod
            .at_the_neighbour(move || dial(target, 0))
            .expect("redirected");
        assert_eq!(accepted(&sidecar), target);

        let _kubelet = pod
            .at_the_neighbour(move || dial(address(own, 14191), 0))
            .expect("admin is direct");
        admin.set_nonblocking(true).expect("nonblocking");
        admin
            .accept()
            .expect("the connection is already in its backlog");
    }
}

fn self_calls_stay_direct() {
    for own in POD.into_iter().chain(["127.0.0.1", "::1"]) {
        let app = listen(own, 8080);
        let mut client = dial(address(own, 8080), 0).expect("direct");
        let (mut server, _) = app.accept().expect("reached the app itself");
        server.write_all(b"x").expect("write");
        client.read_exact(&mut [0]).expect("read");
    }
}

#[test]
#[ignore = "run by the_sidecars_user_is_exempt_and_nobody_else"]
fn inside_exempts_the_user() {
    let _pod = Pod::new();
    init(&args(&["--no-verify"])).expect("installed");
    let target = address(NEIGHBOUR[0], 9);
    assert_reaches_the_neighbour(target, 0);
    let error = init(&args(&[]))
        .expect_err("a test by the exempt user proves nothing")
        .to_string();
    assert!(error.contains("uid 14102"), "{error}");

    init(&args(&["--proxy-uid=14103"])).expect("installed and proven");
    let sidecar = listen("127.0.0.1", 14140);
    let _app = dial(target, 0).expect("redirected");
    assert_eq!(accepted(&sidecar), target);
}

#[test]
#[ignore = "run by an_unproven_redirection_fails_the_init"]
fn inside_fails_when_not_redirected() {
    let no_route = verify_error(&[]);
    assert!(no_route.contains("IPv4: no route"), "{no_route}");

    let pod = Pod::new();
    nft(&["add", "table", "ip", "wire"]);
    nft(&[
        "add",
        "chain",
        "ip",
        "wire",
        "out",
        "{ type filter hook output priority 0; }",
    ]);
    for (wire, says) in [("reject with tcp reset", "refused"), ("drop", "within 2 s")] {
        nft(&[
            "add",
            "rule",
            "ip",
            "wire",
            "out",
            "ip daddr 192.0.2.1 tcp dport 1",
            wire,
        ]);
        let error = verify_error(&[]);
        assert!(
            error.contains("192.0.2.1:1 was not redirected to 127.0.0.1:14140"),
            "{error}"
        );
        assert!(error.contains(says), "{error}");
        nft(&["flush", "chain", "ip", "wire", "out"]);
    }
    nft(&["delete", "table", "ip", "wire"]);

    let taken = listen("127.0.0.1", 14140);
    assert!(verify_error(&[]).contains("cannot listen on 127.0.0.1:14140"));
    drop(taken);

    let skipped = args(&["--proxy-mark=1", "--skip-outbound-cidrs=0.0.0.0/0"]);
    init(&skipped).expect("IPv6 is enough");
    let proof = verify(&skipped.rules().expect("valid")).expect("IPv6 is enough");
    assert_eq!(
        (proof.v4, proof.v6),
        (Family::Untested(Untested::Skipped), Family::Redirected)
    );

    std::fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1").expect("our own namespace");
    let v4_only = args(&["--proxy-mark=1"]);
    init(&v4_only).expect("both families' rules install without IPv6");
    let proof = verify(&v4_only.rules().expect("valid")).expect("IPv4 is enough");
    assert_eq!(
        (proof.v4, proof.v6),
        (Family::Redirected, Family::Untested(Untested::Disabled))
    );
    drop(pod);
}

fn verify_error(flags: &[&str]) -> String {
    verify(&args(flags).rules().expect("valid"))
        .expect_err("not redirected")
        .to_string()
}

#[test]
#[ignore = "run by without_net_admin_the_refusal_says_so"]
fn inside_is_refused_without_net_admin() {
    assert_own_namespace();
    let error = init(&args(&["--no-verify"]))
        .expect_err("no capability")
        .to_string();
    assert!(error.contains("NET_ADMIN"), "{error}");
}

/// Runs one ignored test of this binary under `unshare`, in a network namespace of its own.
fn inside(unshare: &[&str], test: &str) {
    let this = std::env::current_exe().expect("the test binary");
    let output = Command::new("unshare")
        .args(unshare)
        .arg(this)
        .args([
            "--exact",
            "--ignored",
            "--nocapture",
            &format!("{}::{test}", module()),
        ])
        .env("WEIR_OUTER_NETNS", netns("/proc/self/ns/net"))
        .output()
        .expect("unshare (util-linux) runs");
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    assert!(
        output.status.success(),
        "inside `unshare {}`:\n{text}",
        unshare.join(" ")
    );
    assert!(text.contains("1 passed"), "nothing ran:\n{text}");
}

/// This module's name as the test harness knows it: without the crate.
fn module() -> &'static str {
    module_path!()
        .split_once("::")
        .expect("a module of a crate")
        .1
}

fn netns(path: &str) -> String {
    std::fs::read_link(path)
        .expect("a namespace link")
        .display()
        .to_string()
}

fn assert_own_namespace() {
    let outer = std::env::var("WEIR_OUTER_NETNS").expect("started by its outer test only");
    assert_ne!(
        outer,
        netns("/proc/self/ns/net"),
        "in a network namespace of its own"
    );
}

/// This namespace as a pod: a veth to a neighbour's namespace, which is also its default route.
struct Pod {
    neighbour: Child,
}

impl Pod {
    fn new() -> Self {
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

    fn at_the_neighbour<T: Send + 'static>(&self, f: impl FnOnce() -> T + Send + 'static) -> T {
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

fn run_ok(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().expect(program);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{program} {}: {said}",
        args.join(" ")
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn nft(args: &[&str]) -> String {
    run_ok("nft", args)
}

fn address(ip: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip.parse::<IpAddr>().expect("an address"), port)
}

fn socket(of: SocketAddr) -> Socket {
    Socket::new(Domain::for_address(of), Type::STREAM, None).expect("a socket")
}

fn listen(ip: &str, port: u16) -> TcpListener {
    let socket = socket(address(ip, port));
    socket.set_reuse_address(true).expect("reuse");
    if ip == "::" {
        socket.set_only_v6(true).expect("v6 only");
    }
    socket.bind(&address(ip, port).into()).expect("bind");
    socket.listen(8).expect("listen");
    socket.into()
}

fn dial(target: SocketAddr, mark: u32) -> std::io::Result<TcpStream> {
    let socket = socket(target);
    if mark != 0 {
        socket.set_mark(mark)?;
    }
    socket.connect_timeout(&target.into(), Duration::from_secs(2))?;
    Ok(socket.into())
}

/// Nothing listens at the neighbour, so its refusal shows that the connection went there.
fn assert_reaches_the_neighbour(target: SocketAddr, mark: u32) {
    let refused = dial(target, mark).expect_err("nothing listens there");
    assert_eq!(
        refused.kind(),
        std::io::ErrorKind::ConnectionRefused,
        "{target}: {refused}"
    );
}

/// The original destination of the connection that waits in the listener's backlog.
fn accepted(listener: &TcpListener) -> SocketAddr {
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
