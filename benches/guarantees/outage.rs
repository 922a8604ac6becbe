//! The shape that most experiments share: callers' proxies, replicas, steady load; then something breaks, and heals.
//!
//! ```text
//!   warm-up ──────▶ fault ──────▶ after
//!      healthy is its second half
//! ```

use std::collections::HashSet;
use std::rc::Rc;
use std::time::Duration;

use futures_util::future::LocalBoxFuture;
use tokio::time::{Instant, sleep_until};

use crate::arguments::Effort;
use crate::blackhole;
use crate::driver::{Driven, Load, drive};
use crate::evidence::Evidence;
use crate::replica::{Arrival, Fault, Plan, Replica};
use crate::schedule::{Arrivals, Source, sends};
use crate::subject::{Ask, Lane, PORT, Ports, Proxies, World};
use crate::trouble::Trouble;

/// Everybody has started by then.
pub const LEAD: Duration = Duration::from_millis(300);

#[derive(Clone, Copy, Debug)]
pub struct Outage {
    pub ask: Ask,
    /// Of callers; the load is spread over them evenly.
    pub proxies: usize,
    pub replicas: usize,
    pub plan: Plan,
    pub place: Place,
    pub arrivals: Arrivals,
    /// Of all callers together, a second.
    pub rate: f64,
    /// So many times as much while the fault lasts.
    pub surge: f64,
    pub path: &'static str,
    /// Others, that nobody watches, from a further caller where there is more than one.
    pub others: Option<Others>,
    pub breakage: Breakage,
    /// The least that has to be watched, in any mode.
    pub fault: Duration,
    pub after: Duration,
}

/// Who makes it hard for those that are watched.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Others {
    pub path: &'static str,
    pub rate: f64,
    pub surge: f64,
    pub ramps: bool,
}

/// Where the proxies under test stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Beside callers, before all replicas.
    Callers,
    /// In the pod of the only replica, before the app.
    App,
    /// Both, in the pod of every replica: callers have identities that those before the apps can tell apart.
    Both,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Breakage {
    /// Nothing but the surge.
    Nothing,
    /// Of replica 0.
    One(Fault),
    /// Of every replica.
    All(Fault),
    /// Packets to and from replica 0.
    Dropped,
    /// Replica 0 breaks for so long, heals for so long, and so on.
    Flapping(Fault, Duration),
}

/// A run that has been set up. Several go on side by side.
pub type Running = LocalBoxFuture<'static, Result<Evidence, Trouble>>;

impl Outage {
    /// Starts what it takes; nothing is sent yet.
    pub fn prepare(
        &self,
        lane: Lane,
        world: &Rc<World>,
        ports: &mut Ports,
        effort: &Effort,
        seed: u64,
    ) -> Result<Running, Trouble> {
        let replicas = (0..self.replicas).map(|which| {
            let seed = seed * 1000 + which as u64;
            let address = match self.place {
                Place::Callers => lane.replica(which),
                Place::App | Place::Both => lane.app_address(which),
            };
            let replica = world
                .backends
                .replica((address, PORT).into(), self.plan, None, seed);
            replica.map_err(Trouble::during("a replica"))
        });
        let replicas: Vec<Replica> = replicas.collect::<Result<_, _>>()?;
        let running = match self.place {
            Place::Callers => lane.callers(world, ports, self.proxies, self.replicas, &self.ask)?,
            Place::App => lane.app(world, ports, &self.ask)?,
            Place::Both => lane.both(world, ports, self.proxies, self.replicas, &self.ask)?,
        };
        let effort = effort.at_least(self.fault, self.after);
        Ok(Box::pin(run(*self, lane, effort, seed, replicas, running)))
    }
}

impl Outage {
    /// Requests a second that the replicas can do while the fault lasts.
    fn capacity(&self) -> f64 {
        let left = match self.breakage {
            Breakage::One(Fault::Cut(share)) | Breakage::All(Fault::Cut(share)) => share,
            _ => 1.0,
        };
        self.plan.capacity() * self.replicas as f64 * left
    }

    /// The most requests a second, of all callers.
    pub fn rate_max(&self) -> f64 {
        let sources = self.sources().into_iter();
        sources
            .map(|source| source.rate * source.surge.max(1.0))
            .sum()
    }

    pub fn sources(&self) -> Vec<Source> {
        let last = self.proxies - 1;
        let alone = self.others.is_none() || last == 0;
        let mut sources = vec![Source {
            path: self.path,
            rate: self.rate,
            surge: self.surge,
            ramps: false,
            callers: [0, if alone { self.proxies } else { last }],
        }];
        sources.extend(self.others.map(|others| Source {
            path: others.path,
            rate: others.rate,
            surge: others.surge,
            ramps: others.ramps,
            callers: [last, 1],
        }));
        sources
    }
}

async fn run(
    outage: Outage,
    lane: Lane,
    effort: Effort,
    seed: u64,
    replicas: Vec<Replica>,
    mut proxies: Proxies,
) -> Result<Evidence, Trouble> {
    let phases = [effort.warm_up, effort.fault, effort.after];
    let load = Load {
        ways: proxies.ways.clone(),
        method: outage.ask.method(),
        sends: sends(outage.arrivals, &outage.sources(), phases, seed),
    };
    let start = Instant::now() + LEAD;
    let fault = effort.warm_up..effort.warm_up + effort.fault;
    let span = start + fault.start..start + fault.end;
    let (driven, broken) = tokio::join!(
        drive(load, start),
        outage.breakage.happen(lane, &replicas, span)
    );
    broken.map_err(Trouble::during("breaking a replica"))?;
    proxies
        .are_alive()
        .map_err(Trouble::during(lane.kind.name()))?;
    let Driven { samples, late } = driven;
    let since_start = |arrival: &Arrival| arrival.at.checked_duration_since(start);
    let arrivals = replicas.iter().map(|replica| {
        let arrivals = replica.arrivals();
        arrivals.iter().filter_map(since_start).collect()
    });
    Ok(Evidence {
        samples,
        arrivals: arrivals.collect(),
        work: replicas
            .iter()
            .flat_map(Replica::arrivals)
            .filter_map(|arrival| Some((arrival.number?, arrival.work)))
            .collect(),
        again: again(&replicas, start),
        fault,
        end: effort.total(),
        capacity: outage.capacity(),
        begun_too_late: None,
        held: None,
        deadline: outage.ask.deadline,
        late,
        cpu: proxies.cpu(),
    })
}

/// When requests arrived that had arrived before.
fn again(replicas: &[Replica], start: Instant) -> Vec<Duration> {
    let mut arrivals: Vec<Arrival> = replicas.iter().flat_map(Replica::arrivals).collect();
    arrivals.sort_by_key(|arrival| arrival.at);
    let mut seen = HashSet::new();
    arrivals.retain(|arrival| arrival.number.is_some_and(|number| !seen.insert(number)));
    let since_start = |arrival: &Arrival| arrival.at.checked_duration_since(start);
    arrivals.iter().filter_map(since_start).collect()
}

impl Breakage {
    async fn happen(
        self,
        lane: Lane,
        replicas: &[Replica],
        span: std::ops::Range<Instant>,
    ) -> std::io::Result<()> {
        let first = &replicas[0];
        let set_all = |fault| replicas.iter().for_each(|replica| replica.set(fault));
        sleep_until(span.start).await;
        match self {
            Self::Nothing => {}
            Self::One(fault) => first.set(fault),
            Self::All(fault) => set_all(fault),
            Self::Dropped => blackhole::drop_packets(lane.replica(0)).await?,
            Self::Flapping(fault, each) => flap(first, fault, each, span.end).await,
        }
        sleep_until(span.end).await;
        set_all(Fault::None);
        match self {
            Self::Dropped => blackhole::heal(lane.replica(0)).await,
            _ => Ok(()),
        }
    }
}

async fn flap(replica: &Replica, fault: Fault, each: Duration, end: Instant) {
    let mut next = Instant::now();
    let mut is_bad = true;
    while next < end {
        replica.set(if is_bad { fault } else { Fault::None });
        is_bad = !is_bad;
        next += each;
        sleep_until(next.min(end)).await;
    }
}
