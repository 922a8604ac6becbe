//! Our kinds as JSON Schema: for editors while they are written, for the API server in the CRDs.
//!
//! Emitted from the same types that decode them, and committed under `schema/`.

use serde_json::{Value, json};

use crate::resource::{
    AuthorizationPolicySpec, FaultPolicySpec, Kind, MeshConfigSpec, ResiliencePolicySpec,
};

/// The kinds there is a schema of.
pub const KINDS: [Kind; 4] = [
    Kind::ResiliencePolicy,
    Kind::FaultPolicy,
    Kind::AuthorizationPolicy,
    Kind::MeshConfig,
];

/// The schema of a whole resource; `None` for kinds that are Kubernetes' own.
pub fn json_schema(kind: Kind) -> Option<Value> {
    let spec = spec_schema(kind)?;
    let (definitions, spec) = split(spec);
    Some(json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": format!("https://weir.dev/schema/v1alpha1/{kind}.json"),
        "title": kind.name(),
        "type": "object",
        "required": ["apiVersion", "kind", "metadata", "spec"],
        "additionalProperties": false,
        "properties": {
            "apiVersion": { "const": kind.api_version() },
            "kind": { "const": kind.name() },
            "metadata": {
                "type": "object",
                "required": ["name"],
                "properties": {
                    "name": { "type": "string", "minLength": 1, "maxLength": 253 },
                    "namespace": { "type": "string", "minLength": 1, "maxLength": 63 },
                    "labels": { "type": "object", "additionalProperties": { "type": "string" } },
                    "annotations": { "type": "object", "additionalProperties": { "type": "string" } }
                }
            },
            "spec": spec,
            "status": { "type": "object" }
        },
        "$defs": definitions
    }))
}

/// The schema of `spec` alone, its definitions inside it.
pub fn spec_schema(kind: Kind) -> Option<Value> {
    match kind {
        Kind::ResiliencePolicy => Some(schemars::schema_for!(ResiliencePolicySpec).to_value()),
        Kind::FaultPolicy => Some(schemars::schema_for!(FaultPolicySpec).to_value()),
        Kind::AuthorizationPolicy => {
            Some(schemars::schema_for!(AuthorizationPolicySpec).to_value())
        }
        Kind::MeshConfig => Some(schemars::schema_for!(MeshConfigSpec).to_value()),
        // Theirs, whose schemas the API server has.
        Kind::Service
        | Kind::EndpointSlice
        | Kind::Pod
        | Kind::HttpRoute
        | Kind::GrpcRoute
        | Kind::ReferenceGrant => None,
    }
}

/// Definitions are looked up from the root of a schema.
fn split(mut spec: Value) -> (Value, Value) {
    let mut definitions = json!({});
    if let Some(fields) = spec.as_object_mut() {
        fields.remove("$schema");
        fields.remove("title");
        definitions = fields.remove("$defs").unwrap_or(definitions);
    }
    (definitions, spec)
}
