//! Who wants to hear of what, and what there is to hear.
//!
//! Everything is found by a map: the cost of a change is the number of those who want it, not of those who are there.

mod nodes;
mod progress;

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use prost::bytes::Bytes;
use weir_config::compile;
use weir_config::index::{Destination, Index, Touched};
use weir_config::pb;
use weir_config::pb::destination::Target;
use weir_config::resource::ObjectName;
use weir_config::snapshot::ServiceKey;

use super::mailbox::{Dirty, Mailbox};
use super::published::{Published, message};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(u64);

#[derive(Default)]
pub(super) struct Board {
    next_id: u64,
    acknowledgements: u64,
    sessions: HashMap<SessionId, Session>,
    sessions_of_pod: HashMap<ObjectName, HashSet<SessionId>>,
    sessions_of_namespace: HashMap<String, HashSet<SessionId>>,
    services: HashMap<ServiceKey, Wanted>,
    /// The ports of a service that somebody wants.
    ports: HashMap<ObjectName, BTreeSet<u16>>,
    addresses: HashMap<IpAddr, HashSet<(u16, SessionId)>>,
    services_of_name: HashMap<String, BTreeSet<ServiceKey>>,
}

struct Session {
    pod: ObjectName,
    /// That its pod is on; "": nobody knows.
    node: String,
    mailbox: Arc<Mailbox>,
    addresses: HashMap<SocketAddr, Meaning>,
    /// How many of its addresses lead to the service.
    services: HashMap<ServiceKey, usize>,
    /// What their routes send calls to, and what stands in for those and these, whether or not it is called itself. What
    /// would stand in for what stands in is not wanted: nobody falls back twice, nor is sent on twice.
    others: HashSet<ServiceKey>,
    /// Policies it has in force.
    holds: HashMap<ServiceKey, Bytes>,
    workload: Option<Bytes>,
    /// What its own workload should be, as it was last compiled; `None`: it may have changed since.
    wanted_workload: RefCell<Option<Bytes>>,
}

#[derive(Default)]
struct Wanted {
    by: HashSet<SessionId>,
    published: Option<Arc<Published>>,
}

impl Session {
    fn wants(&self, key: &ServiceKey) -> bool {
        self.services.contains_key(key) || self.others.contains(key)
    }
}

/// What an address is, as a sidecar was or will be told.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Meaning {
    Service(ServiceKey),
    Pod(Box<pb::Endpoint>),
    Outside,
}

impl Meaning {
    pub(super) fn of(index: &Index, address: SocketAddr) -> Self {
        match index.destination(address) {
            Destination::Service(key) => Self::Service(key),
            Destination::Pod(pod) => {
                let endpoint = compile::direct_endpoint(index, &pod, address);
                // Whoever calls a pod by its address wants that pod, draining or not.
                Self::Pod(Box::new(message(&endpoint, address.ip(), &HashSet::new())))
            }
            Destination::Outside => Self::Outside,
        }
    }

    fn target(&self) -> Target {
        match self {
            Self::Service(key) => Target::Service(key.to_string()),
            Self::Pod(endpoint) => Target::Endpoint(pb::Endpoint::clone(endpoint)),
            Self::Outside => Target::Outside(pb::Outside {}),
        }
    }
}

impl Board {
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.sessions.is_empty()
            && self.sessions_of_pod.is_empty()
            && self.sessions_of_namespace.is_empty()
            && self.services.is_empty()
            && self.ports.is_empty()
            && self.addresses.is_empty()
            && self.services_of_name.is_empty()
    }

    pub(super) fn join(&mut self, pod: ObjectName, mailbox: Arc<Mailbox>) -> SessionId {
        let id = SessionId(self.next_id);
        self.next_id += 1;
        self.sessions_of_pod
            .entry(pod.clone())
            .or_default()
            .insert(id);
        self.sessions_of_namespace
            .entry(pod.namespace.clone())
            .or_default()
            .insert(id);
        let session = Session {
            pod,
            node: String::new(),
            mailbox,
            addresses: HashMap::new(),
            services: HashMap::new(),
            others: HashSet::new(),
            holds: HashMap::new(),
            workload: None,
            wanted_workload: RefCell::default(),
        };
        self.sessions.insert(id, session);
        self.acknowledgements += 1;
        id
    }

    pub(super) fn leave(&mut self, id: SessionId) {
        let Some(session) = self.sessions.remove(&id) else {
            return;
        };
        self.acknowledgements += 1;
        for address in session.addresses.keys() {
            forget(&mut self.addresses, &address.ip(), &(address.port(), id));
        }
        for key in session.services.keys().chain(&session.others) {
            self.unwant(id, key);
        }
        forget(&mut self.sessions_of_pod, &session.pod, &id);
        forget(&mut self.sessions_of_namespace, &session.pod.namespace, &id);
    }

    /// `address` means this to `id` from now on. Whether that is news to it.
    pub(super) fn means(&mut self, id: SessionId, address: SocketAddr, meaning: Meaning) -> bool {
        let Some(session) = self.sessions.get_mut(&id) else {
            return false;
        };
        let before = session.addresses.insert(address, meaning.clone());
        if before.as_ref() == Some(&meaning) {
            return false;
        }
        self.addresses
            .entry(address.ip())
            .or_default()
            .insert((address.port(), id));
        if let Meaning::Service(key) = &meaning {
            *session.services.entry(key.clone()).or_default() += 1;
            want(&mut self.services, &mut self.ports, id, key);
        }
        session.mailbox.mark(|dirty| {
            dirty.addresses.insert(address);
            if let Meaning::Service(key) = &meaning {
                dirty.services.insert(key.clone());
            }
            dirty.urgent = true;
        });
        if let Some(Meaning::Service(key)) = before {
            self.release(id, &key);
        }
        true
    }

    pub(super) fn unsubscribe(&mut self, id: SessionId, address: SocketAddr) {
        let session = self.sessions.get_mut(&id);
        let Some(before) = session.and_then(|session| session.addresses.remove(&address)) else {
            return;
        };
        forget(&mut self.addresses, &address.ip(), &(address.port(), id));
        if let Meaning::Service(key) = before {
            self.release(id, &key);
        }
    }

    pub(super) fn wants(&self, id: SessionId, key: &ServiceKey) -> bool {
        let session = self.sessions.get(&id);
        session.is_some_and(|session| session.wants(key))
    }

    /// The services that a pod's sidecar calls.
    pub(super) fn services_of(&self, pod: &ObjectName) -> BTreeSet<ServiceKey> {
        let sessions = self.sessions_of_pod.get(pod).into_iter().flatten();
        sessions
            .filter_map(|id| self.sessions.get(id))
            .flat_map(|session| session.services.keys().chain(&session.others).cloned())
            .collect()
    }

    pub(super) fn subscriptions(&self, id: SessionId) -> usize {
        self.sessions
            .get(&id)
            .map_or(0, |session| session.addresses.len())
    }

    pub(super) fn service_of(&self, id: SessionId, address: SocketAddr) -> Option<ServiceKey> {
        match self.sessions.get(&id)?.addresses.get(&address)? {
            Meaning::Service(key) => Some(key.clone()),
            Meaning::Pod(_) | Meaning::Outside => None,
        }
    }

    /// Of the dirty addresses, and of all that lead to a dirty service (they must arrive together).
    pub(super) fn destinations(&self, id: SessionId, dirty: &Dirty) -> Vec<(SocketAddr, Target)> {
        let Some(session) = self.sessions.get(&id) else {
            return Vec::new();
        };
        let addresses = dirty.addresses.iter();
        addresses
            .filter_map(|address| Some((*address, session.addresses.get(address)?.target())))
            .collect()
    }

    pub(super) fn published(&self, key: &ServiceKey) -> Option<Arc<Published>> {
        self.services.get(key)?.published.clone()
    }

    /// Wakes those who want it, when it is news. Returns what is to be published for the first time because of it.
    #[must_use]
    pub(super) fn publish(&mut self, published: Published) -> Vec<ServiceKey> {
        let Some(wanted) = self.services.get_mut(&published.key) else {
            return Vec::new();
        };
        let before = wanted.published.as_deref();
        if before == Some(&published) {
            return Vec::new();
        }
        let others = match before {
            Some(before) => !before.leads_the_same_way_as(&published),
            None => !published.leads_nowhere(),
        };
        let urgent = before.is_none_or(|before| before.endpoints != published.endpoints);
        let key = published.key.clone();
        for gone in before
            .into_iter()
            .flat_map(|before| before.names.difference(&published.names))
        {
            forget_ordered(&mut self.services_of_name, gone, &key);
        }
        for name in &published.names {
            self.services_of_name
                .entry(name.clone())
                .or_default()
                .insert(key.clone());
        }
        wanted.published = Some(Arc::new(published));
        for session in wanted.by.iter().filter_map(|id| self.sessions.get(id)) {
            session.mailbox.mark(|dirty| {
                dirty.services.insert(key.clone());
                dirty.urgent |= urgent;
            });
        }
        if !others {
            return Vec::new();
        }
        let by: Vec<SessionId> = wanted.by.iter().copied().collect();
        by.into_iter().flat_map(|id| self.settle(id)).collect()
    }

    /// Makes `id` want what the services that it calls send their calls to, and what stands in for all of these, and
    /// nothing else of that sort. Returns those of which nothing is published yet.
    #[must_use]
    pub(super) fn settle(&mut self, id: SessionId) -> Vec<ServiceKey> {
        let Some(session) = self.sessions.get_mut(&id) else {
            return Vec::new();
        };
        let namespace = session.pod.namespace.as_str();
        let published = |key: &ServiceKey| {
            let published = self.services.get(key)?.published.as_ref()?;
            Some(published.for_callers_in(namespace))
        };
        let called = || session.services.keys().filter_map(published);
        let backends = || called().flat_map(|it| &it.backends);
        let standing_in = called()
            .chain(backends().filter_map(published))
            .flat_map(|it| &it.alternates);
        let wanted: HashSet<ServiceKey> = backends().chain(standing_in).cloned().collect();
        let before = std::mem::replace(&mut session.others, wanted.clone());
        let mut unpublished = Vec::new();
        for key in wanted.difference(&before) {
            session.mailbox.mark(|dirty| {
                dirty.services.insert(key.clone());
            });
            want(&mut self.services, &mut self.ports, id, key);
            if self
                .services
                .get(key)
                .is_some_and(|wanted| wanted.published.is_none())
            {
                unpublished.push(key.clone());
            }
        }
        for key in before.difference(&wanted) {
            self.lose(id, key);
        }
        unpublished
    }

    pub(super) fn everybody(&self, mark: impl Fn(&mut Dirty)) {
        for session in self.sessions.values() {
            session.mailbox.mark(&mark);
        }
    }

    /// The services that somebody wants, of those that were touched.
    pub(super) fn wanted_services(&self, touched: &Touched) -> Vec<ServiceKey> {
        if touched.everything {
            return self.services.keys().cloned().collect();
        }
        let mut keys = BTreeSet::new();
        if !touched.namespaces.is_empty() {
            keys.extend(
                self.services
                    .keys()
                    .filter(|key| touched.namespaces.contains(&key.namespace))
                    .cloned(),
            );
        }
        for name in &touched.services {
            let ports = self.ports.get(name).into_iter().flatten();
            keys.extend(ports.map(|port| key_of(name, *port)));
        }
        keys.into_iter().collect()
    }

    /// Marks those whose own workload may have changed; they look whether it did.
    pub(super) fn mark_workloads(&self, touched: &Touched) {
        let mark = |session: &Session| {
            session.wanted_workload.take();
            session.mailbox.mark(|dirty| dirty.workload = true);
        };
        if touched.everything {
            return self.sessions.values().for_each(mark);
        }
        let namespaces: HashSet<&String> = touched
            .namespaces
            .iter()
            .chain(touched.addresses.iter().map(|service| &service.namespace))
            .collect();
        let by_namespace = namespaces
            .into_iter()
            .filter_map(|namespace| self.sessions_of_namespace.get(namespace));
        let by_pod = touched
            .pods
            .iter()
            .filter_map(|pod| self.sessions_of_pod.get(pod));
        for id in by_namespace.chain(by_pod).flatten() {
            self.sessions.get(id).into_iter().for_each(mark);
        }
    }

    pub(super) fn wanted_addresses(&self, moved: &HashSet<IpAddr>) -> Vec<(SessionId, SocketAddr)> {
        let wanted = moved.iter().flat_map(|ip| {
            self.addresses
                .get(ip)
                .into_iter()
                .flatten()
                .map(move |it| (ip, it))
        });
        wanted
            .map(|(ip, (port, id))| (*id, SocketAddr::new(*ip, *port)))
            .collect()
    }

    pub(super) fn names(&self) -> BTreeSet<String> {
        self.services_of_name.keys().cloned().collect()
    }

    pub(super) fn services_with(&self, name: &str) -> BTreeSet<ServiceKey> {
        self.services_of_name.get(name).cloned().unwrap_or_default()
    }

    /// One address of `id` leads to `key` no longer.
    fn release(&mut self, id: SessionId, key: &ServiceKey) {
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        let Some(count) = session.services.get_mut(key) else {
            return;
        };
        *count -= 1;
        if *count > 0 {
            return;
        }
        session.services.remove(key);
        self.lose(id, key);
    }

    /// One reason less to want `key`. After the last, `id` is told that the service is gone.
    fn lose(&mut self, id: SessionId, key: &ServiceKey) {
        let session = self.sessions.get(&id);
        let Some(session) = session.filter(|session| !session.wants(key)) else {
            return;
        };
        session.mailbox.mark(|dirty| {
            dirty.services.insert(key.clone());
        });
        self.unwant(id, key);
    }

    fn unwant(&mut self, id: SessionId, key: &ServiceKey) {
        let Some(wanted) = self.services.get_mut(key) else {
            return;
        };
        wanted.by.remove(&id);
        if !wanted.by.is_empty() {
            return;
        }
        let names = wanted
            .published
            .iter()
            .flat_map(|published| &published.names)
            .cloned()
            .collect::<Vec<_>>();
        for name in names {
            forget_ordered(&mut self.services_of_name, &name, key);
        }
        self.services.remove(key);
        let name = name_of(key);
        if let Some(ports) = self.ports.get_mut(&name) {
            ports.remove(&key.port);
            if ports.is_empty() {
                self.ports.remove(&name);
            }
        }
    }
}

fn want(
    services: &mut HashMap<ServiceKey, Wanted>,
    ports: &mut HashMap<ObjectName, BTreeSet<u16>>,
    id: SessionId,
    key: &ServiceKey,
) {
    ports.entry(name_of(key)).or_default().insert(key.port);
    services.entry(key.clone()).or_default().by.insert(id);
}

fn name_of(key: &ServiceKey) -> ObjectName {
    ObjectName::new(&key.namespace, &key.name)
}

fn key_of(name: &ObjectName, port: u16) -> ServiceKey {
    ServiceKey {
        namespace: name.namespace.clone(),
        name: name.name.clone(),
        port,
    }
}

fn forget<K: std::hash::Hash + Eq, V: std::hash::Hash + Eq>(
    map: &mut HashMap<K, HashSet<V>>,
    key: &K,
    value: &V,
) {
    if let Some(values) = map.get_mut(key) {
        values.remove(value);
        if values.is_empty() {
            map.remove(key);
        }
    }
}

fn forget_ordered(map: &mut HashMap<String, BTreeSet<ServiceKey>>, name: &str, key: &ServiceKey) {
    if let Some(keys) = map.get_mut(name) {
        keys.remove(key);
        if keys.is_empty() {
            map.remove(name);
        }
    }
}
