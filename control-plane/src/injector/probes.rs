//! Probes go to the sidecar's admin port, which asks the app from inside the pod, and so do the hooks of a container's
//! life that ask by HTTP.
//!
//! Under redirection a `tcpSocket` probe would always succeed (the sidecar accepts), and strict mTLS would refuse
//! the kubelet's plain text. So a probe becomes `GET /app-probe/<container>/<kind>` on the admin port, and the
//! sidecar replays the original. What executes a command never touches the network and stays.

use serde_json::{Map, Value, json};

use super::{ADMIN_PORT, items, name};

/// What the kubelet asks a container by the network.
struct Kind {
    /// Where it is in the container.
    at: &'static str,
    /// What the sidecar calls it.
    name: &'static str,
    handlers: &'static [&'static str],
    /// When it says nothing of that itself.
    timeout_seconds: u64,
}

impl Kind {
    const fn probe(at: &'static str, name: &'static str) -> Self {
        Self {
            at,
            name,
            handlers: &["httpGet", "tcpSocket", "grpc"],
            // Kubernetes' default.
            timeout_seconds: 1,
        }
    }

    const fn hook(at: &'static str, name: &'static str) -> Self {
        Self {
            at,
            name,
            handlers: &["httpGet"],
            // The kubelet waits for as long as the pod has; nobody's pod has longer than that.
            timeout_seconds: 3600,
        }
    }
}

const PRE_STOP: Kind = Kind::hook("/lifecycle/preStop", "pre-stop");

/// The variable that tells a sidecar what to replay.
pub(super) const PROBERS: &str = "WEIR_APP_PROBERS";

/// What the sidecar does where the container had no hook.
const SLEEP: &str = "sleep";

const KINDS: [Kind; 5] = [
    Kind::probe("/startupProbe", "startup"),
    Kind::probe("/livenessProbe", "liveness"),
    Kind::probe("/readinessProbe", "readiness"),
    Kind::hook("/lifecycle/postStart", "post-start"),
    PRE_STOP,
];

/// Rewrites the probes of every container and returns the originals by their path under `/app-probe/`.
pub(super) fn rewrite(spec: &mut Map<String, Value>) -> Map<String, Value> {
    let mut originals = Map::new();
    each(spec, |container, kind| {
        rewrite_one(container, kind, &mut originals);
    });
    originals
}

/// What a sidecar has been told to replay.
pub(super) fn originals(proxy: &Value) -> Map<String, Value> {
    items(proxy.get("env"))
        .find(|variable| name(variable) == PROBERS)
        .and_then(|variable| variable.get("value")?.as_str())
        .and_then(|text| serde_json::from_str(text).ok())
        .unwrap_or_default()
}

/// Those of `originals` that the kubelet still asks the sidecar for.
pub(super) fn still_asked(
    spec: &mut Map<String, Value>,
    originals: &Map<String, Value>,
) -> Map<String, Value> {
    let mut kept = originals.clone();
    kept.clear();
    each(spec, |container, kind| {
        let key = key(container, kind);
        if let Some(original) = originals.get(&key).filter(|_| is_ours(container, kind)) {
            kept.insert(key, original.clone());
        }
    });
    kept
}

/// Whether [`rewrite`] would find anything in this container.
pub(super) fn are_rewritten(container: &Value) -> bool {
    KINDS.iter().any(|kind| {
        let probe = container.pointer(kind.at);
        probe.is_some_and(|probe| original(probe, kind, container).is_some())
    })
}

/// The hook of a container that has none of its own: the kubelet tells a container to end, and its callers at the same time
/// that it is going, so what they have sent on its idle connections would be lost. The sidecar answers after `seconds`.
pub(super) fn delay_stop(spec: &mut Map<String, Value>, seconds: u64) -> Map<String, Value> {
    let mut originals = Map::new();
    let containers = spec.get_mut("containers").and_then(Value::as_array_mut);
    for container in containers.into_iter().flatten() {
        let key = key(container, &PRE_STOP);
        let Some(container) = container.as_object_mut() else {
            continue;
        };
        let lifecycle = container.get("lifecycle").unwrap_or(&Value::Null);
        let has_own = lifecycle.get("preStop").is_some_and(|hook| !hook.is_null());
        if has_own || !(lifecycle.is_null() || lifecycle.is_object()) {
            continue;
        }
        let lifecycle = container.entry("lifecycle").or_insert(Value::Null);
        if lifecycle.is_null() {
            *lifecycle = json!({});
        }
        lifecycle["preStop"] = json!({ "httpGet": asked(&key) });
        let handler =
            json!({ SLEEP: { "seconds": seconds }, "timeoutSeconds": PRE_STOP.timeout_seconds });
        originals.insert(key, handler);
    }
    originals
}

/// Takes the hooks of [`delay_stop`] out again.
pub(super) fn do_not_delay_stop(spec: &mut Map<String, Value>, originals: &Map<String, Value>) {
    each(spec, |container, kind| {
        let original = originals.get(&key(container, kind));
        if is_ours(container, kind) && original.is_some_and(is_sleep) {
            remove_hook(container);
        }
    });
}

/// Gives the probes back, as [`rewrite`] found them but for their ports, which are numbers.
pub(super) fn restore(spec: &mut Map<String, Value>, originals: &Map<String, Value>) {
    each(spec, |container, kind| {
        if !is_ours(container, kind) {
            return;
        }
        let key = key(container, kind);
        let probe = container
            .pointer_mut(kind.at)
            .and_then(Value::as_object_mut);
        let original = originals.get(&key);
        if original.is_some_and(is_sleep) {
            remove_hook(container);
            return;
        }
        let original = original.and_then(Value::as_object);
        let handler = original.and_then(|it| it.iter().find(|(by, _)| *by != "timeoutSeconds"));
        if let (Some(probe), Some((by, handler))) = (probe, handler) {
            replace(probe, "httpGet", by, handler.clone());
        }
    });
}

fn is_sleep(original: &Value) -> bool {
    original.get(SLEEP).is_some()
}

/// And what was made for it to lie in.
fn remove_hook(container: &mut Value) {
    let Some(container) = container.as_object_mut() else {
        return;
    };
    let Some(lifecycle) = container
        .get_mut("lifecycle")
        .and_then(Value::as_object_mut)
    else {
        return;
    };
    lifecycle.shift_remove("preStop");
    if lifecycle.is_empty() {
        container.shift_remove("lifecycle");
    }
}

fn each(spec: &mut Map<String, Value>, mut visit: impl FnMut(&mut Value, &Kind)) {
    for list in ["initContainers", "containers"] {
        let containers = spec.get_mut(list).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten() {
            for kind in &KINDS {
                visit(container, kind);
            }
        }
    }
}

fn key(container: &Value, kind: &Kind) -> String {
    format!("{}/{}", name(container), kind.name)
}

/// What the kubelet asks instead.
fn asked(key: &str) -> Value {
    json!({ "path": format!("/app-probe/{key}"), "port": ADMIN_PORT })
}

/// Another webhook, or whoever wrote the pod, may have put another in its place since.
fn is_ours(container: &Value, kind: &Kind) -> bool {
    let handler = container.pointer(kind.at).map(|probe| &probe["httpGet"]);
    handler.is_some_and(|handler| {
        let asked = asked(&key(container, kind));
        handler["path"] == asked["path"] && handler["port"] == asked["port"]
    })
}

fn rewrite_one(container: &mut Value, kind: &Kind, originals: &mut Map<String, Value>) {
    if is_ours(container, kind) {
        return;
    }
    let Some(original) = container
        .pointer(kind.at)
        .and_then(|probe| original(probe, kind, container))
    else {
        return;
    };
    let key = key(container, kind);
    let Some(probe) = container
        .pointer_mut(kind.at)
        .and_then(Value::as_object_mut)
    else {
        return;
    };
    let by = original.keys().next().map(String::as_str);
    replace(probe, by.unwrap_or_default(), "httpGet", asked(&key));
    originals.insert(key, Value::Object(original));
}

/// Where the other was, so that whoever compares two pods sees what has changed and nothing else.
fn replace(probe: &mut Map<String, Value>, old: &str, new: &str, handler: Value) {
    let place = probe.keys().position(|field| field == old);
    probe.shift_remove(old);
    probe.shift_insert(place.unwrap_or(probe.len()), new.to_owned(), handler);
}

/// What the sidecar replays: the handler with its port as a number, and then the probe's patience.
/// `None`: not a network probe, or not one of this pod's address (kubelet asks `host` itself).
fn original(probe: &Value, kind: &Kind, container: &Value) -> Option<Map<String, Value>> {
    let (by, handler) = kind
        .handlers
        .iter()
        .find_map(|by| Some((*by, probe.get(by)?.as_object()?)))?;
    let host = handler.get("host").and_then(Value::as_str);
    if host.is_some_and(|host| !host.is_empty()) {
        return None;
    }
    let port = port_number(handler.get("port")?, container)?;
    let mut handler = handler.clone();
    handler.retain(|_, value| !value.is_null());
    handler["port"] = port.into();
    let timeout = probe
        .get("timeoutSeconds")
        .and_then(Value::as_u64)
        .unwrap_or(kind.timeout_seconds);
    let mut original = Map::new();
    original.insert(by.to_owned(), Value::Object(handler));
    original.insert("timeoutSeconds".to_owned(), timeout.into());
    Some(original)
}

/// A name that no port has stays unresolved: the probe is left alone, and the kubelet says so as it always did.
fn port_number(port: &Value, container: &Value) -> Option<u16> {
    let number = match port.as_str() {
        Some(port) => match port.parse() {
            Ok(number) => number,
            Err(_) => items(container.get("ports"))
                .find(|item| name(item) == port)?
                .get("containerPort")?
                .as_u64()?,
        },
        None => port.as_u64()?,
    };
    u16::try_from(number).ok().filter(|port| *port != 0)
}
