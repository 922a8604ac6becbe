//! Which claims held.

use serde::{Deserialize, Serialize};

use super::claim::{Claim, Measure, Phase, Relative};
use super::measure;
use super::record::Record;
use super::scenario::Scenario;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Verdict {
    pub claim: String,
    /// As it was measured, with its unit; `–` when there was nothing to measure.
    pub measured: String,
    pub bound: String,
    pub held: bool,
}

/// One scenario in one mode, as `summary.json` has it: what was asserted, and what the picture says.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Summary {
    pub offered_per_second: f64,
    pub goodput_per_second: f64,
    pub success: f64,
    pub p99_ms: Option<f64>,
    pub attempts_per_request: Option<f64>,
    pub detected_s: Option<f64>,
    /// By the watched sidecars; told beside the other, and no claim is about it.
    #[serde(default)]
    pub detected_by_watched_s: Option<f64>,
    pub recovered_s: Option<f64>,
    pub verdicts: Vec<Verdict>,
}

impl Summary {
    pub fn of(scenario: &Scenario, record: &Record) -> Self {
        let claims = match record.run.mesh {
            true => &scenario.must,
            false => &scenario.without,
        };
        let number = |measure, phase| {
            let claim = Claim {
                claim: String::new(),
                measure,
                phase,
                journey: None,
                fact: None,
                about: None,
                relative_to: None,
                negligible: None,
                at_least: None,
                at_most: None,
            };
            measure::of(&claim, scenario, record)
        };
        let during = record.run.marks.of(Phase::Fault);
        let offered = measure::requests(record, Phase::Fault, None).len() as f64;
        let attempts = number(Measure::Attempts, Phase::Fault);
        Self {
            offered_per_second: offered / (during.end - during.start),
            goodput_per_second: number(Measure::Goodput, Phase::Fault).unwrap_or_default(),
            success: number(Measure::Success, Phase::Fault).unwrap_or(1.0),
            p99_ms: number(Measure::P99, Phase::Fault),
            attempts_per_request: number(Measure::Arrivals, Phase::Fault).or(attempts),
            detected_s: number(Measure::Detected, Phase::Fault),
            detected_by_watched_s: measure::detected_by_watched(scenario, record),
            recovered_s: measure::recovered(record),
            verdicts: claims
                .iter()
                .map(|claim| judge(claim, scenario, record))
                .collect(),
        }
    }

    /// Where it is another moment than that of whoever was first.
    pub fn detected_later_by_watched(&self) -> Option<f64> {
        let later = self.detected_by_watched_s;
        later.filter(|_| later != self.detected_s)
    }

    pub fn all_held(&self) -> bool {
        self.verdicts.iter().all(|verdict| verdict.held)
    }
}

fn judge(claim: &Claim, scenario: &Scenario, record: &Record) -> Verdict {
    let value = measure::of(claim, scenario, record);
    let within = |value: f64| {
        claim.at_least.is_none_or(|least| value >= least)
            && claim.at_most.is_none_or(|most| value <= most)
    };
    let unit = match claim.relative_to {
        None => claim.measure.unit(),
        Some(Relative::Base) => "×",
        Some(Relative::Capacity) => "%",
    };
    let bounds = [("≥", claim.at_least), ("≤", claim.at_most)];
    let bounds = bounds
        .iter()
        .filter_map(|(sign, bound)| Some(format!("{sign} {}", with_unit((*bound)?, unit))));
    Verdict {
        claim: claim.claim.clone(),
        measured: value.map_or("–".into(), |value| with_unit(value, unit)),
        bound: bounds.collect::<Vec<_>>().join(", "),
        held: value.is_some_and(within),
    }
}

/// As people read it.
pub fn with_unit(value: f64, unit: &str) -> String {
    match unit {
        "%" => format!("{} %", digits(value * 100.0)),
        "s" if value.abs() < 1.0 => format!("{:.0} ms", value * 1000.0),
        "" | "×" => format!("{}{unit}", digits(value)),
        unit => format!("{} {unit}", digits(value)),
    }
}

/// Two decimals at most, and none that say nothing.
fn digits(value: f64) -> String {
    let text = match value.abs() {
        100.0.. => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    };
    let text = text.trim_end_matches('0').trim_end_matches('.');
    match text {
        "-0" => "0".to_owned(),
        text => text.to_owned(),
    }
}

#[cfg(test)]
mod tests;
