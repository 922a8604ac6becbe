//! What is written as `null`, which API servers take for what is not there.

use super::*;

/// Each `null` is in braces that begin with a comma. A chart that had no labels to give was refused.
const NULLS: [&str; 7] = [
    "{apiVersion: v1, kind: Service, metadata: {name: a{, labels: null, annotations: null, ownerReferences: null}},
      spec: {type: ClusterIP{, selector: null, clusterIPs: null, ports: null}}}",
    "{apiVersion: v1, kind: Pod, metadata: {name: a{, labels: ~, annotations: }},
      spec: {initContainers: [{name: b{, ports: null}}], containers: [{name: a{, ports: null}}]},
      status: {phase: Running{, podIPs: null, conditions: null}}}",
    "{apiVersion: v1, kind: Pod, metadata: {name: a}{, spec: {initContainers: null, containers: null}, status: null}}",
    "{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: a{, labels: null}},
      endpoints: [{zone: a{, addresses: null, conditions: null}}]{, ports: null}}",
    "{apiVersion: gateway.networking.k8s.io/v1beta1, kind: ReferenceGrant, metadata: {name: a}{, spec: {from: null, to: null}}}",
    "{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: a{, labels: null}}, spec: {
      parentRefs: [{group: \"\", kind: Service, name: a}]{, hostnames: null},
      rules: [{backendRefs: [{name: b, port: 80{, filters: null}}]{, matches: null, filters: null}},
              {matches: [{method: GET{, headers: null, queryParams: null}}], retry: {attempts: 2{, codes: null}},
               filters: [{type: RequestHeaderModifier, requestHeaderModifier: {remove: [a]{, set: null, add: null}}}],
               backendRefs: [{name: b, port: 80}]}]}}",
    "{apiVersion: weir.dev/v1alpha1, kind: ResiliencePolicy, metadata: {name: a{, labels: null, annotations: null}},
      spec: {targetRefs: [{kind: Service, name: a}], outbound: {deadline: 2s}}}",
];

#[test]
fn what_is_null_is_read_as_what_is_absent() {
    for text in NULLS {
        let (with, without) = with_and_without(text);
        assert_ne!(with, without, "{text}");
        assert_eq!(resources(&with), resources(&without), "{with}");
    }
}

/// There it is somebody who has not finished.
#[test]
fn in_our_own_specs_null_is_a_mistake() {
    for null in [
        "outbound: {deadline: 2s}, routes: null",
        "outbound: null, routes: ",
    ] {
        let policy = on_cart("a", null);
        assert!(parse("test.yaml", &policy).is_err(), "{null}");
    }
    assert!(parse("test.yaml", &on_cart("a", "outbound: {deadline: 2s}")).is_ok());
}

/// `{, ...}` is what is left out in the second.
fn with_and_without(text: &str) -> (String, String) {
    let (mut with, mut without, mut rest) = (String::new(), String::new(), text);
    while let Some((before, after)) = rest.split_once("{,") {
        let mut depth = 1;
        let end = after.find(|sign| {
            depth += i32::from(sign == '{') - i32::from(sign == '}');
            depth == 0
        });
        let (nulls, after) = after.split_at(end.expect("it ends"));
        with.extend([before, ",", nulls]);
        without.push_str(before);
        rest = &after[1..];
    }
    (with + rest, without + rest)
}
