//! The endpoints of one backend, and which of them gets the next call.
//!
//! Balancing compares what a call would cost (`policy/ewma.rs`), gates keep failing endpoints out (`policy/gate.rs`),
//! and [`tick`](Endpoints::tick) notices a few times a second what no call reports: that one has gone silent, or
//! that an ejected one is due for a probe.

mod chosen;
mod members;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use http::request::Parts;
use tokio::sync::Notify;
use tokio::time::Instant;
use weir_config::snapshot::{BalanceAlgorithm, Mode, Outbound, ZonePreference};

use crate::affinity::Affinity;
use crate::balance::Candidate;
use crate::connector::Connector;
use crate::endpoint::Endpoint;
use crate::error::Error;
use crate::facts::Facts;
use crate::identity::{SpiffeId, alpn};
use crate::learnt::{Config, Learnt, Newest, Started, open_max};
use crate::member::Member;
use crate::policy::aperture::{self, Aperture};
use crate::policy::gate::{ProbeKind, ProbeResult};
use crate::policy::latency::Latency;
use crate::policy::ring::{self, Bound, Place, Ring};
use crate::policy::transition::{Phase, Transition, Why};
use crate::policy::window::Counts;
use crate::question;
use crate::request::{Context, Request};
use crate::tally::{Mirror, Standing, Tally};
use crate::telemetry::BackendMetrics;

pub use chosen::{Chosen, Place as ConnectionPlace};
pub use members::Members;

/// Discovery may be a moment behind a pod that has just become ready, or a whole service that has just been made: a
/// call waits this long for a pool that is empty to get its first endpoint.
const FIRST_ENDPOINT_PATIENCE: Duration = Duration::from_secs(1);

pub struct Endpoints {
    service: Arc<str>,
    list: ArcSwap<Members>,
    /// Wakes those who wait for a pool that was empty.
    arrived: Notify,
    config: ArcSwap<Config>,
    /// How calls are told apart, where that decides where they go.
    affinity: ArcSwapOption<Affinity>,
    /// Where this sidecar is; `None`: nobody says so, or it does not matter.
    zone: Mutex<Option<Arc<str>>>,
    /// What makes this sidecar's order of a large pool another than anybody else's.
    own: u64,
    aperture: Mutex<Aperture>,
    /// How many endpoints that take calls it is wide, as of the last tick.
    width: AtomicUsize,
    /// How far that reaches, among those nearby and among the rest; see [`Members::reach`].
    reach: [AtomicUsize; 2],
    /// How many are out, and how many may want a request as a probe: while none does, nobody looks for them.
    tally: Tally,
    /// Calls that have not ended, to all of them.
    in_flight: AtomicUsize,
    /// Opaque connections to all of them, those included that are being opened.
    connections: AtomicUsize,
    /// Held from asking whether one more gate may open until it has, so that two workers cannot both take the last
    /// place. Taken before a member is locked, and never for a success.
    opening: Mutex<()>,
    latency: Mutex<Latency>,
    /// The pool's p99 in nanoseconds as of the last tick, 0 while unknown.
    p99_nanos: AtomicU64,
    workers: usize,
    connector: Connector,
    facts: Facts,
    metrics: Arc<BackendMetrics>,
}

/// What discovery says of one endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    pub address: SocketAddr,
    pub identity: Option<SpiffeId>,
    pub draining: bool,
    /// 100 is an ordinary endpoint's.
    pub weight: u32,
    pub zone: Option<String>,
    pub pod: String,
}

impl Endpoints {
    pub fn new(
        service: Arc<str>,
        outbound: &Outbound,
        workers: usize,
        connector: Connector,
        facts: Facts,
        metrics: Arc<BackendMetrics>,
    ) -> Self {
        Self {
            service,
            list: ArcSwap::default(),
            arrived: Notify::new(),
            config: ArcSwap::from_pointee(Config::of(outbound)),
            affinity: ArcSwapOption::from_pointee(affinity(outbound)),
            zone: Mutex::new(None),
            own: fastrand::u64(..),
            aperture: Mutex::new(Aperture::new(Instant::now())),
            width: AtomicUsize::new(aperture::LEAST),
            reach: [0, 0].map(AtomicUsize::new),
            tally: Tally::default(),
            in_flight: AtomicUsize::new(0),
            connections: AtomicUsize::new(0),
            opening: Mutex::new(()),
            latency: Mutex::new(Latency::new(Instant::now())),
            p99_nanos: AtomicU64::new(0),
            workers,
            connector,
            facts,
            metrics,
        }
    }

    pub fn connector(&self) -> &Connector {
        &self.connector
    }

    pub fn list(&self) -> Arc<Members> {
        self.list.load_full()
    }

    /// A new policy: what was learnt stays.
    pub fn reconfigure(&self, outbound: &Outbound) {
        let config = Config::of(outbound);
        let now = Instant::now();
        for member in self.list.load().iter() {
            member
                .learnt()
                .gate
                .reconfigure(config.gate, *config.balance.slow_start, now);
        }
        self.config.store(Arc::new(config));
        self.affinity.store(affinity(outbound).map(Arc::new));
        self.arrange(self.list.load().to_vec());
    }

    /// Where this sidecar is. Nothing happens when that was known.
    pub fn set_zone(&self, zone: Option<&str>) {
        let mut own = self.zone.lock().expect("no panic while locked");
        if own.as_deref() == zone {
            return;
        }
        *own = zone.map(Arc::from);
        drop(own);
        self.arrange(self.list.load().to_vec());
    }

    /// Puts these members in force, in the order that policy and zone ask for.
    fn arrange(&self, members: Vec<Arc<Member>>) {
        let zone = self.zone.lock().expect("no panic while locked").clone();
        let balance = self.config.load().balance;
        let zone = zone.filter(|_| balance.zone == ZonePreference::Prefer);
        let hashes = balance.algorithm == BalanceAlgorithm::ConsistentHash;
        let members = Members::new(members, zone.as_deref(), hashes, self.own);
        self.list.store(Arc::new(members));
        let list = self.list.load();
        self.tally.rearranged(mirrors(&list));
        self.set_reach(&list);
    }

    /// Adds, changes and removes. An endpoint that stays keeps its connections and what was learnt; one whose
    /// *identity* changed is another endpoint, whatever its address says.
    pub fn update(&self, reset: bool, changed: Vec<Described>, removed: &[SocketAddr]) {
        let old = self.list.load_full();
        let mut known: HashMap<SocketAddr, Arc<Member>> = old
            .iter()
            .map(|member| (member.address(), member.clone()))
            .collect();
        let mut next = if reset { HashMap::new() } else { known.clone() };
        for address in removed {
            next.remove(address);
        }
        for described in changed {
            let kept = known
                .remove(&described.address)
                .filter(|member| member.endpoint.identity == described.identity);
            let member = kept.unwrap_or_else(|| Arc::new(self.create(&described, old.is_empty())));
            member.set_draining(described.draining);
            member.place(described.weight, described.zone.as_deref());
            next.insert(described.address, member);
        }
        let gone = old
            .iter()
            .filter(|member| !next.contains_key(&member.address()));
        let gone: Vec<&Arc<Member>> = gone.collect();
        let arrived = !next.is_empty();
        self.arrange(next.into_values().collect());
        // Not before: whoever publishes what its gate does looks whether it is still listed.
        gone.into_iter().for_each(|member| self.say_goodbye(member));
        if arrived {
            self.arrived.notify_waiters();
        }
    }

    /// Nobody will hear of its gate again: it must not look open for ever.
    fn say_goodbye(&self, member: &Member) {
        let address = member.address().to_string();
        let learnt = member.learnt();
        self.metrics.endpoint_gone(&address);
        let phase = learnt.gate.state();
        if phase != Phase::Closed {
            let gone = Transition {
                from: phase,
                to: Phase::Closed,
                enforced: true,
                why: Why::Gone,
                reason: "discovery took the endpoint away".into(),
            };
            self.facts.endpoint_changed(&self.service, &address, gone);
        }
    }

    /// `first`: the pool was empty, so there is nobody to compare with and nothing to ramp up from.
    fn create(&self, described: &Described, first: bool) -> Member {
        let now = Instant::now();
        let seed = {
            let mut latency = self.latency.lock().expect("no panic while locked");
            latency.p50(now)
        };
        let learnt = Learnt::new(&self.config.load(), first, seed, now);
        let endpoint = Endpoint::new(described.address, described.identity.clone(), self.workers);
        Member::new(endpoint, described.pod.clone(), learnt)
    }

    /// Returns when there is an endpoint, or when none has come for a while. How many may wait is the limit's to say.
    pub async fn first(&self) {
        let is_empty = || self.list.load().is_empty();
        if !is_empty() {
            return;
        }
        let mut arrived = pin!(self.arrived.notified());
        // From here on no arrival is missed.
        arrived.as_mut().enable();
        if is_empty() {
            // Who waited in vain is told by the choice that follows.
            let _ = tokio::time::timeout(FIRST_ENDPOINT_PATIENCE, arrived).await;
        }
    }

    /// For an opaque connection, and whether it is within how many there may be.
    pub fn place_for_connection(self: &Arc<Self>) -> (ConnectionPlace, bool) {
        let (place, before) = ConnectionPlace::take(self);
        (place, before < self.config.load().connections_max)
    }

    /// For bytes that nobody looks at.
    pub fn choose(self: &Arc<Self>, context: &Context) -> Result<Chosen, Error> {
        self.choose_for(context, None)
    }

    pub fn choose_for_request(self: &Arc<Self>, request: &Request) -> Result<Chosen, Error> {
        self.choose_for(&request.context, Some(&request.head))
    }

    /// Chooses, and counts the call as in flight there.
    fn choose_for(
        self: &Arc<Self>,
        context: &Context,
        head: Option<&Parts>,
    ) -> Result<Chosen, Error> {
        let list = self.list.load();
        if list.is_empty() {
            return Err(Error::NoEndpoints {
                service: self.service.to_string(),
            });
        }
        let now = Instant::now();
        if self.tally.half_open() > 0
            && !context.hedge
            && let Some(probe) = self.claim_probe(&list, context, now)
        {
            return Ok(probe);
        }
        let config = self.config.load();
        let unbounded;
        let config = if head.is_some() {
            &**config
        } else {
            // How many connections there may be has been asked before, for all endpoints together.
            unbounded = Config {
                per_endpoint_max: u32::MAX,
                ..**config
            };
            &unbounded
        };
        // Where a connection goes, those that are there weigh as much as calls: they may all begin to speak.
        let in_flight_of = |member: &Member| match head {
            Some(_) => member.in_flight(),
            None => member.in_flight() + member.connections(),
        };
        let index_of =
            |address: &SocketAddr| list.iter().position(|member| member.address() == *address);
        let tried: Vec<usize> = context.tried.iter().filter_map(index_of).collect();
        let candidate = |index: usize| {
            let member = &list[index];
            let in_flight = in_flight_of(member);
            let mut candidate = member.learnt().candidate(
                config,
                in_flight,
                member.is_draining(),
                || self.p99(),
                now,
            );
            if let Some(share) = list.share(index) {
                candidate.load = candidate.load.with_share(share, in_flight);
            }
            candidate
        };
        let by_key = match &list.ring {
            Some(ring) => self.choose_by_key(ring, &list, head, &tried, candidate),
            None => None,
        };
        let mut rng = fastrand::Rng::new();
        let reach = [0, 1].map(|part| self.reach[part].load(Ordering::Relaxed));
        let pool = list.pool(self.tally.out(), reach);
        let chosen = by_key.or_else(|| pool.choose(&tried, &mut rng, candidate));
        // A second try beside the first is of use elsewhere only.
        let is_elsewhere = |index: &usize| !context.hedge || !tried.contains(index);
        let Some(index) = chosen.filter(is_elsewhere) else {
            let count =
                |test: fn(&Member) -> bool| list.iter().filter(|member| test(member)).count();
            return Err(Error::NoEndpointAvailable {
                service: self.service.to_string(),
                ejected: count(|member| !member.is_eligible()),
                draining: count(Member::is_draining),
                busy: list
                    .iter()
                    .filter(|e| e.in_flight() >= config.per_endpoint_max)
                    .count(),
            });
        };
        let member = &list[index];
        let call = member.learnt().start(now);
        Ok(self.started(member, call))
    }

    /// `None`: the call has no key, or nobody near its place on the ring can take it.
    fn choose_by_key(
        &self,
        ring: &Ring,
        list: &[Arc<Member>],
        head: Option<&Parts>,
        tried: &[usize],
        candidate: impl Fn(usize) -> Candidate,
    ) -> Option<usize> {
        let affinity = self.affinity.load();
        let affinity = affinity.as_ref()?;
        let key = affinity.key(head, || self.own_key())?;
        let out = self.tally.out();
        let connections = match head {
            Some(_) => 0,
            None => self.connections.load(Ordering::Relaxed),
        };
        let bound = Bound {
            in_flight: self.in_flight.load(Ordering::Relaxed) + connections,
            factor: affinity.bound,
            available: list.len().saturating_sub(out).max(1) as f64 / list.len() as f64,
        };
        ring.choose(key, bound, tried, |index| Place {
            candidate: candidate(index),
            in_flight: match head {
                Some(_) => list[index].in_flight(),
                None => list[index].in_flight() + list[index].connections(),
            },
            weight: list[index].weight(),
        })
    }

    /// Who this workload is, as a key. `None` until it has a certificate.
    fn own_key(&self) -> Option<u64> {
        let own = self.connector.identity.current()?;
        Some(ring::hash(own.id.as_str().as_bytes()))
    }

    /// An endpoint that has just passed its synthetic probe needs a real request, and no balancer would choose it.
    fn claim_probe(
        self: &Arc<Self>,
        list: &[Arc<Member>],
        context: &Context,
        now: Instant,
    ) -> Option<Chosen> {
        let wants = |e: &&Arc<Member>| e.mirror.is_half_open() && !e.is_draining();
        for member in list.iter().filter(wants) {
            let call = member.learnt().start_probe(context.replayable, now);
            if let Some(call) = call {
                return Some(self.started(member, call));
            }
        }
        None
    }

    fn started(self: &Arc<Self>, member: &Arc<Member>, call: Started) -> Chosen {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        member.in_flight.fetch_add(1, Ordering::Relaxed);
        Chosen {
            member: member.clone(),
            endpoints: self.clone(),
            call,
            race: None,
            is_connection: false,
            connect_failed: false,
            retry_after: None,
        }
    }

    /// Calls and probes may outlive what discovery says of an endpoint.
    fn lists(&self, member: &Member) -> bool {
        let list = self.list.load();
        list.iter().any(|listed| std::ptr::eq(&**listed, member))
    }

    /// Reports what a gate did. To be called with the member locked, after anything that may change it.
    fn publish(&self, member: &Member, learnt: &mut Learnt) {
        while let Some(transition) = learnt.gate.take_transition() {
            if !self.lists(member) {
                continue;
            }
            let address = member.address().to_string();
            self.metrics.endpoint_changed(&address, &transition);
            self.facts
                .endpoint_changed(&self.service, &address, transition);
        }
        let now = Standing {
            eligible: learnt.gate.is_eligible(),
            half_open: learnt.gate.state() == Phase::HalfOpen,
        };
        let Some(before) = self.tally.changed(&member.mirror, now) else {
            return;
        };
        let list = self.list.load();
        self.tally.count(mirrors(&list));
        self.set_reach(&list);
        if before.eligible && !now.eligible {
            member.ejected.notify_waiters();
        }
    }

    /// How far the aperture reaches, after a gate or the pool has changed.
    fn set_reach(&self, list: &Members) {
        let width = match list.len() {
            small if small <= aperture::WHOLE_UP_TO => small,
            _ => self.width.load(Ordering::Relaxed),
        };
        for (reach, found) in self.reach.iter().zip(list.reach(width)) {
            reach.store(found, Ordering::Relaxed);
        }
    }

    /// How many of a large pool get calls.
    fn set_width(&self, list: &Members, now: Instant) {
        if list.len() <= aperture::WHOLE_UP_TO {
            return;
        }
        let load = mean(
            self.called(list)
                .map(|member| member.learnt().load.get(now)),
        );
        let mut aperture = self.aperture.lock().expect("no panic while locked");
        let width = aperture.width(self.in_flight(), load, list.len(), now);
        self.width.store(width, Ordering::Relaxed);
    }

    fn opening(&self) -> MutexGuard<'_, ()> {
        self.opening.lock().expect("no panic while locked")
    }

    /// At most so many may be out at once, and never the last (resilience.md section 2). Holds as long as the lock.
    fn may_open(&self, list: &[Arc<Member>], _opening: &MutexGuard<'_, ()>) -> bool {
        let config = self.config.load();
        // The gate then reports that it would open.
        if config.gate.mode == Mode::Observe {
            return false;
        }
        let cap = open_max(list.len(), config.gate.max_open_percent);
        list.iter().filter(|member| !member.is_eligible()).count() < cap
    }

    /// The success rate of those that take calls: failing like everybody else is no reason to be ejected.
    fn success_rate(list: &[Arc<Member>], now: Instant) -> Option<f64> {
        let mut counts = Counts::default();
        for member in list {
            if member.is_eligible() {
                counts.add(member.learnt().gate.counts(now));
            }
        }
        counts.success_rate()
    }

    /// Calls that have not ended.
    pub fn in_flight(&self) -> u32 {
        u32::try_from(self.in_flight.load(Ordering::Relaxed)).unwrap_or(u32::MAX)
    }

    /// How busy those that take calls say they are, on average; 1.0 is all they can do.
    pub fn said_load(&self, now: Instant) -> f64 {
        let list = self.list.load();
        mean(
            self.called(&list)
                .map(|member| member.learnt().load.get(now)),
        )
    }

    /// Those that get calls; whoever gets none says nothing of itself.
    fn called<'a>(&self, list: &'a Members) -> impl Iterator<Item = &'a Arc<Member>> {
        let (near, far) = list.split_at(list.near());
        let reached = |part: usize, of: &'a [Arc<Member>]| {
            let reach = self.reach[part].load(Ordering::Relaxed);
            &of[..reach.min(of.len())]
        };
        let reached = reached(0, near).iter().chain(reached(1, far));
        reached.filter(|member| member.is_eligible())
    }

    /// The share that takes no calls because it failed; 0.0 to 1.0.
    pub fn gated_share(&self) -> f64 {
        let list = self.list.load();
        let gated = list.iter().filter(|member| !member.is_eligible()).count();
        gated as f64 / list.len().max(1) as f64
    }

    /// Whether another endpoint than this takes calls.
    pub fn has_other_than(&self, address: SocketAddr) -> bool {
        let takes_calls = |member: &Member| member.is_eligible() && !member.is_draining();
        let list = self.list.load();
        (list.iter()).any(|member| member.address() != address && takes_calls(member))
    }

    pub fn p50(&self, now: Instant) -> Duration {
        let mut latency = self.latency.lock().expect("no panic while locked");
        latency.p50(now).unwrap_or_default()
    }

    pub fn p99(&self) -> Duration {
        Duration::from_nanos(self.p99_nanos.load(Ordering::Relaxed))
    }

    /// A few times a second, off the request path: finds silent endpoints and probes those that are due. Costs nothing
    /// while nobody is called and every gate is closed.
    pub fn tick(self: &Arc<Self>, now: Instant) {
        if self.in_flight.load(Ordering::Relaxed) == 0 && self.tally.is_settled() {
            return;
        }
        self.tally.begin_tick();
        let list = self.list.load();
        let p99 = {
            let mut latency = self.latency.lock().expect("no panic while locked");
            latency.p99(now)
        };
        let nanos = p99.map_or(0, |p99| u64::try_from(p99.as_nanos()).unwrap_or(u64::MAX));
        self.p99_nanos.store(nanos, Ordering::Relaxed);
        self.set_width(&list, now);
        let newest = Newest::of(list.iter().map(|member| member.learnt().last_completion));
        let config = self.config.load();
        let mut closed = true;
        for (index, member) in list.iter().enumerate() {
            let stall = p99.and_then(|p99| {
                let others_last = newest.but(index);
                member.learnt().silence(others_last, p99, &config, now)
            });
            if let Some(stall) = stall.filter(|stall| stall.stalled_for(now).is_some()) {
                let opening = self.opening();
                let may_open = self.may_open(&list, &opening);
                let mut learnt = member.learnt();
                learnt
                    .gate
                    .check_stall(now, stall, may_open, fastrand::u64(..));
                self.publish(member, &mut learnt);
            }
            let mut learnt = member.learnt();
            let probe = learnt.gate.wants_probe(now);
            self.publish(member, &mut learnt);
            closed &= learnt.gate.state() == Phase::Closed;
            drop(learnt);
            if let Some(kind) = probe {
                tokio::spawn(self.clone().probe(member.clone(), kind));
            }
        }
        let list = self.list.load();
        self.tally.end_tick(closed, mirrors(&list));
        self.set_reach(&list);
    }

    /// So that neither a black hole nor an app that hangs costs a user's request.
    async fn probe(self: Arc<Self>, member: Arc<Member>, kind: ProbeKind) {
        let identity = member.endpoint.identity.as_ref();
        let address = member.address();
        let result = match self.connector.connect(address, identity, alpn::HTTP2).await {
            Err(_) => ProbeResult::Failed,
            Ok(_) if kind == ProbeKind::Connect => ProbeResult::Passed,
            Ok(stream) => match question::is_answered(stream, address).await {
                true => ProbeResult::Passed,
                false => ProbeResult::Unanswered,
            },
        };
        let mut learnt = member.learnt();
        learnt
            .gate
            .probe_result(result, Instant::now(), fastrand::u64(..));
        self.publish(&member, &mut learnt);
    }
}

fn mean(of: impl Iterator<Item = f64>) -> f64 {
    let (count, sum) = of.fold((0u32, 0.0), |(count, sum), one| (count + 1, sum + one));
    sum / f64::from(count.max(1))
}

fn mirrors(list: &[Arc<Member>]) -> impl Iterator<Item = &Mirror> {
    list.iter().map(|member| &member.mirror)
}

fn affinity(outbound: &Outbound) -> Option<Affinity> {
    outbound.consistent_hash.as_ref().map(Affinity::new)
}

#[cfg(test)]
pub(crate) mod tests;
