//! The mesh as the control plane knows it: what the sources said, what sidecars said of themselves, and who wants
//! to hear of which part.
//!
//! ```text
//!  sources ──change──▶ ┌───────┐  compile what was touched   ┌───────┐  mark dirty, wake   sessions
//!  names ──resolved──▶ │ index │ ──────────────────────────▶ │ board │ ──────────────────▶ (one mailbox each)
//!  facts ───drain────▶ └───────┘  once, for all who want it  └───────┘ ◀──── collect ─────
//! ```
//!
//! A change is compiled once however many sidecars want it, and only when somebody does. A mailbox says *what* is
//! new and never holds the news itself: a slow sidecar finds the newest state, and costs no more than its
//! subscriptions.
//!
//! The lock is held for look-ups and compilation only, never across an await.

mod board;
mod effective;
mod enforcement;
mod mailbox;
mod membership;
mod outages;
mod published;
mod routing;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prost::bytes::Bytes;
use tokio::sync::watch;
use weir_config::compile;
use weir_config::index::{Index, Touched};
use weir_config::resource::{MeshConfig, ObjectName, Pod};
use weir_config::snapshot::{Forced, Protocol, Routing, ServiceKey};
use weir_config::{Kind, Resource, ResourceRef};

pub use self::board::SessionId;
pub use self::enforcement::Enforcement;
pub use self::mailbox::{Dirty, Mailbox};
pub use self::membership::{Held, Membership, News};
pub use self::outages::Outage;
pub use self::published::{Published, endpoints_delta};
pub use self::routing::RouteParent;

use self::board::{Board, Meaning};
use crate::version::Versions;

/// Sorts behind every name a user may choose, so that any MeshConfig of a user's wins.
const OWN_MESH_CONFIG: &str = "~";

pub enum Change {
    Apply(Box<Resource>),
    Delete(ResourceRef),
}

/// A handle; all clones are the same mesh.
#[derive(Clone)]
pub struct Mesh(Arc<Inner>);

struct Inner {
    trust_domain: String,
    state: Mutex<State>,
    /// Of the newest change.
    version: watch::Sender<u64>,
    /// Names among the endpoints that somebody wants: for the resolver.
    names: watch::Sender<BTreeSet<String>>,
}

struct State {
    index: Index,
    /// Pods whose sidecar said that it is draining.
    draining: HashSet<ObjectName>,
    /// Breakers that an operator holds.
    forced: BTreeMap<ServiceKey, Forced>,
    /// Last good answers, by name.
    resolved: HashMap<String, Vec<IpAddr>>,
    trust_bundle: Arc<[Bytes]>,
    board: Board,
    versions: Versions,
}

impl Mesh {
    pub fn new(trust_domain: &str, versions: Versions) -> Self {
        let mut index = Index::default();
        index.apply(Resource::MeshConfig(own_mesh_config(trust_domain)));
        let state = State {
            index,
            draining: HashSet::new(),
            forced: BTreeMap::new(),
            resolved: HashMap::new(),
            trust_bundle: Arc::new([]),
            board: Board::default(),
            versions,
        };
        Self(Arc::new(Inner {
            trust_domain: trust_domain.to_owned(),
            version: watch::Sender::new(state.versions.current()),
            names: watch::Sender::default(),
            state: Mutex::new(state),
        }))
    }

    pub fn trust_domain(&self) -> &str {
        &self.0.trust_domain
    }

    pub fn version(&self) -> u64 {
        *self.0.version.borrow()
    }

    pub fn pod(&self, name: &ObjectName) -> Option<Arc<Pod>> {
        self.state().index.pod(name).cloned()
    }

    /// The same, but patient: a pod may ask for its certificate before its file was read.
    pub async fn pod_soon(
        &self,
        name: &ObjectName,
        patience: std::time::Duration,
    ) -> Option<Arc<Pod>> {
        let mut version = self.0.version.subscribe();
        let found = async {
            loop {
                version.borrow_and_update();
                if let Some(pod) = self.pod(name) {
                    return Some(pod);
                }
                version.changed().await.ok()?;
            }
        };
        tokio::time::timeout(patience, found).await.ok().flatten()
    }

    /// The version, whenever it changes.
    pub fn versions(&self) -> watch::Receiver<u64> {
        self.0.version.subscribe()
    }

    pub fn namespaces_with_sidecars(&self) -> BTreeSet<String> {
        let state = self.state();
        let meshed = state.index.pods().filter(|pod| pod.is_meshed());
        meshed
            .map(|pod| pod.metadata.namespace().to_owned())
            .collect()
    }

    pub fn has_sidecars_outside(&self, namespaces: &BTreeSet<String>) -> bool {
        let state = self.state();
        let mut meshed = state.index.pods().filter(|pod| pod.is_meshed());
        meshed.any(|pod| !namespaces.contains(pod.metadata.namespace()))
    }

    /// The names to resolve, whenever they change.
    pub fn names(&self) -> watch::Receiver<BTreeSet<String>> {
        self.0.names.subscribe()
    }

    /// All of it at once: whoever looks sees it before or after, never between.
    pub fn change(&self, changes: impl IntoIterator<Item = Change>) -> u64 {
        // What is known already makes no version: a source that says everything twice wakes nobody.
        let changes: Vec<Change> = changes
            .into_iter()
            .map(|change| self.with_trust_domain(change))
            .collect();
        let is_news = {
            let state = self.state();
            changes.iter().any(|change| state.is_news(change))
        };
        if !is_news {
            return self.version();
        }
        self.update(|state| {
            let mut touched = Touched::default();
            // Addresses may mean something else after the change: those the old resources had, and the new ones.
            let mut moved = HashSet::new();
            for change in changes {
                let reference = match &change {
                    Change::Apply(resource) => resource.reference(),
                    Change::Delete(reference) => reference.clone(),
                };
                moved.extend(state.addresses(&reference));
                touched.absorb(match change {
                    Change::Apply(resource) => state.index.apply(*resource),
                    Change::Delete(reference) => state.index.delete(&reference),
                });
                moved.extend(state.addresses(&reference));
            }
            for pod in &touched.pods {
                if state.index.pod(pod).is_none() {
                    state.draining.remove(pod);
                }
            }
            state.refresh(&touched, &moved);
        })
    }

    /// A pod's sidecar is draining, or ready (again).
    pub fn set_draining(&self, pod: &ObjectName, draining: bool) {
        self.update(|state| {
            // A stream may outlive its pod: nobody would ever take it back.
            if draining && state.index.pod(pod).is_none() {
                return;
            }
            let changed = if draining {
                state.draining.insert(pod.clone())
            } else {
                state.draining.remove(pod)
            };
            let known = state.index.pod(pod).cloned();
            if let Some(known) = known.filter(|_| changed) {
                // Out and in again, which nobody sees: the index says whose endpoint it is.
                let known = Resource::Pod(Pod::clone(&known));
                let mut touched = state.index.delete(&known.reference());
                touched.absorb(state.index.apply(known));
                state.refresh(&touched, &HashSet::new());
            }
        });
    }

    /// What a name among the endpoints means now.
    pub fn resolved(&self, name: &str, addresses: Vec<IpAddr>) {
        self.update(|state| {
            if !state.board.names().contains(name) {
                return;
            }
            if state.resolved.insert(name.to_owned(), addresses.clone()) != Some(addresses) {
                for service in state.board.services_with(name) {
                    state.republish(&service);
                }
            }
        });
    }

    /// The ports of a service; none: there is no such service, or it has no such port.
    pub fn ports_of(&self, service: &ObjectName, port: Option<u16>) -> Vec<ServiceKey> {
        let state = self.state();
        let Some(found) = state.index.service(service) else {
            return Vec::new();
        };
        let ports = found.spec.ports.iter().filter(|found| found.is_tcp());
        ports
            .map(|found| found.port)
            .filter(|number| port.is_none_or(|port| port == *number))
            .map(|port| ServiceKey {
                namespace: service.namespace.clone(),
                name: service.name.clone(),
                port,
            })
            .collect()
    }

    /// What is held by an operator.
    pub fn forced(&self) -> BTreeMap<ServiceKey, Forced> {
        self.state().forced.clone()
    }

    /// Holds breakers, or lets go of them.
    pub fn force(&self, changes: impl IntoIterator<Item = (ServiceKey, Option<Forced>)>) {
        self.update(|state| {
            for (key, forced) in changes {
                match forced {
                    Some(forced) => state.forced.insert(key.clone(), forced),
                    None => state.forced.remove(&key),
                };
                state.republish(&key);
            }
        });
    }

    /// Why holding the breaker of a service port refuses nobody; `None`: its callers ask it.
    pub fn breaker_is_not_asked(&self, key: &ServiceKey) -> Option<String> {
        let state = self.state();
        let name = ObjectName::new(&key.namespace, &key.name);
        if let Some(why) = state.index.service(&name)?.spec.no_address() {
            return Some(format!("{key}: {why}"));
        }
        let service = compile::service(&state.index, key)?;
        if service.protocol == Protocol::Opaque {
            let why = "its bytes are carried as they are, there are no calls to refuse";
            return Some(format!("{key}: {why}"));
        }
        let for_all = |routing: &&Routing| routing.callers.is_none();
        let routing = service.routing.iter().find(for_all)?;
        let backends: BTreeSet<&ServiceKey> = routing.backends().collect();
        if backends.contains(key) {
            return None;
        }
        let backends: Vec<String> = backends.into_iter().map(ToString::to_string).collect();
        let instead = match backends.is_empty() {
            true => "nobody".to_owned(),
            false => format!("{}: force those", backends.join(", ")),
        };
        Some(format!("{key}: its routes send calls to {instead}"))
    }

    /// Lets go of those whose time is over, and says which they are.
    pub fn expire_forced(&self, now_ms: u64) -> Vec<ServiceKey> {
        let over: Vec<ServiceKey> = {
            let state = self.state();
            let forced = state.forced.iter();
            let over = forced.filter(|(_, forced)| forced.until_ms <= now_ms);
            over.map(|(key, _)| key.clone()).collect()
        };
        if !over.is_empty() {
            self.force(over.iter().map(|key| (key.clone(), None)));
        }
        over
    }

    pub fn set_trust_bundle(&self, bundle: Vec<Bytes>) {
        self.update(|state| {
            if *state.trust_bundle != *bundle {
                state.trust_bundle = bundle.into();
                state.board.everybody(|dirty| dirty.trust_bundle = true);
            }
        });
    }

    pub fn trust_bundle(&self) -> Arc<[Bytes]> {
        self.state().trust_bundle.clone()
    }

    /// A sidecar has come. Its first news are its own workload and whom to trust.
    pub fn join(&self, pod: &ObjectName) -> Membership {
        let mailbox = Arc::new(Mailbox::default());
        let id = self.state().join(pod, mailbox.clone());
        mailbox.mark(|dirty| {
            dirty.workload = true;
            dirty.trust_bundle = true;
            dirty.urgent = true;
        });
        Membership::new(self.clone(), id, mailbox)
    }

    fn update(&self, change: impl FnOnce(&mut State)) -> u64 {
        let mut state = self.state();
        let version = state.versions.advance();
        change(&mut state);
        let names = state.names();
        drop(state);
        self.publish_names(names);
        self.0.version.send_replace(version);
        version
    }

    fn publish_names(&self, names: BTreeSet<String>) {
        self.0.names.send_if_modified(|known| {
            let changed = *known != names;
            *known = names;
            changed
        });
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic under the lock is a bug of ours; the index itself is whole, so the others go on.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with_trust_domain(&self, mut change: Change) -> Change {
        if let Change::Apply(resource) = &mut change
            && let Resource::MeshConfig(mesh) = &mut **resource
        {
            // The CA decides; the source has refused a file that says otherwise.
            mesh.spec.trust_domain = Some(self.0.trust_domain.clone());
        }
        change
    }
}

impl State {
    /// That somebody wants; what the others meant is forgotten.
    fn names(&mut self) -> BTreeSet<String> {
        let names = self.board.names();
        self.resolved.retain(|name, _| names.contains(name));
        names
    }

    /// Compiles what was touched and wakes whoever wants it.
    fn refresh(&mut self, touched: &Touched, moved: &HashSet<IpAddr>) {
        for service in self.board.wanted_services(touched) {
            self.republish(&service);
        }
        self.board.mark_workloads(touched);
        for pod in touched.pods.iter().filter_map(|pod| self.index.pod(pod)) {
            self.board.place(pod);
        }
        for (session, address) in self.board.wanted_addresses(moved) {
            let meaning = Meaning::of(&self.index, address);
            if self.board.means(session, address, meaning) {
                self.publish_wanted(session, address);
            }
        }
    }

    fn join(&mut self, pod: &ObjectName, mailbox: Arc<Mailbox>) -> SessionId {
        let id = self.board.join(pod.clone(), mailbox);
        if let Some(pod) = self.index.pod(pod) {
            self.board.place(pod);
        }
        id
    }

    fn subscribe(&mut self, session: SessionId, address: SocketAddr) {
        let meaning = Meaning::of(&self.index, address);
        if self.board.means(session, address, meaning) {
            self.publish_wanted(session, address);
        }
    }

    /// The first who wants a service has it compiled.
    fn publish_wanted(&mut self, session: SessionId, address: SocketAddr) {
        if let Some(key) = self.board.service_of(session, address)
            && self.board.published(&key).is_none()
        {
            self.republish(&key);
        }
        self.settle(session);
    }

    fn republish(&mut self, service: &ServiceKey) {
        let published = self.compiled(service);
        let wanted = self.board.publish(published);
        self.publish_others(wanted);
    }

    /// What a sidecar calls has changed, and with it whom that sends calls to, and what may stand in for it.
    fn settle(&mut self, session: SessionId) {
        let wanted = self.board.settle(session);
        self.publish_others(wanted);
    }

    /// A backend of a route may have somebody who stands in for it; for those nobody does.
    fn publish_others(&mut self, mut wanted: Vec<ServiceKey>) {
        while let Some(key) = wanted.pop() {
            let published = self.compiled(&key);
            wanted.extend(self.board.publish(published));
        }
    }

    fn compiled(&self, service: &ServiceKey) -> Published {
        let forced = self.forced.get(service).copied();
        Published::compile(&self.index, service, forced, &self.draining, &self.resolved)
    }

    fn is_news(&self, change: &Change) -> bool {
        match change {
            Change::Apply(resource) => !self.index.holds(&resource.reference(), resource),
            Change::Delete(reference) => self.index.get(reference).is_some(),
        }
    }

    fn addresses(&self, reference: &ResourceRef) -> Vec<IpAddr> {
        match reference.kind {
            Kind::Service => self
                .index
                .service(&reference.name)
                .map(|it| it.spec.addresses().collect()),
            Kind::Pod => self
                .index
                .pod(&reference.name)
                .map(|pod| pod.addresses().collect()),
            _ => None,
        }
        .unwrap_or_default()
    }
}

fn own_mesh_config(trust_domain: &str) -> MeshConfig {
    let mut own = MeshConfig::default();
    own.metadata.name = OWN_MESH_CONFIG.to_owned();
    own.spec.trust_domain = Some(trust_domain.to_owned());
    own
}

#[cfg(test)]
mod tests;
