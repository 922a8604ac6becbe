//! What discovery says of a pool's endpoints, and what becomes of its members when that changes.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::time::Instant;

use super::Endpoints;
use crate::endpoint::Endpoint;
use crate::identity::SpiffeId;
use crate::learnt::Learnt;
use crate::member::Member;
use crate::policy::transition::{Phase, Transition, Why};

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

impl Described {
    fn is_of(&self, member: &Member) -> bool {
        member.endpoint.identity == self.identity && member.pod == self.pod
    }
}

impl Endpoints {
    /// Adds, changes and removes. An endpoint that stays keeps its connections and what was learnt; one of another identity
    /// or another pod is another endpoint, whatever its address says.
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
                .filter(|member| described.is_of(member));
            let member = kept.unwrap_or_else(|| Arc::new(self.create(&described, old.is_empty())));
            member.set_draining(described.draining);
            member.place(described.weight, described.zone.as_deref());
            next.insert(described.address, member);
        }
        let stays = |member: &Arc<Member>| {
            let now = next.get(&member.address());
            now.is_some_and(|now| Arc::ptr_eq(now, member))
        };
        let gone: Vec<&Arc<Member>> = old.iter().filter(|member| !stays(member)).collect();
        let arrived = !next.is_empty();
        self.arrange(next.into_values().collect());
        // Not before: whoever publishes what its gate does looks whether it is still listed.
        gone.into_iter()
            .for_each(|member| self.tell_of_its_end(member));
        if arrived {
            self.arrived.notify_waiters();
        }
    }

    /// Nobody will hear of its gate again: it must not look open for ever.
    pub(super) fn tell_of_its_end(&self, member: &Member) {
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
}
