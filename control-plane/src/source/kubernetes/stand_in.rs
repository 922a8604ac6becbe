//! What is in force in place of a resource that cannot be read, and of which no last good content is known: the strictest
//! that it could mean. Pure.
//!
//! | resource | stand-in |
//! |---|---|
//! | AuthorizationPolicy that allows | nobody is allowed |
//! | AuthorizationPolicy that denies, or does not say legibly what it does | everybody is denied |
//! | AuthorizationPolicy that only audits | none: it would deny nobody |
//! | MeshConfig | mutual TLS or nothing, and nobody is allowed by default: each unless it says otherwise legibly |
//!
//! The other kinds give and take no rights.

use kube::api::DynamicObject;
use serde_json::Value;
use weir_config::resource::{
    AuthorizationMode, AuthorizationPolicy, AuthorizationPolicySpec, AuthorizationRule, MeshConfig,
    MeshConfigSpec, Metadata, TargetKind, TargetRef,
};
use weir_config::snapshot::{Access, MtlsMode};
use weir_config::{Kind, Resource};

use super::object::small_metadata;

/// Whether the kind is one of which a missing one is a right.
pub(super) fn is_for(kind: Kind) -> bool {
    matches!(kind, Kind::AuthorizationPolicy | Kind::MeshConfig)
}

/// `None`: it gives no right to be without it.
pub(super) fn stand_in(kind: Kind, object: &DynamicObject) -> Option<Resource> {
    let spec = &object.data["spec"];
    let metadata = small_metadata(&object.metadata);
    match kind {
        Kind::AuthorizationPolicy => {
            authorization(metadata, spec).map(Resource::AuthorizationPolicy)
        }
        Kind::MeshConfig => mesh(metadata, spec).map(Resource::MeshConfig),
        _ => None,
    }
}

fn authorization(metadata: Metadata, spec: &Value) -> Option<AuthorizationPolicy> {
    if legible(&spec["mode"]) == Some(AuthorizationMode::Audit) {
        return None;
    }
    let targets = spec["targetRefs"].as_array().into_iter().flatten();
    let target_refs: Vec<TargetRef> = targets.filter_map(target).collect();
    let action = match &spec["action"] {
        Value::Null => Access::default(),
        said => legible(said).unwrap_or(Access::Deny),
    };
    let rules = match action {
        Access::Allow => Vec::new(),
        // Of whoever calls, whatever is called: another policy may allow it.
        Access::Deny => vec![AuthorizationRule::default()],
    };
    let spec = AuthorizationPolicySpec {
        target_refs,
        mode: None,
        action: Some(action),
        rules,
    };
    let policy = AuthorizationPolicy {
        metadata,
        spec,
        ..AuthorizationPolicy::default()
    };
    (!policy.spec.target_refs.is_empty()).then_some(policy)
}

/// All of the Service where the port is not said legibly.
fn target(said: &Value) -> Option<TargetRef> {
    Some(TargetRef {
        group: None,
        kind: legible::<TargetKind>(&said["kind"])?,
        name: said["name"].as_str()?.to_owned(),
        section_name: said["sectionName"].as_str().map(str::to_owned),
    })
}

fn mesh(metadata: Metadata, spec: &Value) -> Option<MeshConfig> {
    let strict = |said: &Value| !said.is_null() && legible(said) != Some(MtlsMode::Permissive);
    let denies = |said: &Value| !said.is_null() && legible(said) != Some(Access::Allow);
    let spec = MeshConfigSpec {
        mtls: strict(&spec["mtls"]).then_some(MtlsMode::Strict),
        default_authorization: denies(&spec["defaultAuthorization"]).then_some(Access::Deny),
        ..MeshConfigSpec::default()
    };
    // The oldest is in force for the whole mesh: one that says nothing must not take another's place.
    let says_something = spec != MeshConfigSpec::default();
    says_something.then(|| MeshConfig {
        metadata,
        spec,
        ..MeshConfig::default()
    })
}

fn legible<T: serde::de::DeserializeOwned>(said: &Value) -> Option<T> {
    serde_json::from_value(said.clone()).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(kind: Kind, spec: Value) -> Option<Resource> {
        let object = json!({
            "metadata": { "name": "a", "namespace": "shop", "creationTimestamp": "2026-11-26T03:00:00Z" },
            "spec": spec,
        });
        stand_in(kind, &serde_json::from_value(object).expect("an object"))
    }

    #[test]
    fn a_policy_is_stood_in_for_on_what_it_legibly_means() {
        let cart = json!({ "kind": "Service", "name": "cart", "sectionName": 7, "port": 7 });
        let targets = json!([cart, { "kind": "Pod", "name": "x" }, "cart", { "kind": "Service" }]);
        let policy = |action: Value| {
            let spec = json!({ "targetRefs": targets, "action": action });
            match of(Kind::AuthorizationPolicy, spec) {
                Some(Resource::AuthorizationPolicy(policy)) => policy,
                other => panic!("a policy, not {other:?}"),
            }
        };
        for (action, expected, rules) in [
            (Value::Null, Access::Allow, 0),
            (json!("Allow"), Access::Allow, 0),
            (json!("Deny"), Access::Deny, 1),
            (json!("deny"), Access::Deny, 1),
            (json!(7), Access::Deny, 1),
        ] {
            let policy = policy(action);
            let [target] = policy.spec.target_refs.as_slice() else {
                panic!("one target: {policy:?}")
            };
            assert_eq!(
                (target.name.as_str(), &target.section_name),
                ("cart", &None)
            );
            assert_eq!(policy.spec.action, Some(expected));
            assert_eq!(policy.spec.rules.len(), rules);
            let created = policy.metadata.creation_timestamp.as_deref();
            assert_eq!(created, Some("2026-11-26T03:00:00Z"));
        }
        let no_target = json!({ "targetRefs": "cart" });
        assert_eq!(of(Kind::AuthorizationPolicy, no_target), None);
    }

    #[test]
    fn a_mesh_is_as_strict_as_it_may_mean_to_be() {
        for (spec, expected) in [
            (json!({ "mtls": "Strict", "x": 1 }), Some((true, false))),
            (json!({ "mtls": "strict" }), Some((true, false))),
            (
                json!({ "mtls": "Permissive", "defaultAuthorization": "Deny" }),
                Some((false, true)),
            ),
            (
                json!({ "mtls": "Permissive", "defaultAuthorization": "Allow" }),
                None,
            ),
            (json!({ "x": 1 }), None),
        ] {
            let found = of(Kind::MeshConfig, spec.clone()).map(|found| match found {
                Resource::MeshConfig(mesh) => (
                    mesh.spec.mtls.is_some(),
                    mesh.spec.default_authorization.is_some(),
                ),
                other => panic!("a mesh, not {other:?}"),
            });
            assert_eq!(found, expected, "{spec}");
        }
    }
}
