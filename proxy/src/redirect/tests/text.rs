//! The rules as nft reads them.

use super::*;

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
