//! Something fails, with the mesh and without: the same visitors, the same fault, both results side by side.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use boutique_load::Summary;
use clap::ValueEnum;
use tokio::time::Instant;

use crate::AnyError;
use crate::shop::{Mesh, Shop};

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Scenario {
    /// SIGSTOP to one of three catalogs.
    FrozenReplica,
    /// Exchange rates take 300 ms longer.
    SlowCurrency,
}

const BEFORE: Duration = Duration::from_secs(8);
const DURING: Duration = Duration::from_secs(12);
const AFTER: Duration = Duration::from_secs(15);
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// The page's deadline with the mesh: the policy's 800 ms for currency and what the page itself takes.
const PAGE_WITHIN_MS: f64 = 1000.0;
const SUCCESS_MIN: f64 = 0.995;
const EJECTED_WITHIN: Duration = Duration::from_secs(1);

/// What one run showed.
struct Outcome {
    before: Summary,
    during: Summary,
    after: Summary,
    all: Summary,
    /// From the fault to the first sidecar that acted on it.
    detected: Option<Duration>,
    /// From its end until that was over.
    recovered: Option<Duration>,
    facts: Vec<String>,
}

pub(crate) async fn run(
    scenario: Scenario,
    root: &Path,
    rate: f64,
    rootless: bool,
) -> Result<ExitCode, AnyError> {
    let on = once(scenario, root, Mesh::On, rate, rootless).await?;
    let off = once(scenario, root, Mesh::Off, rate, rootless).await?;
    print(scenario, rate, &on, &off);
    let broken = scenario.broken_promises(&on);
    for promise in &broken {
        println!("broken promise: {promise}");
    }
    Ok(if broken.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

async fn once(
    scenario: Scenario,
    root: &Path,
    mesh: Mesh,
    rate: f64,
    rootless: bool,
) -> Result<Outcome, AnyError> {
    let shop = Shop::open(root, mesh, 0, rootless).await?;
    let visitors = shop.visitors(rate, BEFORE + DURING + AFTER)?;
    let load = tokio::spawn(boutique_load::run(visitors, |_| {}));
    eprintln!(
        "  {} s of visitors, then {}",
        BEFORE.as_secs(),
        scenario.describe()
    );
    tokio::time::sleep(BEFORE).await;
    scenario.start(&shop)?;
    let fault = Instant::now();
    let detected = scenario.watch(&shop, true, fault, DURING).await?;
    tokio::time::sleep_until(fault + DURING).await;
    scenario.end(&shop)?;
    let healed = Instant::now();
    let recovered = scenario.watch(&shop, false, healed, AFTER).await?;
    let report = load.await?;
    let facts = facts(root, &shop)?;
    shop.close()?;
    Ok(Outcome {
        before: report.window(Duration::ZERO..BEFORE),
        during: report.window(BEFORE..BEFORE + DURING),
        after: report.window(BEFORE + DURING..BEFORE + DURING + AFTER),
        all: report.summary(),
        detected,
        recovered,
        facts,
    })
}

impl Scenario {
    fn describe(self) -> &'static str {
        match self {
            Self::FrozenReplica => "one of three catalogs is frozen",
            Self::SlowCurrency => "currency takes 300 ms longer",
        }
    }

    fn start(self, shop: &Shop) -> Result<(), AnyError> {
        match self {
            Self::FrozenReplica => Ok(shop.lab().stop("catalog/1")?),
            Self::SlowCurrency => turn(shop, "latency_ms=300"),
        }
    }

    fn end(self, shop: &Shop) -> Result<(), AnyError> {
        match self {
            Self::FrozenReplica => Ok(shop.lab().cont("catalog/1")?),
            Self::SlowCurrency => turn(shop, "latency_ms=0"),
        }
    }

    /// How long until the storefront's sidecar acts on the fault (`acting`), or no longer does.
    async fn watch(
        self,
        shop: &Shop,
        acting: bool,
        since: Instant,
        patience: Duration,
    ) -> Result<Option<Duration>, AnyError> {
        if shop.mesh() == Mesh::Off {
            return Ok(None);
        }
        let frozen = shop
            .pods
            .iter()
            .filter(|(workload, _)| workload == "catalog")
            .nth(1)
            .map(|(_, ip)| ip.to_string());
        while since.elapsed() < patience {
            let all = shop.metrics_of("storefront").await?;
            let acts = match self {
                Self::FrozenReplica => {
                    let endpoint = format!("{}:3550", frozen.as_deref().unwrap_or_default());
                    let labels = [("endpoint", endpoint.as_str())];
                    // Open or half-open; ramping and closed take calls.
                    all.matching("weir_endpoint_state", &labels)
                        .any(|gate| gate.value() == 1.0 || gate.value() == 2.0)
                }
                Self::SlowCurrency => {
                    let labels = [("service", "boutique/currency:7000")];
                    all.matching("weir_breaker_state", &labels)
                        .any(|breaker| breaker.value() != 0.0)
                }
            };
            // Discovery may have taken the endpoint away meanwhile: it is back when it is listed again, too.
            let listed = acting || self != Self::FrozenReplica || shop.endpoints("catalog")? == 3;
            if acts == acting && listed {
                return Ok(Some(since.elapsed()));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(None)
    }

    fn broken_promises(self, on: &Outcome) -> Vec<String> {
        let mut broken = Vec::new();
        let success = on.all.totals.success_ratio();
        if success < SUCCESS_MIN {
            broken.push(format!(
                "{:.2} % of the pages succeeded, not 99.5 %",
                success * 100.0
            ));
        }
        match self {
            Self::FrozenReplica => {
                if on.detected.is_none_or(|detected| detected > EJECTED_WITHIN) {
                    broken.push(format!(
                        "the replica was not ejected within 1 s but {}",
                        span(on.detected)
                    ));
                }
                if on.recovered.is_none() {
                    broken.push("the replica was not taken back".into());
                }
            }
            Self::SlowCurrency => {
                if on
                    .during
                    .served
                    .is_none_or(|served| served.p99 > PAGE_WITHIN_MS)
                {
                    broken.push(format!("page p99 was above {PAGE_WITHIN_MS} ms"));
                }
                for kind in ["BreakerOpened", "BreakerHalfOpened", "BreakerClosed"] {
                    if !on.facts.iter().any(|fact| fact.contains(kind)) {
                        broken.push(format!("no {kind} in the journal"));
                    }
                }
            }
        }
        broken
    }
}

/// Turns currency's knobs, in its own pod: they listen on loopback only.
fn turn(shop: &Shop, knobs: &str) -> Result<(), AnyError> {
    let turner = weir_lab::build::root().join("demo-boutique/chaos");
    let turner = std::path::absolute(turner)?.display().to_string();
    let output = shop
        .lab()
        .exec(Some("currency/0"), &[&turner, "127.0.0.1:9700", knobs])?;
    if output.code == 0 {
        Ok(())
    } else {
        Err(format!("currency's knobs could not be turned: {}", output.stderr).into())
    }
}

/// What the journal says of breakers and endpoints, as `weir events` prints it.
fn facts(root: &Path, shop: &Shop) -> Result<Vec<String>, AnyError> {
    if shop.mesh() == Mesh::Off {
        return Ok(Vec::new());
    }
    let weir = std::env::current_exe()?.with_file_name("weir");
    let mut command = std::process::Command::new(weir);
    command
        .arg("--control-plane")
        .arg(format!("unix:{}", shop.lab().operator_socket().display()))
        .arg("events");
    for kind in [
        "BreakerOpened",
        "BreakerHalfOpened",
        "BreakerClosed",
        "EndpointEjected",
        "EndpointProbed",
        "EndpointReadmitted",
        "EndpointRestored",
    ] {
        command.args(["--kind", kind]);
    }
    let output = command.current_dir(root).output()?;
    Ok(String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(str::to_owned)
        .collect())
}

fn print(scenario: Scenario, rate: f64, on: &Outcome, off: &Outcome) {
    println!("\n{} at {rate} requests/s\n", scenario.describe());
    println!("{:<34} {:>14} {:>14}", "", "MESH ON", "MESH OFF");
    let row = |name: &str, of: &dyn Fn(&Outcome) -> String| {
        println!("{name:<34} {:>14} {:>14}", of(on), of(off))
    };
    let success = |summary: &Summary| format!("{:.2} %", summary.totals.success_ratio() * 100.0);
    let p50 = |summary: &Summary| {
        summary
            .all
            .map_or("–".into(), |all| format!("{:.0} ms", all.p50))
    };
    let p99 = |summary: &Summary| {
        summary
            .all
            .map_or("–".into(), |all| format!("{:.0} ms", all.p99))
    };
    row("requests", &|run| run.all.totals.offered.to_string());
    row("success, before the fault", &|run| success(&run.before));
    row("success, during it", &|run| success(&run.during));
    row("success, after it", &|run| success(&run.after));
    row("success, all", &|run| success(&run.all));
    row("failed or hung, during it", &|run| {
        (run.during.totals.offered - run.during.totals.served()).to_string()
    });
    row("p50, during it", &|run| p50(&run.during));
    row("p99, before the fault", &|run| p99(&run.before));
    row("p99, during it", &|run| p99(&run.during));
    row("p99, after it", &|run| p99(&run.after));
    row("until the sidecar acted", &|run| span(run.detected));
    row("until all was as before", &|run| span(run.recovered));
    if !on.facts.is_empty() {
        println!("\nThe journal of the run with the mesh (weir events):");
        for fact in &on.facts {
            println!("  {fact}");
        }
    }
    println!();
}

fn span(span: Option<Duration>) -> String {
    span.map_or("–".into(), |span| format!("{} ms", span.as_millis()))
}
