//! Users, sidecars, servers: one run of an experiment.
//!
//! ```text
//!   users ─▶ client sidecars ─▶ [admission] servers of tier 0 ─▶ their own sidecars ─▶ servers of tier 1 ─▶ …
//! ```
//!
//! An experiment makes a world from a [`Plan`], runs it up to a moment, breaks or heals a server, runs on, and reads the
//! [`Record`].

use std::time::Duration;

use tokio::time::Instant;
use weir_config::snapshot::Outbound;
use weir_proxy::learnt::{Ended, Started};
use weir_proxy::policy::deadline::Deadline;
use weir_proxy::policy::gate::ProbeResult;
use weir_proxy::policy::outcome::{Fault, Outcome};
use weir_proxy::policy::retry::{Attempt, Decision, Verdict, decide};

use crate::admission::{Admission, Admitted};
use crate::engine::Engine;
use crate::record::{End, Record};
use crate::server::{self, Answer, Job, Server, exponential};
use crate::sidecar::{CallId, Sidecar};
use crate::traffic::{Pattern, Traffic};

/// How often a sidecar looks for silent and for recovered endpoints (`main.rs` of the proxy).
const TICK: Duration = Duration::from_millis(50);
/// To connect to somebody who is there, and to give up on somebody who is not (`connector.rs` of the proxy).
const CONNECT: Duration = Duration::from_millis(1);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Within the queue of a server's sidecar.
const QUEUE_TIMEOUT: Duration = Duration::from_millis(100);

pub struct Plan {
    pub clients: usize,
    pub traffic: Traffic,
    /// How many servers each tier has. Those of one tier call the next one, each by its own sidecar.
    pub tiers: Vec<usize>,
    pub server: server::Config,
    pub outbound: Outbound,
    /// Whether calls may be repeated.
    pub idempotent: bool,
    /// The app hands on that the call is a repetition, to whom it calls itself.
    pub attempts_are_carried: bool,
    /// Servers have a sidecar that lets so many in.
    pub admission: Option<u32>,
    /// This share of users hangs up, after so long on average.
    pub hang_up: Option<(f64, Duration)>,
}

impl Default for Plan {
    /// Section 12 of resilience.md: three replicas, 1000 requests a second, a timeout of one second, one retry.
    fn default() -> Self {
        Self {
            clients: 20,
            traffic: Traffic::new(Pattern::Poisson, 1000.0),
            tiers: vec![3],
            server: server::Config::default(),
            outbound: outbound(1000),
            idempotent: true,
            attempts_are_carried: true,
            admission: None,
            hang_up: None,
        }
    }
}

/// The defaults, but for the timeout.
pub fn outbound(timeout_millis: u64) -> Outbound {
    Outbound {
        deadline: Some(weir_config::units::Duration::from_millis(timeout_millis)),
        ..Outbound::default()
    }
}

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
        member: usize,
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

struct Call {
    sidecar: usize,
    /// The request that a server makes this call for; `None`: a user's.
    parent: Option<Job>,
    arrived: Instant,
    deadline: Deadline,
    attempt: u32,
    transparent: u32,
    is_retry: bool,
    tried: Vec<usize>,
    /// Numbers the tries, transparent ones included.
    tries: u64,
    trying: Option<Try>,
    ended: bool,
}

struct Try {
    member: usize,
    server: usize,
    started: Started,
    until: Deadline,
    /// Another one may follow, so nobody need wait for an endpoint that is ejected.
    replayable: bool,
}

/// Tries of one call are told apart by so many low bits of a job.
const TRY_BITS: u32 = 4;

/// What became of a try.
#[derive(Clone, Copy)]
struct Failed {
    outcome: Outcome,
    verdict: Verdict,
    connect_failed: bool,
    /// There was an answer.
    answered: bool,
}

impl Failed {
    const fn unanswered(fault: Fault, verdict: Verdict) -> Self {
        Self {
            outcome: Outcome::Failure(fault),
            verdict,
            connect_failed: false,
            answered: false,
        }
    }

    const BAD_ANSWER: Self = Self {
        answered: true,
        ..Self::unanswered(Fault::Hard, Verdict::Unavailable)
    };
    const SHED: Self = Self {
        answered: true,
        ..Self::unanswered(Fault::Overload, Verdict::Overloaded { service: false })
    };
    const REFUSED: Self = Self {
        connect_failed: true,
        ..Self::unanswered(Fault::Hard, Verdict::Unprocessed)
    };
    /// Of the try, or of the endpoint while the try waited for it.
    const GIVEN_UP: Self = Self::unanswered(Fault::Hard, Verdict::Unavailable);
    const DEADLINE: Self = Self::unanswered(Fault::Deadline, Verdict::Final);
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
                member,
                result,
            } => {
                let (now, rng) = (self.engine.now(), &mut self.engine.rng);
                self.sidecars[sidecar].probed(member, result, now, rng);
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

    /// One try, as `layer/retry.rs` and `layer/attempt.rs` make it.
    fn attempt(&mut self, id: CallId) {
        let now = self.engine.now();
        let call = &mut self.calls[id as usize];
        if call.ended {
            return;
        }
        let sidecar = &mut self.sidecars[call.sidecar];
        let retries = &sidecar.retries;
        let tries_left = match retries.attempts.get().saturating_sub(call.attempt) {
            left if self.plan.idempotent && !call.is_retry => left + 1,
            _ => 1,
        };
        let per_try = retries.per_try_timeout.map(|timeout| timeout.get());
        let until = per_try.map_or(Deadline::NEVER, |per_try| Deadline::after(per_try, now));
        let until = until.min(call.deadline);
        let share = call.deadline.share(tries_left, now);
        let replayable = tries_left > 1;
        let rng = &mut self.engine.rng;
        if call.deadline.is_over(now) {
            return self.end(id, End::Failure);
        }
        let Some((member, started)) = sidecar.choose(id, &call.tried, replayable, now, rng) else {
            return self.end(id, End::Refused);
        };
        let server = sidecar.members[member].server;
        call.tries += 1;
        call.trying = Some(Try {
            member,
            server,
            started,
            until,
            replayable,
        });
        let job = id << TRY_BITS | call.tries;
        self.try_ends(until.min(share), job);
        let host = &mut self.servers[server];
        if host.server.connects() == Some(false) {
            return self.failed(id, Failed::REFUSED);
        }
        self.record.sent(server, now);
        let admitted = match &mut host.admission {
            Some(admission) => admission.enter(job),
            None => Admitted::Now,
        };
        match admitted {
            Admitted::Now => {
                host.server.arrive(job, now, &mut self.engine.rng);
                self.wake(server);
            }
            Admitted::Waits => self.engine.after(QUEUE_TIMEOUT, Event::QueueOver(job)),
            Admitted::Refused => self.failed(id, Failed::SHED),
        }
    }

    /// The call that still waits for this very try.
    fn waiting(&mut self, job: Job) -> Option<(CallId, &mut Call)> {
        let id = job >> TRY_BITS;
        let call = &mut self.calls[id as usize];
        let is_current = call.trying.is_some() && call.tries == job & ((1 << TRY_BITS) - 1);
        is_current.then_some((id, call))
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

    /// The server's sidecar passes the app's answer on.
    fn answer(&mut self, job: Job, answer: Answer) {
        let now = self.engine.now();
        let Some((id, call)) = self.waiting(job) else {
            return;
        };
        if answer == Answer::Bad {
            return self.failed(id, Failed::BAD_ANSWER);
        }
        let mut done = call.trying.take().expect("it waits");
        let (sidecar, is_first) = (call.sidecar, call.attempt == 1);
        let sidecar = &mut self.sidecars[sidecar];
        sidecar.answered(done.member, &mut done.started, Outcome::Success, now);
        let end = Ended {
            outcome: Outcome::Success,
            connect_failed: false,
            retry_after: None,
            lost: false,
        };
        let rng = &mut self.engine.rng;
        sidecar.ended(id, done.member, done.started, end, now, rng);
        if is_first {
            sidecar.budget.deposit(now);
            sidecar.account.deposits += 1;
        }
        self.leave(done.server, job);
        self.end(id, End::Success);
    }

    /// A try failed: what the endpoint learns, then what the retry policy decides.
    fn failed(&mut self, id: CallId, failed: Failed) {
        let now = self.engine.now();
        let call = &mut self.calls[id as usize];
        let job = id << TRY_BITS | call.tries;
        let mut done = call.trying.take().expect("it waits");
        let sidecar = &mut self.sidecars[call.sidecar];
        if failed.answered {
            sidecar.answered(done.member, &mut done.started, failed.outcome, now);
        }
        let end = Ended {
            outcome: failed.outcome,
            connect_failed: failed.connect_failed,
            retry_after: None,
            lost: false,
        };
        let ejected = sidecar.ended(
            id,
            done.member,
            done.started,
            end,
            now,
            &mut self.engine.rng,
        );
        let attempt = Attempt {
            number: call.attempt,
            transparent: call.transparent,
            idempotent: self.plan.idempotent,
            committed: false,
            replayable: true,
            is_retry_from_downstream: call.is_retry,
            remaining: call.deadline.remaining(now),
            typical: sidecar.p50(now),
        };
        let rand = self.engine.rng.u64(..);
        let (retries, budget) = (&sidecar.retries, &mut sidecar.budget);
        match decide(retries, attempt, failed.verdict, None, budget, now, rand) {
            Decision::Retry { after, counts } => {
                call.tried.push(done.member);
                if counts {
                    call.attempt += 1;
                    sidecar.account.retries += 1;
                } else {
                    call.transparent += 1;
                    sidecar.account.transparent += 1;
                }
                self.engine.after(after, Event::Again(id));
            }
            Decision::Stop(_) => self.end(id, End::Failure),
        }
        if !failed.answered && !failed.connect_failed {
            self.servers[done.server].server.cancel(job, now);
            self.wake(done.server);
        }
        self.leave(done.server, job);
        self.give_up_on(ejected);
    }

    /// The endpoint that these calls wait for was ejected.
    fn give_up_on(&mut self, calls: Vec<CallId>) {
        for id in calls {
            let trying = &self.calls[id as usize].trying;
            if trying.as_ref().is_some_and(|trying| trying.replayable) {
                self.failed(id, Failed::GIVEN_UP);
            }
        }
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

    fn try_over(&mut self, job: Job) {
        let now = self.engine.now();
        let Some((id, call)) = self.waiting(job) else {
            return;
        };
        let (sidecar, deadline) = (call.sidecar, call.deadline);
        let until = call.trying.as_ref().expect("it waits").until;
        if !until.is_over(now) {
            let wait = self.sidecars[sidecar].budget.until_another(now);
            if !wait.is_zero() {
                let again = until.min(Deadline::after(wait, now));
                return self.try_ends(again, job);
            }
        }
        let failed = if until == deadline && until.is_over(now) {
            Failed::DEADLINE
        } else {
            Failed::GIVEN_UP
        };
        self.failed(id, failed);
    }

    fn try_ends(&mut self, at: Deadline, job: Job) {
        let at = at.instant().expect("every call has a deadline");
        self.engine.at(at, Event::TryOver(job));
    }

    fn hang_up(&mut self, id: CallId) {
        let now = self.engine.now();
        let call = &mut self.calls[id as usize];
        call.ended = true;
        let Some(done) = call.trying.take() else {
            return;
        };
        let job = id << TRY_BITS | call.tries;
        let end = Ended {
            outcome: Outcome::Cancelled,
            connect_failed: false,
            retry_after: None,
            lost: false,
        };
        let sidecar = &mut self.sidecars[call.sidecar];
        let rng = &mut self.engine.rng;
        sidecar.ended(id, done.member, done.started, end, now, rng);
        self.servers[done.server].server.cancel(job, now);
        self.wake(done.server);
        self.leave(done.server, job);
    }

    fn queue_over(&mut self, job: Job) {
        let Some((id, call)) = self.waiting(job) else {
            return;
        };
        let server = call.trying.as_ref().expect("it waits").server;
        let admission = self.servers[server].admission.as_ref();
        if admission.is_some_and(|admission| admission.is_waiting(job)) {
            self.failed(id, Failed::SHED);
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
        for member in probes {
            let server = self.sidecars[sidecar].members[member].server;
            let (took, result) = match self.servers[server].server.connects() {
                // Whoever connects here is awake.
                Some(true) => (CONNECT, ProbeResult::Passed),
                Some(false) => (CONNECT, ProbeResult::Failed),
                None => (CONNECT_TIMEOUT, ProbeResult::Failed),
            };
            let probed = Event::Probed {
                sidecar,
                member,
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
