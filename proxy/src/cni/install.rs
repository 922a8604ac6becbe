//! `weir-cni install`: puts the plugin on a node, and keeps it there.
//!
//! ```text
//!   program ──▶ credentials ──▶ entry in the chain ──▶ look again, twice a second
//!                  ▲ the kubelet renews the token          ▲ another writer replaces the chain
//! ```
//!
//! At its end it takes the entry out again, unless another installer (of a newer version, say) has come since.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use tokio::time::Instant;

use super::api::{Api, Credentials};
use super::conflist::Entry;
use super::node::{Node, NodeError, kubeconfig_name};
use super::repair;
use crate::drain::Termination;

const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Put the plugin on this node and keep it there; for a DaemonSet
///
/// Copies this program to the node's folder of plugins, writes credentials for it (again whenever the service account's
/// token is renewed), and adds it to the chain of the cluster's network: the first file by name. It waits for a network
/// that is not there yet, and adds the entry again when somebody takes it out. On SIGTERM it takes it out itself.
#[derive(clap::Args, Debug)]
pub struct InstallArgs {
    #[command(flatten)]
    places: Places,

    /// The service account's folder: token and ca.crt
    #[arg(
        long,
        value_name = "DIR",
        default_value = "/var/run/secrets/kubernetes.io/serviceaccount"
    )]
    service_account: PathBuf,

    /// The API server as the node reaches it [default: from KUBERNETES_SERVICE_HOST and _PORT]
    #[arg(long, value_name = "https://HOST:PORT", env = "WEIR_API_SERVER")]
    api_server: Option<String>,

    /// Tells this installer from its successor
    #[arg(long, value_name = "UID", env = "WEIR_POD_UID", hide_default_value = true, default_value_t = own_name())]
    installer: String,

    /// What becomes of the entry at the end: remove, unless another installer has come; or keep
    #[arg(long, value_enum, default_value = "remove", env = "WEIR_CNI_ON_EXIT")]
    on_exit: OnExit,

    /// Delete pods of this node that started without their rules, so that they start anew (needs the right to list and
    /// delete pods)
    #[arg(long, env = "WEIR_CNI_REPAIR")]
    repair: bool,

    /// This node
    #[arg(long, value_name = "NAME", env = "WEIR_NODE_NAME")]
    node_name: Option<String>,
}

/// Whether the plugin is in place: in the network's chain as it should be, with its program and its credentials
#[derive(clap::Args, Debug)]
pub(super) struct StatusArgs {
    #[command(flatten)]
    places: Places,
}

#[derive(clap::Args, Debug)]
struct Places {
    /// The node's folder of plugins, as it is mounted here
    #[arg(
        long,
        value_name = "DIR",
        default_value = "/host/opt/cni/bin",
        env = "WEIR_CNI_PROGRAMS"
    )]
    programs: PathBuf,

    /// The node's folder of networks, as it is mounted here
    #[arg(
        long,
        value_name = "DIR",
        default_value = "/host/etc/cni/net.d",
        env = "WEIR_CNI_NETWORKS"
    )]
    networks: PathBuf,

    /// The same folder as the node has it
    #[arg(
        long,
        value_name = "DIR",
        default_value = "/etc/cni/net.d",
        env = "WEIR_CNI_NETWORKS_ON_NODE"
    )]
    networks_on_node: PathBuf,

    /// Namespaces whose pods are never in the mesh: they start also when the API server cannot be asked
    #[arg(
        long,
        value_name = "NAMES",
        value_delimiter = ',',
        default_value = "kube-system,weir-system,weir-cni",
        env = "WEIR_CNI_EXCLUDE_NAMESPACES"
    )]
    exclude_namespaces: Vec<String>,
}

#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum OnExit {
    Remove,
    Keep,
}

impl Places {
    fn node(&self) -> Node {
        Node {
            programs: self.programs.clone(),
            networks: self.networks.clone(),
        }
    }

    fn entry(&self) -> Entry {
        Entry {
            kubeconfig: self
                .networks_on_node
                .join(kubeconfig_name())
                .display()
                .to_string(),
            excluded_namespaces: self.exclude_namespaces.clone(),
        }
    }
}

pub(super) fn status(args: &StatusArgs) -> ExitCode {
    match args.places.node().joined(&args.places.entry()) {
        Ok(network) => {
            println!("weir-cni is in {network}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("weir-cni: {error}");
            ExitCode::FAILURE
        }
    }
}

pub(super) fn run(args: InstallArgs) -> ExitCode {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let ended = runtime
        .map_err(|error| error.to_string())
        .and_then(|runtime| runtime.block_on(keep(args)));
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("weir-cni install: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn keep(args: InstallArgs) -> Result<(), String> {
    let mut termination = Termination::new().map_err(|error| error.to_string())?;
    let server = args.server()?;
    if args.repair && args.node_name.is_none() {
        return Err("--repair wants to know whose pods: --node-name NAME".to_owned());
    }
    let (node, entry) = (args.places.node(), args.places.entry());
    let own =
        std::env::current_exe().map_err(|error| format!("cannot find this program: {error}"))?;
    node.place_program(&own)
        .map_err(|error| error.to_string())?;
    node.own(&args.installer)
        .map_err(|error| error.to_string())?;
    tracing::info!(
        "weir-cni {} is {}",
        env!("CARGO_PKG_VERSION"),
        node.program().display()
    );
    let mut said = String::new();
    let mut repair_at = Instant::now();
    loop {
        // Once, and again when it is another.
        let problem = match args.look(&server, &node, &entry) {
            Ok(Some(network)) => {
                tracing::info!("weir-cni is in {network}");
                String::new()
            }
            Ok(None) => String::new(),
            Err(error) => error,
        };
        if problem != said && !problem.is_empty() {
            tracing::warn!("{problem}");
        }
        let is_fine = problem.is_empty();
        said = problem;
        if is_fine
            && Instant::now() >= repair_at
            && let Some(name) = args.node_name.as_ref().filter(|_| args.repair)
        {
            let repaired = match args.credentials(&server).and_then(Api::new) {
                Ok(api) => repair::round(&api, name).await,
                Err(error) => Err(error),
            };
            if let Err(error) = repaired {
                tracing::warn!("repair: {error}");
            }
            repair_at = Instant::now() + repair::EVERY;
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            () = termination.told() => break,
        }
    }
    if args.on_exit == OnExit::Keep {
        tracing::info!(
            "told to end: the plugin stays, and its credentials with it until they expire"
        );
        return Ok(());
    }
    if !node.is_owned_by(&args.installer) {
        tracing::info!("told to end: the plugin stays, for another installer has taken over");
        return Ok(());
    }
    node.leave().map_err(|error| error.to_string())?;
    tracing::info!("told to end: weir-cni is in no chain any more");
    Ok(())
}

impl InstallArgs {
    fn server(&self) -> Result<String, String> {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        if let Some(server) = &self.api_server {
            return Ok(server.clone());
        }
        let (host, port) = (
            variable("KUBERNETES_SERVICE_HOST"),
            variable("KUBERNETES_SERVICE_PORT"),
        );
        match (host, port) {
            (Some(host), Some(port)) if host.contains(':') => {
                Ok(format!("https://[{host}]:{port}"))
            }
            (Some(host), Some(port)) => Ok(format!("https://{host}:{port}")),
            _ => Err(
                "nothing says where the API server is: --api-server https://HOST:PORT".to_owned(),
            ),
        }
    }

    fn credentials(&self, server: &str) -> Result<Credentials, String> {
        let read = |name: &str| {
            let path = self.service_account.join(name);
            std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))
        };
        Ok(Credentials {
            server: server.to_owned(),
            authority: read("ca.crt")?,
            token: read("token")?.trim().to_owned(),
        })
    }

    /// Makes everything as it should be. The network's file that had to be written for that.
    fn look(&self, server: &str, node: &Node, entry: &Entry) -> Result<Option<String>, String> {
        let told = |error: NodeError| error.to_string();
        // A predecessor that came back for a moment, and took everything with it.
        if node.is_left() {
            node.own(&self.installer).map_err(told)?;
        }
        // Whoever comes later is the newer one; its program and its entry hold.
        if !node.is_owned_by(&self.installer) {
            return Ok(None);
        }
        if !node.program().exists() {
            let own = std::env::current_exe().map_err(|error| error.to_string())?;
            node.place_program(&own).map_err(told)?;
        }
        // Credentials first: an entry without them would keep every pod from starting.
        node.place_credentials(&self.credentials(server)?)
            .map_err(told)?;
        node.join_chain(entry).map_err(told)
    }
}

fn own_name() -> String {
    format!("{:032x}", fastrand::u128(..))
}
