//! What a route is attached to, and what it may send calls to.

use weir_config::compile;
use weir_config::index::{Index, OpaqueBy, Parent, Unresolved};
use weir_config::parse;
use weir_config::resource::{GatewayRoute, NoAddress, ObjectName};
use weir_config::snapshot::{RuleMatch, ServiceKey};

use super::*;

#[test]
fn routes_of_the_own_namespace_are_for_all_and_those_of_another_for_its_own_callers() {
    let to_next = "[{backendRefs: [{name: next, port: 80}]}]";
    let to_far = "[{backendRefs: [{name: far, port: 80}]}]";
    let yaml = format!(
        "{SERVICES}{}{}",
        route("produced", "boutique", "2026-01-01T00:00:00Z", to_next),
        route("consumed", "canary", "2026-01-01T00:00:00Z", to_far),
    );
    let index = index(&yaml);
    let routing = routing(&index);
    let whose: Vec<Option<&str>> = routing.iter().map(|it| it.callers.as_deref()).collect();
    assert_eq!(whose, [None, Some("canary")]);
    assert_eq!(
        routing[1].rules[0].name,
        "HTTPRoute canary/consumed rules[0]"
    );
    let service = compile::service(&index, &cart(80)).expect("it is there");
    let backends: Vec<String> = service.backends().map(ToString::to_string).collect();
    assert_eq!(backends, ["boutique/next:80", "canary/far:80"]);
    let opaque = compile::service(&index, &cart(90)).expect("it is there");
    assert!(opaque.routing.is_empty(), "nobody looks for calls there");
}

#[test]
fn a_backend_elsewhere_needs_a_grant_and_one_that_is_not_there_is_known_as_such() {
    let rules = "[{backendRefs: [{name: far, namespace: canary, port: 80}, {name: gone, port: 80}, {name: next, port: 81}, {kind: Bucket, name: b, port: 80}, {name: next, port: 80, weight: 0}]}]";
    let route = route("cart", "boutique", "2026-01-01T00:00:00Z", rules);
    let grant = "
apiVersion: gateway.networking.k8s.io/v1beta1
kind: ReferenceGrant
metadata: {name: boutique, namespace: canary}
spec:
  from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: boutique}]
  to: [{group: \"\", kind: Service, name: far}]
";
    let fares = |index: &Index| {
        let route = index.http_route(&ObjectName::new("boutique", "cart"));
        let route = route.expect("it is there").clone();
        let resolved =
            (route.backend_refs().into_iter()).map(|it| index.resolve(&*route, None, it).err());
        resolved.collect::<Vec<_>>()
    };
    let mut index = index(&format!("{SERVICES}{route}"));
    let (unknown, kind) = (Unresolved::BackendNotFound, Unresolved::InvalidKind);
    let expected = [Some(unknown), Some(unknown), Some(kind), None];
    assert_eq!(fares(&index)[0], Some(Unresolved::RefNotPermitted));
    assert_eq!(fares(&index)[1..], expected);
    let before = &routing(&index)[0].rules[0].backends;
    assert_eq!(before[0].to, None);
    let granted = parse("grant.yaml", grant).expect("a grant").remove(0).value;
    let promoted = grant.replace("/v1beta1", "/v1");
    let promoted = parse("grant.yaml", &promoted).expect("a grant").remove(0);
    assert_eq!(promoted.value, granted, "as Gateway API 1.5 writes it");
    let unknown = parse("grant.yaml", &grant.replace("/v1beta1", "/v1alpha2"));
    let unknown = unknown.expect_err("nobody reads it");
    assert_eq!(unknown[0].path, "apiVersion", "{unknown:?}");
    let touched = index.apply(granted.clone());
    assert!(
        touched
            .services
            .contains(&ObjectName::new("boutique", "cart"))
    );
    assert_eq!(fares(&index)[0], None);
    assert!(routing(&index)[0].rules[0].backends[0].to.is_some());
    let touched = index.delete(&granted.reference());
    assert!(
        touched
            .services
            .contains(&ObjectName::new("boutique", "cart"))
    );
    let service = index.service(&ObjectName::new("boutique", "next")).cloned();
    let service = weir_config::Resource::Service((*service.expect("it is there")).clone());
    let touched = index.delete(&service.reference());
    assert!(
        touched
            .services
            .contains(&ObjectName::new("boutique", "cart"))
    );
    assert!(
        routing(&index)[0].rules[0]
            .backends
            .iter()
            .all(|it| it.to.is_none())
    );
}

#[test]
fn a_parent_that_is_not_there_is_told_from_one_that_is() {
    let with = |parent: &str| {
        let yaml = format!(
            "{SERVICES}
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: it, namespace: boutique}}
spec:
  parentRefs: [{{group: \"\", kind: Service, {parent}}}]
  rules: [{{backendRefs: [{{name: next, port: 80}}]}}]
"
        );
        let index = index(&yaml);
        let route = index.http_route(&ObjectName::new("boutique", "it"));
        let fares = index.parents(&**route.expect("it is there"))[0].1;
        (fares, routing(&index).len())
    };
    assert_eq!(with("name: cart"), (Parent::Accepted, 1));
    assert_eq!(with("name: cart, port: 80"), (Parent::Accepted, 1));
    assert_eq!(with("name: cart, sectionName: http"), (Parent::Accepted, 1));
    let bytes = Parent::Opaque(OpaqueBy::Service);
    assert_eq!(with("name: cart, port: 90"), (bytes, 0));
    assert_eq!(with("name: cart, port: 81"), (Parent::NoMatchingParent, 0));
    assert_eq!(with("name: trolley"), (Parent::NoMatchingParent, 0));
}

/// They were accepted, and no call ever met them: whoever calls such a Service dials a pod, or a host outside.
#[test]
fn a_route_of_a_service_that_nobody_calls_by_its_address_is_not_accepted() {
    let parent = |spec: &str| {
        let services = SERVICES.replace("clusterIP: 10.0.0.1", spec);
        let rules = "[{backendRefs: [{name: next, port: 80}]}]";
        let yaml = route("it", "boutique", "2026-01-01T00:00:00Z", rules);
        let index = index(&format!("{services}{yaml}"));
        let route = index.http_route(&ObjectName::new("boutique", "it"));
        index.parents(&**route.expect("it is there"))[0].1
    };
    assert_eq!(parent("clusterIP: 10.0.0.1"), Parent::Accepted);
    let headless = Parent::NoAddress(NoAddress::Headless);
    assert_eq!(parent("clusterIP: None"), headless);
    let outside = Parent::NoAddress(NoAddress::ExternalName);
    assert_eq!(
        parent("type: ExternalName, externalName: x.example"),
        outside
    );
}

/// It was accepted, and no call ever met it: where bytes pass nobody looks for calls.
#[test]
fn a_route_of_an_opaque_port_is_not_accepted() {
    let with = |port: &str, pods: &str| {
        let services = SERVICES.replacen("{name: http, port: 80}", port, 1);
        let rules = "[{backendRefs: [{name: next, port: 80}]}]";
        let yaml = route("it", "boutique", "2026-01-01T00:00:00Z", rules);
        let index = index(&format!("{services}{yaml}{pods}"));
        let route = index.http_route(&ObjectName::new("boutique", "it"));
        let fares = index.parents(&**route.expect("it is there"))[0].1;
        (fares, routing(&index).len())
    };
    let pods = |annotation: &str| {
        format!(
            "---
apiVersion: v1
kind: Pod
metadata: {{name: cart-0, namespace: boutique, annotations: {{config.weir.dev/opaque-ports: \"{annotation}\"}}}}
spec: {{containers: [{{name: cart}}]}}
status: {{podIP: 10.1.0.1, phase: Running}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: cart-x, namespace: boutique, labels: {{kubernetes.io/service-name: cart}}}}
addressType: IPv4
ports: [{{name: http, port: 7070}}]
endpoints: [{{addresses: [10.1.0.1], targetRef: {{kind: Pod, name: cart-0, namespace: boutique}}}}]
"
        )
    };
    // It is attached to tcp-raw, too, and obeyed where there are calls.
    let http = "{name: http, port: 80}";
    assert_eq!(with(http, &pods("9000")), (Parent::Accepted, 1));
    let by_pods = Parent::Opaque(OpaqueBy::Pods);
    assert_eq!(with(http, &pods("7070")), (by_pods, 0));
    let by_service = Parent::Opaque(OpaqueBy::Service);
    for port in [
        "{name: http, port: 80, appProtocol: tcp}",
        "{name: tcp, port: 80}",
        "{port: 80, targetPort: 6379}",
    ] {
        assert_eq!(with(port, ""), (by_service, 0), "{port}");
    }
}

/// A headless one has endpoints; what another name leads to is not asked, whatever a ReferenceGrant says.
#[test]
fn a_backend_may_be_headless_and_no_other_name() {
    let backend = |spec: &str| {
        let services = SERVICES.replace("clusterIP: 10.0.0.2", spec);
        let rules = "[{backendRefs: [{name: next, port: 80}]}]";
        let yaml = route("it", "boutique", "2026-01-01T00:00:00Z", rules);
        let index = index(&format!("{services}{yaml}"));
        let route = index.http_route(&ObjectName::new("boutique", "it"));
        let route = route.expect("it is there").clone();
        let resolved = index.resolve(&*route, None, route.backend_refs()[0]);
        let sent = routing(&index)[0].rules[0].backends[0].to.is_some();
        (resolved.err(), sent)
    };
    assert_eq!(backend("clusterIP: None"), (None, true));
    let external = "type: ExternalName, externalName: x.example";
    assert_eq!(backend(external), (Some(Unresolved::ExternalName), false));
}

#[test]
fn the_33rd_route_of_a_namespace_has_no_place() {
    let mut yaml = SERVICES.to_owned();
    for number in 0..33 {
        let created = format!("2026-01-01T00:00:{number:02}Z");
        let rules = "[{backendRefs: [{name: next, port: 80}]}]";
        yaml += &route(&format!("r{number}"), "boutique", &created, rules);
    }
    let index = index(&yaml);
    assert_eq!(routing(&index)[0].rules.len(), 32);
    let last = index.http_route(&ObjectName::new("boutique", "r32"));
    let last = last.expect("it is there");
    assert_eq!(index.parents(&**last)[0].1, Parent::TooMany);
}

/// They were compiled, and each sidecar refused the whole Service for them.
#[test]
fn a_route_whose_patterns_do_not_fit_beside_those_of_older_ones_has_no_place() {
    let patterns = |count: usize| {
        let one = "{path: {type: RegularExpression, value: /a}, headers: [{type: RegularExpression, name: b, value: c}]}";
        let rule = |matches: usize| {
            let matches = vec![one; matches].join(", ");
            format!("{{matches: [{matches}], backendRefs: [{{name: next, port: 80}}]}}")
        };
        let mut rules = vec![rule(50); count / 100];
        rules.push(rule(count % 100 / 2));
        format!("[{}]", rules.join(", "))
    };
    let on = |second: u8| format!("2026-01-01T00:00:0{second}Z");
    let mut yaml = SERVICES.to_owned();
    for (second, count) in [(0, 200), (1, 58), (2, 56), (3, 2)] {
        yaml += &route(
            &format!("r{second}"),
            "boutique",
            &on(second),
            &patterns(count),
        );
    }
    yaml += &route("r4", "elsewhere", &on(4), &patterns(200));
    for (second, count) in [(0, 200), (1, 58)] {
        let one = "{method: {type: RegularExpression, service: a, method: b}}";
        let rule = |matches: usize| format!("{{matches: [{}]}}", vec![one; matches].join(", "));
        let rules = [rule(count / 4), rule(count / 2 - count / 4)].join(", ");
        yaml += &format!(
            "---\n{{apiVersion: gateway.networking.k8s.io/v1, kind: GRPCRoute,
              metadata: {{name: g{second}, namespace: rpc, creationTimestamp: {:?}}},
              spec: {{parentRefs: [{{group: \"\", kind: Service, name: cart, namespace: boutique}}], rules: [{rules}]}}}}\n",
            on(second)
        );
    }
    let index = index(&yaml);
    for routing in routing(&index) {
        let held: usize = routing.matches.iter().map(RuleMatch::patterns).sum();
        let all = if routing.callers.is_none() { 256 } else { 200 };
        assert_eq!(held, all, "{:?}", routing.callers);
    }
    let fares = |namespace: &str, name: &str| {
        let route = index.http_route(&ObjectName::new(namespace, name));
        index.parents(&**route.expect("it is there"))[0].1
    };
    let told = ["r0", "r1", "r2", "r3"].map(|name| fares("boutique", name));
    let (fits, beyond) = (Parent::Accepted, Parent::TooManyPatterns);
    assert_eq!(told, [fits, beyond, fits, beyond]);
    assert_eq!(fares("elsewhere", "r4"), fits, "its callers meet no other");
    let told = ["g0", "g1"].map(|name| {
        let grpc = index.grpc_route(&ObjectName::new("rpc", name));
        index.parents(&**grpc.expect("it is there"))[0].1
    });
    assert_eq!(told, [fits, beyond]);
}

/// Both were obeyed, as if they were one: GEP-1294 has the GRPCRoutes only, whatever their age.
#[test]
fn on_a_port_with_grpc_routes_the_http_routes_of_their_namespace_are_not_obeyed() {
    let http = |name: &str, namespace: &str| {
        route(
            name,
            namespace,
            "2025-01-01T00:00:00Z",
            "[{backendRefs: [{name: next, namespace: boutique, port: 80}]}]",
        )
    };
    let kinds = |yaml: &str| {
        let index = index(&format!("{SERVICES}{yaml}"));
        let fares = |namespace: &str, name: &str| {
            let route = index.http_route(&ObjectName::new(namespace, name));
            route.map(|route| index.parents(&**route)[0].1)
        };
        let fares = (fares("boutique", "http"), fares("canary", "http"));
        let names = routing(&index).into_iter();
        let names = names.map(|it| {
            order(&it)
                .into_iter()
                .map(|(name, _)| name)
                .collect::<Vec<_>>()
        });
        (fares, names.collect::<Vec<_>>())
    };
    let produced = http("http", "boutique");
    let rule = |kind: &str, name: &str| format!("{kind} {name} rules[0]");
    let (own, grpc) = (
        rule("HTTPRoute", "boutique/http"),
        rule("GRPCRoute", "boutique/grpc"),
    );
    assert_eq!(
        kinds(&produced),
        ((Some(Parent::Accepted), None), vec![vec![own]])
    );

    let both = produced.clone()
        + &grpc_route(
            "grpc",
            "boutique",
            "[{backendRefs: [{name: next, port: 80}]}]",
        );
    let conflicted = Some(Parent::Conflicted);
    assert_eq!(kinds(&both), ((conflicted, None), vec![vec![grpc.clone()]]));

    // On its other port, where there is no GRPCRoute, it is obeyed.
    let more = "{apiVersion: v1, kind: Service, metadata: {name: cart, namespace: boutique},
      spec: {clusterIP: 10.0.0.1, ports: [{name: http, port: 80}, {name: web, port: 81}]}}";
    let mut index_of_both = index(&format!("{SERVICES}{both}"));
    let more = parse("more.yaml", more).expect("a Service").remove(0).value;
    index_of_both.apply(more);
    let partly = index_of_both.http_route(&ObjectName::new("boutique", "http"));
    let partly = index_of_both.parents(&**partly.expect("it is there"))[0].1;
    assert_eq!(partly, Parent::PartlyConflicted);
    let web = compile::service(&index_of_both, &cart(81)).expect("it is there");
    assert_eq!(
        web.routing[0].rules[0].name,
        "HTTPRoute boutique/http rules[0]"
    );

    // Whose callers meet none of the others are in nobody's way.
    let consumed = both + &http("http", "canary");
    let of_canary = vec![rule("HTTPRoute", "canary/http")];
    assert_eq!(
        kinds(&consumed),
        (
            (conflicted, Some(Parent::Accepted)),
            vec![vec![grpc], of_canary]
        )
    );
}

/// Beside the shop as it is.
#[test]
fn the_canary_of_the_shop_is_in_order() {
    let shop = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../demo-boutique");
    let text = |file: &str| std::fs::read_to_string(shop.join(file)).expect("a file of the shop");
    let (catalog, canary) = (text("k8s/catalog.yaml"), text("routes/catalog-canary.yaml"));
    let index = index(&format!("{catalog}\n---\n{canary}"));
    let route = index.grpc_route(&ObjectName::new("boutique", "catalog"));
    let route = route.expect("it is there");
    assert_eq!(index.parents(&**route)[0].1, Parent::Accepted);
    for backend in route.backend_refs() {
        assert!(index.resolve(&**route, None, backend).is_ok());
    }
    let key = ServiceKey {
        namespace: "boutique".into(),
        name: "catalog".into(),
        port: 3550,
    };
    let routing = compile::service(&index, &key).expect("it is there").routing;
    assert_eq!(routing[0].matches[0].headers[0].name, "x-canary");
    let weights = routing[0].rules[1].backends.iter().map(|it| it.weight);
    assert_eq!(weights.collect::<Vec<_>>(), [90, 10]);
}

/// It was answered 500: the conformance tests of the standard (MeshConsumerRoute) have such a route and no grant.
#[test]
fn a_consumers_route_may_send_calls_to_its_own_parent_without_a_grant() {
    let rules = "[{backendRefs: [{name: cart, namespace: boutique, port: 80}, {name: cart, namespace: boutique, port: 90},
                  {name: next, namespace: boutique, port: 80}]}]";
    let yaml = route("r", "canary", "2026-01-01T00:00:00Z", rules);
    let index = index(&format!("{SERVICES}{yaml}"));
    let route = index.http_route(&ObjectName::new("canary", "r"));
    let route = route.expect("it is there");
    let parent = ObjectName::new("boutique", "cart");
    let resolve = |it| index.resolve(&**route, Some(&parent), it);
    let resolved = route.backend_refs().into_iter().map(resolve);
    assert_eq!(
        resolved.collect::<Vec<_>>(),
        [Ok(cart(80)), Ok(cart(90)), Err(Unresolved::RefNotPermitted)]
    );
    let routing = routing(&index);
    let backends: Vec<_> = routing[0].rules[0]
        .backends
        .iter()
        .map(|it| it.to.clone())
        .collect();
    assert_eq!(backends, [Some(cart(80)), Some(cart(90)), None]);
}

/// It was enough to name the Service as a second parent, and calls to the first one went there without leave.
#[test]
fn what_one_parent_is_called_anyway_is_no_leave_for_the_callers_of_another() {
    let yaml = format!(
        "{SERVICES}
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: r, namespace: canary}}
spec:
  parentRefs:
  - {{group: '', kind: Service, name: far}}
  - {{group: '', kind: Service, name: cart, namespace: boutique}}
  rules: [{{backendRefs: [{{name: cart, namespace: boutique, port: 80}}]}}]
"
    );
    let index = index(&yaml);
    let sent = |key: &ServiceKey| {
        let service = compile::service(&index, key).expect("it is there");
        service.routing[0].rules[0].backends[0].to.clone()
    };
    let far = ServiceKey {
        namespace: "canary".into(),
        name: "far".into(),
        port: 80,
    };
    assert_eq!(sent(&far), None);
    assert_eq!(sent(&cart(80)), Some(cart(80)));
}
