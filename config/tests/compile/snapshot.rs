//! All of it together.

use super::*;

/// What is pushed is read again by sidecars, who refuse what they do not know.
#[test]
fn a_snapshot_survives_json() {
    let index = index(&[
        SHOP,
        include_str!("../good/sketch.yaml"),
        &on_cart(
            "p",
            "outbound: {deadline: Unlimited, fallback: {httpStatus: 503}}, routes: [{match: {http: {path: /a}}, outbound: {}}]",
        ),
    ]);
    let service = compile::service(&index, &cart()).expect("the cart");
    let json = serde_json::to_string(&service).expect("it is written");
    assert_eq!(
        serde_json::from_str::<weir_config::snapshot::Service>(&json).expect("it is read"),
        service
    );
    let workload = compile::workload(&index, &name("cart-0")).expect("the pod");
    let json = serde_json::to_string(&workload).expect("it is written");
    assert_eq!(
        serde_json::from_str::<weir_config::snapshot::Workload>(&json).expect("it is read"),
        workload
    );
}

/// A thousand services with five thousand endpoints in this build, which is not optimised. A wide margin: this is
/// about the shape of the work, not about milliseconds.
#[test]
fn a_large_mesh_compiles_at_once() {
    let mut index = Index::default();
    for number in 0..1000 {
        let endpoints: String = (0..5)
            .map(|pod| {
                let ip = format!("10.{}.{}.{pod}", number / 250, number % 250);
                format!("{{addresses: [{ip}], targetRef: {{kind: Pod, name: s{number}-{pod}}}}}, ")
            })
            .collect();
        let text = format!(
            "{{apiVersion: v1, kind: Service, metadata: {{name: s{number}, namespace: boutique}}, spec: {{clusterIP: 10.96.{}.{}, selector: {{app: s{number}}}, ports: [{{port: 80}}]}}}}\n---\n\
             {{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {{name: s{number}, namespace: boutique}}, endpoints: [{endpoints}], ports: [{{port: 8080}}]}}\n{}",
            number / 250,
            number % 250,
            policy(
                &format!("s{number}"),
                &format!(
                    "{{targetRefs: [{{kind: Service, name: s{number}}}], outbound: {{deadline: 1s}}, routes: [{{match: {{http: {{path: /a}}}}, outbound: {{deadline: 2s}}}}]}}"
                )
            )
        );
        for resource in resources(&text) {
            index.apply(resource);
        }
        for pod in 0..5 {
            let text = format!(
                "{{apiVersion: v1, kind: Pod, metadata: {{name: s{number}-{pod}, namespace: boutique, labels: {{app: s{number}}}}}, spec: {{containers: [{{name: weir-proxy, env: [{{name: WEIR_POD_NAME}}]}}]}}, status: {{podIP: 10.{}.{}.{pod}}}}}",
                number / 250,
                number % 250
            );
            for resource in resources(&text) {
                index.apply(resource);
            }
        }
    }
    let keys: Vec<ServiceKey> = index.service_keys().collect();
    assert_eq!(keys.len(), 1000);
    let started = std::time::SystemTime::now();
    let endpoints: usize = (keys.iter())
        .map(|key| {
            compile::service(&index, key).expect("it is there");
            compile::endpoints(&index, key).len()
        })
        .sum();
    let workloads = index
        .pods()
        .filter_map(|pod| compile::workload(&index, &pod.metadata.object_name()))
        .count();
    let took = started.elapsed().expect("the clock goes on");
    assert_eq!((endpoints, workloads), (5000, 5000));
    assert!(took.as_millis() < 1000, "it took {took:?}");
}
