//! What one sidecar has, what is on its way to it, and what it refused. Pure: news in, messages out.
//!
//! ```text
//!                push                 ack
//!   news ─────────────────▶ in flight ─────▶ known
//!                               │ nack
//!                               ├─ of several parts: each goes out once more, alone
//!                               └─ of one part: refused, and not sent again until it is another
//! ```
//!
//! One push is in flight at a time: that is the whole flow control. What changes meanwhile waits in the mailbox as
//! a name, and goes out in its newest state.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;

use prost::Message;
use prost::bytes::Bytes;
use tokio::time::Instant;
use weir_config::pb;
use weir_config::pb::destination::Target;
use weir_config::snapshot::ServiceKey;

use crate::mesh::{Dirty, Held, News, Published, endpoints_delta};

/// A service is seldom more than a few KiB.
const SERVICES_PER_PUSH_MAX: usize = 200;
/// A push that has grown to this takes no further service: a sidecar ends its stream when a message is above 16 MiB.
const PUSH_BYTES_MAX: usize = 4 << 20;
/// Of one service: its policy and all routes that its callers meet.
const POLICY_BYTES_MAX: usize = 8 << 20;

#[derive(Default)]
pub(super) struct Ledger {
    known: HashMap<ServiceKey, Arc<Published>>,
    workload: Bytes,
    /// Policies that the sidecar refused, by service; the workload's has the key `None`.
    refused: HashMap<Option<ServiceKey>, Bytes>,
    /// Addresses whose service the sidecar does not have: told as soon as it does.
    withheld: HashSet<SocketAddr>,
    in_flight: Option<InFlight>,
    /// Services whose policy is refused here, for it would not fit into a message, until somebody is told.
    too_large: Vec<ServiceKey>,
    /// What has to go out before anything else, one entry a push.
    queue: VecDeque<Dirty>,
    nonce: u64,
    pub(super) sent_version: u64,
    pub(super) acked_version: u64,
}

struct InFlight {
    nonce: u64,
    version: u64,
    sent_at: Instant,
    services: Vec<Arc<Published>>,
    gone: Vec<ServiceKey>,
    workload: Option<Bytes>,
    parts: Vec<Dirty>,
    /// Whether policy that the sidecar had changes: worth a line in the journal, unlike a first answer.
    rollout: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Acked {
    pub(super) version: u64,
    pub(super) rollout: bool,
    pub(super) held: Held,
}

impl Ledger {
    pub(super) fn is_idle(&self) -> bool {
        self.in_flight.is_none()
    }

    /// Since when the sidecar owes an answer.
    pub(super) fn waiting_since(&self) -> Option<Instant> {
        self.in_flight.as_ref().map(|push| push.sent_at)
    }

    pub(super) fn has_queued(&self) -> bool {
        !self.queue.is_empty()
    }

    /// What to ask the mesh about next: what is queued, else what the mailbox holds, in portions.
    pub(super) fn next(&mut self, take: impl FnOnce() -> Dirty) -> Dirty {
        if self.queue.is_empty() {
            let mut rest = take();
            while rest.services.len() > SERVICES_PER_PUSH_MAX {
                let portion: Vec<ServiceKey> = rest
                    .services
                    .iter()
                    .take(SERVICES_PER_PUSH_MAX)
                    .cloned()
                    .collect();
                for key in &portion {
                    rest.services.remove(key);
                }
                self.queue.push_back(Dirty {
                    services: portion.into_iter().collect(),
                    ..Dirty::default()
                });
            }
            // Addresses last: by then their services are there.
            self.queue.push_back(rest);
        }
        let mut next = self.queue.pop_front().unwrap_or_default();
        next.addresses.extend(self.withheld.drain());
        next
    }

    /// The message that brings the sidecar up to date with `news`; `None` when it already is.
    pub(super) fn push(&mut self, news: News, now: Instant) -> Option<pb::ToProxy> {
        debug_assert!(self.is_idle(), "one push at a time");
        let mut push = pb::ToProxy {
            version: news.version,
            ..Default::default()
        };
        let mut in_flight = InFlight {
            nonce: self.nonce + 1,
            version: news.version,
            sent_at: now,
            services: Vec::new(),
            gone: Vec::new(),
            workload: None,
            parts: Vec::new(),
            rollout: false,
        };
        let mut left = Dirty::default();
        let mut bytes = 0;
        for service in news.services {
            if bytes < PUSH_BYTES_MAX {
                bytes += self.push_service(service, &mut push, &mut in_flight);
            } else {
                left.services.insert(service.key.clone());
            }
        }
        if !left.services.is_empty() {
            self.queue.push_front(left);
        }
        for key in news.gone {
            self.push_gone(key, &mut push, &mut in_flight);
        }
        if let Some(workload) = news
            .workload
            .filter(|workload| self.is_new_workload(workload))
        {
            push.workload_json = workload.clone();
            in_flight.workload = Some(workload);
            in_flight.rollout = true;
            in_flight.parts.push(Dirty {
                workload: true,
                ..Dirty::default()
            });
        }
        if let Some(bundle) = news.trust_bundle {
            push.trust_bundle = bundle.to_vec();
            in_flight.parts.push(Dirty {
                trust_bundle: true,
                ..Dirty::default()
            });
        }
        self.push_destinations(news.destinations, &mut push, &mut in_flight);
        if in_flight.parts.is_empty() {
            return None;
        }
        self.nonce += 1;
        push.nonce = self.nonce;
        self.sent_version = news.version;
        self.in_flight = Some(in_flight);
        Some(push)
    }

    /// Returns about how many bytes that is.
    fn push_service(
        &mut self,
        service: Arc<Published>,
        push: &mut pb::ToProxy,
        in_flight: &mut InFlight,
    ) -> usize {
        let key = Some(service.key.clone());
        let is_another = |refused: &Bytes| *refused != service.policy;
        if self.refused.get(&key).is_some_and(is_another) {
            self.refused.remove(&key);
        }
        if service.policy.len() > POLICY_BYTES_MAX {
            let before = self.refused.insert(key.clone(), service.policy.clone());
            self.too_large
                .extend(before.is_none().then(|| service.key.clone()));
        }
        let refused = self.refused.contains_key(&key);
        let known = self.known.get(&service.key);
        let new_policy = known.is_none_or(|known| known.policy != service.policy) && !refused;
        if (known.is_none() && refused) || (known.is_none() && service.policy.is_empty()) {
            return 0; // without its policy the endpoints are of no use
        }
        let delta = endpoints_delta(known.map(AsRef::as_ref), &service)
            .filter(|_| !service.policy.is_empty());
        if !new_policy && delta.is_none() {
            return 0;
        }
        let mut bytes = delta.as_ref().map_or(0, Message::encoded_len);
        if new_policy {
            in_flight.rollout |= known.is_some();
            bytes += service.policy.len();
            push.services.push(pb::ServicePolicy {
                service: service.key.to_string(),
                policy_json: service.policy.clone(),
            });
        }
        push.endpoints.extend(delta);
        in_flight.parts.push(Dirty {
            services: HashSet::from([service.key.clone()]),
            ..Dirty::default()
        });
        let now_known = match known.filter(|_| !new_policy) {
            None => service,
            // Its policy stays what the sidecar has.
            Some(known) => Arc::new(Published {
                policy: known.policy.clone(),
                ..Published::clone(&service)
            }),
        };
        in_flight.services.push(now_known);
        bytes
    }

    /// Whatever was refused of it is of no interest any more.
    fn push_gone(&mut self, key: ServiceKey, push: &mut pb::ToProxy, in_flight: &mut InFlight) {
        self.refused.remove(&Some(key.clone()));
        if !self.known.contains_key(&key) {
            return;
        }
        push.services.push(pb::ServicePolicy {
            service: key.to_string(),
            policy_json: Bytes::new(),
        });
        in_flight.parts.push(Dirty {
            services: HashSet::from([key.clone()]),
            ..Dirty::default()
        });
        in_flight.gone.push(key);
    }

    fn push_destinations(
        &mut self,
        destinations: Vec<(SocketAddr, Target)>,
        push: &mut pb::ToProxy,
        in_flight: &mut InFlight,
    ) {
        let here: HashSet<String> = (self.known.keys().map(ServiceKey::to_string))
            .filter(|_| !destinations.is_empty())
            .chain(
                in_flight
                    .services
                    .iter()
                    .map(|service| service.key.to_string()),
            )
            .collect();
        let mut others = HashSet::new();
        for (address, target) in destinations {
            match &target {
                Target::Service(key) if !here.contains(key) => {
                    self.withheld.insert(address);
                    continue;
                }
                Target::Service(key) => {
                    let of_service = in_flight
                        .parts
                        .iter_mut()
                        .find(|part| part.services.iter().any(|it| it.to_string() == *key));
                    match of_service {
                        Some(part) => part.addresses.insert(address),
                        None => others.insert(address),
                    };
                }
                Target::Endpoint(_) | Target::Outside(_) => {
                    others.insert(address);
                }
            }
            push.destinations.push(pb::Destination {
                address: address.to_string(),
                target: Some(target),
            });
        }
        if !others.is_empty() {
            in_flight.parts.push(Dirty {
                addresses: others,
                ..Dirty::default()
            });
        }
    }

    /// `None`: an answer to nothing that is in flight.
    pub(super) fn ack(&mut self, nonce: u64) -> Option<Acked> {
        let push = self.in_flight.take_if(|push| push.nonce == nonce)?;
        let policies = push.services.iter();
        let held = Held {
            policies: policies
                .map(|service| (service.key.clone(), service.policy.clone()))
                .collect(),
            gone: push.gone.clone(),
            workload: push.workload.clone(),
        };
        for key in push.gone {
            self.known.remove(&key);
        }
        for service in push.services {
            self.known.insert(service.key.clone(), service);
        }
        if let Some(workload) = push.workload {
            self.workload = workload;
        }
        self.acked_version = push.version;
        Some(Acked {
            version: push.version,
            rollout: push.rollout,
            held,
        })
    }

    /// The version that was refused.
    pub(super) fn nack(&mut self, nonce: u64) -> Option<u64> {
        let push = self.in_flight.take_if(|push| push.nonce == nonce)?;
        if push.parts.len() > 1 {
            // One of them is to blame; the others must not wait for it to change.
            self.queue.extend(push.parts);
            return Some(push.version);
        }
        for service in &push.services {
            let known = self.known.get(&service.key);
            let new_policy = known.is_none_or(|known| known.policy != service.policy);
            if new_policy {
                self.refused
                    .insert(Some(service.key.clone()), service.policy.clone());
                // Its endpoints may still be fine.
                self.queue
                    .extend(push.parts.iter().filter(|_| known.is_some()).cloned());
            }
            self.withheld.extend(
                push.parts
                    .iter()
                    .flat_map(|part| &part.addresses)
                    .filter(|_| known.is_none()),
            );
        }
        if let Some(workload) = push.workload {
            self.refused.insert(None, workload);
        }
        Some(push.version)
    }

    /// Why something that should be in force fits into no message, each once.
    pub(super) fn take_too_large(&mut self) -> Vec<String> {
        let told = |key| format!("{key}: its policy and routes are above {POLICY_BYTES_MAX} bytes");
        self.too_large.drain(..).map(told).collect()
    }

    /// Whether there is a policy that should be in force and is not, for the sidecar does not take it.
    pub(super) fn has_refused(&self) -> bool {
        !self.refused.is_empty()
    }

    fn is_new_workload(&mut self, workload: &Bytes) -> bool {
        let is_another = |refused: &Bytes| refused != workload;
        if self.refused.get(&None).is_some_and(is_another) {
            self.refused.remove(&None);
        }
        *workload != self.workload && !self.refused.contains_key(&None)
    }
}

#[cfg(test)]
mod tests;
