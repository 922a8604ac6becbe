//! Users, sidecars, servers: one run of an experiment.
//!
//! ```text
//!   users ─▶ client sidecars ─▶ [admission] servers of tier 0 ─▶ their own sidecars ─▶ servers of tier 1 ─▶ …
//! ```
//!
//! An experiment makes a world from a [`Plan`], runs it up to a moment, breaks or heals a server, runs on, and reads the
//! [`Record`].

mod call;
mod tries;

use std::time::Duration;

use tokio::time::Instant;
use weir_proxy::policy::deadline::Deadline;
use weir_proxy::policy::gate::{ProbeKind, ProbeResult};

use crate::admission::Admission;
use crate::engine::Engine;
use crate::plan::Plan;
use crate::record::{End, Record};
use crate::server::{Answer, Job, Server, exponential};
use crate::sidecar::{CallId, Sidecar};
use crate::traffic::Traffic;

use call::Call;

/// How often a sidecar looks for silent and for recovered endpoints (`main.rs` of the proxy).
const TICK: Duration = Duration::from_millis(50);
/// To connect to somebody who is there, and to give up on somebody who is not (`connector.rs` of the proxy).
const CONNECT: Duration = Duration::from_millis(1);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

enum Event {
    Arrival,
    /// A server may have finished something.
    Server(usize, Instant),
    /// The time of a try is up.
    TryOver(Job),
    /// The backoff is over.
    Again(CallId),
    HangUp(CallId),
    QueueOver(Job),
    Tick(usize),
    Probed {
        sidecar: usize,
        probe: (usize, ProbeKind),
        result: ProbeResult,
    },
}

pub struct World {
    pub sidecars: Vec<Sidecar>,
    pub record: Record,
    engine: Engine<Event>,
    clients: usize,
    traffic: Traffic,
    plan: Rules,
    servers: Vec<Host>,
    calls: Vec<Call>,
}

/// What holds for every call.
struct Rules {
    timeout: Duration,
    idempotent: bool,
    attempts_are_carried: bool,
    hang_up: Option<(f64, Duration)>,
}

struct Host {
    server: Server,
    admission: Option<Admission>,
    /// The sidecar that its app calls the next tier through.
    sidecar: Option<usize>,
    wakes: Option<Instant>,
}

impl World {
    pub fn new(plan: Plan, seed: u64) -> Self {
        let mut engine = Engine::new(seed);
        let now = engine.now();
        let mut servers = Vec::new();
        let mut sidecars = Vec::new();
        let mut first = 0;
        // Who calls the tier: the clients, then the servers of the tier before.
        let mut callers = plan.clients;
        for (tier, &size) in plan.tiers.iter().enumerate() {
            for _ in 0..callers {
                sidecars.push(Sidecar::new(&plan.outbound, first..first + size, now));
            }
            let is_last = tier + 1 == plan.tiers.len();
            for index in 0..size {
                servers.push(Host {
                    server: Server::new(plan.server, now),
                    admission: plan.admission.map(|permits| Admission::new(permits, 100)),
                    sidecar: (!is_last).then(|| sidecars.len() + index),
                    wakes: None,
                });
            }
            first += size;
            callers = size;
        }
        for sidecar in 0..sidecars.len() {
            let phase = TICK.mul_f64(engine.rng.f64());
            engine.after(phase, Event::Tick(sidecar));
        }
        engine.after(Duration::ZERO, Event::Arrival);
        Self {
            record: Record::new(now, servers.len()),
            engine,
            sidecars,
            clients: plan.clients,
            traffic: plan.traffic,
            plan: Rules {
                timeout: *plan.outbound.deadline.expect("every plan has one"),
                idempotent: plan.idempotent,
                attempts_are_carried: plan.attempts_are_carried,
                hang_up: plan.hang_up,
            },
            servers,
            calls: Vec::new(),
        }
    }

    /// Up to so long after the beginning.
    pub fn run_until(&mut self, until: Duration) {
        let until = self.engine.moment(until);
        while let Some(event) = self.engine.next_before(until) {
            self.happen(event);
        }
        let rest = until.saturating_duration_since(self.engine.now());
        self.engine.jump(rest);
    }

    /// Nobody asks any more; runs until the last call has ended.
    pub fn settle(&mut self) {
        self.set_rate(0.0);
        let timeout = self.plan.timeout;
        let until = self.engine.elapsed() + timeout + Duration::from_secs(1);
        self.run_until(until);
    }

    /// So long after the beginning.
    pub fn moment(&self, since_beginning: Duration) -> Instant {
        self.engine.moment(since_beginning)
    }

    /// From now on it is remembered when each sidecar first calls each server.
    pub fn watch(&mut self) {
        for sidecar in &mut self.sidecars {
            for member in &mut sidecar.members {
                member.asked = None;
                member.asked_while_out = 0;
            }
        }
    }

    /// Requests that some server holds, wanted or not.
    pub fn load(&self) -> usize {
        self.servers.iter().map(|host| host.server.load()).sum()
    }

    /// The clock of all machines jumps forward.
    pub fn jump(&mut self, by: Duration) {
        self.engine.jump(by);
    }

    /// Breaks or heals a server.
    pub fn change(&mut self, server: usize, change: impl FnOnce(&mut Server, Instant)) {
        let now = self.engine.now();
        change(&mut self.servers[server].server, now);
        self.wake(server);
    }

    /// Requests a second, all users together, from the next one on.
    pub fn set_rate(&mut self, rate: f64) {
        self.traffic.rate = rate;
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Arrival => self.arrive(),
            Event::Server(server, at) if self.servers[server].wakes == Some(at) => {
                self.serve(server);
            }
            Event::Server(..) => {} // it was planned anew
            Event::TryOver(job) => self.try_over(job),
            Event::Again(call) => self.attempt(call),
            Event::HangUp(call) => self.hang_up(call),
            Event::QueueOver(job) => self.queue_over(job),
            Event::Tick(sidecar) => self.tick(sidecar),
            Event::Probed {
                sidecar,
                probe,
                result,
            } => {
                let (now, rng) = (self.engine.now(), &mut self.engine.rng);
                self.sidecars[sidecar].probed(probe, result, now, rng);
            }
        }
    }

    fn arrive(&mut self) {
        if self.traffic.rate <= 0.0 {
            return;
        }
        let gap = self.traffic.gap(&mut self.engine.rng);
        self.engine.after(gap, Event::Arrival);
        let (now, sidecar) = (self.engine.now(), self.engine.rng.usize(..self.clients));
        self.record.offered(now);
        let deadline = Deadline::after(self.plan.timeout, now);
        let call = self.call(sidecar, None, deadline, false);
        if let Some((share, mean)) = self.plan.hang_up
            && self.engine.rng.f64() < share
        {
            let patience = exponential(mean, &mut self.engine.rng);
            self.engine.after(patience, Event::HangUp(call));
        }
    }

    fn call(
        &mut self,
        sidecar: usize,
        parent: Option<Job>,
        deadline: Deadline,
        is_retry: bool,
    ) -> CallId {
        let id = self.calls.len() as CallId;
        self.calls.push(Call {
            sidecar,
            parent,
            arrived: self.engine.now(),
            deadline,
            attempt: 1,
            transparent: 0,
            is_retry,
            tried: Vec::new(),
            tries: 0,
            trying: None,
            ended: false,
        });
        self.attempt(id);
        id
    }

    /// A server has something to say.
    fn serve(&mut self, server: usize) {
        let now = self.engine.now();
        self.servers[server].wakes = None;
        while let Some((job, answer)) = self.servers[server].server.finished(now) {
            match (answer, self.servers[server].sidecar) {
                (Answer::Good, Some(sidecar)) => self.call_next_tier(sidecar, job),
                (answer, _) => self.answer(job, answer),
            }
        }
        self.wake(server);
    }

    fn call_next_tier(&mut self, sidecar: usize, job: Job) {
        let (now, timeout) = (self.engine.now(), self.plan.timeout);
        let carried = self.plan.attempts_are_carried;
        let Some((_, parent)) = self.waiting(job) else {
            return; // nobody waits for it, and the app's sidecar has told it
        };
        let deadline = parent.deadline.min(Deadline::after(timeout, now));
        let is_retry = carried && (parent.is_retry || parent.attempt > 1);
        self.call(sidecar, Some(job), deadline, is_retry);
    }

    fn end(&mut self, id: CallId, end: End) {
        let now = self.engine.now();
        let call = &mut self.calls[id as usize];
        call.ended = true;
        let Some(parent) = call.parent else {
            return self.record.ended(call.arrived, now, end);
        };
        // The app answers as it was answered.
        match end {
            End::Success => self.answer(parent, Answer::Good),
            End::Failure | End::Refused => self.answer(parent, Answer::Bad),
        }
    }

    /// The request is no longer with the server's sidecar: whose turn is it?
    fn leave(&mut self, server: usize, job: Job) {
        let now = self.engine.now();
        let host = &mut self.servers[server];
        let next = host.admission.as_mut().and_then(|a| a.leave(job));
        if let Some(next) = next {
            host.server.arrive(next, now, &mut self.engine.rng);
            self.wake(server);
        }
    }

    fn tick(&mut self, sidecar: usize) {
        let now = self.engine.now();
        self.engine.after(TICK, Event::Tick(sidecar));
        let (probes, ejected) = self.sidecars[sidecar].tick(now, &mut self.engine.rng);
        for probe in probes {
            let asked = match probe {
                (index, ProbeKind::Comparison) => {
                    self.sidecars[sidecar].another_than(index, &mut self.engine.rng)
                }
                (index, _) => Some(index),
            };
            let Some(asked) = asked else { continue };
            let server = self.sidecars[sidecar].members[asked].server;
            let (took, result) = match self.servers[server].server.connects() {
                // Whoever connects here is awake.
                Some(true) => (CONNECT, ProbeResult::Passed),
                Some(false) => (CONNECT, ProbeResult::Failed),
                None => (CONNECT_TIMEOUT, ProbeResult::Failed),
            };
            let probed = Event::Probed {
                sidecar,
                probe,
                result,
            };
            self.engine.after(took, probed);
        }
        self.give_up_on(ejected);
    }

    /// Plans when the server is looked at again.
    fn wake(&mut self, server: usize) {
        let host = &mut self.servers[server];
        let due = host.server.due();
        if let Some(due) = due
            && host.wakes != Some(due)
        {
            self.engine.at(due, Event::Server(server, due));
        }
        host.wakes = due;
    }
}
