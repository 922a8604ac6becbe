//! Good policies with one odd value in them: whatever an API server refuses by its own lights is refused by `weir validate`
//! and the webhook, too, and by a rule in the same words.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use weir_config::{Diagnostic, crd, read_bytes};

use super::cluster::Cluster;
use super::definitions::{objects, refusal};

/// What people write by mistake, and what means something to YAML, JSON, CEL, Kubernetes or us and to nobody else.
fn oddities() -> Vec<Value> {
    let mut odd: Vec<Value> = [
        "",
        "0s",
        "1ms",
        "1h30m",
        "1500ms",
        "90s",
        "1e3s",
        "-1s",
        "1.5s",
        "Unlimited",
        "0",
        "1",
        "-1",
        "1e3",
        "A",
        "a b",
        "ü",
        "*",
        "/",
        "/a",
        "//a",
        "/a/../b",
        "/a?b",
        "/a*",
        "/ä",
        "/%2e",
        "a.b",
        "a/b",
        "get",
        "GET",
        "Namespace",
        "ns/a/sa/b",
        "spiffe://a/ns/b/sa/c",
        "x-weir-priority",
        "X-A",
        "no",
        "true",
        "503",
        "10.0.0.0/8",
        "2026-11-26T00:00:00Z",
        "2026-13-01T00:00:00Z",
        "default",
    ]
    .map(Value::from)
    .into();
    odd.push("a".repeat(64).into());
    odd.push("ä".repeat(60).into());
    odd.push(format!("/{}", "a".repeat(100)).into());
    odd.extend([0, 1, -1, 5, 100, 101, 65_536, 4_294_967_296_i64].map(Value::from));
    odd.extend([
        json!(0.5),
        json!(1.0),
        json!(1e300),
        json!(true),
        json!(null),
        json!([]),
        json!({}),
        json!([""]),
    ]);
    odd
}

pub(super) async fn what_is_odd_is_judged_alike(cluster: &Cluster) {
    let (mut asked, mut rules, mut wrong) = (BTreeSet::new(), BTreeSet::new(), Vec::new());
    for (file, object) in objects("good") {
        let kind = object["kind"].clone();
        for place in places(&object["spec"]) {
            for odd in oddities() {
                let shape: String = place
                    .split('/')
                    .filter(|step| step.parse::<usize>().is_err())
                    .collect();
                if !asked.insert(format!("{kind} {shape} {odd}")) {
                    continue;
                }
                let mut object = object.clone();
                let spot = object["spec"].pointer_mut(&place).expect("it was there");
                *spot = as_sent(&odd);
                let Some(mut causes) = refusal(cluster, &object).await else {
                    continue;
                };
                *object["spec"].pointer_mut(&place).expect("it is there") = odd.clone();
                // The last is all of them in one.
                let whole = causes.pop().unwrap_or_default();
                let title = format!("{file} spec{place} = {odd}: {whole}");
                let told = ours(&object);
                if told.is_empty() {
                    wrong.push(format!("{title}\n  weir validate takes it"));
                }
                // Of a value that is none of its type nobody here asks whether it is sensible.
                let at = dotted(&place);
                let is_no_value = told
                    .iter()
                    .any(|it| it.path == at && it.message.starts_with("expected "));
                for (rule, words) in causes.iter().filter_map(|cause| by_rule(cause)) {
                    rules.insert(rule);
                    if !is_no_value && !told.iter().any(|diagnostic| says(diagnostic, words)) {
                        wrong.push(format!("{title}\n  weir validate: {}", shown(&told)));
                    }
                }
            }
        }
    }
    println!("{} oddities, {} rules", asked.len(), rules.len());
    assert!(
        wrong.is_empty(),
        "{} of {}:\n{}",
        wrong.len(),
        asked.len(),
        wrong.join("\n")
    );
    assert!(
        asked.len() >= 1000 && rules.len() >= 10,
        "{} {rules:?}",
        asked.len()
    );
}

/// kubectl and Helm write `1.0` as 1: in Go's JSON a number that is whole has no point. CEL would not take it for one with it.
fn as_sent(odd: &Value) -> Value {
    let whole = (odd.as_f64()).filter(|number| odd.is_f64() && number.fract() == 0.0);
    // Go writes longer ones as we do, with an exponent.
    let whole = whole.filter(|number| number.abs() < 1e15);
    whole.map_or(odd.clone(), |number| json!(number as i64))
}

/// Every value, and every list and map, by its pointer.
fn places(value: &Value) -> Vec<String> {
    let below = |step: String, inner: &Value| {
        let mut found = vec![format!("/{step}")];
        found.extend(
            places(inner)
                .into_iter()
                .map(|rest| format!("/{step}{rest}")),
        );
        found
    };
    match value {
        Value::Object(fields) => fields
            .iter()
            .flat_map(|(name, inner)| below(name.clone(), inner))
            .collect(),
        Value::Array(items) => items
            .iter()
            .enumerate()
            .flat_map(|(index, inner)| below(index.to_string(), inner))
            .collect(),
        _ => Vec::new(),
    }
}

/// `spec.routes[0].match` for `/routes/0/match`.
fn dotted(place: &str) -> String {
    let steps = place
        .split('/')
        .skip(1)
        .map(|step| match step.parse::<usize>() {
            Ok(index) => format!("[{index}]"),
            Err(_) => format!(".{step}"),
        });
    format!("spec{}", steps.collect::<String>())
}

/// The errors that `weir validate` has.
fn ours(object: &Value) -> Vec<Diagnostic> {
    let mut object = object.clone();
    if object["kind"] != "MeshConfig" {
        object["metadata"]["namespace"] = json!("boutique");
    }
    let text = serde_saphyr::to_string(&object).expect("plain data");
    read_bytes("policy.yaml", text.as_bytes()).errors
}

/// The beginning of the rule that a server quotes, and all that it says of it; `None`: it is the schema that speaks.
fn by_rule(cause: &str) -> Option<(&'static str, &str)> {
    let (_, words) = cause.split_once("\": ")?;
    let rules = crd::rules::all().map(|rule| rule.message.begins());
    let rules = rules.filter(|begins| words.starts_with(begins));
    let rule = rules.max_by_key(|begins| begins.len())?;
    Some((rule, words))
}

/// In one line, which is what an API server has room for. Numbers at the end of a sentence it cannot show, nor what to
/// write in place of a method in small letters.
fn says(diagnostic: &Diagnostic, told: &str) -> bool {
    let (message, help) = (&diagnostic.message, diagnostic.help.as_deref());
    let help = help.map(|help| format!("; {help}")).unwrap_or_default();
    format!("{message}{help}").starts_with(told)
        || told
            .strip_suffix(help.as_str())
            .is_some_and(|told| message.starts_with(told))
}

fn shown(told: &[Diagnostic]) -> String {
    let lines = told
        .iter()
        .map(|it| format!("{}: {}; {:?}", it.path, it.message, it.help));
    lines.collect::<Vec<_>>().join(" | ")
}
