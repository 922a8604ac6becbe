//! The experiments, as data: what is asked of the proxies, what breaks, what is measured, and what it has to be. Targets are those of
//! resilience.md section 12.

use std::rc::Rc;
use std::time::Duration;

use crate::arguments::Effort;
use crate::backpressure::Backpressure;
use crate::chain::Chain;
use crate::figure::Figure::{self, *};
use crate::judge::Bound::{self, AtLeast, AtMost};
use crate::outage::{Breakage, Others, Outage, Place, Running};
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

/// OSDI'22's: 1,000 a second at most, first come, first served, and callers that give up after half a second.
const STORM: Outage = Outage {
    ask: Ask {
        deadline: Duration::from_millis(500),
        attempts: 4,
        overloads: true,
        ..ASK
    },
    proxies: 20,
    replicas: 1,
    plan: Plan {
        work: Work::Places(10),
        takes: Takes::Exponential {
            mean: Duration::from_millis(10),
        },
        abandoned: Abandoned::GoesOn,
    },
    rate: 800.0,
    breakage: Breakage::One(Fault::Slow(5.0)),
    fault: Duration::from_secs(10),
    after: Duration::from_secs(45),
    ..OUTAGE
};

pub fn cases() -> Vec<Case> {
    let mut cases = black_hole();
    cases.extend(partial());
    cases.extend(storm());
    cases.extend(overload());
    cases.extend(priority_and_fairness());
    cases.extend(layered_retries());
    cases.extend(hedging());
    cases.extend(deadlines());
    cases.extend(backpressure());
    cases.extend(restarts());
    cases.extend(flapping());
    cases
}

fn black_hole() -> Vec<Case> {
    let quarter = Some(Duration::from_millis(250));
    let figures = || {
        vec![
            (Success, AtLeast(0.9995)),
            (P99ToHealthy, AtMost(2.0)),
            (P99, AtMost(80.0)),
            (Ejected, AtMost(300.0)),
            (SentAfterEjection, AtMost(1.0)),
            (Amplification, AtMost(1.02)),
        ]
    };
    let case = |name, breakage, per_try| Case {
        experiment: "G1",
        name,
        script: Script::Outage(Outage {
            ask: Ask { per_try, ..ASK },
            breakage,
            // One of its figures is per 10 s.
            fault: Duration::from_secs(10),
            ..OUTAGE
        }),
        figures: figures(),
        missing: Vec::new(),
    };
    const UNSEEN: &str = "what is dropped on the way, no replica sees";
    let dropped = |name, per_try| Case {
        missing: vec![
            (Ejected, UNSEEN),
            (SentAfterEjection, UNSEEN),
            (Amplification, UNSEEN),
        ],
        ..case(name, Breakage::Dropped, per_try)
    };
    let silent = Breakage::One(Fault::Silent);
    vec![
        case("one of three goes silent", silent, None),
        case("… 250 ms a try", silent, quarter),
        dropped("one of three is unreachable (DROP)", None),
        dropped("… 250 ms a try (DROP)", quarter),
        Case {
            experiment: "G1",
            name: "silent, requests that must not be repeated",
            script: Script::Outage(Outage {
                ask: Ask {
                    repeatable: false,
                    ..ASK
                },
                ..OUTAGE
            }),
            figures: vec![(Failed, AtMost(10.0)), (Ejected, AtMost(300.0))],
            missing: Vec::new(),
        },
    ]
}

/// To see a share come back, which may take 20 s.
const RECOVERY: Duration = Duration::from_secs(25);

fn partial() -> Vec<Case> {
    let case = |experiment, name, fault, attempts, figures| Case {
        experiment,
        name,
        script: Script::Outage(Outage {
            ask: Ask { attempts, ..ASK },
            breakage: Breakage::One(fault),
            after: match fault {
                Fault::Slow(_) => RECOVERY,
                _ => Duration::ZERO,
            },
            ..OUTAGE
        }),
        figures,
        missing: Vec::new(),
    };
    let slow = case(
        "G4",
        "one of three is 10 × slower, then heals",
        Fault::Slow(10.0),
        2,
        vec![
            (Success, Bound::None),
            (P99ToHealthy, AtMost(1.3)),
            (FairShareBack, AtMost(20.0)),
            (WorstErrorsAfter, AtMost(0.01)),
        ],
    );
    vec![
        case(
            "G2",
            "one of three fails within 1 ms",
            Fault::Fails(1.0),
            2,
            vec![(Success, AtLeast(0.9999)), (Share, AtMost(0.002))],
        ),
        case(
            "G3",
            "one of three fails every other request, no retry",
            Fault::Fails(0.5),
            1,
            vec![(Success, AtLeast(0.999)), (Share, Bound::None)],
        ),
        case(
            "G3",
            "… with a retry",
            Fault::Fails(0.5),
            2,
            vec![(Success, AtLeast(0.9999)), (Amplification, Bound::None)],
        ),
        slow,
    ]
}

fn flapping() -> Vec<Case> {
    let each = Duration::from_secs(2);
    let case = |name, proxies, figures| Case {
        experiment: "G16",
        name,
        script: Script::Outage(Outage {
            proxies,
            breakage: Breakage::Flapping(Fault::Fails(1.0), each),
            fault: Duration::from_secs(20),
            ..OUTAGE
        }),
        figures,
        missing: Vec::new(),
    };
    vec![
        case(
            "one of three is bad every other 2 s",
            1,
            vec![(Success, AtLeast(0.999)), (Share, Bound::None)],
        ),
        case(
            "… seen by 20 proxies",
            20,
            vec![(Success, AtLeast(0.999)), (ReturnBurst, AtMost(1.5))],
        ),
    ]
}

fn hedging() -> Vec<Case> {
    let stalls = Fault::Stalls(0.01, Duration::from_millis(500));
    // Of the exponential 8 ms this is the time that 1.3 % exceed, so that Envoy sends no more than Weir may.
    let hedge_after = Some(Duration::from_millis(35));
    let ask = Ask {
        outbound: "hedging: {}",
        hedge_after,
        ..ASK
    };
    vec![
        Case {
            experiment: "G9",
            name: "1 % of requests stall for 500 ms",
            script: Script::Outage(Outage {
                ask,
                breakage: Breakage::All(stalls),
                ..OUTAGE
            }),
            figures: vec![
                (P999ToHedged, AtMost(1.0)),
                (P999, Bound::None),
                (Amplification, AtMost(1.025)),
            ],
            missing: Vec::new(),
        },
        Case {
            experiment: "G9",
            name: "3 × what three apps can do, slow calls may be hedged",
            script: Script::Outage(Outage {
                ask: Ask {
                    attempts: 1,
                    inbound: APP.ask.inbound,
                    ..ask
                },
                replicas: 3,
                plan: small_app(1),
                place: Place::Both,
                rate: 262.5,
                surge: 3.0 / 0.7,
                ..APP
            }),
            figures: vec![(MadeTwice, AtMost(0.0)), (Goodput, Bound::None)],
            missing: Vec::new(),
        },
    ]
}

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

fn overload() -> Vec<Case> {
    let surge = |name, work, takes, arrivals, refused| Case {
        experiment: "G6",
        name,
        script: Script::Outage(Outage {
            plan: Plan {
                work,
                takes,
                ..REPLICA
            },
            arrivals,
            surge: 3.0 / 0.7,
            ..APP
        }),
        figures: vec![
            (Goodput, AtLeast(0.95)),
            (WorstGoodput, AtLeast(0.9)),
            (P99Admitted, AtMost(300.0)),
            (Converged, AtMost(1.0)),
            (RefusedBefore, AtMost(refused)),
        ],
        missing: Vec::new(),
    };
    let short = REPLICA.takes;
    let bimodal = Takes::Bimodal {
        short: Duration::from_millis(2),
        long: Duration::from_millis(62),
        long_share: 0.1,
    };
    let cores = |thrashes_above| Work::Cores {
        cores: 8,
        thrashes_above,
    };
    let poisson = Arrivals::Poisson;
    let bursts = Arrivals::Bursts(20);
    let same_load = |experiment, name, plan, breakage, lasts, figures| Case {
        experiment,
        name,
        script: Script::Outage(Outage {
            plan,
            breakage,
            fault: Duration::from_secs(lasts),
            ..APP
        }),
        figures,
        missing: Vec::new(),
    };
    // So many places that nobody waits: what is slow is somebody else.
    let waits_for_another = Plan {
        work: Work::Places(4000),
        takes: Takes::Exponential {
            mean: Duration::from_millis(10),
        },
        ..REPLICA
    };
    vec![
        surge(
            "3 × what the app can do, cores shared",
            cores(None),
            short,
            poisson,
            0.001,
        ),
        surge(
            "… first come, first served",
            Work::Places(8),
            short,
            poisson,
            0.001,
        ),
        surge(
            "… an app that thrashes above 64",
            cores(Some(64)),
            short,
            poisson,
            0.001,
        ),
        surge(
            "… nine short, one 31 × as long",
            cores(None),
            bimodal,
            poisson,
            0.001,
        ),
        surge("… in bursts of 20", cores(None), short, bursts, 0.03),
        same_load(
            "G6b",
            "what the app calls becomes 6 × slower: no overload",
            waits_for_another,
            Breakage::All(Fault::Slow(6.0)),
            60,
            vec![(Success, AtLeast(0.985)), (WorstSuccess, AtLeast(0.7))],
        ),
        same_load(
            "G6c",
            "a quarter of the cores is left",
            APP.plan,
            Breakage::All(Fault::Cut(0.25)),
            20,
            vec![(Goodput, AtLeast(0.98)), (P99Admitted, AtMost(300.0))],
        ),
    ]
}

fn backpressure() -> Vec<Case> {
    vec![Case {
        experiment: "G11",
        name: "30 readers of endless HTTP/1.1 answers stop, then read 10 KB/s",
        script: Script::Backpressure(Backpressure {
            others: Outage {
                ask: Ask {
                    deadline: Duration::from_secs(120),
                    ..ASK
                },
                breakage: Breakage::Nothing,
                rate: 500.0,
                fault: Duration::from_secs(20),
                ..OUTAGE
            },
            readers: 30,
        }),
        figures: vec![
            (HeldEach, AtMost(256.0)),
            (ResidentGrowth, AtMost(64.0)),
            (BlockedAfter, AtMost(1.0)),
            (Resumed, AtLeast(1.0)),
            (Success, AtLeast(0.95)),
            (P99ToHealthy, Bound::None),
        ],
        missing: Vec::new(),
    }]
}

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

fn priority_and_fairness() -> Vec<Case> {
    let critical = |name, cores: usize| {
        let plan = small_app(cores);
        Case {
            experiment: "G7",
            name,
            script: Script::Outage(Outage {
                ask: Ask {
                    inbound: "concurrency: {adaptive: {}}\n    priorities:\n    \
                              - {match: {http: {pathPrefix: /critical}}, tier: Critical}\n    \
                              - {match: {http: {pathPrefix: /batch}}, tier: Sheddable}",
                    ..APP.ask
                },
                plan,
                path: "/critical",
                rate: plan.capacity() * 0.5,
                others: Some(Others {
                    path: "/batch",
                    rate: plan.capacity() * 0.1,
                    surge: 120.0,
                    ramps: true,
                }),
                fault: Duration::from_secs(20),
                ..APP
            }),
            figures: vec![(Success, AtLeast(0.999)), (P99ToHealthy, AtMost(1.3))],
            missing: Vec::new(),
        }
    };
    vec![
        critical(
            "critical at half the capacity, beside a ramp to 12 × of what may be shed",
            1,
        ),
        critical("… an app of three cores", 3),
        Case {
            experiment: "G7",
            name: "one of ten callers sends 10 × its share",
            script: Script::Outage(Outage {
                place: Place::Both,
                proxies: 10,
                // Small, so that the driver has time for it; nine ask for less than their share of a tenth.
                plan: small_app(4),
                rate: 9.0 * 30.0,
                others: Some(Others {
                    path: "/work",
                    rate: 30.0,
                    // Its share is 50.
                    surge: 16.7,
                    ramps: false,
                }),
                ..APP
            }),
            figures: vec![(WorstCaller, AtLeast(0.99)), (Goodput, Bound::None)],
            missing: Vec::new(),
        },
    ]
}

fn restarts() -> Vec<Case> {
    let case = |name, repeatable| Case {
        experiment: "G12",
        name,
        script: Script::Rolling(Rolling {
            ask: Ask { repeatable, ..ASK },
            plan: REPLICA,
            rate: 1000.0,
            lasts: Duration::from_secs(25),
        }),
        figures: vec![(Failed, AtMost(0.0)), (P99ToHealthy, Bound::None)],
        missing: Vec::new(),
    };
    vec![
        case("all three pods are replaced, one by one", true),
        case("… requests that must not be repeated", false),
    ]
}

/// Quick, and nothing queues: what counts is how often it is called.
const QUICK: Plan = Plan {
    work: Work::Places(1000),
    takes: Takes::Exponential {
        mean: Duration::from_millis(2),
    },
    abandoned: Abandoned::Stops,
};

/// Of users. A call through three apps and six proxies takes their cores ten times as long as one through one proxy.
const CHAIN_RATE: f64 = 200.0;

fn layered_retries() -> Vec<Case> {
    let case = |name, share, attempts, figures| {
        let ask = Ask { attempts, ..ASK };
        Case {
            experiment: "G8",
            name,
            script: Script::Chain(Chain {
                asks: [ask; 2],
                apps: &[QUICK; 3],
                rate: CHAIN_RATE,
                fault: Fault::Fails(share),
            }),
            figures,
            missing: Vec::new(),
        }
    };
    vec![
        case(
            "A → B → C → D, three attempts each, D fails",
            1.0,
            3,
            vec![(Amplification, AtMost(1.1))],
        ),
        case(
            "… two attempts each, D fails 30 %",
            0.3,
            2,
            vec![(Success, AtLeast(0.999)), (Amplification, Bound::None)],
        ),
    ]
}

fn deadlines() -> Vec<Case> {
    /// It does not notice that its caller has gone, as most do not.
    const SLOW: Plan = Plan {
        takes: Takes::Exponential {
            mean: Duration::from_millis(150),
        },
        abandoned: Abandoned::GoesOn,
        ..QUICK
    };
    let ask = |deadline| Ask {
        deadline,
        attempts: 1,
        ..ASK
    };
    vec![Case {
        experiment: "G10",
        name: "200 ms for three hops; the second takes 150 ms in the mean",
        script: Script::Chain(Chain {
            asks: [
                ask(Duration::from_millis(200)),
                ask(Duration::from_secs(15)),
            ],
            apps: &[QUICK, SLOW, QUICK],
            rate: CHAIN_RATE,
            fault: Fault::None,
        }),
        figures: vec![
            (BegunTooLate, AtMost(0.001)),
            (ToldAfterDeadline, AtMost(5.0)),
        ],
        missing: Vec::new(),
    }]
}

fn storm() -> Vec<Case> {
    let case = |name, abandoned, place, recovered| Case {
        experiment: "G5",
        name,
        script: Script::Outage(Outage {
            ask: Ask {
                inbound: match place {
                    Place::Both => APP.ask.inbound,
                    _ => "",
                },
                ..STORM.ask
            },
            plan: Plan {
                abandoned,
                ..STORM.plan
            },
            place,
            after: match place {
                Place::Both => Duration::from_secs(15),
                _ => STORM.after,
            },
            ..STORM
        }),
        figures: vec![
            (Recovered, AtMost(recovered)),
            (Amplification, AtMost(1.05)),
            (WorstAmplification, AtMost(1.10)),
        ],
        missing: Vec::new(),
    };
    let (alone, both) = (Place::Callers, Place::Both);
    let (done, stopped) = (Abandoned::GoesOn, Abandoned::Stops);
    vec![
        case(
            "10 s at a fifth of the capacity; dead work is done",
            done,
            alone,
            40.0,
        ),
        case("… dead work is stopped", stopped, alone, 40.0),
        case(
            "… dead work is done, a sidecar before the app, too",
            done,
            both,
            5.0,
        ),
        case(
            "… dead work is stopped, a sidecar before the app, too",
            stopped,
            both,
            5.0,
        ),
    ]
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
