use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

fn fact(n: usize) -> Fact {
    Fact::ProxyDraining {
        pod: format!("boutique/catalog-{n}"),
    }
}

fn path(folder: &tempfile::TempDir) -> PathBuf {
    folder.path().join("journal.redb")
}

#[tokio::test]
async fn what_was_acked_is_there_after_a_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    let journal =
        Journal::open(RedbStore::open(&path(&folder), 100).expect("opens")).expect("starts");
    for n in 1..=3 {
        assert_eq!(journal.record(fact(n)).await, Ok(n as u64));
    }
    let before = journal.read(0, 10).expect("reads");
    assert_eq!(before[1].kind, "ProxyDraining");
    assert_eq!(before[1].subject, "boutique/catalog-2");
    let store = journal.store.clone();
    drop(journal);
    // The writer ends with the last handle; the file is ours again when the store is gone.
    while Arc::strong_count(&store) > 1 {
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    drop(store);
    let journal =
        Journal::open(RedbStore::open(&path(&folder), 100).expect("opens again")).expect("starts");
    assert_eq!(journal.read(0, 10).expect("reads"), before);
    assert_eq!(journal.record(fact(4)).await, Ok(4), "numbers go on");
}

#[tokio::test]
async fn only_the_newest_are_kept() {
    let folder = tempfile::tempdir().expect("a folder");
    let journal =
        Journal::open(RedbStore::open(&path(&folder), 5).expect("opens")).expect("starts");
    for n in 1..=12 {
        journal.record(fact(n)).await.expect("recorded");
    }
    let kept: Vec<u64> = journal
        .read(0, 100)
        .expect("reads")
        .iter()
        .map(|event| event.seq)
        .collect();
    assert_eq!(kept, [8, 9, 10, 11, 12]);
    assert_eq!(journal.bounds(), Ok(8..13));
}

/// A hundred facts a second of one sidecar, and within minutes nobody could tell who had got a certificate, or when a
/// policy was changed.
#[test]
fn what_the_control_plane_did_survives_whatever_sidecars_say() {
    const KEPT: u64 = 1000;
    let folder = tempfile::tempdir().expect("a folder");
    let issued = |n: u64| Fact::CertificateIssued {
        pod: format!("boutique/cart-{n}"),
        identity: String::new(),
        serial: String::new(),
        expires_ms: 0,
    };
    let opened = |n: u64| Fact::BreakerOpened {
        caller: "boutique/liar-0".to_owned(),
        service: format!("boutique/s{n}:1"),
        route: String::new(),
        reason: String::new(),
        forced: false,
        observed: false,
    };
    let mut seq = 0;
    let mut append = |store: &RedbStore, facts: Vec<Fact>| {
        let number = |fact: Fact| {
            seq += 1;
            Event {
                seq,
                ..fact.into_event(7)
            }
        };
        let events: Vec<Event> = facts.into_iter().map(number).collect();
        let events: Vec<&Event> = events.iter().collect();
        store.append(&events).expect("appended");
    };
    let count = |store: &RedbStore, kind: &str| {
        let events = store.read(0, 100_000).expect("reads");
        events.iter().filter(|event| event.kind == kind).count()
    };
    // Twice, the second time after a restart.
    for round in 0..2 {
        let store = RedbStore::open(&path(&folder), KEPT).expect("opens");
        append(&store, (0..200).map(issued).collect());
        for _ in 0..10 {
            append(&store, (0..1000).map(opened).collect());
        }
        assert_eq!(count(&store, "CertificateIssued"), 200 * (round + 1));
        let opened = count(&store, "BreakerOpened");
        assert_eq!(opened, KEPT as usize - 200 * (round + 1), "the rest");
    }
}

#[tokio::test]
async fn many_facts_at_once_are_few_commits() {
    let folder = tempfile::tempdir().expect("a folder");
    let appends = Arc::new(AtomicUsize::new(0));
    let counting = Counting {
        store: RedbStore::open(&path(&folder), 10_000).expect("opens"),
        appends: appends.clone(),
        fails_at: None,
    };
    let journal = Journal::open(counting).expect("starts");
    let records = (0..2000).map(|n| {
        let journal = journal.clone();
        async move { journal.record(fact(n)).await }
    });
    let mut seqs: Vec<u64> = futures_util::future::join_all(records)
        .await
        .into_iter()
        .map(|seq| seq.expect("acked"))
        .collect();
    seqs.sort_unstable();
    assert!(
        seqs.into_iter().eq(1..=2000),
        "each has a number of its own"
    );
    assert_eq!(journal.read(0, 3000).expect("reads").len(), 2000);
    let commits = appends.load(Ordering::Relaxed);
    assert!(commits < 200, "{commits} commits for 2000 facts");
}

#[tokio::test]
async fn whoever_follows_is_woken_only_for_what_is_synced() {
    let folder = tempfile::tempdir().expect("a folder");
    let journal =
        Journal::open(RedbStore::open(&path(&folder), 100).expect("opens")).expect("starts");
    let mut watch = journal.watch();
    journal.note(fact(1));
    watch.changed().await.expect("the writer lives");
    let next = *watch.borrow_and_update();
    assert_eq!(
        journal
            .read(0, 10)
            .expect("reads")
            .last()
            .map(|event| event.seq + 1),
        Some(next)
    );
}

#[tokio::test]
async fn a_store_that_failed_once_acks_nothing_more() {
    let folder = tempfile::tempdir().expect("a folder");
    let failing = Counting {
        store: RedbStore::open(&path(&folder), 100).expect("opens"),
        appends: Arc::default(),
        fails_at: Some(2),
    };
    let journal = Journal::open(failing).expect("starts");
    assert_eq!(journal.record(fact(1)).await, Ok(1));
    let error = journal.record(fact(2)).await.expect_err("the disk is full");
    assert!(error.to_string().contains("no space"), "{error}");
    assert_eq!(
        journal.record(fact(3)).await,
        Err(error),
        "though the disk would take it now"
    );
    assert_eq!(journal.read(0, 10).expect("reading goes on").len(), 1);
}

#[test]
fn a_second_control_plane_on_the_same_journal_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let _first = RedbStore::open(&path(&folder), 100).expect("opens");
    let error = RedbStore::open(&path(&folder), 100)
        .err()
        .expect("a second must not");
    assert!(
        error.to_string().contains("another control plane"),
        "{error}"
    );
}

#[test]
fn an_unreadable_journal_is_refused_by_name() {
    let folder = tempfile::tempdir().expect("a folder");
    for content in [
        &b"this is not a journal, but it is long enough to look like a file"[..],
        b"",
    ] {
        std::fs::write(path(&folder), content).expect("a file");
        let error = RedbStore::open(&path(&folder), 100)
            .err()
            .expect("not a journal")
            .to_string();
        assert!(error.contains("journal.redb"), "{error}");
        assert_eq!(
            std::fs::read(path(&folder)).expect("still there"),
            content,
            "it is left as it was found"
        );
    }
}

#[tokio::test]
async fn a_flipped_bit_is_found_at_the_start_and_not_served() {
    let folder = tempfile::tempdir().expect("a folder");
    {
        let store = RedbStore::open(&path(&folder), 1000).expect("opens");
        let events: Vec<Event> = (1..=500)
            .map(|n| Event {
                seq: n,
                ..fact(n as usize).into_event(7)
            })
            .collect();
        store
            .append(&events.iter().collect::<Vec<_>>())
            .expect("appended");
    }
    let mut bytes = std::fs::read(path(&folder)).expect("reads");
    let needle = b"boutique/catalog-250";
    let at = bytes
        .windows(needle.len())
        .position(|window| window == needle)
        .expect("the fact is in the file");
    bytes[at] ^= 1;
    std::fs::write(path(&folder), &bytes).expect("writes");
    let error = RedbStore::open(&path(&folder), 1000)
        .err()
        .expect("damage is noticed")
        .to_string();
    assert!(error.contains("journal.redb"), "{error}");
}

#[test]
fn every_kind_is_in_the_list_of_kinds() {
    for fact in one_of_each() {
        let event = fact.into_event(0);
        assert!(
            KINDS.contains(&event.kind.as_str()),
            "{} is missing from KINDS",
            event.kind
        );
        assert!(
            !event.subject.is_empty() && !event.message.is_empty(),
            "{event:?}"
        );
    }
    assert_eq!(one_of_each().len(), KINDS.len());
}

fn one_of_each() -> Vec<Fact> {
    let s = || "x".to_owned();
    macro_rules! breakers { ($($kind:ident),*) => { vec![$(Fact::$kind { caller: s(), service: s(), route: s(), reason: s(), forced: true, observed: true }),*] } }
    macro_rules! endpoints { ($($kind:ident),*) => { vec![$(Fact::$kind { caller: s(), service: s(), endpoint: s(), reason: s() }),*] } }
    let mut facts = vec![
        Fact::ControlPlaneStarted {
            version: s(),
            trust_domain: s(),
        },
        Fact::ControlPlaneStopped {},
        Fact::TrustAnchorIntroduced { anchors: 2 },
        Fact::PolicyAccepted {
            file: s(),
            policies: vec![s()],
        },
        Fact::SourceLost {
            source: s(),
            reason: s(),
        },
        Fact::SourceRegained { source: s() },
        Fact::PolicyRejected {
            file: s(),
            diagnostics: vec![s()],
        },
        Fact::CertificateIssued {
            pod: s(),
            identity: s(),
            serial: s(),
            expires_ms: 0,
        },
        Fact::CertificateRefused {
            pod: s(),
            reason: s(),
        },
        Fact::ProxyConnected {
            pod: s(),
            identity: s(),
            proxy_version: s(),
        },
        Fact::ProxyDisconnected {
            pod: s(),
            reason: s(),
        },
        Fact::ProxyDraining { pod: s() },
        Fact::PushAcknowledged {
            pod: s(),
            version: 1,
        },
        Fact::PushRefused {
            pod: s(),
            version: 1,
            reason: s(),
        },
    ];
    facts.extend(breakers!(BreakerOpened, BreakerHalfOpened, BreakerClosed));
    facts.push(Fact::BreakerForced {
        service: s(),
        to: s(),
        until_ms: 0,
    });
    facts.push(Fact::BreakerReleased {
        service: s(),
        reason: s(),
    });
    facts.extend(endpoints!(
        EndpointSpared,
        EndpointEjected,
        EndpointProbed,
        EndpointReadmitted,
        EndpointRestored
    ));
    facts.extend([
        Fact::ThrottleBegan {
            caller: s(),
            service: s(),
            dropped_percent: 40,
            requests: 100,
            accepted: 30,
            observed: true,
        },
        Fact::ThrottleEnded {
            caller: s(),
            service: s(),
        },
        Fact::SaturationBegan {
            pod: s(),
            service: String::new(),
            in_flight: 4,
            limit: 4,
            queued: 7,
            observed: true,
        },
        Fact::SaturationEnded {
            pod: s(),
            service: s(),
            in_flight: 1,
            limit: 4,
        },
    ]);
    facts
}

struct Counting {
    store: RedbStore,
    appends: Arc<AtomicUsize>,
    fails_at: Option<usize>,
}

impl Store for Counting {
    fn append(&self, events: &[&Event]) -> Result<(), StoreError> {
        let appends = self.appends.fetch_add(1, Ordering::Relaxed) + 1;
        if self.fails_at == Some(appends) {
            return Err(StoreError::new("writing", "no space left on device"));
        }
        self.store.append(events)
    }

    fn read(&self, seq: u64, limit: usize) -> Result<Vec<Event>, StoreError> {
        self.store.read(seq, limit)
    }

    fn bounds(&self) -> Result<std::ops::Range<u64>, StoreError> {
        self.store.bounds()
    }
}
