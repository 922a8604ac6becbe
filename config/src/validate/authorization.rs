//! Authorization: rules that can be met, of paths that can be compared.

use super::inbound::is_identity;
use super::names::{self, is_label, is_subdomain};
use super::{Contradiction, check_targets, routes};
use crate::path;
use crate::resource::{AuthorizationPolicy, AuthorizationRule, Peer, RouteSelector};
use crate::snapshot::Access;

/// Each is tried for every call.
const RULES_MAX: usize = 64;
const PEERS_MAX: usize = 64;

pub(super) fn check(policy: &AuthorizationPolicy, found: &mut Vec<Contradiction>) {
    check_targets(policy, found);
    let rules = &policy.spec.rules;
    if rules.len() > RULES_MAX {
        let message = format!("a policy may have {RULES_MAX} rules, found {}", rules.len());
        return found.push(Contradiction::error("spec.rules", message));
    }
    let denies = policy.spec.action == Some(Access::Deny);
    if rules.is_empty() && denies {
        let mut wrong = Contradiction::error("spec", "a policy that denies nothing");
        wrong.looked_at.push("spec.rules".to_owned());
        found.push(wrong.help("write rules; to deny everything, rules: [{}]"));
    }
    for (index, rule) in rules.iter().enumerate() {
        check_rule(rule, &format!("spec.rules[{index}]"), found);
    }
}

fn check_rule(rule: &AuthorizationRule, path: &str, found: &mut Vec<Contradiction>) {
    let lists = [
        (
            "from",
            rule.from.as_ref().map(Vec::len),
            "for whoever calls",
        ),
        (
            "to",
            rule.to.as_ref().map(Vec::len),
            "for whatever is called",
        ),
    ];
    for (name, length, instead) in lists {
        let path = format!("{path}.{name}");
        match length {
            Some(0) => found.push(
                Contradiction::error(path, "an empty list is nobody's and nothing's")
                    .help(format!("leave it out {instead}")),
            ),
            Some(length) if length > PEERS_MAX => {
                let message = format!("there may be {PEERS_MAX}, found {length}");
                found.push(Contradiction::error(path, message));
            }
            _ => {}
        }
    }
    let (from, to) = (rule.from.iter().flatten(), rule.to.iter().flatten());
    for (index, peer) in from.enumerate().take(PEERS_MAX) {
        check_peer(peer, &format!("{path}.from[{index}]"), found);
    }
    for (index, to) in to.enumerate().take(PEERS_MAX) {
        let path = format!("{path}.to[{index}]");
        routes::check_match(to, &path, found);
        check_paths(to, &path, found);
    }
}

fn check_peer(peer: &Peer, path: &str, found: &mut Vec<Contradiction>) {
    let of_parts = peer.namespace.is_some() || peer.service_account.is_some();
    if *peer == Peer::default() {
        found.push(
            Contradiction::error(path, "nobody is named").help(
                "write identity, namespace or serviceAccount; leave `from` out for everybody",
            ),
        );
    }
    if peer.identity.is_some() && of_parts {
        found.push(
            Contradiction::error(
                path,
                "an identity is a namespace and a service account already",
            )
            .help("write two entries, or one of both ways"),
        );
    }
    if let Some(identity) = peer.identity.as_deref().filter(|said| !is_identity(said)) {
        let message = format!("expected the identity of a workload, found {identity:?}");
        found.push(
            Contradiction::error(format!("{path}.identity"), message)
                .help("write ns/NAMESPACE/sa/SERVICE-ACCOUNT, such as ns/boutique/sa/checkout"),
        );
    }
    let namespace = peer.namespace.as_deref().filter(|it| !is_label(it));
    let account = (peer.service_account.as_deref()).filter(|it| !is_subdomain(it));
    for (field, said, wrong) in [
        (
            "namespace",
            namespace,
            names::wrong_label as fn(&str, &str) -> Contradiction,
        ),
        ("serviceAccount", account, names::wrong_subdomain),
    ] {
        let Some(said) = said else { continue };
        let wrong = wrong(&format!("{path}.{field}"), said);
        found.push(match said.contains('*') {
            true => wrong.help(
                "names are compared as they are, without wildcards: name each, or leave `from` out for everybody",
            ),
            false => wrong,
        });
    }
}

/// A path that has two meanings in a rule would have them in every comparison.
fn check_paths(to: &RouteSelector, path: &str, found: &mut Vec<Contradiction>) {
    let RouteSelector::Http(http) = to else {
        return;
    };
    for (field, said) in [("path", &http.path), ("pathPrefix", &http.path_prefix)] {
        let Some(said) = said.as_deref().filter(|said| said.starts_with('/')) else {
            continue; // told already
        };
        if !said.contains('*') && path::canonical(said).is_none() {
            let message = format!("servers read this path in different ways: {said:?}");
            found.push(
                Contradiction::error(format!("{path}.http.{field}"), message).help(
                    "write it decoded, without // or /../, %2F, backslashes and semicolons: calls that have these are denied",
                ),
            );
        }
    }
}
