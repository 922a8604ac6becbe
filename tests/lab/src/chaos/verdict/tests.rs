use super::*;

#[test]
fn numbers_are_as_short_as_they_are_read() {
    for (value, unit, text) in [
        (0.9, "%", "90 %"),
        (1.0, "%", "100 %"),
        (0.12345, "%", "12.35 %"),
        (0.345, "s", "345 ms"),
        (2.0, "s", "2 s"),
        (-2.0, "s", "-2 s"),
        (1.3, "×", "1.3×"),
        (5004.26, "ms", "5004.3 ms"),
        (-0.0001, "", "0"),
        (20.0, "", "20"),
    ] {
        assert_eq!(with_unit(value, unit), text);
    }
}

#[test]
fn what_could_not_be_measured_does_not_hold() {
    let text = "
id: C0
name: test
title: t
shows: s
load: {rate: 10}
phases: {warm: 0s, base: 1s, fault: 1s, recovery: 1s}
fault: [{do: {kill: payment}}]
must:
- {claim: nothing fails, measure: failed, atMost: 0}
- {claim: nothing is disconnected, measure: disconnected, atMost: 0}
";
    let scenario = Scenario::parse(text, std::path::Path::new("t.yaml")).expect("valid");
    let mut record = Record::default();
    record.run.mesh = true;
    let summary = Summary::of(&scenario, &record);
    assert_eq!(summary.verdicts.len(), 2);
    assert!(
        summary
            .verdicts
            .iter()
            .all(|one| !one.held && one.measured == "–")
    );
    assert!(!summary.all_held());
}
