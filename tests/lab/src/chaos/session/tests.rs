use std::cell::RefCell;

use super::*;

fn scenario(name: &str) -> Scenario {
    let text = format!(
        "
id: C0
name: {name}
title: t
shows: s
load: {{rate: 10}}
phases: {{warm: 0s, base: 10s, fault: 10s, recovery: 10s}}
fault: [{{do: {{kill: payment}}}}]
must: [{{claim: c, measure: failed, atMost: 1}}]
"
    );
    Scenario::parse(&text, Path::new("test.yaml")).expect("valid")
}

/// Remembers what it was asked for, and fails at these of it.
struct Puppets {
    fails_at: &'static [usize],
    asked: RefCell<Vec<String>>,
}

impl Puppets {
    fn ask(&self, what: &str) -> Result<()> {
        let mut asked = self.asked.borrow_mut();
        asked.push(what.to_owned());
        match self.fails_at.contains(&asked.len()) {
            true => Err(Error::Lab(format!("{what} went wrong"))),
            false => Ok(()),
        }
    }
}

impl Theatre for Puppets {
    type Stage = ();

    async fn open(&self, _: &Setting) -> Result<()> {
        self.ask("open")
    }

    async fn settle(&self, (): &()) -> Result<()> {
        self.ask("settle")
    }

    async fn show(&self, (): &(), scenario: &Scenario, _: Mesh) -> Result<()> {
        self.ask(&scenario.name)
    }

    async fn close(&self, (): ()) -> Result<()> {
        self.ask("close")
    }
}

/// What the theatre was asked for, and what was not shown.
fn rehearsed(names: &[&str], fails_at: &'static [usize]) -> (String, Vec<String>) {
    let puppets = Puppets {
        fails_at,
        asked: RefCell::default(),
    };
    let scenarios: Vec<Scenario> = names.iter().map(|name| scenario(name)).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let rehearsing = rehearse(&puppets, &scenarios, Mesh::On);
    let broken = runtime.expect("a runtime").block_on(rehearsing);
    (puppets.asked.into_inner().join(" "), broken)
}

#[test]
fn a_shop_that_does_not_settle_costs_one_scenario_and_not_the_session() {
    let all = ["a", "b", "c"];
    let well = "open settle a settle settle b settle settle c settle close";
    assert_eq!(rehearsed(&all, &[]), (well.to_owned(), Vec::new()));

    // Before b: that is b's broken promise, and c has another shop.
    let (asked, broken) = rehearsed(&all, &[5]);
    let other = "open settle a settle settle close open settle c settle close";
    assert_eq!(asked, other);
    assert_eq!(broken.len(), 1);
    for word in ["C0 b", "in the mesh", "before it", "settle went wrong"] {
        assert!(broken[0].contains(word), "{broken:?}");
    }

    // After a: its own claims say so.
    let (asked, broken) = rehearsed(&all[..2], &[4]);
    assert_eq!(
        asked,
        "open settle a settle close open settle b settle close"
    );
    assert_eq!(broken, Vec::<String>::new());
}

#[test]
fn what_goes_wrong_elsewhere_costs_one_scenario_too() {
    let all = ["a", "b"];
    for (fails_at, asked) in [
        (&[1][..], "open open settle b settle close"),
        (&[3], "open settle a close open settle b settle close"),
        // And closing that goes wrong takes nothing from the next.
        (
            &[4, 5],
            "open settle a settle close open settle b settle close",
        ),
    ] {
        let (were, broken) = rehearsed(&all, fails_at);
        assert_eq!(were, asked);
        assert_eq!(broken.len(), 1, "{broken:?}");
        assert!(broken[0].contains("C0 a"), "{broken:?}");
    }
}

#[test]
fn a_record_of_an_earlier_session_is_no_record_of_this_one() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let (session, one) = (folder.path(), scenario("a"));
    let is_there = |mesh| record_of(session, &one, mesh).expect("read").is_some();
    for mesh in [Mesh::Off, Mesh::On] {
        let record = Record::default();
        record
            .save(&record_folder(session, &one, mesh))
            .expect("saved");
    }
    // Only what is about to run: the other mode stays beside it.
    forget(session, &one, &[Mesh::On]).expect("removed");
    assert!(is_there(Mesh::Off) && !is_there(Mesh::On));
    forget(session, &one, &[Mesh::On]).expect("nothing is there");
}
