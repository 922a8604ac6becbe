//! The cluster's network: whether a sidecar sees which Service a call is for.

use serde_json::Value;

use super::Finding;

/// `cilium`: its ConfigMap, where there is one that may be read. In kube-proxy's stead Cilium puts an endpoint's address in
/// place of a Service's when an app connects, which is before the pod's rules send the call to its sidecar.
pub(super) fn check(cilium: &[Value]) -> Vec<Finding> {
    let says = |key: &str| cilium.first()?["data"][key].as_str();
    let is_on = matches!(says("kube-proxy-replacement"), Some("true" | "strict"))
        || says("bpf-lb-sock") == Some("true");
    if !is_on || says("bpf-lb-sock-hostns-only") == Some("true") {
        return Vec::new();
    }
    vec![Finding::wrong(
        "Cilium replaces the addresses of Services inside of pods, before their sidecars see them",
        "to a sidecar no call is for a Service then: no route and no policy holds for its callers, and nothing else says \
         so.\nSet Cilium's Helm value socketLB.hostNamespaceOnly=true (bpf-lb-sock-hostns-only in its ConfigMap), and \
         restart it: kubectl -n kube-system rollout restart daemonset/cilium",
    )]
}
