//! Names: what Kubernetes would refuse is refused here too, with the reason.

use super::Contradiction;
use crate::resource::{Resource, TargetKind, Targeting};

const SUBDOMAIN_MAX: usize = 253;
const LABEL_MAX: usize = 63;

pub(super) fn check(resource: &Resource) -> Vec<Contradiction> {
    let metadata = resource.metadata();
    let mut found = Vec::new();
    if metadata.name.is_empty() {
        found.push(Contradiction::error(
            "metadata.name",
            "the resource has no name",
        ));
    } else if let Resource::Service(_) = resource {
        // Its name is one word of a host name.
        if !is_label(&metadata.name) {
            found.push(wrong_label("metadata.name", &metadata.name));
        }
    } else if !is_subdomain(&metadata.name) {
        found.push(wrong_subdomain("metadata.name", &metadata.name));
    }
    if let Some(namespace) = metadata
        .namespace
        .as_deref()
        .filter(|namespace| !is_label(namespace))
    {
        found.push(wrong_label("metadata.namespace", namespace));
    }
    match resource {
        Resource::MeshConfig(mesh) => {
            // SPIFFE would allow more, such as underscores; the control plane signs for no other than a DNS name.
            let domain = mesh
                .spec
                .trust_domain
                .as_deref()
                .filter(|domain| !is_subdomain(domain));
            if let Some(domain) = domain {
                let message =
                    format!("expected a trust domain such as weir.local, found {domain:?}");
                let help = "lower-case letters, digits and hyphens between them, and dots between such words; at most 253 characters";
                found.push(Contradiction::error("spec.trustDomain", message).help(help));
            }
        }
        Resource::ResiliencePolicy(policy) => check_targets(policy, &mut found),
        Resource::FaultPolicy(policy) => check_targets(policy, &mut found),
        Resource::AuthorizationPolicy(policy) => check_targets(policy, &mut found),
        // The names in a route are checked with the rest of it.
        Resource::HttpRoute(_)
        | Resource::GrpcRoute(_)
        | Resource::ReferenceGrant(_)
        | Resource::Service(_)
        | Resource::EndpointSlice(_)
        | Resource::Pod(_) => {}
    }
    found
}

pub(super) fn wrong_label(path: &str, name: &str) -> Contradiction {
    wrong(path, name, LABEL_MAX, "")
}

pub(super) fn wrong_subdomain(path: &str, name: &str) -> Contradiction {
    let more = ", and dots between such words";
    wrong(path, name, SUBDOMAIN_MAX, more)
}

fn check_targets(policy: &impl Targeting, found: &mut Vec<Contradiction>) {
    for (index, target) in policy.target_refs().iter().enumerate() {
        let path = format!("spec.targetRefs[{index}]");
        let name = format!("{path}.name");
        match target.kind {
            TargetKind::ServiceAccount if !is_subdomain(&target.name) => {
                found.push(wrong_subdomain(&name, &target.name));
            }
            TargetKind::Service | TargetKind::Namespace if !is_label(&target.name) => {
                found.push(wrong_label(&name, &target.name));
            }
            _ => {}
        }
        let port = target.section_name.as_deref();
        if let Some(port) = port.filter(|port| !is_label(port)) {
            found.push(wrong_label(&format!("{path}.sectionName"), port));
        }
    }
}

fn wrong(path: &str, name: &str, length: usize, more: &str) -> Contradiction {
    let shown: String = name.chars().take(LABEL_MAX).collect();
    let contradiction = Contradiction::error(
        path,
        format!("{shown:?} is not a name that Kubernetes allows"),
    );
    let rule = format!(
        "lower-case letters, digits and hyphens between them{more}; at most {length} characters"
    );
    if let Some(alone) = alone(name, length) {
        return contradiction.help(format!("write {alone}, the name alone\n{rule}"));
    }
    match suggestion(name).filter(|better| better.len() <= length) {
        Some(better) => contradiction.help(format!("write {better}, for instance\n{rule}")),
        None => contradiction.help(rule),
    }
}

/// The name in `namespace/name`, `system:serviceaccount:namespace:name`, `name:port` and, where a name is one word,
/// `name.namespace.svc`.
fn alone(name: &str, length: usize) -> Option<&str> {
    let after = name.rsplit('/').next()?;
    let is_port = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let alone = match after.rsplit_once(':') {
        Some((before, port)) if is_port(port) => before,
        Some((_, last)) => last,
        None => after,
    };
    let alone = match length {
        LABEL_MAX => alone.split('.').next()?,
        _ => alone,
    };
    (is_label(alone) && alone != name).then_some(alone)
}

/// The same name in signs that are allowed.
fn suggestion(name: &str) -> Option<String> {
    let fit = |c: char| {
        if c.is_ascii_alphanumeric() || c == '.' {
            c.to_ascii_lowercase()
        } else {
            '-'
        }
    };
    let better: String = name.chars().map(fit).collect();
    let better = better.trim_matches(['-', '.']);
    (is_subdomain(better) && better != name).then(|| better.to_owned())
}

/// RFC 1123.
pub(super) fn is_label(name: &str) -> bool {
    name.len() <= LABEL_MAX && is_word(name)
}

/// Kubernetes bounds the whole only: one word of it may be longer than any that DNS would carry.
pub(super) fn is_subdomain(name: &str) -> bool {
    name.len() <= SUBDOMAIN_MAX && name.split('.').all(is_word)
}

fn is_word(name: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !name.is_empty() && name.bytes().all(inner) && !name.starts_with('-') && !name.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_rfc_1123() {
        assert!(is_label("payment-7f9") && is_label("0") && is_subdomain("a.b-c"));
        for name in ["", "-a", "a-", "A", "a_b", "ä", "a.b", &"a".repeat(64)] {
            assert!(!is_label(name), "{name:?}");
        }
        assert!(!is_subdomain("a..b"));
    }

    /// The control plane does not start with such a trust domain, but `weir validate` took it.
    #[test]
    fn a_trust_domain_is_a_dns_name() {
        let mistakes = |domain: &str| {
            let text = format!(
                "{{apiVersion: weir.dev/v1alpha1, kind: MeshConfig, metadata: {{name: mesh}}, spec: {{trustDomain: {domain:?}}}}}"
            );
            crate::parse("test.yaml", &text).map_or_else(|mistakes| mistakes.len(), |_| 0)
        };
        for domain in ["weir.local", "a", "prod-1.example"] {
            assert_eq!(mistakes(domain), 0, "{domain}");
        }
        for domain in [
            "",
            "a_b",
            "a.",
            ".a",
            "a-",
            "-a",
            "a.-b",
            "a..b",
            "A",
            &"a".repeat(254),
        ] {
            assert_eq!(mistakes(domain), 1, "{domain}");
        }
    }

    /// The API server keeps a policy of such a name; the control plane refused it, and a webhook the next change of it.
    #[test]
    fn a_word_of_a_subdomain_may_be_longer_than_a_label() {
        for length in [64, 65, SUBDOMAIN_MAX] {
            assert!(is_subdomain(&"a".repeat(length)), "{length}");
        }
        assert!(!is_subdomain(&"a".repeat(SUBDOMAIN_MAX + 1)));
        let long = "a".repeat(65);
        let mistakes = |resource: &str| {
            let text = format!("{resource}, metadata: {{name: {long}}}, spec: {{}}}}");
            crate::parse("test.yaml", &text).map_err(|mistakes| mistakes.len())
        };
        mistakes("{apiVersion: weir.dev/v1alpha1, kind: MeshConfig").expect("a subdomain");
        let refused = mistakes("{apiVersion: v1, kind: Service").expect_err("no label");
        assert_eq!(refused, 1);
    }
}
