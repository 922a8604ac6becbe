//! The lab's nft rules as text: virtual addresses of Services, who may talk to whom, and faults
//! of the network. Pure; [`crate::network`] loads what is rendered here.
//!
//! One statement a line, because nft 1.0 wants it so.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};

use serde_json::Value;

use crate::address::{NODE, VIRTUAL_NET, VIRTUAL_NET_V6};

/// One port of one Service on one of its virtual addresses, with the endpoints that are ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Virtual {
    pub address: SocketAddr,
    /// `tcp` or `udp`.
    pub transport: &'static str,
    pub endpoints: Vec<SocketAddr>,
}

/// A fault of the network between pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing passes between the two sets, in either direction.
    Drop(Vec<IpAddr>, Vec<IpAddr>),
    /// This percentage of packets from and to the set is lost.
    Loss(u8, Vec<IpAddr>),
}

const PODS: &str = "\"pod*\"";

/// The whole table of Services, to be loaded in one transaction.
///
/// Endpoints take turns. A virtual address without endpoints refuses at once, as kube-proxy
/// does; so does any virtual address nobody has.
pub fn services(virtuals: &[Virtual]) -> String {
    let mut out =
        String::from("table inet weir_lab\ndelete table inet weir_lab\ntable inet weir_lab {\n");
    for (chain, hook, priority) in [
        ("services_in", "prerouting", "dstnat"),
        ("services_out", "output", "-100"),
    ] {
        let _ = write!(
            out,
            "  chain {chain} {{\n    type nat hook {hook} priority {priority}; policy accept;\n"
        );
        for one in virtuals.iter().filter(|one| !one.endpoints.is_empty()) {
            let _ = writeln!(out, "    {}", translation(one));
        }
        out.push_str("  }\n");
    }
    for (chain, hook) in [("refuse_in", "prerouting"), ("refuse_out", "output")] {
        let _ = write!(
            out,
            "  chain {chain} {{\n    type filter hook {hook} priority -50; policy accept;\n"
        );
        for net in [
            format!("ip daddr {VIRTUAL_NET}"),
            format!("ip6 daddr {VIRTUAL_NET_V6}"),
        ] {
            let _ = writeln!(out, "    {net} meta l4proto tcp reject with tcp reset");
            let _ = writeln!(out, "    {net} reject");
        }
        out.push_str("  }\n");
    }
    out.push_str(&hairpin(virtuals));
    // A pod reaches pods and nothing else; what is not of the lab is not forwarded.
    let _ = write!(
        out,
        "  chain forward {{\n    type filter hook forward priority filter; policy drop;\n    iifname {PODS} oifname {PODS} accept\n  }}\n}}\n"
    );
    out
}

fn translation(one: &Virtual) -> String {
    let family = family(one.address.ip());
    let turns: Vec<String> = one
        .endpoints
        .iter()
        .enumerate()
        .map(|(turn, endpoint)| format!("{turn} : {} . {}", endpoint.ip(), endpoint.port()))
        .collect();
    format!(
        "{family} daddr {} {} dport {} dnat {family} to numgen inc mod {} map {{ {} }}",
        one.address.ip(),
        one.transport,
        one.address.port(),
        turns.len(),
        turns.join(", ")
    )
}

/// A pod that calls its own Service may be sent back to itself. It would drop a packet that
/// comes in with its own source address, so the node steps in between.
fn hairpin(virtuals: &[Virtual]) -> String {
    let own: BTreeSet<IpAddr> = virtuals
        .iter()
        .flat_map(|one| one.endpoints.iter().map(SocketAddr::ip))
        .filter(IpAddr::is_ipv4)
        .collect();
    if own.is_empty() {
        return String::new();
    }
    let pairs: Vec<String> = own.iter().map(|ip| format!("{ip} . {ip}")).collect();
    format!(
        "  set self {{\n    type ipv4_addr . ipv4_addr\n    elements = {{ {} }}\n  }}\n  chain hairpin {{\n    type nat hook postrouting priority srcnat; policy accept;\n    ip saddr . ip daddr @self snat ip to {NODE}\n  }}\n",
        pairs.join(", ")
    )
}

/// The table of faults, to be loaded in one transaction. It sees packets between pods only:
/// probes come from the node and are not forwarded, so a partitioned pod stays "ready".
pub fn faults(faults: &[Fault]) -> String {
    let mut out = String::from(
        "table inet weir_faults\ndelete table inet weir_faults\ntable inet weir_faults {\n  chain forward {\n    type filter hook forward priority -10; policy accept;\n",
    );
    for fault in faults {
        match fault {
            Fault::Drop(left, right) => {
                for (from, to) in [(left, right), (right, left)] {
                    for (family, from, to) in both_families(from, to) {
                        let _ = writeln!(out, "    {family} saddr {from} {family} daddr {to} drop");
                    }
                }
            }
            Fault::Loss(0, _) => {}
            Fault::Loss(percent, pods) => {
                // What there is to lose, before any of it is: see `lost`.
                for direction in ["saddr", "daddr"] {
                    for (family, set, _) in both_families(pods, pods) {
                        let _ = writeln!(out, "    {family} {direction} {set} counter");
                    }
                }
                // nft refuses a comparison that always holds.
                let chance = match percent {
                    100.. => String::new(),
                    _ => format!(" numgen random mod 100 < {percent}"),
                };
                for direction in ["saddr", "daddr"] {
                    for (family, set, _) in both_families(pods, pods) {
                        let _ =
                            writeln!(out, "    {family} {direction} {set}{chance} counter drop");
                    }
                }
            }
        }
    }
    out.push_str("  }\n}\n");
    out
}

/// Packets that there were to lose and those that were lost, as `nft -j list table` has it.
pub fn lost(listed: &Value) -> (u64, u64) {
    let (mut seen, mut lost) = (0, 0);
    let rules = listed["nftables"].as_array().into_iter().flatten();
    for expressions in rules.filter_map(|one| one["rule"]["expr"].as_array()) {
        let count = expressions
            .iter()
            .find_map(|one| one["counter"]["packets"].as_u64());
        let drops = expressions.iter().any(|one| one.get("drop").is_some());
        *(if drops { &mut lost } else { &mut seen }) += count.unwrap_or_default();
    }
    (seen, lost)
}

fn both_families(from: &[IpAddr], to: &[IpAddr]) -> Vec<(&'static str, String, String)> {
    let set = |addresses: &[IpAddr], wanted: &str| {
        let of_family: Vec<String> = addresses
            .iter()
            .filter(|address| family(**address) == wanted)
            .map(IpAddr::to_string)
            .collect();
        (!of_family.is_empty()).then(|| format!("{{ {} }}", of_family.join(", ")))
    };
    ["ip", "ip6"]
        .into_iter()
        .filter_map(|family| Some((family, set(from, family)?, set(to, family)?)))
        .collect()
}

fn family(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "ip" } else { "ip6" }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn virtual_of(endpoints: &[&str]) -> Virtual {
        Virtual {
            address: "10.96.0.10:80".parse().unwrap(),
            transport: "tcp",
            endpoints: endpoints.iter().map(|e| e.parse().unwrap()).collect(),
        }
    }

    #[test]
    fn endpoints_of_a_service_take_turns_from_pods_and_from_the_node() {
        let rules = services(&[virtual_of(&["10.244.0.2:8080", "10.244.0.3:8081"])]);
        let rule = "ip daddr 10.96.0.10 tcp dport 80 dnat ip to numgen inc mod 2 map { 0 : 10.244.0.2 . 8080, 1 : 10.244.0.3 . 8081 }";
        assert_eq!(rules.matches(rule).count(), 2, "{rules}");
        assert!(rules.contains("10.244.0.2 . 10.244.0.2, 10.244.0.3 . 10.244.0.3"));
    }

    #[test]
    fn a_service_without_endpoints_has_no_translation_and_is_refused() {
        let rules = services(&[virtual_of(&[])]);
        assert!(!rules.contains("dnat ip"), "{rules}");
        assert_eq!(
            rules
                .matches("ip daddr 10.96.0.0/16 meta l4proto tcp reject with tcp reset")
                .count(),
            2
        );
    }

    #[test]
    fn a_drop_cuts_both_directions_and_keeps_families_apart() {
        let a: Vec<IpAddr> = vec![
            "10.244.0.2".parse().unwrap(),
            "fd10:244::2".parse().unwrap(),
        ];
        let b: Vec<IpAddr> = vec!["10.244.0.3".parse().unwrap()];
        let rules = faults(&[Fault::Drop(a, b)]);
        assert!(rules.contains("ip saddr { 10.244.0.2 } ip daddr { 10.244.0.3 } drop"));
        assert!(rules.contains("ip saddr { 10.244.0.3 } ip daddr { 10.244.0.2 } drop"));
        assert!(!rules.contains("ip6"), "b has no IPv6 address: {rules}");
    }

    #[test]
    fn a_loss_counts_packets_from_and_to_the_pod() {
        let rules = faults(&[Fault::Loss(20, vec!["10.244.0.2".parse().unwrap()])]);
        for direction in ["saddr", "daddr"] {
            let of_pod = format!("    ip {direction} {{ 10.244.0.2 }}");
            let seen = rules.find(&format!("{of_pod} counter\n"));
            let lost = rules.find(&format!(
                "{of_pod} numgen random mod 100 < 20 counter drop\n"
            ));
            assert!(seen.expect("counted") < lost.expect("lost"), "{rules}");
        }
        let first = rules.find("drop").expect("some are lost");
        assert!(
            rules.rfind("} counter\n").expect("counted") < first,
            "{rules}"
        );
    }

    #[test]
    fn what_was_lost_is_told_apart_from_what_there_was_to_lose() {
        let listed = serde_json::json!({"nftables": [
            {"metainfo": {"version": "1.0.6"}},
            {"table": {"family": "inet", "name": "weir_faults"}},
            {"rule": {"chain": "forward", "expr": [
                {"match": {"op": "=="}}, {"counter": {"packets": 100, "bytes": 9000}},
            ]}},
            {"rule": {"chain": "forward", "expr": [{"counter": {"packets": 50, "bytes": 1}}]}},
            {"rule": {"chain": "forward", "expr": [
                {"match": {"op": "<"}}, {"counter": {"packets": 21, "bytes": 800}}, {"drop": null},
            ]}},
            {"rule": {"chain": "forward", "expr": [{"counter": {"packets": 9, "bytes": 8}}, {"drop": null}]}},
            {"rule": {"chain": "forward", "expr": [{"drop": null}]}},
        ]});
        assert_eq!(lost(&listed), (150, 30));
        assert_eq!(lost(&serde_json::json!({"nftables": []})), (0, 0));
    }
}
