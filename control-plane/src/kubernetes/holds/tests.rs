use super::*;
use crate::journal::RedbStore;
use crate::version::Versions;

struct Plane {
    holds: Holds,
    _folder: tempfile::TempDir,
}

fn plane() -> Plane {
    let folder = tempfile::tempdir().expect("a folder");
    let store = RedbStore::open(&folder.path().join("journal"), 1000).expect("a store");
    let mesh = Mesh::new("weir.local", Versions::in_memory());
    let journal = Journal::open(store).expect("a journal");
    Plane {
        holds: Holds::new(mesh, journal),
        _folder: folder,
    }
}

impl Plane {
    /// One look at the Lease, of which nothing goes wrong.
    fn looks(&mut self, annotations: &mut Annotations) {
        let merged = self.holds.merge(annotations);
        self.holds.agree(merged);
    }

    fn force(&self, forced: Option<Forced>) {
        self.holds.mesh.force([(cart(), forced)]);
    }

    fn held(&self) -> Option<Forced> {
        self.holds.mesh.forced().get(&cart()).copied()
    }
}

fn cart() -> ServiceKey {
    ServiceKey {
        namespace: "boutique".into(),
        name: "cart".into(),
        port: 7070,
    }
}

fn open() -> Forced {
    Forced {
        to: Force::Open,
        until_ms: now_ms() + 60_000,
    }
}

#[tokio::test]
async fn what_one_is_told_holds_for_all_until_any_of_them_lets_go_of_it() {
    let (mut asked, mut other) = (plane(), plane());
    let mut lease = Annotations::from([("theirs".to_owned(), "stays".to_owned())]);
    let forced = open();
    asked.force(Some(forced));
    other.looks(&mut lease);
    asked.looks(&mut lease);
    assert_eq!(other.held(), None, "it has not looked since");
    other.looks(&mut lease);
    assert_eq!(other.held(), Some(forced));
    assert_eq!(lease.len(), 2);

    other.force(None);
    asked.looks(&mut lease);
    assert_eq!(asked.held(), Some(forced));
    other.looks(&mut lease);
    asked.looks(&mut lease);
    assert_eq!((asked.held(), other.held()), (None, None));
    assert_eq!(lease.len(), 1, "{lease:?}");
}

/// The write failed, or somebody else's came first: it is all done again.
#[tokio::test]
async fn nothing_changes_here_before_the_lease_says_so_and_nothing_is_forgotten() {
    let (mut asked, mut other) = (plane(), plane());
    let mut lease = Annotations::new();
    asked.force(Some(open()));
    asked.looks(&mut lease);
    let lost = other.holds.merge(&mut lease.clone());
    drop(lost);
    assert_eq!(other.held(), None);

    // An operator is quicker than the write.
    let merged = other.holds.merge(&mut lease);
    let closed = Forced {
        to: Force::Closed,
        ..open()
    };
    other.force(Some(closed));
    other.holds.agree(merged);
    assert_eq!(other.held(), Some(closed));
    other.looks(&mut lease);
    asked.looks(&mut lease);
    assert_eq!(asked.held(), Some(closed));
}

/// Annotations above 256 KiB are refused, and the Lease with them.
#[tokio::test]
async fn however_many_are_asked_for_at_several_the_lease_has_as_many_as_there_may_be() {
    let (mut asked, mut other) = (plane(), plane());
    let many = |first: usize| {
        let key = move |n| ServiceKey {
            name: format!("service-{}", first + n),
            ..cart()
        };
        (0..HOLDS_MAX).map(move |n| (key(n), Some(open())))
    };
    asked.holds.mesh.force(many(0));
    other.holds.mesh.force(many(1000));
    let mut lease = Annotations::new();
    for plane in [&mut asked, &mut other] {
        plane.looks(&mut lease);
        assert_eq!(lease.len(), HOLDS_MAX);
    }
    asked.looks(&mut lease);
    assert_eq!(asked.holds.mesh.forced(), other.holds.mesh.forced());
}

#[tokio::test]
async fn a_lease_that_was_deleted_lets_go_of_nothing() {
    let (mut asked, mut other) = (plane(), plane());
    let forced = open();
    asked.force(Some(forced));
    let mut lease = Annotations::new();
    asked.looks(&mut lease);
    other.looks(&mut lease);
    let mut anew = Annotations::new();
    let merged = asked.holds.tell(&mut anew);
    asked.holds.agree(merged);
    other.looks(&mut anew);
    assert_eq!((asked.held(), other.held()), (Some(forced), Some(forced)));
    assert_eq!(anew, lease);
}

#[tokio::test]
async fn what_cannot_be_read_or_is_over_holds_nothing_and_goes() {
    let mut plane = plane();
    let over = Forced {
        to: Force::Open,
        until_ms: now_ms() - 1,
    };
    let mut lease: Annotations = [annotation((&cart(), &over))].into();
    lease.insert(format!("{PREFIX}junk"), "{}".to_owned());
    plane.looks(&mut lease);
    assert_eq!((plane.held(), lease.len()), (None, 0));

    let for_ever = Forced {
        to: Force::Open,
        until_ms: u64::MAX,
    };
    lease.extend([annotation((&cart(), &for_ever))]);
    plane.looks(&mut lease);
    let until_ms = plane.held().expect("it is held").until_ms;
    let longest = u64::try_from(forced::FOR_MAX.as_millis()).expect("a day");
    assert!(until_ms <= now_ms() + longest);
}

#[tokio::test(start_paused = true)]
async fn whoever_was_asked_does_not_wait_for_the_next_look() {
    let mut plane = plane();
    let none = tokio::time::timeout(Duration::from_secs(10), plane.holds.news()).await;
    assert!(none.is_err(), "there is nothing new");
    plane.force(Some(open()));
    let soon = tokio::time::timeout(Duration::from_secs(1), plane.holds.news()).await;
    assert!(soon.is_ok());
    plane.looks(&mut Annotations::new());
    let none = tokio::time::timeout(Duration::from_secs(10), plane.holds.news()).await;
    assert!(none.is_err(), "it has been told");
}
