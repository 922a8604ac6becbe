//! The boutique on this machine, in the mesh: one command that builds what is missing, starts the shop, sends visitors
//! and shows what the sidecars do for it.

mod table;
mod verdict;

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use boutique_load::{Bounds, Rate, Refused};
use clap::{Parser, ValueEnum};

use weir_lab::build;

use weir_lab::chaos::command;
use weir_lab::chaos::session::Session;
use weir_lab::shop::{Mesh, Opening, Shop};

use crate::table::Table;

/// Runs the boutique in the mesh on this machine: a page to click on, a load, a live table.
///
/// Every pod is a network namespace with the real sidecar and the real redirection; nothing outlives the command.
/// Ends with Ctrl-C, or by itself with --for.
#[derive(Parser)]
#[command(name = "cargo demo --", version, after_help = EXAMPLES)]
struct Arguments {
    /// End by itself after this long, and judge: exit code 1 unless all visitors were served and, in the mesh, every service
    /// had traffic, all of it succeeded and every hop between pods was mutual TLS.
    #[arg(long = "for", value_name = "SPAN", value_parser = span)]
    span: Option<Duration>,

    /// The same shop with or without sidecars.
    #[arg(long, value_enum, default_value = "on")]
    mesh: Switch,

    /// Make something fail, without the mesh and with it: what visitors got of it, judged and drawn. A scenario's name or
    /// number, as `weir-lab chaos list` has them.
    #[arg(long, value_name = "SCENARIO", conflicts_with_all = ["span", "mesh", "rate", "port"])]
    chaos: Option<String>,

    /// A folder of more policies, watched: what is put into it holds at once, until it is taken out. Such as those in
    /// demo-boutique/faults, by which the mesh itself makes something fail.
    #[arg(long, value_name = "FOLDER", value_parser = folder, conflicts_with = "chaos")]
    policies: Option<PathBuf>,

    /// Visitors' requests per second.
    #[arg(long, default_value = "40", value_parser = rate)]
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

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Switch {
    On,
    Off,
}

const EXAMPLES: &str = "Examples:
  cargo demo                                 the shop, until Ctrl-C
  cargo demo -- --for 60s                    a minute of it, judged
  cargo demo -- --mesh off                   the same without the mesh
  cargo demo -- --policies target/faults     and then, elsewhere: cp demo-boutique/faults/brownout.yaml target/faults/
  cargo demo -- --chaos frozen-replica       one of three catalogs hangs
  cargo demo -- --chaos slow-currency        exchange rates take 300 ms longer
  cargo demo -- --chaos C5                   four times as many visitors as there is room for";

/// Refused here, and not when the shop has been built and opened for it.
fn rate(text: &str) -> Result<f64, Refused> {
    let parsed = text.parse();
    let rate = parsed.map_err(|_| Refused::new("expected a number of requests a second"))?;
    Rate::constant(rate).map(|_| rate)
}

fn span(text: &str) -> Result<Duration, Refused> {
    let span = boutique_load::parse_span(text)?;
    Bounds::new(span).map(|_| span)
}

fn folder(text: &str) -> Result<PathBuf, String> {
    let folder = PathBuf::from(text);
    match folder.is_dir() {
        true => Ok(folder),
        false => Err(format!("there is no such folder: mkdir -p {text}")),
    }
}

/// Where nobody says for how long: a load has an end, and the shop has not.
const VISITORS_FOR: Duration = Duration::from_secs(3600);

pub(crate) type AnyError = Box<dyn std::error::Error + Send + Sync>;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let ended = match &arguments.chaos {
        Some(name) => chaos(name, &arguments),
        None => show(arguments),
    };
    ended.unwrap_or_else(|error| {
        eprintln!("weir-demo: {error}");
        ExitCode::FAILURE
    })
}

fn chaos(name: &str, arguments: &Arguments) -> Result<ExitCode, AnyError> {
    let root = build::root();
    let scenarios = command::named(&root, name)?;
    if !arguments.no_build {
        build::everything(&root)?;
    }
    let session = Session {
        scenarios,
        modes: vec![Mesh::Off, Mesh::On],
        quick: false,
        rootless: arguments.rootless,
        folder: command::default_folder(&root),
        command: format!("cargo demo -- --chaos {name}"),
    };
    Ok(command::run_session(&root, session)?)
}

fn show(arguments: Arguments) -> Result<ExitCode, AnyError> {
    let root = build::root();
    if !arguments.no_build {
        build::everything(&root)?;
    }
    run(demonstrate(&root, &arguments), tokio::signal::ctrl_c())
}

/// Until it is done, or is to stop: at once then, also while something blocks.
fn run(
    work: impl Future<Output = Result<ExitCode, AnyError>>,
    stop: impl Future,
) -> Result<ExitCode, AnyError> {
    let runtime = tokio::runtime::Runtime::new()?;
    let ended = runtime.block_on(async {
        tokio::select! {
            ended = work => ended,
            _ = stop => Ok(ExitCode::from(130)),
        }
    });
    // What still blocks in there is on its way to a lab that ends with this process.
    runtime.shutdown_background();
    ended
}

async fn demonstrate(root: &std::path::Path, arguments: &Arguments) -> Result<ExitCode, AnyError> {
    let mesh = match arguments.mesh {
        Switch::On => Mesh::On,
        Switch::Off => Mesh::Off,
    };
    let opening = Opening {
        port: arguments.port,
        rootless: arguments.rootless,
        policies: arguments.policies.iter().cloned().collect(),
        ..Opening::new(mesh)
    };
    let shop = Shop::open(root, opening).await?;
    println!("\nThe shop is open: http://{}/\n", shop.address());
    if let Some(command_line) = shop.command_line() {
        println!("Ask the control plane:  {command_line}\n");
    }
    let live = std::io::stdout().is_terminal();
    let mut table = Table::new(&shop).await?;
    let visitors = shop.visitors(arguments.rate, arguments.span.unwrap_or(VISITORS_FOR))?;
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
            // In a narrower terminal a line is cut: if it were wrapped, there would be more than are counted here.
            print!("\x1b[?7l{text}\x1b[?7h");
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
    if arguments.span.is_none() {
        println!("\nVisitors came for an hour, and come no more. The shop is open until Ctrl-C.");
        std::future::pending::<()>().await;
    }
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
    let broken = verdict::broken_promises(mesh, &table, &summary.totals, &report.failures());
    shop.close()?;
    for promise in &broken {
        println!("broken promise: {promise}");
    }
    Ok(match broken.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::{Instant, sleep};

    #[test]
    fn ctrl_c_does_not_wait_for_a_shop_that_still_starts() {
        const STARTS_FOR: Duration = Duration::from_secs(20);
        let starts = async {
            let opened = tokio::task::spawn_blocking(|| std::thread::park_timeout(STARTS_FOR));
            opened.await?;
            Ok(ExitCode::SUCCESS)
        };
        let ctrl_c = async { sleep(Duration::from_millis(50)).await };
        let begun = Instant::now();
        let ended = run(starts, ctrl_c).expect("it was stopped");
        assert_eq!(format!("{ended:?}"), format!("{:?}", ExitCode::from(130)));
        assert!(begun.elapsed() < STARTS_FOR / 4, "{:?}", begun.elapsed());
    }

    #[test]
    fn more_visitors_than_there_can_be_are_refused_before_anything_is_built() {
        for (option, value, word) in [
            ("--rate", "1e9", "50000"),
            ("--rate", "-1", "50000"),
            ("--rate", "NaN", "50000"),
            ("--rate", "many", "a number"),
            ("--for", "10h", "at most 1h"),
            ("--for", "0s", "more than nothing"),
        ] {
            let line = format!("{option}={value}");
            let refused = Arguments::try_parse_from(["demo", &line]).err();
            let said = refused.unwrap_or_else(|| panic!("{line}")).to_string();
            assert!(said.contains(word), "{said}");
        }
        let nowhere = Arguments::try_parse_from(["demo", "--policies", "no/such/folder"]);
        let said = nowhere.err().expect("refused").to_string();
        assert!(said.contains("mkdir -p no/such/folder"), "{said}");
        let fine = Arguments::try_parse_from(["demo", "--rate", "50", "--for", "60s"]);
        assert!(fine.is_ok_and(|fine| fine.rate == 50.0));
    }
}
