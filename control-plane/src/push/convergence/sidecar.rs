//! A sidecar that does what it is told, when it gets round to it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use tokio::time::Instant;
use weir_config::pb;
use weir_config::pb::destination::Target;
use weir_config::resource::ObjectName;

use crate::mesh::{Membership, Mesh};
use crate::push::ledger::Ledger;

pub(super) struct Sidecar {
    pub(super) pod: ObjectName,
    pub(super) knows: Knows,
    pub(super) subscribed: BTreeSet<SocketAddr>,
    membership: Membership,
    ledger: Ledger,
    arrived: Option<pb::ToProxy>,
}

/// All that pushes have left with it.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Knows {
    destinations: BTreeMap<String, Option<Target>>,
    policies: BTreeMap<String, String>,
    endpoints: BTreeMap<String, BTreeMap<String, pb::Endpoint>>,
    workload: String,
}

impl Sidecar {
    pub(super) fn join(mesh: &Mesh, pod: &ObjectName) -> Self {
        Self {
            pod: pod.clone(),
            knows: Knows::default(),
            subscribed: BTreeSet::new(),
            membership: mesh.join(pod),
            ledger: Ledger::default(),
            arrived: None,
        }
    }

    /// Asks about an address, or forgets it.
    pub(super) fn toggle(&mut self, address: SocketAddr) {
        if self.subscribed.insert(address) {
            self.membership.subscribe(address);
        } else {
            self.subscribed.remove(&address);
            self.knows.destinations.remove(&address.to_string());
            self.membership.unsubscribe(address);
        }
    }

    /// Answers the push that is on its way, or has the next one sent. Whether there was nothing to do.
    pub(super) fn advance(&mut self) -> bool {
        if let Some(push) = self.arrived.take() {
            self.knows.apply(&push, &self.subscribed);
            let acked = self.ledger.ack(push.nonce).expect("it is in flight");
            self.membership.acknowledged(&acked.held);
            return false;
        }
        let mailbox = self.membership.mailbox();
        let mut was_empty = false;
        let next = self.ledger.next(|| {
            let dirty = mailbox.take();
            was_empty = dirty.is_empty();
            dirty
        });
        let news = self.membership.collect(&next);
        self.arrived = self.ledger.push(news, Instant::now());
        was_empty && self.arrived.is_none() && !self.ledger.has_queued()
    }

    /// Refuses a push of several services, which then come one by one.
    pub(super) fn balk(&mut self) {
        if let Some(push) = self.arrived.take_if(|push| push.services.len() > 1) {
            self.ledger.nack(push.nonce).expect("it is in flight");
        }
    }

    pub(super) fn settle(&mut self) {
        for _ in 0..1000 {
            if self.advance() {
                return;
            }
        }
        panic!("{} is never told everything", self.pod);
    }
}

impl Knows {
    fn apply(&mut self, push: &pb::ToProxy, subscribed: &BTreeSet<SocketAddr>) {
        if !push.workload_json.is_empty() {
            self.workload = text(&push.workload_json);
        }
        for service in &push.services {
            let name = service.service.clone();
            if service.policy_json.is_empty() {
                self.policies.remove(&name);
                self.endpoints.remove(&name);
            } else {
                self.policies.insert(name, text(&service.policy_json));
            }
        }
        for delta in &push.endpoints {
            let service = &delta.service;
            assert!(
                self.policies.contains_key(service),
                "endpoints of {service} and no policy"
            );
            let known = self.endpoints.entry(service.clone()).or_default();
            if delta.reset {
                known.clear();
            }
            for address in &delta.removed {
                known
                    .remove(address)
                    .expect("only what is known is removed");
            }
            for endpoint in &delta.changed {
                known.insert(endpoint.address.clone(), endpoint.clone());
            }
        }
        self.endpoints.retain(|_, endpoints| !endpoints.is_empty());
        let is_asked = |it: &&pb::Destination| {
            it.address
                .parse()
                .is_ok_and(|address| subscribed.contains(&address))
        };
        for destination in push.destinations.iter().filter(is_asked) {
            if let Some(Target::Service(service)) = &destination.target {
                assert!(
                    self.policies.contains_key(service),
                    "an address leads to {service}, which is not known"
                );
            }
            let (address, target) = (destination.address.clone(), destination.target.clone());
            self.destinations.insert(address, target);
        }
    }
}

fn text(json: &[u8]) -> String {
    String::from_utf8_lossy(json).into_owned()
}
