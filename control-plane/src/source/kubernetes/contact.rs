//! Whether the API server answers, as far as anybody has to know.
//!
//! One word for all that is watched: a quiet kind hears nothing for a long time also when all is well.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::journal::{Fact, Journal};

/// Shorter than that, it is a connection that ended.
const WORTH_TELLING: Duration = Duration::from_secs(2);
const SOURCE: &str = "Kubernetes API";

#[derive(Clone)]
pub struct Contact(Arc<Inner>);

struct Inner {
    journal: Journal,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    failing_since: Option<Instant>,
    told: bool,
}

impl Contact {
    pub fn new(journal: Journal) -> Self {
        let state = Mutex::default();
        Self(Arc::new(Inner { journal, state }))
    }

    /// It answered.
    pub fn made(&self) {
        let mut state = self.lock();
        state.failing_since = None;
        if std::mem::take(&mut state.told) {
            tracing::info!("the Kubernetes API is back");
            let source = SOURCE.to_owned();
            self.0.journal.note(Fact::SourceRegained { source });
        }
    }

    pub fn failed(&self, reason: &str) {
        let mut state = self.lock();
        let since = *state.failing_since.get_or_insert_with(Instant::now);
        if !state.told && since.elapsed() >= WORTH_TELLING {
            state.told = true;
            tracing::warn!(
                reason,
                "the Kubernetes API is away; what was read before stays in force"
            );
            let (source, reason) = (SOURCE.to_owned(), reason.to_owned());
            self.0.journal.note(Fact::SourceLost { source, reason });
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
