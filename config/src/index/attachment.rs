//! What a policy is attached to, and which of several is in force there.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{Index, keys_of};
use crate::merge;
use crate::resource::{ObjectName, ResiliencePolicy, TargetKind, TargetRef};
use crate::snapshot::ServiceKey;

/// What a policy is attached to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Target {
    Namespace(String),
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
}

impl Index {
    /// The policy in force for a target: of several, the oldest.
    pub fn policy_on(&self, target: &Target) -> Option<&Arc<ResiliencePolicy>> {
        (self.by_target.get(target)?.iter())
            .filter_map(|name| self.policies.get(name))
            .min_by(|a, b| a.metadata.seniority().cmp(&b.metadata.seniority()))
    }

    /// How a policy fares, one answer a `targetRef`.
    pub fn attachments<'a>(
        &self,
        policy: &'a ResiliencePolicy,
    ) -> impl Iterator<Item = (&'a TargetRef, Attachment)> {
        let name = policy.metadata.object_name();
        policy.spec.target_refs.iter().map(move |target_ref| {
            let target = Target::of(policy, target_ref);
            let attachment = match self.policy_on(&target) {
                _ if !self.exists(&target) => Attachment::TargetNotFound,
                Some(winner) if winner.metadata.object_name() != name => Attachment::Conflicted {
                    winner: winner.metadata.object_name(),
                },
                _ => Attachment::Accepted,
            };
            (target_ref, attachment)
        })
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

    fn has_port(&self, key: &ServiceKey) -> bool {
        let service = self
            .services
            .get(&ObjectName::new(&key.namespace, &key.name));
        service.is_some_and(|service| keys_of(service).any(|port| port == *key))
    }

    fn exists(&self, target: &Target) -> bool {
        match target {
            // Namespaces are not read: one that holds a policy exists.
            Target::Namespace(_) => true,
            Target::Service(service) => self.services.contains_key(service),
            Target::Port(service, port) => (self.services.get(service))
                .is_some_and(|it| it.spec.ports.iter().any(|at| at.name() == port)),
        }
    }
}

impl Target {
    pub fn of(policy: &ResiliencePolicy, target: &TargetRef) -> Self {
        let service = ObjectName::new(policy.metadata.namespace(), &target.name);
        match (target.kind, &target.section_name) {
            // Its own namespace is the only one it may name, which validation has seen to.
            (TargetKind::Namespace, _) => Self::Namespace(service.namespace),
            (TargetKind::Service, None) => Self::Service(service),
            (TargetKind::Service, Some(port)) => Self::Port(service, port.clone()),
        }
    }

    pub(super) fn all(policy: &ResiliencePolicy) -> impl Iterator<Item = Self> {
        (policy.spec.target_refs.iter()).map(|target| Self::of(policy, target))
    }
}
