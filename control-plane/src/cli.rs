//! The command line `weir`: arguments in, text out, and an exit code that a script can trust.
//!
//! What was asked for goes to stdout, everything said about it to stderr.

mod breakers;
mod check;
mod client;
mod crds;
mod events;
mod explain;
mod inject;
mod install;
mod paint;
mod policy;
mod proxy;
mod schema;
mod table;
mod validate;

use std::io;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand, ValueEnum};

/// What a service mesh called Weir is doing, and whether what you are about to tell it makes sense.
#[derive(Parser)]
#[command(
    name = "weir",
    version,
    propagate_version = true,
    max_term_width = 100,
    after_help = "Examples:
  weir validate -f policies/               is every policy in order?
  weir events --follow                     what happens, as it happens
  weir breakers --watch                    which circuit breakers and endpoint gates are open, seen by whom
  weir breakers force boutique/cart open --for 5m    hold a breaker, for a while
  weir proxy status                        is every sidecar connected, and up to date?
  weir proxy policy boutique/cart-0        what holds for its sidecar, and who said so
  weir explain 4bf92f3577b34da6a3ce929d0e0e4736      what became of a request
  weir inject -f deployment.yaml | kubectl apply -f -
  weir install | kubectl apply --server-side -f -    the control plane, on Kubernetes

On Kubernetes events, proxy, breakers and explain are asked in the control plane's own pod, which has weir, too:
  kubectl -n weir-system exec deploy/weir-control-plane -- weir breakers

Exit codes: 0 fine, 1 what was asked for failed, 2 wrong usage, 3 the control plane cannot be reached,
130 interrupted. NO_COLOR=1 switches colours off."
)]
struct Arguments {
    /// Where the control plane listens for operators
    #[arg(
        long,
        global = true,
        value_name = "unix:PATH",
        env = "WEIR_CONTROL_PLANE",
        default_value = client::DEFAULT
    )]
    control_plane: String,

    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Show the journal: what happened in the mesh, in order
    Events(events::Arguments),
    /// Check files before anybody applies them; needs no control plane
    Validate(validate::Arguments),
    /// Look at the sidecars
    Proxy {
        #[command(subcommand)]
        command: proxy::Command,
    },
    /// Show circuit breakers and endpoint gates, one row a caller; hold them open or closed
    Breakers(breakers::Arguments),
    /// Tell what became of a request that failed, was retried, refused or slow
    Explain(explain::Arguments),
    /// Add the sidecar to every pod in a file; needs no control plane
    Inject(inject::Arguments),
    /// Look whether a cluster can have Weir, or whether its Weir is in order
    Check(check::Arguments),
    /// Print what a cluster needs for Weir, for kubectl apply
    Install(install::Install),
    /// Print what weir install made, for kubectl delete
    Uninstall(install::Uninstall),
    /// Print the CustomResourceDefinitions of our kinds, for kubectl
    Crds(crds::Arguments),
    /// Take the sidecar out of every pod in a file; needs no control plane
    Uninject(inject::Removal),
    /// Print the JSON schema of a kind, for editors
    Schema(schema::Arguments),
    /// Print the version
    Version,
    /// Print a completion script: source <(weir completion bash)
    Completion { shell: clap_complete::Shell },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    Text,
    Json,
}

/// Why a command did not do what it was asked for.
#[derive(Debug)]
enum Failure {
    /// Text for whoever asked; empty when everything is said already.
    Failed(String),
    Usage(String),
    Unreachable(String),
    Interrupted,
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            // `weir events | head`: nobody reads on, which is no failure of ours.
            io::ErrorKind::BrokenPipe => Self::Failed(String::new()),
            _ => Self::Failed(error.to_string()),
        }
    }
}

pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return Failure::Failed(error.to_string()).report(),
    };
    let result = runtime.block_on(async {
        tokio::select! {
            result = run(arguments) => result,
            _ = tokio::signal::ctrl_c() => Err(Failure::Interrupted),
        }
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

async fn run(arguments: Arguments) -> Result<(), Failure> {
    let control_plane = &arguments.control_plane;
    match arguments.command {
        Command::Events(arguments) => events::run(control_plane, arguments).await,
        Command::Validate(arguments) => validate::run(&arguments),
        Command::Proxy { command } => proxy::run(control_plane, command).await,
        Command::Breakers(arguments) => breakers::run(control_plane, arguments).await,
        Command::Explain(arguments) => explain::run(control_plane, arguments).await,
        Command::Inject(arguments) => inject::run(&arguments),
        Command::Check(arguments) => check::run(&arguments),
        Command::Install(arguments) => install::install(&arguments),
        Command::Uninstall(arguments) => install::uninstall(&arguments),
        Command::Crds(arguments) => crds::run(&arguments),
        Command::Uninject(arguments) => inject::remove(&arguments),
        Command::Schema(arguments) => schema::run(&arguments),
        Command::Version => print(&format!("weir {}\n", env!("CARGO_PKG_VERSION"))),
        Command::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut self::Arguments::command(), "weir", &mut script);
            print(&String::from_utf8_lossy(&script))
        }
    }
}

/// To stdout, at once.
fn print(text: &str) -> Result<(), Failure> {
    use io::Write;
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    Ok(stdout.flush()?)
}

impl Failure {
    fn report(self) -> ExitCode {
        let (text, code) = match self {
            Self::Failed(text) => (text, 1),
            Self::Usage(text) => (text, 2),
            Self::Unreachable(text) => (text, 3),
            Self::Interrupted => (String::new(), 130),
        };
        if !text.is_empty() {
            eprintln!("{} {text}", paint::error("error:"));
        }
        ExitCode::from(code)
    }
}
