//! The inbound sidecar against an app that has more to do than it can: G6, G6b, G6c and G7 of resilience.md section 12.
//!
//! ```text
//!   sources (a caller, a tier, a pattern) ─▶ weir_proxy::policy::admission ─▶ server: 1000 requests a second
//! ```
//!
//! Everybody waits for a second, or for as long as is said, and goes. What is refused is not repeated.

use std::collections::HashMap;
use std::ops::Range;
use std::time::Duration;

use tokio::time::Instant;
use weir_proxy::policy::admission::{Admission, Arrival, Config as Limits, Entry, Place, Reason};
use weir_proxy::policy::fair::WaiterId;
use weir_proxy::policy::knee::{Bounds, Ended};
use weir_proxy::policy::priority::{COHORTS, Priority, Tier};

use crate::engine::Engine;
use crate::record::{End, Record, Second};
use crate::seeds::{Measure, at_least, at_most, judge};
use crate::server::{Answer, Config, Discipline, Job, Server, Work};
use crate::traffic::{Pattern, Traffic};

const CAPACITY: f64 = 1000.0;

fn limits() -> Limits {
    Limits {
        in_flight_max: 2000,
        streams_max: 1000,
        queue_length_max: 100,
        wait_max: Duration::from_millis(100),
        adaptive: Bounds { min: 4, max: 2000 },
        enforced: true,
    }
}

/// Somebody who calls.
struct Source {
    caller: u64,
    tier: Tier,
    traffic: Traffic,
    /// Arrivals of an earlier rate are not heard any more.
    epoch: u32,
    record: Record,
}

enum Event {
    Arrival { source: usize, epoch: u32 },
    Server(Instant),
    WaitedEnough(Job),
    LostPatience(Job),
    Change(usize),
}

type Change = Box<dyn Fn(&mut World)>;

struct World {
    engine: Engine<Event>,
    server: Server,
    admission: Admission<Job>,
    /// How long callers wait for an answer.
    patience: Duration,
    sources: Vec<Source>,
    all: Record,
    jobs: HashMap<Job, At>,
    next_job: Job,
    /// When the server is looked at next.
    announced: Option<Instant>,
    changes: Vec<Change>,
}

struct At {
    source: usize,
    arrived: Instant,
    stage: Stage,
}

#[derive(Clone, Copy)]
enum Stage {
    Waits(WaiterId),
    InApp(Place, Instant),
}

impl World {
    fn new(seed: u64, config: Config) -> Self {
        let engine = Engine::new(seed);
        let now = engine.now();
        Self {
            server: Server::new(config, now),
            admission: Admission::new(limits(), now),
            patience: Duration::from_secs(1),
            sources: Vec::new(),
            all: Record::new(now, 1),
            jobs: HashMap::new(),
            next_job: 0,
            announced: None,
            changes: Vec::new(),
            engine,
        }
    }

    fn source(
        &mut self,
        caller: u64,
        tier: Tier,
        pattern: Pattern,
        share_of_capacity: f64,
    ) -> usize {
        let source = self.sources.len();
        self.sources.push(Source {
            caller,
            tier,
            traffic: Traffic::new(pattern, share_of_capacity * CAPACITY),
            epoch: 0,
            record: Record::new(self.engine.moment(Duration::ZERO), 1),
        });
        self.next_arrival(source);
        source
    }

    fn set_rate(&mut self, source: usize, share_of_capacity: f64) {
        let of = &mut self.sources[source];
        of.traffic = Traffic::new(of.traffic.pattern, share_of_capacity * CAPACITY);
        of.epoch += 1;
        self.next_arrival(source);
    }

    fn at(&mut self, second: u64, change: impl Fn(&mut World) + 'static) {
        let at = self.engine.moment(Duration::from_secs(second));
        self.engine.at(at, Event::Change(self.changes.len()));
        self.changes.push(Box::new(change));
    }

    fn run(mut self, seconds: u64) -> Self {
        let until = self.engine.moment(Duration::from_secs(seconds));
        while let Some(event) = self.engine.next_before(until) {
            match event {
                Event::Arrival { source, epoch } if epoch == self.sources[source].epoch => {
                    self.next_arrival(source);
                    self.arrive(source);
                }
                Event::Arrival { .. } => {}
                Event::Server(at) if self.announced == Some(at) => {
                    self.announced = None;
                    self.answers();
                }
                Event::Server(_) => {} // it had something to say earlier
                Event::WaitedEnough(job) => self.waited_enough(job),
                Event::LostPatience(job) => self.lost_patience(job),
                Event::Change(change) => {
                    let change = std::mem::replace(&mut self.changes[change], Box::new(|_| ()));
                    change(&mut self);
                }
            }
            self.decide();
            self.look_at_server();
        }
        self
    }

    fn next_arrival(&mut self, source: usize) {
        let of = &mut self.sources[source];
        let (gap, epoch) = (of.traffic.gap(&mut self.engine.rng), of.epoch);
        self.engine.after(gap, Event::Arrival { source, epoch });
    }

    fn arrive(&mut self, source: usize) {
        let now = self.engine.now();
        let of = &mut self.sources[source];
        of.record.offered(now);
        self.all.offered(now);
        let arrival = Arrival {
            priority: Priority {
                tier: of.tier,
                cohort: self.engine.rng.u8(..COHORTS),
            },
            caller: of.caller,
            patience: Some(self.patience),
            stream: false,
        };
        let job = self.next_job;
        self.next_job += 1;
        let stage = match self.admission.arrive(arrival, now, || job) {
            Entry::Admitted(place) => {
                self.server.arrive(job, now, &mut self.engine.rng);
                Stage::InApp(place, now)
            }
            Entry::Queued { id, until } => {
                self.engine.at(until, Event::WaitedEnough(job));
                Stage::Waits(id)
            }
            Entry::Shed(_) => return self.ended(source, now, End::Refused),
        };
        self.engine.after(self.patience, Event::LostPatience(job));
        let arrived = now;
        self.jobs.insert(
            job,
            At {
                source,
                arrived,
                stage,
            },
        );
    }

    fn decide(&mut self) {
        let now = self.engine.now();
        for decision in self.admission.take_decisions() {
            let job = decision.who;
            match decision.verdict {
                Ok(place) => {
                    let at = self.jobs.get_mut(&job).expect("it waits");
                    at.stage = Stage::InApp(place, now);
                    self.server.arrive(job, now, &mut self.engine.rng);
                }
                Err(_) => self.forget(job, End::Refused),
            }
        }
    }

    fn answers(&mut self) {
        let now = self.engine.now();
        while let Some((job, answer)) = self.server.finished(now) {
            let Some(At {
                stage: Stage::InApp(place, since),
                ..
            }) = self.jobs.get(&job)
            else {
                continue; // dead work
            };
            let (ended, end) = match answer {
                Answer::Good => (Ended::Answered, End::Success),
                Answer::Bad => (Ended::Failed, End::Failure),
            };
            self.admission.leave(*place, now - *since, ended, now);
            self.forget(job, end);
        }
    }

    fn waited_enough(&mut self, job: Job) {
        if let Some(At {
            stage: Stage::Waits(id),
            ..
        }) = self.jobs.get(&job)
            && self.admission.give_up(*id, Some(Reason::QueueTimeout))
        {
            self.forget(job, End::Refused);
        }
    }

    fn lost_patience(&mut self, job: Job) {
        let now = self.engine.now();
        match self.jobs.get(&job).map(|at| at.stage) {
            Some(Stage::InApp(place, since)) => {
                self.server.cancel(job, now);
                self.admission
                    .leave(place, now - since, Ended::GivenUp, now);
            }
            Some(Stage::Waits(id)) => {
                self.admission.give_up(id, None);
            }
            None => return,
        }
        self.forget(job, End::Failure);
    }

    fn forget(&mut self, job: Job, end: End) {
        let at = self.jobs.remove(&job).expect("it is known");
        self.ended(at.source, at.arrived, end);
    }

    fn ended(&mut self, source: usize, arrived: Instant, end: End) {
        let now = self.engine.now();
        self.all.ended(arrived, now, end);
        self.sources[source].record.ended(arrived, now, end);
    }

    fn look_at_server(&mut self) {
        if let Some(due) = self.server.due()
            && self.announced.is_none_or(|announced| due < announced)
        {
            self.announced = Some(due);
            self.engine.at(due, Event::Server(due));
        }
    }
}

/// Mean and worst second of what is completed, of what could be.
fn goodput(record: &Record, seconds: Range<u64>, capacity: f64) -> (f64, f64) {
    let all = record.seconds(seconds);
    let each = || all.iter().map(|second| second.completed as f64 / capacity);
    (
        each().sum::<f64>() / all.len() as f64,
        each().fold(f64::INFINITY, f64::min),
    )
}

fn admitted(second: &Second) -> f64 {
    1.0 - second.refused_share()
}

fn server(discipline: Discipline) -> Config {
    Config {
        discipline,
        ..Config::default()
    }
}

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

/// G5, a sidecar before the app: four fifths of the capacity are gone for ten seconds, callers give up after half a second, and the
/// app goes on with what nobody waits for any more. Once it has a queue of that kind nobody gets an answer in time.
#[test]
fn g5_a_storm_of_callers_that_give_up() {
    let config = Config {
        keeps_dead_work: true,
        ..server(Discipline::Fifo)
    };
    judge("g5_a_storm_of_callers_that_give_up", |seed| {
        let mut world = World::new(seed, config);
        world.patience = Duration::from_millis(500);
        world.source(1, Tier::Default, Pattern::Poisson, 0.8);
        world.at(10, move |world| {
            let now = world.engine.now();
            world.server.set_slowdown(5.0, now);
        });
        world.at(20, move |world| {
            let now = world.engine.now();
            world.server.set_slowdown(1.0, now);
        });
        let all = world.run(32).all;
        let (goodput, _) = goodput(&all, 11..20, CAPACITY / 5.0);
        let after = all.seconds(20..31);
        let last_bad = after.iter().rposition(|second| second.success() < 0.99);
        vec![
            at_least("goodput of the capacity that is left", goodput, 0.7).instead_of(0.9),
            at_most(
                "99 % again after (s)",
                last_bad.map_or(0.0, |second| second as f64 + 1.0),
                5.0,
            ),
        ]
    });
}

/// G6b: what the app calls takes 60 ms instead of 10, and nothing has lost capacity. Gradient2 rejects 53 % here. The worst
/// second of 9 of 200 seeds is below 0.70 (median 0.79): one in which the limit is cut to find out what cutting costs.
#[test]
fn g6b_a_slow_dependency_is_no_overload() {
    let config = Config {
        dependency: Duration::from_millis(10),
        ..server(Discipline::ProcessorSharing)
    };
    judge("g6b_a_slow_dependency_is_no_overload", |seed| {
        let mut world = World::new(seed, config);
        world.source(1, Tier::Default, Pattern::Poisson, 0.7);
        world.at(10, |world| {
            world.server.set_dependency(Duration::from_millis(60))
        });
        let all = world.run(71).all;
        let worst = all.seconds(10..70).iter().map(admitted).fold(1.0, f64::min);
        vec![
            at_most("rejected", all.over(10..70).refused_share(), 0.015),
            at_least("admitted, worst second", worst, 0.62).instead_of(0.70),
        ]
    });
}

/// G6c: three quarters of the capacity are lost. Goodput varies by 1.2 % in itself over 30 s of 250 a second. The p99 of
/// the median seed is 204 ms; in the worst the verdict takes chance for a slower service, and takes it back only by a probe.
#[test]
fn g6c_a_loss_of_capacity_is_overload() {
    judge("g6c_a_loss_of_capacity_is_overload", |seed| {
        let mut world = World::new(seed, server(Discipline::ProcessorSharing));
        world.source(1, Tier::Default, Pattern::Poisson, 0.7);
        world.at(10, |world| {
            let now = world.engine.now();
            world.server.set_permits(2, now);
        });
        let all = world.run(41).all;
        let (mean, _) = goodput(&all, 10..40, CAPACITY / 4.0);
        vec![
            at_least("goodput of what is left", mean, 0.965).instead_of(0.98),
            at_most(
                "p99 of those admitted (ms)",
                all.over(10..40).quantile(0.99),
                650.0,
            )
            .instead_of(300.0),
        ]
    });
}

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
                    1.6,
                )
                .instead_of(1.3),
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

/// The same on an app of one core, which few and long requests fill: taking the critical first is not enough there.
#[test]
fn g7_what_matters_gets_through_where_requests_are_few_and_long() {
    judge(
        "g7_what_matters_gets_through_where_requests_are_few_and_long",
        |seed| {
            let config = Config {
                permits: 1,
                ..server(Discipline::ProcessorSharing)
            };
            let mut world = World::new(seed, config);
            let capacity = 1.0 / 8.0; // of what CAPACITY says
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
            vec![
                at_least(
                    "success of the critical",
                    record.over(7..26).success(),
                    0.98,
                )
                .instead_of(0.999),
                at_least(
                    "goodput of capacity",
                    goodput(&world.all, 8..26, CAPACITY * capacity).0,
                    0.92,
                )
                .instead_of(0.95),
            ]
        },
    );
}
