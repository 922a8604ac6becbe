use std::fs;

use weir_config::Resource;

use super::*;

struct World {
    folder: tempfile::TempDir,
    source: Source,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        fs::create_dir_all(folder.path().join("source/nested")).expect("folders");
        let source = open(folder.path());
        Self { folder, source }
    }

    /// As a careful writer does it: whole, then renamed.
    fn write(&self, name: &str, text: &str) {
        let path = self.folder.path().join("source").join(name);
        let temporary = path.with_file_name(".new");
        fs::write(&temporary, text).expect("written");
        fs::rename(&temporary, path).expect("renamed");
    }

    fn remove(&self, name: &str) {
        fs::remove_file(self.folder.path().join("source").join(name)).expect("removed");
    }

    fn scan(&mut self) -> (Vec<String>, Vec<String>) {
        told(self.source.scan())
    }
}

fn open(folder: &Path) -> Source {
    Source::open(
        vec![folder.join("source")],
        folder.join("memory"),
        "weir.local",
    )
    .expect("opens")
}

/// Changes and facts, in short and sorted.
fn told(scan: Scan) -> (Vec<String>, Vec<String>) {
    let mut changes: Vec<String> = (scan.changes.iter())
        .map(|change| match change {
            Change::Apply(resource) => format!("+ {}", resource.reference()),
            Change::Delete(reference) => format!("- {reference}"),
        })
        .collect();
    changes.sort();
    let facts = scan.facts.into_iter().map(|fact| match fact {
        Fact::PolicyAccepted { policies, .. } => format!("accepted {}", policies.join(" ")),
        Fact::PolicyRejected { diagnostics, .. } => format!("rejected {}", diagnostics.join(" ")),
        other => panic!("unexpected: {other:?}"),
    });
    (changes, facts.collect())
}

fn policy(name: &str, deadline: &str) -> String {
    format!(
        "apiVersion: weir.dev/v1alpha1\nkind: ResiliencePolicy\nmetadata: {{name: {name}, namespace: boutique}}\n\
         spec:\n  targetRefs: [{{kind: Service, name: {name}}}]\n  outbound: {{deadline: {deadline}}}\n---\n"
    )
}

fn service(name: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: boutique}}\n\
         spec: {{clusterIP: 10.0.0.1, ports: [{{port: 80}}]}}\n---\n"
    )
}

#[test]
fn only_what_changed_is_told() {
    let mut world = World::new();
    world.write("a.yaml", &(service("cart") + &policy("cart", "2s")));
    world.write("nested/b.yml", &service("catalog"));
    world.write("notes.txt", "not: yaml: at all");
    let (changes, facts) = world.scan();
    assert_eq!(
        changes,
        [
            "+ ResiliencePolicy boutique/cart",
            "+ Service boutique/cart",
            "+ Service boutique/catalog"
        ]
    );
    assert_eq!(facts, ["accepted ResiliencePolicy boutique/cart"]);
    assert_eq!(world.scan(), (vec![], vec![]), "nothing new");
    world.write("a.yaml", &(service("cart") + &policy("cart", "3s")));
    assert_eq!(
        world.scan(),
        (
            vec!["+ ResiliencePolicy boutique/cart".into()],
            vec!["accepted ResiliencePolicy boutique/cart".into()]
        )
    );
    world.remove("nested/b.yml");
    assert_eq!(
        world.scan(),
        (vec!["- Service boutique/catalog".into()], vec![])
    );
}

#[test]
fn a_bad_file_changes_nothing_until_it_is_fixed() {
    let mut world = World::new();
    world.write("a.yaml", &(service("cart") + &policy("cart", "2s")));
    world.scan();
    world.write("a.yaml", &(service("other") + &policy("cart", "2 seconds")));
    let (changes, facts) = world.scan();
    assert_eq!(changes, [""; 0], "not even the good half of it");
    assert_eq!(facts.len(), 1);
    assert!(
        facts[0].starts_with("rejected ") && facts[0].contains("2 seconds"),
        "{facts:?}"
    );
    assert_eq!(world.scan(), (vec![], vec![]), "said once");
    world.write("a.yaml", &(service("other") + &policy("cart", "4s")));
    let (changes, facts) = world.scan();
    assert_eq!(
        changes,
        [
            "+ ResiliencePolicy boutique/cart",
            "+ Service boutique/other",
            "- Service boutique/cart"
        ]
    );
    assert_eq!(facts, ["accepted ResiliencePolicy boutique/cart"]);
}

#[test]
fn a_bad_file_keeps_its_last_good_policy_across_a_restart() {
    let mut world = World::new();
    world.write("a.yaml", &policy("cart", "2s"));
    world.scan();
    world.write("a.yaml", "{{{");
    world.source = open(world.folder.path());
    assert_eq!(
        told(world.source.recall()).0,
        ["+ ResiliencePolicy boutique/cart"]
    );
    let (changes, facts) = world.scan();
    assert_eq!(changes, [""; 0]);
    assert!(facts[0].starts_with("rejected"), "{facts:?}");
    world.remove("a.yaml");
    assert_eq!(world.scan().0, ["- ResiliencePolicy boutique/cart"]);
    world.source = open(world.folder.path());
    assert_eq!(
        told(world.source.recall()).0,
        [""; 0],
        "what is gone is not remembered"
    );
}

#[test]
fn two_files_with_the_same_resource_are_one_too_many() {
    let mut world = World::new();
    world.write("a.yaml", &policy("cart", "2s"));
    world.scan();
    world.write("b.yaml", &policy("cart", "9s"));
    let (changes, facts) = world.scan();
    assert_eq!(changes, [""; 0]);
    assert!(facts[0].contains("a.yaml already"), "{facts:?}");
    world.remove("a.yaml");
    let (changes, facts) = world.scan();
    // The second's turn has come without it being touched.
    assert_eq!(
        changes,
        [
            "+ ResiliencePolicy boutique/cart",
            "- ResiliencePolicy boutique/cart"
        ]
    );
    assert_eq!(
        facts.last().map(String::as_str),
        Some("accepted ResiliencePolicy boutique/cart")
    );
}

#[test]
fn a_resource_may_move_to_another_file() {
    let mut world = World::new();
    world.write("b.yaml", &(service("cart") + &service("catalog")));
    world.write("c.yaml", &service("currency"));
    world.scan();
    world.write("a.yaml", &service("cart"));
    world.write("b.yaml", &(service("catalog") + &service("currency")));
    world.write("c.yaml", "");
    let (changes, facts) = world.scan();
    assert_eq!(facts, [""; 0], "no conflict");
    assert!(
        !changes.iter().any(|change| change.starts_with('-')),
        "nothing is gone: {changes:?}"
    );
}

#[test]
fn a_directory_that_cannot_be_listed_is_not_an_empty_one() {
    let mut world = World::new();
    world.write("a.yaml", &service("cart"));
    world.scan();
    let (there, away) = (
        world.folder.path().join("source"),
        world.folder.path().join("away"),
    );
    fs::rename(&there, &away).expect("moved");
    assert_eq!(world.scan(), (vec![], vec![]));
    fs::rename(&away, &there).expect("moved back");
    assert_eq!(world.scan().0, [""; 0]);
}

#[test]
fn another_trust_domain_than_the_certificates_is_refused() {
    let mut world = World::new();
    world.write("a.yaml", "apiVersion: weir.dev/v1alpha1\nkind: MeshConfig\nmetadata: {name: mesh}\nspec: {trustDomain: elsewhere.example}\n");
    let (changes, facts) = world.scan();
    assert_eq!(changes, [""; 0]);
    assert!(facts[0].contains("weir.local"), "{facts:?}");
}

fn fault(name: &str, rest: &str) -> String {
    format!(
        "apiVersion: weir.dev/v1alpha1\nkind: FaultPolicy\nmetadata: {{name: {name}, namespace: boutique}}\n\
         spec:\n  targetRefs: [{{kind: Service, name: cart}}]\n  duration: 10m\n  faults: [{{{rest}}}]\n---\n"
    )
}

/// A fault with a duration must end after that, however often the control plane is started and its file is touched.
#[test]
fn a_fault_lasts_from_when_it_was_written_down_like_this() {
    let mut world = World::new();
    let begun = |scan: Scan| -> Vec<String> {
        let faults = scan.changes.into_iter().filter_map(|change| match change {
            Change::Apply(resource) => match *resource {
                Resource::FaultPolicy(policy) => policy.metadata.creation_timestamp,
                _ => None,
            },
            Change::Delete(_) => None,
        });
        faults.collect()
    };
    let set_time = |seconds: u64| {
        let path = world.folder.path().join("source/faults.yaml");
        let file = fs::File::options().append(true).open(path).expect("opens");
        let time = UNIX_EPOCH + Duration::from_secs(seconds);
        file.set_modified(time).expect("it is ours");
    };
    let reset = fault("reset", "connection: Reset");
    world.write("faults.yaml", &reset);
    set_time(1_000_000_000);
    let nine = "2001-09-09T01:46:40.000Z";
    assert_eq!(begun(world.source.scan()), [nine]);

    world.write(
        "faults.yaml",
        &(reset.clone() + &fault("slow", "delay: {time: 1s}")),
    );
    set_time(1_000_000_060);
    let later = "2001-09-09T01:47:40.000Z";
    assert_eq!(
        begun(world.source.scan()),
        [later],
        "the other is as it was"
    );

    let mut restarted = open(world.folder.path());
    let mut recalled = begun(restarted.recall());
    recalled.sort();
    assert_eq!(
        recalled,
        [later, later],
        "those of its file, which is no later than it was written"
    );
    assert!(begun(restarted.scan()).is_empty(), "nothing is begun anew");

    world.write("faults.yaml", &fault("reset", "connection: GoAway"));
    set_time(1_000_000_120);
    assert_eq!(begun(world.source.scan()), ["2001-09-09T01:48:40.000Z"]);
}
