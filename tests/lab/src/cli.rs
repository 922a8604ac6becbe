//! The command line `weir-lab`: start a lab in one terminal, steer it from another.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::image::Mapping;
use crate::settings::Publish;

/// Runs Kubernetes YAML on this machine: every pod a network namespace, every container a
/// process, with the real sidecar and the real redirection. Nothing outlives it.
#[derive(Debug, Parser)]
#[command(name = "weir-lab", version)]
pub struct Cli {
    /// Which lab, when several are running
    #[arg(long, global = true, value_name = "ID")]
    pub run: Option<String>,
    #[command(subcommand)]
    pub verb: Verb,
}

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Start a lab; Ctrl-C ends it
    Up(Up),
    /// End a lab, and remove what a dead one left
    Down {
        id: Option<String>,
        /// Every lab of this user
        #[arg(long, conflicts_with = "id")]
        all: bool,
    },
    /// List the labs of this user
    Runs,
    /// Show what runs
    Ps,
    /// SIGKILL an app; it is started anew
    Kill {
        /// WORKLOAD, WORKLOAD/N or NAMESPACE/WORKLOAD/N
        pod: String,
        /// The whole pod, at once
        #[arg(long = "pod")]
        whole: bool,
    },
    /// Freeze a pod (SIGSTOP)
    Stop {
        pod: String,
        /// Not its sidecar
        #[arg(long)]
        app_only: bool,
    },
    /// Let a frozen pod go on (SIGCONT)
    Cont { pod: String },
    /// End pods gracefully, one after the other, each replaced
    Restart { pod: String },
    /// Change the number of replicas
    Scale { workload: String, replicas: u32 },
    /// Faults of the network between pods
    #[command(subcommand)]
    Net(Net),
    /// Scenarios in which something of the boutique fails, with the mesh and without
    #[command(subcommand)]
    Chaos(Chaos),
    /// Draw the pictures of a `chaos run` again, from what it recorded
    Report {
        /// As `chaos run` left it
        folder: PathBuf,
        /// Copy the overview sheet here, too
        #[arg(long, value_name = "FILE")]
        overview: Option<PathBuf>,
    },
    /// Print what a pod's containers said
    Logs {
        pod: String,
        /// Only this container
        #[arg(short, long)]
        container: Option<String>,
        /// Go on until interrupted
        #[arg(short, long)]
        follow: bool,
    },
    /// Run a command in a pod, or with `node` in the lab's own network
    Exec {
        pod: String,
        #[arg(short, long)]
        container: Option<String>,
        #[arg(trailing_var_arg = true, required = true)]
        command: Vec<String>,
    },
}

#[derive(Debug, Subcommand)]
pub enum Chaos {
    /// List the scenarios
    List,
    /// Print a scenario as it is written
    Show { name: String },
    /// Run scenarios, judge them, and draw what happened; exit code 1 when something did not hold with the mesh
    #[command(after_help = CHAOS_EXAMPLES)]
    Run(ChaosRun),
}

const CHAOS_EXAMPLES: &str = "Examples:
  weir-lab chaos run frozen-replica
  weir-lab chaos run C2 C5 --mesh on --out /tmp/records
  weir-lab chaos run gate --quick        what every submission must pass
  weir-lab chaos run all                 12 minutes with --quick
  weir-lab chaos run brownout --fault-policy";

#[derive(Debug, Args)]
pub struct ChaosRun {
    /// Names or numbers; `all`, or `gate`: those of every submission
    #[arg(required = true, value_name = "NAME")]
    pub names: Vec<String>,
    /// Shorter phases, where a scenario has them; the claims are the same
    #[arg(long)]
    pub quick: bool,
    /// With sidecars, without, or both
    #[arg(long, value_enum, default_value = "both")]
    pub mesh: Mode,
    /// The mesh itself makes it fail, in the mesh only: by the scenario's file of demo-boutique/faults, where it has one
    #[arg(long, conflicts_with = "mesh")]
    pub fault_policy: bool,
    /// Where records, summaries and pictures go; target/chaos by default, target/chaos-fault-policy for those
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// In a user namespace with a single user, also when run by root
    #[arg(long)]
    pub rootless: bool,
    /// Do not look whether something has to be built
    #[arg(long)]
    pub no_build: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum, PartialEq, Eq)]
pub enum Mode {
    Both,
    On,
    Off,
}

#[derive(Debug, Subcommand)]
pub enum Net {
    /// Cut the network between two sets of pods
    Drop { left: String, right: String },
    /// Lose this percentage of a pod's packets, in both directions
    Loss { percent: u8, pod: String },
    /// Take all faults back
    Heal,
}

#[derive(Clone, Copy, Debug, ValueEnum, PartialEq, Eq)]
pub enum Mesh {
    On,
    Off,
}

#[derive(Debug, Args)]
pub struct Up {
    /// YAML files, or directories of them
    #[arg(required = true, value_name = "FILE|DIR")]
    pub manifests: Vec<PathBuf>,
    /// weir.dev resources, watched in place
    #[arg(long, value_name = "FILE|DIR")]
    pub policies: Vec<PathBuf>,
    /// Sidecars, or the same pods without
    #[arg(long, value_enum, default_value = "on")]
    pub mesh: Mesh,
    /// The node writes the pods' rules by a CNI plugin, and no pod has NET_ADMIN
    #[arg(long)]
    pub cni: bool,
    /// A user namespace with a single user (always so unless run by root)
    #[arg(long)]
    pub rootless: bool,
    /// Replicas of a workload, as in catalog=3
    #[arg(long, value_name = "WORKLOAD=N", value_parser = replicas)]
    pub replicas: Vec<(String, u32)>,
    /// A variable for a workload's apps, as in catalog:LATENCY_MS=300
    #[arg(long, value_name = "WORKLOAD:NAME=VALUE", value_parser = variable)]
    pub env: Vec<(String, String, String)>,
    /// The folder that stands for an image, or with a slash at the end for all images below
    #[arg(long, value_name = "IMAGE=FOLDER")]
    pub images: Vec<Mapping>,
    /// A Service's port on this machine's 127.0.0.1, as in storefront:8080=8080
    #[arg(long, value_name = "SERVICE:PORT[=HOSTPORT]")]
    pub publish: Vec<Publish>,
    /// Where weir-proxy and weir-control-plane are; beside this program by default
    #[arg(long, value_name = "DIR")]
    pub bin_dir: Option<PathBuf>,
    /// Keep logs and state after the end
    #[arg(long)]
    pub keep: bool,
    /// End by itself after this many seconds
    #[arg(long = "for", value_name = "SECONDS")]
    pub seconds: Option<u64>,
}

fn replicas(text: &str) -> Result<(String, u32), String> {
    let wrong = || format!("`{text}` is not WORKLOAD=N");
    let (name, count) = text.split_once('=').ok_or_else(wrong)?;
    Ok((name.to_owned(), count.parse().map_err(|_| wrong())?))
}

fn variable(text: &str) -> Result<(String, String, String), String> {
    let wrong = || format!("`{text}` is not WORKLOAD:NAME=VALUE");
    let (workload, rest) = text.split_once(':').ok_or_else(wrong)?;
    let (name, value) = rest.split_once('=').ok_or_else(wrong)?;
    Ok((workload.to_owned(), name.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_has_no_contradiction() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_command_after_a_pod_keeps_its_own_flags() {
        let cli = Cli::parse_from(["weir-lab", "exec", "catalog/1", "ls", "-l"]);
        let Verb::Exec { pod, command, .. } = cli.verb else {
            panic!("not exec")
        };
        assert_eq!(
            (pod.as_str(), command),
            ("catalog/1", vec!["ls".to_owned(), "-l".to_owned()])
        );
    }
}
