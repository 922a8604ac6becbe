//! Three panels over one time axis: what became of requests, how long they took, what the mesh did about it.

use super::super::record::{Marks, Record};
use super::series::{self, CLASSES};
use super::svg::Page;

/// Where a chart is on the page, and which times and rates it spans.
#[derive(Clone, Copy)]
pub(super) struct Frame {
    pub(super) left: f64,
    pub(super) width: f64,
    pub(super) seconds: f64,
    pub(super) rate_max: f64,
}

const LATENCY_MIN_MS: f64 = 1.0;
const LATENCY_MAX_MS: f64 = 10_000.0;
const RIBBON: f64 = 10.0;
pub(super) const RIBBON_STEP: f64 = 27.0;
/// More than that are too many to read; the journal has them all.
pub(super) const RIBBONS_MAX: usize = 6;

impl Frame {
    fn x(&self, seconds: f64) -> f64 {
        self.left + self.width * (seconds / self.seconds).clamp(0.0, 1.0)
    }

    /// The time in which something fails.
    pub(super) fn band(&self, page: &mut Page, marks: Marks, top: f64, height: f64) {
        let (from, to) = (self.x(marks.fault), self.x(marks.recovery));
        page.rect("band", from, top, to - from, height);
    }

    /// Stacked: what was offered, by what became of it.
    pub(super) fn outcomes(&self, page: &mut Page, record: &Record, top: f64, height: f64) {
        let outcomes = series::outcomes(record);
        let xs: Vec<f64> = outcomes.edges.iter().map(|at| self.x(*at)).collect();
        let y = |rate: f64| top + height - height * (rate / self.rate_max).min(1.0);
        let mut below = vec![0.0; outcomes.rates.len()];
        for (class, name) in CLASSES.iter().enumerate() {
            let above: Vec<f64> = below
                .iter()
                .zip(&outcomes.rates)
                .map(|(below, rates)| below + rates[class])
                .collect();
            let edge = |rates: &[f64]| rates.iter().map(|rate| y(*rate)).collect::<Vec<f64>>();
            page.area(name, &xs, &edge(&below), &edge(&above));
            below = above;
        }
    }

    /// Seconds below the chart, from the beginning of the fault.
    pub(super) fn seconds(&self, page: &mut Page, marks: Marks, y: f64) {
        const STEP: i32 = 5;
        let first = (-marks.fault / f64::from(STEP)).ceil() as i32;
        let mut tick = first * STEP;
        while f64::from(tick) + marks.fault <= self.seconds {
            let x = self.x(f64::from(tick) + marks.fault);
            page.line("grid", &[Some((x, y - 14.0)), Some((x, y - 10.0))]);
            page.text("note middle", x, y, &format!("{tick} s"));
            tick += STEP;
        }
    }

    /// Rates to the left of the chart.
    pub(super) fn rates(&self, page: &mut Page, top: f64, height: f64) {
        for share in [0.0, 0.5, 1.0] {
            let y = top + height - height * share;
            let rate = self.rate_max * share;
            page.line(
                "grid",
                &[Some((self.left, y)), Some((self.left + self.width, y))],
            );
            page.text("note end", self.left - 5.0, y + 4.0, &format!("{rate:.0}"));
        }
    }

    /// p50 and p99 on a logarithmic scale.
    pub(super) fn latency(&self, page: &mut Page, record: &Record, top: f64, height: f64) {
        let decades = (LATENCY_MAX_MS / LATENCY_MIN_MS).log10();
        let y = |ms: f64| {
            let ms = ms.clamp(LATENCY_MIN_MS, LATENCY_MAX_MS);
            top + height - height * (ms / LATENCY_MIN_MS).log10() / decades
        };
        for (ms, label) in [
            (1.0, "1 ms"),
            (10.0, "10 ms"),
            (100.0, "100 ms"),
            (1000.0, "1 s"),
            (10_000.0, "10 s"),
        ] {
            page.line(
                "grid",
                &[
                    Some((self.left, y(ms))),
                    Some((self.left + self.width, y(ms))),
                ],
            );
            page.text("note end", self.left - 5.0, y(ms) + 4.0, label);
        }
        for (class, share) in [("p99", 0.99), ("p50", 0.50)] {
            let points: Vec<Option<(f64, f64)>> = series::latency(record, share)
                .into_iter()
                .map(|(at, ms)| Some((self.x(at), y(ms?))))
                .collect();
            page.line(class, &points);
        }
    }

    /// Breakers and gates, a ribbon each; returns how high that became.
    pub(super) fn ribbons(&self, page: &mut Page, record: &Record, top: f64) {
        let ribbons = series::ribbons(record);
        for (row, (name, stretches)) in ribbons.iter().take(RIBBONS_MAX).enumerate() {
            let y = top + row as f64 * RIBBON_STEP;
            page.text("note", self.left, y + 9.0, name);
            for stretch in stretches {
                let (from, to) = (self.x(stretch.from), self.x(stretch.to));
                if to > from {
                    page.rect(stretch.state, from, y + 13.0, (to - from).max(1.0), RIBBON);
                }
            }
        }
        if ribbons.is_empty() {
            let nothing = match record.run.mesh {
                true => "no breaker and no endpoint's gate changed",
                false => "no sidecars: nobody acts on it",
            };
            page.text("note", self.left, top + 9.0, nothing);
        }
    }

    /// Requests in the first watched app, and what its sidecar takes for its limit.
    pub(super) fn in_flight(&self, page: &mut Page, record: &Record, top: f64, height: f64) {
        let peak = record
            .looks
            .iter()
            .map(|look| look.in_flight.max(look.limit))
            .fold(1.0, f64::max);
        let y = |value: f64| top + height - height * value / peak;
        let line = |value: fn(&super::super::record::Look) -> f64| -> Vec<Option<(f64, f64)>> {
            let looks = record.looks.iter();
            looks
                .map(|look| {
                    (value(look) > 0.0 || value(look) == 0.0)
                        .then(|| (self.x(look.t), y(value(look))))
                })
                .collect()
        };
        page.line("limit", &line(|look| look.limit));
        page.line("flight", &line(|look| look.in_flight));
        page.text(
            "note end",
            self.left - 5.0,
            top + 4.0,
            &format!("{peak:.0}"),
        );
        page.text("note end", self.left - 5.0, top + height + 4.0, "0");
    }
}
