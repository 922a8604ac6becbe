//! Graceful shutdown: everybody who serves hears of it, and somebody waits until they are done.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Poll, Waker};
use std::time::Duration;

use tokio::signal::unix::{self, SignalKind};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// Says when to drain: connections are told to go elsewhere, and end when their requests have.
pub struct Signal {
    sender: watch::Sender<bool>,
    has_started: Arc<AtomicBool>,
}

/// Hears it. Each holder counts as work that is not finished.
#[derive(Clone)]
pub struct Drain {
    receiver: watch::Receiver<bool>,
    has_started: Arc<AtomicBool>,
    /// Where it is time then, whatever happens.
    until: Option<Instant>,
}

pub fn channel() -> (Signal, Drain) {
    let (sender, receiver) = watch::channel(false);
    let has_started = Arc::new(AtomicBool::new(false));
    let signal = Signal {
        sender,
        has_started: has_started.clone(),
    };
    let drain = Drain {
        receiver,
        has_started,
        until: None,
    };
    (signal, drain)
}

impl Signal {
    pub fn start(&self) {
        self.has_started.store(true, Ordering::Release);
        self.sender.send_replace(true);
    }

    /// Until every [`Drain`] is gone.
    pub async fn finished(&self) {
        self.sender.closed().await;
    }
}

impl Drop for Signal {
    /// Whoever would say it is gone, and with it the process that would serve.
    fn drop(&mut self) {
        self.has_started.store(true, Ordering::Release);
    }
}

impl Drain {
    /// Of something that has an end of its own.
    pub fn ending_in(self, left: Duration) -> Self {
        // Further away there is no Instant, and nobody waits.
        let until = Instant::now().checked_add(left);
        Self { until, ..self }
    }

    /// Returns when it is time to drain.
    pub async fn started(&mut self) {
        let mut told = pin!(self.receiver.wait_for(|started| *started));
        // Whoever serves a connection is woken for each request, and asks this, too. It is on the list of those to be woken, and
        // to look whether it still is takes two locks.
        let mut listed: Option<Waker> = None;
        let mut end = self.until.map(|until| Box::pin(sleep_until(until)));
        std::future::poll_fn(|cx| {
            if let Some(end) = &mut end
                && end.as_mut().poll(cx).is_ready()
            {
                return Poll::Ready(());
            }
            let is_listed = listed
                .as_ref()
                .is_some_and(|waker| waker.will_wake(cx.waker()));
            if is_listed && !self.has_started.load(Ordering::Acquire) {
                return Poll::Pending;
            }
            listed = Some(cx.waker().clone());
            told.as_mut().poll(cx).map(drop)
        })
        .await;
    }
}

/// Hears SIGTERM and SIGINT, from when it is made.
pub struct Termination {
    terminate: unix::Signal,
    interrupt: unix::Signal,
}

impl Termination {
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: unix::signal(SignalKind::terminate())?,
            interrupt: unix::signal(SignalKind::interrupt())?,
        })
    }

    /// Returns when the process is told to end, and again when it is told once more.
    pub async fn told(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_has_an_end_of_its_own_is_drained_then_and_no_later_than_all() {
        let (signal, drain) = channel();
        let begun = Instant::now();
        let left = Duration::from_secs(5);
        drain.clone().ending_in(left).started().await;
        assert_eq!(begun.elapsed(), left);
        signal.start();
        drain.ending_in(Duration::MAX).started().await;
        assert_eq!(begun.elapsed(), left);
    }

    /// Whoever is on the list looks no further until the flag is set. As a task, as connections are: there the waker is known
    /// again.
    #[tokio::test(start_paused = true)]
    async fn who_was_asked_again_and_again_hears_of_it_all_the_same() {
        for gone in [false, true] {
            let (signal, mut drain) = channel();
            let serving = tokio::spawn(async move {
                let mut started = pin!(drain.started());
                for _ in 0..3 {
                    let asked = std::future::poll_fn(|cx| Poll::Ready(started.as_mut().poll(cx)));
                    assert!(asked.await.is_pending());
                }
                started.await;
            });
            tokio::task::yield_now().await;
            match gone {
                true => drop(signal),
                false => signal.start(),
            }
            let soon = std::time::Duration::from_secs(5);
            let told = tokio::time::timeout(soon, serving).await;
            assert!(matches!(told, Ok(Ok(()))), "gone: {gone}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn draining_is_over_when_the_last_connection_is() {
        let (signal, mut drain) = channel();
        let connection = tokio::spawn(async move {
            drain.started().await;
            tokio::time::sleep(std::time::Duration::from_secs(3)).await;
        });
        let before = tokio::time::Instant::now();
        signal.start();
        signal.finished().await;
        assert_eq!(before.elapsed().as_secs(), 3);
        connection.await.expect("it ends");
    }
}
