//! More than an app can do: G5, G6, G7.

use std::time::Duration;

use super::{APP, ASK, Case, OUTAGE, REPLICA, Script, small_app};
use crate::figure::Figure::*;
use crate::judge::Bound::{self, AtLeast, AtMost};
use crate::outage::{Breakage, Others, Outage, Place};
use crate::replica::{Abandoned, Fault, Plan, Work};
use crate::schedule::Arrivals;
use crate::station::Takes;
use crate::subject::Ask;

pub(super) fn surges() -> Vec<Case> {
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

pub(super) fn priority_and_fairness() -> Vec<Case> {
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
    breakage: Breakage::One(Fault::Cut(0.2)),
    fault: Duration::from_secs(10),
    after: Duration::from_secs(45),
    ..OUTAGE
};

pub(super) fn storm() -> Vec<Case> {
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
