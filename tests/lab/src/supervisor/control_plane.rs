//! The control plane's pod and Service.

use serde_json::json;

use super::SYSTEM_NAMESPACE;
use crate::manifest::{Manifests, Service, Workload};
use crate::node::Node;

/// The control plane as a workload like any other.
pub fn control_plane(node: &Node, manifests: &Manifests) -> (Workload, Service) {
    let mut args = Vec::new();
    let mut sources = vec![node.cluster()];
    sources.extend(node.settings.policies.iter().cloned());
    sources.extend(manifests.policy_sources());
    for source in sources {
        args.extend(["--source".to_owned(), source.display().to_string()]);
    }
    for (flag, value) in [
        ("--listen", "0.0.0.0:14180".to_owned()),
        ("--state", node.control_plane_state().display().to_string()),
        ("--bootstrap-tokens", node.tokens().display().to_string()),
        (
            "--operator-socket",
            node.operator_socket().display().to_string(),
        ),
        (
            "--trust-bundle-out",
            node.trust_bundle().display().to_string(),
        ),
    ] {
        args.extend([flag.to_owned(), value]);
    }
    let labels = json!({"app": "weir-control-plane"});
    let template = json!({
        "metadata": {"labels": labels},
        "spec": {
            "serviceAccountName": "weir-control-plane",
            "terminationGracePeriodSeconds": 5,
            "containers": [{
                "name": "weir-control-plane",
                "image": "weir-control-plane",
                "args": args,
                "readinessProbe": {"tcpSocket": {"port": 14180}, "periodSeconds": 2},
                // It writes into the directory of the run, which only the user of the lab may enter.
                "securityContext": {"runAsUser": 0},
            }],
        },
    });
    let object = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "weir-control-plane", "namespace": SYSTEM_NAMESPACE},
        "spec": {"selector": labels, "ports": [{"name": "grpc", "port": 14180}]},
    });
    let workload = Workload {
        namespace: SYSTEM_NAMESPACE.to_owned(),
        name: "weir-control-plane".to_owned(),
        replicas: 1,
        template,
        lone: false,
    };
    let service = Service {
        namespace: SYSTEM_NAMESPACE.to_owned(),
        name: "weir-control-plane".to_owned(),
        spec: serde_json::from_value(object["spec"].clone()).expect("written above"),
        object,
    };
    (workload, service)
}
