mod enforcement;

use weir_config::{Resource, parse};

use super::*;

const SERVICE: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: a, namespace: shop}\nspec: {clusterIP: 10.96.0.1, ports: [{port: 80}]}\n";

fn slice(address: &str) -> String {
    format!(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: a, namespace: shop}}\n\
         addressType: IPv4\nports: [{{port: 8080}}]\nendpoints: [{{addresses: [{address}]}}]\n"
    )
}

fn apply(text: &str) -> Vec<Change> {
    let resources: Vec<Resource> = parse("test", text)
        .expect("in order")
        .into_iter()
        .map(|located| located.value)
        .collect();
    resources
        .into_iter()
        .map(|resource| Change::Apply(Box::new(resource)))
        .collect()
}

fn mesh() -> Mesh {
    Mesh::new("weir.local", Versions::in_memory())
}

fn address() -> SocketAddr {
    "10.96.0.1:80".parse().expect("an address")
}

fn endpoints(member: &Membership) -> Vec<String> {
    let news = member.collect(&member.mailbox().take());
    news.services
        .iter()
        .flat_map(|service| &service.endpoints)
        .map(|endpoint| endpoint.address.clone())
        .collect()
}

#[test]
fn only_those_who_want_it_hear_of_a_change() {
    let mesh = mesh();
    mesh.change(apply(SERVICE));
    let (wants, does_not) = (
        mesh.join(&ObjectName::new("shop", "p")),
        mesh.join(&ObjectName::new("m", "q")),
    );
    wants.subscribe(address());
    wants.mailbox().take();
    does_not.mailbox().take();
    mesh.change(apply(&slice("10.0.0.1")));
    assert!(does_not.mailbox().take().is_empty());
    let dirty = wants.mailbox().take();
    assert!(
        dirty.services.len() == 1 && dirty.addresses.is_empty() && dirty.urgent,
        "{dirty:?}"
    );
    mesh.change(apply(&slice("10.0.0.1")));
    assert!(
        wants.mailbox().take().is_empty(),
        "the same again is no news"
    );
}

/// An agent runs on each node for those on it, and calls went to the agents of all: what a node's agent knows of its own
/// pods was asked of another.
#[test]
fn callers_of_a_node_local_service_have_the_endpoints_of_their_own_node() {
    let mesh = mesh();
    let service = |policy: &str| {
        SERVICE.replace(
            "spec: {",
            &format!("spec: {{internalTrafficPolicy: {policy}, "),
        )
    };
    let pod = |name: &str, node: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: shop}}\nspec: {{nodeName: {node}}}\nstatus: {{phase: Running}}\n"
        )
    };
    let agents = |on_second: &str| {
        let endpoints = [
            "{addresses: [10.0.0.1], nodeName: first}".to_owned(),
            format!("{{addresses: [{on_second}], targetRef: {{kind: Pod, name: agent}}}}"),
            "{addresses: [10.0.0.9]}".to_owned(),
        ];
        format!(
            "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: a, namespace: shop}}\n\
             addressType: IPv4\nports: [{{port: 8080}}]\nendpoints: [{}]\n",
            endpoints.join(", ")
        )
    };
    let texts = [
        service("Local"),
        agents("10.0.0.2"),
        pod("agent", "second"),
        pod("p", "first"),
        pod("q", "second"),
        pod("r", "third"),
        pod("s", "''"),
    ];
    mesh.change(apply(&texts.join("---\n")));
    let callers = ["p", "q", "r", "s"].map(|name| {
        let member = mesh.join(&ObjectName::new("shop", name));
        member.subscribe(address());
        member
    });
    let told = || callers.each_ref().map(|caller| endpoints(caller).join(" "));
    let none = "";
    // An endpoint of which nobody knows a node is on nobody's.
    let nobodys = "10.0.0.9:8080";
    assert_eq!(told(), ["10.0.0.1:8080", "10.0.0.2:8080", none, nobodys]);

    mesh.change(apply(&agents("10.0.0.3")));
    assert_eq!(told(), ["10.0.0.1:8080", "10.0.0.3:8080", none, nobodys]);

    // A sidecar was quicker than the news of where it is.
    mesh.change(apply(&pod("s", "first")));
    assert_eq!(told(), [none, none, none, "10.0.0.1:8080"]);

    mesh.change(apply(&service("Cluster")));
    let all = "10.0.0.1:8080 10.0.0.3:8080 10.0.0.9:8080";
    assert_eq!(told(), [all, all, all, all]);
    // A route's own namespace hears of the same endpoints.
    let route = "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: mine, namespace: m}\n\
                 spec: {parentRefs: [{kind: Service, group: '', name: a, namespace: shop, port: 80}], rules: [{}]}\n";
    let away = pod("t", "second").replace("namespace: shop", "namespace: m");
    mesh.change(apply(
        &[service("Local"), away, route.to_owned()].join("---\n"),
    ));
    let consumer = mesh.join(&ObjectName::new("m", "t"));
    consumer.subscribe(address());
    let news = consumer.collect(&consumer.mailbox().take());
    let policy = String::from_utf8_lossy(&news.services[0].policy).into_owned();
    assert!(policy.contains("m/mine"), "{policy}");
    assert_eq!(news.services[0].endpoints.len(), 1);
    assert_eq!(news.services[0].endpoints[0].address, "10.0.0.3:8080");
}

#[test]
fn a_name_among_the_endpoints_is_watched_while_somebody_wants_it() {
    let mesh = mesh();
    mesh.change(apply(&format!("{SERVICE}---\n{}", slice("db.example"))));
    assert!(mesh.names().borrow().is_empty());
    let member = mesh.join(&ObjectName::new("shop", "p"));
    member.subscribe(address());
    assert_eq!(
        mesh.names().borrow().iter().collect::<Vec<_>>(),
        ["db.example"]
    );
    assert!(endpoints(&member).is_empty(), "not resolved yet");
    mesh.resolved("db.example", vec!["192.0.2.7".parse().expect("an address")]);
    assert_eq!(endpoints(&member), ["192.0.2.7:8080"]);
    mesh.resolved("db.example", vec!["192.0.2.7".parse().expect("an address")]);
    assert!(
        member.mailbox().take().is_empty(),
        "the same answer is no news"
    );
    member.unsubscribe(address());
    assert!(mesh.names().borrow().is_empty(), "its app calls it no more");
    member.subscribe(address());
    assert_eq!(mesh.names().borrow().len(), 1);
    drop(member);
    assert!(mesh.names().borrow().is_empty());
    // A query that was under way is answered when nobody waits for it any more.
    mesh.resolved("db.example", vec!["192.0.2.7".parse().expect("an address")]);
    assert!(mesh.state().resolved.is_empty(), "and is forgotten with it");
}

#[test]
fn whoever_leaves_leaves_nothing_behind() {
    let mesh = mesh();
    mesh.change(apply(SERVICE));
    for _ in 0..3 {
        let member = mesh.join(&ObjectName::new("shop", "p"));
        member.subscribe(address());
        member.subscribe("10.9.9.9:1".parse().expect("an address"));
        member.subscribe("10.9.9.9:2".parse().expect("an address"));
        member.unsubscribe("10.9.9.9:2".parse().expect("an address"));
        assert_eq!(member.subscriptions(), 2);
    }
    assert!(mesh.state().board.is_empty());
}

/// `a` falls back on `b`, and `b` on `a`: both are known to who calls either, and forgotten together.
#[test]
fn what_stands_in_for_a_service_comes_and_goes_with_it() {
    let mesh = mesh();
    let second = SERVICE.replace("name: a", "name: b").replace("0.1", "0.2");
    let falls_back = |on: &str, name: &str| {
        format!(
            "apiVersion: weir.dev/v1alpha1\nkind: ResiliencePolicy\nmetadata: {{name: {name}, namespace: shop}}\n\
             spec: {{targetRefs: [{{kind: Service, name: {name}}}], outbound: {{fallback: {{alternate: {{name: {on}, port: 80}}}}}}}}\n"
        )
    };
    mesh.change(apply(&format!(
        "{SERVICE}---\n{second}---\n{}",
        slice("10.0.0.1")
    )));
    let member = mesh.join(&ObjectName::new("shop", "p"));
    member.subscribe(address());
    let heard = |member: &Membership| {
        let news = member.collect(&member.mailbox().take());
        let mut services: Vec<String> = (news.services.iter())
            .map(|service| service.key.name.clone())
            .collect();
        services.sort();
        let gone: Vec<String> = news.gone.into_iter().map(|key| key.name).collect();
        (services.join(" "), gone.join(" "))
    };
    assert_eq!(heard(&member), ("a".into(), String::new()));
    mesh.change(apply(&falls_back("b", "a")));
    assert_eq!(heard(&member), ("a b".into(), String::new()));
    mesh.change(apply(&falls_back("a", "b")));
    assert_eq!(
        heard(&member),
        ("b".into(), String::new()),
        "it is told of changes too"
    );
    let other = slice("10.0.0.2").replace("name: a", "name: b");
    let other = other.replace(
        "namespace: shop",
        "namespace: shop, labels: {kubernetes.io/service-name: b}",
    );
    mesh.change(apply(&other));
    assert_eq!(endpoints(&member), ["10.0.0.2:8080"]);

    // Called itself as well, and then no more: it still stands in.
    let own = "10.96.0.2:80".parse().expect("an address");
    member.subscribe(own);
    heard(&member);
    member.unsubscribe(own);
    assert_eq!(heard(&member), (String::new(), String::new()));
    mesh.change(apply(&falls_back("c", "a")));
    assert_eq!(heard(&member), ("a c".into(), "b".into()));
    member.unsubscribe(address());
    let (services, gone) = heard(&member);
    assert!(services.is_empty() && gone.len() == 3, "{services} {gone}");
    drop(member);
    assert!(mesh.state().board.is_empty());
}

/// `a` sends its calls to `b`, for which `c` stands in. Where `b` itself would send calls, and who stands in for `c`, is
/// nobody's to know who calls `a`.
#[test]
fn whom_a_route_sends_calls_to_comes_and_goes_with_it_and_so_does_who_stands_in() {
    let mesh = mesh();
    let service = |name: &str, last: u8| {
        let other = SERVICE.replace("name: a", &format!("name: {name}"));
        other.replace("0.1", &format!("0.{last}"))
    };
    let route = |of: &str, to: &str| {
        format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: {of}, namespace: shop}}\n\
             spec: {{parentRefs: [{{group: \"\", kind: Service, name: {of}}}], rules: [{{backendRefs: [{{name: {to}, port: 80}}]}}]}}\n"
        )
    };
    let falls_back = |name: &str, on: &str| {
        format!(
            "apiVersion: weir.dev/v1alpha1\nkind: ResiliencePolicy\nmetadata: {{name: {name}, namespace: shop}}\n\
             spec: {{targetRefs: [{{kind: Service, name: {name}}}], outbound: {{fallback: {{alternate: {{name: {on}, port: 80}}}}}}}}\n"
        )
    };
    let services = [("b", 2), ("c", 3), ("d", 4), ("e", 5)].map(|(name, at)| service(name, at));
    let all = [
        SERVICE.to_owned(),
        services.join("---\n"),
        route("b", "d"),
        falls_back("b", "c"),
        falls_back("c", "e"),
        slice("10.0.0.1"),
    ];
    mesh.change(apply(&all.join("---\n")));
    let member = mesh.join(&ObjectName::new("shop", "p"));
    member.subscribe(address());
    let heard = |member: &Membership| {
        let news = member.collect(&member.mailbox().take());
        let names = |keys: Vec<String>| {
            let sorted: std::collections::BTreeSet<String> = keys.into_iter().collect();
            sorted.into_iter().collect::<String>()
        };
        let services = news.services.iter();
        let told = names(services.map(|it| it.key.name.clone()).collect());
        (
            told,
            names(news.gone.into_iter().map(|key| key.name).collect()),
        )
    };
    assert_eq!(heard(&member), ("a".into(), String::new()));
    mesh.change(apply(&route("a", "b")));
    assert_eq!(heard(&member), ("abc".into(), String::new()));
    mesh.change(apply(&route("a", "e")));
    assert_eq!(heard(&member), ("ae".into(), "bc".into()));
    member.unsubscribe(address());
    assert_eq!(heard(&member).1, "ae");
    drop(member);
    assert!(mesh.state().board.is_empty());
}

#[test]
fn the_meshs_trust_domain_is_the_certificates() {
    let mesh = Mesh::new("shop.example", Versions::in_memory());
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: p, namespace: shop}\nspec: {initContainers: [{name: weir-proxy, env: [{name: WEIR_POD_NAME}]}]}\nstatus: {podIP: 10.0.0.9}\n";
    let own = "apiVersion: weir.dev/v1alpha1\nkind: MeshConfig\nmetadata: {name: mesh}\nspec: {mtls: Strict}\n";
    mesh.change(apply(&format!("{pod}---\n{own}")));
    let member = mesh.join(&ObjectName::new("shop", "p"));
    let news = member.collect(&member.mailbox().take());
    let workload = String::from_utf8(news.workload.expect("its own").to_vec()).expect("JSON");
    assert!(
        workload.contains("spiffe://shop.example/ns/shop/sa/default")
            && workload.contains("Strict"),
        "{workload}"
    );
}

/// Whoever may write routes in a namespace reached the sidecars of all others: what they held, waited for and looked at.
#[test]
fn routes_of_one_namespace_are_told_to_its_own_callers_and_to_nobody_else() {
    let mesh = mesh();
    let backend = SERVICE.replace("name: a, namespace: shop", "name: b, namespace: m");
    let backend = backend.replace("10.96.0.1", "10.96.0.2");
    let route = "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: mine, namespace: m}\n\
                 spec: {parentRefs: [{kind: Service, group: '', name: a, namespace: shop, port: 80}], rules: [{backendRefs: [{name: b, port: 80}]}]}\n";
    mesh.change(apply(&[SERVICE, &backend].join("---\n")));
    let (own, other) = (
        mesh.join(&ObjectName::new("m", "p")),
        mesh.join(&ObjectName::new("n", "q")),
    );
    let told = |member: &Membership| {
        let news = member.collect(&member.mailbox().take());
        let told = news.services.iter().map(|service| {
            let policy = String::from_utf8(service.policy.to_vec()).expect("JSON");
            (service.key.name.clone(), policy.contains("m/mine"))
        });
        let mut told: Vec<_> = told.collect();
        told.sort();
        told
    };
    let a = |routed| ("a".to_owned(), routed);
    for member in [&own, &other] {
        member.subscribe(address());
        assert_eq!(told(member), [a(false)]);
    }
    mesh.change(apply(route));
    assert_eq!(told(&own), [a(true), ("b".to_owned(), false)]);
    let seen = told(&other);
    assert!(seen.iter().all(|it| *it == a(false)), "{seen:?}");
}

/// An operator was told that it is held, and calls went on.
#[test]
fn a_breaker_that_nobody_asks_is_known_as_such() {
    let mesh = mesh();
    let key = |port| ServiceKey {
        namespace: "shop".into(),
        name: "a".into(),
        port,
    };
    let why = |text: &str| {
        mesh.change(apply(text));
        mesh.breaker_is_not_asked(&key(80)).unwrap_or_default()
    };
    assert_eq!(why(SERVICE), "");
    let opaque = SERVICE.replace("{port: 80}", "{port: 80, appProtocol: tcp}");
    assert!(
        why(&opaque).contains("no calls to refuse"),
        "{}",
        why(&opaque)
    );
    let headless = SERVICE.replace("10.96.0.1", "None");
    assert!(
        why(&headless).contains("has no ClusterIP"),
        "{}",
        why(&headless)
    );
    let route = |to: &str| {
        format!(
            "{SERVICE}---\n{}---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: r, namespace: shop}}\n\
             spec: {{parentRefs: [{{kind: Service, group: '', name: a, port: 80}}], rules: [{{backendRefs: [{{name: {to}, port: 80}}]}}]}}\n",
            SERVICE
                .replace("name: a", "name: b")
                .replace("10.96.0.1", "10.96.0.2"),
        )
    };
    assert_eq!(
        why(&route("b")),
        "shop/a:80: its routes send calls to shop/b:80: force those"
    );
    assert_eq!(why(&route("a")), "");
}

/// The limits of both were told as what holds, and those of one of them did not.
#[test]
fn of_two_services_before_one_port_only_the_one_that_speaks_is_told_of() {
    let mesh = mesh();
    let service = |name: &str| {
        SERVICE
            .replace("name: a", &format!("name: {name}"))
            .replace(
                "ports: [{port: 80}]",
                "selector: {app: a}, ports: [{port: 80, targetPort: 8080}]",
            )
    };
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: p, namespace: shop, labels: {app: a}}\nspec: {initContainers: [{name: weir-proxy, env: [{name: WEIR_POD_NAME}]}]}\nstatus: {podIP: 10.0.0.9}\n";
    let limits = "apiVersion: weir.dev/v1alpha1\nkind: ResiliencePolicy\nmetadata: {name: it, namespace: shop}\n\
                  spec: {targetRefs: [{kind: Service, name: b}], inbound: {limits: {inFlight: 9}}}\n";
    mesh.change(apply(
        &[&service("a"), &service("b"), pod, limits].join("---\n"),
    ));
    let (_, values) = mesh
        .effective(&ObjectName::new("shop", "p"))
        .expect("it is there");
    let of = |name: &str| {
        let of_service = values.iter().filter(|value| value.service == name);
        of_service
            .map(|value| format!("{} {}", value.field, value.value_json))
            .collect::<Vec<_>>()
    };
    assert_eq!(
        of("shop/a:80"),
        ["inbound \"as shop/b:80 says, which speaks for port 8080\""]
    );
    let said = of("shop/b:80");
    assert!(said.iter().any(|it| it.ends_with(" 9")), "{said:?}");
}

/// What MeshConfig says for all, and a namespace for ports that no service names, was told nowhere.
#[test]
fn what_holds_for_the_whole_mesh_and_on_ports_that_no_service_names_is_told_of() {
    let mesh = mesh();
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: p, namespace: shop}\nspec: {initContainers: [{name: weir-proxy, env: [{name: WEIR_POD_NAME}]}]}\nstatus: {podIP: 10.0.0.9}\n";
    let limits = "apiVersion: weir.dev/v1alpha1\nkind: ResiliencePolicy\nmetadata: {name: it, namespace: shop}\n\
                  spec: {targetRefs: [{kind: Namespace, name: shop}], inbound: {limits: {inFlight: 9}}}\n";
    let told = |service: &str, field: &str| {
        let (_, values) = mesh
            .effective(&ObjectName::new("shop", "p"))
            .expect("it is there");
        let mut values = values.into_iter();
        let found = values.find(|it| it.service == service && it.field == field);
        found.map(|it| format!("{} {}", it.value_json, it.source))
    };
    mesh.change(apply(&[pod, limits].join("---\n")));
    let is = |found: Option<String>, expected: &str| assert_eq!(found.as_deref(), Some(expected));
    is(told("the mesh", "mtls"), "\"Permissive\" default");
    is(
        told("other ports", "inbound.limits.inFlight"),
        "9 ResiliencePolicy shop/it",
    );
    let strict = "apiVersion: weir.dev/v1alpha1\nkind: MeshConfig\nmetadata: {name: mesh}\nspec: {mtls: Strict, defaultAuthorization: Deny}\n";
    mesh.change(apply(strict));
    is(told("the mesh", "mtls"), "\"Strict\" MeshConfig mesh");
    is(
        told("other ports", "inbound.defaultAuthorization"),
        "\"Deny\" MeshConfig mesh",
    );
}

/// A reference that leads somewhere from one parent may not from another: nobody needs leave to go where he is called to.
#[test]
fn whether_the_backends_of_a_route_are_to_be_had_is_told_of_each_parent() {
    let mesh = mesh();
    let own = "apiVersion: v1\nkind: Service\nmetadata: {name: own, namespace: m}\nspec: {clusterIP: 10.96.0.2, ports: [{port: 80}]}\n";
    let route = "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: r, namespace: m}\n\
                 spec: {parentRefs: [{kind: Service, group: '', name: own}, {kind: Service, group: '', name: a, namespace: shop}],\n  \
                 rules: [{backendRefs: [{name: a, namespace: shop, port: 80}]}]}\n";
    mesh.change(apply(&[SERVICE, own, route].join("---\n")));
    let parents = mesh.route_parents(weir_config::Kind::HttpRoute, &ObjectName::new("m", "r"));
    let fares = parents.expect("it is in force").into_iter().map(|it| {
        assert_eq!(it.fares, weir_config::index::Parent::Accepted);
        (it.parent.name, it.unresolved.map(|(why, _)| why))
    });
    let refused = weir_config::index::Unresolved::RefNotPermitted;
    assert_eq!(
        fares.collect::<Vec<_>>(),
        [("own".to_owned(), Some(refused)), ("a".to_owned(), None)]
    );
}
