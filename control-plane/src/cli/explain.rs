//! `weir explain`: what became of a request, as the sidecars on its way remember it.

use std::fmt::Write as _;

use serde_json::json;
use weir_config::pb;
use weir_config::record::{Kept, Record};

use super::client::{connect, failure, tell_of, unasked};
use super::{Failure, Output, print};
use crate::time::rfc3339;

/// Tell what became of a request that failed, was retried, refused or slow
///
/// A request is known by the x-request-id that it was sent with, by its trace id, or by the x-weir-request-id of the answer.
/// Sidecars remember about the last thousand requests that did not go as they should; those that did are not kept.
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// x-request-id, trace id, or x-weir-request-id
    request_id: String,

    /// text or json
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,

    /// Same as --output json
    #[arg(long)]
    json: bool,
}

/// Ids that are asked for: one that many requests share must not be followed for ever.
const TRACES_MAX: usize = 4;

/// One record, and whose.
struct Told {
    pod: String,
    record: Record,
}

pub(super) async fn run(control_plane: &str, arguments: Arguments) -> Result<(), Failure> {
    let mut client = connect(control_plane).await?;
    let (mut told, mut silent) = (Vec::new(), Vec::new());
    let mut wanted = vec![arguments.request_id.clone()];
    // Further hops may know it by its trace only.
    let mut asked = 0;
    let mut others = Vec::new();
    while let Some(request_id) = wanted.get(asked).cloned() {
        asked += 1;
        let request = pb::ExplainRequest { request_id };
        let answer = client.explain(request).await.map_err(failure)?;
        others = unasked(&answer);
        let answer = answer.into_inner();
        for of_pod in answer.told {
            let records: Vec<Record> = serde_json::from_slice(&of_pod.records_json)
                .map_err(|error| Failure::Failed(format!("{}: {error}", of_pod.pod)))?;
            for record in records {
                let pod = of_pod.pod.clone();
                if let Some(trace) = record.trace.clone().filter(|trace| !wanted.contains(trace)) {
                    wanted.push(trace);
                }
                told.push(Told { pod, record });
            }
        }
        silent.extend(answer.silent);
        wanted.truncate(TRACES_MAX);
    }
    tell_of(&others);
    for pod in &silent {
        eprintln!("{pod} did not answer: what it knows is missing here");
    }
    told.sort_by(|a, b| (a.record.at_ms, &a.pod).cmp(&(b.record.at_ms, &b.pod)));
    told.dedup_by(|a, b| a.pod == b.pod && a.record == b.record);
    if told.is_empty() {
        let (whose, or_elsewhere) = match others.is_empty() {
            true => ("no sidecar", ""),
            false => (
                "no sidecar of this control plane",
                "it went by those of others, ",
            ),
        };
        return Err(Failure::Failed(format!(
            "{whose} remembers {}: {or_elsewhere}it went as it should, it was long ago, it was one of many that were refused in \
             the same second, or it is no id of a request",
            arguments.request_id
        )));
    }
    if arguments.json || arguments.output == Output::Json {
        let line = |told: &Told| json!({ "pod": told.pod, "record": told.record });
        let lines: String = told
            .iter()
            .map(|told| format!("{}\n", line(told)))
            .collect();
        return print(&lines);
    }
    print(&told.iter().map(story).collect::<Vec<_>>().join("\n"))
}

/// In the order in which it happened.
fn story(told: &Told) -> String {
    let record = &told.record;
    let mut text = String::new();
    let mut line = |indent: usize, mut words: String| {
        // A sidecar says what it likes; a terminal acts upon it.
        words.retain(|c| !c.is_control());
        let _ = writeln!(text, "{:indent$}{words}", "");
    };
    let way = match record.direction.as_str() {
        "inbound" => format!("{} was called", told.pod),
        _ => format!("{} called {}", told.pod, record.service),
    };
    line(0, format!("{}  {way}", rfc3339(record.at_ms)));
    line(
        2,
        format!(
            "{} {} ({}), known as {}",
            record.method, record.path, record.protocol, record.id
        ),
    );
    if record.direction == "inbound" {
        let caller = record
            .caller
            .as_deref()
            .unwrap_or("somebody without mutual TLS");
        line(2, format!("by {caller}, as {}", record.service));
    }
    line(2, terms(record));
    for one in &record.tries {
        let at = one.endpoint.as_deref().unwrap_or("nowhere");
        line(
            2,
            format!(
                "{:>9}  {at}: {} → {}",
                millis(one.ended_us),
                one.result,
                one.then
            ),
        );
    }
    line(
        2,
        format!("{:>9}  {}", millis(record.took_us), verdict(record)),
    );
    text
}

fn terms(record: &Record) -> String {
    let mut terms = vec![format!("policy version {}", record.policy_version)];
    if !record.route.is_empty() {
        terms.push(format!("route {}", record.route));
    }
    if let Some(rule) = &record.rule {
        terms.push(format!("sent there by {rule}"));
    }
    terms.push(match record.deadline_ms {
        Some(left) => format!("{left} ms left"),
        None => "no deadline of a caller".to_owned(),
    });
    if record.inherited {
        terms.push("inherited from the call that the app answers".to_owned());
    }
    if record.is_retry {
        terms.push("a retry, so none is made below it".to_owned());
    }
    if record.priority != "default" {
        terms.push(format!("priority {}", record.priority));
    }
    terms.join(", ")
}

fn verdict(record: &Record) -> String {
    let answer = match (&record.grpc_status, record.status) {
        (Some(grpc), _) => format!("gRPC status {grpc} "),
        (None, 0) => "before there was an answer ".to_owned(),
        (None, status) => format!("status {status} "),
    };
    let by = match (&record.code, &record.endpoint) {
        (Some(code), None) => format!("by the sidecar itself ({code})"),
        (Some(code), Some(endpoint)) => format!("by the sidecar itself ({code}, at {endpoint})"),
        (None, Some(endpoint)) => format!("by {endpoint}"),
        (None, None) => String::new(),
    };
    let why = match record.why {
        Kept::Failed => "it failed",
        Kept::Refused => "it was refused",
        Kept::Cancelled => "the caller left",
        Kept::Retried => "it succeeded in the end",
        Kept::Slow => "it was slow",
        Kept::Sampled => "nothing was wrong: a sample",
    };
    let reason = record.reason.as_ref().map(|reason| format!(": {reason}"));
    let text = format!("{why}: {answer}{by}{}", reason.unwrap_or_default());
    text.trim_end().to_owned()
}

fn millis(micros: u64) -> String {
    format!("{}.{} ms", micros / 1000, micros % 1000 / 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A sidecar that somebody has taken over wrote the last line of the terminal anew, and what it liked above it.
    #[test]
    fn what_a_sidecar_says_is_text_and_no_order_to_the_terminal() {
        let evil = "\u{1b}[2K\u{1b}[1A\r\nweir: all is well\u{9b}31m";
        let record = json!({
            "id": evil, "atMs": 0, "direction": "outbound", "service": evil, "route": evil, "rule": evil,
            "policyVersion": 7, "method": evil, "path": evil, "protocol": evil, "why": "failed", "priority": evil,
            "tries": [{ "endpoint": evil, "endedUs": 1, "result": evil, "then": evil }],
            "endpoint": evil, "status": 503, "code": evil, "reason": evil, "outcome": "failure", "tookUs": 2,
        });
        let record = serde_json::from_value(record).expect("a record");
        let told = Told {
            pod: "boutique/cart-0".to_owned(),
            record,
        };
        let story = story(&told);
        assert_eq!(story.lines().count(), 5, "{story:?}");
        let control = story.chars().filter(|c| c.is_control() && *c != '\n');
        assert_eq!(control.count(), 0, "{story:?}");
    }
}
