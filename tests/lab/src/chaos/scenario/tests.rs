use super::*;

const TEXT: &str = "
id: C0
name: test
title: t
shows: s
load: {rate: 10}
phases: {warm: 0s, base: 10s, fault: 10s, recovery: 10s}
fault: [{do: {freeze: catalog/1}}]
must: [{claim: c, measure: failed, atMost: 0.01}]
";

fn refusal(from: &str, to: &str) -> String {
    assert!(TEXT.contains(from), "{from}");
    let text = TEXT.replace(from, to);
    let parsed = Scenario::parse(&text, Path::new("test.yaml"));
    parsed.expect_err(to).to_string()
}

#[test]
fn every_scenario_of_the_shop_can_be_read_and_their_names_are_their_own() {
    let all = all(&crate::build::root()).expect("they can be read");
    assert!(all.iter().any(|one| one.gate));
    let mut names: Vec<&str> = all.iter().flat_map(|one| [&*one.name, &*one.id]).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), 2 * all.len());
    let folder = folder(&crate::build::root());
    for one in &all {
        let file = folder.join("scenarios").join(format!("{}.yaml", one.name));
        assert!(file.exists(), "{} is in a file of another name", one.name);
        for policy in &one.shop.policies {
            assert!(folder.join("policies").join(policy).exists(), "{policy}");
        }
        if let Some(policy) = &one.fault_policy {
            assert!(
                faults(&crate::build::root()).join(policy).exists(),
                "{policy}"
            );
        }
    }
}

#[test]
fn a_word_that_is_not_known_is_refused_with_its_place() {
    let said = refusal("rate: 10", "rate: 10, rats: 3");
    assert!(
        said.contains("test.yaml") && said.contains("line 6") && said.contains("rats"),
        "{said}"
    );
    let said = refusal("freeze: catalog/1", "freez: catalog/1");
    assert!(said.contains("freez") && said.contains("line 8"), "{said}");
    let said = refusal("measure: failed", "measure: failures");
    assert!(
        said.contains("failures") && said.contains("line 9"),
        "{said}"
    );
}

#[test]
fn a_scenario_that_cannot_fail_or_in_which_nothing_happens_is_refused() {
    assert!(refusal(", atMost: 0.01", "").contains("no bound"));
    let said = refusal(
        "must: [{claim: c, measure: failed, atMost: 0.01}]",
        "must: []",
    );
    assert!(said.contains("proves nothing"), "{said}");
    let said = refusal("fault: [{do: {freeze: catalog/1}}]", "fault: []");
    assert!(said.contains("nothing happens"), "{said}");
    let said = refusal("do: {freeze", "after: 10s, do: {freeze");
    assert!(said.contains("when the fault is over"), "{said}");
    let said = refusal("measure: failed", "measure: detected");
    assert!(said.contains("waits for a sign"), "{said}");
    let said = refusal("measure: failed", "measure: goodput, relativeTo: capacity");
    assert!(said.contains("`load` has none"), "{said}");
    let said = refusal("measure: failed", "measure: replaced");
    assert!(said.contains("does not say whose"), "{said}");
    let said = refusal(
        "measure: failed",
        "measure: certificatesShown, about: catalog",
    );
    assert!(said.contains("about: catalog:3550"), "{said}");
    let said = refusal("measure: failed", "measure: packetsLost");
    assert!(said.contains("none are"), "{said}");
    let said = refusal("measure: failed", "measure: hedges");
    assert!(said.contains("there is none"), "{said}");
    let said = refusal(
        "freeze: catalog/1",
        "knobs: {service: catalog, to: {errorPercent: 101}}",
    );
    assert!(said.contains("0 to 100"), "{said}");
    let said = refusal("rate: 10", "rate: 10, journeys: \"brouse=1\"");
    assert!(said.contains("brouse"), "{said}");
}

#[test]
fn a_scenario_is_found_by_its_name_or_its_number_and_a_stranger_is_told_who_there_is() {
    let root = crate::build::root();
    let found = find(&root, &["c2".to_owned(), "frozen-replica".to_owned()]).expect("it is there");
    assert_eq!(found.len(), 1);
    let said = find(&root, &["frozen".to_owned()])
        .expect_err("no name")
        .to_string();
    assert!(
        said.contains("frozen-replica") && said.contains("gate"),
        "{said}"
    );
}

#[test]
fn a_fault_of_the_mesh_takes_the_place_of_the_other_where_there_is_one_and_who_has_none_is_refused_by_name()
 {
    let root = crate::build::root();
    let names = |names: &[&str]| {
        names
            .iter()
            .map(|name| (*name).to_owned())
            .collect::<Vec<_>>()
    };
    let asked = |words: &[&str]| {
        let words = names(words);
        by_fault_policy(&find(&root, &words).expect("they are there"), &words)
    };
    let injected = asked(&["C4"]).expect("it has one");
    assert_eq!(injected.len(), 1);
    assert!(injected[0].only_with_mesh.is_some());
    let fault: Vec<String> = injected[0]
        .fault
        .iter()
        .map(|step| step.action.describe())
        .collect();
    assert_eq!(fault, ["brownout.yaml is applied"]);
    let said = asked(&["C4", "C2"])
        .expect_err("a frozen replica is no call")
        .to_string();
    assert!(said.contains("frozen-replica"), "{said}");
    let all = asked(&["all"]).expect("some have one");
    let ids: Vec<&str> = all.iter().map(|one| &*one.id).collect();
    assert_eq!(ids, ["C1", "C3", "C4", "C7"]);
    let said = refusal("rate: 10}", "rate: 10}\nfaultPolicy: ../there.yaml");
    assert!(said.contains("without a folder"), "{said}");
}
