//! `weir-control-plane`: reads what the mesh should be, tells every sidecar its part, and keeps a journal.

use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;
use weir_config::units::Duration;
use weir_control_plane::control_plane::{ControlPlane, STALLED_AFTER, Settings, StartError};

/// Weir's control plane: policy and certificates for every sidecar, and a journal of what happened.
///
/// It reads Kubernetes YAML (Services, EndpointSlices, Pods, ResiliencePolicies, MeshConfig) from directories and
/// reads it again when it changes. A file with a mistake is refused whole: what it held before stays in force, and
/// `weir events --kind PolicyRejected` says why.
#[derive(Parser)]
#[command(
    version,
    after_help = "Example:
  weir-control-plane --source ./cluster --source ./policies \\
    --state /var/lib/weir --bootstrap-tokens /run/weir/tokens --trust-bundle-out /run/weir/ca.crt
  weir --control-plane unix:/run/weir/operator.sock events --follow"
)]
struct Arguments {
    /// A directory of YAML (nested folders too) or a single file; may be given several times
    #[arg(
        long,
        value_name = "PATH",
        required = true,
        env = "WEIR_SOURCE",
        value_delimiter = ','
    )]
    source: Vec<PathBuf>,

    /// Where sidecars connect (gRPC over TLS 1.3)
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

    /// One file a pod, <namespace>/<pod>, with the token by which its sidecar gets a certificate
    #[arg(long, value_name = "DIR", env = "WEIR_BOOTSTRAP_TOKENS")]
    bootstrap_tokens: PathBuf,

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
    // Before the start: a signal during it must not be lost.
    let (mut terminate, mut interrupt) = (
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
    );
    let starting: Result<ControlPlane, StartError> = tokio::select! {
        started = ControlPlane::start(arguments.settings()) => started,
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
    fn settings(self) -> Settings {
        Settings {
            sources: self.source,
            listen: self.listen,
            state: self.state,
            bootstrap_tokens: self.bootstrap_tokens,
            operator_socket: self.operator_socket,
            trust_bundle_out: self.trust_bundle_out,
            trust_domain: self.trust_domain,
            leaf_lifetime: self.leaf_lifetime.get(),
            anchor_settle: self.ca_settle.get(),
            rotate_anchor: self.rotate_ca,
            journal_facts_max: self.journal_facts,
            stalled_after: STALLED_AFTER,
        }
    }
}

fn start_log(arguments: &Arguments) -> Result<(), tracing_subscriber::filter::ParseError> {
    let filter = EnvFilter::try_new(&arguments.log)?;
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    match arguments.log_format {
        LogFormat::Json => log.json().flatten_event(true).init(),
        LogFormat::Text => {
            let ansi = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            log.with_ansi(ansi).init();
        }
    }
    Ok(())
}
