//! The text by snapshot; the effect in network namespaces of our own, without root.
//!
//! A test that needs a namespace runs this test binary again under `unshare`, with the name of an
//! ignored test that does the work inside. Those are not meant to be run by hand: outside a
//! namespace of their own they would rewrite this machine's rules, and they refuse to.

mod kernel;
mod pod;
mod text;

use std::io::{Read, Write};
use std::process::Command;

use clap::Parser;

use super::verify::{Family, Untested, verify};
use super::*;

use pod::{Pod, accepted, address, assert_reaches_the_neighbour, dial, listen, nft};

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
