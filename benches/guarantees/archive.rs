//! Results as JSON, with the seconds they come from; and back, so that experiments measured one by one come to one table.

use std::path::Path;
use std::time::Duration;

use serde_json::{Map, Value as Json, json};

use crate::evidence::Second;
use crate::figure::{Figure, Value};
use crate::plan::Case;
use crate::rounds::{Record, Results};
use crate::subject::Kind;
use crate::table::Report;
use crate::trouble::Trouble;

pub fn write(report: &Report<'_>) -> String {
    let runs = report.results.records.iter();
    let runs: Vec<Json> = runs.map(|record| run(report.cases, record)).collect();
    let left_out = report.results.left_out.iter();
    let left_out: Vec<Json> = left_out
        .map(|(case, kind, reason)| {
            let case = &report.cases[*case];
            json!({"experiment": case.experiment, "case": case.name, "subject": kind.name(), "reason": reason})
        })
        .collect();
    let all = json!({"headings": report.headings, "left_out": left_out, "runs": runs});
    format!("{all:#}\n")
}

fn run(cases: &[Case], record: &Record) -> Json {
    let case = &cases[record.case];
    let figure = |(figure, value): &(Figure, Value)| {
        let value = match value {
            Value::Number(number) => json!(number),
            Value::Over(watched) => json!({"over": watched}),
            Value::Missing(reason) => json!({"missing": reason}),
        };
        (figure.name().to_owned(), value)
    };
    let figures: Map<String, Json> = record.figures.iter().map(figure).collect();
    let each =
        |get: fn(&Second) -> usize| -> Vec<usize> { record.seconds.iter().map(get).collect() };
    json!({
        "experiment": case.experiment, "case": case.name, "subject": record.kind.name(), "repeat": record.repeat,
        "figures": figures,
        "late_ms": record.late,
        "proxies_core_busy": record.core_busy,
        "proxy_cpu_us_per_request": record.cpu_per_request.as_secs_f64() * 1e6,
        "seconds": {
            "offered": each(|second| second.offered),
            "good": each(|second| second.good),
            "arrived": each(|second| second.arrived),
        },
    })
}

/// Adds what a file says to `results`, and gives its headings.
pub fn read(path: &Path, cases: &[Case], results: &mut Results) -> Result<Vec<String>, Trouble> {
    let file = path.display();
    let text = std::fs::read_to_string(path).map_err(Trouble::during(file.to_string()))?;
    let all: Json =
        serde_json::from_str(&text).map_err(|error| Trouble::Failed(format!("{file}: {error}")))?;
    let other =
        |what: &str| Trouble::Failed(format!("{file}: {what}: written by another version?"));
    let list = |of: &Json, name: &str| of[name].as_array().cloned().ok_or_else(|| other(name));
    let whose = |of: &Json| {
        let is_it = |case: &Case| of["experiment"] == case.experiment && of["case"] == case.name;
        let kind = Kind::ALL
            .into_iter()
            .find(|kind| of["subject"] == kind.name());
        let case = cases.iter().position(is_it);
        case.zip(kind).ok_or_else(|| other("no such case"))
    };
    for run in list(&all, "runs")? {
        let (case, kind) = whose(&run)?;
        let known = &cases[case].figures;
        let figures = known.iter().map(|(figure, _)| {
            let value = value(&run["figures"][figure.name()]);
            value
                .map(|value| (*figure, value))
                .ok_or_else(|| other(figure.name()))
        });
        let late: Option<Vec<f64>> = list(&run, "late_ms")?.iter().map(Json::as_f64).collect();
        let late = late.and_then(|late| late.try_into().ok());
        let cpu = run["proxy_cpu_us_per_request"].as_f64();
        results.records.push(Record {
            case,
            kind,
            repeat: run["repeat"].as_u64().unwrap_or_default() as u16,
            figures: figures.collect::<Result<_, _>>()?,
            seconds: seconds(&run["seconds"]),
            late: late.ok_or_else(|| other("late_ms"))?,
            cpu_per_request: Duration::from_secs_f64(cpu.unwrap_or_default() / 1e6),
            core_busy: run["proxies_core_busy"].as_f64().unwrap_or_default(),
        });
    }
    for left_out in list(&all, "left_out")? {
        let (case, kind) = whose(&left_out)?;
        let reason = left_out["reason"].as_str().unwrap_or_default().to_owned();
        results.left_out.push((case, kind, reason));
    }
    let headings = list(&all, "headings")?;
    let headings = headings.iter().map(|line| line.as_str().map(str::to_owned));
    headings
        .collect::<Option<_>>()
        .ok_or_else(|| other("headings"))
}

fn value(json: &Json) -> Option<Value> {
    if let Some(number) = json.as_f64() {
        return Some(Value::Number(number));
    }
    if let Some(watched) = json["over"].as_f64() {
        return Some(Value::Over(watched));
    }
    let reason = json["missing"].as_str()?;
    // Few, short, and needed until the end of the program.
    Some(Value::Missing(reason.to_owned().leak()))
}

fn seconds(json: &Json) -> Vec<Second> {
    let of = |name: &str, second: usize| json[name][second].as_u64().unwrap_or_default() as usize;
    let count = json["offered"].as_array().map_or(0, Vec::len);
    let second = |second| Second {
        offered: of("offered", second),
        good: of("good", second),
        arrived: of("arrived", second),
    };
    (0..count).map(second).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::cases;

    /// Planted bug: reading `over` as a number turns this red.
    #[test]
    fn what_is_written_is_read_again() {
        let cases = cases();
        let values = [Value::Number(0.5), Value::Over(6.0), Value::Missing("why")];
        let figures = cases[0].figures.iter().zip(values.iter().cycle());
        let figures: Vec<(Figure, Value)> = figures
            .map(|((figure, _), value)| (*figure, *value))
            .collect();
        let mut results = Results::default();
        results.records.push(Record {
            case: 0,
            kind: Kind::EnvoyBest,
            repeat: 2,
            figures: figures.clone(),
            seconds: vec![Second {
                offered: 3,
                good: 2,
                arrived: 4,
            }],
            late: [0.5, 1.5, 20.0],
            cpu_per_request: Duration::from_micros(70),
            core_busy: 0.25,
        });
        results.left_out.push((1, Kind::Weir, "it died".to_owned()));
        let report = Report {
            cases: &cases,
            kinds: &Kind::ALL,
            headings: vec!["how".to_owned()],
            results: &results,
        };
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("all.json");
        std::fs::write(&path, write(&report)).expect("it can be written");
        let mut again = Results::default();
        let headings = read(&path, &cases, &mut again).expect("it can be read");
        assert_eq!(headings, ["how"]);
        assert_eq!(again.left_out, results.left_out);
        let [record] = &again.records[..] else {
            panic!("one was written");
        };
        assert_eq!(record.figures, figures);
        assert_eq!(
            (record.case, record.kind, record.repeat),
            (0, Kind::EnvoyBest, 2)
        );
        assert_eq!(record.seconds, results.records[0].seconds);
        assert_eq!(record.late, [0.5, 1.5, 20.0]);
        assert_eq!(record.core_busy, 0.25);
        assert_eq!(record.cpu_per_request, Duration::from_micros(70));
    }
}
