//! An app with its inbound sidecar, and those who call it.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;
use weir_proxy::policy::admission::{Admission, Arrival, Config as Limits, Entry, Place, Reason};
use weir_proxy::policy::fair::WaiterId;
use weir_proxy::policy::knee::{Bounds, Ended};
use weir_proxy::policy::priority::{COHORTS, Priority, Tier};

use crate::engine::Engine;
use crate::record::{End, Record};
use crate::server::{Answer, Config, Job, Server};
use crate::traffic::{Pattern, Traffic};

/// Requests a second, all of the app's places busy.
pub(super) const CAPACITY: f64 = 1000.0;

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
pub(super) struct Source {
    caller: u64,
    tier: Tier,
    traffic: Traffic,
    /// Arrivals of an earlier rate are not heard any more.
    epoch: u32,
    pub(super) record: Record,
}

enum Event {
    Arrival { source: usize, epoch: u32 },
    Server(Instant),
    WaitedEnough(Job),
    LostPatience(Job),
    Change(usize),
}

type Change = Box<dyn Fn(&mut World)>;

pub(super) struct World {
    engine: Engine<Event>,
    server: Server,
    admission: Admission<Job>,
    /// How long callers wait for an answer.
    pub(super) patience: Duration,
    pub(super) sources: Vec<Source>,
    pub(super) all: Record,
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
    pub(super) fn new(seed: u64, config: Config) -> Self {
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

    pub(super) fn source(
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

    pub(super) fn set_rate(&mut self, source: usize, share_of_capacity: f64) {
        let of = &mut self.sources[source];
        of.traffic = Traffic::new(of.traffic.pattern, share_of_capacity * CAPACITY);
        of.epoch += 1;
        self.next_arrival(source);
    }

    /// What happens to the app now.
    pub(super) fn change(&mut self, change: impl FnOnce(&mut Server, Instant)) {
        change(&mut self.server, self.engine.now());
    }

    pub(super) fn at(&mut self, second: u64, change: impl Fn(&mut World) + 'static) {
        let at = self.engine.moment(Duration::from_secs(second));
        self.engine.at(at, Event::Change(self.changes.len()));
        self.changes.push(Box::new(change));
    }

    pub(super) fn run(mut self, seconds: u64) -> Self {
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
