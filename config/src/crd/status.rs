//! What the control plane writes into a resource's status (GEP-713), and what `kubectl get` shows of it.

use serde_json::{Value, json};

/// Services that one policy may target, and conditions of each: no status grows beyond this.
const ANCESTORS_MAX: u32 = 16;
const CONDITIONS_MAX: u32 = 8;

pub(super) fn schema() -> Value {
    json!({
        "type": "object",
        "description": "Written by the control plane, never read.",
        "properties": { "ancestors": {
            "type": "array",
            "maxItems": ANCESTORS_MAX,
            "x-kubernetes-list-type": "atomic",
            "description": "One for each target.",
            "items": {
                "type": "object",
                "required": ["ancestorRef", "controllerName"],
                "properties": {
                    "ancestorRef": ancestor(),
                    "controllerName": text(253),
                    "conditions": conditions(),
                },
            },
        } },
    })
}

/// `targets`: a policy names whom it is for.
pub(super) fn columns(targets: bool) -> Value {
    let column =
        |name: &str, path: &str| json!({ "name": name, "type": "string", "jsonPath": path });
    let condition = |name: &str| {
        let path = format!(".status.ancestors[0].conditions[?(@.type==\"{name}\")].status");
        column(name, &path)
    };
    let mut columns = Vec::new();
    if targets {
        columns.push(column("Target", ".spec.targetRefs[*].name"));
    }
    columns.extend([condition("Accepted"), condition("Enforced")]);
    columns
        .push(json!({ "name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp" }));
    Value::Array(columns)
}

fn ancestor() -> Value {
    json!({
        "type": "object",
        "required": ["kind", "name"],
        "properties": {
            "group": text(253),
            "kind": text(63),
            "namespace": text(63),
            "name": text(253),
            "sectionName": text(253),
        },
    })
}

fn conditions() -> Value {
    json!({
        "type": "array",
        "maxItems": CONDITIONS_MAX,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": {
            "type": "object",
            "required": ["type", "status", "reason", "message", "lastTransitionTime"],
            "properties": {
                "type": text(316),
                "status": { "type": "string", "enum": ["True", "False", "Unknown"] },
                "observedGeneration": { "type": "integer", "format": "int64", "minimum": 0 },
                "lastTransitionTime": { "type": "string", "format": "date-time", "maxLength": 64 },
                "reason": text(1024),
                "message": text(32_768),
            },
        },
    })
}

fn text(length: u32) -> Value {
    json!({ "type": "string", "maxLength": length })
}
