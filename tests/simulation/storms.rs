//! G5 and G8: retries that must not keep a service down, and must not multiply from hop to hop.

use std::time::Duration;

use crate::plan::{Plan, outbound};
use crate::record::Second;
use crate::seeds::{Measure, at_least, at_most, judge};
use crate::server::{Config, Discipline, Fault, Work};
use crate::traffic::{Pattern, Traffic};
use crate::world::World;

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// The trigger of the retry storms of OSDI'22 ("Metastable Failures in the Wild"): four fifths of the capacity are gone
/// for ten seconds.
const BEGINS: u64 = 5;
const ENDS: u64 = 15;

/// 800 requests a second on a capacity of 1000, by `servers` of them.
fn storm(servers: usize, keeps_dead_work: bool, admission: Option<u32>) -> Plan {
    let permits = 20 / servers as u32;
    Plan {
        tiers: vec![servers],
        traffic: Traffic::new(Pattern::Poisson, 800.0),
        server: Config {
            permits,
            work: Work::Exponential(Duration::from_millis(20)),
            discipline: Discipline::Fifo,
            keeps_dead_work,
            ..Config::default()
        },
        outbound: outbound(500),
        admission,
        ..Plan::default()
    }
}

struct Storm {
    /// Seconds from the end of the trigger until 99 % succeed, and go on doing so.
    recovery: f64,
    during: Second,
    worst_second: f64,
}

/// `watched`: so many seconds after the trigger.
fn survive(plan: Plan, watched: u64, seed: u64) -> Storm {
    let servers = plan.tiers[0];
    let mut world = World::new(plan, seed);
    world.run_until(secs(BEGINS));
    let permits = 20 / servers as u32;
    for server in 0..servers {
        world.change(server, |server, now| server.set_permits(permits / 5, now));
    }
    world.run_until(secs(ENDS));
    for server in 0..servers {
        world.change(server, |server, now| server.set_permits(permits, now));
    }
    world.run_until(secs(ENDS + watched + 1));
    let after = world.record.seconds(ENDS..ENDS + watched);
    let last_bad = after.iter().rposition(|second| second.success() < 0.99);
    let all = world.record.seconds(BEGINS..ENDS + watched);
    Storm {
        recovery: last_bad.map_or(0, |second| second + 1) as f64,
        during: world.record.over(BEGINS..ENDS),
        worst_second: all.iter().map(Second::amplification).fold(0.0, f64::max),
    }
}

fn measures(storm: &Storm, recovery: f64) -> Vec<Measure> {
    vec![
        at_most("recovers after (s)", storm.recovery, recovery),
        at_most(
            "attempts for each request during it",
            storm.during.amplification(),
            1.05,
        ),
        at_most("the same, in the worst second", storm.worst_second, 1.10),
    ]
}

/// G5, a server that works for callers who have left.
#[test]
fn g5_retry_storm_on_a_server_that_keeps_dead_work() {
    judge("g5_retry_storm_on_a_server_that_keeps_dead_work", |seed| {
        measures(&survive(storm(1, true, None), 45, seed), 40.0)
    });
}

#[test]
fn g5_retry_storm_on_a_server_that_cancels() {
    judge("g5_retry_storm_on_a_server_that_cancels", |seed| {
        measures(&survive(storm(1, false, None), 8, seed), 5.0)
    });
}

/// G5, the server has a sidecar that lets 32 in and lets few wait.
#[test]
fn g5_retry_storm_on_a_server_with_a_sidecar() {
    judge("g5_retry_storm_on_a_server_with_a_sidecar", |seed| {
        measures(&survive(storm(1, true, Some(32)), 8, seed), 5.0)
    });
}

/// All replicas of a service slow at once: ejecting one of them would only take capacity away.
#[test]
fn g5_retry_storm_on_four_replicas() {
    judge("g5_retry_storm_on_four_replicas", |seed| {
        measures(&survive(storm(4, false, None), 8, seed), 5.0)
    });
}

/// A → B → C → D, and D fails.
fn layered(failing: f64, carried: bool, seed: u64) -> (Second, f64) {
    let plan = Plan {
        clients: 3,
        tiers: vec![3, 3, 3],
        traffic: Traffic::new(Pattern::Poisson, 200.0),
        attempts_are_carried: carried,
        ..Plan::default()
    };
    let mut world = World::new(plan, seed);
    world.run_until(secs(BEGINS));
    for server in 6..9 {
        let fault = Fault::Failing {
            share: failing,
            after: Duration::from_millis(1),
        };
        world.change(server, |server, now| server.set_fault(fault, now));
    }
    let end = 35;
    world.run_until(secs(end + 1));
    let during = world.record.over(BEGINS..end);
    let at_d: u32 = (6..9)
        .flat_map(|server| world.record.sends(server, secs(BEGINS)..secs(end)))
        .sum();
    let calls = f64::from(at_d) / during.offered as f64;
    (during, calls)
}

/// G8. Budgets alone keep retries from multiplying; what the app hands on (that it serves a retry) only adds to that.
#[test]
fn g8_layered_retries_when_the_last_hop_fails() {
    judge("g8_layered_retries_when_the_last_hop_fails", |seed| {
        let (_, calls) = layered(1.0, true, seed);
        let (_, not_carried) = layered(1.0, false, seed);
        vec![
            at_most("calls at D for each of a user", calls, 1.1),
            at_most("the same, the app hands nothing on", not_carried, 1.1),
        ]
    });
}

/// G8, 30 % at random. Missed, as section 12 expects: with two attempts even a retry of every failure would leave 9 %
/// failing, and three layers of them would multiply the load on a service that is in trouble. What successes pay for
/// brings 70 % to more than 80 %; 99.9 % is not to be had from retries.
#[test]
fn g8_layered_retries_when_the_last_hop_fails_now_and_then() {
    judge(
        "g8_layered_retries_when_the_last_hop_fails_now_and_then",
        |seed| {
            let (during, calls) = layered(0.3, true, seed);
            vec![
                at_least("success", during.success(), 0.8).instead_of(0.999),
                at_most("calls at D for each of a user", calls, 1.3),
            ]
        },
    );
}
