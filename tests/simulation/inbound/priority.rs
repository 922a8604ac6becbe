//! G7: who gets through when not all can.

use weir_proxy::policy::priority::Tier;

use super::world::{CAPACITY, World};
use super::{goodput, server};
use crate::seeds::{at_least, at_most, judge};
use crate::server::{Config, Discipline};
use crate::traffic::Pattern;

/// G7: critical requests at half of the capacity, and sheddable ones that grow to twelve times of it.
#[test]
fn g7_what_matters_gets_through_a_flood_of_what_does_not() {
    judge(
        "g7_what_matters_gets_through_a_flood_of_what_does_not",
        |seed| {
            let mut world = World::new(seed, server(Discipline::Fifo));
            let critical = world.source(1, Tier::Critical, Pattern::Poisson, 0.5);
            let sheddable = world.source(1, Tier::Sheddable, Pattern::Poisson, 0.01);
            for step in 1..=3 {
                world.at(5 + step, move |world| {
                    world.set_rate(sheddable, 4.0 * step as f64)
                });
            }
            let world = world.run(11);
            let record = &world.sources[critical].record;
            let (before, during) = (record.over(1..6), record.over(6..10));
            vec![
                at_least("success of the critical", during.success(), 0.999),
                at_most(
                    "their p99, of before",
                    during.quantile(0.99) / before.quantile(0.99),
                    1.3,
                ),
                at_least(
                    "goodput of capacity",
                    goodput(&world.all, 7..10, CAPACITY).0,
                    0.93,
                )
                .instead_of(0.95),
            ]
        },
    );
}

/// G7, second run: one caller floods with ten times its share, nine stay below theirs.
#[test]
fn g7_polite_callers_get_what_they_want_beside_one_that_floods() {
    judge(
        "g7_polite_callers_get_what_they_want_beside_one_that_floods",
        |seed| {
            let mut world = World::new(seed, server(Discipline::Fifo));
            let polite: Vec<usize> = (1..=9)
                .map(|caller| world.source(caller, Tier::Default, Pattern::Poisson, 0.07))
                .collect();
            let flood = world.source(10, Tier::Default, Pattern::Poisson, 0.07);
            world.at(3, move |world| world.set_rate(flood, 1.0));
            let world = world.run(12);
            let success = |source: &usize| world.sources[*source].record.over(3..11).success();
            vec![
                at_least(
                    "success of the worst polite caller",
                    polite.iter().map(success).fold(1.0, f64::min),
                    0.97,
                )
                .instead_of(0.99),
                at_least(
                    "goodput of capacity",
                    goodput(&world.all, 4..11, CAPACITY).0,
                    0.95,
                ),
            ]
        },
    );
}

/// A flood that grows every second, on an app of so many cores. Of the critical requests: success, and p99 by what it was before.
fn flood(seed: u64, cores: u32) -> [f64; 3] {
    let config = Config {
        permits: cores,
        ..server(Discipline::ProcessorSharing)
    };
    let mut world = World::new(seed, config);
    let capacity = f64::from(cores) / 8.0; // of what CAPACITY says
    let critical = world.source(1, Tier::Critical, Pattern::Poisson, 0.5 * capacity);
    let sheddable = world.source(1, Tier::Sheddable, Pattern::Poisson, 0.1 * capacity);
    for second in 0..20 {
        let share = 0.1 + 12.0 * (second + 1) as f64 / 20.0;
        world.at(6 + second, move |world| {
            world.set_rate(sheddable, share * capacity)
        });
    }
    let world = world.run(28);
    let record = &world.sources[critical].record;
    let (before, during) = (record.over(1..6), record.over(7..26));
    let slower = during.quantile(0.99) / before.quantile(0.99);
    let goodput = goodput(&world.all, 8..26, CAPACITY * capacity).0;
    [during.success(), slower, goodput]
}

/// The same on an app of three cores that all share: whoever is in the app with it slows it.
#[test]
fn g7_what_matters_is_not_slowed_by_what_does_not() {
    judge("g7_what_matters_is_not_slowed_by_what_does_not", |seed| {
        let [success, slower, goodput] = flood(seed, 3);
        vec![
            at_least("success of the critical", success, 0.999),
            at_most("their p99, of before", slower, 1.8).instead_of(1.3),
            at_least("goodput of capacity", goodput, 0.85).instead_of(0.95),
        ]
    });
}

/// And of one core, which few and long requests fill: taking the critical first is not enough there.
#[test]
fn g7_what_matters_gets_through_where_requests_are_few_and_long() {
    judge(
        "g7_what_matters_gets_through_where_requests_are_few_and_long",
        |seed| {
            let [success, slower, goodput] = flood(seed, 1);
            vec![
                at_least("success of the critical", success, 0.985).instead_of(0.999),
                at_most("their p99, of before", slower, 3.0).instead_of(1.3),
                at_least("goodput of capacity", goodput, 0.93).instead_of(0.95),
            ]
        },
    );
}
