//! What a session showed, as text: scenario × (off, on), and every claim.

use std::fmt::Write;

use super::scenario::Scenario;
use super::session::Comparison;
use super::verdict::{Summary, with_unit};

const NONE: &str = "–";

pub fn render(rows: &[(&Scenario, Comparison)]) -> String {
    let mut text = String::new();
    let _ = writeln!(
        text,
        "\n{:<4} {:<20} {:<5} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9}",
        "",
        "WHILE IT FAILS",
        "MESH",
        "OFFERED",
        "GOODPUT",
        "SUCCESS",
        "P99",
        "ATTEMPTS",
        "DETECTED",
        "RECOVERED"
    );
    for (scenario, comparison) in rows {
        for (mode, summary) in [("off", &comparison.off), ("on", &comparison.on)] {
            let Some(summary) = summary else { continue };
            let _ = writeln!(text, "{}", row(scenario, mode, summary));
        }
    }
    text.push('\n');
    for (scenario, comparison) in rows {
        let _ = writeln!(text, "{} {}", scenario.id, scenario.title);
        for (mode, summary) in [("off", &comparison.off), ("on", &comparison.on)] {
            for verdict in summary.iter().flat_map(|summary| &summary.verdicts) {
                let held = match (verdict.held, mode) {
                    (true, _) => "held",
                    (false, "on") => "BROKEN",
                    (false, _) => "not so",
                };
                let _ = writeln!(
                    text,
                    "  {mode:<4} {held:<7} {}: {} ({})",
                    verdict.claim, verdict.measured, verdict.bound
                );
            }
            let later = summary
                .as_ref()
                .and_then(Summary::detected_later_by_watched);
            if let Some(later) = later {
                let (watched, later) = (&scenario.watch[0], with_unit(later, "s"));
                let _ = writeln!(
                    text,
                    "  {mode:<4} told    {watched} itself detected it: {later}"
                );
            }
        }
    }
    text
}

fn row(scenario: &Scenario, mode: &str, summary: &Summary) -> String {
    let some =
        |value: Option<f64>, unit| value.map_or(NONE.to_owned(), |value| with_unit(value, unit));
    format!(
        "{:<4} {:<20} {:<5} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9}",
        scenario.id,
        scenario.name,
        mode,
        format!("{:.0}/s", summary.offered_per_second),
        format!("{:.0}/s", summary.goodput_per_second),
        with_unit(summary.success, "%"),
        summary
            .p99_ms
            .map_or(NONE.to_owned(), |ms| format!("{ms:.0} ms")),
        some(summary.attempts_per_request, ""),
        some(summary.detected_s, "s"),
        some(summary.recovered_s, "s"),
    )
}
