//! The rest of a request that is being answered already: sent beside its answer, and a while after it.
//!
//! ```text
//!   answer begins ──▶ both go on, for as long as they like ──▶ answer has ended ──▶ the rest still moves ─┐
//!                            │ answer given up                       ▲ │            │                     │
//!                            ▼                                       └─┼────────────┼─────────────────────┘
//!                          ended                                       ▼ stands     ▼ app closes
//!                                                                    ended        ended
//! ```
//!
//! Without that end, a caller who neither sends nor ends would hold a task and a connection of the app for ever.

use std::future::poll_fn;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::AbortHandle;

/// What has not moved for this long after its answer will not be missed: to whoever asked, the call is over.
const STANDING_MAX: Duration = Duration::from_secs(30);

pub(crate) trait Sending: Send + 'static {
    /// Ready when there is nothing more to send.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()>;

    /// Grows with whatever is sent.
    fn moved(&self) -> u64;

    /// Asked when the answer has ended: ready when nobody takes any more.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()>;
}

/// Held by the answer; dropped when that has ended.
pub(crate) struct Rest {
    task: AbortHandle,
    _answering: oneshot::Sender<()>,
}

impl Rest {
    /// A task of its own: neither direction may wait for the other.
    pub(crate) fn send(sending: impl Sending) -> Self {
        let (answering, answered) = oneshot::channel();
        Self {
            task: tokio::spawn(send(sending, answered)).abort_handle(),
            _answering: answering,
        }
    }

    pub(crate) fn abort(&self) {
        self.task.abort();
    }
}

async fn send(mut sending: impl Sending, answered: oneshot::Receiver<()>) {
    tokio::select! {
        () = poll_fn(|cx| sending.poll(cx)) => return,
        _ = answered => {}
    }
    loop {
        let before = sending.moved();
        let ended = poll_fn(|cx| match sending.poll_gone(cx) {
            Poll::Ready(()) => Poll::Ready(()),
            Poll::Pending => sending.poll(cx),
        });
        let ended = tokio::time::timeout(STANDING_MAX, ended).await.is_ok();
        if ended || sending.moved() == before {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;

    use tokio::time::{Instant, Sleep, sleep};

    use super::*;

    /// A frame each `pause`, `frames` of them, and then nothing and no end.
    struct Slow {
        pause: Duration,
        frames: u64,
        sent: u64,
        next: Pin<Box<Sleep>>,
        _ended: oneshot::Sender<()>,
    }

    impl Sending for Slow {
        fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
            while self.sent < self.frames && self.next.as_mut().poll(cx).is_ready() {
                self.sent += 1;
                self.next = Box::pin(sleep(self.pause));
            }
            Poll::Pending
        }

        fn moved(&self) -> u64 {
            self.sent
        }

        fn poll_gone(&mut self, _: &mut Context<'_>) -> Poll<()> {
            Poll::Pending
        }
    }

    /// It had no end: each such call held a task and a connection of the app for ever.
    #[tokio::test(start_paused = true)]
    async fn what_stands_still_after_its_answer_ends_and_what_moves_or_is_being_answered_does_not()
    {
        let (ended, mut end) = oneshot::channel();
        let pause = Duration::from_secs(20);
        let answer = Rest::send(Slow {
            pause,
            frames: 10,
            sent: 0,
            next: Box::pin(sleep(Duration::from_secs(3600))),
            _ended: ended,
        });
        let long = Duration::from_secs(30 * 60);
        let waited = tokio::time::timeout(long, &mut end).await;
        assert!(waited.is_err(), "an answer that is open may be silent");
        drop(answer);
        let begun = Instant::now();
        let ended = tokio::time::timeout(long, end).await;
        assert!(ended.is_ok(), "it has no end");
        assert_eq!(begun.elapsed().as_secs(), 30);

        let (ended, end) = oneshot::channel();
        drop(Rest::send(Slow {
            pause,
            frames: 10,
            sent: 0,
            next: Box::pin(sleep(pause)),
            _ended: ended,
        }));
        let begun = Instant::now();
        let _ = end.await;
        let seconds = begun.elapsed().as_secs();
        assert!(
            (230..=260).contains(&seconds),
            "all ten frames, and then {seconds} s"
        );
    }
}
