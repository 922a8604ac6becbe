//! Whom an address means, and who a service's endpoints are.

use weir_config::compile::Host;

use super::*;

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

/// Slices and pods come by different ways, in any order. Without its pod an endpoint was one without a sidecar: it was
/// called in plain text, although its address may be somebody else's by then.
#[test]
fn an_endpoint_whose_pod_is_gone_or_not_here_yet_gets_no_calls() {
    let mut index = index(&[SHOP]);
    let reference = ResourceRef {
        kind: Kind::Pod,
        name: name("cart-0"),
    };
    let gone = index.get(&reference).expect("the pod");
    let touched = index.delete(&reference);
    assert!(touched.services.contains(&name("cart")), "{touched:?}");
    let pods = |index: &Index| {
        let endpoints = compile::endpoints(index, &cart()).into_iter();
        endpoints
            .map(|endpoint| endpoint.pod.expect("a pod").name)
            .collect::<Vec<_>>()
    };
    assert_eq!(pods(&index), ["cart-1"]);
    let touched = index.apply(gone);
    assert!(touched.services.contains(&name("cart")), "{touched:?}");
    assert_eq!(pods(&index), ["cart-0", "cart-1"]);
}

/// A pod of a dual-stack Service is in a slice of each family: it got two shares of the calls, one of them in a family
/// that its app may not listen in.
#[test]
fn a_dual_stack_pod_is_one_endpoint_in_the_family_of_its_services_first_address() {
    let service = |addresses: &str| {
        format!(
            "{{apiVersion: v1, kind: Service, metadata: {{name: cart, namespace: boutique}},
               spec: {{clusterIPs: [{addresses}], ports: [{{port: 7000}}]}}}}"
        )
    };
    let slice = |name: &str, endpoints: &str| {
        format!(
            "{{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, endpoints: [{endpoints}], ports: [{{port: 7070}}],
               metadata: {{name: {name}, namespace: boutique, labels: {{kubernetes.io/service-name: cart}}}}}}"
        )
    };
    let of_pod = |address: &str, pod: &str| {
        format!("{{addresses: [\"{address}\"], targetRef: {{kind: Pod, name: {pod}}}}}")
    };
    let pod = |name: &str| {
        format!("{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, namespace: boutique}}}}")
    };
    // Of the second pod the slice of the other family knows alone, yet; the last in each are of no pod.
    let ipv4 = [&of_pod("10.1.0.7", "a"), "{addresses: [10.9.0.1]}"].join(", ");
    let ipv6 = [
        of_pod("fd00::7", "a"),
        of_pod("fd00::8", "b"),
        "{addresses: [\"fd00::99\"]}".to_owned(),
    ];
    let ipv6 = ipv6.join(", ");
    let called = |addresses: &str| {
        let texts = [
            service(addresses),
            pod("a"),
            pod("b"),
            slice("cart-4", &ipv4),
            slice("cart-6", &ipv6),
        ];
        let index = index(&texts.each_ref().map(String::as_str));
        let endpoints = compile::endpoints(&index, &cart()).into_iter();
        let hosts = endpoints.map(|endpoint| match endpoint.host {
            Host::Ip(ip) => ip.to_string(),
            Host::Name(name) => name,
        });
        (index, hosts.collect::<Vec<_>>())
    };
    let ipv4_first = ["10.1.0.7", "10.9.0.1", "fd00::8", "fd00::99"];
    let (index, hosts) = called("10.96.0.10, \"fd00::10\"");
    assert_eq!(hosts, ipv4_first);
    for ip in ["10.96.0.10:7000", "[fd00::10]:7000"] {
        let means = index.destination(address(ip));
        assert!(
            matches!(&means, Destination::Service(key) if *key == cart()),
            "{ip}: {means:?}"
        );
    }
    let (_, hosts) = called("\"fd00::10\", 10.96.0.10");
    assert_eq!(hosts, ["fd00::7", "fd00::8", "fd00::99", "10.9.0.1"]);
    let (_, hosts) = called("None");
    assert_eq!(hosts, ipv4_first, "a headless one: as the slices stand");
}

/// As `kubectl get endpointslices -o yaml` writes one of a Service that has nobody left.
#[test]
fn lists_may_be_null() {
    let index = index(&[
        "{apiVersion: v1, kind: Service, metadata: {name: cart, namespace: boutique}, spec: {ports: [{port: 7000}]}}",
        "{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: cart, namespace: boutique}, \
         addressType: IPv4, endpoints: null, ports: null}",
    ]);
    assert_eq!(compile::endpoints(&index, &cart()), []);
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

/// As its slice says, else its pod; and a Service whose callers stay on their node says so, where it has an address.
#[test]
fn endpoints_know_their_node() {
    let mut index = index(&[SHOP]);
    for text in [
        "{apiVersion: v1, kind: Pod, metadata: {name: cart-0, namespace: boutique}, spec: {nodeName: of-pod}}",
        "{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, addressType: IPv4,
          metadata: {name: cart-x1, namespace: boutique, labels: {kubernetes.io/service-name: cart}},
          ports: [{name: grpc, port: 7070}], endpoints: [{addresses: [10.1.0.7], targetRef: {kind: Pod, name: cart-0}},
          {addresses: [10.9.0.8], nodeName: of-slice}, {addresses: [10.9.0.9], nodeName: ''}]}",
    ] {
        index.apply(resources(text).into_iter().next().expect("one"));
    }
    let nodes: Vec<_> = (compile::endpoints(&index, &cart()).into_iter())
        .map(|endpoint| endpoint.node)
        .collect();
    let some = |node: &str| Some(node.to_owned());
    assert_eq!(nodes, [some("of-pod"), some("of-slice"), None]);

    for (spec, expected) in [
        ("clusterIP: 10.96.0.10", false),
        (
            "clusterIP: 10.96.0.10, internalTrafficPolicy: Cluster",
            false,
        ),
        ("clusterIP: 10.96.0.10, internalTrafficPolicy: Local", true),
        ("clusterIP: None, internalTrafficPolicy: Local", false),
    ] {
        let service = format!(
            "{{apiVersion: v1, kind: Service, metadata: {{name: cart, namespace: boutique}}, spec: {{{spec}}}}}"
        );
        index.apply(resources(&service).into_iter().next().expect("one"));
        assert_eq!(compile::is_node_local(&index, &cart()), expected, "{spec}");
    }
}

/// While a Deployment is rolled out some of its pods say so and some do not yet: bytes pass to both.
#[test]
fn a_port_is_opaque_to_callers_when_any_pod_behind_it_says_so_and_to_a_pod_when_it_says_so_itself()
{
    let mut index = index(&[SHOP]);
    let spoken = |index: &Index, pod: &str| {
        let service = compile::service(index, &cart()).expect("there is such a port");
        let workload = compile::workload(index, &name(pod)).expect("there is such a pod");
        let mut ports = workload.ports.iter();
        let own = ports.find(|inbound| inbound.port == 7070);
        (service.protocol, own.expect("it is named").protocol)
    };
    let http2 = (Protocol::Http2, Protocol::Http2);
    assert_eq!(spoken(&index, "cart-0"), http2);
    let says = |ports: &str| {
        let pod = format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: cart-0, namespace: boutique, labels: {{app: cart}},
               annotations: {{config.weir.dev/opaque-ports: {ports:?}}}}},
              spec: {{containers: [{{name: cart, ports: [{{name: api, containerPort: 7070}}]}}]}},
              status: {{podIP: 10.1.0.7}}}}"
        );
        resources(&pod).remove(0)
    };
    let touched = index.apply(says("25, 7000-7100"));
    assert!(
        touched.services.contains(&name("cart")),
        "it is compiled again"
    );
    let both = (Protocol::Opaque, Protocol::Opaque);
    assert_eq!(spoken(&index, "cart-0"), both);
    let of_others = (Protocol::Opaque, Protocol::Http2);
    assert_eq!(spoken(&index, "cart-1"), of_others, "it has not said so");
    // The Service's own number is not the pod's; and what cannot be read says nothing.
    for nothing in ["7000", "7070;", ""] {
        index.apply(says(nothing));
        assert_eq!(spoken(&index, "cart-0"), http2, "{nothing:?}");
    }
}

/// The annotation reached the pod's rules alone: callers spoke mutual TLS to a port where only the app listens.
#[test]
fn a_port_that_passes_by_the_sidecar_has_no_identity_and_no_policy() {
    let mut index = index(&[SHOP]);
    let metrics = ServiceKey {
        port: 9090,
        ..cart()
    };
    let says = |ports: &str| {
        let pod = format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: cart-0, namespace: boutique, labels: {{app: cart}},
               annotations: {{config.weir.dev/skip-inbound-ports: {ports:?}}}}},
              spec: {{serviceAccountName: cart, initContainers: [{{name: weir-proxy, env: [{{name: WEIR_POD_NAME}}]}}],
                containers: [{{name: cart, ports: [{{name: api, containerPort: 7070}}]}}]}},
              status: {{podIP: 10.1.0.7}}}}"
        );
        resources(&pod).remove(0)
    };
    let identified = |index: &Index| {
        let of_service = |key| compile::endpoints(index, key)[0].identity.is_some();
        let pod = index.pod(&name("cart-0")).expect("the pod");
        let direct = |port: u16| {
            let address = SocketAddr::new([10, 1, 0, 7].into(), port);
            let endpoint = compile::direct_endpoint(index, pod, address);
            endpoint.identity.is_some()
        };
        let workload = compile::workload(index, &name("cart-0")).expect("the pod");
        let served: Vec<u16> = workload.ports.iter().map(|it| it.port).collect();
        let services = [of_service(&cart()), of_service(&metrics)];
        (services, [7070, 9090].map(direct), served)
    };
    let all = ([true, true], [true, true], vec![7070, 9090]);
    assert_eq!(identified(&index), all);
    let touched = index.apply(says("22, 9000-9099"));
    assert!(touched.services.contains(&name("cart")), "{touched:?}");
    let but_metrics = ([true, false], [true, false], vec![7070]);
    assert_eq!(identified(&index), but_metrics);
    // What cannot be read says nothing.
    for nothing in ["9090;", ""] {
        index.apply(says(nothing));
        assert_eq!(identified(&index), all, "{nothing:?}");
    }
    let pod = index.pod(&name("cart-0")).expect("the pod");
    for (port, is_taken) in [(14189, true), (14190, false), (14191, false), (14192, true)] {
        let endpoint =
            compile::direct_endpoint(&index, pod, SocketAddr::new([10, 1, 0, 7].into(), port));
        assert_eq!(endpoint.identity.is_some(), is_taken, "{port}");
    }
}

/// Whoever called the pod spoke mutual TLS to a container that has nothing to do with the mesh.
#[test]
fn a_users_own_container_with_the_name_of_the_sidecar_is_none() {
    let is_meshed = |annotations: &str, env: &str| {
        let text = format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: cart-0, annotations: {{{annotations}}}}},
               spec: {{containers: [{{name: weir-proxy, env: {env}}}]}}}}"
        );
        let Resource::Pod(pod) = resources(&text).remove(0) else {
            panic!("a pod")
        };
        pod.is_meshed()
    };
    let marked = "weir.dev/inject-status: \"{}\"";
    assert!(is_meshed(marked, "[]"));
    assert!(is_meshed(
        "",
        "[{name: PORT}, {name: WEIR_POD_NAME, value: a}]"
    ));
    for env in ["null", "[]", "[{name: PORT, value: \"80\"}]"] {
        assert!(!is_meshed("", env), "{env}");
    }
    assert!(!is_meshed("weir.dev/weight: \"10\"", "[]"));
}
