use super::super::record::{Fact, Look, Marks};
use super::*;

const SCENARIO: &str = "
id: C0
name: test
title: t
shows: s
load: {rate: 10, capacity: 8}
phases: {warm: 0s, base: 10s, fault: 10s, recovery: 10s}
fault: [{do: {kill: payment}}]
focus: boutique/payment:50051
watch: [checkout]
detectedBy: {facts: [BreakerOpened], about: payment}
healedBy: {facts: [BreakerClosed], about: payment}
must: [{claim: c, measure: failed, atMost: 1}]
";

fn scenario() -> Scenario {
    Scenario::parse(SCENARIO, std::path::Path::new("test.yaml")).expect("valid")
}

fn claim(text: &str) -> Claim {
    serde_saphyr::from_str(&format!("{{claim: c, {text}, atMost: 1}}")).expect("valid")
}

/// Ten requests a second for thirty seconds, of 20 ms; `class` says what becomes of the one at this second.
fn record(class: impl Fn(f64) -> &'static str) -> Record {
    let request = |number: u32| {
        let t = f64::from(number) / 10.0;
        Request {
            t_intended: t,
            t_start: t,
            t_end: t + 0.02,
            journey: if number.is_multiple_of(10) {
                "checkout"
            } else {
                "browse"
            }
            .into(),
            status: None,
            class: class(t).into(),
            why: String::new(),
            retry_after: number.is_multiple_of(2),
        }
    };
    let mut record = Record {
        requests: (0..300).map(request).collect(),
        ..Record::default()
    };
    record.run.mesh = true;
    record.run.marks = Marks {
        base: 0.0,
        fault: 10.0,
        recovery: 20.0,
        end: 30.0,
    };
    record
}

fn measured(text: &str, record: &Record) -> f64 {
    of(&claim(text), &scenario(), record).expect("there is something to measure")
}

fn near(one: f64, other: f64) -> bool {
    (one - other).abs() < 1e-6
}

#[test]
fn shares_are_of_what_was_offered_in_the_phase_and_of_the_journey() {
    let record = record(|t| {
        if (10.0..15.0).contains(&t) {
            "error"
        } else {
            "ok"
        }
    });
    assert!(near(measured("measure: failed", &record), 0.5));
    assert!(near(measured("measure: failed, in: base", &record), 0.0));
    assert!(near(
        measured("measure: success, in: whole", &record),
        250.0 / 300.0
    ));
    assert!(near(
        measured("measure: success, journey: checkout", &record),
        0.5
    ));
    assert!(near(measured("measure: goodput", &record), 5.0));
    assert!(near(
        measured("measure: goodput, relativeTo: capacity", &record),
        5.0 / 8.0
    ));
    assert!(near(
        measured("measure: goodput, relativeTo: base", &record),
        0.5
    ));
}

#[test]
fn a_difference_that_is_negligible_is_none_and_one_that_is_not_is_told_in_full() {
    let mut record = record(|_| "ok");
    for request in &mut record.requests {
        request.t_end += if request.t_intended >= 10.0 {
            0.04
        } else {
            0.0
        };
    }
    let relative = "measure: p99, relativeTo: base";
    assert!(near(measured(relative, &record), 3.0));
    assert!(near(
        measured(&format!("{relative}, negligible: 41"), &record),
        1.0
    ));
    assert!(near(
        measured(&format!("{relative}, negligible: 39"), &record),
        3.0
    ));
}

#[test]
fn what_was_dropped_is_a_failure_without_a_latency() {
    let record = record(|t| if t >= 10.0 { "dropped" } else { "ok" });
    assert!(near(measured("measure: failed", &record), 1.0));
    assert_eq!(of(&claim("measure: p99"), &scenario(), &record), None);
}

#[test]
fn visitors_have_recovered_when_it_never_becomes_bad_again() {
    let until = |end: f64| {
        record(move |t| {
            if (10.0..end).contains(&t) {
                "error"
            } else {
                "ok"
            }
        })
    };
    assert!(near(recovered(&until(20.0)).expect("at once"), 0.0));
    assert!(near(recovered(&until(22.0)).expect("later"), 2.0));
    let relapse = record(|t| {
        if (25.0..25.5).contains(&t) {
            "timeout"
        } else {
            "ok"
        }
    });
    assert!(near(recovered(&relapse).expect("later"), 5.5));
    assert_eq!(recovered(&until(31.0)), None);
}

#[test]
fn an_order_that_a_visitor_was_told_of_and_the_log_has_lost_is_not_confirmed() {
    // 30 checkouts, one a second, also while nothing is measured yet; the one at 15 s fails.
    let mut record = record(|t| if near(t, 15.0) { "error" } else { "ok" });
    record.run.marks.base = 5.0;
    let confirmed = |record: &mut Record, logged: f64, confirmed: f64| {
        let counts = [("orders logged", logged), ("orders confirmed", confirmed)];
        record.run.counts = counts.map(|(name, value)| (name.into(), value)).into();
        of(&claim("measure: ordersConfirmed"), &scenario(), record)
    };
    assert_eq!(confirmed(&mut record, 29.0, 29.0), Some(1.0));
    assert_eq!(confirmed(&mut record, 28.0, 28.0), Some(28.0 / 29.0));
    assert_eq!(confirmed(&mut record, 29.0, 28.0), Some(28.0 / 29.0));
    // The visitor of the one that failed got no answer, and the log has it all the same.
    assert_eq!(confirmed(&mut record, 30.0, 30.0), Some(1.0));
    record.requests.clear();
    assert_eq!(confirmed(&mut record, 0.0, 0.0), None);
}

#[test]
fn of_183_orders_that_were_taken_182_confirmed_are_not_all() {
    let mut record = record(|_| "ok");
    record.requests.truncate(183);
    for request in &mut record.requests {
        request.journey = CHECKOUT.into();
    }
    let counts = [("orders logged", 182.0), ("orders confirmed", 182.0)];
    record.run.counts = counts.map(|(name, value)| (name.into(), value)).into();
    assert!(measured("measure: ordersConfirmed", &record) < 1.0);
}

#[test]
fn what_is_lost_is_a_share_of_what_there_was_to_lose() {
    let mut record = record(|_| "ok");
    let text = SCENARIO.replace("kill: payment", "loss: {pods: payment, percent: 20}");
    let scenario = Scenario::parse(&text, std::path::Path::new("test.yaml")).expect("valid");
    let lost = |record: &Record| of(&claim("measure: packetsLost"), &scenario, record);
    assert_eq!(lost(&record), None);
    record.run.counts = [
        ("packets".to_owned(), 0.0),
        ("packets lost".to_owned(), 0.0),
    ]
    .into();
    assert_eq!(lost(&record), None, "there was nothing to lose");
    record.run.counts = [
        ("packets".to_owned(), 50.0),
        ("packets lost".to_owned(), 9.0),
    ]
    .into();
    assert!(near(lost(&record).expect("measured"), 0.18));
}

fn fact(t: f64, kind: &str) -> Fact {
    Fact {
        t,
        kind: kind.into(),
        subject: "boutique/payment:50051".into(),
        reporter: "boutique/checkout-0".into(),
        message: String::new(),
    }
}

#[test]
fn a_sign_counts_from_its_own_phase_and_not_from_before() {
    let mut record = record(|_| "ok");
    assert_eq!(of(&claim("measure: detected"), &scenario(), &record), None);
    record.facts = vec![
        fact(3.0, "BreakerOpened"),
        fact(4.0, "BreakerClosed"),
        fact(10.5, "BreakerOpened"),
        fact(22.0, "BreakerClosed"),
    ];
    assert!(near(measured("measure: detected", &record), 0.5));
    assert!(near(measured("measure: healed", &record), 2.0));
    let opened = "measure: facts, fact: BreakerOpened, about: payment";
    assert!(near(measured(opened, &record), 1.0));
    assert!(near(
        measured(&format!("{opened}, in: whole"), &record),
        2.0
    ));
    // Without sidecars there is no journal, and no fact is no proof of anything.
    record.run.mesh = false;
    assert_eq!(of(&claim(opened), &scenario(), &record), None);
}

#[test]
fn a_sign_is_that_of_the_first_caller_or_of_the_watched_one_as_the_scenario_says() {
    let by = |mut fact: Fact, reporter: &str| {
        fact.reporter = reporter.into();
        fact
    };
    let mut record = record(|_| "ok");
    record.facts = vec![
        by(fact(10.3, "BreakerOpened"), "boutique/recommendation-0"),
        by(fact(10.4, "BreakerOpened"), "boutique/checkout-canary-0"),
        fact(11.5, "BreakerOpened"),
        by(fact(21.0, "BreakerClosed"), "boutique/recommendation-0"),
        fact(22.0, "BreakerClosed"),
    ];
    let any = scenario();
    assert!(near(measured("measure: detected", &record), 0.3));
    assert!(near(measured("measure: healed", &record), 1.0));
    let own = detected_by_watched(&any, &record);
    assert!(near(own.expect("it did"), 1.5));
    let text = SCENARIO.replace("about: payment}", "about: payment, by: watched}");
    let watched = Scenario::parse(&text, std::path::Path::new("test.yaml")).expect("valid");
    let measured = |text: &str| of(&claim(text), &watched, &record).expect("something");
    assert!(near(measured("measure: detected"), 1.5));
    assert!(near(measured("measure: healed"), 2.0));
}

#[test]
fn attempts_until_a_breaker_opens_are_those_until_the_watched_one_does() {
    let mut record = record(|_| "ok");
    let look = |tenth: u32| Look {
        t: f64::from(tenth) / 10.0,
        attempts: Some(f64::from(tenth)),
        ..Look::default()
    };
    record.looks = (0..300).map(look).collect();
    let mut other = fact(10.5, "BreakerOpened");
    other.reporter = "boutique/fulfilment-0".into();
    record.facts = vec![other, fact(12.0, "BreakerOpened")];
    assert!(near(measured("measure: attemptsUntilOpen", &record), 20.0));
}

#[test]
fn attempts_are_told_apart_by_when_they_were_made() {
    let mut record = record(|_| "ok");
    // Ten a second until the breaker opens at 11 s; five probes at 15 s; as before from 21 s on.
    let attempts = |t: f64| match t {
        ..11.0 => 10.0 * t,
        ..15.0 => 110.0,
        ..21.0 => 115.0,
        _ => 115.0 + 10.0 * (t - 21.0),
    };
    let look = |tenth: u32| {
        let t = f64::from(tenth) / 10.0;
        Look {
            t,
            attempts: Some(attempts(t)),
            connected: true,
            ..Look::default()
        }
    };
    record.looks = (0..300).map(look).collect();
    record.facts = vec![
        fact(11.0, "BreakerOpened"),
        fact(14.9, "BreakerHalfOpened"),
        fact(15.1, "BreakerOpened"),
        fact(20.9, "BreakerHalfOpened"),
        fact(21.0, "BreakerClosed"),
    ];
    assert!(near(measured("measure: attemptsUntilOpen", &record), 10.0));
    assert!(near(measured("measure: attemptsPerProbing", &record), 2.5));
    assert!(near(measured("measure: attempts, in: base", &record), 1.0));
    assert!(near(measured("measure: attempts", &record), 0.15));
    assert!(near(measured("measure: disconnected", &record), 0.0));
}

#[test]
fn a_quantile_is_a_value_that_was_measured() {
    let values: Vec<f64> = (1..=100).map(f64::from).collect();
    assert_eq!(quantile(values.clone(), 0.99), Some(99.0));
    assert_eq!(quantile(values, 0.5), Some(50.0));
    assert_eq!(quantile(vec![7.0], 0.99), Some(7.0));
    assert_eq!(quantile(Vec::new(), 0.5), None);
}
