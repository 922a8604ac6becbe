//! What callers get of a service: whose word holds, field by field.

use weir_config::index::Attachment;
use weir_config::snapshot::{HashBy, PathMatch, RouteMatch};

use super::*;

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
    let slow = |route: usize| {
        let breaker = service.routes[route].outbound.breaker;
        breaker
            .and_then(|it| it.slow_call_duration)
            .map(|it| it.to_string())
    };
    assert_eq!(
        slow(0).as_deref(),
        Some("1s"),
        "half of the route's deadline"
    );
    assert_eq!(slow(1), None, "nothing is slow where nothing has to end");
    assert_eq!(slow(5).as_deref(), Some("500ms"));

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
fn a_policy_on_ports_that_no_sidecar_takes_has_no_effect() {
    const STATSD: &str =
        "{apiVersion: v1, kind: Service, metadata: {name: statsd, namespace: boutique},
        spec: {ports: [{name: stats, port: 8125, protocol: UDP}]}}";
    let targeting = policy(
        "nothing",
        "{targetRefs: [{kind: Service, name: statsd}], outbound: {deadline: 1s}}",
    );
    let index = index(&[SHOP, STATSD, &targeting]);
    let nothing = index.policy(&name("nothing")).expect("applied");
    assert_eq!(index.attachments(nothing)[0].1, Attachment::NotTcp);
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
