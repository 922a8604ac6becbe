//! A record in intervals: what charts draw.

use super::super::measure::{latencies, quantile, sent};
use super::super::record::{Record, Request};

pub(super) const CLASSES: [&str; 5] = ["ok", "degraded", "shed", "error", "timeout"];
/// Of outcomes, in seconds.
const OUTCOME: f64 = 0.25;
/// Of latencies: enough requests for a percentile.
const LATENCY: f64 = 0.5;

/// Requests a second in each interval, by class; those that were never sent count as errors.
pub(super) struct Outcomes {
    pub(super) edges: Vec<f64>,
    /// Of each interval, in the order of [`CLASSES`].
    pub(super) rates: Vec<[f64; 5]>,
}

pub(super) fn outcomes(record: &Record) -> Outcomes {
    let count = intervals(record, OUTCOME);
    let mut rates = vec![[0.0; 5]; count];
    for request in &record.requests {
        let interval = (request.t_intended / OUTCOME) as usize;
        let class = match request.class.as_str() {
            "dropped" => "error",
            other => other,
        };
        let class = CLASSES.iter().position(|known| *known == class);
        if let (Some(rates), Some(class)) = (rates.get_mut(interval), class) {
            rates[class] += 1.0 / OUTCOME;
        }
    }
    Outcomes {
        edges: (0..=count).map(|edge| edge as f64 * OUTCOME).collect(),
        rates,
    }
}

impl Outcomes {
    pub(super) fn peak(&self) -> f64 {
        let sums = self.rates.iter().map(|rates| rates.iter().sum::<f64>());
        sums.fold(0.0, f64::max)
    }
}

/// The middle of each interval, and milliseconds; none where nothing was sent.
pub(super) fn latency(record: &Record, share: f64) -> Vec<(f64, Option<f64>)> {
    let count = intervals(record, LATENCY);
    let of = |interval: usize| {
        let from = interval as f64 * LATENCY;
        let within: Vec<&Request> = record
            .requests
            .iter()
            .filter(|one| (from..from + LATENCY).contains(&one.t_intended))
            .collect();
        (
            from + LATENCY / 2.0,
            quantile(latencies(sent(&within)), share),
        )
    };
    (0..count).map(of).collect()
}

fn intervals(record: &Record, length: f64) -> usize {
    (record.run.marks.end / length).ceil() as usize
}

/// A stretch of time in one state, for a ribbon.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Stretch {
    pub(super) from: f64,
    pub(super) to: f64,
    pub(super) state: &'static str,
}

/// What the journal says of breakers and endpoints: a ribbon for each that ever changed.
pub(super) fn ribbons(record: &Record) -> Vec<(String, Vec<Stretch>)> {
    let mut ribbons: Vec<(String, Vec<Stretch>)> = Vec::new();
    for fact in &record.facts {
        let state = match fact.kind.as_str() {
            "BreakerOpened" | "EndpointEjected" => "open",
            "BreakerHalfOpened" | "EndpointProbed" => "half-open",
            "BreakerClosed" | "EndpointReadmitted" | "EndpointRestored" => "closed",
            _ => continue,
        };
        let name = label(&fact.reporter, &fact.subject);
        let place = ribbons.iter().position(|(known, _)| *known == name);
        let place = place.unwrap_or_else(|| {
            let closed = Stretch {
                from: 0.0,
                to: record.run.marks.end,
                state: "closed",
            };
            ribbons.push((name, vec![closed]));
            ribbons.len() - 1
        });
        let stretches = &mut ribbons[place].1;
        let at = fact.t.min(record.run.marks.end);
        if let Some(last) = stretches.last_mut() {
            last.to = at;
        }
        stretches.push(Stretch {
            from: at,
            to: record.run.marks.end,
            state,
        });
    }
    ribbons
}

/// `boutique/storefront-0` and `boutique/catalog:3550 10.244.0.4:3550`: storefront-0 → catalog 10.244.0.4.
fn label(caller: &str, subject: &str) -> String {
    let plain = |name: &str| name.rsplit('/').next().unwrap_or(name).to_owned();
    let mut words = subject.split_whitespace();
    let service = words.next().unwrap_or_default();
    let service = plain(service.split(':').next().unwrap_or(service));
    let endpoint = words.next().filter(|word| word.contains("10."));
    let endpoint = endpoint.and_then(|address| address.split(':').next());
    match endpoint {
        Some(endpoint) => format!("{} → {service} {endpoint}", plain(caller)),
        None => format!("{} → {service}", plain(caller)),
    }
}

#[cfg(test)]
mod tests;
