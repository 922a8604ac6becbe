//! Asking all connected sidecars something at once, and waiting for what they say.
//!
//! ```text
//!   operator ──ask──▶ broadcast ──▶ each session ──▶ its sidecar
//!                                                        │ Explained
//!   operator ◀──────── answers ◀── each session ◀────────┘
//! ```
//!
//! A sidecar may be slow, or compromised: what it says is bounded, believed about itself only, and waited for briefly.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prost::bytes::Bytes;
use tokio::sync::{broadcast, mpsc};
use weir_config::pb;
use weir_config::record::Record;
use weir_config::resource::ObjectName;

const PATIENCE: Duration = Duration::from_secs(2);
/// Questions that a session may not have taken yet; one that is further behind misses the oldest.
const WAITING_MAX: usize = 16;
/// Of one sidecar. 32 records are some 30 KiB.
const ANSWER_BYTES_MAX: usize = 256 * 1024;
const REQUEST_ID_LEN_MAX: usize = 128;

#[derive(Clone)]
pub struct Questions(Arc<Inner>);

struct Inner {
    asking: broadcast::Sender<pb::Question>,
    number: AtomicU64,
    /// Who waits for the answers to which question.
    waiting: Mutex<HashMap<u64, mpsc::Sender<(ObjectName, Bytes)>>>,
}

/// What was said, and by whom nothing.
#[derive(Debug, Default)]
pub struct Answers {
    pub told: Vec<(ObjectName, Bytes)>,
    pub asked: usize,
    pub silent: Vec<ObjectName>,
}

impl Default for Questions {
    fn default() -> Self {
        Self(Arc::new(Inner {
            asking: broadcast::Sender::new(WAITING_MAX),
            number: AtomicU64::new(1),
            waiting: Mutex::default(),
        }))
    }
}

impl Questions {
    /// For a session: what its sidecar is to be asked.
    pub fn listen(&self) -> broadcast::Receiver<pb::Question> {
        self.0.asking.subscribe()
    }

    /// A sidecar's answer. What nobody waits for, or nobody could read, is dropped.
    pub fn answered(&self, pod: &ObjectName, answer: pb::Explained) {
        let waiting = self.lock().get(&answer.question).cloned();
        let Some(waiting) = waiting else {
            return;
        };
        let records = answer.records_json;
        let readable = records.len() <= ANSWER_BYTES_MAX
            && serde_json::from_slice::<Vec<Record>>(&records).is_ok();
        let records = if readable {
            records
        } else {
            Bytes::from_static(b"[]")
        };
        // Full means that it said more than one thing to one question.
        let _ = waiting.try_send((pod.clone(), records));
    }

    /// `None`: that is no request's id.
    pub async fn ask(&self, request_id: &str, connected: BTreeSet<ObjectName>) -> Option<Answers> {
        let is_id = (1..=REQUEST_ID_LEN_MAX).contains(&request_id.len())
            && request_id.bytes().all(|byte| byte.is_ascii_graphic());
        if !is_id {
            return None;
        }
        let number = self.0.number.fetch_add(1, Ordering::Relaxed);
        let (answers, mut answered) = mpsc::channel(connected.len().max(1));
        self.lock().insert(number, answers);
        let _forget = Forget(self, number);
        // It fails when no session listens, and then nobody is connected.
        let _ = self.0.asking.send(pb::Question {
            number,
            request_id: request_id.to_owned(),
        });
        let mut result = Answers {
            asked: connected.len(),
            ..Answers::default()
        };
        let mut silent = connected;
        let collecting = async {
            while !silent.is_empty() {
                let Some((pod, records)) = answered.recv().await else {
                    return;
                };
                if silent.remove(&pod) {
                    result.told.push((pod, records));
                }
            }
        };
        let _ = tokio::time::timeout(PATIENCE, collecting).await;
        result.told.sort_by(|a, b| a.0.cmp(&b.0));
        result.silent = silent.into_iter().collect();
        Some(result)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<u64, mpsc::Sender<(ObjectName, Bytes)>>> {
        self.0
            .waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whoever asked has gone, or has heard enough.
struct Forget<'a>(&'a Questions, u64);

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.0.lock().remove(&self.1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pods(names: &[&str]) -> BTreeSet<ObjectName> {
        names
            .iter()
            .map(|name| ObjectName::new("a", name))
            .collect()
    }

    fn explained(question: u64, text: &str) -> pb::Explained {
        pb::Explained {
            question,
            records_json: Bytes::copy_from_slice(text.as_bytes()),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_answers_is_told_who_does_not_is_named_and_who_was_not_asked_is_not_heard() {
        let questions = Questions::default();
        let mut session = questions.listen();
        let asker = questions.clone();
        let asking = tokio::spawn(async move { asker.ask("some-id", pods(&["one", "two"])).await });
        let question = session.recv().await.expect("a question");
        assert_eq!(question.request_id, "some-id");
        for pod in ["stranger", "one", "one"] {
            let pod = ObjectName::new("a", pod);
            questions.answered(&pod, explained(question.number, "[]"));
        }
        questions.answered(&ObjectName::new("a", "two"), explained(99, "[]"));
        let answers = asking.await.expect("no panic").expect("an id");
        assert_eq!(
            answers.told,
            [(ObjectName::new("a", "one"), Bytes::from_static(b"[]"))]
        );
        assert_eq!(
            (answers.asked, answers.silent),
            (2, vec![ObjectName::new("a", "two")])
        );
        assert!(questions.lock().is_empty(), "nothing is kept of it");
    }

    #[tokio::test(start_paused = true)]
    async fn what_cannot_be_read_is_shown_to_nobody() {
        let questions = Questions::default();
        let mut session = questions.listen();
        let asker = questions.clone();
        let asking = tokio::spawn(async move { asker.ask("some-id", pods(&["one"])).await });
        let question = session.recv().await.expect("a question");
        let answer = explained(question.number, "\u{1b}[2J");
        questions.answered(&ObjectName::new("a", "one"), answer);
        let answers = asking.await.expect("no panic").expect("an id");
        assert_eq!(answers.told[0].1, Bytes::from_static(b"[]"));
    }

    #[tokio::test]
    async fn what_is_no_id_is_asked_of_nobody() {
        let questions = Questions::default();
        for wrong in ["", "two words", &"x".repeat(129)] {
            assert!(questions.ask(wrong, pods(&["one"])).await.is_none());
        }
    }
}
