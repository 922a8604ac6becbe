//! Services that ask for something which callers in the mesh do not do.

use std::collections::BTreeSet;

use serde_json::Value;
use weir_config::resource::Pod;

use super::Finding;
use super::pods::named;

/// Of the namespaces that have sidecars: the rest of a cluster is nobody's business here.
pub(super) fn check(services: &[Value], pods: &[Value]) -> Vec<Finding> {
    let pods = pods.iter();
    let pods = pods.filter_map(|pod| serde_json::from_value::<Pod>(pod.clone()).ok());
    let meshed: BTreeSet<String> = (pods.filter(Pod::is_meshed))
        .map(|pod| pod.metadata.namespace().to_owned())
        .collect();
    let with_affinity = services.iter().filter_map(|service| {
        let text = |pointer: &str| service.pointer(pointer).and_then(Value::as_str);
        let namespace = text("/metadata/namespace").filter(|it| meshed.contains(*it))?;
        let is_sticky = text("/spec/sessionAffinity") == Some("ClientIP");
        // By a name that leads to its pods, callers choose among them as they would without a mesh.
        let has_address = text("/spec/clusterIP").is_some_and(|ip| ip != "None");
        (is_sticky && has_address)
            .then(|| format!("{namespace}/{}", text("/metadata/name").unwrap_or_default()))
    });
    let names: Vec<String> = with_affinity.collect();
    if names.is_empty() {
        return Vec::new();
    }
    vec![Finding::warning(
        format!(
            "{} Services ask for sessionAffinity: ClientIP, which callers in the mesh do not keep to: {}",
            names.len(),
            named(&names)
        ),
        "say which calls belong together in a ResiliencePolicy (outbound.loadBalancing: {algorithm: ConsistentHash, \
         consistentHash: {attribute: SourceIdentity}}), and take sessionAffinity out",
    )]
}
