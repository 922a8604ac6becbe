//! One object of the API as a resource, or what is wrong with it. Pure.

use kube::api::{DynamicObject, ObjectMeta};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use weir_config::resource::{
    Metadata, OPAQUE_PORTS_ANNOTATION, ObjectName, SKIP_INBOUND_PORTS_ANNOTATION,
};
use weir_config::{Kind, Resource, parse};

/// Annotations that anybody here reads; `kubectl apply` leaves a second copy of each object in another.
const READ_ANNOTATIONS: [&str; 3] = [
    "weir.dev/",
    OPAQUE_PORTS_ANNOTATION,
    SKIP_INBOUND_PORTS_ANNOTATION,
];
const SLICE_LABELS: [&str; 1] = ["kubernetes.io/service-name"];

/// What an object says: one of ours, or a route, in the words of `weir validate`.
#[derive(Clone, Debug, PartialEq)]
pub struct Read {
    pub resource: Resource,
    pub warnings: Vec<String>,
    /// As it was parsed.
    pub text: String,
}

/// `Err`: every mistake.
pub fn read(kind: Kind, object: &DynamicObject, trust_domain: &str) -> Result<Read, Vec<String>> {
    if kind.is_strict() {
        let mut value = serde_json::to_value(object).map_err(|error| vec![error.to_string()])?;
        // An item of a list does not say what it is.
        value["apiVersion"] = json!(kind.api_version());
        value["kind"] = json!(kind.name());
        return read_own(&value, trust_domain);
    }
    let (mut small, mut data) = (small_metadata(&object.metadata), object.data.clone());
    if kind == Kind::EndpointSlice {
        small
            .labels
            .retain(|key, _| SLICE_LABELS.contains(&key.as_str()));
    }
    if let Some(fields) = data.as_object_mut() {
        let metadata = serde_json::to_value(small).expect("metadata is plain data");
        fields.insert("metadata".to_owned(), metadata);
    }
    let resource = match kind {
        Kind::Service => typed(data).map(Resource::Service),
        Kind::EndpointSlice => typed(data).map(Resource::EndpointSlice),
        Kind::Pod => typed(data).map(Resource::Pod),
        Kind::ReferenceGrant => typed(data).map(Resource::ReferenceGrant),
        strict => Err(format!("{strict} is read as a file")),
    };
    let resource = resource.map_err(|error| vec![error])?;
    Ok(Read {
        resource,
        warnings: Vec::new(),
        text: String::new(),
    })
}

/// What anybody here reads of it.
pub(super) fn small_metadata(metadata: &ObjectMeta) -> Metadata {
    let mut small = Metadata {
        name: metadata.name.clone().unwrap_or_default(),
        namespace: metadata.namespace.clone(),
        labels: metadata.labels.clone().unwrap_or_default(),
        annotations: metadata.annotations.clone().unwrap_or_default(),
        creation_timestamp: time(metadata.creation_timestamp.as_ref()),
        deletion_timestamp: time(metadata.deletion_timestamp.as_ref()),
        ..Metadata::default()
    };
    small
        .annotations
        .retain(|key, _| READ_ANNOTATIONS.iter().any(|ours| key.starts_with(ours)));
    small
}

/// Whether an object is for the mesh at all: a route that has no Service as parent is not, whatever it says, nor is a
/// slice of no Service.
pub fn concerns_the_mesh(kind: Kind, object: &DynamicObject) -> bool {
    match kind {
        Kind::HttpRoute | Kind::GrpcRoute => {
            let parents = object.data.pointer("/spec/parentRefs");
            let mut parents = parents.and_then(Value::as_array).into_iter().flatten();
            parents.any(is_service)
        }
        Kind::EndpointSlice => {
            let labels = object.metadata.labels.as_ref();
            labels.is_some_and(|labels| SLICE_LABELS.iter().all(|it| labels.contains_key(*it)))
        }
        _ => true,
    }
}

/// Of a route's `parentRefs`.
pub fn is_service(parent: &Value) -> bool {
    parent["kind"] == "Service" && matches!(parent["group"].as_str(), Some("" | "core"))
}

/// The same for an object of ours, as the API server or an admission request has it. It is written as YAML and read
/// like a file, so that whoever wrote it is told the same as by `weir validate`.
pub fn read_own(object: &Value, trust_domain: &str) -> Result<Read, Vec<String>> {
    let name = title(object);
    let text = serde_saphyr::to_string(&own(object)).map_err(|error| vec![error.to_string()])?;
    let told = |diagnostics: Vec<weir_config::Diagnostic>| {
        let texts = diagnostics.iter().map(ToString::to_string);
        texts.collect::<Vec<_>>()
    };
    let mut resources = parse(&name, &text).map_err(told)?;
    let Some(located) = resources.pop() else {
        return Err(vec![format!("error: {name} is no kind of ours")]);
    };
    if let Resource::MeshConfig(mesh) = &located.value
        && let Some(other) = mesh.spec.trust_domain.as_deref()
        && other != trust_domain
    {
        return Err(vec![format!(
            "error: {name}: the trust domain is {trust_domain} (--trust-domain), not {other}"
        )]);
    }
    Ok(Read {
        warnings: told(located.warnings),
        resource: located.value,
        text,
    })
}

pub fn name(object: &DynamicObject, kind: Kind) -> ObjectName {
    let metadata = &object.metadata;
    let namespace = match kind {
        Kind::MeshConfig => "",
        _ => metadata.namespace.as_deref().unwrap_or_default(),
    };
    ObjectName::new(namespace, metadata.name.as_deref().unwrap_or_default())
}

fn typed<T: DeserializeOwned>(data: Value) -> Result<T, String> {
    serde_json::from_value(data).map_err(|error| error.to_string())
}

/// RFC 3339 in whole seconds and UTC, as the API writes it.
fn time(time: Option<&k8s_openapi::apimachinery::pkg::apis::meta::v1::Time>) -> Option<String> {
    let text = serde_json::to_value(time?).ok()?;
    text.as_str().map(str::to_owned)
}

/// Only what its author wrote, and when: what the API server adds is not to be quoted at anybody.
fn own(object: &Value) -> Value {
    const KEPT: [&str; 5] = [
        "name",
        "generateName",
        "namespace",
        "creationTimestamp",
        "generation",
    ];
    let mut own = Map::new();
    for (key, value) in object.as_object().into_iter().flatten() {
        match key.as_str() {
            "status" => {}
            "metadata" => {
                let fields = value.as_object().into_iter().flatten();
                let kept = fields.filter(|(key, _)| KEPT.contains(&key.as_str()));
                let mut kept: Map<String, Value> = kept
                    .filter(|(_, value)| !value.is_null())
                    .map(|(key, value)| (key.clone(), value.clone()))
                    .collect();
                if !kept.contains_key("name")
                    && let Some(prefix) = kept.shift_remove("generateName")
                {
                    let prefix = prefix.as_str().unwrap_or_default();
                    kept.insert("name".to_owned(), json!(name_to_be(prefix)));
                }
                own.insert(key.clone(), Value::Object(kept));
            }
            _ => {
                own.insert(key.clone(), value.clone());
            }
        }
    }
    Value::Object(own)
}

/// As long as the name that the API server makes of a `generateName`: it appends five characters, and cuts off what would
/// make that longer than a label may be. Until then there is no name to be wrong.
fn name_to_be(prefix: &str) -> String {
    const PREFIX_BYTES_MAX: usize = 63 - 5;
    let end = prefix.floor_char_boundary(PREFIX_BYTES_MAX);
    format!("{}xxxxx", &prefix[..end])
}

/// `ResiliencePolicy boutique/payment`: in place of a file's name.
fn title(object: &Value) -> String {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str);
    let kind = text("/kind").unwrap_or("object");
    let name = text("/metadata/name").or(text("/metadata/generateName"));
    let name = name.unwrap_or("(no name)");
    match text("/metadata/namespace") {
        Some(namespace) => format!("{kind} {namespace}/{name}"),
        None => format!("{kind} {name}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(value: Value) -> DynamicObject {
        serde_json::from_value(value).expect("an object")
    }

    #[test]
    fn what_nobody_reads_is_not_kept() {
        let pod = object(json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": "cart-0", "namespace": "boutique", "uid": "u", "resourceVersion": "7",
                "creationTimestamp": "2026-11-26T03:00:00Z",
                "labels": { "app": "cart" },
                "annotations": {
                    "kubectl.kubernetes.io/last-applied-configuration": "{}", "weir.dev/weight": "50",
                    "config.weir.dev/opaque-ports": "7070", "config.weir.dev/log-level": "debug",
                    "config.weir.dev/skip-inbound-ports": "9090",
                },
                "managedFields": [{ "manager": "kubectl", "operation": "Update" }],
            },
            "spec": {
                "serviceAccountName": "cart", "volumes": [{ "name": "v" }],
                "containers": [{ "name": "app", "image": "cart:1", "ports": [{ "containerPort": 7070, "name": "grpc" }] }],
            },
            "status": { "podIP": "10.1.0.4", "phase": "Running" },
        }));
        let read = read(Kind::Pod, &pod, "weir.local").expect("a pod");
        let Resource::Pod(pod) = &read.resource else {
            panic!("a pod, not {:?}", read.resource)
        };
        assert_eq!(
            pod.metadata.annotations.keys().collect::<Vec<_>>(),
            [
                "config.weir.dev/opaque-ports",
                "config.weir.dev/skip-inbound-ports",
                "weir.dev/weight"
            ]
        );
        assert_eq!(
            pod.metadata.creation_timestamp.as_deref(),
            Some("2026-11-26T03:00:00Z")
        );
        assert_eq!((pod.service_account(), pod.weight()), ("cart", 50));
        let text = serde_json::to_string(&read.resource).expect("JSON");
        for word in ["managedFields", "image", "volumes", "last-applied"] {
            assert!(!text.contains(word), "{word} in {text}");
        }
    }

    /// What could not be read was not taken over, so the last endpoints of a Service stayed its endpoints for ever.
    #[test]
    fn a_slice_that_nothing_is_in_any_more_is_read_as_such() {
        let slice = object(json!({
            "metadata": { "name": "cart-x1", "namespace": "boutique", "labels": { "kubernetes.io/service-name": "cart" } },
            "addressType": "IPv4", "endpoints": null, "ports": null,
        }));
        assert!(concerns_the_mesh(Kind::EndpointSlice, &slice));
        let read = read(Kind::EndpointSlice, &slice, "weir.local").expect("a slice");
        let Resource::EndpointSlice(slice) = &read.resource else {
            panic!("a slice, not {:?}", read.resource)
        };
        assert_eq!((slice.endpoints.len(), slice.ports.len()), (0, 0));
    }

    #[test]
    fn a_slice_of_no_service_is_nobodys_although_it_has_a_services_name() {
        let slice = object(json!({
            "metadata": { "name": "cart", "namespace": "boutique" },
            "endpoints": [{ "addresses": ["10.1.0.9"] }], "ports": [{ "port": 1 }],
        }));
        assert!(!concerns_the_mesh(Kind::EndpointSlice, &slice));
    }

    #[test]
    fn a_mistake_is_told_as_weir_validate_tells_it() {
        let policy = json!({
            "apiVersion": "weir.dev/v1alpha1", "kind": "ResiliencePolicy",
            "metadata": { "name": "cart", "namespace": "boutique", "managedFields": [], "uid": "u" },
            "spec": { "targetRefs": [{ "kind": "Service", "name": "cart" }], "outbound": { "deadline": "2 seconds" } },
            "status": { "ancestors": [] },
        });
        let mistakes = read_own(&policy, "weir.local").expect_err("a mistake");
        let [mistake] = mistakes.as_slice() else {
            panic!("one mistake: {mistakes:?}")
        };
        assert!(mistake.contains("write it as 2s"), "{mistake}");
        assert!(
            mistake.contains("--> ResiliencePolicy boutique/cart:"),
            "{mistake}"
        );
        assert!(mistake.contains("^^^"), "{mistake}");
    }

    #[test]
    fn a_name_that_the_server_will_make_is_no_mistake() {
        let policy = json!({
            "apiVersion": "weir.dev/v1alpha1", "kind": "ResiliencePolicy",
            "metadata": { "generateName": "cart-", "namespace": "boutique" },
            "spec": { "targetRefs": [{ "kind": "Service", "name": "cart" }], "outbound": { "deadline": "2s" } },
        });
        read_own(&policy, "weir.local").expect("in order");
    }

    #[test]
    fn a_prefix_that_the_server_will_cut_is_no_mistake() {
        let read_with = |prefix: &str| {
            let policy = json!({
                "apiVersion": "weir.dev/v1alpha1", "kind": "ResiliencePolicy",
                "metadata": { "generateName": prefix, "namespace": "boutique" },
                "spec": { "targetRefs": [{ "kind": "Service", "name": "cart" }], "outbound": { "deadline": "2s" } },
            });
            let read = read_own(&policy, "weir.local")?;
            Ok::<_, Vec<String>>(read.resource.metadata().name.clone())
        };
        let cut = format!("{}xxxxx", "a".repeat(58));
        for length in [58, 59, 300] {
            assert_eq!(read_with(&"a".repeat(length)), Ok(cut.clone()), "{length}");
        }
        read_with(&"ä".repeat(40)).expect_err("it is cut between two characters, and no name");
    }

    #[test]
    fn a_mesh_of_another_trust_domain_is_refused() {
        let mesh = json!({
            "apiVersion": "weir.dev/v1alpha1", "kind": "MeshConfig", "metadata": { "name": "mesh" },
            "spec": { "trustDomain": "other.example" },
        });
        let mistakes = read_own(&mesh, "weir.local").expect_err("a mistake");
        assert!(mistakes[0].contains("not other.example"), "{mistakes:?}");
        read_own(&mesh, "other.example").expect("in order");
    }
}
