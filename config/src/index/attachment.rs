//! What a policy is attached to, and which of several is in force there.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::{Index, forget, keys_of};
use crate::compile::protocol;
use crate::merge;
use crate::resource::{
    AuthorizationMode, AuthorizationPolicy, FaultPolicy, NoAddress, ObjectName, ResiliencePolicy,
    ServicePort, TargetKind, TargetRef, Targeting,
};
use crate::snapshot::{Access, Protocol, ServiceKey};

/// What a policy is attached to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Target {
    Namespace(String),
    /// The workloads that run as it.
    ServiceAccount(ObjectName),
    Service(ObjectName),
    /// A port of a service, by the port's name.
    Port(ObjectName, String),
}

/// How a policy fares with one of its targets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attachment {
    Accepted,
    TargetNotFound,
    /// An older policy of the same specificity has this target.
    Conflicted {
        winner: ObjectName,
    },
    /// Each port has policies of its own that say who may call it; one of them.
    Overridden {
        by: ObjectName,
    },
    /// A policy about calls, and there are only ports where nobody looks for calls.
    Opaque,
    /// There are only ports of UDP or SCTP, which no sidecar takes.
    NotTcp,
}

/// The policies of one kind, by name and by what they are attached to.
#[derive(Clone, Debug)]
pub(super) struct Attached<P> {
    by_name: BTreeMap<ObjectName, Arc<P>>,
    by_target: HashMap<Target, BTreeSet<ObjectName>>,
}

impl<P> Default for Attached<P> {
    fn default() -> Self {
        Self {
            by_name: BTreeMap::new(),
            by_target: HashMap::new(),
        }
    }
}

impl<P: Targeting + PartialEq> Attached<P> {
    pub(super) fn get(&self, name: &ObjectName) -> Option<&Arc<P>> {
        self.by_name.get(name)
    }

    pub(super) fn holds(&self, name: &ObjectName, policy: &P) -> bool {
        self.get(name).is_some_and(|known| **known == *policy)
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &ObjectName> {
        self.by_name.keys()
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<P>> {
        self.by_name.values()
    }

    /// Those attached there, the oldest first.
    pub(super) fn on(&self, target: &Target) -> Vec<&Arc<P>> {
        let names = self.by_target.get(target).into_iter().flatten();
        let mut found: Vec<_> = names.filter_map(|name| self.by_name.get(name)).collect();
        found.sort_by(|a, b| a.metadata().seniority().cmp(&b.metadata().seniority()));
        found
    }

    /// What it is attached to.
    pub(super) fn insert(&mut self, policy: Arc<P>) -> Vec<Target> {
        let name = policy.metadata().object_name();
        let targets: Vec<Target> = Target::all(&*policy).collect();
        for target in &targets {
            let there = self.by_target.entry(target.clone()).or_default();
            there.insert(name.clone());
        }
        self.by_name.insert(name, policy);
        targets
    }

    /// What it was attached to.
    pub(super) fn remove(&mut self, name: &ObjectName) -> Vec<Target> {
        let Some(policy) = self.by_name.remove(name) else {
            return Vec::new();
        };
        let targets: Vec<Target> = Target::all(&*policy).collect();
        for target in &targets {
            forget(&mut self.by_target, target, name);
        }
        targets
    }
}

impl Index {
    /// The policy in force for a target: of several, the oldest.
    pub fn policy_on(&self, target: &Target) -> Option<&Arc<ResiliencePolicy>> {
        self.policies.on(target).into_iter().next()
    }

    /// How a policy fares, one answer a `targetRef`.
    pub fn attachments<'a>(
        &self,
        policy: &'a ResiliencePolicy,
    ) -> Vec<(&'a TargetRef, Attachment)> {
        each(policy, |target| self.attachment(policy, target))
    }

    pub fn fault_attachments<'a>(
        &self,
        policy: &'a FaultPolicy,
    ) -> Vec<(&'a TargetRef, Attachment)> {
        each(policy, |target| self.fault_attachment(target))
    }

    pub fn authorization_attachments<'a>(
        &self,
        policy: &'a AuthorizationPolicy,
    ) -> Vec<(&'a TargetRef, Attachment)> {
        each(policy, |target| {
            self.authorization_attachment(policy, target)
        })
    }

    /// The oldest has it.
    fn attachment(&self, policy: &ResiliencePolicy, target: &Target) -> Attachment {
        if let Some(missing) = self.missing(target) {
            return missing;
        }
        match self.policy_on(target) {
            Some(winner) if winner.metadata.object_name() != policy.metadata.object_name() => {
                let winner = winner.metadata.object_name();
                Attachment::Conflicted { winner }
            }
            _ => Attachment::Accepted,
        }
    }

    /// Faults add up, so no policy takes a target from another.
    fn fault_attachment(&self, target: &Target) -> Attachment {
        let service = match target {
            Target::Namespace(_) | Target::ServiceAccount(_) => None,
            Target::Service(service) | Target::Port(service, _) => Some(service),
        };
        let opaque = |port: &ServicePort| {
            let spoken = service.map(|service| protocol::of_service(self, service, port));
            spoken == Some(Protocol::Opaque)
        };
        if let Some(missing) = self.missing(target) {
            return missing;
        }
        match self.ports_of(target) {
            ports if !ports.is_empty() && ports.iter().all(|port| opaque(port)) => {
                Attachment::Opaque
            }
            _ => Attachment::Accepted,
        }
    }

    /// What denies holds wherever it is attached. Of what allows, that of a port wins over that of its Service; what is
    /// for workloads or for a whole namespace is left the ports that no Service names.
    fn authorization_attachment(
        &self,
        policy: &AuthorizationPolicy,
        target: &Target,
    ) -> Attachment {
        if let Some(missing) = self.missing(target) {
            return missing;
        }
        let Target::Service(service) = target else {
            return Attachment::Accepted;
        };
        let allows = |it: &AuthorizationPolicy| it.spec.action.unwrap_or_default() == Access::Allow;
        let audits = |it: &AuthorizationPolicy| it.spec.mode == Some(AuthorizationMode::Audit);
        // What only audits takes no right that is enforced away.
        let wins = |it: &&&Arc<AuthorizationPolicy>| allows(it) && (!audits(it) || audits(policy));
        let winners = self.ports_of(target).into_iter().map(|port| {
            let port = Target::Port(service.clone(), port.name().to_owned());
            let closer = self.authorizations_on(&port);
            closer.iter().find(wins).map(|it| it.metadata.object_name())
        });
        let winners: Option<Vec<ObjectName>> = winners.collect();
        match winners.and_then(|all| all.into_iter().next()) {
            Some(by) if allows(policy) => Attachment::Overridden { by },
            _ => Attachment::Accepted,
        }
    }

    /// Of the whole mesh: the oldest is in force.
    pub fn mesh_attachment(&self, name: &ObjectName) -> Attachment {
        match self.mesh_config().map(|mesh| &mesh.metadata.name) {
            Some(winner) if *winner != name.name => Attachment::Conflicted {
                winner: ObjectName::new("", winner),
            },
            _ => Attachment::Accepted,
        }
    }

    /// The TCP ports of a Service, or the one that is named; none of what is no Service.
    fn ports_of(&self, target: &Target) -> Vec<&ServicePort> {
        let (service, named) = match target {
            Target::Namespace(_) | Target::ServiceAccount(_) => return Vec::new(),
            Target::Service(service) => (service, None),
            Target::Port(service, port) => (service, Some(port)),
        };
        let ports = self.services.get(service).map(|it| &it.spec.ports);
        let is_meant =
            |port: &&ServicePort| port.is_tcp() && named.is_none_or(|named| port.name() == named);
        ports.into_iter().flatten().filter(is_meant).collect()
    }

    /// Why nobody calls a target by an address of its own.
    pub fn no_address(&self, target: &Target) -> Option<NoAddress> {
        match target {
            Target::Namespace(_) | Target::ServiceAccount(_) => None,
            Target::Service(service) | Target::Port(service, _) => {
                self.services.get(service)?.spec.no_address()
            }
        }
    }

    /// What a policy would fall back on and cannot: there is no such Service, or it has no such port.
    pub fn missing_alternates(&self, policy: &ResiliencePolicy) -> BTreeSet<ServiceKey> {
        let namespace = policy.metadata.namespace();
        let of_routes = (policy.spec.routes.iter()).filter_map(|route| route.outbound.as_ref());
        (policy.spec.outbound.iter().chain(of_routes))
            .filter_map(|outbound| outbound.fallback.as_ref()?.alternate.as_ref())
            .map(|said| merge::alternate(said, namespace))
            .filter(|key| !self.has_port(key))
            .collect()
    }

    pub(super) fn has_port(&self, key: &ServiceKey) -> bool {
        let service = self
            .services
            .get(&ObjectName::new(&key.namespace, &key.name));
        service.is_some_and(|service| keys_of(service).any(|port| port == *key))
    }

    /// What a target lacks for a policy to be about anything there; `None`: nothing.
    fn missing(&self, target: &Target) -> Option<Attachment> {
        let (service, named) = match target {
            // Namespaces are not read: one that holds a policy exists.
            Target::Namespace(_) => return None,
            // Accounts are not read either; one as which nothing runs guards nothing.
            Target::ServiceAccount(account) => {
                let nobody = !self.pods_of_account.contains_key(account);
                return nobody.then_some(Attachment::TargetNotFound);
            }
            Target::Service(service) => (service, None),
            Target::Port(service, port) => (service, Some(port)),
        };
        let Some(service) = self.services.get(service) else {
            return Some(Attachment::TargetNotFound);
        };
        let is_meant = |port: &&ServicePort| named.is_none_or(|named| port.name() == named);
        let mut ports = service.spec.ports.iter().filter(is_meant).peekable();
        match ports.peek() {
            // A Service that has no ports at all is there.
            None => named.map(|_| Attachment::TargetNotFound),
            Some(_) => (!ports.any(ServicePort::is_tcp)).then_some(Attachment::NotTcp),
        }
    }
}

fn each(
    policy: &impl Targeting,
    fares: impl Fn(&Target) -> Attachment,
) -> Vec<(&TargetRef, Attachment)> {
    let targets = policy.target_refs().iter();
    targets
        .map(|target| (target, fares(&Target::of(policy, target))))
        .collect()
}

impl Target {
    pub fn of(policy: &impl Targeting, target: &TargetRef) -> Self {
        let named = ObjectName::new(policy.metadata().namespace(), &target.name);
        match (target.kind, &target.section_name) {
            // Its own namespace is the only one it may name, which validation has seen to.
            (TargetKind::Namespace, _) => Self::Namespace(named.namespace),
            (TargetKind::ServiceAccount, _) => Self::ServiceAccount(named),
            (TargetKind::Service, None) => Self::Service(named),
            (TargetKind::Service, Some(port)) => Self::Port(named, port.clone()),
        }
    }

    fn all(policy: &impl Targeting) -> impl Iterator<Item = Self> {
        (policy.target_refs().iter()).map(|target| Self::of(policy, target))
    }
}
