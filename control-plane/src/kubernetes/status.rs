//! What the status of our kinds says, after GEP-713: for each target whether the policy is accepted, how many sidecars
//! have it in force, before which pods [nobody has](unmeshed), and what its callers hold [open](outages). Pure but for the
//! [writer].

mod outages;
mod unmeshed;
pub mod writer;

use serde_json::{Value, json};
use weir_config::compile::Exception;
use weir_config::index::Attachment;
use weir_config::resource::TargetRef;
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
        Self {
            name: "Accepted",
            status,
            reason,
            message,
        }
    }

    fn enforced(status: &'static str, reason: &'static str, message: String) -> Self {
        Self {
            name: "Enforced",
            status,
            reason,
            message,
        }
    }
}

/// `status.ancestors`, whole. `enforcement` is of what is in force.
pub fn ancestors(
    resource: &ResourceRef,
    entry: &Entry,
    enforcement: &[Enforcement],
    now_ms: u64,
) -> Value {
    let now = &rfc3339(now_ms);
    let mut ancestors = Vec::new();
    for reference in references(resource, entry) {
        let conditions = if entry.refused.is_empty() {
            let is_meant = |it: &&Enforcement| match &it.target {
                Some(target) => is_reference_to(&reference, target),
                None => resource.kind == Kind::MeshConfig,
            };
            let of_target = enforcement.iter().find(is_meant);
            in_force(of_target, resource.kind, now_ms)
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

fn is_reference_to(reference: &Value, target: &TargetRef) -> bool {
    let target = serde_json::to_value(target).unwrap_or_default();
    let mut fields = ["kind", "name", "sectionName"].iter();
    fields.all(|field| target.get(field) == reference.get(field))
}

/// To the second, which is what the API keeps.
fn rfc3339(at_ms: u64) -> String {
    crate::time::rfc3339(at_ms / 1000 * 1000).replace(".000Z", "Z")
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
    let in_force = match entry {
        Entry {
            has_last_good: true,
            ..
        } => "What it said before stays in force.\n",
        Entry {
            is_stood_in_for: true,
            ..
        } => "Until it can be read nobody is allowed whom it may deny.\n",
        _ => "",
    };
    let message = format!("{in_force}{}", entry.refused.join("\n"));
    Condition::accepted("False", "Invalid", message)
}

fn in_force(enforcement: Option<&Enforcement>, kind: Kind, now_ms: u64) -> Vec<Condition> {
    let accepted = || Condition::accepted("True", "Accepted", "it is in order".to_owned());
    let Some(found) = enforcement else {
        return vec![accepted()];
    };
    match &found.attachment {
        Attachment::TargetNotFound => {
            let message = not_found(found.target.as_ref());
            vec![Condition::accepted("False", "TargetNotFound", message)]
        }
        Attachment::Conflicted { winner } => {
            let why = "it is older, or as old and the first by name";
            let message = match &found.target {
                Some(_) => format!("{winner} has this target, too, and is in force: {why}"),
                None => format!("MeshConfig {winner} is in force for the whole mesh: {why}"),
            };
            vec![Condition::accepted("False", "Conflicted", message)]
        }
        Attachment::Overridden { by } => {
            let message = format!(
                "each of its ports has policies of its own that say who may call it, such as {by}"
            );
            let overridden = Condition::enforced("False", "Overridden", message);
            vec![accepted(), overridden]
        }
        Attachment::Opaque => {
            let message = "its ports are opaque: nobody can tell one call from another there";
            let without_effect = Condition::enforced("False", "OpaquePorts", message.to_owned());
            vec![accepted(), without_effect]
        }
        Attachment::NotTcp => {
            let message = "it has no TCP port there, and sidecars take nothing else";
            let without_effect = Condition::enforced("False", "NotTCP", message.to_owned());
            vec![accepted(), without_effect]
        }
        Attachment::Accepted => {
            let mut conditions = vec![accepted(), enforced(found, kind, now_ms)];
            conditions.extend(outages::condition(&found.outages));
            conditions
        }
    }
}

fn not_found(target: Option<&TargetRef>) -> String {
    let Some(target) = target else {
        return "there is no such target".to_owned();
    };
    let (kind, name) = (format!("{:?}", target.kind), &target.name);
    match &target.section_name {
        Some(port) => format!("there is no {kind} {name} with a port named {port}"),
        None => format!("there is no {kind} {name}"),
    }
}

fn enforced(found: &Enforcement, kind: Kind, now_ms: u64) -> Condition {
    let (proxies, acknowledged) = (found.proxies, found.acknowledged);
    let message = format!("acknowledged by {acknowledged} of {proxies} proxies");
    if let Some(until) = found.until_ms.filter(|until| *until <= now_ms) {
        let message = format!("it was over at {}", rfc3339(until));
        return Condition::enforced("False", "Ended", message);
    }
    if let Some(condition) = lacking(found, kind, &message) {
        return condition;
    }
    match (&found.behind, &found.untold) {
        (Some(pod), _) => {
            let message = format!("{message}; waiting for {pod}");
            Condition::enforced("False", "PartiallyEnforced", message)
        }
        (None, Some(other)) => {
            let message = format!("{message}; {other} has no room to tell of its own");
            Condition::enforced("Unknown", "NotAllKnown", message)
        }
        (None, None) if proxies == 0 => {
            let message = match found.target {
                Some(_) => "no connected proxy calls it or stands before it",
                None => "no proxy is connected",
            };
            Condition::enforced("Unknown", "NoProxies", message.to_owned())
        }
        (None, None) => Condition::enforced("True", "Enforced", message),
    }
}

/// `None`: it is in force wherever its sidecars have it.
fn lacking(found: &Enforcement, kind: Kind, acknowledged: &str) -> Option<Condition> {
    let exceptions = match found.proxies {
        0 => &[],
        _ => found.exceptions.as_slice(),
    };
    let words = (found.no_address.iter().map(ToString::to_string))
        .chain(exceptions.iter().map(Exception::to_string))
        .chain(found.unmeshed.iter().map(|it| unmeshed::words(it, kind)));
    let words: Vec<String> = words.collect();
    if words.is_empty() {
        return None;
    }
    let without_effect = |it: &Exception| matches!(it, Exception::SpokenFor { without_effect, .. } if *without_effect);
    let has_no_sidecars = (found.unmeshed.as_ref()).is_some_and(|it| it.pods.len() == it.of);
    let reason = match found.proxies {
        0 if found.no_address.is_some() => "NoClusterIP",
        0 if has_no_sidecars => "NoSidecars",
        _ if exceptions.iter().any(without_effect) => "Overridden",
        _ => "PartiallyEnforced",
    };
    let words = words.join(", and ");
    let message = match found.proxies {
        0 => words,
        _ => format!("{acknowledged}, but {words}"),
    };
    Some(Condition::enforced("False", reason, message))
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

#[cfg(test)]
mod tests;
