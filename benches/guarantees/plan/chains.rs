//! Apps that call apps: G8, G10.

use std::time::Duration;

use super::{ASK, Case, Script};
use crate::chain::Chain;
use crate::figure::Figure::*;
use crate::judge::Bound::{self, AtLeast, AtMost};
use crate::replica::{Abandoned, Fault, Plan, Work};
use crate::station::Takes;
use crate::subject::Ask;

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

pub(super) fn layered_retries() -> Vec<Case> {
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

pub(super) fn deadlines() -> Vec<Case> {
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
