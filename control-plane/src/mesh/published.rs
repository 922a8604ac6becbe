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
        for endpoint in compile::endpoints(index, key) {
            match &endpoint.host {
                Host::Ip(ip) => endpoints.push(message(&endpoint, *ip, draining)),
                Host::Name(name) => {
                    let addresses = resolved.get(name).map(Vec::as_slice).unwrap_or_default();
                    let addresses = addresses.iter().take(ADDRESSES_PER_NAME_MAX);
                    endpoints.extend(addresses.map(|ip| message(&endpoint, *ip, draining)));
                    names.insert(name.clone());
                }
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
        };
        if let Some(mut policy) = compile::service(index, key) {
            policy.forced = forced;
            published.alternates = policy.alternates().cloned().collect();
            published.say(policy);
        }
        published
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

    /// What callers in `namespace` are told.
    pub fn for_callers_in(self: &Arc<Self>, namespace: &str) -> &Arc<Self> {
        self.of_namespace.get(namespace).unwrap_or(self)
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
