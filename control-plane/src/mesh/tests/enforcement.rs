//! How far a policy holds.

use super::*;

/// Its callers dial pods, so only what the Service's own sidecars do is in force.
#[test]
fn of_a_headless_service_what_is_said_for_callers_is_known_to_hold_for_nobody() {
    use weir_config::ResourceRef;
    use weir_config::resource::NoAddress;

    use crate::breakers::NotClosed;

    let mesh = mesh();
    let headless = SERVICE.replace(
        "clusterIP: 10.96.0.1",
        "clusterIP: None, selector: {app: a}",
    );
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: p, namespace: shop, labels: {app: a}}\nspec: {initContainers: [{name: weir-proxy, env: [{name: WEIR_POD_NAME}]}]}\nstatus: {podIP: 10.0.0.9}\n";
    let policy = |kind: &str, name: &str, says: &str| {
        format!(
            "apiVersion: weir.dev/v1alpha1\nkind: {kind}\nmetadata: {{name: {name}, namespace: shop}}\n\
             spec: {{targetRefs: [{{kind: Service, name: a}}], {says}}}\n"
        )
    };
    let outbound = "outbound: {deadline: 1s}";
    let inbound = "inbound: {limits: {inFlight: 9}}";
    let fault =
        "endsAt: '2026-11-26T04:30:00Z', faults: [{abort: {httpStatus: 503}, percentage: 1}]";
    let member = mesh.join(&ObjectName::new("shop", "p"));
    let fares = |kind: weir_config::Kind, says: &str| {
        let text = policy(kind.name(), "it", says);
        mesh.change(apply(&[headless.as_str(), pod, &text].join("---\n")));
        let resource = ResourceRef {
            kind,
            name: ObjectName::new("shop", "it"),
        };
        let found = mesh.enforcement(&resource, &NotClosed::default());
        let found = found.expect("it is in force").remove(0);
        (found.no_address, found.proxies)
    };
    let (resilience, none) = (weir_config::Kind::ResiliencePolicy, NoAddress::Headless);
    assert_eq!(fares(resilience, outbound), (Some(none), 0));
    assert_eq!(fares(resilience, inbound), (None, 1), "its pods take part");
    let both = format!("{outbound}, {inbound}");
    assert_eq!(fares(resilience, &both), (Some(none), 1));
    let authorization = weir_config::Kind::AuthorizationPolicy;
    let rule = "rules: [{from: [{namespace: shop}]}]";
    assert_eq!(fares(authorization, rule), (None, 1));
    assert_eq!(
        fares(weir_config::Kind::FaultPolicy, fault),
        (Some(none), 0)
    );
    drop(member);
}

/// Of two Services before the same port one speaks for it, and of a namespace a Service may only observe.
#[test]
fn where_a_policy_does_not_hold_though_it_has_its_target_is_known() {
    use weir_config::ResourceRef;
    use weir_config::compile::Exception;

    use crate::breakers::NotClosed;

    let mesh = mesh();
    let service = |name: &str| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: shop}}\nspec: {{selector: {{app: a}}, ports: [{{port: 80}}]}}\n"
        )
    };
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: p, namespace: shop, labels: {app: a}}\nspec: {initContainers: [{name: weir-proxy, env: [{name: WEIR_POD_NAME}]}]}\nstatus: {podIP: 10.0.0.9}\n";
    let policy = |name: &str, target: &str, says: &str| {
        format!(
            "apiVersion: weir.dev/v1alpha1\nkind: ResiliencePolicy\nmetadata: {{name: {name}, namespace: shop}}\n\
             spec: {{targetRefs: [{{kind: {target}}}], {says}}}\n"
        )
    };
    let inbound = "inbound: {limits: {inFlight: 9}}";
    let (first, second) = (service("first"), service("second"));
    // Of many pods the same one is named each time, and by each control plane.
    let pods: Vec<String> = (0..9)
        .map(|n| pod.replace("name: p,", &format!("name: p{n},")))
        .collect();
    let texts = [
        first.as_str(),
        &second,
        &pods.join("---\n"),
        pod,
        &policy("one", "Service, name: first", inbound),
        &policy("two", "Service, name: second", inbound),
        &policy("all", "Namespace, name: shop", "outbound: {deadline: 1s}"),
    ];
    mesh.change(apply(&texts.join("---\n")));
    let exceptions = |name: &str| {
        let resource = ResourceRef {
            kind: weir_config::Kind::ResiliencePolicy,
            name: ObjectName::new("shop", name),
        };
        let found = mesh.enforcement(&resource, &NotClosed::default());
        found.expect("it is in force").remove(0).exceptions
    };
    let shop = |name: &str| ObjectName::new("shop", name);
    assert_eq!(exceptions("one"), []);
    assert_eq!(exceptions("all"), []);
    let spoken_for = |without_effect| Exception::SpokenFor {
        pod: shop("p"),
        port: 80,
        by: shop("first"),
        without_effect,
    };
    assert_eq!(exceptions("two"), [spoken_for(true)]);
    let more = format!("outbound: {{deadline: 1s}}, {inbound}");
    mesh.change(apply(&policy("two", "Service, name: second", &more)));
    assert_eq!(
        exceptions("two"),
        [spoken_for(false)],
        "its callers have theirs"
    );
    let observes = policy(
        "one",
        "Service, name: first",
        "mode: Observe, outbound: {deadline: 2s}",
    );
    mesh.change(apply(&observes));
    assert_eq!(
        exceptions("two"),
        [],
        "it is the one that says how calls are taken"
    );
    let observed = Exception::Observed {
        service: shop("first"),
        by: shop("one"),
    };
    assert_eq!(exceptions("all"), [observed]);
}

/// A namespace was labelled, and a Deployment in it not started anew: its pods let anybody in, and nobody said so.
#[test]
fn of_pods_without_a_sidecar_only_what_is_for_them_is_told() {
    let mesh = mesh();
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: a, namespace: shop}\n\
                   spec: {clusterIP: 10.96.0.1, ports: [{name: web, port: 80}, {name: ops, port: 81}]}\n";
    let sidecar = "initContainers: [{name: weir-proxy, env: [{name: WEIR_POD_NAME}]}]";
    let pod = |name: &str, metadata: &str, spec: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: shop, {metadata}}}\nspec: {{{spec}}}\nstatus: {{phase: Running}}\n"
        )
    };
    let to = |name: &str, ip: u8, conditions: &str| {
        format!(
            "{{addresses: [10.0.0.{ip}], conditions: {{{conditions}}}, targetRef: {{kind: Pod, name: {name}}}}}"
        )
    };
    let endpoints = [
        to("in", 1, ""),
        to("out", 2, "ready: false"),
        to("by", 3, ""),
        // It is on its way out, and was replaced by one that has a sidecar.
        to("old", 4, "ready: false, serving: true, terminating: true"),
        // Nobody can tell yet.
        to("unknown", 5, ""),
        // Not of ours: what holds there is not for us to say.
        "{addresses: [192.0.2.1]}".to_owned(),
    ];
    let slice = format!(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: a, namespace: shop}}\naddressType: IPv4\n\
         ports: [{{name: web, port: 8080}}, {{name: ops, port: 9090}}]\nendpoints: [{}]\n",
        endpoints.join(", ")
    );
    let policy = |kind: &str, name: &str, target: &str, says: &str| {
        format!(
            "apiVersion: weir.dev/v1alpha1\nkind: {kind}\nmetadata: {{name: {name}, namespace: shop}}\n\
             spec: {{targetRefs: [{{kind: {target}}}], {says}}}\n"
        )
    };
    let (rights, limits) = ("rules: [{}]", "inbound: {limits: {inFlight: 9}}");
    let (access, resilience) = ("AuthorizationPolicy", "ResiliencePolicy");
    let skips = "annotations: {config.weir.dev/skip-inbound-ports: '9090'}";
    let texts = [
        service.to_owned(),
        slice,
        pod("in", "", sidecar),
        pod("out", "", ""),
        pod("by", skips, sidecar),
        pod("old", "", ""),
        policy(access, "all", "Namespace, name: shop", rights),
        policy(access, "one", "Service, name: a", rights),
        policy(access, "web", "Service, name: a, sectionName: web", rights),
        policy(access, "lost", "Service, name: b", rights),
        policy(access, "account", "ServiceAccount, name: default", rights),
        policy(resilience, "one", "Service, name: a", limits),
        policy(
            resilience,
            "callers",
            "Namespace, name: shop",
            "outbound: {deadline: 1s}",
        ),
    ];
    mesh.change(apply(&texts.join("---\n")));
    let told = |kind, name: &str| {
        let name = ObjectName::new("shop", name);
        let found = mesh.enforcement(&ResourceRef { kind, name }, &Default::default());
        let unmeshed = found.expect("it is in force").remove(0).unmeshed;
        unmeshed.map(|it| {
            let names = it.pods.iter().map(|pod| pod.name.clone());
            (names.collect::<Vec<_>>().join(" "), it.of)
        })
    };
    let is = |names: &str| Some((names.to_owned(), 3));
    let (access, resilience) = (
        weir_config::Kind::AuthorizationPolicy,
        weir_config::Kind::ResiliencePolicy,
    );
    assert_eq!(told(access, "one"), is("by out"));
    assert_eq!(told(access, "all"), is("by out"));
    assert_eq!(
        told(access, "web"),
        is("out"),
        "its sidecar takes the calls to this port"
    );
    assert_eq!(told(resilience, "one"), is("by out"));
    assert_eq!(
        told(resilience, "callers"),
        None,
        "nothing is said for these pods"
    );
    assert_eq!(told(access, "lost"), None);
    let of_account = Some(("by old out".to_owned(), 4));
    assert_eq!(told(access, "account"), of_account, "as the other two run");
    mesh.change(apply(
        &[pod("out", "", sidecar), pod("by", "", sidecar)].join("---\n"),
    ));
    assert_eq!(told(access, "one"), None);
}

#[test]
fn sidecars_of_those_who_run_as_a_service_account_stand_before_it() {
    use weir_config::ResourceRef;
    use weir_config::index::Attachment;

    use crate::breakers::NotClosed;

    let mesh = mesh();
    let pod = |name: &str, account: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: shop}}\n\
             spec: {{serviceAccountName: {account}, initContainers: [{{name: weir-proxy, env: [{{name: WEIR_POD_NAME}}]}}]}}\n"
        )
    };
    let policy = "apiVersion: weir.dev/v1alpha1\nkind: AuthorizationPolicy\nmetadata: {name: it, namespace: shop}\n\
                  spec: {targetRefs: [{kind: ServiceAccount, name: consumer}], rules: [{from: [{namespace: shop}]}]}\n";
    let resource = ResourceRef {
        kind: weir_config::Kind::AuthorizationPolicy,
        name: ObjectName::new("shop", "it"),
    };
    let fares = || {
        let found = mesh.enforcement(&resource, &NotClosed::default());
        let found = found.expect("it is in force").remove(0);
        (found.attachment, found.proxies, found.acknowledged)
    };
    mesh.change(apply(&[&pod("other", "other"), policy].join("---\n")));
    let other = mesh.join(&ObjectName::new("shop", "other"));
    assert_eq!(fares(), (Attachment::TargetNotFound, 0, 0));
    mesh.change(apply(&pod("p", "consumer")));
    let member = mesh.join(&ObjectName::new("shop", "p"));
    assert_eq!(fares(), (Attachment::Accepted, 1, 0));
    let news = member.collect(&member.mailbox().take());
    member.acknowledged(&Held {
        workload: news.workload,
        ..Held::default()
    });
    assert_eq!(fares(), (Attachment::Accepted, 1, 1));
    drop(other);
}

/// Its callers waited for it, and a policy of the whole namespace was never said to be in force with them.
#[test]
fn nobody_has_to_acknowledge_a_service_that_is_not_there() {
    use weir_config::ResourceRef;

    use crate::breakers::NotClosed;

    let mesh = mesh();
    let policy = "apiVersion: weir.dev/v1alpha1\nkind: ResiliencePolicy\nmetadata: {name: all, namespace: shop}\n\
                  spec: {targetRefs: [{kind: Namespace, name: shop}], outbound: {fallback: {alternate: {name: gone, port: 80}}}}\n";
    mesh.change(apply(&format!("{SERVICE}---\n{policy}")));
    let member = mesh.join(&ObjectName::new("shop", "p"));
    member.subscribe(address());
    let news = member.collect(&member.mailbox().take());
    let told = news.services.iter().filter(|it| !it.policy.is_empty());
    let policies: Vec<_> = told.map(|it| (it.key.clone(), it.policy.clone())).collect();
    assert_eq!(policies.len(), 1, "the other is not there");
    member.acknowledged(&Held {
        policies,
        ..Held::default()
    });
    let resource = ResourceRef {
        kind: weir_config::Kind::ResiliencePolicy,
        name: ObjectName::new("shop", "all"),
    };
    let found = mesh.enforcement(&resource, &NotClosed::default());
    let found = found.expect("it is in force").remove(0);
    assert_eq!((found.proxies, found.acknowledged), (1, 1), "{found:?}");
}

/// Nobody stood before it, so that a policy which no sidecar knew of was in force with all of none.
#[test]
fn sidecars_of_the_pods_that_a_service_without_a_selector_lists_stand_before_it() {
    use weir_config::ResourceRef;

    use crate::breakers::NotClosed;

    let mesh = mesh();
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: p, namespace: shop}\n\
               spec: {initContainers: [{name: weir-proxy, env: [{name: WEIR_POD_NAME}]}]}\nstatus: {podIP: 10.0.0.1}\n";
    let policy = "apiVersion: weir.dev/v1alpha1\nkind: AuthorizationPolicy\nmetadata: {name: it, namespace: shop}\n\
                  spec: {targetRefs: [{kind: Service, name: a}], rules: [{from: [{namespace: shop}]}]}\n";
    mesh.change(apply(&[SERVICE, pod, policy].join("---\n")));
    let member = mesh.join(&ObjectName::new("shop", "p"));
    let workload = || {
        let news = member.collect(&member.mailbox().take());
        news.workload
            .map(|it| String::from_utf8_lossy(&it).into_owned())
    };
    let says_who_may_call = |it: &String| it.contains("shop/it");
    assert_eq!(workload().as_ref().map(says_who_may_call), Some(false));
    mesh.change(apply(&slice("10.0.0.1")));
    assert_eq!(workload().as_ref().map(says_who_may_call), Some(true));
    let resource = ResourceRef {
        kind: weir_config::Kind::AuthorizationPolicy,
        name: ObjectName::new("shop", "it"),
    };
    let found = mesh.enforcement(&resource, &NotClosed::default());
    let found = found.expect("it is in force").remove(0);
    assert_eq!((found.proxies, found.acknowledged), (1, 0));
}
