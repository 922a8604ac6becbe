//! One or all of some replicas go wrong, or are replaced, or readers stop: G1 to G4, G9, G11, G12, G16.

use std::time::Duration;

use super::{APP, ASK, Case, OUTAGE, REPLICA, Script, small_app};
use crate::backpressure::Backpressure;
use crate::figure::Figure::*;
use crate::judge::Bound::{self, AtLeast, AtMost};
use crate::outage::{Breakage, Outage, Place};
use crate::replica::Fault;
use crate::rolling::Rolling;
use crate::subject::Ask;

pub(super) fn black_hole() -> Vec<Case> {
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

pub(super) fn partial() -> Vec<Case> {
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

pub(super) fn flapping() -> Vec<Case> {
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

pub(super) fn hedging() -> Vec<Case> {
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

pub(super) fn restarts() -> Vec<Case> {
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

pub(super) fn backpressure() -> Vec<Case> {
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
