//! What the callers of a policy's target hold open, counted over all of them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use weir_config::index::{Attachment, Target};
use weir_config::resource::{ObjectName, ResiliencePolicy};
use weir_config::snapshot::ServiceKey;

use super::State;
use super::enforcement::Enforcement;
use crate::breakers::{Holder, NotClosed, What};

/// A breaker of a service or route, or one endpoint's gate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outage {
    /// For people: "payment-7f9", "the circuit breaker of boutique/payment:50051".
    pub what: String,
    /// Connected sidecars that call it.
    pub callers: usize,
    pub open: usize,
    pub half_open: usize,
}

impl State {
    /// Of callers that are connected and call the target: what others once said is of no interest.
    pub(super) fn outages(
        &self,
        policy: &ResiliencePolicy,
        answer: &Enforcement,
        not_closed: &NotClosed,
    ) -> Vec<Outage> {
        let Some(target) = (answer.target.as_ref())
            .filter(|_| answer.attachment == Attachment::Accepted && !not_closed.is_empty())
        else {
            return Vec::new();
        };
        let target = Target::of(policy, target);
        let mut keys: Vec<&ServiceKey> = self.covered(Some(&target)).collect();
        keys.sort();
        let told = keys.into_iter().filter_map(|key| {
            let holders = not_closed.get(&key.to_string())?;
            let published = self.board.published(key)?;
            // Whoever was out when it went away is out no longer.
            let is_there = |what: &What| match what {
                What::Service | What::Route(_) => true,
                What::Endpoint(address) => {
                    let endpoints = &published.endpoints;
                    endpoints.iter().any(|it| it.address == *address)
                }
            };
            let wanting = self.board.wanting(key);
            let callers: BTreeSet<ObjectName> =
                wanting.filter_map(|id| self.board.pod_of(id)).collect();
            let mut counts: BTreeMap<&What, (usize, usize)> = BTreeMap::new();
            let counts_here = |it: &&Holder| callers.contains(&it.caller) && is_there(&it.what);
            for holder in holders.iter().filter(counts_here) {
                let (open, half_open) = counts.entry(&holder.what).or_default();
                *(if holder.open { open } else { half_open }) += 1;
            }
            let outages = counts.into_iter().map(|(what, (open, half_open))| Outage {
                what: self.named(key, what),
                callers: callers.len(),
                open,
                half_open,
            });
            Some(outages.collect::<Vec<_>>())
        });
        told.flatten().collect()
    }

    fn named(&self, key: &ServiceKey, what: &What) -> String {
        match what {
            What::Service => format!("the circuit breaker of {key}"),
            What::Route(route) => format!("the circuit breaker of {key} {route}"),
            What::Endpoint(address) => {
                let ip = address.parse::<SocketAddr>().map(|address| address.ip());
                let pod = ip.ok().and_then(|ip| self.index.pod_at(ip));
                pod.map_or_else(|| address.clone(), |pod| pod.metadata.name.clone())
            }
        }
    }
}
