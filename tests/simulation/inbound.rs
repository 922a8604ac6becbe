//! The inbound sidecar against an app that has more to do than it can: G6, G6b, G6c and G7 of resilience.md section 12.
//!
//! ```text
//!   sources (a caller, a tier, a pattern) ─▶ weir_proxy::policy::admission ─▶ server: 1000 requests a second
//! ```
//!
//! Everybody waits a second and goes. What is refused is not repeated.

use std::collections::HashMap;
use std::ops::Range;
use std::time::Duration;

use tokio::time::Instant;
use weir_proxy::policy::admission::{Admission, Arrival, Config as Limits, Entry, Place, Reason};
use weir_proxy::policy::fair::WaiterId;
use weir_proxy::policy::knee::{Bounds, Ended};
use weir_proxy::policy::priority::{COHORTS, Priority, Tier};

use crate::engine::Engine;
use crate::record::{End, Record};
use crate::server::{Answer, Config, Discipline, Job, Server, Work};
use crate::traffic::{Pattern, Traffic};

const CAPACITY: f64 = 1000.0;
const PATIENCE: Duration = Duration::from_secs(1);

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
    Server,
    WaitedEnough(Job),
    LostPatience(Job),
    Change(usize),
}

type Change = Box<dyn Fn(&mut World)>;

pub struct World {
    engine: Engine<Event>,
    server: Server,
    admission: Admission<Job>,
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
            sources: Vec::new(),
            all: Record::new(now, 1),
            jobs: HashMap::new(),
            next_job: 0,
            announced: None,
            changes: Vec::new(),
            engine,
        }
    }

    fn source(&mut self, caller: u64, tier: Tier, pattern: Pattern, share_of_capacity: f64) -> usize {
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
                Event::Server => {
                    self.announced = None;
                    self.answers();
                }
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
            patience: Some(PATIENCE),
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
        self.engine.after(PATIENCE, Event::LostPatience(job));
        let arrived = now;
        self.jobs.insert(job, At { source, arrived, stage });
    }

    fn decide(&mut self) {
        let now = self.engine.now();
        while let Some(decision) = self.admission.take_decision() {
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
            let Some(At { stage: Stage::InApp(place, since), .. }) = self.jobs.get(&job) else {
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
        if let Some(At { stage: Stage::Waits(id), .. }) = self.jobs.get(&job)
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
                self.admission.leave(place, now - since, Ended::Answered, now);
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
            self.engine.at(due, Event::Server);
        }
    }
}

fn goodput(record: &Record, seconds: Range<u64>, capacity: f64) -> (f64, f64) {
    let all = record.seconds(seconds);
    let each = || all.iter().map(|second| second.completed as f64 / capacity);
    (each().sum::<f64>() / all.len() as f64, each().fold(f64::INFINITY, f64::min))
}

fn server(discipline: Discipline) -> Config {
    Config { discipline, ..Config::default() }
}

const BIMODAL: Work = Work::Bimodal(Duration::from_millis(2), Duration::from_millis(62), 0.1);

pub fn explore() {
    let which = std::env::args().nth(1).unwrap_or_default();
    let seeds: u64 = std::env::args().nth(2).map_or(10, |n| n.parse().unwrap());
    let trace = std::env::var("TRACE").is_ok();
    let servers = [
        ("ps", server(Discipline::ProcessorSharing), Pattern::Poisson),
        ("fifo", server(Discipline::Fifo), Pattern::Poisson),
        ("thrash", Config { thrashes_above: Some(64), ..server(Discipline::ProcessorSharing) }, Pattern::Poisson),
        ("bimodal", Config { work: BIMODAL, ..server(Discipline::ProcessorSharing) }, Pattern::Poisson),
        ("burst", server(Discipline::ProcessorSharing), Pattern::Bursts(20)),
        ("keeps", Config { keeps_dead_work: true, ..server(Discipline::Fifo) }, Pattern::Poisson),
    ];
    for (name, config, pattern) in servers {
        if !which.split(',').any(|w| w == name || w == "g6") { continue; }
        let mut rows = Vec::new();
        let mut why = [0; 5];
        for seed in 0..seeds {
            let mut world = World::new(seed, config);
            world.source(1, Tier::Default, pattern, 0.7);
            world.at(10, |w| w.set_rate(0, 3.0));
            world.at(20, |w| w.set_rate(0, 0.7));
            if trace { for s in 0..60 { world.at(s/2, move |w| eprintln!("{s} L {} inflight {} queued {} B {:?}", w.admission.limit(), w.admission.in_flight(), w.admission.queued(), w.admission.baseline())); } }
            let world = world.run(30);
            let (mean, worst) = goodput(&world.all, 10..20, CAPACITY);
            let p99 = world.all.over(10..20).quantile(0.99);
            let before = world.all.over(1..10).refused_share();
            let after = world.all.over(21..30).refused_share();
            rows.push([mean, worst, -p99, -before, -after]);
            for (i, r) in world.admission.counts().shed[2].iter().enumerate() { why[i] += r; }
            if trace { let r:Vec<_> = world.all.seconds(8..30).iter().map(|s| (s.completed, s.refused, s.quantile(0.99) as u32)).collect(); eprintln!("{r:?}"); }
        }
        report(name, &["goodput", "worst s", "p99", "rej<", "rej>"], rows); println!("{why:?}");
    }
    for (name, config, pattern) in servers {
        if !which.split(',').any(|w| w == name || w == "low") { continue; }
        let mut rows = Vec::new();
        let mut why = [0; 5];
        for seed in 0..seeds {
            let mut world = World::new(seed, config);
            world.source(1, Tier::Default, pattern, 0.7);
            let world = world.run(30);
            for (i, r) in world.admission.counts().shed[2].iter().enumerate() { why[i] += r; }
            rows.push([-world.all.over(1..29).refused_share(), -world.all.over(1..29).quantile(0.99)]);
        }
        report(name, &["low: rej", "p99"], rows); println!("{why:?}");
    }
    for (name, slow, discipline) in [("g6b-ps", 50, Discipline::ProcessorSharing), ("g6b-fifo", 50, Discipline::Fifo)] {
        if !which.split(',').any(|w| w == name || w == "g6b") { continue; }
        let mut rows = Vec::new();
        for seed in 0..seeds {
            let mut world = World::new(seed, Config { dependency: Duration::from_millis(10), ..server(discipline) });
            world.source(1, Tier::Default, Pattern::Poisson, 0.7);
            world.at(20, move |w| w.server.set_dependency(Duration::from_millis(10 + slow)));
            if trace { for s in 0..60 { world.at(s/2+15, move |w| eprintln!("{} L {} inflight {} queued {} B {:?}", s/2+15, w.admission.limit(), w.admission.in_flight(), w.admission.queued(), w.admission.baseline())); } }
            let world = world.run(80);
            let all = world.all.over(20..80);
            let worst = world.all.seconds(20..80).iter().map(|s| 1.0 - s.refused_share()).fold(1.0, f64::min);
            rows.push([-all.refused_share(), worst, -all.quantile(0.99)]);
            if trace { let r:Vec<_> = world.all.seconds(18..40).iter().map(|s| (s.completed, s.refused, s.quantile(0.99) as u32)).collect(); eprintln!("{r:?}"); }
        }
        report(name, &["rejects", "worst s", "p99"], rows);
    }
    for (name, discipline) in [("g6c-ps", Discipline::ProcessorSharing), ("g6c-fifo", Discipline::Fifo)] {
        if !which.split(',').any(|w| w == name || w == "g6c") { continue; }
        let mut rows = Vec::new();
        for seed in 0..seeds {
            let mut world = World::new(seed, server(discipline));
            world.source(1, Tier::Default, Pattern::Poisson, 0.7);
            world.at(20, move |w| { let now = w.engine.now(); w.server.set_permits(2, now) });
            if trace { for s in 0..60 { world.at(s/2+15, move |w| eprintln!("{} L {} inflight {} queued {} B {:?}", s/2+15, w.admission.limit(), w.admission.in_flight(), w.admission.queued(), w.admission.baseline())); } }
            let world = world.run(50);
            let (mean, worst) = goodput(&world.all, 20..50, CAPACITY / 4.0);
            rows.push([mean, worst, -world.all.over(20..50).quantile(0.99)]);
            if trace { let r:Vec<_> = world.all.seconds(18..40).iter().map(|s| (s.completed, s.refused, s.quantile(0.99) as u32)).collect(); eprintln!("{r:?}"); }
        }
        report(name, &["goodput", "worst s", "p99"], rows);
    }
    for (name, discipline) in [("g7-ps", Discipline::ProcessorSharing), ("g7-fifo", Discipline::Fifo)] {
        if !which.split(',').any(|w| w == name || w == "g7") { continue; }
        let mut rows = Vec::new();
        for seed in 0..seeds {
            let mut world = World::new(seed, server(discipline));
            world.source(1, Tier::Critical, Pattern::Poisson, 0.5);
            world.source(1, Tier::Sheddable, Pattern::Poisson, 0.01);
            for s in 0..12 { world.at(10 + s, move |w| w.set_rate(1, (s + 1) as f64)); }
            let world = world.run(32);
            let critical = &world.sources[0].record;
            let (before, during) = (critical.over(0..10), critical.over(10..31));
            let (mean, _) = goodput(&world.all, 10..32, CAPACITY);
            rows.push([during.success(), -during.quantile(0.99) / before.quantile(0.99), -during.quantile(0.99), mean]);
        }
        report(name, &["critical", "p99 x", "p99", "goodput"], rows);
    }
    for (name, discipline) in [("g7f-ps", Discipline::ProcessorSharing), ("g7f-fifo", Discipline::Fifo)] {
        if !which.split(',').any(|w| w == name || w == "g7") { continue; }
        let mut rows = Vec::new();
        for seed in 0..seeds {
            let mut world = World::new(seed, server(discipline));
            for caller in 2..11 { world.source(caller, Tier::Default, Pattern::Poisson, 0.07); }
            let flood = world.source(1, Tier::Default, Pattern::Poisson, 0.07);
            world.at(10, move |w| w.set_rate(flood, 10.0 * 0.1));
            let world = world.run(30);
            let worst = world.sources[..9].iter().map(|s| s.record.over(10..29).success()).fold(1.0, f64::min);
            let mean = world.sources[..9].iter().map(|s| s.record.over(10..29).success()).sum::<f64>() / 9.0;
            let p99 = world.sources[0].record.over(10..30).quantile(0.99);
            let (good, _) = goodput(&world.all, 10..30, CAPACITY);
            rows.push([worst, mean, -p99, good]);
        }
        report(name, &["polite worst", "polite mean", "p99", "goodput"], rows);
    }
}

fn report<const N: usize>(name: &str, what: &[&str; N], rows: Vec<[f64; N]>) {
    print!("{name:10}");
    for (i, what) in what.iter().enumerate() {
        let mut of: Vec<f64> = rows.iter().map(|r| r[i]).collect();
        of.sort_by(f64::total_cmp);
        print!("  {what}: worst {:.4} median {:.4}", of[0].abs(), of[of.len() / 2].abs());
    }
    println!();
}
