//! One scenario on one stage: visitors come, something fails, it is taken back, and all of it is written down.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use boutique_load::{Arrivals, Bounds, Plan, Rate, Reach, Target, Work};
use serde_json::Value;
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::{Instant, sleep_until};

use super::action::{Action, Undo};
use super::claim::{Claim, Measure};
use super::look::{self, Counts};
use super::orders::{self, Orders};
use super::provenance::Provenance;
use super::record::{Fact, Marks, Record, Request, Run};
use super::scenario::{Phases, Scenario};
use super::shown;
use super::stage::Stage;
use crate::error::{Error, Result};
use crate::shop::Mesh;

/// More than any rate of ours can have waiting.
const IN_FLIGHT_MAX: usize = 4000;
const SEED: u64 = 1;
/// What the order log is read for, and payment's ledger.
const ORDERS: [Measure; 4] = [
    Measure::OrdersOpen,
    Measure::OrdersConfirmed,
    Measure::FewestCharges,
    Measure::MostCharges,
];
const CHARGES: [Measure; 2] = [Measure::FewestCharges, Measure::MostCharges];
/// For the last facts to arrive.
const LINGER: Duration = Duration::from_millis(500);

/// Ends a task with whoever waits for it.
struct Ending(AbortHandle);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.abort();
    }
}

pub async fn run(stage: &Stage, scenario: &Scenario, quick: bool) -> Result<Record> {
    let phases = scenario.quick.filter(|_| quick).unwrap_or(scenario.phases);
    let mut undo = Vec::new();
    let mut began = Ok(());
    for action in &scenario.setup {
        match action.begin(stage).await {
            Ok(done) => undo.extend(done),
            Err(error) => {
                began = Err(error);
                break;
            }
        }
    }
    let ran = match began {
        Ok(()) => {
            let performance = Performance::new(stage, scenario, phases);
            performance.perform(&mut undo).await
        }
        Err(error) => Err(error),
    };
    take_back(stage, undo).await?;
    ran
}

/// The latest first. All of it, even if some of it fails.
async fn take_back(stage: &Stage, undo: Vec<Undo>) -> Result<()> {
    let mut result = Ok(());
    for one in undo.into_iter().rev() {
        result = result.and(one.carry_out(stage).await);
    }
    result
}

struct Performance<'a> {
    stage: &'a Stage,
    scenario: &'a Scenario,
    phases: Phases,
    start: Instant,
    steps: Vec<(f64, String)>,
}

impl<'a> Performance<'a> {
    fn new(stage: &'a Stage, scenario: &'a Scenario, phases: Phases) -> Self {
        Self {
            stage,
            scenario,
            phases,
            start: Instant::now(),
            steps: Vec::new(),
        }
    }

    /// What outlasts the fault is left in `later`.
    async fn perform(mut self, later: &mut Vec<Undo>) -> Result<Record> {
        let (stage, scenario) = (self.stage, self.scenario);
        let orders_before = match self.needs_any(&ORDERS) {
            true => Some(look::orders_since(stage, &Orders::default()).await?),
            false => None,
        };
        let plan = self.plan()?;
        let started_ms = now_ms();
        self.start = Instant::now();
        let (looks_in, mut looks) = mpsc::unbounded_channel();
        let looking = look::keep_looking(stage.clone(), scenario.clone(), self.start, looks_in);
        let _looking = Ending(tokio::spawn(looking).abort_handle());
        let (streams_in, streams) = watch::channel((0, 0));
        let holding = scenario.streams.iter().map(|path| {
            let hold = look::hold(stage.clone(), path.clone(), streams_in.clone());
            Ending(tokio::spawn(hold).abort_handle())
        });
        let _holding: Vec<Ending> = holding.collect();
        let (shown_in, mut shown) = mpsc::unbounded_channel();
        let connecting = self.shown_by().into_iter().map(|about| {
            let connect =
                shown::keep_connecting(stage.clone(), about, self.start, shown_in.clone());
            Ending(tokio::spawn(connect).abort_handle())
        });
        let _connecting: Vec<Ending> = connecting.collect();
        let load = tokio::spawn(boutique_load::run(plan, |_| {}));
        let _load = Ending(load.abort_handle());

        sleep_until(self.start + self.phases.warm + self.phases.base).await;
        let before = Counts::of(stage, scenario).await?;
        let events_before = streams.borrow().0;
        let mut undo = Vec::new();
        let fault = self.start.elapsed().as_secs_f64();
        let failed = self.fail(&mut undo).await;
        let after = Counts::of(stage, scenario).await;
        self.note("all of it is taken back");
        let (kept, undo): (Vec<Undo>, Vec<Undo>) =
            undo.into_iter().partition(Undo::outlasts_the_fault);
        later.extend(kept);
        take_back(stage, undo).await?;
        failed?;
        let recovery = self.start.elapsed().as_secs_f64();
        let mut counts = after?.since(&before);

        let requests = self.requests(load).await?;
        let (events, breaks) = *streams.borrow();
        if !scenario.streams.is_empty() {
            counts.insert("stream events".into(), (events - events_before) as f64);
            counts.insert("stream breaks".into(), breaks as f64);
        }
        let mut seen = Vec::new();
        while let Ok(one) = shown.try_recv() {
            seen.push(one);
        }
        counts.extend(shown::counted(&seen, fault..recovery));
        if let Some(before) = orders_before {
            let orders = look::orders_since(stage, &before).await?;
            let confirmed = orders.confirmed().count();
            counts.insert("orders logged".into(), orders.count() as f64);
            counts.insert("orders open".into(), orders.open() as f64);
            counts.insert("orders confirmed".into(), confirmed as f64);
            if self.needs_any(&CHARGES) {
                let ledger = look::ledger(stage).await?;
                if let Some((fewest, most)) = orders::charges(&ledger, orders.confirmed()) {
                    counts.insert("fewest charges".into(), fewest as f64);
                    counts.insert("most charges".into(), most as f64);
                }
            }
        }
        tokio::time::sleep(LINGER).await;
        let mut seen = Vec::new();
        while let Ok(look) = looks.try_recv() {
            seen.push(look);
        }
        let warm = self.phases.warm.as_secs_f64();
        let marks = Marks {
            base: warm,
            fault,
            recovery,
            end: self.phases.total().as_secs_f64().max(recovery),
        };
        Ok(Record {
            facts: facts(stage, started_ms).await?,
            run: Run {
                // Whoever saves it knows.
                provenance: Provenance::default(),
                mesh: stage.shop().mesh() == Mesh::On,
                started_ms,
                marks,
                steps: self.steps,
                counts,
            },
            requests,
            looks: seen,
        })
    }

    fn needs_any(&self, measures: &[Measure]) -> bool {
        let mut claims = self.scenario.must.iter().chain(&self.scenario.without);
        claims.any(|claim| measures.contains(&claim.measure))
    }

    /// Whose certificates claims are about.
    fn shown_by(&self) -> BTreeSet<String> {
        let claims = self.scenario.must.iter().chain(&self.scenario.without);
        claims
            .filter_map(Claim::shown_by)
            .map(str::to_owned)
            .collect()
    }

    fn plan(&self) -> Result<Plan> {
        let refused = |refused: boutique_load::Refused| Error::Request(refused.to_string());
        let load = &self.scenario.load;
        let shop = self.stage.shop();
        let address = match &load.get {
            None => shop.address(),
            Some(get) => {
                let service = get
                    .service
                    .rsplit_once(':')
                    .map_or(&*get.service, |(name, _)| name);
                let address = shop.lab().published(service);
                address
                    .ok_or_else(|| Error::Request(format!("{} is not published", get.service)))?
            }
        };
        let (begin, end) = (
            (self.phases.warm + self.phases.base).as_secs_f64(),
            (self.phases.warm + self.phases.base + self.phases.fault).as_secs_f64(),
        );
        let steps = match load.fault_rate {
            Some(fault) => vec![(0.0, load.rate), (begin, fault), (end, load.rate)],
            None => vec![(0.0, load.rate)],
        };
        let bounds = Bounds::new(self.phases.total())
            .and_then(|bounds| bounds.timeout(load.patience))
            .and_then(|bounds| bounds.max_in_flight(IN_FLIGHT_MAX));
        Ok(Plan {
            target: Target::parse(&format!("http://{address}"), &Reach::loopback())
                .map_err(refused)?,
            work: Work::Http(load.journeys().map_err(refused)?),
            rate: Rate::steps(steps).map_err(refused)?,
            arrivals: Arrivals::Poisson,
            bounds: bounds.map_err(refused)?,
            seed: SEED,
            headers: Vec::new(),
        })
    }

    /// Takes the steps of the fault when they are due, and returns when it is over.
    async fn fail(&mut self, undo: &mut Vec<Undo>) -> Result<()> {
        let begin = self.start + self.phases.warm + self.phases.base;
        let mut due: Vec<(Duration, &Action)> = Vec::new();
        for step in &self.scenario.fault {
            let mut at = step.after;
            while at < self.phases.fault {
                due.push((at, &step.action));
                let Some(every) = step.every else { break };
                at += every;
            }
        }
        due.sort_by_key(|(at, _)| *at);
        for (at, action) in due {
            sleep_until(begin + at).await;
            self.note(&action.describe());
            undo.extend(action.begin(self.stage).await?);
        }
        sleep_until(begin + self.phases.fault).await;
        Ok(())
    }

    fn note(&mut self, what: &str) {
        self.steps
            .push((self.start.elapsed().as_secs_f64(), what.to_owned()));
    }

    async fn requests(&self, load: JoinHandle<boutique_load::Report>) -> Result<Vec<Request>> {
        let report = load.await.map_err(|error| Error::Lab(error.to_string()))?;
        let lines = report.samples().iter().map(|sample| {
            let line = serde_json::to_value(sample.line(report.journey_names()));
            serde_json::from_value(line.expect("plain data")).expect("the fields of a line")
        });
        Ok(lines.collect())
    }
}

fn now_ms() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// What the journal says of this run.
async fn facts(stage: &Stage, started_ms: u64) -> Result<Vec<Fact>> {
    let shop = stage.shop();
    if shop.mesh() == Mesh::Off {
        return Ok(Vec::new());
    }
    let own = std::env::current_exe().map_err(|error| Error::Lab(error.to_string()))?;
    let output = tokio::process::Command::new(own.with_file_name("weir"))
        .arg("--control-plane")
        .arg(format!("unix:{}", shop.lab().operator_socket().display()))
        .args(["events", "--output", "json"])
        .output()
        .await
        .map_err(|error| Error::Lab(format!("weir events: {error}")))?;
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(Error::Lab(format!("weir events: {why}")));
    }
    let mut facts = Vec::new();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let event: Value = serde_json::from_str(line)
            .map_err(|error| Error::Lab(format!("weir events: {error}")))?;
        let at_ms = event["atMs"].as_u64().unwrap_or_default();
        if at_ms < started_ms {
            continue;
        }
        let word = |field: &str| event[field].as_str().unwrap_or_default().to_owned();
        facts.push(Fact {
            t: (at_ms - started_ms) as f64 / 1000.0,
            kind: word("kind"),
            subject: word("subject"),
            reporter: word("reporter"),
            message: word("message"),
        });
    }
    facts.sort_by(|one, other| one.t.total_cmp(&other.t));
    Ok(facts)
}
