//! The rules in the kernel's own words, held against what nft makes of the text; and written from outside of a pod.

use super::pod::run_ok;
use super::*;

#[test]
fn the_kernel_is_told_what_nft_would_have_told_it() {
    inside(&["-Urn"], "kernel::inside_compares_with_nft");
}

#[test]
fn a_pods_rules_are_written_from_outside_and_a_change_of_them_shows() {
    inside(&["-Urn"], "kernel::inside_writes_into_another_namespace");
}

#[test]
#[ignore = "run by the_kernel_is_told_what_nft_would_have_told_it"]
fn inside_compares_with_nft() {
    assert_own_namespace();
    let many: Vec<String> = (1000..4000)
        .step_by(2)
        .map(|port| port.to_string())
        .collect();
    let many = format!("--skip-outbound-ports={}", many.join(","));
    for flags in [
        &[][..],
        &[
            "--proxy-mark=0x14102",
            "--inbound-port=1",
            "--outbound-port=65535",
        ],
        &[
            "--proxy-uid=7",
            "--skip-inbound-ports=1,65000-65535",
            "--skip-outbound-cidrs=0.0.0.0/0,::/0",
        ],
        &[
            "--proxy-uid=7",
            "--proxy-mark=9",
            "--skip-outbound-cidrs=10.0.0.0/9,10.128.0.0/9,255.255.255.255,fd00::/8",
        ],
        &[&many],
    ] {
        let rules = args(flags).rules().expect("valid");
        apply::install(&rules).expect("the kernel takes it");
        let ours = nft(&["-n", "list", "ruleset"]);
        let shown = table::shown().expect("it can be listed");
        let path = std::env::temp_dir().join(format!("weir-nft-{}", std::process::id()));
        std::fs::write(&path, rules.install()).expect("a file");
        nft(&["-f", &path.display().to_string()]);
        std::fs::remove_file(&path).expect("it was there");
        assert_eq!(ours, nft(&["-n", "list", "ruleset"]), "{flags:?}");
        assert_ne!(shown.len(), 0);
        apply::install(&rules).expect("the kernel takes it again");
        assert_eq!(
            shown,
            table::shown().expect("it can be listed"),
            "{flags:?}"
        );
    }
    nft(&["delete", "element", "inet", "weir", "skip_out", "{ 2000 }"]);
    let ports = args(&[&many]).rules().expect("valid");
    let less = table::shown().expect("it can be listed");
    apply::install(&ports).expect("the kernel takes it again");
    assert_ne!(
        less,
        table::shown().expect("it can be listed"),
        "one port less shows"
    );
    let too_many = format!(
        "--skip-outbound-ports={}",
        (1..65000)
            .step_by(2)
            .map(|port| port.to_string())
            .collect::<Vec<_>>()
            .join(",")
    );
    let error = apply::install(&args(&[&too_many]).rules().expect("valid")).expect_err("too many");
    assert!(error.to_string().contains("fewer ports"), "{error}");
    apply::remove().expect("it was there");
    assert_eq!(
        table::shown().expect("nothing is nothing"),
        Vec::<Vec<u8>>::new()
    );
}

#[test]
#[ignore = "run by a_pods_rules_are_written_from_outside_and_a_change_of_them_shows"]
fn inside_writes_into_another_namespace() {
    let pod = Pod::new();
    let pid = pod.neighbour.id().to_string();
    let there = |command: &[&str]| run_ok("nsenter", &[&["-n", "-t", &pid], command].concat());
    let path = std::path::PathBuf::from(format!("/proc/{pid}/ns/net"));
    let said = serde_json::json!({
        "inboundPort": 14143, "outboundPort": 14140, "proxyUid": 14102, "skipOutboundPorts": "25,3306-3310",
    });
    let redirection = Redirection::read(&said).expect("understood");
    assert!(
        matches!(redirection.check(&path), Err(RedirectionError::Changed)),
        "there is nothing yet"
    );
    redirection.install(&path).expect("installed");
    let first = there(&["nft", "list", "ruleset"]);
    redirection.install(&path).expect("a second time");
    assert_eq!(
        there(&["nft", "list", "ruleset"]),
        first,
        "a second time changes nothing"
    );
    assert_eq!(nft(&["list", "ruleset"]), "", "and nothing here");
    redirection.check(&path).expect("they are there");
    for change in [
        &[
            "nft", "delete", "element", "inet", "weir", "skip_out", "{ 25 }",
        ][..],
        &["nft", "flush", "chain", "inet", "weir", "out"],
        &["nft", "add", "rule", "inet", "weir", "pre", "accept"],
        &["nft", "delete", "table", "inet", "weir"],
    ] {
        there(change);
        assert!(
            matches!(redirection.check(&path), Err(RedirectionError::Changed)),
            "{change:?}"
        );
        redirection.install(&path).expect("mended");
        redirection.check(&path).expect("they are there again");
    }
    let gone = redirection.install(std::path::Path::new("/proc/0/ns/net"));
    assert!(
        matches!(gone, Err(RedirectionError::Namespace { .. })),
        "{gone:?}"
    );
}
