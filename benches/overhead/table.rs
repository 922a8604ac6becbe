//! What came of it, for people.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::arguments::{Arguments, Effort};
use crate::engine::Trouble;
use crate::memory::Memory;
use crate::rounds::{Cell, Figures, Load, Results};
use crate::shape::Shape;
use crate::statistic::Sample;
use crate::target::{self, Target};
use crate::tools;

/// In the names of subjects that were measured apart, and are compared with each other only.
pub const SCALED: &str = " · ";

pub struct Report {
    pub command: String,
    pub date: String,
    pub machine: String,
    pub versions: Vec<(String, String)>,
    pub rounds: usize,
    /// Share of the machine that programs had which are not part of this.
    pub foreign: Option<f64>,
    pub results: Results,
    pub memory: BTreeMap<String, Memory>,
    /// Who did not take part, and why.
    pub left_out: Vec<(String, String)>,
}

impl Report {
    pub fn new(arguments: &Arguments, effort: &Effort) -> Self {
        let mut command = "cargo bench --bench overhead".to_owned();
        let flags = [(arguments.quick, "--quick"), (arguments.full, "--full")];
        let flags: Vec<&str> = flags
            .into_iter()
            .filter_map(|(set, flag)| set.then_some(flag))
            .collect();
        if !flags.is_empty() {
            command += &format!(" -- {}", flags.join(" "));
        }
        Self {
            command,
            date: today(),
            machine: machine(),
            versions: versions(),
            rounds: effort.rounds,
            foreign: None,
            results: Results::new(),
            memory: BTreeMap::new(),
            left_out: Vec::new(),
        }
    }

    /// What went wrong with one subject is told at the end and stops nobody else; an interruption stops all.
    pub fn note<Any>(
        &mut self,
        name: &str,
        result: Result<Any, Trouble>,
    ) -> Result<Option<Any>, Trouble> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(Trouble::Interrupted) => Err(Trouble::Interrupted),
            Err(trouble) => {
                self.left_out.push((name.to_owned(), trouble.to_string()));
                Ok(None)
            }
        }
    }

    /// Empty where it was not measured.
    pub fn sample(&self, subject: &str, cell: Cell, what: fn(&Figures) -> &Sample) -> Sample {
        let figures = self.results.get(&(subject.to_owned(), cell));
        figures
            .map(|figures| what(figures).clone())
            .unwrap_or_default()
    }

    /// In the order of the shapes, saturation first.
    pub fn cells(&self) -> Vec<Cell> {
        let mut cells: Vec<Cell> = self.results.keys().map(|(_, cell)| *cell).collect();
        cells.sort_unstable();
        cells.dedup();
        cells
    }

    /// One hop first, the cheapest first.
    pub fn subjects(&self, cell: Cell) -> Vec<&str> {
        let of_cell = self
            .results
            .iter()
            .filter(|((name, other), _)| *other == cell && !name.contains(SCALED));
        let mut subjects: Vec<(&str, f64)> = of_cell
            .map(|((name, _), figures)| (name.as_str(), figures.cpu.median().unwrap_or(f64::MAX)))
            .collect();
        subjects.sort_by(|a, b| {
            (a.0.contains("2×"), a.1)
                .partial_cmp(&(b.0.contains("2×"), b.1))
                .expect("no NaN")
        });
        subjects.into_iter().map(|(name, _)| name).collect()
    }
}

pub fn print(report: &Report) {
    print!("{}", render(report));
}

fn render(report: &Report) -> String {
    let mut text = format!(
        "\n{} · {}\n{}\n",
        report.command, report.date, report.machine
    );
    for (name, version) in &report.versions {
        line(&mut text, format_args!("  {name}: {version}"));
    }
    line(
        &mut text,
        format_args!(
            "median of {} interleaved rounds; ± half of what lies between the quartiles; ~ the rounds disagree, compare nothing with it",
            report.rounds
        ),
    );
    if let Some(foreign) = report.foreign {
        let percent = foreign * 100.0;
        line(
            &mut text,
            format_args!("other programs used {percent:.0} % of the machine meanwhile"),
        );
    }
    for cell in report.cells() {
        match cell.load {
            Load::Saturation | Load::Multiplexed => saturation(report, cell, &mut text),
            Load::Rate(_) => rate(report, cell, &mut text),
        }
    }
    growth(report, &mut text);
    memory(report, &mut text);
    targets(&target::all(report), &mut text);
    for (name, why) in &report.left_out {
        line(&mut text, format_args!("left out: {name}: {why}"));
    }
    text
}

fn line(text: &mut String, line: std::fmt::Arguments) {
    writeln!(text, "{line}").expect("a string has room");
}

fn saturation(report: &Report, cell: Cell, text: &mut String) {
    let unit = cell.shape.unit();
    let throughput = if cell.shape == Shape::TcpBulk {
        "Gbit/s".to_owned()
    } else {
        format!("{unit}s/s")
    };
    line(text, format_args!("\n{}, one worker", cell.name()));
    line(
        text,
        format_args!(
            "  {:<32} {:>16} {:>8} {:>8} {:>14} {:>6}",
            "",
            format!("CPU µs/{unit}"),
            "×relay",
            "×envoy",
            throughput,
            "busy"
        ),
    );
    for name in report.subjects(cell) {
        let figures = &report.results[&(name.to_owned(), cell)];
        let per_second = match cell.shape {
            Shape::TcpBulk => figures.per_second.scaled(f64::from(1 << 20) * 8.0 / 1e9),
            _ => figures.per_second.clone(),
        };
        line(
            text,
            format_args!(
                "  {name:<32} {:>16} {:>8} {:>8} {:>14} {:>6}{}",
                number(&figures.cpu, 2),
                times(report, name, cell, "bare relay"),
                times(report, name, cell, "envoy"),
                median(
                    &per_second,
                    if cell.shape == Shape::TcpBulk { 2 } else { 0 }
                ),
                median(&figures.busy.scaled(100.0), 0) + "%",
                fault(figures)
            ),
        );
    }
}

fn rate(report: &Report, cell: Cell, text: &mut String) {
    line(
        text,
        format_args!(
            "\n{}, 32 connections, latency from the intended time",
            cell.name()
        ),
    );
    let head = format_args!(
        "  {:<32} {:>16} {:>8} {:>8} {:>14} {:>14} {:>14}",
        "", "CPU µs/request", "×relay", "×envoy", "added p50 µs", "added p99 µs", "added p99.9 µs"
    )
    .to_string();
    line(text, format_args!("{head}"));
    let direct = report
        .results
        .get(&("no proxy".to_owned(), cell))
        .cloned()
        .unwrap_or_default();
    for name in report.subjects(cell) {
        let figures = &report.results[&(name.to_owned(), cell)];
        let added = |what: fn(&Figures) -> &Sample| match name {
            "no proxy" => format!("({})", median(what(figures), 0)),
            _ => number(&what(figures).minus(what(&direct)), 0),
        };
        line(
            text,
            format_args!(
                "  {name:<32} {:>16} {:>8} {:>8} {:>14} {:>14} {:>14}{}",
                number(&figures.cpu, 1),
                times(report, name, cell, "bare relay"),
                times(report, name, cell, "envoy"),
                added(|figures| &figures.p50),
                added(|figures| &figures.p99),
                added(|figures| &figures.p999),
                fault(figures)
            ),
        );
    }
}

/// Rounds of their own: the same calls in meshes of different size.
fn growth(report: &Report, text: &mut String) {
    let scaled = report
        .results
        .iter()
        .filter(|((name, _), _)| name.contains(SCALED));
    for (row, ((name, cell), figures)) in scaled.enumerate() {
        if row == 0 {
            line(
                text,
                format_args!("\ncost as the mesh grows, one hop, CPU µs/request"),
            );
        }
        line(
            text,
            format_args!(
                "  {name:<50} {:<38} {:>12}",
                cell.name(),
                number(&figures.cpu, 2)
            ),
        );
    }
}

fn memory(report: &Report, text: &mut String) {
    line(
        text,
        format_args!("\nresident memory of one hop (of two: the second), MiB; start to ready"),
    );
    line(
        text,
        format_args!(
            "  {:<42} {:>8} {:>14} {:>14} {:>12} {:>10}",
            "", "idle", "1,000 conns", "KiB a conn", "after load", "start ms"
        ),
    );
    for (name, memory) in &report.memory {
        let mebibytes = |kib: Option<u64>| {
            kib.map_or("–".into(), |kib| format!("{:.1}", kib as f64 / 1024.0))
        };
        line(
            text,
            format_args!(
                "  {name:<42} {:>8} {:>14} {:>14} {:>12} {:>10}",
                mebibytes(memory.idle),
                mebibytes(memory.connections),
                memory
                    .per_connection()
                    .map_or("–".into(), |kib| format!("{kib:.1}")),
                mebibytes(memory.after_load),
                median(&memory.started_in.scaled(1e3), 0)
            ),
        );
    }
}

fn targets(targets: &[Target], text: &mut String) {
    line(text, format_args!("\ntargets of issue 3"));
    for target in targets {
        let bound = if target.at_most { "≤" } else { "≥" };
        let measured = format!("{} {}", number(&target.measured, 2), target.unit);
        line(
            text,
            format_args!(
                "  {:<74} {bound} {:>6} {:<3} {measured:>16}   {}",
                target.figure,
                target.limit,
                target.unit,
                target.verdict().text()
            ),
        );
    }
}

/// `12.34 ±3%`, with a mark when the rounds disagree.
pub fn number(sample: &Sample, digits: usize) -> String {
    let Some(spread) = sample.spread() else {
        return median(sample, digits);
    };
    let mark = if sample.is_steady() { "" } else { "~" };
    format!("{mark}{} ±{:.0}%", median(sample, digits), spread * 50.0)
}

fn median(sample: &Sample, digits: usize) -> String {
    sample
        .median()
        .map_or("–".into(), |value| grouped(value, digits))
}

/// Thousands apart.
fn grouped(value: f64, digits: usize) -> String {
    let text = format!("{:.digits$}", value.abs());
    let (whole, fraction) = text
        .split_once('.')
        .map_or((text.as_str(), None), |(whole, fraction)| {
            (whole, Some(fraction))
        });
    let mut out = String::new();
    for (at, digit) in whole.chars().enumerate() {
        if at > 0 && (whole.len() - at) % 3 == 0 {
            out.push(',');
        }
        out.push(digit);
    }
    let sign = if value < 0.0 { "-" } else { "" };
    let fraction = fraction.map_or(String::new(), |fraction| format!(".{fraction}"));
    format!("{sign}{out}{fraction}")
}

/// Compared with `other` of as many hops.
fn times(report: &Report, name: &str, cell: Cell, other: &str) -> String {
    let other = if name.contains("2×mTLS") {
        format!("{other} 2×mTLS")
    } else {
        other.to_owned()
    };
    let cpu = |name: &str| report.sample(name, cell, |figures| &figures.cpu);
    median(&cpu(name).ratio(&cpu(&other)), 2)
}

fn fault(figures: &Figures) -> String {
    match &figures.fault {
        Some(fault) => format!("   {} failed: {fault}", figures.failed),
        None => String::new(),
    }
}

fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpus = read("/proc/cpuinfo");
    let model = cpus
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    let model = model.map_or("unknown CPU", |(_, model)| model.trim());
    let cores = cpus
        .lines()
        .filter(|line| line.starts_with("processor"))
        .count();
    let kernel = read("/proc/sys/kernel/osrelease");
    format!("{cores} cores of {model}, Linux {}", kernel.trim())
}

fn versions() -> Vec<(String, String)> {
    let mut versions = vec![("weir".to_owned(), env!("CARGO_PKG_VERSION").to_owned())];
    if let Some(envoy) = tools::envoy() {
        let text = tools::version(&envoy, "--version");
        // "PATH  version: COMMIT/1.40.0/Clean/RELEASE/BoringSSL"
        let version = text
            .split_once("version: ")
            .and_then(|(_, version)| version.split('/').nth(1));
        versions.push(("envoy".into(), version.unwrap_or(&text).to_owned()));
    }
    for name in ["haproxy", "nginx"] {
        let text = tools::version(&Path::new("/usr/sbin").join(name), "-v");
        versions.push((name.to_owned(), version_in(&text).to_owned()));
    }
    versions
}

/// "HAProxy version 2.6.12-1 2026/10/17 - …" and "nginx version: nginx/1.22.1".
fn version_in(text: &str) -> &str {
    let words = text.split([' ', '/']);
    let mut numbers = words.filter(|word| word.starts_with(|first: char| first.is_ascii_digit()));
    numbers.next().unwrap_or(text)
}

/// UTC, by the civil calendar (Howard Hinnant's days_from_civil, backwards).
fn today() -> String {
    let seconds = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |age| age.as_secs());
    date_of(seconds / 86_400)
}

fn date_of(days: u64) -> String {
    let shifted = days + 719_468;
    let (era, day) = (shifted / 146_097, shifted % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (day, month) = (
        day - (153 * month + 2) / 5 + 1,
        if month < 10 { month + 3 } else { month - 9 },
    );
    let year = year + era * 400 + u64::from(month <= 2);
    format!("{year}-{month:02}-{day:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_become_dates() {
        assert_eq!(date_of(0), "1970-01-01");
        assert_eq!(date_of(19_782), "2024-02-29");
        assert_eq!(date_of(20_781), "2026-11-24");
    }

    #[test]
    fn versions_are_found_in_what_programs_say() {
        assert_eq!(
            version_in("HAProxy version 2.6.12-1+deb12u4 2026/10/17 - x"),
            "2.6.12-1+deb12u4"
        );
        assert_eq!(version_in("nginx version: nginx/1.22.1"), "1.22.1");
        assert_eq!(version_in("not there"), "not there");
    }

    #[test]
    fn numbers_are_grouped_and_say_how_far_apart_the_rounds_were() {
        assert_eq!(grouped(1_234_567.891, 1), "1,234,567.9");
        assert_eq!(grouped(-999.0, 0), "-999");
        let sample: Sample = [9.0, 10.0, 11.0].into_iter().collect();
        assert_eq!(number(&sample, 1), "10.0 ±5%");
        let wild: Sample = [1.0, 10.0, 30.0].into_iter().collect();
        assert_eq!(number(&wild, 0), "~10 ±72%");
        assert_eq!(number(&Sample::default(), 0), "–");
    }
}
