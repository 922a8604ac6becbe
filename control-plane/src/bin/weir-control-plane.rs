//! `weir-control-plane`: reads what the mesh should be, tells every sidecar its part, and keeps a journal.

use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use weir_config::units::Duration;
use weir_control_plane::control_plane::{
    Cluster, ControlPlane, STALLED_AFTER, Settings, StartError,
};
use weir_control_plane::injector::InjectorSettings;
use weir_control_plane::kubernetes;

/// Of the static images.
#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// In place of a directory.
const KUBERNETES: &str = "kubernetes";

/// Weir's control plane: policy and certificates for every sidecar, and a journal of what happened.
///
/// With --source kubernetes it watches the Kubernetes API (Services, EndpointSlices, Pods, and Weir's own kinds).
/// Otherwise it reads the same as YAML from directories, and reads it again when it changes. A policy with a mistake
/// is refused (a file whole): what held before stays in force, and `weir events --kind PolicyRejected` says why.
#[derive(Parser)]
#[command(
    version,
    after_help = "Examples:
  weir-control-plane --source kubernetes --state /var/lib/weir
  weir-control-plane --source ./cluster --source ./policies \\
    --state /var/lib/weir --bootstrap-tokens /run/weir/tokens --trust-bundle-out /run/weir/ca.crt
  weir --control-plane unix:/run/weir/operator.sock events --follow"
)]
struct Arguments {
    /// The word kubernetes, for the API server of the cluster (in a pod by its service account, elsewhere by
    /// KUBECONFIG); or a directory of YAML (nested folders too) or a single file, which may be given several times
    #[arg(
        long,
        value_name = "PATH",
        required = true,
        env = "WEIR_SOURCE",
        value_delimiter = ','
    )]
    source: Vec<PathBuf>,

    /// Where sidecars connect (gRPC over TLS 1.3); 0.0.0.0 is every address, of IPv6 too
    #[arg(
        long,
        value_name = "ADDR",
        default_value = "0.0.0.0:14180",
        env = "WEIR_LISTEN"
    )]
    listen: SocketAddr,

    /// The control plane's own directory: CA, journal, last good policies. Only one may use it at a time
    #[arg(long, value_name = "DIR", env = "WEIR_STATE")]
    state: PathBuf,

    /// Needed with directories: one file a pod, <namespace>/<pod>, with the token by which its sidecar gets a
    /// certificate. On Kubernetes the API server reviews the tokens of service accounts instead
    #[arg(long, value_name = "DIR", env = "WEIR_BOOTSTRAP_TOKENS")]
    bootstrap_tokens: Option<PathBuf>,

    #[command(flatten)]
    kubernetes: KubernetesArguments,

    /// The unix socket on which `weir` asks; none when absent
    #[arg(long, value_name = "PATH", env = "WEIR_OPERATOR_SOCKET")]
    operator_socket: Option<PathBuf>,

    /// Writes the CA certificates of the mesh to this file (PEM), and again when they change
    #[arg(long, value_name = "FILE", env = "WEIR_TRUST_BUNDLE_OUT")]
    trust_bundle_out: Option<PathBuf>,

    /// The first part of every identity
    #[arg(
        long,
        value_name = "NAME",
        default_value = "weir.local",
        env = "WEIR_TRUST_DOMAIN"
    )]
    trust_domain: String,

    /// How long a sidecar's certificate is valid
    #[arg(
        long,
        value_name = "DURATION",
        default_value = "24h",
        env = "WEIR_LEAF_LIFETIME"
    )]
    leaf_lifetime: Duration,

    /// Introduces a new CA at the start: trusted at once, signing after --ca-settle, the old one trusted until the
    /// last certificate that it signed has expired
    #[arg(long)]
    rotate_ca: bool,

    /// How long a new CA is only trusted before it signs
    #[arg(
        long,
        value_name = "DURATION",
        default_value = "1h",
        env = "WEIR_CA_SETTLE"
    )]
    ca_settle: Duration,

    /// Facts kept in the journal; older ones go
    #[arg(long, value_name = "COUNT", default_value_t = 100_000, env = "WEIR_JOURNAL_FACTS",
          value_parser = clap::value_parser!(u64).range(1..))]
    journal_facts: u64,

    /// What is logged: error, warn, info, debug, or by module (weir_control_plane::push=debug)
    #[arg(long, value_name = "FILTER", default_value = "info", env = "WEIR_LOG")]
    log: String,

    /// Text or one JSON object a line
    #[arg(long, value_enum, default_value_t = LogFormat::Text, env = "WEIR_LOG_FORMAT")]
    log_format: LogFormat,
}

#[derive(clap::Args)]
#[command(next_help_heading = "With --source kubernetes")]
struct KubernetesArguments {
    /// The control plane's own namespace: of its Lease and its Secret
    #[arg(
        long,
        value_name = "NAME",
        default_value = "weir-system",
        env = "WEIR_NAMESPACE"
    )]
    namespace: String,

    /// The control plane's own pod: the name in its Lease; the host's name when absent
    #[arg(long, value_name = "NAME", env = "WEIR_POD_NAME")]
    pod_name: Option<String>,

    /// The only audience that a sidecar's token may have
    #[arg(long, value_name = "NAME", default_value_t = InjectorSettings::default().token_audience,
          env = "WEIR_TOKEN_AUDIENCE")]
    token_audience: String,

    /// The Service by which the API server and sidecars find this control plane
    #[arg(
        long,
        value_name = "NAME",
        default_value = "weir-control-plane",
        env = "WEIR_SERVICE"
    )]
    service: String,

    /// Where the webhook listens (HTTPS: /inject, /validate, /healthz). Its certificate is self-made, and caBundle of
    /// the webhook configurations that name the Service is kept up to date
    #[arg(
        long,
        value_name = "ADDR",
        default_value = "0.0.0.0:14181",
        env = "WEIR_WEBHOOK_LISTEN"
    )]
    webhook_listen: SocketAddr,

    /// Image of the sidecars that the webhook injects
    #[arg(long, value_name = "IMAGE", default_value_t = InjectorSettings::default().proxy_image,
          env = "WEIR_PROXY_IMAGE")]
    proxy_image: String,

    /// What injected sidecars log
    #[arg(long, value_name = "FILTER", default_value_t = InjectorSettings::default().log_level,
          env = "WEIR_PROXY_LOG")]
    proxy_log: String,

    /// Nodes have the CNI plugin weir-cni, which writes the pods' rules: no injected container gets NET_ADMIN
    #[arg(long, value_name = "BOOL", env = "WEIR_CNI", num_args = 0..=1, default_value_t = false,
          default_missing_value = "true", action = clap::ArgAction::Set)]
    cni: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Err(problem) = start_log(&arguments) {
        eprintln!("weir-control-plane: --log: {problem}");
        return ExitCode::from(2);
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("weir-control-plane: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(run(arguments)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("weir-control-plane: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> Result<(), Box<dyn std::error::Error>> {
    let settings = arguments.settings().await?;
    // Before the start: a signal during it must not be lost.
    let (mut terminate, mut interrupt) = (
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
    );
    let starting: Result<ControlPlane, StartError> = tokio::select! {
        started = ControlPlane::start(settings) => started,
        _ = terminate.recv() => return Ok(()),
        _ = interrupt.recv() => return Ok(()),
    };
    let running = starting?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("stopping; a second signal ends at once");
    tokio::select! {
        () = running.stop() => Ok(()),
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    }
}

impl Arguments {
    async fn settings(self) -> Result<Settings, String> {
        let cluster = self.cluster().await?;
        Ok(Settings {
            cluster,
            listen: self.listen,
            state: self.state,
            operator_socket: self.operator_socket,
            trust_bundle_out: self.trust_bundle_out,
            trust_domain: self.trust_domain,
            leaf_lifetime: self.leaf_lifetime.get(),
            anchor_settle: self.ca_settle.get(),
            rotate_anchor: self.rotate_ca,
            journal_facts_max: self.journal_facts,
            stalled_after: STALLED_AFTER,
        })
    }

    async fn cluster(&self) -> Result<Cluster, String> {
        let kubernetes = self
            .source
            .iter()
            .any(|source| source == Path::new(KUBERNETES));
        if !kubernetes {
            let tokens = self.bootstrap_tokens.clone().ok_or(
                "--bootstrap-tokens is needed with directories: without it no sidecar gets a certificate",
            )?;
            return Ok(Cluster::Files {
                sources: self.source.clone(),
                bootstrap_tokens: tokens,
            });
        }
        if self.source.len() > 1 {
            return Err("--source kubernetes stands alone: one source says what the mesh is (a directory of \
                        that name is ./kubernetes)"
                .to_owned());
        }
        if self.bootstrap_tokens.is_some() {
            return Err(
                "--bootstrap-tokens is for directories: on Kubernetes the API server reviews \
                        the tokens of service accounts"
                    .to_owned(),
            );
        }
        if self.rotate_ca {
            return Err("--rotate-ca is for a CA in --state: on Kubernetes it is in a Secret that all control planes \
                        share, and `kubectl annotate secret weir-ca weir.dev/rotate-ca=now` introduces a new one"
                .to_owned());
        }
        let api = kube::Config::infer().await.map_err(|error| {
            format!("there is no Kubernetes to be found, neither by a pod's service account nor by KUBECONFIG: {error}")
        })?;
        let own = &self.kubernetes;
        let host_name = || std::fs::read_to_string("/proc/sys/kernel/hostname");
        let pod = match &own.pod_name {
            Some(name) => name.clone(),
            None => host_name()
                .map_err(|error| error.to_string())?
                .trim()
                .to_owned(),
        };
        Ok(Cluster::Kubernetes(Box::new(kubernetes::Settings {
            api,
            namespace: own.namespace.clone(),
            pod,
            service: own.service.clone(),
            webhook: own.webhook_listen,
            linger: kubernetes::LINGER,
            injector: InjectorSettings {
                proxy_image: own.proxy_image.clone(),
                control_plane_addr: format!(
                    "{}.{}.svc:{}",
                    own.service,
                    own.namespace,
                    self.listen.port()
                ),
                trust_domain: self.trust_domain.clone(),
                token_audience: own.token_audience.clone(),
                log_level: own.proxy_log.clone(),
                cni: own.cni,
                ..InjectorSettings::default()
            },
        })))
    }
}

fn start_log(arguments: &Arguments) -> Result<(), tracing_subscriber::filter::ParseError> {
    let targets: Targets = arguments.log.parse()?;
    let log = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let log = match arguments.log_format {
        LogFormat::Json => log.json().flatten_event(true).boxed(),
        LogFormat::Text => {
            let ansi = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            log.with_ansi(ansi).boxed()
        }
    };
    tracing_subscriber::registry()
        .with(targets)
        .with(log)
        .init();
    Ok(())
}
