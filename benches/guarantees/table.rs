//! The table: on the terminal, for a README, and as JSON with everything it comes from.

use serde_json::{Value as Json, json};

use crate::arguments::Effort;
use crate::figure::{Figure, Value};
use crate::judge::{Bound, Spread, Verdict};
use crate::plan::Case;
use crate::rounds::{Record, Results};
use crate::subject::Kind;

pub struct Report<'a> {
    pub cases: &'a [Case],
    pub kinds: &'a [Kind],
    pub effort: Effort,
    pub seed: u64,
    pub results: &'a Results,
}

/// One line, as text.
struct Row {
    case: usize,
    figure: Figure,
    target: String,
    cells: Vec<String>,
    verdict: Verdict,
}

impl Report<'_> {
    pub fn missed(&self) -> usize {
        let rows = self.rows(&mut Vec::new());
        rows.iter()
            .filter(|row| row.verdict == Verdict::Missed)
            .count()
    }

    pub fn print(&self) {
        let mut notes = Vec::new();
        let rows = self.rows(&mut notes);
        println!("{}", self.heading());
        let mut last = None;
        for row in &rows {
            if last != Some(row.case) {
                let case = &self.cases[row.case];
                println!("\n{:4} {}", case.experiment, case.name);
                print!("     {:38} {:>10}", "", "target");
                self.kinds
                    .iter()
                    .for_each(|kind| print!(" {:>28}", kind.name()));
                println!();
                last = Some(row.case);
            }
            print!("     {:38} {:>10}", row.figure.name(), row.target);
            row.cells.iter().for_each(|cell| print!(" {cell:>28}"));
            println!("  {}", word(row.verdict));
        }
        println!();
        notes
            .iter()
            .enumerate()
            .for_each(|(number, note)| println!("[{}] {note}", number + 1));
        println!("{}", self.lateness());
    }

    pub fn markdown(&self) -> String {
        let mut notes = Vec::new();
        let rows = self.rows(&mut notes);
        let kinds = self.kinds.iter().map(|kind| kind.name());
        let names = kinds.collect::<Vec<_>>().join(" | ");
        let mut text = format!(
            "{}\n\n| | experiment | figure | target | {names} | |\n",
            self.heading()
        );
        text += &format!(
            "|---|---|---|---:|{}---|\n",
            "---:|".repeat(self.kinds.len())
        );
        let mut last = None;
        for row in &rows {
            let case = &self.cases[row.case];
            let (experiment, name) = match last == Some(row.case) {
                true => ("", ""),
                false => (case.experiment, case.name),
            };
            last = Some(row.case);
            text += &format!(
                "| {experiment} | {name} | {} | {} | {} | {} |\n",
                row.figure.name(),
                row.target,
                row.cells.join(" | "),
                word(row.verdict)
            );
        }
        text.push('\n');
        for (number, note) in notes.iter().enumerate() {
            text += &format!("[{}] {note}  \n", number + 1);
        }
        text + &self.lateness() + "\n"
    }

    fn heading(&self) -> String {
        let Effort {
            name,
            repeats,
            warm_up,
            fault,
            after,
        } = self.effort;
        format!(
            "Mode {name}, seed {}: {repeats} repeats (median, least–greatest), {} s warm-up, {} s fault, {} s after it at \
             least; Poisson arrivals; subjects side by side.",
            self.seed,
            warm_up.as_secs(),
            fault.as_secs(),
            after.as_secs()
        )
    }

    /// What the figures rest on.
    fn lateness(&self) -> String {
        let worst = |place: usize| {
            let late = self.results.records.iter().map(|record| record.late[place]);
            late.fold(0.0, f64::max)
        };
        format!(
            "Requests were sent late by {:.1} ms in the median, {:.1} ms at p99, {:.1} ms at most, in the worst of {} runs.",
            worst(0),
            worst(1),
            worst(2),
            self.results.records.len()
        )
    }

    /// Reasons of empty cells go to `notes`, each once.
    fn rows(&self, notes: &mut Vec<String>) -> Vec<Row> {
        let mut rows = Vec::new();
        for (number, case) in self.cases.iter().enumerate() {
            for (figure, bound) in &case.figures {
                let mut verdict = Verdict::Unknown;
                let mut cells = Vec::new();
                for kind in self.kinds {
                    let spread = Spread::of(&self.results.values(number, *kind, *figure));
                    if let (Kind::Weir, Some(spread)) = (kind, &spread) {
                        verdict = bound.judge(spread);
                    }
                    cells.push(self.cell(number, *kind, *figure, spread, notes));
                }
                rows.push(Row {
                    case: number,
                    figure: *figure,
                    target: bound.text(figure.unit()),
                    cells,
                    verdict,
                });
            }
        }
        rows
    }

    fn cell(
        &self,
        case: usize,
        kind: Kind,
        figure: Figure,
        spread: Option<Spread>,
        notes: &mut Vec<String>,
    ) -> String {
        let text = spread
            .as_ref()
            .and_then(|spread| spread.text(figure.unit()));
        text.unwrap_or_else(|| {
            let reason = match spread.map(|spread| spread.median) {
                Some(Value::Missing(reason)) => reason.to_owned(),
                _ => self.why_left_out(case, kind),
            };
            let known = notes.iter().position(|note| *note == reason);
            let number = known.unwrap_or_else(|| {
                notes.push(reason);
                notes.len() - 1
            });
            format!("[{}]", number + 1)
        })
    }

    fn why_left_out(&self, case: usize, kind: Kind) -> String {
        let mut left_out = self.results.left_out.iter();
        let found = left_out.find(|(number, other, _)| (*number, *other) == (case, kind));
        found.map_or_else(|| "not run".to_owned(), |(_, _, reason)| reason.clone())
    }

    pub fn json(&self) -> String {
        let runs: Vec<Json> = self
            .results
            .records
            .iter()
            .map(|record| self.run(record))
            .collect();
        let rows = self.rows(&mut Vec::new());
        let summary: Vec<Json> = rows.iter().map(|row| self.summary(row)).collect();
        let all =
            json!({"heading": self.heading(), "seed": self.seed, "summary": summary, "runs": runs});
        format!("{all:#}\n")
    }

    fn summary(&self, row: &Row) -> Json {
        let case = &self.cases[row.case];
        let cells = self.kinds.iter().map(|kind| kind.name().to_owned());
        let cells: serde_json::Map<String, Json> = cells
            .zip(row.cells.iter().map(|cell| json!(cell)))
            .collect();
        json!({
            "experiment": case.experiment, "case": case.name, "figure": row.figure.name(),
            "target": row.target, "cells": cells, "weir": word(row.verdict),
        })
    }

    fn run(&self, record: &Record) -> Json {
        let case = &self.cases[record.case];
        let figure = |(figure, value): &(Figure, Value)| {
            let value = match value {
                Value::Number(number) => json!(number),
                Value::Over(watched) => json!({"over": watched}),
                Value::Missing(reason) => json!({"missing": reason}),
            };
            (figure.name().to_owned(), value)
        };
        let figures: serde_json::Map<String, Json> = record.figures.iter().map(figure).collect();
        let each = |get: fn(&crate::evidence::Second) -> usize| -> Vec<usize> {
            record.seconds.iter().map(get).collect()
        };
        json!({
            "experiment": case.experiment, "case": case.name, "subject": record.kind.name(), "repeat": record.repeat,
            "figures": figures,
            "late_ms": {"p50": record.late[0], "p99": record.late[1], "max": record.late[2]},
            "proxy_cpu_us_per_request": record.cpu_per_request.as_secs_f64() * 1e6,
            "seconds": {
                "offered": each(|second| second.offered),
                "good": each(|second| second.good),
                "arrived": each(|second| second.arrived),
            },
        })
    }

    /// What `--list` shows.
    pub fn list(cases: &[Case]) {
        for case in cases {
            println!("{:4} {}", case.experiment, case.name);
            for (figure, bound) in &case.figures {
                let target = match bound {
                    Bound::None => "shown".to_owned(),
                    bound => bound.text(figure.unit()),
                };
                println!("     {:38} {target}", figure.name());
            }
        }
    }
}

const fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Met => "met",
        Verdict::Missed => "missed",
        Verdict::Unknown => "",
    }
}
