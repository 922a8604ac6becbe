use weir_config::compile::Unmeshed;
use weir_config::resource::{NoAddress, ObjectName, TargetKind, TargetRef};

use super::*;

/// 2026-11-26T03:00:00Z
const NOW: u64 = 1_795_662_000_000;

fn resource() -> ResourceRef {
    ResourceRef {
        kind: Kind::ResiliencePolicy,
        name: ObjectName::new("boutique", "cart"),
    }
}

fn entry() -> Entry {
    Entry {
        generation: Some(3),
        targets: vec![json!({ "kind": "Service", "name": "cart" })],
        ..Entry::default()
    }
}

fn enforcement(attachment: Attachment, acknowledged: usize, proxies: usize) -> Enforcement {
    Enforcement {
        target: Some(TargetRef {
            group: None,
            kind: TargetKind::Service,
            name: "cart".to_owned(),
            section_name: None,
        }),
        attachment,
        proxies,
        acknowledged,
        behind: (acknowledged < proxies).then(|| "boutique/late-0".to_owned()),
        untold: None,
        until_ms: None,
        outages: Vec::new(),
        no_address: None,
        exceptions: Vec::new(),
        unmeshed: None,
    }
}

/// Type, status, reason, message of each condition.
fn told(ancestors: &Value) -> Vec<[String; 4]> {
    let conditions = ancestors[0]["conditions"].as_array().expect("conditions");
    let text = |it: &Value| it.as_str().unwrap_or_default().to_owned();
    let told = conditions
        .iter()
        .map(|it| ["type", "status", "reason", "message"].map(|field| text(&it[field])));
    told.collect()
}

fn is(found: &[String; 4], expected: [&str; 4]) {
    assert_eq!(found.each_ref().map(String::as_str), expected);
}

#[test]
fn a_policy_is_enforced_when_the_last_proxy_has_acknowledged_it() {
    for (acknowledged, expected) in [
        (
            14,
            [
                "Enforced",
                "False",
                "PartiallyEnforced",
                "acknowledged by 14 of 15 proxies; waiting for boutique/late-0",
            ],
        ),
        (
            15,
            [
                "Enforced",
                "True",
                "Enforced",
                "acknowledged by 15 of 15 proxies",
            ],
        ),
    ] {
        let found = enforcement(Attachment::Accepted, acknowledged, 15);
        let told = told(&ancestors(&resource(), &entry(), &[found], NOW));
        is(&told[0], ["Accepted", "True", "Accepted", "it is in order"]);
        is(&told[1], expected);
    }
}

#[test]
fn a_target_that_is_missing_or_taken_is_named() {
    let found = enforcement(Attachment::TargetNotFound, 0, 0);
    let missing = told(&ancestors(&resource(), &entry(), &[found], NOW));
    is(
        &missing[0],
        [
            "Accepted",
            "False",
            "TargetNotFound",
            "there is no Service cart",
        ],
    );
    let winner = ObjectName::new("boutique", "older");
    let found = enforcement(Attachment::Conflicted { winner }, 0, 0);
    let taken = told(&ancestors(&resource(), &entry(), &[found], NOW));
    assert_eq!((taken.len(), taken[0][2].as_str()), (1, "Conflicted"));
    assert!(taken[0][3].contains("boutique/older"));
}

#[test]
fn a_refused_policy_says_why_and_what_is_in_force() {
    let entry = Entry {
        refused: vec!["error: expected a duration".to_owned()],
        has_last_good: true,
        targets: vec![json!("nonsense")],
        ..entry()
    };
    let found = ancestors(&resource(), &entry, &[], NOW);
    assert_eq!(found[0]["ancestorRef"]["kind"], "ResiliencePolicy");
    let told = told(&found);
    assert_eq!(told[0][2], "Invalid");
    assert!(told[0][3].contains("before stays in force") && told[0][3].contains("a duration"));
}

#[test]
fn a_condition_is_as_old_as_its_status() {
    let found = [enforcement(Attachment::Accepted, 14, 15)];
    let first = ancestors(&resource(), &entry(), &found, NOW - 60_000);
    let mut entry = Entry {
        generation: Some(4),
        ..entry()
    };
    entry.status = json!({ "ancestors": first });
    let found = [enforcement(Attachment::Accepted, 15, 15)];
    let second = ancestors(&resource(), &entry, &found, NOW);
    let conditions = &second[0]["conditions"];
    assert_eq!(
        conditions[0]["lastTransitionTime"], "2026-11-26T02:59:00Z",
        "accepted since then"
    );
    assert_eq!(
        conditions[1]["lastTransitionTime"], "2026-11-26T03:00:00Z",
        "enforced now"
    );
    assert_eq!(conditions[0]["observedGeneration"], 4);
}

fn service(name: &str) -> Enforcement {
    let mut found = enforcement(Attachment::Accepted, 2, 2);
    found.target.as_mut().expect("a target").name = name.to_owned();
    found
}

#[test]
fn a_fault_that_is_over_is_not_in_force() {
    let mut found = enforcement(Attachment::Accepted, 2, 2);
    for (until_ms, reason) in [
        (None, "Enforced"),
        (Some(NOW + 1), "Enforced"),
        (Some(NOW), "Ended"),
    ] {
        found.until_ms = until_ms;
        let told = told(&ancestors(
            &resource(),
            &entry(),
            std::slice::from_ref(&found),
            NOW,
        ));
        assert_eq!(told[1][2], reason, "{until_ms:?}");
    }
}

#[test]
fn what_others_say_in_its_place_and_what_cannot_take_effect_is_told() {
    let by = ObjectName::new("boutique", "only-web");
    for (attachment, reason, word) in [
        (
            Attachment::Overridden { by },
            "Overridden",
            "boutique/only-web",
        ),
        (Attachment::Opaque, "OpaquePorts", "opaque"),
        (Attachment::NotTcp, "NotTCP", "no TCP port"),
    ] {
        let found = enforcement(attachment, 0, 0);
        let told = told(&ancestors(&resource(), &entry(), &[found], NOW));
        assert_eq!((told[0][1].as_str(), told[1][2].as_str()), ("True", reason));
        assert!(
            told[1][1] == "False" && told[1][3].contains(word),
            "{told:?}"
        );
    }
}

/// It was Unknown, as if somebody might still come who calls it by an address that it has not.
#[test]
fn what_is_said_for_callers_of_a_service_without_an_address_is_not_enforced() {
    for (proxies, no_address, reason, words) in [
        (
            0,
            NoAddress::Headless,
            "NoClusterIP",
            "no ClusterIP: its callers call its pods",
        ),
        (0, NoAddress::ExternalName, "NoClusterIP", "ExternalName"),
        // What it says for the Service's own pods is in force.
        (
            2,
            NoAddress::Headless,
            "PartiallyEnforced",
            "acknowledged by 2 of 2 proxies, but the Service has no ClusterIP",
        ),
    ] {
        let found = Enforcement {
            no_address: Some(no_address),
            ..enforcement(Attachment::Accepted, proxies, proxies)
        };
        let told = told(&ancestors(&resource(), &entry(), &[found], NOW));
        assert_eq!(
            (told[0][1].as_str(), told[1][1].as_str()),
            ("True", "False")
        );
        assert_eq!(told[1][2], reason);
        assert!(told[1][3].contains(words), "{told:?}");
    }
}

/// It was said to be enforced where another Service's policy was.
#[test]
fn what_does_not_hold_everywhere_says_where_and_who_says_otherwise() {
    let spoken_for = |without_effect| Exception::SpokenFor {
        pod: ObjectName::new("boutique", "cart-0"),
        port: 7070,
        by: ObjectName::new("boutique", "basket"),
        without_effect,
    };
    let observed = Exception::Observed {
        service: ObjectName::new("boutique", "ads"),
        by: ObjectName::new("boutique", "try-it"),
    };
    for (exception, reason, words) in [
        (
            spoken_for(false),
            "PartiallyEnforced",
            "acknowledged by 2 of 2 proxies, but Service boutique/basket speaks for port 7070 of boutique/cart-0",
        ),
        (spoken_for(true), "Overridden", "boutique/basket"),
        (
            observed,
            "PartiallyEnforced",
            "Service boutique/ads only observes, as boutique/try-it says",
        ),
    ] {
        let found = Enforcement {
            exceptions: vec![exception],
            ..enforcement(Attachment::Accepted, 2, 2)
        };
        let told = told(&ancestors(&resource(), &entry(), &[found], NOW));
        assert_eq!(
            (told[1][1].as_str(), told[1][2].as_str()),
            ("False", reason)
        );
        assert!(told[1][3].contains(words), "{told:?}");
    }
}

/// It was said to be enforced, and a pod that was never started anew was open to anybody.
#[test]
fn pods_without_a_sidecar_are_told_and_what_is_for_them_is_not_enforced() {
    let unmeshed = |names: &[&str], of| Unmeshed {
        pods: (names.iter().map(|name| ObjectName::new("boutique", name))).collect(),
        of,
    };
    let four = ["cart-0", "cart-1", "cart-2", "cart-3"];
    for (kind, proxies, unmeshed, reason, message) in [
        (
            Kind::AuthorizationPolicy,
            2,
            unmeshed(&four[..1], 3),
            "PartiallyEnforced",
            "acknowledged by 2 of 2 proxies, but no sidecar stands before 1 of 3 pods, and anybody is let in there: \
             boutique/cart-0",
        ),
        (
            Kind::AuthorizationPolicy,
            0,
            unmeshed(&four, 4),
            "NoSidecars",
            "no sidecar stands before 4 of 4 pods, and anybody is let in there: \
             boutique/cart-0, boutique/cart-1, boutique/cart-2 and 1 more",
        ),
        // Its callers have theirs.
        (
            Kind::ResiliencePolicy,
            1,
            unmeshed(&four[2..], 2),
            "PartiallyEnforced",
            "acknowledged by 1 of 1 proxies, but no sidecar stands before 2 of 2 pods, and what is said inbound does not hold \
             there: boutique/cart-2, boutique/cart-3",
        ),
        // A sidecar that is not connected has something in force.
        (
            Kind::ResiliencePolicy,
            0,
            unmeshed(&four[3..], 2),
            "PartiallyEnforced",
            "no sidecar stands before 1 of 2 pods, and what is said inbound does not hold there: boutique/cart-3",
        ),
    ] {
        let resource = ResourceRef { kind, ..resource() };
        let found = Enforcement {
            unmeshed: Some(unmeshed),
            ..enforcement(Attachment::Accepted, proxies, proxies)
        };
        let told = told(&ancestors(&resource, &entry(), &[found], NOW));
        is(&told[1], ["Enforced", "False", reason, message]);
    }
}

#[test]
fn a_mesh_config_is_told_of_itself_and_of_the_older_one() {
    let resource = ResourceRef {
        kind: Kind::MeshConfig,
        name: ObjectName::new("", "mesh"),
    };
    let entry = Entry {
        targets: Vec::new(),
        ..entry()
    };
    let whole = Enforcement {
        target: None,
        ..enforcement(Attachment::Accepted, 3, 3)
    };
    let found = ancestors(&resource, &entry, std::slice::from_ref(&whole), NOW);
    assert_eq!(found[0]["ancestorRef"]["kind"], "MeshConfig");
    assert_eq!(told(&found)[1][3], "acknowledged by 3 of 3 proxies");
    let winner = ObjectName::new("", "first");
    let younger = Enforcement {
        attachment: Attachment::Conflicted { winner },
        ..whole
    };
    let told = told(&ancestors(&resource, &entry, &[younger], NOW));
    assert_eq!((told.len(), told[0][2].as_str()), (1, "Conflicted"));
    assert!(
        told[0][3].contains("MeshConfig first is in force"),
        "{told:?}"
    );
}

#[test]
fn each_target_has_its_own_answer() {
    let entry = Entry {
        targets: ["cart", "payment"]
            .map(|name| json!({ "kind": "Service", "name": name }))
            .into(),
        ..entry()
    };
    let mut missing = service("payment");
    missing.attachment = Attachment::TargetNotFound;
    let found = ancestors(&resource(), &entry, &[missing, service("cart")], NOW);
    let reason = |place: usize| found[place]["conditions"][0]["reason"].clone();
    assert_eq!(reason(0), "Accepted");
    assert_eq!(reason(1), "TargetNotFound");
}
