//! Resources in an index, and what they compile to.

use std::net::SocketAddr;

use weir_config::compile::{self, Host};
use weir_config::index::{Attachment, Destination, Index, Target};
use weir_config::resource::{ObjectName, ResiliencePolicy};
use weir_config::snapshot::{HashBy, Mode, PathMatch, Protocol, RouteMatch, ServiceKey};
use weir_config::{Kind, Resource, ResourceRef, parse};

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
  spec: {serviceAccountName: cart, initContainers: [{name: weir-proxy}],
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

#[test]
fn an_address_means_a_service_port_a_pod_or_nothing_of_ours() {
    let index = index(&[SHOP]);
    for ip in ["10.96.0.10:7000", "[fd00::10]:7000"] {
        let Destination::Service(key) = index.destination(address(ip)) else {
            panic!("{ip} is the cart")
        };
        assert_eq!(key, cart());
    }
    let Destination::Pod(pod) = index.destination(address("[fd00::8]:1234")) else {
        panic!("a pod has this")
    };
    assert_eq!(pod.metadata.name, "cart-1");
    for ip in ["10.96.0.10:7001", "10.96.0.10:53", "192.0.2.1:80"] {
        assert!(
            matches!(index.destination(address(ip)), Destination::Outside),
            "{ip}"
        );
    }
}

#[test]
fn endpoints_know_who_they_are_and_whether_they_leave() {
    let mut index = index(&[SHOP]);
    let endpoints = compile::endpoints(&index, &cart());
    assert_eq!(
        endpoints.len(),
        2,
        "one of three is not ready: {endpoints:?}"
    );
    assert_eq!(
        endpoints[0].host,
        Host::Ip("10.1.0.7".parse().expect("an ip"))
    );
    assert_eq!(
        endpoints[0].port, 7070,
        "what the slice says of the port's name"
    );
    assert_eq!(
        endpoints[0].identity.as_deref(),
        Some("spiffe://weir.local/ns/boutique/sa/cart")
    );
    assert_eq!(endpoints[0].zone.as_deref(), Some("a"));
    assert_eq!(endpoints[1].identity, None, "no sidecar, nothing to prove");
    assert!(endpoints.iter().all(|endpoint| !endpoint.draining));

    let mut leaving = index
        .pod(&name("cart-0"))
        .expect("the pod")
        .as_ref()
        .clone();
    leaving.metadata.deletion_timestamp = Some("2026-11-01T00:00:00Z".to_owned());
    let touched = index.apply(Resource::Pod(leaving));
    assert!(touched.services.contains(&name("cart")), "{touched:?}");
    assert!(compile::endpoints(&index, &cart())[0].draining);
}

#[test]
fn an_endpoint_that_terminates_serves_until_it_says_otherwise() {
    for (conditions, expected) in [
        ("{}", Some(false)),
        ("{ready: true}", Some(false)),
        ("{ready: false}", None),
        (
            "{ready: false, serving: true, terminating: true}",
            Some(true),
        ),
        ("{ready: false, serving: false, terminating: true}", None),
        ("{ready: false, terminating: true}", None),
    ] {
        let index = index(&[
            "{apiVersion: v1, kind: Service, metadata: {name: cart, namespace: boutique}, spec: {ports: [{port: 7000}]}}",
            &format!(
                "{{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {{name: cart, namespace: boutique}}, \
                 endpoints: [{{addresses: [10.1.0.7], conditions: {conditions}}}], ports: [{{port: 1}}]}}"
            ),
        ]);
        let draining = compile::endpoints(&index, &cart())
            .first()
            .map(|endpoint| endpoint.draining);
        assert_eq!(draining, expected, "{conditions}");
    }
}

#[test]
fn endpoints_may_be_names() {
    let index = index(&[SHOP]);
    let mail = ServiceKey {
        name: "mail".to_owned(),
        port: 587,
        ..cart()
    };
    let endpoints = compile::endpoints(&index, &mail);
    assert_eq!(endpoints[0].host, Host::Name("smtp.example.com".to_owned()));
    assert_eq!(endpoints[0].port, 5587);
    let service = compile::service(&index, &mail).expect("it is there");
    assert_eq!(
        service.protocol,
        Protocol::Opaque,
        "the server speaks first"
    );
}

#[test]
fn a_service_without_any_policy_gets_the_defaults() {
    let service = compile::service(&index(&[SHOP]), &cart()).expect("the cart");
    assert_eq!(service.outbound, weir_config::snapshot::Outbound::default());
    assert_eq!(
        (service.protocol, service.mode),
        (Protocol::Http2, Mode::Enforce)
    );
    assert!(service.routes.is_empty());
    assert_eq!(
        compile::service(&index(&[SHOP]), &ServiceKey { port: 53, ..cart() }),
        None,
        "UDP is not ours"
    );
}

#[test]
fn the_more_specific_wins_field_by_field() {
    let mut texts = vec![SHOP.to_owned()];
    let expect = |index: &Index, deadline: &str, from: &str| {
        let service = compile::service(index, &cart()).expect("the cart");
        assert_eq!(
            service
                .outbound
                .deadline
                .map(|it| it.to_string())
                .as_deref(),
            Some(deadline)
        );
        assert_eq!(source(index, "outbound.deadline"), from);
    };
    let build = |texts: &[String]| index(&texts.iter().map(String::as_str).collect::<Vec<_>>());
    expect(&build(&texts), "15s", "default");

    texts.push(
        "{apiVersion: weir.dev/v1alpha1, kind: MeshConfig, metadata: {name: mesh}, \
         spec: {defaults: {deadline: 9s, retries: {attempts: 4}}}}"
            .to_owned(),
    );
    expect(&build(&texts), "9s", "MeshConfig mesh");

    texts.push(policy(
        "all",
        "{targetRefs: [{kind: Namespace, name: boutique}], outbound: {deadline: 8s}}",
    ));
    expect(&build(&texts), "8s", "ResiliencePolicy boutique/all");

    texts.push(on_cart(
        "cart",
        "outbound: {deadline: 7s, limits: {inFlight: 7}}",
    ));
    expect(&build(&texts), "7s", "ResiliencePolicy boutique/cart");

    texts.push(policy(
        "port",
        "{targetRefs: [{kind: Service, name: cart, sectionName: grpc}], outbound: {deadline: 6s}}",
    ));
    let index = build(&texts);
    expect(&index, "6s", "ResiliencePolicy boutique/port");

    let service = compile::service(&index, &cart()).expect("the cart");
    assert_eq!(
        service.outbound.limits.in_flight.get(),
        7,
        "what the port does not say, the service says"
    );
    assert_eq!(
        source(&index, "outbound.limits.inFlight"),
        "ResiliencePolicy boutique/cart"
    );
    assert_eq!(
        service.outbound.retries.attempts.get(),
        4,
        "and then the mesh"
    );
    assert_eq!(source(&index, "outbound.limits.queue"), "default");
    let metrics = compile::service(
        &index,
        &ServiceKey {
            port: 9090,
            ..cart()
        },
    )
    .expect("the other port");
    assert_eq!(
        metrics
            .outbound
            .deadline
            .map(|it| it.to_string())
            .as_deref(),
        Some("7s"),
        "another port, no section"
    );
}

#[test]
fn a_route_is_laid_over_what_holds_for_all_calls() {
    let index = index(&[
        SHOP,
        &policy(
            "all",
            "{targetRefs: [{kind: Namespace, name: boutique}], routes: [
              {match: {http: {path: /health}}, outbound: {deadline: 100ms}},
              {match: {grpc: {service: boutique.v1.Cart, method: Add}}, idempotent: true, outbound: {deadline: 4s, retries: {attempts: 5}}}]}",
        ),
        &on_cart(
            "cart",
            "outbound: {deadline: 3s, circuitBreaker: {window: 20s}, fallback: {grpcStatus: ResourceExhausted}}, routes: [
              {match: {http: {pathPrefix: /}}, outbound: {deadline: 1s}},
              {match: {http: {method: GET, pathPrefix: /quotes/}}, outbound: {fallback: {httpStatus: 204, message: none}}},
              {match: {http: {pathPrefix: /quotes}}, idempotent: false},
              {match: {grpc: {service: boutique.v1.Cart}}, outbound: {deadline: Unlimited}},
              {match: {grpc: {service: boutique.v1.Cart, method: Add}}, outbound: {deadline: 2s, circuitBreaker: {openFor: 9s}}}]",
        ),
    ]);
    let service = compile::service(&index, &cart()).expect("the cart");
    let names: Vec<&str> = service
        .routes
        .iter()
        .map(|route| route.name.as_str())
        .collect();
    assert_eq!(
        names,
        [
            "boutique.v1.Cart/Add",
            "boutique.v1.Cart/*",
            "/health",
            "GET /quotes/*",
            "/quotes/*",
            "/*"
        ],
        "most specific first"
    );
    let add = &service.routes[0];
    assert_eq!(
        add.outbound.deadline.map(|it| it.to_string()).as_deref(),
        Some("2s"),
        "the service's route over the namespace's"
    );
    assert_eq!(
        add.outbound.retries.attempts.get(),
        5,
        "and the namespace's route over defaults"
    );
    assert!(add.idempotent);
    assert_eq!(
        source(&index, "routes[0].outbound.deadline"),
        "ResiliencePolicy boutique/cart routes[4]"
    );
    assert_eq!(
        source(&index, "routes[0].outbound.retries.attempts"),
        "ResiliencePolicy boutique/all routes[1]"
    );
    assert_eq!(
        source(&index, "routes[0].outbound.circuitBreaker.window"),
        "ResiliencePolicy boutique/cart"
    );
    let breaker = add.outbound.breaker.expect("the policy has one");
    assert_eq!(
        (breaker.window.to_string(), breaker.open_for.to_string()),
        ("20s".to_owned(), "9s".to_owned())
    );

    assert_eq!(service.routes[1].outbound.deadline, None, "Unlimited");
    let quotes = service.routes[3]
        .outbound
        .fallback
        .as_ref()
        .and_then(|fallback| fallback.answer.as_ref())
        .expect("its own");
    assert_eq!(
        (
            quotes.http_status,
            quotes.grpc_status,
            quotes.message.as_str()
        ),
        (204, 14, "none")
    );
    assert_eq!(
        service.routes[3].matches,
        RouteMatch::Http {
            method: Some("GET".to_owned()),
            path: PathMatch::Prefix("/quotes".to_owned())
        }
    );
    let busy = service.outbound.fallback.as_ref().expect("the policy's");
    let busy = busy.answer.as_ref().expect("the policy's");
    assert_eq!(
        (busy.grpc_status, busy.http_status),
        (8, 429),
        "the other sort of caller gets what means the same"
    );
    assert_eq!(
        service.routes[2]
            .outbound
            .deadline
            .map(|it| it.to_string())
            .as_deref(),
        Some("100ms")
    );
}

#[test]
fn of_two_policies_on_one_target_the_oldest_wins_and_the_other_is_told() {
    let older = |text: &str| {
        text.replacen(
            "namespace: boutique",
            "namespace: boutique, creationTimestamp: \"2026-01-01T00:00:00Z\"",
            1,
        )
    };
    let newer = |text: &str| {
        text.replacen(
            "namespace: boutique",
            "namespace: boutique, creationTimestamp: \"2026-02-01T00:00:00Z\"",
            1,
        )
    };
    let (a, b, z) = (
        on_cart("a", "outbound: {deadline: 1s}"),
        on_cart("b", "outbound: {deadline: 2s}"),
        on_cart("z", "outbound: {deadline: 3s}"),
    );
    let deadline = |index: &Index| {
        compile::service(index, &cart())
            .expect("it")
            .outbound
            .deadline
            .map(|it| it.to_string())
    };

    let by_name = index(&[SHOP, &b, &a]);
    assert_eq!(
        deadline(&by_name).as_deref(),
        Some("1s"),
        "without an age, by name"
    );
    let by_age = index(&[SHOP, &newer(&a), &older(&z), &b]);
    assert_eq!(
        deadline(&by_age).as_deref(),
        Some("3s"),
        "the oldest; what has no age is younger than what has one"
    );

    let attachments = |index: &Index, policy: &str| -> Vec<Attachment> {
        let policy: &ResiliencePolicy = index.policy(&name(policy)).expect("applied");
        index
            .attachments(policy)
            .into_iter()
            .map(|(_, attachment)| attachment)
            .collect()
    };
    assert_eq!(attachments(&by_age, "z"), [Attachment::Accepted]);
    assert_eq!(
        attachments(&by_age, "a"),
        [Attachment::Conflicted { winner: name("z") }]
    );
    let lost = index(&[
        SHOP,
        &policy(
            "lost",
            "{targetRefs: [{kind: Service, name: nobody}, {kind: Service, name: cart, sectionName: nix}], outbound: {}}",
        ),
    ]);
    assert_eq!(
        attachments(&lost, "lost"),
        [Attachment::TargetNotFound, Attachment::TargetNotFound]
    );
}

#[test]
fn what_only_observes_never_acts_through_another_policy() {
    let observing = policy(
        "all",
        "{targetRefs: [{kind: Namespace, name: boutique}], mode: Observe, outbound: {deadline: 1s}}",
    );
    let alone = compile::service(&index(&[SHOP, &observing]), &cart()).expect("the cart");
    assert_eq!(
        (alone.mode, alone.outbound.deadline.map(|it| it.to_string())),
        (Mode::Observe, Some("1s".to_owned()))
    );

    let enforcing = on_cart("cart", "outbound: {limits: {inFlight: 5}}");
    let both =
        compile::service(&index(&[SHOP, &observing, &enforcing]), &cart()).expect("the cart");
    assert_eq!(both.mode, Mode::Enforce);
    assert_eq!(
        both.outbound.deadline.map(|it| it.to_string()).as_deref(),
        Some("15s")
    );
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
    let effective = compile::effective_rate_limits(&index, &cart()).expect("the cart");
    let said: Vec<_> = (effective.value.iter())
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
    let (field, source) = &effective.from[0];
    assert_eq!(field, "inbound.rateLimits");
    assert_eq!(source.to_string(), "ResiliencePolicy boutique/own");
    let workload = compile::workload(&index, &name("cart-0")).expect("the pod");
    assert_eq!(workload.ports[0].rate_limits, effective.value);
    let elsewhere = &workload.default_port.rate_limits;
    assert_eq!(elsewhere[0].requests_per_second.get(), 9, "the namespace's");
}

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
fn a_change_says_what_it_touched() {
    let mut index = index(&[SHOP]);
    let touched = index.apply(resources(&on_cart("p", "outbound: {deadline: 1s}")).remove(0));
    assert!(
        touched.services.contains(&name("cart")) && !touched.everything,
        "{touched:?}"
    );

    let of_namespace = policy(
        "all",
        "{targetRefs: [{kind: Namespace, name: boutique}], outbound: {}}",
    );
    let touched = index.apply(resources(&of_namespace).remove(0));
    assert!(touched.namespaces.contains("boutique"));

    // A policy that moves to another target touches both.
    let moved = policy(
        "p",
        "{targetRefs: [{kind: Service, name: mail}], outbound: {}}",
    );
    let touched = index.apply(resources(&moved).remove(0));
    assert!(
        touched.services.contains(&name("cart")) && touched.services.contains(&name("mail")),
        "{touched:?}"
    );

    let gone = ResourceRef {
        kind: Kind::ResiliencePolicy,
        name: name("p"),
    };
    assert!(index.delete(&gone).services.contains(&name("mail")));
    assert!(index.delete(&gone).is_empty(), "twice is nothing");
    assert!(index.policy_on(&Target::Service(name("mail"))).is_none());
}

#[test]
fn a_reset_touches_only_what_differs() {
    let mut index = index(&[SHOP]);
    assert!(
        index.reset(&Kind::ALL, resources(SHOP)).is_empty(),
        "the same again"
    );

    let fewer: Vec<Resource> = resources(SHOP)
        .into_iter()
        .filter(|it| it.metadata().name != "cart-1")
        .collect();
    let touched = index.reset(&Kind::ALL, fewer);
    assert_eq!(touched.pods.iter().collect::<Vec<_>>(), [&name("cart-1")]);
    assert_eq!(
        compile::endpoints(&index, &cart())[1].identity,
        None,
        "the slice still has its address"
    );

    let touched = index.reset(&[Kind::Service], []);
    assert_eq!(touched.addresses.len(), 2);
    assert!(matches!(
        index.destination(address("10.96.0.10:7000")),
        Destination::Outside
    ));
    assert!(index.pod(&name("cart-0")).is_some(), "other kinds stay");
}

#[test]
fn whatever_was_applied_and_deleted_leaves_nothing_behind() {
    let mut index = index(&[SHOP, &on_cart("p", "outbound: {}")]);
    let all: Vec<ResourceRef> = index.references().collect();
    for reference in &all {
        assert!(!index.delete(reference).is_empty(), "{reference}");
    }
    assert_eq!(format!("{index:?}"), format!("{:?}", Index::default()));
}

#[test]
fn an_address_of_the_host_or_of_a_finished_pod_means_nobody() {
    let pod = |name: &str, more: &str, status: &str| {
        format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{{more}}}, status: {{podIP: 10.9.9.9, {status}}}}}"
        )
    };
    let alone = |text: String| {
        index(&[&text])
            .pod_at("10.9.9.9".parse().expect("an ip"))
            .is_some()
    };
    assert!(alone(pod("a", "", "phase: Running")));
    assert!(!alone(pod("a", "hostNetwork: true", "phase: Running")));
    assert!(!alone(pod("a", "", "phase: Succeeded")));
    let both = index(&[
        &pod("a", "", "phase: Running").replace(
            "name: a",
            "name: a, deletionTimestamp: \"2026-01-01T00:00:00Z\"",
        ),
        &pod("b", "", "phase: Running"),
    ]);
    let now = both
        .pod_at("10.9.9.9".parse().expect("an ip"))
        .expect("one of them");
    assert_eq!(
        now.metadata.name, "b",
        "the address was given to the next pod already"
    );
}

#[test]
fn an_alternate_is_of_the_policys_namespace_and_never_the_service_itself() {
    let all = policy(
        "all",
        "{targetRefs: [{kind: Namespace, name: boutique}],
          outbound: {fallback: {stale: {}, alternate: {name: cart, port: 7000}}},
          routes: [{match: {http: {path: /a}}, outbound: {fallback: {alternate: {name: spare, namespace: other, port: 81}}}}]}",
    );
    let service = compile::service(&index(&[SHOP, &all]), &cart()).expect("the cart");
    let fallback = service.outbound.fallback.as_ref().expect("the policy's");
    assert_eq!(fallback.alternate, None, "it is the cart");
    assert_eq!(
        fallback.stale.expect("asked for").max_age.to_string(),
        "10m"
    );
    assert_eq!(fallback.answer, None, "nobody said one");
    let alternates: Vec<String> = service.alternates().map(ToString::to_string).collect();
    assert_eq!(alternates, ["other/spare:81"]);

    let own = on_cart(
        "p",
        "outbound: {fallback: {alternate: {name: spare, port: 80}}}",
    );
    let index = index(&[SHOP, &own]);
    let service = compile::service(&index, &cart()).expect("the cart");
    let alternates: Vec<String> = service.alternates().map(ToString::to_string).collect();
    assert_eq!(alternates, ["boutique/spare:80"]);
    let policy = index.policies().next().expect("there is one");
    assert_eq!(
        (index
            .missing_alternates(policy)
            .iter()
            .map(ToString::to_string))
        .collect::<Vec<_>>(),
        ["boutique/spare:80"]
    );
}

/// What is pushed is read again by sidecars, who refuse what they do not know.
#[test]
fn a_snapshot_survives_json() {
    let index = index(&[
        SHOP,
        include_str!("good/sketch.yaml"),
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
                "{{apiVersion: v1, kind: Pod, metadata: {{name: s{number}-{pod}, namespace: boutique, labels: {{app: s{number}}}}}, spec: {{containers: [{{name: weir-proxy}}]}}, status: {{podIP: 10.{}.{}.{pod}}}}}",
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

#[test]
fn there_is_one_mesh_config_the_oldest_and_it_has_no_namespace() {
    let mesh = |metadata: &str, domain: &str| {
        let text = format!(
            "{{apiVersion: weir.dev/v1alpha1, kind: MeshConfig, metadata: {{{metadata}}}, spec: {{trustDomain: {domain}}}}}"
        );
        resources(&text).remove(0)
    };
    let mut index = Index::default();
    assert_eq!(index.trust_domain(), "weir.local");
    let young = "name: a, creationTimestamp: \"2026-02-01T00:00:00Z\"";
    assert!(index.apply(mesh(young, "young")).everything);
    index.apply(mesh(
        "name: b, creationTimestamp: \"2026-01-01T00:00:00Z\"",
        "old",
    ));
    assert_eq!(index.trust_domain(), "old");

    let moved = mesh("name: b, namespace: weir-system", "moved");
    assert_eq!(moved.reference().to_string(), "MeshConfig b");
    index.apply(moved);
    assert_eq!(
        index.references().count(),
        2,
        "another namespace is not another mesh"
    );
    assert_eq!(index.trust_domain(), "young", "its age went with it");
}

/// For `weir proxy policy`.
#[test]
fn every_effective_value_is_told_with_who_said_it() {
    let index = index(&[SHOP]);
    let effective = compile::effective(&index, &cart()).expect("the cart");
    let fields: Vec<&String> = effective.fields.iter().map(|(field, _)| field).collect();
    let from: Vec<&String> = effective.from.iter().map(|(field, _)| field).collect();
    assert_eq!(fields, from, "the same fields in the same order");
    let value = |wanted: &str| {
        let mut fields = effective.fields.iter();
        fields
            .find(|(field, _)| field == wanted)
            .map(|(_, value)| value.clone())
    };
    assert_eq!(value("mode"), Some("Enforce".into()));
    let attempts = effective.value.outbound.retries.attempts.get();
    assert_eq!(value("outbound.retries.attempts"), Some(attempts.into()));
    let deadline = effective
        .value
        .outbound
        .deadline
        .map(|deadline| deadline.to_string());
    assert_eq!(value("outbound.deadline"), Some(deadline.into()));
}

/// A slice knows where its endpoints are; a pod's label does where no slice does; a sidecar is told its own.
#[test]
fn endpoints_and_workloads_know_their_zone_and_weight() {
    let mut index = index(&[SHOP]);
    let zone_of = |index: &Index, pod: &str| {
        let workload = compile::workload(index, &name(pod)).expect("there is such a pod");
        workload.zone
    };
    assert_eq!(
        zone_of(&index, "cart-0").as_deref(),
        Some("a"),
        "from the slice"
    );
    assert_eq!(zone_of(&index, "cart-1"), None, "nobody says so");
    let labelled = resources(
        r#"{apiVersion: v1, kind: Pod, metadata: {name: cart-1, namespace: boutique,
             labels: {app: cart, topology.kubernetes.io/zone: b}, annotations: {weir.dev/weight: "10"}},
            spec: {containers: [{name: cart}]}, status: {podIP: 10.1.0.8}}"#,
    );
    index.apply(labelled.into_iter().next().expect("a pod"));
    let endpoints = compile::endpoints(&index, &cart());
    let placed = |at: usize| (endpoints[at].zone.as_deref(), endpoints[at].weight);
    assert_eq!((placed(0), placed(1)), ((Some("a"), 100), (Some("b"), 10)));
    assert_eq!(zone_of(&index, "cart-1").as_deref(), Some("b"));
}

#[test]
fn a_pod_whose_zone_becomes_known_is_told_and_the_others_are_not() {
    let mut index = index(&[SHOP]);
    let moved = SHOP.replace(
        "kind: Pod, name: cart-1}",
        "kind: Pod, name: cart-1}, zone: b",
    );
    let slice = resources(&moved).into_iter().find(|resource| {
        resource.reference().kind == Kind::EndpointSlice
            && resource.reference().name == name("cart-x1")
    });
    let touched = index.apply(slice.expect("the cart's slice"));
    assert_eq!(touched.pods, [name("cart-1")].into());
}

#[test]
fn one_key_tells_calls_apart_wherever_it_is_said() {
    let balanced = |policies: &[&str]| {
        let mut texts = vec![SHOP];
        texts.extend(policies);
        let service = compile::service(&index(&texts), &cart()).expect("the cart");
        service.outbound.consistent_hash
    };
    let weak = "{targetRefs: [{kind: Namespace, name: boutique}], outbound: {loadBalancing: \
                {algorithm: ConsistentHash, consistentHash: {header: x-user, boundedLoad: 150}}}}";
    let weak = policy("weak", weak);
    let strong = on_cart(
        "strong",
        "outbound: {loadBalancing: {consistentHash: {cookie: session}}}",
    );
    let by = balanced(&[&weak]).expect("it hashes");
    assert_eq!(by.bounded_load.get(), 150);
    let by = balanced(&[&weak, &strong]).expect("it hashes");
    assert!(matches!(&by.by, HashBy::Cookie(name) if name.as_str() == "session"));
    assert_eq!(
        by.bounded_load.get(),
        125,
        "the whole block is the stronger one's"
    );
    assert_eq!(balanced(&[&strong]), None, "nobody asked for hashing");
}
