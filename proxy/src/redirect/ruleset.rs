//! The redirection as text: what `nft` is asked to install. Decides everything, does nothing.
//!
//! ```text
//! inbound   prerouting ── port skipped? ──▶ the app
//!                       └─ else ─────────▶ :14143 on the interface's own address
//! outbound  output ── by the sidecar itself, over lo, port or network skipped? ──▶ as meant
//!                   └─ else ─────────────────────────────────────────────────────▶ :14140 on loopback
//! ```
//!
//! Only TCP is taken. What the app sends to itself (its own address routes over `lo`) stays between
//! the two of them. A kernel quirk shapes the text: `redirect` wants `meta l4proto tcp` in its own rule.

use std::fmt;

use super::{CidrSet, Mark, PortSet};

/// One transaction that leaves no trace, whether or not the table was there: adding a table
/// that exists is no error, and deleting one that does not is.
pub(super) const REMOVE: &str = "add table inet weir\ndelete table inet weir\n";

/// What is redirected where, and what is not.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    pub(super) inbound_port: u16,
    pub(super) outbound_port: u16,
    pub(super) exempt: Exempt,
    pub(super) skip_inbound_ports: PortSet,
    pub(super) skip_outbound_ports: PortSet,
    pub(super) skip_outbound_cidrs: CidrSet,
}

/// How the sidecar's own connections are told from the app's; at least one of the two.
#[derive(Clone, Copy, Debug)]
pub(super) struct Exempt {
    pub(super) uid: Option<u32>,
    pub(super) mark: Option<Mark>,
}

impl Rules {
    /// One transaction that replaces whatever an earlier run installed.
    pub(super) fn install(&self) -> String {
        let sets = [
            set(
                "skip_in",
                "inet_service",
                &self.skip_inbound_ports.to_string(),
            ),
            set(
                "skip_out",
                "inet_service",
                &self.skip_outbound_ports.to_string(),
            ),
            set("skip_cidr", "ipv4_addr", &self.skip_outbound_cidrs.v4()),
            set("skip_cidr6", "ipv6_addr", &self.skip_outbound_cidrs.v6()),
        ];
        let chains = [
            chain("pre", "prerouting", &self.inbound()),
            chain("out", "output", &self.outbound()),
        ];
        format!(
            "{REMOVE}table inet weir {{\n{}{}}}\n",
            sets.concat(),
            chains.concat()
        )
    }

    fn inbound(&self) -> Vec<String> {
        vec![
            "tcp dport @skip_in return".to_owned(),
            format!("meta l4proto tcp redirect to :{}", self.inbound_port),
        ]
    }

    fn outbound(&self) -> Vec<String> {
        let uid = self
            .exempt
            .uid
            .map(|uid| format!("meta skuid {uid} return"));
        let mark = self
            .exempt
            .mark
            .map(|mark| format!("meta mark {mark} return"));
        let rest = [
            "oifname \"lo\" return".to_owned(),
            "tcp dport @skip_out return".to_owned(),
            "ip daddr @skip_cidr return".to_owned(),
            "ip6 daddr @skip_cidr6 return".to_owned(),
            format!("meta l4proto tcp redirect to :{}", self.outbound_port),
        ];
        uid.into_iter().chain(mark).chain(rest).collect()
    }
}

/// `-100` is `dstnat` by number: the name is not accepted on the output hook.
fn chain(name: &str, hook: &str, rules: &[String]) -> String {
    let rules: String = rules.iter().map(|rule| format!("    {rule}\n")).collect();
    format!(
        "  chain {name} {{\n    type nat hook {hook} priority -100; policy accept;\n{rules}  }}\n"
    )
}

fn set(name: &str, of: &str, elements: &str) -> String {
    let elements = match elements {
        "" => String::new(), // `elements = { }` is a syntax error
        some => format!("    elements = {{ {some} }}\n"),
    };
    format!("  set {name} {{\n    type {of}\n    flags interval\n{elements}  }}\n")
}

impl fmt::Display for Exempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let uid = self.uid.map(|uid| format!("uid {uid}"));
        let mark = self.mark.map(|mark| format!("mark {mark}"));
        let who: Vec<String> = uid.into_iter().chain(mark).collect();
        f.write_str(&who.join(" or "))
    }
}

/// For the log of the init container.
impl fmt::Display for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            inbound_port,
            outbound_port,
            exempt,
            ..
        } = self;
        write!(
            f,
            "TCP in goes to :{inbound_port} except ports {}",
            self.skip_inbound_ports
        )?;
        write!(f, "; TCP out goes to :{outbound_port} except from {exempt}")?;
        if !self.skip_outbound_ports.is_empty() {
            write!(f, ", to ports {}", self.skip_outbound_ports)?;
        }
        for cidrs in [self.skip_outbound_cidrs.v4(), self.skip_outbound_cidrs.v6()] {
            if !cidrs.is_empty() {
                write!(f, ", to {cidrs}")?;
            }
        }
        Ok(())
    }
}
