//! A caller's sidecar: the proxy's own policies, put together as `endpoints.rs` and `layer/retry.rs` put them together.
//!
//! What is the proxy's here: gates, averages, stall rule, ramps (`learnt`), the choice among endpoints (`balance`), the
//! pool's latencies, the retry budget. What is not: locks, connections, bodies.

use std::collections::BTreeSet;
use std::time::Duration;

use fastrand::Rng;
use tokio::time::Instant;
use weir_config::snapshot::{Outbound, Retries};
use weir_proxy::balance;
use weir_proxy::learnt::{Config, Ended, Learnt, Newest, Started, open_max};
use weir_proxy::policy::budget::Budget;
use weir_proxy::policy::gate::{Pool, ProbeKind, ProbeResult};
use weir_proxy::policy::latency::Latency;
use weir_proxy::policy::outcome::{Fault, Outcome};
use weir_proxy::policy::transition::Phase;
use weir_proxy::policy::window::Counts;

/// A request of a user, all its tries included.
pub type CallId = u64;

pub struct Sidecar {
    pub retries: Retries,
    pub budget: Budget,
    pub members: Vec<Member>,
    pub moves: Vec<Move>,
    pub account: Account,
    config: Config,
    latency: Latency,
    /// As of the last tick.
    p99: Option<Duration>,
}

pub struct Member {
    /// Which of the world's servers it is.
    pub server: usize,
    learnt: Learnt,
    in_flight: BTreeSet<CallId>,
    /// Its first call since the world was told to watch.
    pub asked: Option<Instant>,
    /// Calls that it got since then while its gate was not closed.
    pub asked_while_out: u32,
}

/// What went into the budget and out of it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Account {
    pub deposits: u64,
    pub retries: u64,
    /// Of what reached nobody.
    pub transparent: u64,
}

/// A gate has moved.
#[derive(Clone, Debug)]
pub struct Move {
    pub at: Instant,
    pub member: usize,
    pub to: Phase,
    /// Else it only would have.
    pub enforced: bool,
}

impl Sidecar {
    pub fn new(outbound: &Outbound, servers: impl Iterator<Item = usize>, now: Instant) -> Self {
        let config = Config::of(outbound);
        let member = |server| Member {
            server,
            learnt: Learnt::new(&config, true, None, now),
            in_flight: BTreeSet::new(),
            asked: None,
            asked_while_out: 0,
        };
        Self {
            members: servers.map(member).collect(),
            retries: outbound.retries.clone(),
            budget: Budget::new(outbound.retries.budget, now),
            moves: Vec::new(),
            account: Account::default(),
            config,
            latency: Latency::new(now),
            p99: None,
        }
    }

    /// Where the call goes; it counts as in flight there.
    pub fn choose(
        &mut self,
        call: CallId,
        tried: &[usize],
        retry_safe: bool,
        now: Instant,
        rng: &mut Rng,
    ) -> Option<(usize, Started)> {
        for index in 0..self.members.len() {
            let member = &mut self.members[index];
            if !member.is_eligible()
                && let Some(started) = member.learnt.start_probe(retry_safe, true, now)
            {
                member.takes(call, now);
                return Some((index, started));
            }
        }
        let p99 = self.p99.unwrap_or_default();
        let (members, config) = (&self.members, &self.config);
        let candidate = |index: usize| {
            let Member {
                learnt, in_flight, ..
            } = &members[index];
            learnt.candidate(config, in_flight.len() as u32, false, || p99, now)
        };
        let index = balance::choose(members.len(), tried, rng, candidate)?;
        let member = &mut self.members[index];
        let started = member.learnt.start(true, now);
        member.takes(call, now);
        Some((index, started))
    }

    /// The head of an answer is there.
    pub fn answered(
        &mut self,
        index: usize,
        started: &mut Started,
        outcome: Outcome,
        now: Instant,
    ) {
        let took = self.members[index].learnt.answered(started, outcome, now);
        if let Some(took) = took {
            self.latency.record(took, now);
        }
    }

    /// Returns the calls that waited for the endpoint, if it was ejected by that.
    pub fn ended(
        &mut self,
        call: CallId,
        index: usize,
        started: Started,
        end: Ended,
        now: Instant,
        rng: &mut Rng,
    ) -> Vec<CallId> {
        let pool = match end.outcome {
            Outcome::Failure(Fault::Hard) => Pool {
                success_rate: self.success_rate(now),
                may_open: self.may_open(),
            },
            _ => Pool::default(),
        };
        let p99 = self.p99.unwrap_or_default();
        let member = &mut self.members[index];
        member.in_flight.remove(&call);
        let before = member.is_eligible();
        member
            .learnt
            .ended(started, end, || p99, pool, now, rng.u64(..));
        self.report(index, before, now)
    }

    /// Returns the endpoints that are to be probed, and the calls that waited for one that was ejected.
    pub fn tick(&mut self, now: Instant, rng: &mut Rng) -> (Vec<(usize, ProbeKind)>, Vec<CallId>) {
        self.p99 = self.latency.p99(now);
        let newest = Newest::of(self.members.iter().map(|m| m.learnt.last_completion));
        let (mut probes, mut ejected) = (Vec::new(), Vec::new());
        for index in 0..self.members.len() {
            let before = self.members[index].is_eligible();
            let learnt = &mut self.members[index].learnt;
            let config = &self.config;
            let stall = learnt.stall(newest.but(index), self.p99, config, now);
            let may_open = self.may_open();
            let learnt = &mut self.members[index].learnt;
            if let Some(stall) = stall {
                learnt.gate.stalled(now, stall, may_open, rng.u64(..));
            }
            probes.extend(learnt.wants_probe(now).map(|kind| (index, kind)));
            ejected.extend(self.report(index, before, now));
        }
        (probes, ejected)
    }

    pub fn probed(
        &mut self,
        (index, kind): (usize, ProbeKind),
        result: ProbeResult,
        now: Instant,
        rng: &mut Rng,
    ) {
        let before = self.members[index].is_eligible();
        let learnt = &mut self.members[index].learnt;
        learnt.probed(kind, result, now, rng.u64(..));
        self.report(index, before, now);
    }

    /// Any that takes calls.
    pub fn another_than(&self, index: usize, rng: &mut Rng) -> Option<usize> {
        let others: Vec<_> = (0..self.members.len())
            .filter(|other| *other != index && self.members[*other].is_eligible())
            .collect();
        rng.choice(others)
    }

    /// How long a try usually takes.
    pub fn p50(&mut self, now: Instant) -> Duration {
        self.latency.p50(now).unwrap_or_default()
    }

    pub fn in_flight(&self) -> usize {
        self.members.iter().map(|m| m.in_flight.len()).sum()
    }

    pub fn open(&self) -> usize {
        self.members.iter().filter(|m| !m.is_eligible()).count()
    }

    /// The most that may be open at once.
    pub fn open_max(&self) -> usize {
        open_max(self.members.len(), self.config.gate.max_open_percent)
    }

    /// How often an endpoint was ejected.
    pub fn ejections(&self) -> impl Iterator<Item = &Move> {
        let ejected = |moved: &&Move| moved.enforced && moved.to == Phase::Open;
        self.moves.iter().filter(ejected)
    }

    fn may_open(&self) -> bool {
        self.open() < self.open_max()
    }

    fn success_rate(&self, now: Instant) -> Option<f64> {
        let mut counts = Counts::default();
        for member in self.members.iter().filter(|m| m.is_eligible()) {
            counts.add(member.learnt.gate.counts(now));
        }
        counts.success_rate()
    }

    fn report(&mut self, index: usize, was_eligible: bool, now: Instant) -> Vec<CallId> {
        let member = &mut self.members[index];
        while let Some(transition) = member.learnt.gate.take_transition() {
            self.moves.push(Move {
                at: now,
                member: index,
                to: transition.to,
                enforced: transition.enforced,
            });
        }
        match was_eligible && !member.is_eligible() {
            true => member.in_flight.iter().copied().collect(),
            false => Vec::new(),
        }
    }
}

impl Member {
    fn takes(&mut self, call: CallId, now: Instant) {
        self.in_flight.insert(call);
        self.asked.get_or_insert(now);
        self.asked_while_out += u32::from(!self.is_eligible());
    }

    pub fn is_eligible(&self) -> bool {
        self.learnt.gate.is_eligible()
    }

    pub fn phase(&self) -> Phase {
        self.learnt.gate.state()
    }
}
