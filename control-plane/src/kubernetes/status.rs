//! What the status of our kinds says, after GEP-713: for each target whether the policy is accepted, and how many
//! sidecars have it in force. Pure but for the [writer].

pub mod writer;

use serde_json::{Value, json};
use weir_config::index::Attachment;
use weir_config::{Kind, ResourceRef};

use crate::mesh::Enforcement;
use crate::source::kubernetes::register::Entry;

pub const CONTROLLER: &str = "weir.dev/controller";
/// The API allows eight times that, and nobody reads it.
const MESSAGE_CHARS_MAX: usize = 4000;

/// One condition of one target.
#[derive(Clone, Debug, PartialEq)]
struct Condition {
    name: &'static str,
    status: &'static str,
    reason: &'static str,
    message: String,
}

impl Condition {
    fn accepted(status: &'static str, reason: &'static str, message: String) -> Self {
        let name = "Accepted";
        Self {
            name,
            status,
            reason,
            message,
        }
    }

    fn enforced(status: &'static str, reason: &'static str, message: String) -> Self {
        let name = "Enforced";
        Self {
            name,
            status,
            reason,
            message,
        }
    }
}

/// `status.ancestors`, whole. `enforcement` is of what is in force; `now` as RFC 3339.
pub fn ancestors(
    resource: &ResourceRef,
    entry: &Entry,
    enforcement: &[Enforcement],
    now: &str,
) -> Value {
    let mut ancestors = Vec::new();
    for reference in references(resource, entry) {
        let conditions = if entry.refused.is_empty() {
            let of_target = enforcement.iter().find(|it| {
                let target = serde_json::to_value(&it.target).unwrap_or_default();
                ["kind", "name", "sectionName"]
                    .iter()
                    .all(|field| target.get(field) == reference.get(field))
            });
            in_force(of_target)
        } else {
            vec![refused(entry)]
        };
        let conditions = conditions
            .into_iter()
            .map(|condition| dated(condition, &reference, entry, now));
        let conditions: Vec<Value> = conditions.collect();
        ancestors.push(json!({
            "ancestorRef": reference,
            "controllerName": CONTROLLER,
            "conditions": conditions,
        }));
    }
    Value::Array(ancestors)
}

/// To what it wants to be attached; where it does not say that legibly, itself.
fn references(resource: &ResourceRef, entry: &Entry) -> Vec<Value> {
    let legible = |target: &&Value| target["kind"].is_string() && target["name"].is_string();
    let targets = entry.targets.iter().filter(legible).map(|target| {
        let mut reference = json!({ "group": "", "kind": target["kind"], "name": target["name"] });
        if target["sectionName"].is_string() {
            reference["sectionName"] = target["sectionName"].clone();
        }
        reference
    });
    let targets: Vec<Value> = targets.collect();
    if !targets.is_empty() {
        return targets;
    }
    let group = resource.kind.api_version().split('/').next();
    vec![json!({ "group": group, "kind": resource.kind.name(), "name": resource.name.name })]
}

fn refused(entry: &Entry) -> Condition {
    let in_force = if entry.has_last_good {
        "What it said before stays in force.\n"
    } else {
        ""
    };
    let message = format!("{in_force}{}", entry.refused.join("\n"));
    Condition::accepted("False", "Invalid", message)
}

fn in_force(enforcement: Option<&Enforcement>) -> Vec<Condition> {
    let Some(found) = enforcement else {
        let message = "it is in order".to_owned();
        return vec![Condition::accepted("True", "Accepted", message)];
    };
    let (kind, name) = (format!("{:?}", found.target.kind), &found.target.name);
    match &found.attachment {
        Attachment::TargetNotFound => {
            let message = match &found.target.section_name {
                Some(port) => format!("there is no {kind} {name} with a port named {port}"),
                None => format!("there is no {kind} {name}"),
            };
            vec![Condition::accepted("False", "TargetNotFound", message)]
        }
        Attachment::Conflicted { winner } => {
            let message = format!("{winner} is older and has this target: it is in force");
            vec![Condition::accepted("False", "Conflicted", message)]
        }
        Attachment::Accepted => vec![
            Condition::accepted("True", "Accepted", "it is in order".to_owned()),
            enforced(found),
        ],
    }
}

fn enforced(found: &Enforcement) -> Condition {
    let (proxies, acknowledged) = (found.proxies, found.acknowledged);
    let message = format!("acknowledged by {acknowledged} of {proxies} proxies");
    match &found.behind {
        _ if proxies == 0 => {
            let message = "no connected proxy calls it or stands before it".to_owned();
            Condition::enforced("Unknown", "NoProxies", message)
        }
        Some(pod) => {
            let message = format!("{message}; waiting for {pod}");
            Condition::enforced("False", "PartiallyEnforced", message)
        }
        None => Condition::enforced("True", "Enforced", message),
    }
}

/// With the time since when its status is what it is.
fn dated(condition: Condition, reference: &Value, entry: &Entry, now: &str) -> Value {
    let before = entry.status["ancestors"].as_array();
    let before = before.into_iter().flatten();
    let before = before.filter(|it| it["ancestorRef"] == *reference);
    let mut before = before.flat_map(|it| it["conditions"].as_array().into_iter().flatten());
    let same = before.find(|it| it["type"] == condition.name && it["status"] == condition.status);
    let since = same.and_then(|it| it["lastTransitionTime"].as_str());
    let message: String = condition.message.chars().take(MESSAGE_CHARS_MAX).collect();
    let mut dated = json!({
        "type": condition.name,
        "status": condition.status,
        "reason": condition.reason,
        "message": message,
        "lastTransitionTime": since.unwrap_or(now),
    });
    if let Some(generation) = entry.generation {
        dated["observedGeneration"] = json!(generation);
    }
    dated
}

/// Whether this version says in a status how far a policy has come.
pub fn counts(kind: Kind) -> bool {
    kind == Kind::ResiliencePolicy
}

#[cfg(test)]
mod tests {
    use weir_config::resource::{ObjectName, TargetKind, TargetRef};

    use super::*;

    const NOW: &str = "2026-11-26T03:00:00Z";

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
            target: TargetRef {
                group: None,
                kind: TargetKind::Service,
                name: "cart".to_owned(),
                section_name: None,
            },
            attachment,
            proxies,
            acknowledged,
            behind: (acknowledged < proxies).then(|| ObjectName::new("boutique", "late-0")),
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
        let first = ancestors(&resource(), &entry(), &found, "2026-01-01T00:00:00Z");
        let mut entry = Entry {
            generation: Some(4),
            ..entry()
        };
        entry.status = json!({ "ancestors": first });
        let found = [enforcement(Attachment::Accepted, 15, 15)];
        let second = ancestors(&resource(), &entry, &found, NOW);
        let conditions = &second[0]["conditions"];
        assert_eq!(
            conditions[0]["lastTransitionTime"], "2026-01-01T00:00:00Z",
            "accepted since then"
        );
        assert_eq!(conditions[1]["lastTransitionTime"], NOW, "enforced now");
        assert_eq!(conditions[0]["observedGeneration"], 4);
    }
}
