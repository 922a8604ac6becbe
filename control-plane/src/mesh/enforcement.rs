//! How far a policy has come: to what it is attached, and how many sidecars have it in force.

use std::collections::BTreeMap;

use prost::bytes::Bytes;
use weir_config::compile;
use weir_config::index::{Attachment, Target};
use weir_config::resource::{ObjectName, ResiliencePolicy, TargetRef};
use weir_config::snapshot::ServiceKey;

use super::board::SessionId;
use super::{Mesh, State};

/// Of one policy and one of its targets.
#[derive(Clone, Debug, PartialEq)]
pub struct Enforcement {
    pub target: TargetRef,
    pub attachment: Attachment,
    /// Sidecars that call the target, or stand before it, and are connected.
    pub proxies: usize,
    pub acknowledged: usize,
    /// One of those that have not.
    pub behind: Option<ObjectName>,
}

impl Mesh {
    /// One answer a target; `None`: no such policy is in force.
    pub fn enforcement(&self, policy: &ObjectName) -> Option<Vec<Enforcement>> {
        let state = self.state();
        let policy = state.index.policy(policy)?.as_ref();
        let attachments = state.index.attachments(policy);
        let answers = attachments.map(|(target, attachment)| {
            let concerned = match attachment {
                Attachment::Accepted => state.concerned(policy, &Target::of(policy, target)),
                _ => BTreeMap::new(),
            };
            let behind = concerned.iter().find(|(_, current)| !**current);
            Enforcement {
                target: target.clone(),
                attachment,
                proxies: concerned.len(),
                acknowledged: concerned.values().filter(|current| **current).count(),
                behind: behind.and_then(|(id, _)| state.board.pod_of(*id)),
            }
        });
        Some(answers.collect())
    }

    /// Grows with every acknowledgement and every sidecar that comes or goes.
    pub fn acknowledgements(&self) -> u64 {
        self.state().board.acknowledgements()
    }
}

impl State {
    /// The sessions that a target's policy is for, and whether each has what is in force now.
    fn concerned(&self, policy: &ResiliencePolicy, target: &Target) -> BTreeMap<SessionId, bool> {
        let mut concerned = BTreeMap::new();
        let mut note = |id, current: bool| *concerned.entry(id).or_insert(true) &= current;
        let spec = &policy.spec;
        let callers = spec.outbound.is_some() || !spec.routes.is_empty() || spec.inbound.is_none();
        for key in self.covered(target) {
            if callers && let Some(published) = self.board.published(&key) {
                for id in self.board.wanting(&key) {
                    note(id, self.board.holds(id, &key) == Some(&published.policy));
                }
            }
        }
        if spec.inbound.is_some() {
            for (id, pod) in self.board.sessions() {
                if self.stands_before(pod, target) {
                    let wanted = compile::workload(&self.index, pod);
                    let wanted = wanted.and_then(|wanted| serde_json::to_vec(&wanted).ok());
                    note(
                        id,
                        wanted.map(Bytes::from).as_ref() == self.board.workload(id),
                    );
                }
            }
        }
        concerned
    }

    /// The service ports that somebody wants, of a target.
    fn covered(&self, target: &Target) -> Vec<ServiceKey> {
        let all = self.board.wanted();
        let of = |service: &ObjectName, key: &ServiceKey| {
            key.namespace == service.namespace && key.name == service.name
        };
        let covers = |key: &&ServiceKey| match target {
            Target::Namespace(namespace) => key.namespace == *namespace,
            Target::Service(service) => of(service, key),
            Target::Port(service, port) => {
                let ports = self.index.service(service).map(|it| &it.spec.ports);
                let mut named = ports.into_iter().flatten().filter(|it| it.name() == port);
                of(service, key) && named.any(|it| it.port == key.port)
            }
        };
        all.filter(covers).cloned().collect()
    }

    fn stands_before(&self, pod: &ObjectName, target: &Target) -> bool {
        match target {
            Target::Namespace(namespace) => pod.namespace == *namespace,
            Target::Service(service) | Target::Port(service, _) => {
                let pod = self.index.pod(pod);
                pod.is_some_and(|pod| self.index.services_selecting(pod).contains(service))
            }
        }
    }
}
