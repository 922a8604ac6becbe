//! A service that stands in for others: it has a name, and is none of those it stands in for.

use super::super::Contradiction;
use super::super::names::is_label;
use crate::merge;
use crate::resource::{Outbound, ResiliencePolicy, TargetKind};

/// `policy`: whose block it is; `None`: the mesh's.
pub(in crate::validate) fn check(
    outbound: &Outbound,
    path: &str,
    policy: Option<&ResiliencePolicy>,
    found: &mut Vec<Contradiction>,
) {
    let alternate = (outbound.fallback.as_ref()).and_then(|fallback| fallback.alternate.as_ref());
    let Some(alternate) = alternate else {
        return;
    };
    let path = format!("{path}.fallback.alternate");
    let Some(policy) = policy else {
        found.push(
            Contradiction::error(
                path,
                "no one service can stand in for all services of a mesh",
            )
            .help("write it in the ResiliencePolicy of the service that it stands in for"),
        );
        return;
    };
    let namespace = alternate.namespace.as_ref();
    let names = [("name", Some(&alternate.name)), ("namespace", namespace)];
    for (field, name) in names {
        if let Some(name) = name.filter(|name| !is_label(name)) {
            let message = format!("{:?} is not a name that Kubernetes allows", shown(name));
            found.push(
                Contradiction::error(format!("{path}.{field}"), message).help(
                    "lower-case letters, digits and hyphens between them; at most 63 characters",
                ),
            );
        }
    }
    let own = policy.metadata.namespace();
    let key = merge::alternate(alternate, own);
    let is_itself = |target: &crate::resource::TargetRef| {
        target.kind == TargetKind::Service
            && target.section_name.is_none()
            && (&*key.namespace, &*key.name) == (own, &*target.name)
    };
    if let Some(index) = policy.spec.target_refs.iter().position(is_itself) {
        found.push(
            Contradiction::error(
                format!("{path}.name"),
                "a service cannot stand in for itself",
            )
            .also(format!("spec.targetRefs[{index}].name"), "the same service")
            .help(
                "name another Service, or leave `alternate` out: retries try its other endpoints",
            ),
        );
    }
}

fn shown(name: &str) -> String {
    name.chars().take(63).collect()
}
