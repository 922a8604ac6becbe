//! The endpoints of one backend, and which of them gets the next call.
//!
//! Balancing compares what a call would cost (`policy/ewma.rs`), gates keep failing endpoints out (`policy/gate.rs`),
//! and [`tick`](Endpoints::tick) notices a few times a second what no call reports: that one has gone silent, or
//! that an ejected one is due for a probe.

mod choice;
mod chosen;
mod discovered;
mod gates;
mod members;
mod reach;

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::sync::Notify;
use tokio::time::Instant;
use weir_config::snapshot::{BalanceAlgorithm, Mode, Outbound, ZonePreference};

use crate::affinity::Affinity;
use crate::connector::Connector;
use crate::facts::Facts;
use crate::learnt::Config;
use crate::member::Member;
use crate::policy::aperture::{self, Aperture};
use crate::policy::latency::Latency;
use crate::tally::{Mirror, Tally};
use crate::telemetry::BackendMetrics;

pub use chosen::{Chosen, Place as ConnectionPlace};
pub use discovered::Described;
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
    /// Whether its policy only observes: then nobody is refused a place at an endpoint.
    observes: AtomicBool,
    /// What its gates do is nobody's business any more.
    forgotten: AtomicBool,
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
            observes: AtomicBool::new(false),
            forgotten: AtomicBool::new(false),
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
        // First, and with the lock of those who open gates: none opens by the old one any more.
        {
            let _opening = self.opening();
            self.config.store(Arc::new(config));
        }
        let (slow_start, now) = (*config.balance.slow_start, Instant::now());
        for member in self.list.load().iter() {
            let mut learnt = member.learnt();
            learnt.gate.reconfigure(config.gate, slow_start, now);
            self.publish(member, &mut learnt);
        }
        self.affinity.store(affinity(outbound).map(Arc::new));
        self.arrange(self.list.load().to_vec());
    }

    pub fn set_mode(&self, mode: Mode) {
        self.observes
            .store(mode == Mode::Observe, Ordering::Relaxed);
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

    /// The service is forgotten. Who calls it still goes on.
    pub fn say_goodbye(&self) {
        self.forgotten.store(true, Ordering::Relaxed);
        let list = self.list.load();
        list.iter().for_each(|member| self.tell_of_its_end(member));
    }

    /// Returns when there is an endpoint, or when none has come for a while, and says whether it took time. How many may
    /// wait is the limit's to say.
    pub async fn first(&self) -> bool {
        let is_empty = || self.list.load().is_empty();
        if !is_empty() {
            return false;
        }
        let mut arrived = pin!(self.arrived.notified());
        // From here on no arrival is missed.
        arrived.as_mut().enable();
        if is_empty() {
            // Who waited in vain is told by the choice that follows.
            let _ = tokio::time::timeout(FIRST_ENDPOINT_PATIENCE, arrived).await;
        }
        true
    }

    /// For an opaque connection, and whether it is within how many there may be.
    pub fn place_for_connection(self: &Arc<Self>) -> (ConnectionPlace, bool) {
        let (place, before) = ConnectionPlace::take(self);
        (place, before < self.config.load().connections_max)
    }

    /// Calls that have not ended.
    pub fn in_flight(&self) -> u32 {
        u32::try_from(self.in_flight.load(Ordering::Relaxed)).unwrap_or(u32::MAX)
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
}

fn mirrors(list: &[Arc<Member>]) -> impl Iterator<Item = &Mirror> {
    list.iter().map(|member| &member.mirror)
}

fn affinity(outbound: &Outbound) -> Option<Affinity> {
    outbound.consistent_hash.as_ref().map(Affinity::new)
}

#[cfg(test)]
pub(crate) mod tests;
