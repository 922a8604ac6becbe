//! Our kinds as CustomResourceDefinitions: what an API server must know to keep them and to refuse what is wrong.
//!
//! Made from the types that decode them, so a new kind appears here by itself. What a schema cannot say of two fields
//! is said by [`rules`]; what needs other objects, or the policy's own namespace, is said by the validating webhook,
//! in the words of `weir validate`.

pub mod rules;
mod status;
mod structural;

use serde_json::{Value, json};

use crate::resource::Kind;
use crate::schema;

/// All of them, as they are installed.
pub fn all() -> Vec<Value> {
    schema::KINDS.into_iter().filter_map(definition).collect()
}

/// `None` for kinds that are Kubernetes' own.
pub fn definition(kind: Kind) -> Option<Value> {
    let spec = structural::schema(&schema::spec_schema(kind)?);
    let targets = spec.pointer("/properties/targetRefs").is_some();
    let (group, version) = kind.api_version().split_once('/')?;
    let plural = plural(kind);
    Some(json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": format!("{plural}.{group}"),
            "labels": {
                "app.kubernetes.io/name": "weir",
                "app.kubernetes.io/part-of": "weir",
            },
        },
        "spec": {
            "group": group,
            "scope": if is_of_the_cluster(kind) { "Cluster" } else { "Namespaced" },
            "names": {
                "kind": kind.name(),
                "listKind": format!("{kind}List"),
                "plural": plural,
                "singular": kind.name().to_lowercase(),
                "shortNames": [short_name(kind)],
                "categories": ["weir"],
            },
            "versions": [{
                "name": version,
                "served": true,
                "storage": true,
                "subresources": { "status": {} },
                "additionalPrinterColumns": status::columns(targets),
                "schema": { "openAPIV3Schema": {
                    "type": "object",
                    "description": spec["description"].clone(),
                    "required": ["spec"],
                    "properties": {
                        "apiVersion": { "type": "string" },
                        "kind": { "type": "string" },
                        "metadata": { "type": "object" },
                        "spec": spec,
                        "status": status::schema(),
                    },
                } },
            }],
        },
    }))
}

/// There is one for the mesh, in no namespace.
fn is_of_the_cluster(kind: Kind) -> bool {
    kind == Kind::MeshConfig
}

/// As the API server calls many of them: `resiliencepolicies`.
pub fn plural(kind: Kind) -> String {
    let one = kind.name().to_lowercase();
    match one.strip_suffix('y') {
        Some(stem) => format!("{stem}ies"),
        None => format!("{one}s"),
    }
}

/// `wrp` for ResiliencePolicy: other meshes have an `ap`, too.
fn short_name(kind: Kind) -> String {
    let capitals = kind.name().chars().filter(char::is_ascii_uppercase);
    format!("w{}", capitals.collect::<String>().to_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_have_the_names_that_kubectl_asks_for() {
        let names = |kind| (plural(kind), short_name(kind));
        assert_eq!(
            names(Kind::ResiliencePolicy),
            ("resiliencepolicies".to_owned(), "wrp".to_owned())
        );
        assert_eq!(
            names(Kind::MeshConfig),
            ("meshconfigs".to_owned(), "wmc".to_owned())
        );
        assert_eq!(definition(Kind::Pod), None);
    }
}
