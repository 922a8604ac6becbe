//! A service port as it goes out: compiled and encoded once, shared by all who want it.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use prost::bytes::Bytes;
use weir_config::compile::{self, Host};
use weir_config::index::Index;
use weir_config::pb;
use weir_config::resource::ObjectName;
use weir_config::snapshot::{self, Forced, ServiceKey};

/// Of one name in one slice: a name that means more is cut, not followed.
const ADDRESSES_PER_NAME_MAX: usize = 1000;

#[derive(Clone, Debug, PartialEq)]
pub struct Published {
    pub key: ServiceKey,
    /// As JSON; empty: there is no such service.
    pub policy: Bytes,
    /// By address, each once.
    pub endpoints: Vec<pb::Endpoint>,
    /// Names among the endpoints, to be kept resolved.
    pub names: BTreeSet<String>,
    /// The services that stand in for it: who calls it has to know them before it needs them.
    pub alternates: BTreeSet<ServiceKey>,
    /// The services that its routes send calls to, for the same reason.
    pub backends: BTreeSet<ServiceKey>,
    /// The same for callers in namespaces that have routes of their own for it: nobody else is to be told of those, to wait
    /// for what they lead to, or to hold what they match.
    pub of_namespace: BTreeMap<String, Arc<Published>>,
    /// The same for callers on each node, where they are to have its endpoints only; `None`: all have all.
    pub of_node: Option<OfNode>,
}

/// Each endpoint is in one of them, so all nodes together cost what their endpoints do.
#[derive(Clone, Debug, PartialEq)]
pub struct OfNode {
    nodes: BTreeMap<String, Arc<Published>>,
    /// Without any endpoint.
    elsewhere: Arc<Published>,
}

impl Published {
    pub(super) fn compile(
        index: &Index,
        key: &ServiceKey,
        forced: Option<Forced>,
        draining: &HashSet<ObjectName>,
        resolved: &HashMap<String, Vec<IpAddr>>,
    ) -> Self {
        let mut names = BTreeSet::new();
        let mut endpoints = Vec::new();
        let mut nodes = compile::is_node_local(index, key).then(HashMap::new);
        for endpoint in compile::endpoints(index, key) {
            let addresses = match &endpoint.host {
                Host::Ip(ip) => std::slice::from_ref(ip),
                Host::Name(name) => {
                    names.insert(name.clone());
                    resolved.get(name).map(Vec::as_slice).unwrap_or_default()
                }
            };
            for ip in addresses.iter().take(ADDRESSES_PER_NAME_MAX) {
                let message = message(&endpoint, *ip, draining);
                if let Some(nodes) = &mut nodes {
                    let node = endpoint.node.clone().unwrap_or_default();
                    nodes.entry(message.address.clone()).or_insert(node);
                }
                endpoints.push(message);
            }
        }
        endpoints.sort_by(|a, b| a.address.cmp(&b.address));
        endpoints.dedup_by(|a, b| a.address == b.address);
        let mut published = Self {
            key: key.clone(),
            policy: Bytes::new(),
            endpoints,
            names,
            alternates: BTreeSet::new(),
            backends: BTreeSet::new(),
            of_namespace: BTreeMap::new(),
            of_node: None,
        };
        if let Some(mut policy) = compile::service(index, key) {
            policy.forced = forced;
            published.alternates = policy.alternates().cloned().collect();
            published.say(policy);
        }
        if let Some(nodes) = nodes {
            published.divide(&nodes);
        }
        published
    }

    /// To the callers on each node its own endpoints; `nodes`: by their addresses.
    fn divide(&mut self, nodes: &HashMap<String, String>) {
        for own in self.of_namespace.values_mut() {
            Arc::make_mut(own).divide(nodes);
        }
        let whole = std::mem::take(&mut self.endpoints);
        let of_namespace = std::mem::take(&mut self.of_namespace);
        let bare = self.clone();
        (self.endpoints, self.of_namespace) = (whole, of_namespace);
        let mut by_node: BTreeMap<&String, Vec<pb::Endpoint>> = BTreeMap::new();
        for endpoint in &self.endpoints {
            if let Some(node) = nodes.get(&endpoint.address) {
                by_node.entry(node).or_default().push(endpoint.clone());
            }
        }
        let with = |endpoints| {
            Arc::new(Self {
                endpoints,
                ..bare.clone()
            })
        };
        let by_node = by_node.into_iter();
        self.of_node = Some(OfNode {
            nodes: by_node
                .map(|(node, own)| (node.clone(), with(own)))
                .collect(),
            elsewhere: with(Vec::new()),
        });
    }

    /// To everybody what is for everybody, and to the callers of a namespace that has routes of its own those.
    fn say(&mut self, mut policy: snapshot::Service) {
        let routings = std::mem::take(&mut policy.routing);
        let mut of_namespace = BTreeMap::new();
        let mut of_everybody = Vec::new();
        for routing in routings {
            let Some(namespace) = routing.callers.clone() else {
                of_everybody.push(routing);
                continue;
            };
            policy.routing = vec![routing];
            let mut own = self.clone();
            own.encode(&policy);
            of_namespace.insert(namespace, Arc::new(own));
        }
        policy.routing = of_everybody;
        self.encode(&policy);
        self.of_namespace = of_namespace;
    }

    fn encode(&mut self, policy: &snapshot::Service) {
        self.backends = policy.backends().cloned().collect();
        let json = serde_json::to_vec(policy).expect("a policy is plain data");
        self.policy = json.into();
    }

    /// Whether its callers have to know the same other services by it.
    pub(super) fn leads_the_same_way_as(&self, other: &Self) -> bool {
        let [own, others] = [self, other].map(|it| {
            let of_namespace = it.of_namespace.iter();
            of_namespace.map(|(namespace, own)| (namespace, &own.backends))
        });
        (&self.alternates, &self.backends) == (&other.alternates, &other.backends) && own.eq(others)
    }

    pub(super) fn leads_nowhere(&self) -> bool {
        let others = [&self.alternates, &self.backends];
        others.into_iter().all(BTreeSet::is_empty) && self.of_namespace.is_empty()
    }

    /// What callers in `namespace` are told, but for the node they are on.
    pub fn for_callers_in(self: &Arc<Self>, namespace: &str) -> &Arc<Self> {
        self.of_namespace.get(namespace).unwrap_or(self)
    }

    /// Of what callers are told, what those on `node` are; "": on none, as where pods and endpoints have none at all.
    pub fn for_callers_on(self: &Arc<Self>, node: &str) -> &Arc<Self> {
        match &self.of_node {
            None => self,
            Some(of_node) => of_node.nodes.get(node).unwrap_or(&of_node.elsewhere),
        }
    }
}

pub(super) fn message(
    endpoint: &compile::Endpoint,
    ip: IpAddr,
    draining: &HashSet<ObjectName>,
) -> pb::Endpoint {
    let says_so = endpoint
        .pod
        .as_ref()
        .is_some_and(|pod| draining.contains(pod));
    pb::Endpoint {
        address: SocketAddr::new(ip, endpoint.port).to_string(),
        identity: endpoint.identity.clone().unwrap_or_default(),
        draining: endpoint.draining || says_so,
        weight: endpoint.weight,
        zone: endpoint.zone.clone().unwrap_or_default(),
        pod: endpoint
            .pod
            .as_ref()
            .map(ObjectName::to_string)
            .unwrap_or_default(),
    }
}

/// From what a sidecar has to what it should have; `None` when that is the same.
pub fn endpoints_delta(known: Option<&Published>, new: &Published) -> Option<pb::Endpoints> {
    let mut delta = pb::Endpoints {
        service: new.key.to_string(),
        ..Default::default()
    };
    let Some(known) = known else {
        delta.reset = true;
        delta.changed = new.endpoints.clone();
        return Some(delta);
    };
    let (mut old, mut fresh) = (
        known.endpoints.iter().peekable(),
        new.endpoints.iter().peekable(),
    );
    loop {
        let order = match (old.peek(), fresh.peek()) {
            (None, None) => break,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(old), Some(fresh)) => old.address.cmp(&fresh.address),
        };
        match order {
            Ordering::Less => delta
                .removed
                .extend(old.next().map(|endpoint| endpoint.address.clone())),
            Ordering::Greater => delta.changed.extend(fresh.next().cloned()),
            Ordering::Equal => {
                let (before, after) = (old.next(), fresh.next());
                delta
                    .changed
                    .extend(after.filter(|after| before != Some(after)).cloned());
            }
        }
    }
    (!delta.changed.is_empty() || !delta.removed.is_empty()).then_some(delta)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn published(endpoints: &BTreeMap<u8, bool>) -> Published {
        let mut endpoints: Vec<pb::Endpoint> = endpoints
            .iter()
            .map(|(host, draining)| pb::Endpoint {
                address: format!("10.0.0.{host}:80"),
                draining: *draining,
                ..Default::default()
            })
            .collect();
        endpoints.sort_by(|a, b| a.address.cmp(&b.address));
        Published {
            key: ServiceKey {
                namespace: "a".into(),
                name: "b".into(),
                port: 80,
            },
            policy: Bytes::new(),
            endpoints,
            names: BTreeSet::new(),
            alternates: BTreeSet::new(),
            backends: BTreeSet::new(),
            of_namespace: BTreeMap::new(),
            of_node: None,
        }
    }

    proptest! {
        /// A sidecar that applies the delta has exactly the new endpoints.
        #[test]
        fn a_delta_leads_to_the_new_state(
            before in proptest::collection::btree_map(0u8..20, any::<bool>(), 0..12),
            after in proptest::collection::btree_map(0u8..20, any::<bool>(), 0..12),
        ) {
            let (before, after) = (published(&before), published(&after));
            let mut has: BTreeMap<String, pb::Endpoint> =
                before.endpoints.iter().map(|endpoint| (endpoint.address.clone(), endpoint.clone())).collect();
            match endpoints_delta(Some(&before), &after) {
                None => prop_assert_eq!(&before.endpoints, &after.endpoints),
                Some(delta) => {
                    prop_assert!(!delta.reset);
                    for address in &delta.removed {
                        prop_assert!(has.remove(address).is_some(), "removed what was not there");
                    }
                    for endpoint in delta.changed {
                        prop_assert!(has.insert(endpoint.address.clone(), endpoint.clone()) != Some(endpoint), "sent what was known");
                    }
                }
            }
            prop_assert_eq!(has.into_values().collect::<Vec<_>>(), after.endpoints);
        }
    }
}
