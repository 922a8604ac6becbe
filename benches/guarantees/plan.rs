//! The experiments, as data: what is asked of the proxies, what breaks, what is measured, and what it has to be. Targets are those of
//! resilience.md section 12.

// By their paths, because tests/guarantees.rs takes this file by its own.
#[path = "plan/chains.rs"]
mod chains;
#[path = "plan/overload.rs"]
mod overload;
#[path = "plan/replicas.rs"]
mod replicas;

use std::rc::Rc;
use std::time::Duration;

use crate::arguments::Effort;
use crate::backpressure::Backpressure;
use crate::chain::Chain;
use crate::figure::Figure;
use crate::judge::Bound;
use crate::outage::{Breakage, Outage, Place, Running};
use crate::replica::{Abandoned, Fault, Plan, Work};
use crate::rolling::Rolling;
use crate::schedule::Arrivals;
use crate::station::Takes;
use crate::subject::{Ask, Lane, Ports, World};
use crate::trouble::Trouble;

/// One way to run an experiment.
pub struct Case {
    pub experiment: &'static str,
    pub name: &'static str,
    pub script: Script,
    pub figures: Vec<(Figure, Bound)>,
    /// Figures that this way cannot have, and why.
    pub missing: Vec<(Figure, &'static str)>,
}

/// What happens.
pub enum Script {
    Outage(Outage),
    Rolling(Rolling),
    Chain(Chain),
    Backpressure(Backpressure),
}

impl Script {
    /// The most requests a second that callers send, and as many more as it takes the two cores more time than a call through one
    /// proxy.
    pub fn rate_max(&self) -> f64 {
        match self {
            Self::Outage(outage) => {
                // A proxy of its own is woken for each call, and shares no wake-up with others: twenty take a third of a core for 1,000
                // calls a second.
                let each = if outage.proxies > 1 { 4.0 } else { 1.0 };
                let hops = if outage.place == Place::Both {
                    2.0
                } else {
                    1.0
                };
                outage.rate_max() * each * hops
            }
            // Two hops, as well.
            Self::Rolling(rolling) => rolling.rate * 2.0,
            // Chunks of answers take time, too.
            Self::Backpressure(backpressure) => backpressure.others.rate_max() * 2.0,
            // Every app is one more server and client, and has two proxies.
            Self::Chain(chain) => chain.rate * chain.apps.len() as f64 * 3.0,
        }
    }

    /// The least that the fault and what follows must last.
    pub fn at_least(&self) -> [Duration; 2] {
        match self {
            Self::Outage(outage) => [outage.fault, outage.after],
            Self::Rolling(rolling) => [rolling.lasts, Duration::ZERO],
            Self::Chain(_) => [Duration::ZERO; 2],
            Self::Backpressure(backpressure) => {
                [backpressure.others.fault, backpressure.others.after]
            }
        }
    }

    pub fn prepare(
        &self,
        lane: Lane,
        world: &Rc<World>,
        ports: &mut Ports,
        effort: &Effort,
        seed: u64,
    ) -> Result<Running, Trouble> {
        match self {
            Self::Outage(outage) => outage.prepare(lane, world, ports, effort, seed),
            Self::Rolling(rolling) => rolling.prepare(lane, world, ports, effort, seed),
            Self::Chain(chain) => chain.prepare(lane, world, ports, effort, seed),
            Self::Backpressure(stalled) => stalled.prepare(lane, world, ports, effort, seed),
        }
    }
}

const SECOND: Duration = Duration::from_secs(1);

/// A healthy p99 of 37 ms; three replicas are busy to a seventh, two to a fifth: nothing queues.
const REPLICA: Plan = Plan {
    work: Work::Places(20),
    takes: Takes::Exponential {
        mean: Duration::from_millis(8),
    },
    abandoned: Abandoned::Stops,
};

const ASK: Ask = Ask {
    deadline: SECOND,
    attempts: 2,
    per_try: None,
    repeatable: true,
    hedge_after: None,
    overloads: false,
    outbound: "",
    inbound: "",
};

const OUTAGE: Outage = Outage {
    ask: ASK,
    proxies: 1,
    replicas: 3,
    plan: REPLICA,
    place: Place::Callers,
    arrivals: Arrivals::Poisson,
    rate: 1000.0,
    surge: 1.0,
    path: "/work",
    others: None,
    breakage: Breakage::One(Fault::Silent),
    fault: Duration::ZERO,
    after: Duration::ZERO,
};

/// An app of 1,000 requests a second: eight cores, 8 ms each.
const APP: Outage = Outage {
    ask: Ask {
        attempts: 1,
        inbound: "concurrency: {adaptive: {}}",
        ..ASK
    },
    replicas: 1,
    plan: Plan {
        work: Work::Cores {
            cores: 8,
            thrashes_above: None,
        },
        ..REPLICA
    },
    place: Place::App,
    rate: 700.0,
    breakage: Breakage::Nothing,
    ..OUTAGE
};

/// Small, so that twelve times what it can do is not more than a driver can send: 125 requests a second for each core.
const fn small_app(cores: usize) -> Plan {
    Plan {
        work: Work::Cores {
            cores,
            thrashes_above: None,
        },
        ..REPLICA
    }
}

pub fn cases() -> Vec<Case> {
    let mut cases = replicas::black_hole();
    cases.extend(replicas::partial());
    cases.extend(overload::storm());
    cases.extend(overload::surges());
    cases.extend(overload::priority_and_fairness());
    cases.extend(chains::layered_retries());
    cases.extend(replicas::hedging());
    cases.extend(chains::deadlines());
    cases.extend(replicas::backpressure());
    cases.extend(replicas::restarts());
    cases.extend(replicas::flapping());
    cases
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_case_has_a_target_and_a_name_of_its_own() {
        let cases = cases();
        for case in &cases {
            let has_target = case.figures.iter().any(|(_, bound)| *bound != Bound::None);
            assert!(has_target, "{} {}", case.experiment, case.name);
            let same = cases
                .iter()
                .filter(|other| (other.experiment, other.name) == (case.experiment, case.name));
            assert_eq!(same.count(), 1, "{} {}", case.experiment, case.name);
        }
    }

    #[test]
    fn a_figure_that_is_missing_is_one_of_the_cases_figures() {
        for case in cases() {
            for (figure, reason) in &case.missing {
                assert!(
                    case.figures.iter().any(|(other, _)| other == figure),
                    "{reason}"
                );
            }
        }
    }
}
