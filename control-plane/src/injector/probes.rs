//! Probes go to the sidecar's admin port, which asks the app from inside the pod.
//!
//! Under redirection a `tcpSocket` probe would always succeed (the sidecar accepts), and strict mTLS would refuse
//! the kubelet's plain text. So a probe becomes `GET /app-probe/<container>/<kind>` on the admin port, and the
//! sidecar replays the original. `exec` probes never touch the network and stay.

use serde_json::{Map, Value, json};

use super::{ADMIN_PORT, items, name};

const KINDS: [(&str, &str); 3] = [
    ("startupProbe", "startup"),
    ("livenessProbe", "liveness"),
    ("readinessProbe", "readiness"),
];

/// Rewrites the probes of every container and returns the originals by their path under `/app-probe/`.
pub(super) fn rewrite(spec: &mut Map<String, Value>) -> Map<String, Value> {
    let mut originals = Map::new();
    for list in ["initContainers", "containers"] {
        let containers = spec.get_mut(list).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten() {
            rewrite_container(container, &mut originals);
        }
    }
    originals
}

/// Gives the probes back, as [`rewrite`] found them but for their ports, which are numbers.
pub(super) fn restore(spec: &mut Map<String, Value>, originals: &Map<String, Value>) {
    for list in ["initContainers", "containers"] {
        let containers = spec.get_mut(list).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten() {
            for (field, kind) in KINDS {
                let key = format!("{}/{kind}", name(container));
                let probe = container.get_mut(field).and_then(Value::as_object_mut);
                if let (Some(probe), Some(original)) = (probe, originals.get(&key)) {
                    probe.shift_remove("httpGet");
                    let handlers = original.as_object().into_iter().flatten();
                    let handlers = handlers.filter(|(field, _)| *field != "timeoutSeconds");
                    probe.extend(handlers.map(|(field, value)| (field.clone(), value.clone())));
                }
            }
        }
    }
}

fn rewrite_container(container: &mut Value, originals: &mut Map<String, Value>) {
    for (field, kind) in KINDS {
        let Some(original) = container
            .get(field)
            .and_then(|probe| original(probe, container))
        else {
            continue;
        };
        let key = format!("{}/{kind}", name(container));
        let Some(probe) = container.get_mut(field).and_then(Value::as_object_mut) else {
            continue;
        };
        for handler in ["httpGet", "tcpSocket", "grpc"] {
            probe.shift_remove(handler);
        }
        probe.insert(
            "httpGet".to_owned(),
            json!({ "path": format!("/app-probe/{key}"), "port": ADMIN_PORT }),
        );
        originals.insert(key, original);
    }
}

/// What the sidecar replays: the handler with its port as a number, and the probe's patience.
/// `None`: not a network probe, or not one of this pod's address (kubelet asks `host` itself).
fn original(probe: &Value, container: &Value) -> Option<Value> {
    let (kind, handler) = ["httpGet", "tcpSocket", "grpc"]
        .iter()
        .find_map(|kind| Some((*kind, probe.get(kind)?)))?;
    if handler
        .get("host")
        .and_then(Value::as_str)
        .is_some_and(|host| !host.is_empty())
    {
        return None;
    }
    let port = port_number(handler.get("port")?, container)?;
    let handler = match kind {
        "grpc" => json!({ "port": port, "service": text(handler, "service", "") }),
        "tcpSocket" => json!({ "port": port }),
        _ => {
            let headers: Vec<Value> = items(handler.get("httpHeaders")).cloned().collect();
            json!({
                "path": text(handler, "path", "/"),
                "port": port,
                "scheme": text(handler, "scheme", "HTTP"),
                "httpHeaders": headers,
            })
        }
    };
    // Kubernetes' default of timeoutSeconds.
    let timeout = probe
        .get("timeoutSeconds")
        .and_then(Value::as_u64)
        .unwrap_or(1);
    let mut original = Map::new();
    original.insert(kind.to_owned(), handler);
    original.insert("timeoutSeconds".to_owned(), timeout.into());
    Some(Value::Object(original))
}

fn text<'a>(handler: &'a Value, field: &str, default: &'a str) -> &'a str {
    handler
        .get(field)
        .and_then(Value::as_str)
        .unwrap_or(default)
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
