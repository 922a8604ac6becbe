//! `weir-proxy validate`: in a pod whose rules somebody else wrote, the proof that they hold.
//!
//! In CNI mode nothing in the pod may write rules, so nothing in it can know that they are there, but by trying: this
//! runs first, as a user without any capability, and what comes after it does not start when it fails.

use std::process::ExitCode;

use super::verify::{self, VerifyError};
use super::{CidrSet, Exempt, PROXY_UID, PortSet, Rules};

/// What the container ends with when the pod is not redirected: `weir check` and the repair look for it.
pub const NOT_REDIRECTED: u8 = 95;

/// Prove that this pod's TCP is redirected to its sidecar; needs no capability, and changes nothing
///
/// A connection to an address that leads nowhere must come back. Run it before the sidecar, as another user than the
/// sidecar's.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Exit codes: 0 redirected, 95 not redirected, 1 it could not be tried.")]
pub struct ValidateArgs {
    /// Where the sidecar will accept, on loopback, what this pod sends to others.
    #[arg(long, env = "WEIR_OUTBOUND_PORT", default_value_t = 14140, value_parser = clap::value_parser!(u16).range(1..))]
    pub outbound_port: u16,

    /// The sidecar's user, who is not redirected.
    #[arg(long, env = "WEIR_PROXY_UID", default_value_t = PROXY_UID, value_parser = clap::value_parser!(u32).range(1..))]
    pub proxy_uid: u32,

    /// Destination ports that are not redirected, so that none of them is tried.
    #[arg(long, env = "WEIR_SKIP_OUTBOUND_PORTS", default_value = "")]
    pub skip_outbound_ports: PortSet,

    /// Destination networks that are not redirected, so that none of them is tried.
    #[arg(long, env = "WEIR_SKIP_OUTBOUND_CIDRS", default_value = "")]
    pub skip_outbound_cidrs: CidrSet,
}

/// Blocks up to a few seconds; not to be called from within an async runtime.
pub fn run(args: &ValidateArgs) -> ExitCode {
    match verify::verify(&args.rules()) {
        Ok(proof) => {
            eprintln!("weir-proxy validate: {proof}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("weir-proxy validate: {error}");
            if !matches!(error, VerifyError::NotRedirected { .. }) {
                return ExitCode::FAILURE;
            }
            eprintln!(
                "The CNI plugin weir-cni writes this pod's rules when its network is made, and did not. Is the \
                 DaemonSet weir-cni ready on this node, and is this node's network configuration the one it is in? \
                 Then delete this pod, so that its network is made anew; a restart of its containers does not do that."
            );
            ExitCode::from(NOT_REDIRECTED)
        }
    }
}

impl ValidateArgs {
    /// As far as the test needs them.
    fn rules(&self) -> Rules {
        Rules {
            inbound_port: 0,
            outbound_port: self.outbound_port,
            exempt: Exempt {
                uid: Some(self.proxy_uid),
                mark: None,
            },
            skip_inbound_ports: PortSet::default(),
            skip_outbound_ports: self.skip_outbound_ports.clone(),
            skip_outbound_cidrs: self.skip_outbound_cidrs.clone(),
        }
    }
}
