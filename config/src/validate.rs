//! Contradictions: what reads well field by field and cannot work as a whole.
//!
//! The types have seen to every single value by now. Here is what involves two of them, or a name.

mod authorization;
mod faults;
mod gateway;
mod inbound;
mod names;
mod outbound;
mod rate_limits;
mod routes;

use std::collections::HashSet;

use crate::diagnostic::Severity;
use crate::merge::{self, Layer, Source};
use crate::resource::{
    MeshConfig, Outbound, Pod, ResiliencePolicy, Resource, TargetKind, Targeting,
};

/// Targets of one policy, and its routes: each costs every sidecar that gets them.
const TARGETS_MAX: usize = 16;
const ROUTES_MAX: usize = 128;

/// What is wrong with fields, by their paths.
#[derive(Clone, Debug)]
pub(crate) struct Contradiction {
    pub(crate) severity: Severity,
    pub(crate) path: String,
    pub(crate) message: String,
    pub(crate) help: Option<String>,
    pub(crate) secondary: Option<(String, String)>,
    /// Every place whose content, or absence, this rests on.
    looked_at: Vec<String>,
}

impl Contradiction {
    fn error(path: impl Into<String>, message: impl Into<String>) -> Self {
        let path = path.into();
        Self {
            severity: Severity::Error,
            message: message.into(),
            help: None,
            secondary: None,
            looked_at: vec![path.clone()],
            path,
        }
    }

    fn warning(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Warning,
            ..Self::error(path, message)
        }
    }

    fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    fn also(mut self, path: impl Into<String>, text: impl Into<String>) -> Self {
        self.secondary = Some((path.into(), text.into()));
        self
    }

    /// As seen from a document in which the resource is at `prefix` (an item of a List).
    pub(crate) fn below(mut self, prefix: &str) -> Self {
        if !prefix.is_empty() {
            let below = |path: &mut String| *path = format!("{prefix}.{path}");
            below(&mut self.path);
            self.looked_at.iter_mut().for_each(below);
            if let Some((path, _)) = &mut self.secondary {
                below(path);
            }
        }
        self
    }

    /// Whether any of it was not the user's word but our repair of a mistake.
    pub(crate) fn rests_on(&self, repaired: &HashSet<String>) -> bool {
        let other = self.secondary.as_ref().map(|(path, _)| path);
        (self.looked_at.iter().chain(other))
            .any(|looked| repaired.iter().any(|place| overlaps(looked, place)))
    }
}

/// Whether one of two places is inside the other.
fn overlaps(a: &str, b: &str) -> bool {
    let inside = |inner: &str, outer: &str| {
        (inner.strip_prefix(outer))
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
    };
    inside(a, b) || inside(b, a)
}

pub(crate) fn check(resource: &Resource) -> Vec<Contradiction> {
    let mut found = names::check(resource);
    match resource {
        Resource::ResiliencePolicy(policy) => check_policy(policy, &mut found),
        Resource::FaultPolicy(policy) => faults::check(policy, &mut found),
        Resource::AuthorizationPolicy(policy) => authorization::check(policy, &mut found),
        Resource::MeshConfig(mesh) => check_mesh(mesh, &mut found),
        Resource::Pod(pod) => check_pod(pod, &mut found),
        Resource::HttpRoute(route) => gateway::check_http(route, &mut found),
        Resource::GrpcRoute(route) => gateway::check_grpc(route, &mut found),
        Resource::Service(_) | Resource::EndpointSlice(_) | Resource::ReferenceGrant(_) => {}
    }
    found
}

/// Pods are Kubernetes': what we cannot read of one is no reason to refuse it.
fn check_pod(pod: &Pod, found: &mut Vec<Contradiction>) {
    if let Some(Err(message)) = pod.weight_said() {
        found.push(
            Contradiction::warning("metadata.annotations", message).help(
                "100 is the weight of an ordinary pod, and what this one gets; to send it nothing, make it unready",
            ),
        );
    }
    let ports_said = [pod.opaque_ports_said(), pod.skip_inbound_ports_said()];
    for message in ports_said.into_iter().flatten().filter_map(Result::err) {
        found.push(
            Contradiction::warning("metadata.annotations", message)
                .help("it says nothing now, and the injector refuses such a pod"),
        );
    }
}

fn check_policy(policy: &ResiliencePolicy, found: &mut Vec<Contradiction>) {
    let spec = &policy.spec;
    check_targets(policy, found);
    for (index, target) in spec.target_refs.iter().enumerate() {
        if target.kind == TargetKind::ServiceAccount {
            let message =
                "a ServiceAccount says who may call: resilience is of Services and their Namespace";
            found.push(
                Contradiction::error(format!("spec.targetRefs[{index}].kind"), message)
                    .help("name a Service that leads to these workloads, or the Namespace"),
            );
        }
    }
    if spec.outbound.is_none() && spec.inbound.is_none() && spec.routes.is_empty() {
        found.push(
            Contradiction::warning("spec", "this policy changes nothing")
                .help("it has neither `outbound`, nor `inbound`, nor `routes`"),
        );
    }
    let mut layers: Vec<Layer<'_, Outbound>> = Vec::new();
    if let Some(outbound) = &spec.outbound {
        outbound::check_block(outbound, "spec.outbound", found);
        outbound::check_alternate(outbound, "spec.outbound", Some(policy), found);
        layers.push((Source::Policy(policy.metadata.object_name()), outbound));
    }
    outbound::check_values(
        &merge::outbound(&layers, ""),
        outbound::Scope::Policy,
        found,
    );
    inbound::check(policy, found);
    rate_limits::check(policy, found);
    routes::check(policy, &layers, found);
}

fn check_mesh(mesh: &MeshConfig, found: &mut Vec<Contradiction>) {
    if let Some(defaults) = &mesh.spec.defaults {
        outbound::check_block(defaults, "spec.defaults", found);
        outbound::check_alternate(defaults, "spec.defaults", None, found);
        let layers = [(Source::MeshConfig(mesh.metadata.name.clone()), defaults)];
        outbound::check_values(&merge::outbound(&layers, ""), outbound::Scope::Mesh, found);
    }
}

fn check_targets(policy: &impl Targeting, found: &mut Vec<Contradiction>) {
    let targets = policy.target_refs();
    let all = "spec.targetRefs";
    if targets.is_empty() {
        found.push(
            Contradiction::error(all, "a policy without a target applies to nothing")
                .help("name a Service, such as {kind: Service, name: payment}, or the Namespace"),
        );
    }
    if targets.len() > TARGETS_MAX {
        let message = format!(
            "a policy may have {TARGETS_MAX} targets, found {}",
            targets.len()
        );
        found.push(
            Contradiction::error(all, message)
                .help("write a second policy, or target the Namespace"),
        );
        return; // comparing thousands with each other is what somebody may be after
    }
    let namespace = policy.metadata().namespace();
    for (index, target) in targets.iter().enumerate() {
        let path = format!("{all}[{index}]");
        if target
            .group
            .as_deref()
            .is_some_and(|group| !group.is_empty())
        {
            let message = format!(
                "{:?} is of the core group, which is written as \"\" or left out",
                target.kind
            );
            found.push(
                Contradiction::error(format!("{path}.group"), message).help("leave `group` out"),
            );
        }
        if target.kind == TargetKind::Namespace && target.name != namespace {
            let message =
                format!("a policy can target its own namespace only, which is `{namespace}`");
            let mut wrong = Contradiction::error(format!("{path}.name"), message);
            wrong.looked_at.push("metadata.namespace".to_owned());
            found.push(wrong.help(format!(
                "put the policy into namespace `{}` instead",
                target.name
            )));
        }
        if target.kind == TargetKind::Namespace && target.section_name.is_some() {
            let message = "a namespace has no sections: `sectionName` is a port of a Service";
            found.push(
                Contradiction::error(format!("{path}.sectionName"), message)
                    .help("leave it out, or write kind: Service"),
            );
        }
        if target.kind == TargetKind::ServiceAccount && target.section_name.is_some() {
            let message = "a ServiceAccount has no sections: `sectionName` is a port of a Service";
            found.push(
                Contradiction::error(format!("{path}.sectionName"), message)
                    .help("leave it out, or write kind: Service"),
            );
        }
        if let Some(first) = targets[..index]
            .iter()
            .position(|earlier| earlier == target)
        {
            found.push(
                Contradiction::error(path, "this target is named twice")
                    .also(format!("{all}[{first}]"), "first here")
                    .help("leave one of the two out"),
            );
        }
    }
}
