//! Routes of the Gateway API, compiled.

mod attachment;
mod matches;

use weir_config::compile;
use weir_config::index::Index;
use weir_config::parse;
use weir_config::snapshot::{PathCondition, Routing, ServiceKey};

const SERVICES: &str = "
apiVersion: v1
kind: Service
metadata: {name: cart, namespace: boutique}
spec: {clusterIP: 10.0.0.1, ports: [{name: http, port: 80}, {name: tcp-raw, port: 90}]}
---
apiVersion: v1
kind: Service
metadata: {name: next, namespace: boutique}
spec: {clusterIP: 10.0.0.2, ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: far, namespace: canary}
spec: {clusterIP: 10.0.0.3, ports: [{name: http, port: 80}]}
---
";

fn index(yaml: &str) -> Index {
    let mut index = Index::default();
    for located in parse("mesh.yaml", yaml).unwrap_or_else(|errors| panic!("{errors:#?}")) {
        index.apply(located.value);
    }
    index
}

fn cart(port: u16) -> ServiceKey {
    ServiceKey {
        namespace: "boutique".into(),
        name: "cart".into(),
        port,
    }
}

/// On cart, in a namespace, with these rules as YAML of one line.
fn route(name: &str, namespace: &str, created: &str, rules: &str) -> String {
    format!(
        "
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: {name}, namespace: {namespace}, creationTimestamp: \"{created}\"}}
spec:
  parentRefs: [{{group: \"\", kind: Service, name: cart, namespace: boutique}}]
  rules: {rules}
---
"
    )
}

fn routing(index: &Index) -> Vec<Routing> {
    let service = compile::service(index, &cart(80));
    service.expect("there is such a port").routing
}

/// Of each match in the order in which they are tried: the rule's name and the path.
fn order(routing: &Routing) -> Vec<(String, PathCondition)> {
    let matches = routing.matches.iter();
    let told = matches.map(|it| (routing.rules[it.rule].name.clone(), it.path.clone()));
    told.collect()
}

/// On the http port of cart, with these rules as YAML of one line.
fn grpc_route(name: &str, namespace: &str, rules: &str) -> String {
    format!(
        "{{apiVersion: gateway.networking.k8s.io/v1, kind: GRPCRoute, metadata: {{name: {name}, namespace: {namespace}}},
  spec: {{parentRefs: [{{group: '', kind: Service, name: cart, namespace: boutique, port: 80}}], rules: {rules}}}}}
---
"
    )
}
