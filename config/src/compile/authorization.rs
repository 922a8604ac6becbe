//! Who may call a port: every policy that denies, and of those that allow the ones that are closest to it.

use serde_json::Value;

use super::route_match;
use crate::index::{Index, Target};
use crate::merge::Source;
use crate::resource::{
    self, AuthorizationMode, AuthorizationPolicy, AuthorizationRule, ObjectName, ServicePort,
};
use crate::snapshot::{Access, AccessRule, AccessRules, Authorization, Peer};

/// The service ports that lead to one port of a pod.
pub(super) type Ports<'a> = [(ObjectName, &'a ServicePort)];

/// Policies by how close their targets are, the closest first.
type Levels<'a> = [Vec<&'a AuthorizationPolicy>; 4];

/// Of one port of a pod that runs as `account`. `None`: whoever calls may.
pub(super) fn compile(
    index: &Index,
    account: &ObjectName,
    ports: &Ports<'_>,
) -> Option<Authorization> {
    let levels = levels(index, account, ports);
    let enforced = rules(index, &levels, false);
    let audits = levels.iter().flatten().any(|policy| is_audit(policy));
    let audited = audits.then(|| rules(index, &levels, true));
    let audited = audited.filter(|audited| *audited != enforced);
    (enforced != AccessRules::default() || audited.is_some())
        .then_some(Authorization { enforced, audited })
}

/// Each rule that has a say, and who said it.
pub(super) fn said(
    index: &Index,
    account: &ObjectName,
    ports: &Ports<'_>,
) -> Vec<(String, Value, Source)> {
    let levels = levels(index, account, ports);
    let mut said = Vec::new();
    for policy in levels.iter().flatten() {
        let name = policy.metadata.object_name();
        for (place, rule) in policy.spec.rules.iter().enumerate() {
            let value = serde_json::json!({
                "action": policy.spec.action.unwrap_or_default(),
                "mode": policy.spec.mode.unwrap_or_default(),
                "from": rule.from,
                "to": rule.to,
            });
            let field = format!("inbound.authorization[{}]", said.len());
            said.push((field, value, Source::Authorization(name.clone(), place)));
        }
    }
    let mesh = index.mesh_config();
    if let Some((mesh, access)) =
        mesh.and_then(|mesh| Some((mesh, mesh.spec.default_authorization?)))
    {
        let value = serde_json::to_value(access).expect("a word");
        let source = Source::MeshConfig(mesh.metadata.name.clone());
        said.push(("inbound.defaultAuthorization".to_owned(), value, source));
    }
    said
}

fn levels<'a>(index: &'a Index, account: &ObjectName, ports: &Ports<'_>) -> Levels<'a> {
    let of_ports = ports
        .iter()
        .map(|(service, port)| Target::Port(service.clone(), port.name().to_owned()));
    let of_services = ports
        .iter()
        .map(|(service, _)| Target::Service(service.clone()));
    let of_account = [Target::ServiceAccount(account.clone())];
    let of_namespace = [Target::Namespace(account.namespace.clone())];
    let on = |targets: Vec<Target>| {
        let mut found: Vec<&AuthorizationPolicy> = Vec::new();
        for policy in targets
            .iter()
            .flat_map(|target| index.authorizations_on(target))
        {
            if !found.iter().any(|known| std::ptr::eq(*known, &**policy)) {
                found.push(policy);
            }
        }
        found
    };
    [
        on(of_ports.collect()),
        on(of_services.collect()),
        on(of_account.into()),
        on(of_namespace.into()),
    ]
}

fn is_audit(policy: &AuthorizationPolicy) -> bool {
    policy.spec.mode == Some(AuthorizationMode::Audit)
}

fn rules(index: &Index, levels: &Levels<'_>, with_audits: bool) -> AccessRules {
    let of = |level: &[&AuthorizationPolicy], access: Access| -> Option<Vec<AccessRule>> {
        let counts = |policy: &&&AuthorizationPolicy| {
            policy.spec.action.unwrap_or_default() == access && (with_audits || !is_audit(policy))
        };
        let mut policies = level.iter().filter(counts).peekable();
        policies.peek()?;
        let rules = policies.flat_map(|policy| {
            let name = policy.metadata.object_name().to_string();
            let rule = move |said| access_rule(said, &name, index.trust_domain());
            policy.spec.rules.iter().map(rule)
        });
        Some(rules.collect())
    };
    let mesh = index.mesh_config();
    let by_default = mesh.and_then(|mesh| mesh.spec.default_authorization);
    let denied_by_default = || (by_default == Some(Access::Deny)).then(Vec::new);
    AccessRules {
        deny: (levels.iter())
            .filter_map(|level| of(level, Access::Deny))
            .flatten()
            .collect(),
        allow: (levels.iter())
            .find_map(|level| of(level, Access::Allow))
            .or_else(denied_by_default),
    }
}

fn access_rule(said: &AuthorizationRule, policy: &str, trust_domain: &str) -> AccessRule {
    let peer = |peer: &resource::Peer| Peer {
        identity: (peer.identity.as_ref()).map(|said| whole_identity(said, trust_domain)),
        namespace: peer.namespace.clone(),
        service_account: peer.service_account.clone(),
    };
    AccessRule {
        policy: policy.to_owned(),
        from: (said.from.as_ref()).map(|from| from.iter().map(peer).collect()),
        to: (said.to.as_ref()).map(|to| to.iter().map(route_match).collect()),
    }
}

/// Identities are written without what is the same in all of the mesh.
pub(crate) fn whole_identity(said: &str, trust_domain: &str) -> String {
    match said.starts_with("spiffe://") {
        true => said.to_owned(),
        false => format!("spiffe://{trust_domain}/{said}"),
    }
}
