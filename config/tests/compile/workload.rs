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
    let effective = compile::effective_inbound(&index, &cart()).expect("the cart");
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
