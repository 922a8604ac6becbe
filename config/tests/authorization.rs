//! Who may call a port, from every policy that is attached to it.

use weir_config::compile;
use weir_config::index::{Attachment, Index};
use weir_config::parse;
use weir_config::resource::ObjectName;
use weir_config::snapshot::{AccessRules, Authorization};

const SHOP: &str = "
{apiVersion: v1, kind: Service, metadata: {name: cart, namespace: boutique}, spec: {
  clusterIP: 10.96.0.10, selector: {app: cart},
  ports: [{name: grpc, port: 7000, targetPort: 7070}, {name: web, port: 80, targetPort: 8080}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: cart-too, namespace: boutique}, spec: {
  clusterIP: 10.96.0.11, selector: {app: cart}, ports: [{name: grpc, port: 7001, targetPort: 7070}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: cart-0, namespace: boutique, labels: {app: cart}},
  spec: {serviceAccountName: cart, initContainers: [{name: weir-proxy, env: [{name: WEIR_POD_NAME}]}]}, status: {phase: Running, podIP: 10.1.0.7}}
";

fn policy(name: &str, target: &str, rest: &str) -> String {
    format!(
        "{{apiVersion: weir.dev/v1alpha1, kind: AuthorizationPolicy, metadata: {{name: {name}, namespace: boutique}},
           spec: {{targetRefs: [{target}], {rest}}}}}"
    )
}

const NAMESPACE: &str = "{kind: Namespace, name: boutique}";
const ACCOUNT: &str = "{kind: ServiceAccount, name: cart}";
const CART: &str = "{kind: Service, name: cart}";
const CART_TOO: &str = "{kind: Service, name: cart-too}";
const GRPC: &str = "{kind: Service, name: cart, sectionName: grpc}";
const ANY: &str = "rules: [{}]";
const DENY: &str = "action: Deny, rules: [{}]";

fn index(policies: &[String]) -> Index {
    let mut index = Index::default();
    for text in std::iter::once(&SHOP.to_owned()).chain(policies) {
        let located = parse("test.yaml", text).unwrap_or_else(|errors| panic!("{errors:?}"));
        for resource in located {
            index.apply(resource.value);
        }
    }
    index
}

fn cart_0() -> ObjectName {
    ObjectName::new("boutique", "cart-0")
}

/// Of a port of the pod; 0: of one that no service names.
fn authorization(policies: &[String], port: u16) -> Option<Authorization> {
    let workload = compile::workload(&index(policies), &cart_0());
    let workload = workload.expect("there is such a pod");
    let own = workload.ports.into_iter().find(|own| own.port == port);
    own.unwrap_or(workload.default_port).authorization
}

/// Whose policies deny, and whose allow; `*`: nobody's, so all may.
fn told(rules: &AccessRules) -> String {
    let names = |rules: &[weir_config::snapshot::AccessRule]| {
        let names: Vec<_> = rules
            .iter()
            .map(|rule| rule.policy.replace("boutique/", ""))
            .collect();
        names.join("+")
    };
    let allow = rules
        .allow
        .as_ref()
        .map_or("*".to_owned(), |allow| names(allow));
    format!("-{} +{allow}", names(&rules.deny))
}

fn enforced(policies: &[String], port: u16) -> String {
    let authorization = authorization(policies, port);
    authorization.map_or("open".to_owned(), |it| told(&it.enforced))
}

#[test]
fn of_those_that_allow_the_closest_count_and_all_that_deny() {
    let all = [
        policy("ns", NAMESPACE, ANY),
        policy("svc", CART, ANY),
        policy("svc-too", CART, ANY),
        policy("port", GRPC, ANY),
        policy("not-ns", NAMESPACE, DENY),
        policy("not-svc", CART, DENY),
        policy("not-port", GRPC, DENY),
    ];
    assert_eq!(enforced(&all, 7070), "-not-port+not-svc+not-ns +port");
    assert_eq!(enforced(&all, 8080), "-not-svc+not-ns +svc+svc-too");
    assert_eq!(
        enforced(&all, 0),
        "-not-ns +ns",
        "a port that no service names"
    );
    assert_eq!(enforced(&[], 7070), "open");
    assert_eq!(enforced(&all[4..5], 8080), "-not-ns +*");
}

/// Of a queue's consumer, say, there is no Service, and somebody scrapes it.
#[test]
fn a_service_account_is_all_ports_of_the_workloads_that_run_as_it() {
    let all = [
        policy("ns", NAMESPACE, ANY),
        policy("svc", CART, ANY),
        policy("sa", ACCOUNT, ANY),
        policy("not-sa", ACCOUNT, DENY),
        policy("other", "{kind: ServiceAccount, name: other}", DENY),
    ];
    assert_eq!(enforced(&all, 0), "-not-sa +sa");
    assert_eq!(enforced(&all, 7070), "-not-sa +svc");
    assert_eq!(enforced(&all[2..3], 7070), "- +sa");
    assert_eq!(enforced(&all[4..], 0), "open");

    let first = |target: &str| attachment(&[policy("first", target, ANY), all[1].clone()]);
    assert_eq!(first(ACCOUNT), Attachment::Accepted);
    let nobody = "{kind: ServiceAccount, name: nobody}";
    assert_eq!(first(nobody), Attachment::TargetNotFound);
}

/// Its right, and that it may be called, is told anew to those alone who run as it.
#[test]
fn a_policy_of_a_service_account_touches_its_pods() {
    let mut index = index(&[]);
    let text = policy("sa", ACCOUNT, DENY);
    let policy = parse("test.yaml", &text).expect("a policy").remove(0).value;
    let reference = policy.reference();
    let touched = index.apply(policy);
    let pods = std::collections::BTreeSet::from([cart_0()]);
    let only = weir_config::index::Touched {
        pods,
        ..Default::default()
    };
    assert_eq!(touched, only);
    assert_eq!(index.delete(&reference), only);
}

/// Two services lead to one port: a policy for either holds, whichever a caller means.
#[test]
fn a_second_service_is_no_way_around_the_policy_of_the_first() {
    let deny = [policy("cart", CART, DENY)];
    assert_eq!(enforced(&deny, 7070), "-cart +*");
    let deny = [
        policy("too", CART_TOO, DENY),
        policy("cart", CART, "rules: []"),
    ];
    assert_eq!(enforced(&deny, 7070), "-too +");
    assert_eq!(enforced(&deny, 8080), "- +");
}

#[test]
fn what_only_audits_is_enforced_nowhere_and_compared_with_what_is() {
    let audit = |rest: &str| format!("mode: Audit, {rest}");
    let all = [
        policy("svc", CART, ANY),
        policy("audit", GRPC, &audit("rules: []")),
    ];
    let found = authorization(&all, 7070).expect("there are policies");
    assert_eq!(told(&found.enforced), "- +svc");
    assert_eq!(found.audited.as_ref().map(told).as_deref(), Some("- +"));
    let found = authorization(&[policy("audit", CART, &audit(DENY))], 7070).expect("there is one");
    assert_eq!(told(&found.enforced), "- +*");
    assert_eq!(
        found.audited.as_ref().map(told).as_deref(),
        Some("-audit +*")
    );
}

#[test]
fn a_mesh_that_denies_by_default_is_opened_by_policies_alone() {
    let mesh = "{apiVersion: weir.dev/v1alpha1, kind: MeshConfig, metadata: {name: mesh}, spec: {defaultAuthorization: Deny}}";
    let closed = [mesh.to_owned()];
    assert_eq!(enforced(&closed, 7070), "- +");
    assert_eq!(enforced(&closed, 0), "- +");
    let opened = [mesh.to_owned(), policy("svc", CART, ANY)];
    assert_eq!(enforced(&opened, 7070), "- +svc");
    assert_eq!(enforced(&opened, 0), "- +");
}

#[test]
fn identities_are_whole_and_each_value_says_who_said_it() {
    let rule = "rules: [{from: [{identity: ns/boutique/sa/checkout}, {namespace: ops}], to: [{http: {path: /a}}]}]";
    let policies = [policy("svc", CART, rule)];
    let found = authorization(&policies, 8080).expect("a policy");
    let rule = &found.enforced.allow.expect("it allows")[0];
    let from = rule.from.as_ref().expect("it names some");
    assert_eq!(
        from[0].identity.as_deref(),
        Some("spiffe://weir.local/ns/boutique/sa/checkout")
    );
    assert_eq!(from[1].namespace.as_deref(), Some("ops"));
    let key = weir_config::snapshot::ServiceKey {
        namespace: "boutique".into(),
        name: "cart".into(),
        port: 80,
    };
    let index = index(&policies);
    let pod = index.pod(&cart_0()).expect("the pod");
    let effective = compile::effective_inbound(&index, &key, pod).expect("a port");
    let (field, source) = effective.from.last().expect("who said so");
    assert_eq!(field, "inbound.authorization[0]");
    assert_eq!(
        source.to_string(),
        "AuthorizationPolicy boutique/svc rules[0]"
    );
}

/// How the first of some policies fares with its only target.
fn attachment(policies: &[String]) -> Attachment {
    let index = index(policies);
    let first = index.authorization_policy(&ObjectName::new("boutique", "first"));
    let attachments = index.authorization_attachments(first.expect("it is there"));
    attachments[0].1.clone()
}

#[test]
fn what_its_ports_say_themselves_overrides_what_a_service_allows() {
    const WEB: &str = "{kind: Service, name: cart, sectionName: web}";
    let of_both = |rest: &str| [policy("grpc", GRPC, rest), policy("web", WEB, rest)];
    let among = |first: String, others: &[String]| {
        let mut all = vec![first];
        all.extend_from_slice(others);
        attachment(&all)
    };
    let first = |rest: &str| policy("first", CART, rest);
    let overridden = Attachment::Overridden {
        by: ObjectName::new("boutique", "grpc"),
    };
    assert_eq!(among(first(ANY), &of_both(ANY)), overridden);
    assert_eq!(
        among(first(ANY), &of_both(ANY)[..1]),
        Attachment::Accepted,
        "it is left a port"
    );
    assert_eq!(
        among(first(DENY), &of_both(ANY)),
        Attachment::Accepted,
        "what denies holds everywhere"
    );
    assert_eq!(among(first(ANY), &of_both(DENY)), Attachment::Accepted);
    let audits = "mode: Audit, rules: [{}]";
    assert_eq!(
        among(first(ANY), &of_both(audits)),
        Attachment::Accepted,
        "what audits takes nothing away"
    );
    assert_eq!(among(first(audits), &of_both(ANY)), overridden);
    let on_namespace = policy("first", NAMESPACE, ANY);
    assert_eq!(among(on_namespace, &of_both(ANY)), Attachment::Accepted);
    let lost = policy("first", "{kind: Service, name: nobody}", ANY);
    assert_eq!(among(lost, &[]), Attachment::TargetNotFound);
}

/// It was said to be enforced, and anybody may send datagrams past it.
#[test]
fn a_policy_on_ports_that_no_sidecar_takes_is_not_in_force() {
    let services = "{apiVersion: v1, kind: Service, metadata: {name: dns, namespace: boutique},
                     spec: {ports: [{name: dns-tcp, port: 53}, {name: dns, port: 53, protocol: UDP}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: statsd, namespace: boutique},
 spec: {ports: [{name: stats, port: 8125, protocol: UDP}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: bare, namespace: boutique}, spec: {clusterIP: None}}";
    let nothing = Attachment::NotTcp;
    let fine = Attachment::Accepted;
    for (target, fares) in [
        ("name: statsd", &nothing),
        ("name: statsd, sectionName: stats", &nothing),
        ("name: dns, sectionName: dns", &nothing),
        ("name: dns, sectionName: dns-tcp", &fine),
        ("name: dns", &fine),
        ("name: bare", &fine),
        ("name: dns, sectionName: web", &Attachment::TargetNotFound),
    ] {
        let targeting = policy("first", &format!("{{kind: Service, {target}}}"), ANY);
        let found = attachment(&[services.to_owned(), targeting]);
        assert_eq!(found, *fares, "{target}");
    }
}
