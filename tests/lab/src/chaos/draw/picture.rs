//! One scenario: without the mesh on the left, in the mesh on the right, on the same scales.

use super::super::claim::Phase;
use super::super::record::Record;
use super::super::verdict::{Summary, with_unit};
use super::Subject;
use super::caption;
use super::chart::{Frame, RIBBON_STEP, RIBBONS_MAX};
use super::series;
use super::svg::{Page, wrap};

const WIDTH: f64 = 1180.0;
const MARGIN: f64 = 22.0;
/// For the labels of the vertical axes.
const AXIS: f64 = 44.0;
const CHART: f64 = 500.0;
const COLUMN: f64 = 580.0;
const OUTCOMES: f64 = 150.0;
const LATENCY: f64 = 120.0;
const FLIGHT: f64 = 46.0;
const LINE: f64 = 15.0;

pub(super) fn render(subject: &Subject) -> String {
    let scenario = &subject.scenario;
    let mut page = Page::default();
    let title = format!("{} · {}", scenario.id, scenario.title);
    page.text("title", MARGIN, 34.0, &title);
    let mut y = 54.0;
    for line in wrap(&scenario.shows, WIDTH - 2.0 * MARGIN) {
        page.text("note", MARGIN, y, &line);
        y += LINE;
    }
    legend(&mut page, y + 6.0);
    let top = y + 34.0;
    let both: Vec<&Record> = subject.off.iter().chain(&subject.on).collect();
    let seconds = both.iter().map(|one| one.run.marks.end).fold(1.0, f64::max);
    let peaks = both.iter().map(|one| series::outcomes(one).peak());
    let rows = both
        .iter()
        .map(|one| series::ribbons(one).len().min(RIBBONS_MAX));
    let shared = Shared {
        seconds,
        rate_max: round_up(peaks.fold(1.0, f64::max)),
        ribbons: rows.max().unwrap_or(0).max(1) as f64 * RIBBON_STEP,
    };
    let columns = [
        ("without the mesh", &subject.off, &subject.comparison.off),
        ("in the mesh", &subject.on, &subject.comparison.on),
    ];
    let mut bottom = top;
    for (number, (head, record, summary)) in columns.into_iter().enumerate() {
        let left = MARGIN + number as f64 * COLUMN;
        page.text("head", left, top, head);
        let ended = match (record, summary) {
            (Some(record), Some(summary)) => {
                column(&mut page, subject, record, summary, left, top, &shared)
            }
            _ => absent(&mut page, subject, left, top),
        };
        bottom = f64::max(bottom, ended);
    }
    let mut y = bottom + 14.0;
    for caption in captions(subject) {
        for line in wrap(&caption, WIDTH - 2.0 * MARGIN) {
            page.text("note", MARGIN, y, &line);
            y += LINE;
        }
    }
    page.finish(&title, WIDTH, y + 1.0)
}

/// One for both columns, or one each where they are not of one session.
fn captions(subject: &Subject) -> Vec<String> {
    let both = subject.off.iter().chain(&subject.on);
    let off = subject.off.as_ref().map(|one| &one.run.provenance);
    let on = subject.on.as_ref().map(|one| &one.run.provenance);
    if off.is_none() || on.is_none() || off == on {
        return vec![caption::of(both)];
    }
    let each = both.zip(["without the mesh", "in the mesh"]);
    each.map(|(record, column)| format!("{column}: {}", caption::of([record])))
        .collect()
}

/// What both columns have the same.
struct Shared {
    seconds: f64,
    rate_max: f64,
    ribbons: f64,
}

/// Draws a column, and says where it ended.
fn column(
    page: &mut Page,
    subject: &Subject,
    record: &Record,
    summary: &Summary,
    left: f64,
    top: f64,
    shared: &Shared,
) -> f64 {
    let frame = Frame {
        left: left + AXIS,
        width: CHART,
        seconds: shared.seconds,
        rate_max: shared.rate_max,
    };
    let marks = record.run.marks;
    let outcomes = top + 34.0;
    let latency = outcomes + OUTCOMES + 30.0;
    let ribbons = latency + LATENCY + 24.0;
    let flight = ribbons + shared.ribbons + 26.0;
    frame.band(
        page,
        marks,
        outcomes - 8.0,
        flight + FLIGHT - outcomes + 8.0,
    );
    page.text(
        "note",
        left,
        outcomes - 16.0,
        "requests a second, by what became of them",
    );
    frame.rates(page, outcomes, OUTCOMES);
    frame.outcomes(page, record, outcomes, OUTCOMES);
    page.text(
        "note",
        left,
        latency - 12.0,
        "milliseconds from the intended time",
    );
    frame.latency(page, record, latency, LATENCY);
    page.text(
        "note",
        left,
        ribbons - 8.0,
        "circuit breakers and endpoints",
    );
    frame.ribbons(page, record, ribbons);
    let watched = &subject.scenario.watch[0];
    if record.run.mesh {
        let what = format!("in flight in {watched}, and its sidecar's limit (dashed)");
        page.text("note", left, flight - 10.0, &what);
        frame.in_flight(page, record, flight, FLIGHT);
    }
    frame.seconds(page, marks, flight + FLIGHT + 20.0);
    numbers(page, subject, record, summary, left, flight + FLIGHT + 44.0)
}

/// What was done, what it came to, and what was asserted.
fn numbers(
    page: &mut Page,
    subject: &Subject,
    record: &Record,
    summary: &Summary,
    left: f64,
    top: f64,
) -> f64 {
    let mut y = top;
    let mut lines = |page: &mut Page, class: &str, text: &str| {
        for line in wrap(text, COLUMN - 2.0 * MARGIN) {
            page.text(class, left, y, &line);
            y += LINE;
        }
    };
    let during = record.run.marks.of(Phase::Fault);
    let fault = match &subject.scenario.load.fault_rate {
        Some(rate) => format!(
            "grey: {rate}/s in place of {}/s for {:.1} s",
            subject.scenario.load.rate,
            during.end - during.start
        ),
        None => {
            let first = record
                .run
                .steps
                .first()
                .map_or("", |(_, what)| what.as_str());
            format!("grey, {:.1} s: {first}", during.end - during.start)
        }
    };
    lines(page, "note", &fault);
    lines(page, "note", &format!("meanwhile: {}", figures(summary)));
    for verdict in &summary.verdicts {
        let (class, mark) = match (verdict.held, record.run.mesh) {
            (true, _) => ("note good", "✓"),
            (false, true) => ("note bad", "✗"),
            (false, false) => ("note", "·"),
        };
        let text = format!(
            "{mark} {}: {} ({})",
            verdict.claim, verdict.measured, verdict.bound
        );
        lines(page, class, &text);
    }
    y
}

/// Offered, goodput, p99, attempts a request, time to detect (by the first, by the watched), time to recover.
pub(super) fn figures(summary: &Summary) -> String {
    let mut parts = vec![
        format!("offered {:.0}/s", summary.offered_per_second),
        format!("goodput {:.0}/s", summary.goodput_per_second),
    ];
    let some = [
        ("p99", summary.p99_ms, "ms"),
        ("attempts a request", summary.attempts_per_request, ""),
        ("detected after", summary.detected_s, "s"),
        (
            "by the watched after",
            summary.detected_later_by_watched(),
            "s",
        ),
        ("recovered after", summary.recovered_s, "s"),
    ];
    for (name, value, unit) in some {
        if let Some(value) = value {
            let value = if unit == "ms" { value.round() } else { value };
            parts.push(format!("{name} {}", with_unit(value, unit)));
        }
    }
    parts.join(" · ")
}

fn absent(page: &mut Page, subject: &Subject, left: f64, top: f64) -> f64 {
    let why = subject.scenario.only_with_mesh.as_deref();
    let mut y = top + 20.0;
    for line in wrap(why.unwrap_or("this was not run"), COLUMN - 2.0 * MARGIN) {
        page.text("note", left, y, &line);
        y += LINE;
    }
    y
}

fn legend(page: &mut Page, y: f64) {
    let mut x = MARGIN;
    for name in series::CLASSES {
        page.rect(name, x, y - 9.0, 10.0, 10.0);
        page.text("note", x + 14.0, y, name);
        x += 26.0 + 7.0 * name.len() as f64;
    }
    for (class, name) in [("p50", "p50"), ("p99", "p99")] {
        page.line(class, &[Some((x, y - 4.0)), Some((x + 14.0, y - 4.0))]);
        page.text("note", x + 18.0, y, name);
        x += 52.0;
    }
    for name in ["closed", "half-open", "open"] {
        page.rect(name, x, y - 9.0, 10.0, 10.0);
        page.text("note", x + 14.0, y, &format!("{name} / {}", gate(name)));
        x += 34.0 + 7.0 * (name.len() + gate(name).len()) as f64;
    }
    page.rect("band", x, y - 9.0, 10.0, 10.0);
    page.text("note", x + 14.0, y, "while it fails");
}

/// What the same colour means for an endpoint.
fn gate(breaker: &str) -> &'static str {
    match breaker {
        "closed" => "takes calls",
        "half-open" => "probed",
        _ => "ejected",
    }
}

/// To a number that is easy to read.
pub(super) fn round_up(rate: f64) -> f64 {
    let steps = [
        10.0, 20.0, 40.0, 60.0, 80.0, 100.0, 150.0, 200.0, 300.0, 400.0, 600.0, 1000.0,
    ];
    let fitting = steps.into_iter().find(|step| *step >= rate);
    fitting.unwrap_or((rate / 1000.0).ceil() * 1000.0)
}
