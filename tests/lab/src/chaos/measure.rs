//! Numbers out of a record. Pure: the same record gives the same numbers, in the run and in the report.

use super::claim::{Claim, Measure, Phase, Relative};
use super::record::{Record, Request};
use super::scenario::{By, Scenario, Sign};
use super::shown;

/// Visitors have what they had before when no stretch of this length is worse than that any more.
const STRETCH: f64 = 0.25;
const WORSE_MAX: f64 = 0.05;
/// The journey that orders.
const CHECKOUT: &str = "checkout";

/// What the claim is about; none when there was nothing to measure.
pub fn of(claim: &Claim, scenario: &Scenario, record: &Record) -> Option<f64> {
    let value = at(claim, scenario, record, claim.phase)?;
    match claim.relative_to {
        None => Some(value),
        Some(Relative::Base) => {
            let base = at(claim, scenario, record, Phase::Base)?;
            if (value - base).abs() <= claim.negligible.unwrap_or_default() {
                return Some(1.0);
            }
            (base > 0.0).then_some(value / base)
        }
        Some(Relative::Capacity) => Some(value / scenario.load.capacity?),
    }
}

fn at(claim: &Claim, scenario: &Scenario, record: &Record, phase: Phase) -> Option<f64> {
    let range = record.run.marks.of(phase);
    let seconds = range.end - range.start;
    let requests = requests(record, phase, claim.journey.as_deref());
    let share = |classes: &[&str]| share(&requests, |one| classes.contains(&one.class.as_str()));
    let count = |name: &str| record.run.counts.get(name).copied();
    let per_request = |count: f64| (!requests.is_empty()).then(|| count / requests.len() as f64);
    match claim.measure {
        Measure::Success => share(&["ok", "degraded"]),
        Measure::Ok => share(&["ok"]),
        Measure::Degraded => share(&["degraded"]),
        Measure::Shed => share(&["shed"]),
        Measure::Failed => share(&["error", "timeout", "dropped"]),
        Measure::RetryAfter => {
            let shed: Vec<&Request> = requests
                .into_iter()
                .filter(|one| one.class == "shed")
                .collect();
            self::share(&shed, |one| one.retry_after)
        }
        Measure::Goodput => Some(served(&requests).count() as f64 / seconds),
        Measure::P50 => quantile(latencies(sent(&requests)), 0.50),
        Measure::P99 => quantile(latencies(sent(&requests)), 0.99),
        Measure::ServedP99 => quantile(latencies(served(&requests)), 0.99),
        Measure::Attempts => per_request(attempts_between(record, range.start, range.end)?),
        Measure::AttemptsUntilOpen => {
            let opened = record.run.marks.fault + first_opening(scenario, record)?;
            attempts_between(record, record.run.marks.fault, opened)
        }
        Measure::AttemptsPerProbing => attempts_per_probing(scenario, record),
        Measure::Hedges => count("hedges"),
        Measure::Retries => count("retries"),
        Measure::Arrivals => per_request(count("arrivals")?),
        Measure::Detected => {
            let sign = scenario.detected_by.as_ref()?;
            after(scenario, record, sign, sign.by, record.run.marks.fault)
        }
        Measure::Healed => {
            let sign = scenario.healed_by.as_ref()?;
            after(scenario, record, sign, sign.by, record.run.marks.recovery)
        }
        Measure::Recovered => recovered(record),
        Measure::Facts => {
            let kind = claim.fact.as_deref()?;
            let about = claim.about.as_deref().unwrap_or_default();
            let facts = record.facts.iter().filter(|fact| range.contains(&fact.t));
            let facts = facts.filter(|fact| fact.kind == kind && fact.subject.contains(about));
            record.run.mesh.then(|| facts.count() as f64)
        }
        Measure::OrdersOpen => count("orders open"),
        Measure::OrdersConfirmed => orders_confirmed(record),
        Measure::FewestCharges => count("fewest charges"),
        Measure::MostCharges => count("most charges"),
        Measure::Memory => count(&format!("memory of {}", claim.about.as_deref()?)),
        Measure::Backlog => count("backlog"),
        Measure::StreamBreaks => count("stream breaks"),
        Measure::StreamEvents => count("stream events"),
        Measure::Disconnected => {
            let looks: Vec<bool> = record
                .looks
                .iter()
                .filter(|look| range.contains(&look.t))
                .map(|look| !look.connected)
                .collect();
            let alone = looks.iter().filter(|alone| **alone).count();
            (record.run.mesh && !looks.is_empty()).then(|| alone as f64 / looks.len() as f64)
        }
        Measure::Crashes => count("crashes"),
        Measure::Replaced => count(&format!("replaced of {}", claim.about.as_deref()?)),
        Measure::CertificatesShown => count(&shown::different(claim.shown_by()?)),
        Measure::CertificateLeft => count(&shown::left(claim.shown_by()?)),
        Measure::PacketsLost => {
            let packets = count("packets").filter(|packets| *packets > 0.0)?;
            Some(count("packets lost")? / packets)
        }
    }
}

pub fn requests<'a>(record: &'a Record, phase: Phase, journey: Option<&str>) -> Vec<&'a Request> {
    let range = record.run.marks.of(phase);
    let requests = record.requests.iter();
    requests
        .filter(|one| range.contains(&one.t_intended))
        .filter(|one| journey.is_none_or(|journey| one.journey == journey))
        .collect()
}

fn share(requests: &[&Request], which: impl Fn(&Request) -> bool) -> Option<f64> {
    let hit = requests.iter().filter(|one| which(one)).count();
    (!requests.is_empty()).then(|| hit as f64 / requests.len() as f64)
}

fn served<'a>(requests: &'a [&'a Request]) -> impl Iterator<Item = &'a Request> {
    requests.iter().copied().filter(|one| is_served(one))
}

fn is_served(request: &Request) -> bool {
    matches!(request.class.as_str(), "ok" | "degraded")
}

/// The log alone would not miss an order that it lost, so visitors say how many there must be. It may have more than
/// they know of: an order whose visitor got no answer.
fn orders_confirmed(record: &Record) -> Option<f64> {
    let count = |name: &str| record.run.counts.get(name).copied();
    let checkouts = record.requests.iter().filter(|one| one.journey == CHECKOUT);
    let taken = checkouts.filter(|one| is_served(one)).count() as f64;
    let all = count("orders logged")?.max(taken);
    let confirmed = count("orders confirmed")?;
    (all > 0.0).then(|| confirmed / all)
}

/// What was dropped was never sent and has no latency.
pub fn sent<'a>(requests: &'a [&'a Request]) -> impl Iterator<Item = &'a Request> {
    requests
        .iter()
        .copied()
        .filter(|one| one.class != "dropped")
}

/// In milliseconds, from the intended time.
pub fn latencies<'a>(requests: impl Iterator<Item = &'a Request>) -> Vec<f64> {
    requests
        .map(|one| (one.t_end - one.t_intended) * 1000.0)
        .collect()
}

/// The value that this share is not above.
pub fn quantile(mut values: Vec<f64>, share: f64) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let rank = (share * values.len() as f64).ceil() as usize;
    values.get(rank.saturating_sub(1)).copied()
}

/// Tries to the focus between two moments, as the looks nearest to them have it.
fn attempts_between(record: &Record, from: f64, to: f64) -> Option<f64> {
    Some((attempts_at(record, to)? - attempts_at(record, from)?).max(0.0))
}

/// Between two looks the counter is taken to have grown evenly.
fn attempts_at(record: &Record, t: f64) -> Option<f64> {
    let known: Vec<(f64, f64)> = record
        .looks
        .iter()
        .filter_map(|look| Some((look.t, look.attempts?)))
        .collect();
    let next = known.iter().position(|(at, _)| *at >= t);
    match next {
        Some(0) => Some(known[0].1),
        Some(next) => {
            let ((t0, a0), (t1, a1)) = (known[next - 1], known[next]);
            Some(a0 + (a1 - a0) * (t - t0) / (t1 - t0))
        }
        None => known.last().map(|(_, attempts)| *attempts),
    }
}

/// Seconds from this moment to the first such fact.
fn after(scenario: &Scenario, record: &Record, sign: &Sign, by: By, since: f64) -> Option<f64> {
    let facts = record.facts.iter();
    facts
        .filter(|fact| sign.facts.contains(&fact.kind) && fact.subject.contains(&sign.about))
        .filter(|fact| by == By::Any || scenario.watches(&fact.reporter))
        .map(|fact| fact.t - since)
        .find(|seconds| *seconds >= 0.0)
}

/// When the watched sidecars themselves detected it, whoever's sign counts in the scenario.
pub fn detected_by_watched(scenario: &Scenario, record: &Record) -> Option<f64> {
    let sign = scenario.detected_by.as_ref()?;
    let since = record.run.marks.fault;
    after(scenario, record, sign, By::Watched, since)
}

/// Times at which breakers of the focus changed, and to what. Those of the watched sidecars: it is their tries that are counted.
fn breaker_changes(scenario: &Scenario, record: &Record) -> Vec<(f64, &'static str)> {
    let Some(focus) = scenario.focus.as_deref() else {
        return Vec::new();
    };
    let facts = record
        .facts
        .iter()
        .filter(|fact| fact.subject.starts_with(focus) && scenario.watches(&fact.reporter));
    let change = |fact: &super::record::Fact| {
        let to = match fact.kind.as_str() {
            "BreakerOpened" => "open",
            "BreakerHalfOpened" => "half-open",
            "BreakerClosed" => "closed",
            _ => return None,
        };
        Some((fact.t, to))
    };
    facts.filter_map(change).collect()
}

/// Seconds from the beginning of the fault until a breaker of the focus opened.
fn first_opening(scenario: &Scenario, record: &Record) -> Option<f64> {
    let opened = breaker_changes(scenario, record)
        .into_iter()
        .map(|(t, to)| (t - record.run.marks.fault, to));
    opened
        .filter(|(seconds, to)| *to == "open" && *seconds >= 0.0)
        .map(|(seconds, _)| seconds)
        .next()
}

fn attempts_per_probing(scenario: &Scenario, record: &Record) -> Option<f64> {
    let changes = breaker_changes(scenario, record);
    let probings = changes.iter().filter(|(_, to)| *to == "half-open").count();
    let (mut attempts, mut since) = (0.0, None);
    for (t, to) in &changes {
        match (*to, since) {
            ("open", None) => since = Some(*t),
            ("closed", Some(from)) => {
                attempts += attempts_between(record, from, *t)?;
                since = None;
            }
            _ => {}
        }
    }
    if let Some(from) = since {
        attempts += attempts_between(record, from, record.run.marks.end)?;
    }
    (probings > 0).then(|| attempts / probings as f64)
}

/// Until no stretch is worse than before the fault any more.
pub fn recovered(record: &Record) -> Option<f64> {
    let marks = record.run.marks;
    let usual = share(&requests(record, Phase::Base, None), |one| {
        one.class != "ok"
    })?;
    let stretches = ((marks.end - marks.recovery) / STRETCH) as usize;
    let mut latest = 0;
    for stretch in 0..stretches {
        let from = marks.recovery + stretch as f64 * STRETCH;
        let within: Vec<&Request> = record
            .requests
            .iter()
            .filter(|one| (from..from + STRETCH).contains(&one.t_intended))
            .collect();
        let bad = share(&within, |one| one.class != "ok").unwrap_or_default();
        if bad > usual + WORSE_MAX {
            latest = stretch + 1;
        }
    }
    // Bad to the very end: not recovered at all.
    (latest < stretches).then_some(latest as f64 * STRETCH)
}

#[cfg(test)]
mod tests;
