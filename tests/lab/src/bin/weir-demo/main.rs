//! The boutique on this machine, in the mesh: one command that builds what is missing, starts the shop, sends visitors
//! and shows what the sidecars do for it.

mod chaos;
mod shop;
mod table;

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, ValueEnum};

use weir_lab::build;

use crate::chaos::Scenario;
use crate::shop::{Mesh, Shop};
use crate::table::Table;

/// Runs the boutique in the mesh on this machine: a page to click on, a load, a live table.
///
/// Every pod is a network namespace with the real sidecar and the real redirection; nothing outlives the command.
/// Ends with Ctrl-C, or by itself with --for.
#[derive(Parser)]
#[command(name = "cargo demo --", version, after_help = EXAMPLES)]
struct Arguments {
    /// End by itself after this long, and judge: exit code 1 unless every service had traffic, all of it succeeded and
    /// every hop between pods was mutual TLS.
    #[arg(long = "for", value_name = "SPAN", value_parser = boutique_load::parse_span)]
    span: Option<Duration>,

    /// The same shop with or without sidecars.
    #[arg(long, value_enum, default_value = "on")]
    mesh: Mesh,

    /// Make something fail, with the mesh and without, and show both side by side.
    #[arg(long, value_enum, conflicts_with_all = ["span", "mesh"])]
    chaos: Option<Scenario>,

    /// Visitors' requests per second.
    #[arg(long, default_value_t = 40.0)]
    rate: f64,

    /// The page's port on 127.0.0.1; 0: any that is free.
    #[arg(long, default_value_t = 8080)]
    port: u16,

    /// In a user namespace with a single user, also when run by root.
    #[arg(long)]
    rootless: bool,

    /// Do not look whether something has to be built.
    #[arg(long)]
    no_build: bool,
}

const EXAMPLES: &str = "Examples:
  cargo demo                                 the shop, until Ctrl-C
  cargo demo -- --for 60s                    a minute of it, judged
  cargo demo -- --mesh off                   the same without the mesh
  cargo demo -- --chaos frozen-replica       one of three catalogs hangs
  cargo demo -- --chaos slow-currency        exchange rates take 300 ms longer";

pub(crate) type AnyError = Box<dyn std::error::Error + Send + Sync>;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime can be made");
    let ended = runtime.block_on(async {
        tokio::select! {
            ended = run(arguments) => ended,
            _ = tokio::signal::ctrl_c() => Ok(ExitCode::from(130)),
        }
    });
    ended.unwrap_or_else(|error| {
        eprintln!("weir-demo: {error}");
        ExitCode::FAILURE
    })
}

async fn run(arguments: Arguments) -> Result<ExitCode, AnyError> {
    let root = build::root();
    if !arguments.no_build {
        build::everything(&root)?;
    }
    match arguments.chaos {
        Some(scenario) => chaos::run(scenario, &root, arguments.rate, arguments.rootless).await,
        None => demonstrate(&root, &arguments).await,
    }
}

async fn demonstrate(root: &std::path::Path, arguments: &Arguments) -> Result<ExitCode, AnyError> {
    let shop = Shop::open(root, arguments.mesh, arguments.port, arguments.rootless).await?;
    println!("\nThe shop is open: http://{}/\n", shop.address());
    if let Some(command_line) = shop.command_line() {
        println!("Ask the control plane:  {command_line}\n");
    }
    let live = std::io::stdout().is_terminal();
    let mut table = Table::new(&shop).await?;
    let visitors = shop.visitors(
        arguments.rate,
        arguments.span.unwrap_or(Duration::from_secs(3600)),
    )?;
    let (ticks, mut ticking) = tokio::sync::mpsc::channel(4);
    let load = tokio::spawn(boutique_load::run(visitors, move |event| {
        if let boutique_load::Event::Tick(tick) = event {
            // A table that is behind skips a second.
            let _ = ticks.try_send(tick.clone());
        }
    }));
    let mut lines = 0;
    while let Some(tick) = ticking.recv().await {
        table.refresh(&shop).await?;
        if live {
            // Over the last one.
            if lines > 0 {
                print!("\x1b[{lines}A\x1b[J");
            }
            let text = table.render(Some(&tick));
            lines = text.lines().count();
            print!("{text}");
        } else if tick.elapsed.as_secs() % 10 == 0 {
            println!(
                "{:>4} s  {} requests, {} served",
                tick.elapsed.as_secs(),
                tick.totals.offered,
                tick.totals.served()
            );
        }
    }
    let report = load.await?;
    table.refresh(&shop).await?;
    if !live {
        print!("{}", table.render(None));
    }
    let summary = report.summary();
    println!(
        "\nVisitors: {} requests, {} served ({:.3} %)",
        summary.totals.offered,
        summary.totals.served(),
        summary.totals.success_ratio() * 100.0
    );
    let mut broken = table.broken_promises(arguments.mesh);
    if summary.totals.served() != summary.totals.offered {
        broken.push(format!("visitors: {:?}", report.failures()));
    }
    shop.close()?;
    if arguments.mesh == Mesh::Off || broken.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    for promise in broken {
        println!("broken promise: {promise}");
    }
    Ok(ExitCode::FAILURE)
}

impl ValueEnum for Mesh {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::On, Self::Off]
    }

    fn to_possible_value(&self) -> Option<clap::builder::PossibleValue> {
        Some(match self {
            Self::On => "on".into(),
            Self::Off => "off".into(),
        })
    }
}
