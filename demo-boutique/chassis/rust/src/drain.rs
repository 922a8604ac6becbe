//! Ending without a lost call.
//!
//! ```text
//! signal ─▶ health: NOT_SERVING ─▶ drain_delay, still accepting ─▶ GOAWAY ─▶ calls in flight finish ─▶ end
//!                                  (whoever balances must notice)            (at most grace)
//! second signal ─▶ end at once
//! ```

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

/// The shell's convention for "ended by signal n".
const EXIT_BY_SIGNAL: i32 = 128;

/// SIGTERM and SIGINT, watched from when this is made: make it before anybody is told that the service runs.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    pub fn watch() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Resolves with the first signal; from then on a second one ends the process.
    pub async fn first(mut self) {
        self.next().await;
        tokio::spawn(async move {
            let second = self.next().await;
            std::process::exit(EXIT_BY_SIGNAL + second.as_raw_value());
        });
    }

    async fn next(&mut self) -> SignalKind {
        tokio::select! {
            _ = self.terminate.recv() => SignalKind::terminate(),
            _ = self.interrupt.recv() => SignalKind::interrupt(),
        }
    }
}

/// What health says of the process and of each name it serves.
pub struct Health {
    reporter: HealthReporter,
    names: &'static [&'static str],
}

impl Health {
    /// `names` are full names of services; the process as a whole is always there.
    pub fn new(reporter: HealthReporter, names: &'static [&'static str]) -> Self {
        Self { reporter, names }
    }

    pub async fn serving(&self) {
        self.set(ServingStatus::Serving).await;
    }

    pub async fn not_serving(&self) {
        self.set(ServingStatus::NotServing).await;
    }

    /// Ends the Watch streams, which would otherwise hold their connections open for ever.
    pub async fn end_watches(&mut self) {
        for name in Self::all(self.names) {
            self.reporter.clear_service_status(name).await;
        }
    }

    async fn set(&self, status: ServingStatus) {
        for name in Self::all(self.names) {
            self.reporter.set_service_status(name, status).await;
        }
    }

    fn all(names: &'static [&'static str]) -> impl Iterator<Item = &'static str> {
        std::iter::once("").chain(names.iter().copied())
    }
}
