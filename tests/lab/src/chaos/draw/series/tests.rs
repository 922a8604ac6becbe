use super::super::super::record::{Fact, Marks};
use super::*;

fn record() -> Record {
    let mut record = Record::default();
    record.run.marks = Marks {
        base: 0.0,
        fault: 1.0,
        recovery: 2.0,
        end: 3.0,
    };
    record
}

fn request(t: f64, class: &str) -> Request {
    Request {
        t_intended: t,
        t_start: t,
        t_end: t + 0.1,
        journey: "browse".into(),
        status: None,
        class: class.into(),
        why: String::new(),
        retry_after: false,
    }
}

#[test]
fn every_request_is_in_the_picture_once_whatever_became_of_it() {
    let mut record = record();
    let classes = ["ok", "degraded", "shed", "error", "timeout", "dropped"];
    let number = |n: usize| request(n as f64 * 0.04, classes[n % classes.len()]);
    record.requests = (0..72).map(number).collect();
    let outcomes = outcomes(&record);
    let all: f64 = outcomes.rates.iter().flatten().sum();
    assert!((all * OUTCOME - 72.0).abs() < 1e-9, "{all}");
    assert_eq!(outcomes.edges.len(), outcomes.rates.len() + 1);
    assert!((outcomes.peak() - 28.0).abs() < 1e-9, "{}", outcomes.peak());
}

#[test]
fn an_interval_without_requests_is_a_gap_and_no_zero() {
    let mut record = record();
    record.requests = vec![request(0.1, "ok")];
    let latency = latency(&record, 0.99);
    assert_eq!(latency.len(), 6);
    assert!(latency[0].1.is_some_and(|ms| (ms - 100.0).abs() < 1e-6));
    assert!(latency[1..].iter().all(|(_, ms)| ms.is_none()));
}

#[test]
fn a_ribbon_has_no_gap_and_begins_closed() {
    let mut record = record();
    let fact = |t, kind: &str, subject: &str| Fact {
        t,
        kind: kind.into(),
        subject: subject.into(),
        reporter: "boutique/storefront-0".into(),
        message: String::new(),
    };
    record.facts = vec![
        fact(
            1.1,
            "EndpointEjected",
            "boutique/catalog:3550 10.244.0.4:3550",
        ),
        fact(1.2, "BreakerOpened", "boutique/currency:7000"),
        fact(
            2.0,
            "EndpointProbed",
            "boutique/catalog:3550 10.244.0.4:3550",
        ),
        fact(
            2.1,
            "EndpointReadmitted",
            "boutique/catalog:3550 10.244.0.4:3550",
        ),
    ];
    let ribbons = ribbons(&record);
    let names: Vec<&str> = ribbons.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(
        names,
        [
            "storefront-0 → catalog 10.244.0.4",
            "storefront-0 → currency"
        ]
    );
    let states: Vec<_> = ribbons[0]
        .1
        .iter()
        .map(|one| (one.from, one.to, one.state))
        .collect();
    assert_eq!(
        states,
        [
            (0.0, 1.1, "closed"),
            (1.1, 2.0, "open"),
            (2.0, 2.1, "half-open"),
            (2.1, 3.0, "closed"),
        ]
    );
}
