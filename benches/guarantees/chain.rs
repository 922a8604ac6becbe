//! Apps that call apps, each with a proxy on the way in and on the way out; what an app passes on is its caller's `traceparent`,
//! and nothing else.
//!
//! ```text
//!   driver ─▶ proxy ─▶ proxy ─▶ app ─▶ proxy ─▶ proxy ─▶ app ─▶ …
//! ```

use std::collections::HashMap;
use std::io;
use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::arguments::Effort;
use crate::driver::{Driven, Load, drive};
use crate::evidence::Evidence;
use crate::outage::{LEAD, Running};
use crate::replica::{Arrival, Fault, Plan, Replica};
use crate::schedule::{Arrivals, Source, sends};
use crate::subject::{Ask, Kind, Lane, PORT, Ports, Proxies, World};
use crate::trouble::Trouble;

#[derive(Clone, Copy, Debug)]
pub struct Chain {
    /// Of the first service; and of each that follows.
    pub asks: [Ask; 2],
    /// The apps in their order.
    pub apps: &'static [Plan],
    pub rate: f64,
    /// Of the last app.
    pub fault: Fault,
}

impl Chain {
    pub fn prepare(
        &self,
        lane: Lane,
        world: &Rc<World>,
        ports: &mut Ports,
        effort: &Effort,
        seed: u64,
    ) -> Result<Running, Trouble> {
        let apps = self.apps.iter().enumerate().map(|(which, plan)| {
            let next = (which + 1 < self.apps.len()).then(|| lane.onward(which));
            let address = (lane.app_address(which), PORT).into();
            let seed = seed * 1000 + which as u64;
            world.backends.replica(address, *plan, next, seed)
        });
        let apps: Vec<Replica> = apps
            .collect::<io::Result<_>>()
            .map_err(Trouble::during("an app"))?;
        let started = match lane.kind {
            Kind::Weir => lane.weir_chain(world, ports, apps.len(), &self.asks),
            _ => lane.envoy_chain(world, ports, apps.len(), &self.asks),
        };
        let proxies = started.map_err(Trouble::during(lane.kind.name()))?;
        Ok(Box::pin(run(*self, lane, *effort, seed, apps, proxies)))
    }
}

async fn run(
    chain: Chain,
    lane: Lane,
    effort: Effort,
    seed: u64,
    apps: Vec<Replica>,
    mut proxies: Proxies,
) -> Result<Evidence, Trouble> {
    let source = Source {
        path: "/work",
        rate: chain.rate,
        surge: 1.0,
        ramps: false,
        callers: [0, 1],
    };
    let phases = [effort.warm_up, effort.fault, effort.after];
    let load = Load {
        ways: proxies.ways.clone(),
        method: chain.asks[0].method(),
        sends: sends(Arrivals::Poisson, &[source], phases, seed),
    };
    let intended: Vec<Duration> = load.sends.iter().map(|send| send.at).collect();
    let last = apps.last().expect("a chain has apps");
    let start = Instant::now() + LEAD;
    let fault = effort.warm_up..effort.warm_up + effort.fault;
    let breaking = async {
        sleep_until(start + fault.start).await;
        last.set(chain.fault);
        sleep_until(start + fault.end).await;
        last.set(Fault::None);
    };
    let (driven, ()) = tokio::join!(drive(load, start), breaking);
    proxies
        .are_alive()
        .map_err(Trouble::during(lane.kind.name()))?;
    let Driven { samples, late } = driven;
    let arrivals = last.arrivals();
    let deadline = chain.asks[0].deadline;
    let begun_too_late = begun_too_late(&arrivals, &intended, start, deadline, &fault);
    let since_start = |arrival: &Arrival| arrival.at.checked_duration_since(start);
    Ok(Evidence {
        samples,
        arrivals: vec![arrivals.iter().filter_map(since_start).collect()],
        work: HashMap::new(),
        again: Vec::new(),
        fault,
        end: effort.total(),
        capacity: chain
            .apps
            .iter()
            .map(|app| app.capacity())
            .fold(f64::INFINITY, f64::min),
        begun_too_late: Some(begun_too_late),
        held: None,
        deadline,
        late,
        cpu: proxies.cpu(),
    })
}

/// Of the requests that were meant to be sent in `span`: how much the last app began after their deadline.
fn begun_too_late(
    arrivals: &[Arrival],
    intended: &[Duration],
    start: Instant,
    deadline: Duration,
    span: &Range<Duration>,
) -> usize {
    let is_late = |arrival: &&Arrival| {
        let intended = arrival.number.and_then(|number| intended.get(number));
        intended.is_some_and(|at| span.contains(at) && arrival.at > start + *at + deadline)
    };
    arrivals.iter().filter(is_late).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Planted bug: leaving the deadline out of the comparison counts all three.
    #[tokio::test(start_paused = true)]
    async fn work_is_too_late_when_it_begins_after_the_deadline_of_its_own_request() {
        let start = Instant::now();
        let milliseconds = Duration::from_millis;
        let intended = [milliseconds(0), milliseconds(100), milliseconds(5000)];
        let arrival = |number, at| Arrival {
            at: start + milliseconds(at),
            number: Some(number),
            work: 1.0,
        };
        let arrivals = [arrival(0, 150), arrival(1, 350), arrival(2, 5900)];
        let span = milliseconds(0)..milliseconds(1000);
        let late = begun_too_late(&arrivals, &intended, start, milliseconds(200), &span);
        assert_eq!(late, 1);
    }
}
