//! How long an HTTP/1.1 caller may let us wait: for a head, long for its first byte, and from there on not; and for room for
//! what is answered, until its deadline, if it has one.
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
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use hyper::rt::{Sleep, Timer};
use pin_project_lite::pin_project;

/// Apps keep connections for longer than a few seconds (Go for 90), and a request that meets our end fails in the app.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(5 * 60);
/// A head that trickles in holds a connection for no longer.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Of one connection. One task serves it, and reads, writes and waits in turn.
#[derive(Clone)]
pub struct Patience(Arc<State>);

struct State {
    /// The head that is waited for has begun.
    begun: AtomicBool,
    /// A head has come, and no other is waited for yet.
    asked: AtomicBool,
    since: Instant,
    /// When the answer ends that is being sent: milliseconds since then, [`NEVER`] without a deadline.
    answer_ends: AtomicU64,
}

const NEVER: u64 = u64::MAX;

impl Default for Patience {
    fn default() -> Self {
        Self(Arc::new(State {
            begun: AtomicBool::new(false),
            asked: AtomicBool::new(false),
            since: tokio::time::Instant::now().into(),
            answer_ends: AtomicU64::new(NEVER),
        }))
    }
}

impl Patience {
    /// Bytes have come.
    pub fn heard(&self) {
        self.0.begun.store(true, Ordering::Relaxed);
    }

    pub fn has_begun(&self) -> bool {
        self.0.begun.load(Ordering::Relaxed)
    }

    /// A head is whole: what comes from now on is of the next, also before that is waited for. Nothing of its answer is
    /// known.
    pub fn asked(&self) {
        self.0.begun.store(false, Ordering::Relaxed);
        self.0.asked.store(true, Ordering::Relaxed);
        self.set_answer_end(None);
    }

    pub fn is_asked(&self) -> bool {
        self.0.asked.load(Ordering::Relaxed)
    }

    /// Of the answer that is sent from now on.
    pub fn set_answer_end(&self, end: Option<tokio::time::Instant>) {
        let millis = |end: tokio::time::Instant| {
            let after = end.into_std().saturating_duration_since(self.0.since);
            u64::try_from(after.as_millis()).unwrap_or(NEVER)
        };
        let ends = end.map_or(NEVER, millis);
        self.0.answer_ends.store(ends, Ordering::Relaxed);
    }

    pub fn answer_end(&self) -> Option<tokio::time::Instant> {
        let ends = self.0.answer_ends.load(Ordering::Relaxed);
        let after = (ends != NEVER).then(|| Duration::from_millis(ends))?;
        Some((self.0.since + after).into())
    }
}

impl Timer for Patience {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        self.sleep_until(self.now() + duration)
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>> {
        self.0.asked.store(false, Ordering::Relaxed);
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
