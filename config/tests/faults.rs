//! Faults on purpose: which policies apply to a port, in which order, and until when.

use weir_config::compile;
use weir_config::index::{Attachment, Index};
use weir_config::resource::ObjectName;
use weir_config::snapshot::{
    BrokenConnection, Fault, FaultAnswer, FaultEffect, PathMatch, RouteMatch, ServiceKey,
};
use weir_config::{Resource, parse};

const SHOP: &str = "
{apiVersion: v1, kind: Service, metadata: {name: payment, namespace: boutique}, spec: {
  clusterIP: 10.96.0.10, ports: [{name: http, port: 80}, {name: grpc, port: 7000}, {name: tcp-dump, port: 9000}, {name: stats, port: 8125, protocol: UDP}]}}
";

fn policy(name: &str, created: &str, spec: &str) -> String {
    format!(
        "{{apiVersion: weir.dev/v1alpha1, kind: FaultPolicy,
           metadata: {{name: {name}, namespace: boutique, {created}}},
           spec: {{{spec}}}}}"
    )
}

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

fn payment(port: u16) -> ServiceKey {
    ServiceKey {
        namespace: "boutique".into(),
        name: "payment".into(),
        port,
    }
}

fn faults(index: &Index, port: u16) -> Vec<Fault> {
    let service = compile::service(index, &payment(port));
    service.expect("it has the port").faults
}

const ON_PAYMENT: &str = "targetRefs: [{kind: Service, name: payment}]";
/// 2026-11-26T04:30:00Z
const HALF_PAST_FOUR: u64 = 1_795_667_400_000;

#[test]
fn a_fault_says_everything_a_sidecar_needs() {
    let index = index(&[policy(
        "fails",
        "",
        &format!(
            "{ON_PAYMENT}, endsAt: '2026-11-26T04:30:00Z', faults: [
               {{match: {{http: {{method: GET, pathPrefix: /a/}}}}, callers: [ns/boutique/sa/cart], percentage: 20,
                 abort: {{httpStatus: 503}}}},
               {{connection: BlackHole}}]"
        ),
    )]);
    let found = faults(&index, 80);
    let first = Fault {
        policy: "boutique/fails".into(),
        until_ms: HALF_PAST_FOUR,
        matches: Some(RouteMatch::Http {
            method: Some("GET".into()),
            path: PathMatch::Prefix("/a".into()),
        }),
        callers: vec!["spiffe://weir.local/ns/boutique/sa/cart".into()],
        percentage: 20.try_into().expect("a percentage"),
        delay: None,
        effect: Some(FaultEffect::Abort(FaultAnswer {
            grpc_status: 14,
            http_status: 503,
        })),
    };
    assert_eq!(found[0], first);
    let hole = Some(FaultEffect::Connection(BrokenConnection::BlackHole));
    assert_eq!(found[1].effect, hole);
    assert_eq!(found[1].percentage.get(), 100);
    let effective = compile::effective(&index, &payment(80)).expect("it has the port");
    let (field, source) = effective.from.last().expect("who said so");
    assert_eq!(field, "faults[1]");
    assert_eq!(source.to_string(), "FaultPolicy boutique/fails faults[1]");
}

#[test]
fn of_two_ends_the_earlier_holds_and_what_has_none_is_not_begun() {
    let created = "creationTimestamp: '2026-11-26T04:00:00.250Z'";
    let after = |created: &str, end: &str| {
        let spec = format!("{ON_PAYMENT}, {end}, faults: [{{connection: Reset}}]");
        let found = faults(&index(&[policy("fails", created, &spec)]), 80);
        found.first().map(|fault| fault.until_ms)
    };
    let at = "endsAt: '2026-11-26T04:30:00Z'";
    assert_eq!(after("", at), Some(HALF_PAST_FOUR));
    assert_eq!(after(created, "duration: 30m"), Some(HALF_PAST_FOUR));
    let ten_past = HALF_PAST_FOUR - 20 * 60 * 1000;
    assert_eq!(
        after(created, &format!("duration: 10m, {at}")),
        Some(ten_past)
    );
    assert_eq!(
        after(created, &format!("duration: 2h, {at}")),
        Some(HALF_PAST_FOUR)
    );
    assert_eq!(after("", "duration: 10m"), None, "since when?");
    assert_eq!(after("", &format!("duration: 10m, {at}")), None);
}

#[test]
fn policies_add_up_the_ports_first_and_then_the_oldest() {
    let spec = |target: &str| {
        format!(
            "targetRefs: [{target}], endsAt: '2026-11-26T04:30:00Z', faults: [{{connection: Reset}}]"
        )
    };
    let (all, grpc) = (
        "{kind: Service, name: payment}",
        "{kind: Service, name: payment, sectionName: grpc}",
    );
    let mut index = index(&[
        policy(
            "young",
            "creationTimestamp: '2026-11-26T02:00:00Z'",
            &spec(all),
        ),
        policy(
            "old",
            "creationTimestamp: '2026-11-26T01:00:00Z'",
            &spec(all),
        ),
        policy(
            "of-port",
            "creationTimestamp: '2026-11-26T03:00:00Z'",
            &spec(grpc),
        ),
        policy("both", "", &spec(&format!("{all}, {grpc}"))),
    ]);
    let names = |index: &Index, port| {
        let found = faults(index, port);
        found
            .into_iter()
            .map(|fault| fault.policy)
            .collect::<Vec<_>>()
    };
    let there = [
        "boutique/of-port",
        "boutique/both",
        "boutique/old",
        "boutique/young",
    ];
    assert_eq!(names(&index, 7000), there);
    assert_eq!(
        names(&index, 80),
        ["boutique/old", "boutique/young", "boutique/both"]
    );
    assert!(names(&index, 9000).is_empty(), "opaque: it has no calls");

    let gone = index
        .fault_policies()
        .next()
        .expect("there are some")
        .clone();
    let gone = Resource::FaultPolicy((*gone).clone()).reference();
    let touched = index.delete(&gone);
    assert_eq!(touched.services.len(), 1, "its service is compiled again");
    assert_eq!(
        names(&index, 7000),
        there[..1]
            .iter()
            .chain(&there[2..])
            .copied()
            .collect::<Vec<_>>()
    );
}

#[test]
fn a_sidecar_that_knows_no_faults_refuses_them_rather_than_to_act_on_half() {
    let text =
        r#"{"policy": "a/b", "untilMs": 1, "percentage": 5, "effect": {"connection": "Melt"}}"#;
    assert!(serde_json::from_str::<Fault>(text).is_err());
    let text = r#"{"policy": "a/b", "untilMs": 1, "percentage": 5, "sometimes": true}"#;
    assert!(serde_json::from_str::<Fault>(text).is_err());
}

#[test]
fn faults_need_a_target_on_which_there_are_calls() {
    let attachment = |target: &str| {
        let spec = format!(
            "targetRefs: [{target}], endsAt: \"2026-11-26T04:30:00Z\", faults: [{{delay: {{time: 1s}}}}]"
        );
        let index = index(&[policy("one", "", &spec)]);
        let one = index.fault_policy(&ObjectName::new("boutique", "one"));
        let one = one.expect("it is there");
        assert_eq!(compile::fault_end(one), Some(HALF_PAST_FOUR));
        index.fault_attachments(one)[0].1.clone()
    };
    for (target, expected) in [
        ("{kind: Service, name: payment}", Attachment::Accepted),
        (
            "{kind: Service, name: payment, sectionName: grpc}",
            Attachment::Accepted,
        ),
        (
            "{kind: Service, name: payment, sectionName: tcp-dump}",
            Attachment::Opaque,
        ),
        (
            "{kind: Service, name: payment, sectionName: stats}",
            Attachment::NotTcp,
        ),
        (
            "{kind: Service, name: payment, sectionName: nix}",
            Attachment::TargetNotFound,
        ),
        ("{kind: Service, name: nobody}", Attachment::TargetNotFound),
    ] {
        assert_eq!(attachment(target), expected, "{target}");
    }
}
