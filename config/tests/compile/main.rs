//! Resources in an index, and what they compile to.

mod change;
mod endpoints;
mod nulls;
mod outbound;
mod snapshot;
mod workload;

use std::net::SocketAddr;

use weir_config::compile;
use weir_config::index::{Destination, Index};
use weir_config::resource::{Kind, ObjectName, ResiliencePolicy, ResourceRef};
use weir_config::snapshot::{Mode, Protocol, ServiceKey};
use weir_config::{Resource, parse};

/// A meshed cart with two pods, a catalog without a sidecar, an endpoint by name.
const SHOP: &str = r#"
{apiVersion: v1, kind: Service, metadata: {name: cart, namespace: boutique}, spec: {
  clusterIP: 10.96.0.10, clusterIPs: [10.96.0.10, "fd00::10"], selector: {app: cart},
  ports: [{name: grpc, port: 7000, targetPort: api}, {name: metrics, port: 9090, targetPort: 9090},
          {name: dns, port: 53, protocol: UDP}]}}
---
{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, addressType: IPv4,
  metadata: {name: cart-x1, namespace: boutique, labels: {kubernetes.io/service-name: cart}},
  endpoints: [
    {addresses: [10.1.0.7], conditions: {ready: true}, targetRef: {kind: Pod, name: cart-0}, zone: a},
    {addresses: [10.1.0.8], conditions: {ready: true}, targetRef: {kind: Pod, name: cart-1}},
    {addresses: [10.1.0.9], conditions: {ready: false}}],
  ports: [{name: grpc, port: 7070}, {name: metrics, port: 9090}]}
---
{apiVersion: v1, kind: Pod, metadata: {name: cart-0, namespace: boutique, labels: {app: cart, version: v1}},
  spec: {serviceAccountName: cart, initContainers: [{name: weir-proxy, env: [{name: WEIR_POD_NAME}]}],
    containers: [{name: cart, ports: [{name: api, containerPort: 7070}]}]},
  status: {phase: Running, podIP: 10.1.0.7}}
---
{apiVersion: v1, kind: Pod, metadata: {name: cart-1, namespace: boutique, labels: {app: cart}},
  spec: {containers: [{name: cart, ports: [{name: api, containerPort: 7070}]}]},
  status: {phase: Running, podIP: 10.1.0.8, podIPs: [{ip: 10.1.0.8}, {ip: "fd00::8"}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: mail, namespace: boutique}, spec: {
  clusterIP: 10.96.0.11, ports: [{port: 587}]}}
---
{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: mail, namespace: boutique}, addressType: FQDN,
  endpoints: [{addresses: [smtp.example.com]}], ports: [{port: 5587}]}
"#;

fn resources(text: &str) -> Vec<Resource> {
    let located = parse("test.yaml", text).unwrap_or_else(|errors| {
        panic!(
            "{}",
            errors.iter().map(ToString::to_string).collect::<String>()
        );
    });
    located.into_iter().map(|located| located.value).collect()
}

fn index(texts: &[&str]) -> Index {
    let mut index = Index::default();
    for resource in texts.iter().flat_map(|text| resources(text)) {
        index.apply(resource);
    }
    index
}

fn policy(name: &str, spec: &str) -> String {
    format!(
        "---\n{{apiVersion: weir.dev/v1alpha1, kind: ResiliencePolicy, \
         metadata: {{name: {name}, namespace: boutique}}, spec: {spec}}}\n"
    )
}

fn on_cart(name: &str, rest: &str) -> String {
    policy(
        name,
        &format!("{{targetRefs: [{{kind: Service, name: cart}}], {rest}}}"),
    )
}

fn cart() -> ServiceKey {
    ServiceKey {
        namespace: "boutique".to_owned(),
        name: "cart".to_owned(),
        port: 7000,
    }
}

fn name(name: &str) -> ObjectName {
    ObjectName::new("boutique", name)
}

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

fn source(index: &Index, path: &str) -> String {
    let effective = compile::effective(index, &cart()).expect("the cart");
    let (_, source) = (effective.from.iter())
        .find(|(field, _)| field == path)
        .expect(path);
    source.to_string()
}
