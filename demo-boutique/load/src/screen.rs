//! What a person sees: one line while it runs, a table at the end.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};

use boutique_load::{Percentiles, Report, Summary, Tick};

/// One line on stderr, rewritten in place on a terminal.
pub(crate) struct Progress {
    is_terminal: bool,
}

impl Progress {
    pub(crate) fn new() -> Self {
        Self {
            is_terminal: std::io::stderr().is_terminal(),
        }
    }

    pub(crate) fn show(&self, tick: &Tick) {
        let line = progress(tick);
        let mut stderr = std::io::stderr().lock();
        // Whoever closed stderr does not want to see it.
        let _ = match self.is_terminal {
            true => write!(stderr, "\r\x1b[K{line}"),
            false => writeln!(stderr, "{line}"),
        };
    }

    /// Ends the line, so that what follows starts on its own.
    pub(crate) fn end(&self) {
        if self.is_terminal {
            let _ = writeln!(std::io::stderr());
        }
    }
}

fn progress(tick: &Tick) -> String {
    let latest = &tick.latest;
    let (served, totals) = (latest.served, latest.totals);
    let failed = totals.offered - totals.served();
    let times = served.map_or_else(
        || "p50 – p99 –".to_owned(),
        |served| {
            format!(
                "p50 {} p99 {}",
                milliseconds(served.p50),
                milliseconds(served.p99)
            )
        },
    );
    format!(
        "{:>4.0}s  {:>6}/s  served {:>6}/s  failed {:>5}/s  {times}  in flight {}",
        tick.elapsed.as_secs_f64(),
        totals.offered,
        totals.served(),
        failed,
        tick.in_flight
    )
}

pub(crate) fn table(report: &Report) -> String {
    let summary = report.summary();
    let mut out = String::new();
    let mut line = |text: std::fmt::Arguments<'_>| {
        writeln!(out, "{text}").expect("a string takes everything");
    };
    let heads = [
        "offered", "done", "ok", "degraded", "shed", "error", "timeout", "dropped",
    ];
    line(format_args!("{:<12}{}", "", row(heads.map(str::to_owned))));
    line(format_args!("{:<12}{}", "all", counts(&summary)));
    let journeys = report.journeys();
    if journeys.len() > 1 {
        for journey in &journeys {
            line(format_args!(
                "{:<12}{}",
                journey.journey,
                counts(&journey.summary)
            ));
        }
    }
    line(format_args!(""));
    let heads = ["p50", "p90", "p99", "p99.9", "max"];
    line(format_args!(
        "{:<12}{}",
        "latency",
        row(heads.map(str::to_owned))
    ));
    line(format_args!("{:<12}{}", "served", times(summary.served)));
    line(format_args!("{:<12}{}", "all sent", times(summary.all)));
    if journeys.len() > 1 {
        for journey in &journeys {
            line(format_args!(
                "{:<12}{}",
                journey.journey,
                times(journey.summary.served)
            ));
        }
    }
    line(format_args!(
        "{:<12}{}",
        "send lag",
        times(summary.send_lag)
    ));
    line(format_args!(""));
    line(format_args!(
        "{:.1}/s served of what was asked for {:.1} s, {:.2} % of it",
        report.goodput(),
        report.elapsed.as_secs_f64(),
        summary.totals.success_ratio() * 100.0
    ));
    for (why, count) in report.failures() {
        line(format_args!("{count:>10} × {why}"));
    }
    out
}

fn counts(summary: &Summary) -> String {
    let totals = &summary.totals;
    row([
        totals.offered,
        totals.done,
        totals.ok,
        totals.degraded,
        totals.shed,
        totals.error,
        totals.timeout,
        totals.dropped,
    ]
    .map(|count| count.to_string()))
}

fn times(percentiles: Option<Percentiles>) -> String {
    match percentiles {
        None => row(["–"; 5].map(str::to_owned)),
        Some(times) => {
            let times = [times.p50, times.p90, times.p99, times.p999, times.max];
            row(times.map(milliseconds))
        }
    }
}

fn row<const CELLS: usize>(cells: [String; CELLS]) -> String {
    cells.iter().map(|cell| format!("{cell:>10}")).collect()
}

/// Three digits that matter, whatever the size.
fn milliseconds(number: f64) -> String {
    match number {
        ..10.0 => format!("{number:.2}ms"),
        ..1000.0 => format!("{number:.0}ms"),
        _ => format!("{:.2}s", number / 1000.0),
    }
}
