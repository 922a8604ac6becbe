//! Builds the pod with its sidecar: two containers, one volume, two annotations, and a pause before the app is told to end.

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::knobs::Knobs;
use super::settings::{InjectorSettings, NamespaceContext};
use super::{
    ADMIN_PORT, HASH_ANNOTATION, IDENTITY_VOLUME, INBOUND_PORT, INIT_CONTAINER, OUTBOUND_PORT,
    PROXY_CONTAINER, STATUS_ANNOTATION, VALIDATE_CONTAINER, items, ports, probes, quantity,
};

/// Of whoever tries the rules: neither root nor the sidecar, whose traffic they let pass.
const VALIDATE_UID: u32 = 14101;

/// The variable that tells a sidecar which ports the app has.
pub(super) const PORTS: &str = "WEIR_APP_PORTS";

/// The variables that go by the pod's grace.
pub(super) const GRACE: &str = "WEIR_TERMINATION_GRACE";
pub(super) const DRAIN: &str = "WEIR_DRAIN_SECONDS";

/// Where the token and the trust bundle are mounted.
const IDENTITY_DIR: &str = "/var/run/secrets/weir";

/// `pod` must have passed the injector's checks.
pub(super) fn apply(pod: &Value, knobs: &Knobs) -> Value {
    let mut pod = pod.clone();
    let spec = object(&mut pod, "spec");
    let probers = probers(spec, knobs);
    let proxy = proxy_container(knobs, app_ports(spec), &probers);
    place(spec, knobs, Some(first_container(knobs)), proxy);
    list(spec, "volumes").push(identity_volume(knobs));

    let metadata = object(&mut pod, "metadata");
    let annotations = child(metadata, "annotations");
    for (key, value) in &knobs.inherited {
        annotations.insert(key.clone(), value.as_str().into());
    }
    annotations.insert(STATUS_ANNOTATION.to_owned(), status(knobs).into());
    annotations.insert(HASH_ANNOTATION.to_owned(), knobs.hash().into());
    pod
}

/// Has what the kubelet asks of the containers asked of the sidecar, and says what that replays.
pub(super) fn probers(spec: &mut Map<String, Value>, knobs: &Knobs) -> Map<String, Value> {
    let mut probers = if knobs.rewrite_probes {
        probes::rewrite(spec)
    } else {
        Map::new()
    };
    if knobs.stop_delay_seconds > 0 {
        probers.extend(probes::delay_stop(spec, knobs.stop_delay_seconds));
    }
    probers
}

pub(super) fn place(
    spec: &mut Map<String, Value>,
    knobs: &Knobs,
    first: Option<Value>,
    proxy: Value,
) {
    if knobs.native_sidecar {
        // Ahead of the user's own init containers, so that those are in the mesh too.
        let ours = first.into_iter().chain([proxy]);
        list(spec, "initContainers").splice(0..0, ours);
    } else {
        // Last, because traffic of init containers that run after it would reach a sidecar that does not run yet. (In CNI
        // mode there are no others: such a pod is refused.)
        list(spec, "initContainers").extend(first);
        list(spec, "containers").insert(0, proxy);
    }
}

/// Which writes the rules, or tries those that the node has written.
fn first_container(knobs: &Knobs) -> Value {
    match knobs.cni {
        true => validate_container(knobs),
        false => init_container(knobs),
    }
}

/// Little, and only for a moment, but no less than the sidecar has: a namespace may say what each container must ask for at
/// least (LimitRange), and annotations move the sidecar's. A scheduler counts the most that is asked for at a time, and the
/// sidecar is there when this one has ended: nothing more is kept free for it. Where a quota wants a limit of CPU for the
/// sidecar, it wants one here, too. A pod is of the class Guaranteed when all its containers ask for what they may have:
/// where the sidecar does, so does this one.
fn first_resources(knobs: &Knobs) -> Value {
    let sidecars = |what: &str, resource: &str| knobs.resources[what][resource].as_str();
    let asked = |resource: &str, own| {
        let sidecars = sidecars("requests", resource);
        sidecars.map_or(own, |sidecars| quantity::larger(own, sidecars))
    };
    let (cpu, memory) = (asked("cpu", "10m"), asked("memory", "16Mi"));
    let memory_limit = sidecars("limits", "memory").unwrap_or(memory);
    let mut resources = json!({
        "requests": { "cpu": cpu, "memory": memory },
        "limits": { "memory": quantity::larger("64Mi", memory_limit) },
    });
    if let Some(limit) = sidecars("limits", "cpu") {
        resources["limits"]["cpu"] = limit.into();
        resources["requests"]["cpu"] = quantity::smaller(cpu, limit).into();
    }
    if asks_for_its_limits(&knobs.resources) {
        resources["requests"] = resources["limits"].clone();
    }
    resources
}

fn asks_for_its_limits(resources: &Value) -> bool {
    ["cpu", "memory"].into_iter().all(|resource| {
        let [request, limit] = ["requests", "limits"].map(|it| resources[it][resource].as_str());
        request
            .zip(limit)
            .is_some_and(|(request, limit)| quantity::are_equal(request, limit))
    })
}

fn validate_container(knobs: &Knobs) -> Value {
    let mut args = vec![
        "validate".to_owned(),
        format!("--proxy-uid={}", knobs.proxy_uid),
    ];
    let skips = [
        ("--skip-outbound-ports", &knobs.skip_outbound_ports),
        ("--skip-outbound-cidrs", &knobs.skip_outbound_cidrs),
    ];
    args.extend(flags(&skips));
    json!({
        "name": VALIDATE_CONTAINER,
        "image": knobs.proxy_image,
        "args": args,
        "securityContext": {
            "runAsUser": VALIDATE_UID,
            "runAsGroup": VALIDATE_UID,
            "runAsNonRoot": true,
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": { "drop": ["ALL"] },
            "seccompProfile": { "type": "RuntimeDefault" },
        },
        "resources": first_resources(knobs),
        "terminationMessagePolicy": "FallbackToLogsOnError",
    })
}

fn flags(values: &[(&str, &Option<String>)]) -> Vec<String> {
    let given = values
        .iter()
        .filter_map(|(flag, value)| Some((flag, value.as_ref()?)));
    given
        .map(|(flag, value)| format!("{flag}={value}"))
        .collect()
}

fn init_container(knobs: &Knobs) -> Value {
    let mut args = vec![
        "init".to_owned(),
        format!("--proxy-uid={}", knobs.proxy_uid),
    ];
    let skips = [
        ("--skip-inbound-ports", &knobs.skip_inbound_ports),
        ("--skip-outbound-ports", &knobs.skip_outbound_ports),
        ("--skip-outbound-cidrs", &knobs.skip_outbound_cidrs),
    ];
    args.extend(flags(&skips));
    json!({
        "name": INIT_CONTAINER,
        "image": knobs.proxy_image,
        "args": args,
        "securityContext": {
            // The pod may say runAsNonRoot; only root may write the rules, and this container ends at once.
            "runAsUser": 0,
            "runAsGroup": 0,
            "runAsNonRoot": false,
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": { "drop": ["ALL"], "add": ["NET_ADMIN"] },
            "seccompProfile": { "type": "RuntimeDefault" },
        },
        "resources": first_resources(knobs),
        "terminationMessagePolicy": "FallbackToLogsOnError",
    })
}

fn proxy_container(knobs: &Knobs, app_ports: String, probers: &Map<String, Value>) -> Value {
    let mut container = json!({
        "name": PROXY_CONTAINER,
        "image": knobs.proxy_image,
        "env": environment(knobs, app_ports, probers),
        "ports": [
            { "name": "weir-inbound", "containerPort": INBOUND_PORT, "protocol": "TCP" },
            { "name": "weir-admin", "containerPort": ADMIN_PORT, "protocol": "TCP" },
        ],
        "livenessProbe": { "httpGet": { "path": "/live", "port": ADMIN_PORT }, "periodSeconds": 10 },
        "readinessProbe": { "httpGet": { "path": "/ready", "port": ADMIN_PORT }, "periodSeconds": 2 },
        "securityContext": {
            "runAsUser": knobs.proxy_uid,
            "runAsGroup": knobs.proxy_uid,
            "runAsNonRoot": true,
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": { "drop": ["ALL"] },
            "seccompProfile": { "type": "RuntimeDefault" },
        },
        "resources": knobs.resources,
        "volumeMounts": [{ "name": IDENTITY_VOLUME, "mountPath": IDENTITY_DIR, "readOnly": true }],
        "terminationMessagePolicy": "FallbackToLogsOnError",
    });
    if knobs.native_sidecar {
        container["restartPolicy"] = "Always".into();
        // The app starts when this passes: two minutes to get a certificate and a first policy.
        container["startupProbe"] = json!({
            "httpGet": { "path": "/ready", "port": ADMIN_PORT },
            "periodSeconds": 1,
            "failureThreshold": 120,
        });
    }
    container
}

fn environment(knobs: &Knobs, app_ports: String, probers: &Map<String, Value>) -> Vec<Value> {
    let value = |name: &str, value: String| json!({ "name": name, "value": value });
    let field = |name: &str, path: &str| json!({ "name": name, "valueFrom": { "fieldRef": { "fieldPath": path } } });
    let mut env = vec![
        value("WEIR_CONTROL_PLANE_ADDR", knobs.control_plane_addr.clone()),
        value("WEIR_TRUST_DOMAIN", knobs.trust_domain.clone()),
        field("WEIR_POD_NAME", "metadata.name"),
        field("WEIR_POD_NAMESPACE", "metadata.namespace"),
        field("WEIR_POD_UID", "metadata.uid"),
        field("WEIR_POD_IPS", "status.podIPs"),
        field("WEIR_NODE_NAME", "spec.nodeName"),
        field("WEIR_SERVICE_ACCOUNT", "spec.serviceAccountName"),
        value("WEIR_TOKEN_FILE", format!("{IDENTITY_DIR}/token")),
        value("WEIR_TRUST_BUNDLE_FILE", format!("{IDENTITY_DIR}/ca.crt")),
        value(PORTS, app_ports),
        value(probes::PROBERS, without_references(probers)),
        value(GRACE, knobs.grace_seconds.to_string()),
        value(DRAIN, knobs.drain_seconds.to_string()),
        value("WEIR_LOG", knobs.log_level.clone()),
    ];
    let given = [
        ("WEIR_ACCESS_LOG", &knobs.access_log),
        ("WEIR_OPAQUE_PORTS", &knobs.opaque_ports),
    ];
    let given = given
        .into_iter()
        .filter_map(|(name, said)| Some(value(name, said.clone()?)));
    env.extend(given);
    if knobs.resources["limits"]["memory"].is_string() {
        // Beside what its cgroup says: not every node lets a container see that.
        let limit = json!({ "resourceFieldRef": { "resource": "limits.memory" } });
        env.push(json!({ "name": "WEIR_MEMORY_LIMIT", "valueFrom": limit }));
    }
    env
}

/// As JSON without a `$`: the kubelet puts variables in place of `$(NAME)`, and one dollar in place of two.
pub(super) fn without_references(probers: &Map<String, Value>) -> String {
    json!(probers).to_string().replace('$', "\\u0024")
}

fn identity_volume(knobs: &Knobs) -> Value {
    json!({
        "name": IDENTITY_VOLUME,
        "projected": {
            "sources": [
                // An hour, renewed by the kubelet: a stolen token is worth little.
                { "serviceAccountToken": { "audience": knobs.token_audience, "expirationSeconds": 3600, "path": "token" } },
                { "configMap": { "name": "weir-trust-bundle", "items": [{ "key": "ca.crt", "path": "ca.crt" }] } },
            ],
        },
    })
}

/// What was added, for `weir uninject`, the CNI plugin and people.
pub(super) fn status(knobs: &Knobs) -> String {
    let first = if knobs.cni {
        VALIDATE_CONTAINER
    } else {
        INIT_CONTAINER
    };
    let mut status = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "template-hash": template_hash(knobs.cni),
        "containers": [first, PROXY_CONTAINER],
        "volumes": [IDENTITY_VOLUME],
    });
    if knobs.cni {
        status["redirect"] = redirection(knobs);
    }
    status.to_string()
}

/// What weir-init would have been told, for the CNI plugin: `proxy/src/redirect/wanted.rs` reads it, and refuses what it
/// does not know.
fn redirection(knobs: &Knobs) -> Value {
    let mut redirection = json!({
        "inboundPort": INBOUND_PORT,
        "outboundPort": OUTBOUND_PORT,
        "proxyUid": knobs.proxy_uid,
    });
    for (field, value) in [
        ("skipInboundPorts", &knobs.skip_inbound_ports),
        ("skipOutboundPorts", &knobs.skip_outbound_ports),
        ("skipOutboundCidrs", &knobs.skip_outbound_cidrs),
    ] {
        if let Some(value) = value {
            redirection[field] = value.as_str().into();
        }
    }
    redirection
}

/// Of what this injector builds when nobody asks for anything: pods of another injector can be listed by it.
fn template_hash(cni: bool) -> String {
    let settings = InjectorSettings {
        cni,
        ..InjectorSettings::default()
    };
    let defaults = Knobs::resolve(&Value::Null, &NamespaceContext::default(), &settings);
    let defaults = defaults.expect("the defaults are in order: a test injects with them");
    let template = [
        first_container(&defaults),
        proxy_container(&defaults, String::new(), &Map::new()),
        identity_volume(&defaults),
        defaults.stop_delay_seconds.into(),
    ];
    let digest = Sha256::digest(Value::from(template.to_vec()).to_string());
    digest
        .iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// In the order in which they are declared, each once.
pub(super) fn app_ports(spec: &Map<String, Value>) -> String {
    let mut all = Vec::new();
    let containers = ["initContainers", "containers"].map(|list| items(spec.get(list)));
    for port in containers.into_iter().flatten().flat_map(ports) {
        let port = port.to_string();
        if !all.contains(&port) {
            all.push(port);
        }
    }
    all.join(",")
}

fn object<'a>(pod: &'a mut Value, field: &str) -> &'a mut Map<String, Value> {
    child(
        pod.as_object_mut().expect("a pod with a spec is an object"),
        field,
    )
}

/// The object at `field`, which is made when absent (or `null`, or of a kind that the API server refuses anyway).
fn child<'a>(parent: &'a mut Map<String, Value>, field: &str) -> &'a mut Map<String, Value> {
    let value = parent.entry(field).or_insert(Value::Null);
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    value.as_object_mut().expect("made an object above")
}

fn list<'a>(spec: &'a mut Map<String, Value>, field: &str) -> &'a mut Vec<Value> {
    let value = spec.entry(field).or_insert(Value::Null);
    if !value.is_array() {
        *value = Value::Array(Vec::new());
    }
    value.as_array_mut().expect("made an array above")
}
