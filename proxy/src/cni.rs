//! CNI mode: the node writes a pod's rules, so that no pod needs NET_ADMIN.
//!
//! ```text
//!   weir-cni install (DaemonSet)        on each node: this binary, its credentials, and a place in the network's chain
//!   weir-cni         (container runtime) ADD: is the pod one of ours? ── its redirection ──▶ rules in its namespace
//!   weir-proxy validate (in the pod)    tries it, as a user without capabilities, before anything else starts there
//! ```
//!
//! The same program under another name: called as `weir-cni`, the word `cni` is understood.

mod api;
mod conflist;
mod failure;
mod install;
mod network;
mod node;
mod plugin;
mod pod;
mod repair;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

pub use install::InstallArgs;

/// Of the program in the runtime's folder, and of its entry in the network's chain.
const NAME: &str = "weir-cni";

/// The CNI plugin for clusters whose pods may not have NET_ADMIN
///
/// Without a subcommand it is the plugin itself, which a container runtime calls by the CNI specification (0.3.0 to
/// 1.1.0; CNI_COMMAND and others say what is asked, the network's configuration comes on stdin). It stands last in the
/// chain, passes on what came before it, and touches no pod but those whose annotation weir.dev/inject-status has a
/// redirection in it.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  weir-cni install                                 in the DaemonSet, with the node's folders mounted below /host
  weir-cni status                                  is the plugin in place?
  echo '{\"cniVersion\":\"1.1.0\"}' | CNI_COMMAND=VERSION weir-cni")]
pub struct CniArgs {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(clap::Subcommand, Debug)]
enum Command {
    Install(InstallArgs),
    Status(install::StatusArgs),
}

/// The arguments as if `weir-proxy cni` had been called, when the program is called `weir-cni`.
pub fn by_name(mut arguments: Vec<OsString>) -> Vec<OsString> {
    let name = arguments
        .first()
        .and_then(|first| Path::new(first).file_name());
    if name.is_some_and(|name| name == NAME) {
        arguments.insert(1, "cni".into());
    }
    arguments
}

pub fn run(args: CniArgs) -> ExitCode {
    match args.command {
        None => plugin::run(),
        Some(Command::Install(args)) => install::run(args),
        Some(Command::Status(args)) => install::status(&args),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_programs_name_is_a_subcommand() {
        let words = |words: &[&str]| words.iter().map(OsString::from).collect::<Vec<_>>();
        let plugin = by_name(words(&["/opt/cni/bin/weir-cni", "status"]));
        assert_eq!(plugin, words(&["/opt/cni/bin/weir-cni", "cni", "status"]));
        let proxy = words(&["/weir-proxy", "init"]);
        assert_eq!(by_name(proxy.clone()), proxy);
    }
}
