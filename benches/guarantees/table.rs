//! The table: on the terminal, and for a README.

use crate::figure::{Figure, Value};
use crate::judge::{Bound, Spread, Verdict};
use crate::misses;
use crate::plan::Case;
use crate::rounds::Results;
use crate::subject::Kind;

pub struct Report<'a> {
    pub cases: &'a [Case],
    pub kinds: &'a [Kind],
    /// How it was measured and where, one line for each run of the command.
    pub headings: Vec<String>,
    pub results: &'a Results,
}

/// One line, as text.
struct Row {
    case: usize,
    figure: Figure,
    target: String,
    cells: Vec<String>,
    verdict: Verdict,
    /// Why it is missed, if that is known.
    known: Option<&'static str>,
}

impl Row {
    fn word(&self) -> &'static str {
        match (self.verdict, self.known) {
            (Verdict::Met, _) => "met",
            (Verdict::Missed, None) => "missed",
            (Verdict::Missed, Some(_)) => "missed, as known",
            (Verdict::Unknown, _) => "",
        }
    }
}

impl Report<'_> {
    /// Targets that were missed although it is not said that they are, and all that were.
    pub fn missed(&self) -> [usize; 2] {
        let mut rows = self.rows(&mut Vec::new());
        rows.retain(|row| row.verdict == Verdict::Missed);
        let unknown = rows.iter().filter(|row| row.known.is_none());
        [unknown.count(), rows.len()]
    }

    pub fn print(&self) {
        let mut notes = Vec::new();
        let rows = self.rows(&mut notes);
        self.headings.iter().for_each(|line| println!("{line}"));
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
            println!("  {}", row.word());
        }
        println!();
        notes
            .iter()
            .enumerate()
            .for_each(|(number, note)| println!("[{}] {note}", number + 1));
        println!("{}", self.lateness());
        let mut reasons: Vec<&str> = Vec::new();
        for row in rows.iter().filter(|row| row.verdict == Verdict::Missed) {
            reasons.extend(row.known.filter(|reason| !reasons.contains(reason)));
        }
        reasons
            .iter()
            .for_each(|reason| println!("missed, as known: {reason}"));
    }

    pub fn markdown(&self) -> String {
        let mut notes = Vec::new();
        let rows = self.rows(&mut notes);
        let kinds = self.kinds.iter().map(|kind| kind.name());
        let names = kinds.collect::<Vec<_>>().join(" | ");
        let mut text = format!(
            "{}\n\n| | experiment | figure | target | {names} | |\n",
            self.headings.join("  \n")
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
                row.word()
            );
        }
        text.push('\n');
        for (number, note) in notes.iter().enumerate() {
            text += &format!("[{}] {note}  \n", number + 1);
        }
        text += &self.lateness();
        let mut missed = rows
            .iter()
            .filter(|row| row.verdict == Verdict::Missed)
            .peekable();
        if missed.peek().is_some() {
            text += "\n\nMissed:\n\n";
        }
        for row in missed {
            let case = &self.cases[row.case];
            text += &format!(
                "- {} {}, {}: {}\n",
                case.experiment,
                case.name,
                row.figure.name(),
                row.known.unwrap_or("not explained")
            );
        }
        text
    }

    /// What the figures rest on.
    fn lateness(&self) -> String {
        let worst = |place: usize| {
            let late = self.results.records.iter().map(|record| record.late[place]);
            late.fold(0.0, f64::max)
        };
        let records = &self.results.records;
        let busy = records.iter().map(|record| record.core_busy);
        format!(
            "Requests were sent late by {:.1} ms in the median, {:.1} ms at p99, {:.1} ms at most, in the worst of {} runs; \
             the proxies' core was busy to {:.0} % at most, all subjects together.",
            worst(0),
            worst(1),
            worst(2),
            records.len(),
            busy.fold(0.0, f64::max) * 100.0
        )
    }

    /// Reasons of empty cells go to `notes`, each once.
    fn rows(&self, notes: &mut Vec<String>) -> Vec<Row> {
        let mut rows = Vec::new();
        for (number, case) in self.cases.iter().enumerate() {
            if !self.results.has(number) {
                continue;
            }
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
                    known: misses::reason(case, *figure),
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
