//! Resident memory of processes that have just started, and how long they took to.

use std::time::Duration;

use crate::engine::{Engine, Trouble};
use crate::lineup::{self, Lineup};
use crate::shape::Shape;
use crate::statistic::Sample;
use crate::subject::{Kind, Plan, Subject, World};
use crate::table::Report;
use crate::weir;

/// Idle connections whose memory is weighed.
pub const CONNECTIONS: usize = 1000;
const SETTLE: Duration = Duration::from_millis(700);
/// Starts that are timed; the last is weighed.
const STARTS: usize = 5;

/// All in KiB, of one hop; of two hops, the second.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    pub idle: Option<u64>,
    /// With a thousand connections that have been used once; with two hops they come over mutual TLS.
    pub connections: Option<u64>,
    pub after_load: Option<u64>,
    /// Seconds.
    pub started_in: Sample,
}

impl Memory {
    pub fn per_connection(&self) -> Option<f64> {
        let more = self.connections?.checked_sub(self.idle?)?;
        Some(more as f64 / CONNECTIONS as f64)
    }
}

pub fn after_load(subjects: &[Subject], report: &mut Report) {
    for subject in subjects
        .iter()
        .filter(|subject| !subject.processes.is_empty())
    {
        let memory = report.memory.entry(subject.name.clone()).or_default();
        memory.after_load = Some(subject.resident(subject.plan.hops - 1));
    }
}

pub fn run(
    lineup: &Lineup,
    world: &World,
    engine: &mut Engine,
    report: &mut Report,
) -> Result<(), Trouble> {
    let plans = lineup.plans.iter().filter(|plan| plan.kind != Kind::Direct);
    let left_out: Vec<String> = report
        .left_out
        .iter()
        .map(|(name, _)| name.clone())
        .collect();
    for plan in plans.filter(|plan| !left_out.contains(&plan.name())) {
        eprint!("\r\x1b[K  memory: {}", plan.name());
        let weighed = weigh(
            plan,
            world,
            engine,
            report.memory.entry(plan.name()).or_default(),
        );
        report.note(&format!("{}: memory", plan.name()), weighed)?;
    }
    eprint!("\r\x1b[K");
    if lineup.plans.iter().any(|plan| plan.kind == Kind::Weir) {
        let name = lineup::large().name();
        let weighed = weigh_large(
            world,
            engine,
            report.memory.entry(name.clone()).or_default(),
        );
        report.note(&name, weighed)?;
    }
    Ok(())
}

/// Weir in a mesh of a thousand services, all of which its app has called.
fn weigh_large(world: &World, engine: &mut Engine, memory: &mut Memory) -> Result<(), Trouble> {
    let subject = Subject::start(lineup::large(), world, engine)?;
    weir::call_others(&subject.plan, engine)?;
    memory.idle = Some(subject.resident(0));
    Ok(())
}

fn weigh(
    plan: &Plan,
    world: &World,
    engine: &mut Engine,
    memory: &mut Memory,
) -> Result<(), Trouble> {
    for _ in 1..STARTS {
        let subject = Subject::start(plan.clone(), world, engine)?;
        memory.started_in.push(subject.started_in.as_secs_f64());
    }
    let subject = Subject::start(plan.clone(), world, engine)?;
    memory.started_in.push(subject.started_in.as_secs_f64());
    let shape = if plan.hops == 2 {
        Shape::TcpRequest
    } else {
        Shape::Http1
    };
    let hop = plan.hops - 1;
    engine.idle(SETTLE)?;
    memory.idle = Some(subject.resident(hop));
    if subject.speaks(shape) {
        let held = engine.hold(shape, plan.target(shape), CONNECTIONS)?;
        engine.idle(SETTLE)?;
        memory.connections = Some(subject.resident(hop));
        engine.release(held);
    }
    Ok(())
}
