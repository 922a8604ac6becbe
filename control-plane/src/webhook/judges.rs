//! The threads that make something of reviews, always the same few: the C library keeps memory for each thread that ever asked for
//! some, and what a review takes at its most would be kept for every thread of tokio's pool that had one.

use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use tokio::sync::{Semaphore, oneshot};
use tokio::time::timeout;

type Job = Box<dyn FnOnce() + Send>;

/// They end when nobody asks them any more.
#[derive(Clone)]
pub(super) struct Judges {
    turns: Arc<Semaphore>,
    jobs: Sender<Job>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum NotJudged {
    /// Its turn did not come.
    Late,
    Panicked,
}

impl Judges {
    pub(super) fn new(count: NonZeroUsize) -> Self {
        let (jobs, waiting) = channel();
        let waiting = Arc::new(Mutex::new(waiting));
        for _ in 0..count.get() {
            let waiting = waiting.clone();
            let thread = thread::Builder::new().name("webhook".to_owned());
            thread
                .spawn(move || work(&waiting))
                .expect("a thread, as the process begins");
        }
        Self {
            turns: Arc::new(Semaphore::new(count.get())),
            jobs,
        }
    }

    /// What comes of it, when its turn has come.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        patience: Duration,
        judge: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, NotJudged> {
        let turn = timeout(patience, self.turns.clone().acquire_owned()).await;
        let turn = turn.ok().and_then(Result::ok).ok_or(NotJudged::Late)?;
        let (tell, told) = oneshot::channel();
        let job = move || {
            let _turn = turn;
            // Whoever asked may be gone.
            let _ = tell.send(judge());
        };
        let sent = self.jobs.send(Box::new(job));
        sent.map_err(|_| NotJudged::Panicked)?;
        told.await.map_err(|_| NotJudged::Panicked)
    }
}

fn work(waiting: &Mutex<Receiver<Job>>) {
    loop {
        let job = waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .recv();
        let Ok(job) = job else { return };
        // Which has told of itself on its way; the next is not to suffer for it.
        let _ = catch_unwind(AssertUnwindSafe(job));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(5);

    fn judges(count: usize) -> Judges {
        Judges::new(NonZeroUsize::new(count).expect("more than none"))
    }

    #[tokio::test]
    async fn all_are_judged_by_so_many_threads() {
        let judges = judges(2);
        let asked = (0..100).map(|_| judges.run(SOON, || thread::current().id()));
        let threads = futures_util::future::join_all(asked).await;
        let threads: Result<std::collections::HashSet<_>, _> = threads.into_iter().collect();
        assert!((1..=2).contains(&threads.expect("all were judged").len()));
    }

    #[tokio::test]
    async fn a_review_that_nobody_thought_of_takes_no_thread_along() {
        let judges = judges(1);
        let panicked = judges.run(SOON, || panic!("nobody thought of it")).await;
        assert_eq!(panicked, Err::<(), _>(NotJudged::Panicked));
        assert_eq!(judges.run(SOON, || 7).await, Ok(7));
    }

    #[tokio::test]
    async fn whose_turn_does_not_come_in_time_is_told() {
        let judges = judges(1);
        let (go_on, waits) = channel::<()>();
        let first = tokio::spawn({
            let judges = judges.clone();
            async move { judges.run(SOON, move || waits.recv().is_err()).await }
        });
        while judges.turns.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        let late = judges.run(Duration::from_millis(10), || ()).await;
        assert_eq!(late, Err(NotJudged::Late));
        drop(go_on);
        assert_eq!(first.await.expect("it ends"), Ok(true));
        assert_eq!(judges.run(SOON, || 7).await, Ok(7));
    }
}
