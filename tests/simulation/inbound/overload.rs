//! G6: three times what the app can do.

use std::time::Duration;

use weir_proxy::policy::priority::Tier;

use super::world::{CAPACITY, World};
use super::{goodput, server};
use crate::seeds::{Measure, at_least, at_most, judge};
use crate::server::{Config, Discipline, Work};
use crate::traffic::Pattern;

/// What an overload of three times the capacity must not do, and how much of it may.
struct Overload {
    goodput: Measured,
    worst_second: Measured,
    p99: Measured,
    false_rejects: Measured,
}

/// What holds, where that is not the target.
#[derive(Default)]
struct Measured(Option<f64>);

impl Measured {
    const TARGET: Self = Self(None);

    fn at_least(self, what: &'static str, value: f64, target: f64) -> Measure {
        match self.0 {
            None => at_least(what, value, target),
            Some(holds) => at_least(what, value, holds).instead_of(target),
        }
    }

    fn at_most(self, what: &'static str, value: f64, target: f64) -> Measure {
        match self.0 {
            None => at_most(what, value, target),
            Some(holds) => at_most(what, value, holds).instead_of(target),
        }
    }
}

/// 0.7 of the capacity, three times as much as there is, 0.7 again.
fn overload(
    seed: u64,
    config: Config,
    pattern: Pattern,
    bounds: Overload,
    rejects: f64,
) -> Vec<Measure> {
    // Bursts are few: what is refused between them needs a longer look.
    let calm = if matches!(pattern, Pattern::Bursts(_)) {
        40
    } else {
        10
    };
    let mut world = World::new(seed, config);
    let source = world.source(1, Tier::Default, pattern, 0.7);
    world.at(calm, move |world| world.set_rate(source, 3.0));
    world.at(calm + 20, move |world| world.set_rate(source, 0.7));
    let all = world.run(calm + 32).all;
    let full = calm..calm + 20;
    let (mean, worst) = goodput(&all, full.clone(), CAPACITY);
    let (before, after) = (all.over(1..calm), all.over(calm + 21..calm + 31));
    let share = |part: u64, whole: u64| part as f64 / whole as f64;
    let refused = share(
        before.refused + after.refused,
        before.offered + after.offered,
    );
    let p99 = all.over(full).quantile(0.99);
    vec![
        bounds.goodput.at_least("goodput of capacity", mean, 0.95),
        bounds
            .worst_second
            .at_least("the same, worst second", worst, 0.90),
        bounds.p99.at_most("p99 of those admitted (ms)", p99, 300.0),
        bounds
            .false_rejects
            .at_most("rejects at 0.7 of the capacity", refused, rejects),
    ]
}

/// G6. The worst second is judged by completions, and those of an ideal server vary too: exponential work makes 3.2 % of
/// standard deviation a second, so the worst of 1400 seconds is 0.88 without anybody's fault.
#[test]
fn g6_overload_of_an_event_loop() {
    let config = server(Discipline::ProcessorSharing);
    let bounds = || Overload {
        goodput: Measured::TARGET,
        worst_second: Measured(Some(0.85)),
        p99: Measured::TARGET,
        false_rejects: Measured::TARGET,
    };
    judge("g6_overload_of_an_event_loop", |seed| {
        overload(seed, config, Pattern::Poisson, bounds(), 0.001)
    });
}

#[test]
fn g6_overload_of_a_thread_pool() {
    let config = Config {
        keeps_dead_work: true,
        ..server(Discipline::Fifo)
    };
    let bounds = || Overload {
        goodput: Measured::TARGET,
        worst_second: Measured(Some(0.85)),
        p99: Measured::TARGET,
        false_rejects: Measured::TARGET,
    };
    judge("g6_overload_of_a_thread_pool", |seed| {
        overload(seed, config, Pattern::Poisson, bounds(), 0.001)
    });
}

#[test]
fn g6_overload_of_a_server_that_thrashes() {
    let config = Config {
        thrashes_above: Some(64),
        ..server(Discipline::ProcessorSharing)
    };
    let bounds = || Overload {
        goodput: Measured::TARGET,
        worst_second: Measured(Some(0.85)),
        p99: Measured::TARGET,
        false_rejects: Measured::TARGET,
    };
    judge("g6_overload_of_a_server_that_thrashes", |seed| {
        overload(seed, config, Pattern::Poisson, bounds(), 0.001)
    });
}

/// 2 ms or 62 ms, one in ten: the work of a second varies by 7 %, so an ideal server has a worst second of 0.75. Ten windows
/// of chance in a row look like a queue in the worst of 200 seeds; the median p99 is 159 ms, and nobody is refused.
#[test]
fn g6_overload_with_bimodal_work() {
    let config = Config {
        work: Work::Bimodal(Duration::from_millis(2), Duration::from_millis(62), 0.1),
        ..server(Discipline::ProcessorSharing)
    };
    let bounds = || Overload {
        goodput: Measured::TARGET,
        worst_second: Measured(Some(0.75)),
        p99: Measured(Some(400.0)),
        false_rejects: Measured(Some(0.003)),
    };
    judge("g6_overload_with_bimodal_work", |seed| {
        overload(seed, config, Pattern::Poisson, bounds(), 0.001)
    });
}

#[test]
fn g6_overload_in_bursts_of_twenty() {
    let config = server(Discipline::ProcessorSharing);
    let bounds = || Overload {
        goodput: Measured::TARGET,
        worst_second: Measured(Some(0.85)),
        p99: Measured(Some(310.0)),
        false_rejects: Measured::TARGET,
    };
    judge("g6_overload_in_bursts_of_twenty", |seed| {
        overload(seed, config, Pattern::Bursts(20), bounds(), 0.03)
    });
}
