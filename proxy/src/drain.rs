//! Graceful shutdown: everybody who serves hears of it, and somebody waits until they are done.

use std::io;

use tokio::signal::unix::{self, SignalKind};
use tokio::sync::watch;

/// Says when to drain: connections are told to go elsewhere, and end when their requests have.
pub struct Signal(watch::Sender<bool>);

/// Hears it. Each holder counts as work that is not finished.
#[derive(Clone)]
pub struct Drain(watch::Receiver<bool>);

pub fn channel() -> (Signal, Drain) {
    let (sender, receiver) = watch::channel(false);
    (Signal(sender), Drain(receiver))
}

impl Signal {
    pub fn start(&self) {
        self.0.send_replace(true);
    }

    /// Until every [`Drain`] is gone.
    pub async fn finished(&self) {
        self.0.closed().await;
    }
}

impl Drain {
    /// Returns when it is time to drain.
    pub async fn started(&mut self) {
        // An error means that the signal is gone, and with it the process that would serve.
        let _ = self.0.wait_for(|started| *started).await;
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
