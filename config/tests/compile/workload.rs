//! What a pod's own sidecar gets: its ports, their limits, whose calls come first.

use super::*;

#[test]
fn a_workload_knows_its_ports_by_the_services_that_lead_to_them() {
    let index = index(&[
        SHOP,
        &policy(
            "all",
            "{targetRefs: [{kind: Namespace, name: boutique}], inbound: {limits: {queue: 7}}}",
        ),
        &on_cart("cart", "inbound: {limits: {inFlight: 33}}"),
        "{apiVersion: weir.dev/v1alpha1, kind: MeshConfig, metadata: {name: mesh}, \
          spec: {trustDomain: example.org, mtls: Strict, accessLog: Json}}",
    ]);
    let workload = compile::workload(&index, &name("cart-0")).expect("the pod");
    assert_eq!(
        workload.identity,
        "spiffe://example.org/ns/boutique/sa/cart"
    );
    assert_eq!(workload.mtls, weir_config::snapshot::MtlsMode::Strict);
    let ports: Vec<(u16, u16)> = (workload.ports.iter())
        .map(|port| (port.port, port.service.as_ref().map_or(0, |key| key.port)))
        .collect();
    assert_eq!(
        ports,
        [(7070, 7000), (9090, 9090)],
        "a named target port is the container's"
    );
    assert_eq!(workload.ports[0].limits.in_flight.get(), 33);
    assert_eq!(workload.ports[0].limits.queue.get(), 7);
    assert_eq!(workload.ports[0].protocol, Protocol::Http2);
    assert_eq!(
        workload.default_port.limits.in_flight.get(),
        2000,
        "the cart's policy is about the cart's ports"
    );
    assert_eq!(workload.default_port.limits.queue.get(), 7);
    assert_eq!(compile::workload(&index, &name("nobody")), None);
}

#[test]
fn of_two_services_before_one_port_the_one_with_a_policy_speaks() {
    let other = "{apiVersion: v1, kind: Service, metadata: {name: all-carts, namespace: boutique}, \
                 spec: {selector: {app: cart, version: v1}, ports: [{port: 80, targetPort: 7070}]}}";
    let of_port = |index: &Index| {
        let workload = compile::workload(index, &name("cart-0")).expect("the pod");
        let port = workload
            .ports
            .into_iter()
            .find(|port| port.port == 7070)
            .expect("the port");
        port.service.expect("a service").name
    };
    assert_eq!(of_port(&index(&[SHOP, other])), "all-carts", "by name");
    assert_eq!(
        of_port(&index(&[SHOP, other, &on_cart("p", "outbound: {}")])),
        "cart"
    );
    // A limit of one of them was not in force, and its status said that it was.
    let calls = policy(
        "of-all",
        "{targetRefs: [{kind: Service, name: all-carts}], outbound: {deadline: 1s}}",
    );
    let of_port_7000 = policy(
        "limits",
        "{targetRefs: [{kind: Service, name: cart, sectionName: grpc}], inbound: {limits: {inFlight: 33}}}",
    );
    let index_of_both = index(&[SHOP, other, &calls, &of_port_7000]);
    assert_eq!(
        of_port(&index_of_both),
        "cart",
        "it says how it takes calls"
    );
    let other_pod = compile::workload(&index(&[SHOP, other]), &name("cart-1")).expect("the pod");
    let services: Vec<_> = other_pod
        .ports
        .iter()
        .filter_map(|port| port.service.as_ref())
        .map(|key| &key.name)
        .collect();
    assert_eq!(
        services,
        ["cart", "cart"],
        "a selector matches with all of its labels"
    );
}

#[test]
fn the_limiter_observes_until_a_policy_asks_it_to_act_and_a_policy_that_observes_never_does() {
    let cart = |more: &str| {
        let index = index(&[SHOP, &on_cart("cart", more)]);
        let workload = compile::workload(&index, &name("cart-0")).expect("the pod");
        (
            workload.ports[0].limits,
            workload.ports[0].priorities.clone(),
        )
    };
    let (limits, priorities) = cart("inbound: {limits: {inFlight: 33}}");
    assert_eq!(limits.adaptive.mode, Mode::Observe);
    assert_eq!(
        (limits.adaptive.min.get(), limits.adaptive.max.get()),
        (4, 2000)
    );
    assert!(priorities.is_empty());
    let (limits, _) =
        cart("inbound: {concurrency: {adaptive: {max: 50}}, queue: {size: 7, maxWait: 20ms}}");
    assert_eq!(limits.adaptive.mode, Mode::Enforce);
    assert_eq!(limits.adaptive.max.get(), 50);
    assert_eq!(
        (limits.queue.get(), limits.queue_timeout.to_string()),
        (7, "20ms".to_owned())
    );
    let (limits, _) = cart("mode: Observe, inbound: {concurrency: {adaptive: {max: 50}}}");
    assert_eq!(limits.adaptive.mode, Mode::Observe);
}

/// Planted: without the sort a caller above its own limit uses up what is left of everybody's.
#[test]
fn the_limit_of_one_key_is_looked_at_before_that_of_all_wherever_it_is_written() {
    use weir_config::snapshot::RateLimitKey;
    let all = policy(
        "all",
        "{targetRefs: [{kind: Namespace, name: boutique}], inbound: {rateLimit: {requestsPerSecond: 9}}}",
    );
    let own = on_cart(
        "own",
        "inbound: {rateLimits: [{requestsPerSecond: 50}, {requestsPerSecond: 5, burst: 2, per: Header, header: X-Tenant}]}",
    );
    let index = index(&[SHOP, &all, &own]);
    let workload = compile::workload(&index, &name("cart-0")).expect("the pod");
    let said: Vec<_> = (workload.ports[0].rate_limits.iter())
        .map(|limit| {
            (
                limit.per.clone(),
                limit.requests_per_second.get(),
                limit.burst.get(),
            )
        })
        .collect();
    let expected = [
        (RateLimitKey::Header("x-tenant".to_owned()), 5, 2),
        (RateLimitKey::Total, 50, 50),
    ];
    assert_eq!(said, expected);
    let pod = index.pod(&name("cart-0")).expect("the pod");
    let effective = compile::effective_inbound(&index, &cart(), pod).expect("the cart");
    let source = (effective.from.iter()).find(|(field, _)| field == "inbound.rateLimits");
    let (_, source) = source.expect("somebody says so");
    assert_eq!(source.to_string(), "ResiliencePolicy boutique/own");
    let elsewhere = &workload.default_port.rate_limits;
    assert_eq!(elsewhere[0].requests_per_second.get(), 9, "the namespace's");
}

#[test]
fn an_identity_in_a_priority_is_one_of_this_mesh_unless_it_says_otherwise() {
    let rules = "inbound: {priorities: [{match: {identity: ns/boutique/sa/checkout}, tier: Critical}, \
                 {match: {identity: spiffe://other.org/ns/a/sa/b, http: {pathPrefix: /x}}, tier: Sheddable}]}";
    let index = index(&[SHOP, &on_cart("cart", rules)]);
    let workload = compile::workload(&index, &name("cart-0")).expect("the pod");
    let rules = &workload.ports[0].priorities;
    let identities: Vec<_> = rules
        .iter()
        .filter_map(|rule| rule.identity.as_deref())
        .collect();
    assert_eq!(
        identities,
        [
            "spiffe://weir.local/ns/boutique/sa/checkout",
            "spiffe://other.org/ns/a/sa/b"
        ]
    );
    assert!(rules[0].matches.is_none() && rules[1].matches.is_some());
}

/// Kubernetes ignores its selector, which stays behind where a Service is patched to be of that type.
#[test]
fn a_service_of_type_external_name_leads_to_no_pod_whatever_it_selects() {
    let moved = |kind: &str| {
        format!(
            "{{apiVersion: v1, kind: Service, metadata: {{name: a-cart, namespace: boutique}}, \
              spec: {{type: {kind}, externalName: cart.example, selector: {{app: cart}}, ports: [{{port: 7443, targetPort: 7443}}]}}}}"
        )
    };
    let leads = |index: &Index| {
        let workload = compile::workload(index, &name("cart-0")).expect("the pod");
        workload.ports.iter().any(|it| it.port == 7443)
    };
    let mut index = index(&[SHOP, &moved("ClusterIP")]);
    assert!(leads(&index));
    let touched = index.apply(resources(&moved("ExternalName")).remove(0));
    assert!(touched.addresses.contains(&name("a-cart")), "{touched:?}");
    assert!(!leads(&index));
}

/// As of an operator that keeps the slices of its primary itself: what was said of who may call such a Service held nowhere,
/// for its pods were looked for by a selector alone.
#[test]
fn a_service_without_a_selector_leads_to_the_pods_that_its_slices_list() {
    let primary = "{apiVersion: v1, kind: Service, metadata: {name: primary, namespace: boutique}, \
                    spec: {clusterIP: 10.96.0.12, ports: [{name: sql, port: 5432, targetPort: 1}]}}";
    let slice = |endpoint: &str| {
        format!(
            "{{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {{name: primary, namespace: boutique}}, \
             endpoints: [{{addresses: [10.1.0.7]{endpoint}}}], ports: [{{name: sql, port: 6543}}]}}"
        )
    };
    let denies = "{apiVersion: weir.dev/v1alpha1, kind: AuthorizationPolicy, metadata: {name: away, namespace: boutique}, \
                   spec: {targetRefs: [{kind: Service, name: primary}], action: Deny, rules: [{from: [{namespace: away}]}]}}";
    let denied = |index: &Index, pod: &str| {
        let workload = compile::workload(index, &name(pod)).expect("the pod");
        let mut ports = workload.ports.into_iter();
        let port = ports.find(|it| it.port == 6543)?;
        Some((port.service?.name, port.authorization?.enforced.deny.len()))
    };
    let held = Some(("primary".to_owned(), 1));
    let mut index = index(&[SHOP, primary, denies]);
    assert_eq!(denied(&index, "cart-0"), None);
    for (endpoint, whose) in [
        (", targetRef: {kind: Pod, name: cart-0}", "cart-0"),
        (", targetRef: {kind: Pod, name: cart-1}", "cart-1"),
        ("", "cart-0"),
    ] {
        let touched = index.apply(resources(&slice(endpoint)).remove(0));
        assert!(touched.pods.contains(&name(whose)), "{touched:?}");
        for pod in ["cart-0", "cart-1"] {
            let expected = held.clone().filter(|_| pod == whose);
            assert_eq!(denied(&index, pod), expected, "{pod} of {endpoint}");
        }
    }
    let elsewhere = resources(&slice("").replace("namespace: boutique", "namespace: away"));
    let of_others = resources(&primary.replace("namespace: boutique", "namespace: away"));
    for resource in elsewhere.into_iter().chain(of_others) {
        index.apply(resource);
    }
    let workload = compile::workload(&index, &name("cart-0")).expect("the pod");
    let services = workload.ports.into_iter().filter_map(|it| it.service);
    let mut namespaces = services.map(|it| it.namespace);
    assert!(
        namespaces.all(|it| it == "boutique"),
        "nobody says anything of others' pods"
    );
}
