//! `weir-proxy`: the sidecar. `weir-proxy init`: the rules that send a pod's traffic to it; `validate` tries them, and
//! `cni` writes them for pods that may not.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Parser, Subcommand};
use tokio::time::Instant;
use tracing::Level;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use weir_config::snapshot::AccessLog as LogFormat;
use weir_proxy::access_log::AccessLog;
use weir_proxy::admin::{self, Admin};
use weir_proxy::backend::Environment;
use weir_proxy::cni::{self, CniArgs};
use weir_proxy::connection::{PodAddresses, Proxy};
use weir_proxy::connector::Connector;
use weir_proxy::control_plane::Keeper;
use weir_proxy::discovery::{self, Inputs, Once};
use weir_proxy::identity::Identity;
use weir_proxy::listener::{self, Workers};
use weir_proxy::mesh::Mesh;
use weir_proxy::prober::Probers;
use weir_proxy::redirect::{self, InitArgs, ValidateArgs};
use weir_proxy::settings::Settings;
use weir_proxy::telemetry::Direction;
use weir_proxy::{drain, facts, memory, telemetry};

/// Of the static images.
#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Between looks for endpoints that have gone silent or are due for a probe.
const TICK: Duration = Duration::from_millis(50);
/// Between "told everybody to end" and leaving, when there is nobody left.
const LAST_WORDS: Duration = Duration::from_millis(100);

/// Weir's sidecar: carries a pod's traffic with mutual TLS, retries, deadlines, circuit breaking and load shedding.
///
/// Run it beside an app whose traffic `weir-proxy init` has redirected. It serves until SIGTERM, then drains; a second
/// signal ends it at once.
#[derive(Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,

    #[command(flatten)]
    settings: Option<Settings>,
}

#[derive(Subcommand)]
enum Command {
    Init(InitArgs),
    Validate(ValidateArgs),
    Cni(CniArgs),
}

type AnyError = Box<dyn std::error::Error + Send + Sync>;

fn main() -> ExitCode {
    let arguments = Arguments::parse_from(cni::by_name(std::env::args_os().collect()));
    match arguments.command {
        Some(Command::Init(init)) => return redirect::run(init),
        Some(Command::Validate(validate)) => return redirect::validate(&validate),
        Some(Command::Cni(cni)) => return cni::run(cni),
        None => {}
    }
    let Some(settings) = arguments.settings else {
        eprintln!("weir-proxy: nothing says which control plane to ask; see weir-proxy --help");
        return ExitCode::from(2);
    };
    start_log(&settings.log);
    telemetry::count_panics();
    // Admin, control stream and telemetry have a runtime of their own: they answer while the workers are busy.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let ended = runtime
        .map_err(AnyError::from)
        .and_then(|runtime| runtime.block_on(run(settings)));
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("weir-proxy: {error}");
            ExitCode::FAILURE
        }
    }
}

fn start_log(wanted: &str) {
    let targets = wanted.parse().unwrap_or_else(|error| {
        // A pod that cannot start for its log would be worse.
        eprintln!("weir-proxy: --log {wanted:?}: {error}; it logs what is info and above");
        Targets::new().with_default(Level::INFO)
    });
    let log = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(false);
    tracing_subscriber::registry()
        .with(targets)
        .with(log)
        .init();
}

async fn run(settings: Settings) -> Result<(), AnyError> {
    let settings = Arc::new(settings);
    let bind = |name: &str, address| {
        listener::bind(address)
            .map_err(|error| format!("cannot listen on {address} ({name}): {error}"))
    };
    let outbound = bind("outbound", settings.outbound_addr)?;
    let inbound = bind("inbound", settings.inbound_addr)?;
    let admin_listeners = bind("admin", settings.admin_addr)?;

    let identity = Arc::new(Identity::default());
    let (facts, fact_stream) = facts::channel();
    let worker_count = settings.worker_count();
    let environment = Environment {
        workers: worker_count,
        connector: Connector {
            identity: identity.clone(),
            mark: settings.mark(),
        },
        facts: facts.clone(),
        outbound_log: AccessLog::new(Direction::Outbound, settings.access_log),
        inbound_log: AccessLog::new(Direction::Inbound, LogFormat::Disabled),
        inherit: Arc::default(),
        stale: Arc::default(),
        backends: Arc::default(),
    };
    let (mesh, wanted) = Mesh::new(environment);
    let proxy = Arc::new(Proxy {
        mesh,
        own_ports: settings.own_ports(),
        opaque_ports: settings.opaque_ports.clone().unwrap_or_default(),
        pod_addresses: PodAddresses::new(&settings.pod_ips),
    });
    let keeper = Arc::new(Keeper::new(settings.clone(), identity)?);
    let draining = Once::default();
    let admin = Arc::new(Admin {
        proxy: proxy.clone(),
        keeper: keeper.clone(),
        draining: draining.clone(),
        probers: Probers::parse(&settings.app_probers, settings.pod_ips[0], settings.mark())?,
    });
    for listener in admin_listeners {
        tokio::spawn(admin::run(
            tokio::net::TcpListener::from_std(listener)?,
            admin.clone(),
        ));
    }
    let inputs = Inputs {
        wanted,
        facts: fact_stream,
    };
    tokio::spawn(discovery::run(
        settings.clone(),
        proxy.clone(),
        keeper.clone(),
        inputs,
    ));
    tokio::spawn(async move { keeper.run().await });
    tokio::spawn(tick(proxy.clone()));
    tokio::spawn(memory::watch(settings.memory_limit));

    let workers = Arc::new(Workers::start(worker_count, &proxy)?);
    let (inbound_signal, inbound_drain) = drain::channel();
    let (outbound_signal, outbound_drain) = drain::channel();
    let accept =
        |listeners: Vec<std::net::TcpListener>, direction, drain: &drain::Drain| -> Vec<_> {
            let accept = |listener| {
                let (workers, drain) = (workers.clone(), drain.clone());
                tokio::spawn(async move { workers.accept(listener, direction, drain).await })
            };
            listeners.into_iter().map(accept).collect()
        };
    let inbound = accept(inbound, Direction::Inbound, &inbound_drain);
    let outbound = accept(outbound, Direction::Outbound, &outbound_drain);
    drop((inbound_drain, outbound_drain));
    tracing::info!(
        workers = worker_count,
        pod = settings.pod_name,
        "weir-proxy {}",
        env!("CARGO_PKG_VERSION")
    );

    let mut termination = drain::Termination::new()?;
    termination.told().await;

    // Callers hear of it first, through the control plane and through readiness, and are served meanwhile.
    tracing::info!("draining");
    draining.set();
    facts.draining();
    let drained = async {
        tokio::time::sleep(settings.drain_delay()).await;
        inbound.iter().for_each(|accepting| accepting.abort());
        inbound_signal.start();
        inbound_signal.finished().await;
        // The app may have called others to finish what it was asked; only now is that over.
        outbound.iter().for_each(|accepting| accepting.abort());
        outbound_signal.start();
        outbound_signal.finished().await;
        tokio::time::sleep(LAST_WORDS).await;
    };
    tokio::select! {
        () = drained => tracing::info!("drained"),
        () = tokio::time::sleep(settings.drain_limit()) => {
            tracing::warn!("some requests had not ended in time");
        }
        () = termination.told() => tracing::warn!("told twice: leaving now"),
    }
    Ok(())
}

/// Finds silent endpoints, probes ejected ones, and tells of what lasts, off the request path.
async fn tick(proxy: Arc<Proxy>) {
    let mut interval = tokio::time::interval(TICK);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        proxy.mesh.tick(Instant::now());
    }
}
