//! What the log promises, whatever is done to it and in which order.

#[allow(dead_code, reason = "each test binary uses its share")]
mod support;

use std::collections::HashMap;

use boutique_orderlog::append::{Append, Verdict};
use boutique_orderlog::log::Log;
use boutique_orderlog::pb::OrderEvent;
use boutique_orderlog::settings::Limits;
use boutique_orderlog::store::Outcome;
use proptest::prelude::*;
use support::{append, assert_sound};

const LIMITS: Limits = Limits {
    orders_max: 1000,
    bytes_max: 1 << 30,
};

#[derive(Clone, Debug)]
enum Step {
    /// To an order, with as many keys from this one on, expecting the version that it has or another.
    Append {
        order: u8,
        key: u8,
        count: u8,
        off: u32,
    },
    /// Closes the log and opens it again.
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0u8..3, 0u8..12, 1u8..4, prop_oneof![4 => Just(0u32), 1 => 1u32..3])
            .prop_map(|(order, key, count, off)| Step::Append { order, key, count, off }),
        1 => Just(Step::Reopen),
    ]
}

/// What the log has to be: per order, its keys and their seqs in the order of versions.
#[derive(Default)]
struct Model {
    orders: HashMap<u8, Vec<(String, u64)>>,
    head: u64,
}

impl Model {
    fn append(&mut self, order: u8, expected: u32, keys: &[String]) -> Outcome {
        let facts = self.orders.entry(order).or_default();
        let seq = |key: &String| {
            facts
                .iter()
                .find(|(known, _)| known == key)
                .map(|(_, seq)| *seq)
        };
        let known: Vec<u64> = keys.iter().filter_map(seq).collect();
        let version = u32::try_from(facts.len()).expect("few");
        if known.len() == keys.len() && known.windows(2).all(|pair| pair[0] + 1 == pair[1]) {
            return Outcome::Refused(Verdict::Known {
                first: known[0],
                last: known[known.len() - 1],
            });
        }
        if !known.is_empty() {
            return Outcome::Refused(Verdict::Mixed);
        }
        if version != expected {
            return Outcome::Refused(Verdict::Conflict { version });
        }
        let first = self.head + 1;
        for key in keys {
            self.head += 1;
            facts.push((key.clone(), self.head));
        }
        Outcome::Appended {
            first,
            last: self.head,
        }
    }

    fn version(&self, order: u8) -> u32 {
        let facts = self.orders.get(&order).map_or(0, Vec::len);
        u32::try_from(facts).expect("few")
    }
}

fn everything(log: &Log) -> Vec<OrderEvent> {
    let head = *log.head().borrow();
    let event = |seq| log.event(seq).expect("readable").expect("dense");
    (1..=head).map(event).collect()
}

/// The file is free once the writer has ended, which is soon after the log was dropped.
fn open(path: &std::path::Path) -> Log {
    open_with(path, LIMITS)
}

fn open_with(path: &std::path::Path, limits: Limits) -> Log {
    for _ in 0..1000 {
        match Log::open(path, limits) {
            Ok(log) => return log,
            Err(_) => std::thread::yield_now(),
        }
        std::thread::park_timeout(std::time::Duration::from_millis(2));
    }
    Log::open(path, limits).expect("nobody has it open any more")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..Default::default() })]

    /// Appends, repeated, conflicting and mixed, and restarts between them: the log answers as the model does.
    #[test]
    fn the_log_is_what_the_model_says(steps in proptest::collection::vec(step(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let folder = tempfile::tempdir().expect("a temporary directory");
        let path = folder.path().join("log");
        let (mut log, mut model) = (open(&path), Model::default());
        for step in steps {
            match step {
                Step::Append { order, key, count, off } => {
                    let keys: Vec<String> = (key..key + count).map(|key| key.to_string()).collect();
                    let names: Vec<&str> = keys.iter().map(String::as_str).collect();
                    let expected = model.version(order) + off;
                    let request = append(&format!("o{order}"), expected, &names);
                    let outcome = runtime.block_on(log.append(Append::parse(request).expect("valid")));
                    prop_assert_eq!(outcome.expect("no fault"), model.append(order, expected, &keys));
                }
                Step::Reopen => {
                    drop(log);
                    log = open(&path);
                }
            }
            prop_assert_eq!(*log.head().borrow(), model.head);
        }
        let events = everything(&log);
        assert_sound(&events);
        for event in events {
            let order: u8 = event.order_id[1..].parse().expect("named by number");
            let place = &model.orders[&order][event.version as usize - 1];
            prop_assert_eq!(place, &(event.idempotency_key, event.seq));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_who_append_the_same_at_once_one_appends_and_all_hear_the_same() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let log = open(&folder.path().join("log"));
    for round in 0..20u32 {
        let key = round.to_string();
        let request = append("o", round, &[&key]);
        let appends: Vec<_> = (0..8)
            .map(|_| {
                let (log, append) = (log.clone(), Append::parse(request.clone()).expect("valid"));
                tokio::spawn(async move { log.append(append).await })
            })
            .collect();
        let seq = u64::from(round) + 1;
        let mut appended = 0;
        for append in appends {
            match append.await.expect("no panic").expect("no fault") {
                Outcome::Appended { first, last } => {
                    assert_eq!((first, last), (seq, seq));
                    appended += 1;
                }
                Outcome::Refused(verdict) => assert_eq!(
                    verdict,
                    Verdict::Known {
                        first: seq,
                        last: seq
                    }
                ),
            }
        }
        assert_eq!(appended, 1);
    }
    assert_sound(&everything(&log));
}

#[tokio::test]
async fn a_log_that_is_full_takes_no_new_orders_and_brings_those_that_it_took_to_their_end() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let path = folder.path().join("log");
    let outcome = async |log: &Log, order: &str, version: u32, keys: &[&str]| {
        let append = Append::parse(append(order, version, keys)).expect("valid");
        log.append(append).await.expect("no fault")
    };
    let few = Limits {
        orders_max: 2,
        ..LIMITS
    };
    let small = Limits {
        bytes_max: 1,
        ..LIMITS
    };
    for limits in [few, small] {
        let log = open(&path);
        let (one, other) = ("one", "other");
        outcome(&log, one, 0, &["placed"]).await;
        outcome(&log, other, 0, &["placed"]).await;
        drop(log);
        // Also after a restart: what was taken counts.
        let log = open_with(&path, limits);
        let refused = outcome(&log, "late", 0, &["placed"]).await;
        assert_eq!(refused, Outcome::Refused(Verdict::Full), "{limits:?}");
        let again = outcome(&log, one, 0, &["placed"]).await;
        let known = Verdict::Known { first: 1, last: 1 };
        assert_eq!(again, Outcome::Refused(known), "{limits:?}");
        let head = *log.head().borrow();
        let ended = outcome(&log, one, 1, &["ended"]).await;
        let (first, last) = (head + 1, head + 1);
        assert_eq!(ended, Outcome::Appended { first, last }, "{limits:?}");
        assert!(log.fullness().contains("LOG_ORDERS_MAX"));
        drop(log);
        drop(open(&path));
        std::fs::remove_file(&path).expect("it is there");
    }
}

#[tokio::test]
async fn of_appends_that_come_at_once_no_more_begin_an_order_than_there_is_room_for() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let limits = Limits {
        orders_max: 3,
        ..LIMITS
    };
    let log = open_with(&folder.path().join("log"), limits);
    let appends = (0..8).map(|order| {
        let append = Append::parse(append(&format!("o{order}"), 0, &["placed"])).expect("valid");
        log.append(append)
    });
    let outcomes = futures_util::future::join_all(appends).await;
    let taken = |outcome: &Result<Outcome, _>| matches!(outcome, Ok(Outcome::Appended { .. }));
    assert_eq!(outcomes.iter().filter(|outcome| taken(outcome)).count(), 3);
    assert_eq!(everything(&log).len(), 3);
}

#[tokio::test]
async fn acks_never_go_back_nor_beyond_the_log_and_are_there_after_a_restart() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let path = folder.path().join("log");
    let log = open(&path);
    let request = append("o", 0, &["a", "b", "c"]);
    log.append(Append::parse(request).expect("valid"))
        .await
        .expect("appended");
    for (ack, acked) in [(2, 2), (1, 2), (99, 3)] {
        log.ack("me", ack).expect("few consumers");
        assert_eq!(log.acked("me"), acked);
    }
    assert_eq!(log.acked("you"), 0);
    drop(log);
    assert_eq!(open(&path).acked("me"), 3);

    let log = open(&path);
    for name in 0..63 {
        log.ack(&name.to_string(), 1).expect("few consumers");
    }
    log.ack("one too many", 1).expect_err("64 are remembered");
    log.ack("me", 3).expect("known");
}
