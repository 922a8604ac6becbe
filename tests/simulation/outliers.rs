//! Few endpoints, many, none; few requests; callers that leave; clocks that jump; and what holds whatever happens.

use std::time::Duration;

use weir_proxy::policy::transition::Phase;

use crate::plan::Plan;
use crate::seeds::{at_least, at_most, judge};
use crate::server::{Fault, Server};
use crate::traffic::{Pattern, Traffic};
use crate::world::World;

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

const FAST_FAILURE: Fault = Fault::Failing {
    share: 1.0,
    after: Duration::from_millis(1),
};

fn plan(servers: usize, clients: usize, rate: f64) -> Plan {
    Plan {
        clients,
        tiers: vec![servers],
        traffic: Traffic::new(Pattern::Poisson, rate),
        ..Plan::default()
    }
}

fn set(world: &mut World, servers: std::ops::Range<usize>, fault: Fault) {
    for server in servers {
        world.change(server, |server, now| server.set_fault(fault, now));
    }
}

fn ejections(world: &World) -> f64 {
    let ejections: usize = world.sidecars.iter().map(|s| s.ejections().count()).sum();
    ejections as f64
}

#[test]
fn the_only_endpoint_is_never_ejected_and_serves_at_once_when_it_heals() {
    judge("the_only_endpoint_is_never_ejected", |seed| {
        let mut world = World::new(plan(1, 3, 100.0), seed);
        world.run_until(secs(3));
        set(&mut world, 0..1, FAST_FAILURE);
        world.run_until(secs(10));
        set(&mut world, 0..1, Fault::None);
        world.run_until(secs(15));
        let reports: usize = world.sidecars.iter().map(|s| s.moves.len()).sum();
        vec![
            at_most("ejections", ejections(&world), 0.0),
            at_least("sidecars that say what they would do", reports as f64, 3.0),
            at_least("success at once", world.record.over(10..14).success(), 1.0),
        ]
    });
}

#[test]
fn without_endpoints_every_call_is_refused() {
    judge("without_endpoints_every_call_is_refused", |seed| {
        let mut world = World::new(plan(0, 3, 100.0), seed);
        world.run_until(secs(3));
        world.settle();
        let all = world.record.over(0..9);
        vec![
            at_least("offered", all.offered as f64, 200.0),
            at_least("refused", all.refused_share(), 1.0),
        ]
    });
}

#[test]
fn when_all_endpoints_fail_half_of_them_stay_and_all_are_back_soon_after() {
    judge("when_all_endpoints_fail", |seed| {
        let mut world = World::new(plan(4, 3, 300.0), seed);
        world.run_until(secs(3));
        set(&mut world, 0..4, FAST_FAILURE);
        let mut most = 0;
        for tenth in 30..200 {
            world.run_until(Duration::from_millis(tenth * 100));
            most = most.max(world.sidecars.iter().map(|s| s.open()).max().unwrap_or(0));
        }
        set(&mut world, 0..4, Fault::None);
        world.run_until(secs(26));
        let during = world.record.over(3..20);
        vec![
            at_most("out at once", most as f64, 2.0),
            at_most("attempts for each request", during.amplification(), 1.1),
            at_least("success at once", world.record.over(20..25).success(), 1.0),
        ]
    });
}

/// The request that is lost now and then met two of them, one with each of its tries.
#[test]
fn ten_black_holes_among_five_hundred_endpoints() {
    judge("ten_black_holes_among_five_hundred_endpoints", |seed| {
        let mut world = World::new(plan(500, 1, 1000.0), seed);
        world.run_until(secs(2));
        set(&mut world, 0..10, Fault::BlackHole);
        world.run_until(secs(10));
        set(&mut world, 0..10, Fault::None);
        world.run_until(secs(12));
        let during = world.record.over(2..10);
        vec![
            at_least("success", during.success(), 0.9995),
            at_most("p99 (ms)", during.quantile(0.99), 80.0),
        ]
    });
}

#[test]
fn two_requests_a_second_are_enough_to_avoid_a_black_hole_and_to_take_it_back() {
    judge("two_requests_a_second", |seed| {
        let mut world = World::new(plan(3, 2, 2.0), seed);
        world.run_until(secs(30));
        set(&mut world, 0..1, Fault::BlackHole);
        world.run_until(secs(150));
        set(&mut world, 0..1, Fault::None);
        world.run_until(secs(300));
        let during = world.record.over(30..150);
        let closed = world.sidecars.iter().all(|s| s.open() == 0);
        vec![
            at_least("success", during.success(), 0.99),
            at_least(
                "every gate is closed in the end",
                f64::from(u8::from(closed)),
                1.0,
            ),
        ]
    });
}

/// Slow calls, one at a time, at an endpoint that is awake: the others answer all the while.
#[test]
fn a_slow_endpoint_that_few_call_is_not_taken_for_a_black_hole() {
    judge("a_slow_endpoint_that_few_call", |seed| {
        let mut world = World::new(plan(3, 1, 6.0), seed);
        world.run_until(secs(20));
        world.change(0, |server: &mut Server, now| server.set_slowdown(20.0, now));
        world.run_until(secs(60));
        vec![at_most("ejections", ejections(&world), 0.0)]
    });
}

/// Nobody else is answered while the only call waits, and where none has come for five seconds it is not known what is
/// slow: then three quarters of what a try may take are.
#[test]
fn one_call_a_second_is_enough_to_notice_a_black_hole_before_any_call_fails() {
    judge("one_call_a_second", |seed| {
        let mut world = World::new(plan(3, 1, 1.0), seed);
        world.run_until(secs(20));
        set(&mut world, 0..1, Fault::BlackHole);
        world.run_until(secs(82));
        let during = world.record.over(20..80);
        vec![
            at_least("success", during.success(), 1.0),
            at_most("slowest (ms)", during.quantile(1.0), 0.75 * 500.0 + 80.0),
            at_least("ejections", ejections(&world), 1.0),
        ]
    });
}

#[test]
fn callers_that_hang_up_eject_nobody_and_leave_nothing_behind() {
    judge("callers_that_hang_up", |seed| {
        let plan = Plan {
            hang_up: Some((0.5, Duration::from_millis(5))),
            ..plan(3, 3, 500.0)
        };
        let mut world = World::new(plan, seed);
        world.run_until(secs(10));
        let served = world.record.over(0..10);
        world.settle();
        let held: usize = world.sidecars.iter().map(|s| s.in_flight()).sum();
        vec![
            at_most("ejections", ejections(&world), 0.0),
            at_most("failures", served.failed as f64, 0.0),
            at_most("calls still in flight", (held + world.load()) as f64, 0.0),
        ]
    });
}

#[test]
fn a_clock_that_jumps_forward_costs_what_was_in_flight_and_no_more() {
    judge("a_clock_that_jumps_forward", |seed| {
        let mut world = World::new(plan(3, 5, 500.0), seed);
        world.run_until(secs(5));
        world.jump(secs(60));
        world.run_until(secs(80));
        let after = world.record.over(66..79);
        let closed = world.sidecars.iter().all(|s| s.open() == 0);
        vec![
            at_least("success a second later", after.success(), 0.9999),
            at_most("p99 (ms)", after.quantile(0.99), 80.0),
            at_least(
                "every gate is closed in the end",
                f64::from(u8::from(closed)),
                1.0,
            ),
        ]
    });
}

/// Whatever breaks, in whatever order: never more gates open than may be, nothing spent that was not earned, and once
/// all is well again every gate closes and nothing is held.
#[test]
fn after_any_script_of_faults_every_gate_closes_again() {
    judge(
        "after_any_script_of_faults_every_gate_closes_again",
        |seed| {
            let mut dice = fastrand::Rng::with_seed(seed ^ 0x5eed);
            let servers = dice.usize(1..=6);
            let mut world = World::new(plan(servers, dice.usize(1..=4), 100.0), seed);
            let (mut most_beyond, mut all_out) = (0, 0);
            for half in 1..=60 {
                world.run_until(Duration::from_millis(half * 500));
                for sidecar in &world.sidecars {
                    most_beyond =
                        most_beyond.max(sidecar.open().saturating_sub(sidecar.open_max()));
                    all_out += usize::from(sidecar.open() == servers);
                }
                let server = dice.usize(..servers);
                let slowdown = [1.0, 1.0, 10.0][dice.usize(..3)];
                let fault = match dice.u32(..6) {
                    0 => Fault::BlackHole,
                    1 => Fault::Refusing,
                    2 => FAST_FAILURE,
                    3 => Fault::Failing {
                        share: 0.5,
                        after: Duration::from_millis(20),
                    },
                    _ => Fault::None,
                };
                world.change(server, |server: &mut Server, now| {
                    server.set_fault(fault, now);
                    server.set_slowdown(slowdown, now);
                });
            }
            set(&mut world, 0..servers, Fault::None);
            for server in 0..servers {
                world.change(server, |server, now| server.set_slowdown(1.0, now));
            }
            // The longest open time, its probes, and the ramp.
            world.run_until(secs(30 + 30 + 2 + 10));
            let members = || world.sidecars.iter().flat_map(|s| &s.members);
            let not_closed = members().filter(|m| m.phase() != Phase::Closed).count();
            world.run_until(secs(75));
            world.settle();
            let overdrawn = world.sidecars.iter().map(|sidecar| {
                let account = sidecar.account;
                let spent = account.retries as f64 + 0.1 * account.transparent as f64;
                let earned = 10.0 + 0.2 * 80.0 + 0.1 * account.deposits as f64;
                spent - earned
            });
            let held: usize = world.sidecars.iter().map(|s| s.in_flight()).sum();
            vec![
                at_most("gates open beyond the cap", most_beyond as f64, 0.0),
                at_most("moments with every gate open", all_out as f64, 0.0),
                at_most("gates not closed in the end", not_closed as f64, 0.0),
                at_most(
                    "tokens spent beyond what was earned",
                    overdrawn.fold(-1e9, f64::max),
                    0.0,
                ),
                at_most("calls still in flight", (held + world.load()) as f64, 0.0),
            ]
        },
    );
}
