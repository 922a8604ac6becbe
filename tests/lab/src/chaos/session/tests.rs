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

fn of_a_session(folder: &Path, command: &str, day: u32) -> (Session, Provenance) {
    let session = Session {
        scenarios: Vec::new(),
        modes: Vec::new(),
        quick: true,
        rootless: false,
        folder: folder.to_owned(),
        command: command.to_owned(),
    };
    let provenance = Provenance {
        date: format!("2026-11-{day} 07:10 UTC"),
        ..Provenance::of(command, folder)
    };
    (session, provenance)
}

#[test]
fn pictures_say_of_each_run_where_it_comes_from_and_not_of_the_last_session() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let (root, folder) = (crate::build::root(), folder.path());
    let one = &super::super::scenario::find(&root, &["C2".to_owned()]).expect("there is one")[0];
    let mut record = Record::default();
    record.run.marks = super::super::record::Marks {
        base: 1.0,
        fault: 2.0,
        recovery: 3.0,
        end: 4.0,
    };
    for (command, day, mesh) in [("both", 26, Mesh::Off), ("later", 28, Mesh::On)] {
        let (session, provenance) = of_a_session(folder, command, day);
        let about = About {
            provenance: provenance.clone(),
            scenarios: vec![one.name.clone()],
        };
        write_json(&folder.join("session.json"), &about).expect("written");
        let shops = Shops {
            root: &root,
            session: &session,
            provenance: &provenance,
        };
        record.run.mesh = mesh == Mesh::On;
        shops.keep(record.clone(), one, mesh).expect("saved");
        let kept = record_of(folder, one, mesh).expect("read").expect("there");
        assert_eq!(kept.run.provenance, provenance);
    }
    draw::all(&root, folder).expect("drawn");
    let read = |file: &str| fs::read_to_string(folder.join(file)).expect("drawn");
    let picture = read(&format!("{}/picture.svg", one.name));
    assert!(picture.contains("without the mesh: both · 2026-11-26 07:10 UTC · "));
    assert!(picture.contains("in the mesh: later · 2026-11-28 07:10 UTC · "));
    let overview = read("overview.svg");
    assert!(overview.contains("2 sessions · both and later · 2026-11-26 07:10 UTC to 2026-11-28"));

    // The same session again: told once.
    let (session, provenance) = of_a_session(folder, "both", 26);
    let shops = Shops {
        root: &root,
        session: &session,
        provenance: &provenance,
    };
    shops.keep(record, one, Mesh::On).expect("saved");
    draw::all(&root, folder).expect("drawn");
    let picture = read(&format!("{}/picture.svg", one.name));
    assert!(picture.contains(">both · 2026-11-26 07:10 UTC · ") && !picture.contains("mesh: both"));
    assert!(read("overview.svg").contains(">both · 2026-11-26 07:10 UTC · "));
}

#[test]
fn a_record_without_a_provenance_is_read_as_one_of_which_it_is_not_known() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    Record::default().save(folder.path()).expect("saved");
    let path = folder.path().join("run.json");
    let mut run: serde_json::Value = super::super::record::read_json(&path).expect("read");
    let fields = run.as_object_mut().expect("an object");
    fields.remove("provenance").expect("it has one");
    write_json(&path, &run).expect("written");
    let record = Record::load(folder.path()).expect("read all the same");
    assert!(record.run.provenance.is_unknown());
}
