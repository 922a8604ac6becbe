//! The flight recorder: what became of the last requests that failed, were retried, refused or slow, for `weir explain`.
//!
//! A request that is fine costs it a number and a comparison. What layers note on the way is noted when
//! something went wrong and at no other time; at the end it becomes a record, and the oldest records make room.
//!
//! ```text
//!   retry layer ──note(key, try)──▶ open notes ──┐
//!   observe layer ─────end(subject, answer)──────┴──▶ record ──▶ failed, retried, refused   1024, 1 MiB
//!                                                               slow, sampled               256, 256 KiB
//! ```
//!
//! Nothing of headers or bodies is kept, nor of a path's query: they hold secrets.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{LazyLock, Mutex, MutexGuard};

use http::{HeaderMap, HeaderValue};
use tokio::time::Instant;
use weir_config::record::{Kept, Record, Try};

use crate::head::{REQUEST_ID, TRACEPARENT};
use crate::trace;

const FAILED_MAX: usize = 1024;
const FAILED_BYTES_MAX: usize = 1024 * 1024;
const SLOW_MAX: usize = 256;
const SLOW_BYTES_MAX: usize = 256 * 1024;
/// Requests that have notes and have not ended. Beyond it a request is recorded without its tries.
const OPEN_MAX: usize = 4096;
/// Of one request.
const TRIES_MAX: usize = 16;
/// One in so many is kept although nothing is wrong with it.
const SAMPLE_EVERY: u64 = 4096;
/// Of any text that comes from outside.
const TEXT_CHARS_MAX: usize = 256;
/// Refused requests that are kept of each second. A service that sheds load refuses thousands, all for the same few
/// reasons; the failures of a minute or two must not go for their sake.
const REFUSED_PER_SECOND: u64 = 8;
/// What `weir explain` is told by one sidecar.
const TOLD_MAX: usize = 32;

static RECORDER: LazyLock<Recorder> = LazyLock::new(Recorder::default);

/// Which request of this process: unique while it lasts. The default is that of requests of which nobody tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Key {
    worker: usize,
    number: u64,
}

/// What a request is called by those who sent it. As it came: read only when it is told of.
#[derive(Clone, Debug, Default)]
pub struct Names {
    request_id: Option<HeaderValue>,
    traceparent: Option<HeaderValue>,
    pub key: Key,
}

#[derive(Default)]
struct Recorder {
    open: Mutex<HashMap<Key, Vec<Try>>>,
    /// How many of those there are, so that whoever has none does not lock.
    noted: AtomicUsize,
    failed: Mutex<Ring>,
    slow: Mutex<Ring>,
    refused: Allowance,
    policy_version: AtomicU64,
}

/// So many a second, the first of each. Without a lock: it is asked for most when there is most to do.
#[derive(Default)]
struct Allowance {
    /// The second, and in its last eight bits how many were taken of it.
    taken: AtomicU64,
}

impl Allowance {
    fn take(&self, second: u64, most: u64) -> bool {
        let next = |taken: u64| match taken >> 8 == second {
            false => Some(second << 8 | 1),
            true => (taken & 0xff < most).then_some(taken + 1),
        };
        let (set, get) = (Ordering::Relaxed, Ordering::Relaxed);
        self.taken.fetch_update(set, get, next).is_ok()
    }
}

#[derive(Default)]
struct Ring {
    records: VecDeque<(Record, usize)>,
    bytes: usize,
}

impl Key {
    pub fn next(worker: usize) -> Self {
        thread_local! {
            static NUMBER: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
        }
        let number = NUMBER.get() + 1;
        NUMBER.set(number);
        Self { worker, number }
    }

    /// Whether it is one of the few that are kept although nothing is wrong with them.
    pub const fn is_sample(self) -> bool {
        self.number % SAMPLE_EVERY == 1
    }
}

impl Names {
    pub fn of(headers: &HeaderMap, worker: usize) -> Self {
        Self {
            request_id: headers.get(&REQUEST_ID).cloned(),
            traceparent: headers.get(&TRACEPARENT).cloned(),
            key: Key::next(worker),
        }
    }

    /// Of a request that says nothing of what it is called.
    pub fn none(worker: usize) -> Self {
        Self {
            key: Key::next(worker),
            ..Self::default()
        }
    }

    /// For whoever tells of the request in the end; to the rest its key is enough.
    pub fn take(&mut self) -> Self {
        let key = self.key;
        std::mem::replace(
            self,
            Self {
                key,
                ..Self::default()
            },
        )
    }

    fn trace(&self) -> Option<String> {
        let id = trace::trace_id(self.traceparent.as_ref()?.as_bytes())?;
        Some(format!("{id:032x}"))
    }

    /// Its caller's `x-request-id`, else the trace id, else one of ours.
    pub fn id(&self) -> String {
        let given = (self.request_id.as_ref()).filter(|id| trace::is_request_id(id.as_bytes()));
        given
            .and_then(|id| id.to_str().ok().map(str::to_owned))
            .or_else(|| self.trace())
            .unwrap_or_else(|| self.made())
    }

    /// Nobody can guess the next one, nor mistake it for somebody else's.
    fn made(&self) -> String {
        static SEED: LazyLock<RandomState> = LazyLock::new(RandomState::new);
        format!("weir-{:016x}", SEED.hash_one(self.key))
    }
}

/// Something went wrong with a request, and what was decided.
pub fn note(key: Key, attempt: Try) {
    RECORDER.note(key, attempt);
}

/// Whether something was noted; costs a load where nothing is noted of anybody.
pub fn has_notes(key: Key) -> bool {
    RECORDER.noted.load(Ordering::Relaxed) > 0 && RECORDER.open().contains_key(&key)
}

/// Whether one more refused request is kept, of those that ended in this second. What was noted of one that is not is
/// forgotten.
pub fn keeps_refused(key: Key, now: Instant) -> bool {
    static STARTED: LazyLock<Instant> = LazyLock::new(Instant::now);
    // Counted from 1: a recorder that has seen nothing is of second 0.
    let second = now.saturating_duration_since(*STARTED).as_secs() + 1;
    RECORDER.keeps_refused(key, second)
}

/// `record` without its names and tries, which are filled in here.
pub fn end(names: &Names, record: Record) {
    RECORDER.end(names, record);
}

/// Of the policies that hold now.
pub fn policy_version() -> u64 {
    RECORDER.policy_version.load(Ordering::Relaxed)
}

pub fn set_policy_version(version: u64) {
    RECORDER.policy_version.store(version, Ordering::Relaxed);
}

/// What is known of a request, by its id or its trace id; the oldest first.
pub fn find(id: &str) -> Vec<Record> {
    RECORDER.find(id)
}

/// At most so much of what a caller chose.
pub fn cut(text: &str) -> String {
    let text = text.chars().filter(|c| !c.is_control());
    text.take(TEXT_CHARS_MAX).collect()
}

impl Recorder {
    fn open(&self) -> MutexGuard<'_, HashMap<Key, Vec<Try>>> {
        self.open.lock().expect("no panic while locked")
    }

    fn note(&self, key: Key, attempt: Try) {
        if key == Key::default() {
            return;
        }
        let mut open = self.open();
        if open.len() >= OPEN_MAX && !open.contains_key(&key) {
            return;
        }
        let tries = open.entry(key).or_default();
        if tries.len() < TRIES_MAX {
            tries.push(attempt);
        }
        self.noted.store(open.len(), Ordering::Relaxed);
    }

    fn keeps_refused(&self, key: Key, second: u64) -> bool {
        let keeps = self.refused.take(second, REFUSED_PER_SECOND);
        if !keeps && self.noted.load(Ordering::Relaxed) > 0 {
            let mut open = self.open();
            open.remove(&key);
            self.noted.store(open.len(), Ordering::Relaxed);
        }
        keeps
    }

    fn end(&self, names: &Names, mut record: Record) {
        if self.noted.load(Ordering::Relaxed) > 0 {
            let mut open = self.open();
            record.tries = open.remove(&names.key).unwrap_or_default();
            self.noted.store(open.len(), Ordering::Relaxed);
        }
        record.id = names.id();
        record.trace = names.trace().filter(|trace| *trace != record.id);
        let (ring, count_max, bytes_max) = match record.why {
            Kept::Slow | Kept::Sampled => (&self.slow, SLOW_MAX, SLOW_BYTES_MAX),
            _ => (&self.failed, FAILED_MAX, FAILED_BYTES_MAX),
        };
        let mut ring = ring.lock().expect("no panic while locked");
        ring.push(record, count_max, bytes_max);
    }

    fn find(&self, id: &str) -> Vec<Record> {
        let mut found = Vec::new();
        for ring in [&self.failed, &self.slow] {
            let ring = ring.lock().expect("no panic while locked");
            let records = ring.records.iter().map(|(record, _)| record);
            let is_meant =
                |record: &&Record| record.id == id || record.trace.as_deref() == Some(id);
            found.extend(records.filter(is_meant).rev().take(TOLD_MAX).cloned());
        }
        found.sort_by_key(|record: &Record| record.at_ms);
        found.truncate(TOLD_MAX);
        found
    }
}

impl Ring {
    fn push(&mut self, record: Record, count_max: usize, bytes_max: usize) {
        let bytes = size(&record);
        self.bytes += bytes;
        self.records.push_back((record, bytes));
        while self.records.len() > count_max || self.bytes > bytes_max {
            let Some((_, bytes)) = self.records.pop_front() else {
                return;
            };
            self.bytes -= bytes;
        }
    }
}

/// Its texts, and what holds them.
fn size(record: &Record) -> usize {
    let optional = [
        &record.trace,
        &record.caller,
        &record.endpoint,
        &record.grpc_status,
        &record.code,
        &record.reason,
    ];
    let optional: usize = optional.into_iter().flatten().map(String::len).sum();
    let texts = [
        &record.id,
        &record.direction,
        &record.service,
        &record.route,
        &record.method,
        &record.path,
        &record.protocol,
        &record.priority,
        &record.outcome,
    ];
    let texts: usize = texts.into_iter().map(String::len).sum();
    let of_try = |one: &Try| {
        let texts = one.result.len() + one.then.len();
        size_of::<Try>() + texts + one.endpoint.as_ref().map_or(0, String::len)
    };
    let tries: usize = record.tries.iter().map(of_try).sum();
    size_of::<Record>() + optional + texts + tries
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn record(why: Kept) -> Record {
        Record {
            id: String::new(),
            trace: None,
            at_ms: 1,
            direction: "outbound".into(),
            service: "a/b:1".into(),
            route: String::new(),
            rule: None,
            policy_version: 0,
            method: "GET".into(),
            path: "/".into(),
            protocol: "http1".into(),
            caller: None,
            why,
            deadline_ms: None,
            inherited: false,
            is_retry: false,
            priority: "default".into(),
            tries: Vec::new(),
            endpoint: None,
            status: 503,
            grpc_status: None,
            code: None,
            reason: None,
            outcome: "failure".into(),
            took_us: 1,
        }
    }

    fn names(fields: &[(&'static str, &str)]) -> Names {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.insert(*name, HeaderValue::from_str(value).expect("a value"));
        }
        Names::of(&headers, 0)
    }

    fn attempt(result: &str) -> Try {
        Try {
            ended_us: 1,
            endpoint: None,
            result: result.into(),
            then: String::new(),
        }
    }

    const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    const TRACE_ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    #[test]
    fn a_request_is_called_what_its_caller_calls_it_and_by_a_name_of_ours_only_when_that_says_nothing()
     {
        assert_eq!(
            names(&[("x-request-id", "mine"), ("traceparent", TRACE)]).id(),
            "mine"
        );
        assert_eq!(
            names(&[("x-request-id", "not an id"), ("traceparent", TRACE)]).id(),
            TRACE_ID
        );
        let (one, other) = (names(&[("traceparent", "00-bad")]), names(&[]));
        assert!(one.id().starts_with("weir-"));
        assert_ne!(one.id(), other.id());
        assert_eq!(
            one.id(),
            one.clone().id(),
            "the answer and the record name it alike"
        );
    }

    #[test]
    fn what_was_noted_on_the_way_is_told_with_the_end_by_id_and_by_trace() {
        let recorder = Recorder::default();
        let mine = names(&[("x-request-id", "mine"), ("traceparent", TRACE)]);
        let other = names(&[("x-request-id", "other")]);
        recorder.note(mine.key, attempt("503"));
        recorder.note(other.key, attempt("504"));
        recorder.end(&mine, record(Kept::Failed));
        for id in ["mine", TRACE_ID] {
            let found = recorder.find(id);
            assert_eq!(found.len(), 1, "{id}");
            assert_eq!(found[0].tries, [attempt("503")]);
        }
        assert!(recorder.find("other").is_empty(), "it has not ended");
        recorder.end(&other, record(Kept::Slow));
        assert_eq!(recorder.find("other").len(), 1);
        assert_eq!(recorder.noted.load(Ordering::Relaxed), 0);
    }

    /// A service that sheds load for a minute, three thousand requests a second.
    #[test]
    fn what_failed_stays_to_be_explained_while_thousands_are_refused() {
        let recorder = Recorder::default();
        let (failed, refused) = (
            names(&[("x-request-id", "failed")]),
            names(&[("x-request-id", "refused")]),
        );
        recorder.end(&failed, record(Kept::Failed));
        for second in 1..=60 {
            let kept = (0..3000).filter(|_| {
                let keeps = recorder.keeps_refused(refused.key, second);
                if keeps {
                    recorder.end(&refused, record(Kept::Refused));
                }
                keeps
            });
            assert_eq!(kept.count() as u64, REFUSED_PER_SECOND, "{second}");
        }
        assert_eq!(recorder.find("failed").len(), 1);
        assert_eq!(recorder.find("refused").len(), TOLD_MAX);
    }

    #[test]
    fn what_was_noted_of_a_refusal_that_is_not_kept_is_forgotten() {
        let recorder = Recorder::default();
        for number in 0..2 * REFUSED_PER_SECOND {
            let one = names(&[]);
            recorder.note(one.key, attempt("503"));
            let keeps = recorder.keeps_refused(one.key, 1);
            assert_eq!(keeps, number < REFUSED_PER_SECOND);
            if keeps {
                recorder.end(&one, record(Kept::Refused));
            }
            assert_eq!(recorder.open().len(), 0);
            assert_eq!(recorder.noted.load(Ordering::Relaxed), 0);
        }
    }

    #[test]
    fn the_slow_do_not_push_out_the_failed_and_nobody_makes_it_grow() {
        let recorder = Recorder::default();
        let (failed, slow) = (
            names(&[("x-request-id", "failed")]),
            names(&[("x-request-id", "slow")]),
        );
        recorder.end(&failed, record(Kept::Failed));
        for _ in 0..10 * SLOW_MAX {
            recorder.end(&slow, record(Kept::Slow));
        }
        assert_eq!(recorder.find("failed").len(), 1);
        assert_eq!(recorder.find("slow").len(), TOLD_MAX);
        let large = Record {
            path: "x".repeat(10_000),
            ..record(Kept::Failed)
        };
        for _ in 0..FAILED_MAX {
            recorder.end(&failed, large.clone());
        }
        let ring = recorder.failed.lock().expect("free");
        assert!(
            ring.bytes <= FAILED_BYTES_MAX && ring.records.len() > 50,
            "{}",
            ring.bytes
        );
        let bytes: usize = ring.records.iter().map(|(_, bytes)| bytes).sum();
        assert_eq!(ring.bytes, bytes);
    }

    /// Copies that a FaultPolicy delayed left notes that nobody took, and after 4096 of them no request had its tries.
    #[test]
    fn of_a_copy_of_which_nobody_tells_nothing_is_noted() {
        let recorder = Recorder::default();
        recorder.note(Names::default().key, attempt("503"));
        assert_eq!(recorder.open().len(), 0);
        assert_ne!(Key::next(0), Key::default());
    }

    /// Planted bug that this finds: notes of requests that never end are kept for ever.
    #[test]
    fn notes_are_bounded_for_one_request_and_for_all() {
        let recorder = Recorder::default();
        for _ in 0..2 * OPEN_MAX {
            recorder.note(Key::next(0), attempt("503"));
        }
        assert_eq!(recorder.open().len(), OPEN_MAX);
        let recorder = Recorder::default();
        let one = names(&[]);
        for _ in 0..2 * TRIES_MAX {
            recorder.note(one.key, attempt("503"));
        }
        assert_eq!(recorder.open()[&one.key].len(), TRIES_MAX);
    }
}
