//! `weir-proxy init`: send the pod's TCP through its sidecar, and prove it.
//!
//! Runs once, before anything else in the pod, with NET_ADMIN and nothing more:
//!
//! ```text
//! arguments → Rules ──▶ table ──netlink──▶ kernel ──self-test──▶ exit 0
//!             (pure)    (one transaction)           (a connection to a TEST-NET
//!                                                    address must come back to us)
//! ```
//!
//! One `inet` table holds the rules of both address families and is replaced in one
//! transaction, so there is never a moment, and never a failure, with only one of them in force.
//! Whatever goes wrong, the init fails and the pod does not start: half a mesh is no mesh.

mod apply;
mod cidr;
mod netlink;
mod ports;
mod ruleset;
mod table;
mod validate;
mod verify;
mod wanted;

#[cfg(test)]
mod tests;

use std::num::ParseIntError;
use std::process::ExitCode;
use std::str::FromStr;

pub use cidr::CidrSet;
pub use ports::PortSet;
pub use validate::{NOT_REDIRECTED, ValidateArgs, run as validate};
pub use wanted::{Redirection, RedirectionError};

use ruleset::{Exempt, Rules};

/// The sidecar's user when neither a user nor a mark is given.
const PROXY_UID: u32 = 14102;

/// Admin and its reserved neighbour: kubelet and Prometheus reach them without the sidecar's data path.
const OWN_PORTS: &str = "14190-14191";

/// Redirect this network namespace's TCP to the sidecar (needs NET_ADMIN).
#[derive(Clone, Debug, clap::Args)]
pub struct InitArgs {
    /// Where the sidecar accepts what others send to this pod.
    #[arg(long, env = "WEIR_INBOUND_PORT", default_value_t = 14143, value_parser = clap::value_parser!(u16).range(1..))]
    pub inbound_port: u16,

    /// Where the sidecar accepts, on loopback, what this pod sends to others.
    #[arg(long, env = "WEIR_OUTBOUND_PORT", default_value_t = 14140, value_parser = clap::value_parser!(u16).range(1..))]
    pub outbound_port: u16,

    /// User whose traffic is not redirected: the sidecar's [default: 14102, unless a mark is given].
    #[arg(long, env = "WEIR_PROXY_UID", value_parser = clap::value_parser!(u32).range(1..))]
    pub proxy_uid: Option<u32>,

    /// Socket mark (SO_MARK) whose traffic is not redirected, where users cannot be told apart
    /// (rootless); decimal or 0x…, 0 means none.
    #[arg(long, env = "WEIR_PROXY_MARK", default_value = "0")]
    pub proxy_mark: Mark,

    /// Ports of this pod that others reach directly, e.g. `22,9000-9010`; 14190 and 14191 always are.
    #[arg(long, env = "WEIR_SKIP_INBOUND_PORTS", default_value = "")]
    pub skip_inbound_ports: PortSet,

    /// Destination ports this pod reaches directly.
    #[arg(long, env = "WEIR_SKIP_OUTBOUND_PORTS", default_value = "")]
    pub skip_outbound_ports: PortSet,

    /// Destination networks this pod reaches directly, IPv4 and IPv6.
    #[arg(long, env = "WEIR_SKIP_OUTBOUND_CIDRS", default_value = "")]
    pub skip_outbound_cidrs: CidrSet,

    /// Print the rules as `nft -f -` takes them, and change nothing.
    #[arg(long)]
    pub print: bool,

    /// Do not prove the redirection with a connection of our own.
    #[arg(long, env = "WEIR_NO_VERIFY")]
    pub no_verify: bool,

    /// Remove the rules instead of installing them.
    #[arg(long)]
    pub remove: bool,
}

/// A socket mark; 0, which every socket carries that nobody marked, stands for none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark(u32);

impl FromStr for Mark {
    type Err = ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.strip_prefix("0x") {
            _ if text.is_empty() => Ok(Self(0)),
            Some(hex) => u32::from_str_radix(hex, 16).map(Self),
            None => text.parse().map(Self),
        }
    }
}

impl std::fmt::Display for Mark {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// Why the pod must not start.
#[derive(Debug, thiserror::Error)]
enum InitError {
    #[error(
        "inbound and outbound port are both {0}: the sidecar could not tell the directions apart"
    )]
    SamePort(u16),
    #[error(transparent)]
    Apply(#[from] apply::ApplyError),
    #[error("the rules are installed, but not proven: {0}")]
    Verify(#[from] verify::VerifyError),
}

/// Does what `args` ask, and says on stderr what was done or why not. Blocks up to a few seconds;
/// not to be called from within an async runtime.
pub fn run(args: InitArgs) -> ExitCode {
    match init(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("weir-proxy init: {error}");
            ExitCode::FAILURE
        }
    }
}

fn init(args: &InitArgs) -> Result<(), InitError> {
    let rules = args.rules()?;
    if args.print {
        let text = rules.install();
        print!("{}", if args.remove { ruleset::REMOVE } else { &text });
        return Ok(());
    }
    if args.remove {
        apply::remove()?;
        eprintln!("weir-proxy init: the redirection is removed");
        return Ok(());
    }
    apply::install(&rules)?;
    if args.no_verify {
        eprintln!("weir-proxy init: {rules}; not verified, as asked");
    } else {
        let proof = verify::verify(&rules)?;
        eprintln!("weir-proxy init: {rules}; {proof}");
    }
    Ok(())
}

impl InitArgs {
    fn rules(&self) -> Result<Rules, InitError> {
        if self.inbound_port == self.outbound_port {
            return Err(InitError::SamePort(self.inbound_port));
        }
        let own_ports = OWN_PORTS.parse().expect("a constant of the right form");
        Ok(Rules {
            inbound_port: self.inbound_port,
            outbound_port: self.outbound_port,
            exempt: self.exempt(),
            skip_inbound_ports: self.skip_inbound_ports.union(&own_ports),
            skip_outbound_ports: self.skip_outbound_ports.clone(),
            skip_outbound_cidrs: self.skip_outbound_cidrs.clone(),
        })
    }

    fn exempt(&self) -> Exempt {
        let mark = (self.proxy_mark != Mark(0)).then_some(self.proxy_mark);
        match (self.proxy_uid, mark) {
            (None, None) => Exempt {
                uid: Some(PROXY_UID),
                mark: None,
            },
            (uid, mark) => Exempt { uid, mark },
        }
    }
}
