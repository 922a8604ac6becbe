//! All scenarios of a session on one sheet: what became of requests, without the mesh and in it.

use super::super::verdict::{Summary, with_unit};
use super::Subject;
use super::caption;
use super::chart::Frame;
use super::picture::round_up;
use super::series;
use super::svg::{Page, wrap};

const WIDTH: f64 = 1180.0;
const MARGIN: f64 = 22.0;
const CHART: f64 = 252.0;
const HEIGHT: f64 = 64.0;
const GAP: f64 = 22.0;
const CELL: f64 = 158.0;
const PAIR: f64 = 2.0 * CHART + GAP + 44.0;
const TITLE: &str = "What visitors get when something fails: without the mesh, and in it";

pub(super) fn render(subjects: &[Subject]) -> String {
    let mut page = Page::default();
    page.text("title", MARGIN, 34.0, TITLE);
    legend(&mut page, 56.0);
    let top = 86.0;
    for (number, subject) in subjects.iter().enumerate() {
        let left = MARGIN + (number % 2) as f64 * PAIR;
        cell(&mut page, subject, left, top + (number / 2) as f64 * CELL);
    }
    let bottom = top + subjects.len().div_ceil(2) as f64 * CELL;
    let mut y = bottom + 4.0;
    let drawn = subjects.iter();
    let drawn = drawn.flat_map(|subject| subject.off.iter().chain(&subject.on));
    for line in wrap(&caption::of(drawn), WIDTH - 2.0 * MARGIN) {
        page.text("note", MARGIN, y, &line);
        y += 15.0;
    }
    page.finish(TITLE, WIDTH, y + 8.0)
}

fn legend(page: &mut Page, y: f64) {
    let mut x = MARGIN;
    for name in series::CLASSES {
        page.rect(name, x, y - 9.0, 10.0, 10.0);
        page.text("note", x + 14.0, y, name);
        x += 26.0 + 7.0 * name.len() as f64;
    }
    page.rect("band", x, y - 9.0, 10.0, 10.0);
    page.text(
        "note",
        x + 14.0,
        y,
        "while it fails. Requests a second; both halves of a pair have the same scales.",
    );
}

fn cell(page: &mut Page, subject: &Subject, left: f64, top: f64) {
    let scenario = &subject.scenario;
    page.text(
        "head",
        left,
        top,
        &format!("{} · {}", scenario.id, scenario.title),
    );
    let both = || subject.off.iter().chain(&subject.on);
    let seconds = both().map(|one| one.run.marks.end).fold(1.0, f64::max);
    let peak = both()
        .map(|one| series::outcomes(one).peak())
        .fold(1.0, f64::max);
    let halves = [
        ("off", &subject.off, &subject.comparison.off),
        ("on", &subject.on, &subject.comparison.on),
    ];
    for (number, (mode, record, summary)) in halves.into_iter().enumerate() {
        let frame = Frame {
            left: left + number as f64 * (CHART + GAP),
            width: CHART,
            seconds,
            rate_max: round_up(peak),
        };
        let chart = top + 14.0;
        let (Some(record), Some(summary)) = (record, summary) else {
            let why = scenario
                .only_with_mesh
                .as_deref()
                .unwrap_or("this was not run");
            for (row, line) in wrap(why, CHART).iter().enumerate() {
                page.text("note", frame.left, chart + 14.0 + row as f64 * 14.0, line);
            }
            continue;
        };
        frame.band(page, record.run.marks, chart, HEIGHT);
        frame.outcomes(page, record, chart, HEIGHT);
        let floor = chart + HEIGHT;
        page.line(
            "grid",
            &[Some((frame.left, floor)), Some((frame.left + CHART, floor))],
        );
        page.text(
            "note",
            frame.left,
            floor + 16.0,
            &format!("{mode}: {}", served(summary)),
        );
        let held = summary.verdicts.iter().filter(|one| one.held).count();
        if mode == "on" {
            let class = if summary.all_held() {
                "note good"
            } else {
                "note bad"
            };
            let text = format!("{held} of {} claims held", summary.verdicts.len());
            page.text(class, frame.left, floor + 31.0, &text);
        } else {
            page.text("note", frame.left, floor + 31.0, &recovery(summary));
        }
    }
}

/// Meanwhile.
fn served(summary: &Summary) -> String {
    let p99 = summary.p99_ms.map_or_else(String::new, |ms| match ms {
        1000.0.. => format!(", p99 {:.1} s", ms / 1000.0),
        _ => format!(", p99 {ms:.0} ms"),
    });
    format!(
        "{} served{p99}",
        with_unit((summary.success * 1000.0).floor() / 1000.0, "%")
    )
}

fn recovery(summary: &Summary) -> String {
    match summary.recovered_s {
        Some(seconds) => format!("as before {} after its end", with_unit(seconds, "s")),
        None => "not as before when the run ended".into(),
    }
}
