//! Interleaved rounds: in each, every subject once for every cell, in a new order. What disturbs the machine for a while
//! disturbs all, and the ratios are of the same moment.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::arguments::Effort;
use crate::engine::{Engine, Trouble};
use crate::run::{self, Observed, Pace, Plan};
use crate::shape::Shape;
use crate::statistic::Sample;
use crate::subject::Subject;

/// Of the order of the subjects; of the moments at which requests are sent.
const SEED: u64 = 20_261_124;
/// As in the issue: enough that no connection is busy when the next request comes.
const RATED_CONNECTIONS: usize = 32;
/// Connections, and requests at once on each.
const MULTIPLEXED: (usize, usize) = (4, 16);
/// More failures than this, and a figure is none.
const FAILED_SHARE_MAX: f64 = 0.001;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Load {
    /// As much as one worker can.
    Saturation,
    /// The same on few connections, many requests at once on each: reads, writes and wake-ups are shared.
    Multiplexed,
    /// So many requests a second.
    Rate(u32),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cell {
    pub shape: Shape,
    pub load: Load,
}

/// What was seen of one subject in one cell, round by round.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// µs of CPU of the proxies a request (a MiB, a connection).
    pub cpu: Sample,
    /// Requests a second; MiB a second for bulk.
    pub per_second: Sample,
    /// Share of a core that the proxies used.
    pub busy: Sample,
    /// µs.
    pub p50: Sample,
    pub p99: Sample,
    pub p999: Sample,
    pub failed: u64,
    pub fault: Option<String>,
}

/// By subject, as it is named.
pub type Results = BTreeMap<(String, Cell), Figures>;

impl Effort {
    pub fn cells(&self) -> Vec<Cell> {
        let saturated = self.shapes.iter().map(|shape| Cell {
            shape: *shape,
            load: Load::Saturation,
        });
        let rated = self.rates.iter().flat_map(|rate| {
            let cell = |shape: &Shape| Cell {
                shape: *shape,
                load: Load::Rate(*rate),
            };
            self.rated.iter().map(cell)
        });
        let multiplexed = self.shapes.contains(&Shape::GrpcSmall).then_some(Cell {
            shape: Shape::GrpcSmall,
            load: Load::Multiplexed,
        });
        saturated.chain(multiplexed).chain(rated).collect()
    }
}

/// Runs them all; what was measured before an interruption is there after it.
pub fn run(
    subjects: &[Subject],
    effort: &Effort,
    engine: &mut Engine,
    results: &mut Results,
) -> Result<(), Trouble> {
    let mut random = fastrand::Rng::with_seed(SEED);
    for round in 0..effort.rounds {
        for cell in effort.cells() {
            eprint!(
                "\r\x1b[K  round {} of {}: {}",
                round + 1,
                effort.rounds,
                cell.name()
            );
            let mut order: Vec<&Subject> = subjects
                .iter()
                .filter(|subject| subject.speaks(cell.shape))
                .collect();
            random.shuffle(&mut order);
            for subject in order {
                measure(subject, cell, round, effort, engine, results)?;
            }
        }
    }
    eprint!("\r\x1b[K");
    Ok(())
}

fn measure(
    subject: &Subject,
    cell: Cell,
    round: usize,
    effort: &Effort,
    engine: &mut Engine,
    results: &mut Results,
) -> Result<(), Trouble> {
    let plan = cell.plan(subject, round, effort);
    let observed = run::run(engine, &plan, &|| subject.cpu());
    let figures = results.entry((subject.name.clone(), cell)).or_default();
    match observed {
        Ok(observed) => figures.add(cell, &observed),
        Err(Trouble::Interrupted) => return Err(Trouble::Interrupted),
        Err(trouble) => figures.add_failure(trouble.to_string()),
    }
    Ok(())
}

impl Cell {
    pub fn name(self) -> String {
        match self.load {
            Load::Saturation => format!("{} at saturation", self.shape),
            Load::Multiplexed => format!("{} at saturation, multiplexed", self.shape),
            Load::Rate(rate) => format!("{} at {rate}/s", self.shape),
        }
    }

    fn plan(self, subject: &Subject, round: usize, effort: &Effort) -> Plan {
        let (connections, at_once) = self.shape.saturating();
        let (connections, pace, time) = match self.load {
            Load::Saturation => (connections, Pace::Closed { at_once }, effort.saturation),
            Load::Multiplexed => {
                let (connections, at_once) = MULTIPLEXED;
                (connections, Pace::Closed { at_once }, effort.saturation)
            }
            Load::Rate(rate) => {
                let pace = Pace::Open {
                    per_second: f64::from(rate),
                };
                (RATED_CONNECTIONS, pace, effort.rate)
            }
        };
        Plan {
            shape: self.shape,
            target: subject.plan.target(self.shape),
            connections,
            pace,
            warm_up: effort.warm_up,
            time,
            seed: SEED + round as u64,
        }
    }
}

impl Figures {
    fn add(&mut self, cell: Cell, observed: &Observed) {
        let bulk = cell.shape == Shape::TcpBulk;
        let units = if bulk {
            observed.bytes as f64 / f64::from(1 << 20)
        } else {
            observed.completed as f64
        };
        let failed = observed.failed as f64 > FAILED_SHARE_MAX * units && !bulk;
        self.failed += observed.failed;
        if let Some(fault) = observed.fault {
            self.fault.get_or_insert(fault.to_owned());
        }
        if failed || units == 0.0 {
            return self.add_failure("nothing came through".to_owned());
        }
        let micros = |time: Duration| time.as_secs_f64() * 1e6;
        let seconds = observed.elapsed.as_secs_f64();
        self.cpu.push(micros(observed.cpu) / units);
        self.per_second.push(units / seconds);
        self.busy.push(observed.cpu.as_secs_f64() / seconds);
        let quantile = |at: f64| observed.latency.value_at_quantile(at) as f64 / 1e3;
        self.p50.push(quantile(0.5));
        self.p99.push(quantile(0.99));
        self.p999.push(quantile(0.999));
    }

    /// Keeps its place: rounds are compared with each other.
    fn add_failure(&mut self, why: String) {
        self.fault.get_or_insert(why);
        for sample in [
            &mut self.cpu,
            &mut self.per_second,
            &mut self.busy,
            &mut self.p50,
            &mut self.p99,
            &mut self.p999,
        ] {
            sample.push(f64::NAN);
        }
    }
}
