//! How far a policy has come: to what it is attached, and how many sidecars have it in force.

use std::collections::BTreeMap;

use weir_config::compile::{Exception, Unmeshed};
use weir_config::index::{Attachment, Target};
use weir_config::resource::{NoAddress, ObjectName, TargetRef, Targeting};
use weir_config::snapshot::ServiceKey;
use weir_config::{Kind, ResourceRef, compile};

use super::board::SessionId;
use super::outages::Outage;
use super::{Mesh, State};
use crate::breakers::NotClosed;

/// Of one policy and one of its targets.
#[derive(Clone, Debug, PartialEq)]
pub struct Enforcement {
    /// `None`: the whole mesh.
    pub target: Option<TargetRef>,
    pub attachment: Attachment,
    /// Sidecars that call the target, or stand before it, and are connected.
    pub proxies: usize,
    pub acknowledged: usize,
    /// One of those that have not.
    pub behind: Option<String>,
    /// A control plane that does not tell how many of its own sidecars have.
    pub untold: Option<String>,
    /// Of a fault: when it ends by itself.
    pub until_ms: Option<u64>,
    /// What its callers hold open.
    pub outages: Vec<Outage>,
    /// Why those who call it where its name leads them do so without what is said for callers.
    pub no_address: Option<NoAddress>,
    /// Where it does not hold though this is its target.
    pub exceptions: Vec<Exception>,
    /// Where nobody does what its target's own sidecars would do.
    pub unmeshed: Option<Unmeshed>,
}

/// Which sidecars a policy is for.
#[derive(Clone, Copy)]
struct Reach {
    /// Those that call its targets.
    callers: bool,
    /// Those that stand before its targets.
    own: bool,
}

impl Mesh {
    /// One answer a target; `None`: no such policy is in force.
    pub fn enforcement(
        &self,
        resource: &ResourceRef,
        not_closed: &NotClosed,
    ) -> Option<Vec<Enforcement>> {
        let state = self.state();
        let (index, name) = (&state.index, &resource.name);
        match resource.kind {
            Kind::ResiliencePolicy => {
                let policy = index.policy(name)?.as_ref();
                let spec = &policy.spec;
                let reach = Reach {
                    callers: spec.is_for_callers(),
                    own: spec.inbound.is_some(),
                };
                let mut answers = state.answers(policy, index.attachments(policy), reach);
                for answer in &mut answers {
                    answer.outages = state.outages(policy, answer, not_closed);
                    if let Some(target) = &answer.target {
                        let target = Target::of(policy, target);
                        answer.exceptions = compile::exceptions(index, policy, &target);
                    }
                }
                Some(answers)
            }
            Kind::FaultPolicy => {
                let policy = index.fault_policy(name)?.as_ref();
                let reach = Reach {
                    callers: true,
                    own: false,
                };
                let mut answers = state.answers(policy, index.fault_attachments(policy), reach);
                for answer in &mut answers {
                    answer.until_ms = compile::fault_end(policy);
                }
                Some(answers)
            }
            Kind::AuthorizationPolicy => {
                let policy = index.authorization_policy(name)?.as_ref();
                let reach = Reach {
                    callers: false,
                    own: true,
                };
                let attachments = index.authorization_attachments(policy);
                Some(state.answers(policy, attachments, reach))
            }
            Kind::MeshConfig => {
                index.get(resource)?;
                let reach = Reach {
                    callers: true,
                    own: true,
                };
                Some(vec![state.answer(
                    None,
                    index.mesh_attachment(name),
                    || state.concerned(reach, None),
                )])
            }
            Kind::Service
            | Kind::EndpointSlice
            | Kind::Pod
            | Kind::HttpRoute
            | Kind::GrpcRoute
            | Kind::ReferenceGrant => None,
        }
    }

    /// How many fault policies are over.
    pub fn faults_over(&self, now_ms: u64) -> usize {
        let state = self.state();
        let ends = state
            .index
            .fault_policies()
            .map(|it| compile::fault_end(it));
        ends.filter(|end| end.is_some_and(|end| end <= now_ms))
            .count()
    }

    /// Grows with every acknowledgement and every sidecar that comes or goes.
    pub fn acknowledgements(&self) -> u64 {
        self.state().board.acknowledgements()
    }
}

type Concerned = BTreeMap<SessionId, bool>;

impl State {
    fn answers(
        &self,
        policy: &impl Targeting,
        attachments: Vec<(&TargetRef, Attachment)>,
        reach: Reach,
    ) -> Vec<Enforcement> {
        let answers = attachments.into_iter().map(|(target, attachment)| {
            let of = Target::of(policy, target);
            let concerned = || self.concerned(reach, Some(&of));
            let mut answer = self.answer(Some(target), attachment, concerned);
            answer.no_address = self.index.no_address(&of).filter(|_| reach.callers);
            if reach.own && answer.attachment == Attachment::Accepted {
                answer.unmeshed = compile::unmeshed(&self.index, &of);
            }
            answer
        });
        answers.collect()
    }

    fn answer(
        &self,
        target: Option<&TargetRef>,
        attachment: Attachment,
        concerned: impl FnOnce() -> Concerned,
    ) -> Enforcement {
        let concerned = match &attachment {
            Attachment::Accepted => concerned(),
            _ => BTreeMap::new(),
        };
        let behind = concerned.iter().find(|(_, current)| !**current);
        Enforcement {
            target: target.cloned(),
            attachment,
            proxies: concerned.len(),
            acknowledged: concerned.values().filter(|current| **current).count(),
            behind: (behind.and_then(|(id, _)| self.board.pod_of(*id))).map(|pod| pod.to_string()),
            untold: None,
            until_ms: None,
            outages: Vec::new(),
            no_address: None,
            exceptions: Vec::new(),
            unmeshed: None,
        }
    }

    /// The sessions that a target's policy is for, and whether each has what is in force now.
    fn concerned(&self, reach: Reach, target: Option<&Target>) -> Concerned {
        let mut concerned = BTreeMap::new();
        let mut note = |id, current: bool| *concerned.entry(id).or_insert(true) &= current;
        if reach.callers {
            for key in self.covered(target) {
                for id in self.board.wanting(key) {
                    // One that is not there, as an alternate may be, nobody is told of.
                    let published = self.board.published_to(id, key);
                    if let Some(published) = published.filter(|it| !it.policy.is_empty()) {
                        note(id, self.board.holds(id, key) == Some(&published.policy));
                    }
                }
            }
        }
        if reach.own {
            for (id, pod) in self.board.sessions() {
                if target.is_none_or(|target| self.stands_before(pod, target)) {
                    let wanted = self.board.wanted_workload(id, &self.index);
                    note(id, wanted.as_ref() == self.board.workload(id));
                }
            }
        }
        concerned
    }

    /// The service ports that somebody wants, of a target.
    pub(super) fn covered<'a>(
        &'a self,
        target: Option<&'a Target>,
    ) -> impl Iterator<Item = &'a ServiceKey> {
        let of = |service: &ObjectName, key: &ServiceKey| {
            key.namespace == service.namespace && key.name == service.name
        };
        let covers = move |key: &&ServiceKey| match target {
            None => true,
            Some(Target::Namespace(namespace)) => key.namespace == *namespace,
            // By whom a service is served says nothing of how it is called.
            Some(Target::ServiceAccount(_)) => false,
            Some(Target::Service(service)) => of(service, key),
            Some(Target::Port(service, port)) => {
                let ports = self.index.service(service).map(|it| &it.spec.ports);
                let mut named = ports.into_iter().flatten().filter(|it| it.name() == port);
                of(service, key) && named.any(|it| it.port == key.port)
            }
        };
        self.board.wanted().filter(covers)
    }

    fn stands_before(&self, pod: &ObjectName, target: &Target) -> bool {
        match target {
            Target::Namespace(namespace) => pod.namespace == *namespace,
            Target::ServiceAccount(account) => {
                let pod = self.index.pod(pod);
                pod.is_some_and(|pod| pod.account() == *account)
            }
            Target::Service(service) | Target::Port(service, _) => {
                let pod = self.index.pod(pod);
                pod.is_some_and(|pod| self.index.services_before(pod).contains(service))
            }
        }
    }
}
