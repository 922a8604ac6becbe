//! Where what is on a picture comes from, in words.

use std::collections::BTreeSet;

use super::super::provenance::Provenance;
use super::super::record::Record;

/// Of runs that are drawn together. What differs between them is told of all: that of several sessions is not that of one.
pub(super) fn of<'a>(records: impl IntoIterator<Item = &'a Record>) -> String {
    let provenances = records.into_iter().map(|record| &record.run.provenance);
    let (unknown, known): (Vec<&Provenance>, Vec<&Provenance>) =
        provenances.partition(|one| one.is_unknown());
    let sessions: BTreeSet<&Provenance> = known.iter().copied().collect();
    let mut parts: Vec<String> = Vec::new();
    if sessions.len() > 1 {
        parts.push(format!("{} sessions", sessions.len()));
    }
    parts.extend(each(&known, |one| &one.command));
    let dates: BTreeSet<&str> = known.iter().map(|one| one.date.as_str()).collect();
    match (dates.first(), dates.last()) {
        (Some(first), Some(last)) if first != last => parts.push(format!("{first} to {last}")),
        (first, _) => parts.extend(first.map(|date| (*date).to_owned())),
    }
    parts.extend(each(&known, |one| &one.machine));
    parts.extend(each(&known, |one| &one.mesh));
    if !unknown.is_empty() {
        parts.push("of some it is not written down where they come from".to_owned());
    }
    parts.join(" · ")
}

/// What they say, each once; nothing if nobody says anything.
fn each(known: &[&Provenance], field: impl Fn(&Provenance) -> &String) -> Option<String> {
    let said: BTreeSet<&str> = known.iter().map(|one| field(one).as_str()).collect();
    let said: Vec<&str> = said.into_iter().filter(|text| !text.is_empty()).collect();
    (!said.is_empty()).then(|| said.join(" and "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(command: &str, day: u32) -> Record {
        let mut record = Record::default();
        record.run.provenance = Provenance {
            command: command.into(),
            date: format!("2026-11-{day} 07:10 UTC"),
            machine: "2 × CPU".into(),
            mesh: format!("weir 0.1.0 {day}"),
        };
        record
    }

    #[test]
    fn one_session_is_told_once() {
        let runs = [record("chaos run all", 28), record("chaos run all", 28)];
        let expected = "chaos run all · 2026-11-28 07:10 UTC · 2 × CPU · weir 0.1.0 28";
        assert_eq!(of(&runs), expected);
    }

    #[test]
    fn several_sessions_are_said_to_be_several_and_from_when_to_when() {
        let runs = [
            record("chaos run all", 28),
            record("chaos run C5 --mesh on", 26),
            record("chaos run all", 27),
        ];
        let expected = "3 sessions · chaos run C5 --mesh on and chaos run all · \
                        2026-11-26 07:10 UTC to 2026-11-28 07:10 UTC · 2 × CPU · \
                        weir 0.1.0 26 and weir 0.1.0 27 and weir 0.1.0 28";
        assert_eq!(of(&runs), expected);
    }

    #[test]
    fn a_record_that_does_not_say_is_not_taken_for_one_of_the_others() {
        let runs = [record("chaos run all", 28), Record::default()];
        assert!(of(&runs).ends_with(" · of some it is not written down where they come from"));
        assert!(!of(&runs[..1]).contains("written down"));
        assert_eq!(
            of(&runs[1..]),
            "of some it is not written down where they come from"
        );
    }
}
