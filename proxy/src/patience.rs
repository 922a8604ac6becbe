//! How long an HTTP/1.1 caller may let us wait for a head: long for its first byte, and from there on not.
//!
//! ```text
//!   response sent ──▶ Idle ── first byte ──▶ Begun ── empty line ──▶ a request
//!                       │ 5 min                │ 10 s
//!                       ▼                      ▼
//!                an ordinary end            rejected
//! ```
//!
//! hyper has one time for both. It makes a timer when it begins to wait for a head, asks it whenever there is none yet, and
//! drops it with the head; so what depends on the first byte is the timer.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use hyper::rt::{Sleep, Timer};
use pin_project_lite::pin_project;

/// Apps keep connections for longer than a few seconds (Go for 90), and a request that meets our end fails in the app.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(5 * 60);
/// A head that trickles in holds a connection for no longer.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Of one connection: whether the head that is waited for has begun. One task serves it, and reads and waits in turn.
#[derive(Clone, Default)]
pub struct Patience(Arc<AtomicBool>);

impl Patience {
    /// Bytes have come.
    pub fn heard(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub fn has_begun(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl Timer for Patience {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        self.sleep_until(self.now() + duration)
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>> {
        self.0.store(false, Ordering::Relaxed);
        Box::pin(Waiting {
            sleep: tokio::time::sleep_until(deadline.into()),
            patience: self.clone(),
            is_short: false,
        })
    }

    fn now(&self) -> Instant {
        tokio::time::Instant::now().into()
    }
}

pin_project! {
    struct Waiting {
        #[pin]
        sleep: tokio::time::Sleep,
        patience: Patience,
        is_short: bool,
    }
}

impl Future for Waiting {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut this = self.project();
        if !*this.is_short && this.patience.has_begun() {
            *this.is_short = true;
            let until = tokio::time::Instant::now() + HEAD_TIMEOUT;
            this.sleep.as_mut().reset(until);
        }
        this.sleep.poll(cx)
    }
}

impl Sleep for Waiting {}
