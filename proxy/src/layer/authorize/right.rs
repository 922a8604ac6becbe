//! What was granted and may be taken away while it is being made use of.
//!
//! ```text
//!   bytes of an opaque or upgraded connection ── taken away ──▶ cut at once: nobody knows where they end
//!   a call ── taken away ──▶ may end by itself ── GRACE over ──▶ cut: a stream, a long poll, a long transfer
//!                              └── given back ──▶ goes on
//! ```
//!
//! Each of them asks once for each new policy, whatever passes meanwhile.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::{Method, StatusCode, Uri};
use http_body::Body as _;
use pin_project_lite::pin_project;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::{Counted, Shared};
use crate::error::Error;
use crate::layer::Answer;
use crate::policy::authorize::Question;
use crate::telemetry;

/// Far more than what a call takes that is none that lasts; and so long somebody who may not any more still may.
const GRACE: Duration = Duration::from_secs(5);
/// The body of a request outlasts its answer, by which the caller is told; unless nobody reads that.
const UPLOAD_GRACE: Duration = Duration::from_secs(6);

/// By what right somebody is there on whose behalf nobody asks again.
#[derive(Clone)]
pub struct Right {
    pub(super) shared: Arc<Shared>,
    pub(super) changed: watch::Receiver<()>,
    pub(super) caller: Option<Arc<str>>,
    pub(super) call: Option<(Method, Uri)>,
}

impl Right {
    /// Returns when that to an opaque or upgraded connection has been taken away.
    pub async fn taken_away(&mut self) {
        let error = self.denied(Counted::Yes).await;
        let carries = match self.call {
            Some(_) => "upgraded",
            None => "opaque",
        };
        if let Error::Denied { service, .. } = &error {
            telemetry::revoked(service, carries);
        }
        let caller = self.caller();
        tracing::info!(caller, carries, %error, "a connection that was open is cut");
    }

    /// Returns when that to a call was taken away `grace` ago.
    async fn over(&mut self, grace: Duration, counted: Counted) -> Error {
        'granted: loop {
            let mut error = self.denied(counted).await;
            let end = Instant::now() + grace;
            while timeout_at(end, self.policy_changes()).await.is_ok() {
                match self.shared.decide(self.question(), counted) {
                    Ok(()) => continue 'granted,
                    Err(still) => error = still,
                }
            }
            return error;
        }
    }

    async fn denied(&mut self, counted: Counted) -> Error {
        loop {
            self.policy_changes().await;
            if let Err(error) = self.shared.decide(self.question(), counted) {
                return error;
            }
        }
    }

    async fn policy_changes(&mut self) {
        if self.changed.changed().await.is_err() {
            // The port's rights are gone with the sidecar.
            std::future::pending().await
        }
    }

    fn tell_of_a_call(&self, error: &Error) {
        if let Error::Denied { service, .. } = error {
            telemetry::revoked_call(service);
        }
        let caller = self.caller();
        tracing::info!(caller, %error, "a call that was under way is cut");
    }

    /// Whether there has been another policy since it was granted.
    fn is_doubtful(&self) -> bool {
        self.changed.has_changed().unwrap_or(false)
    }

    fn caller(&self) -> &str {
        self.caller.as_deref().unwrap_or("nobody")
    }

    pub(super) fn question(&self) -> Question<'_> {
        Question {
            caller: self.caller.as_deref(),
            call: self.call.as_ref().map(|(method, uri)| (method, uri.path())),
        }
    }
}

/// A call's right, in the hands of one of its bodies or of what waits for its answer.
pub struct Held {
    right: Arc<Right>,
    of: Part,
    over: Option<Pin<Box<dyn Future<Output = Error> + Send>>>,
}

#[derive(Clone, Copy)]
enum Part {
    Answer,
    Upload,
}

impl Held {
    fn new(right: Arc<Right>, of: Part) -> Self {
        let over = None;
        Self { right, of, over }
    }

    /// Before a frame passes: a look at a number, unless there has been another policy.
    pub fn poll_passing(&mut self, cx: &mut Context<'_>) -> Poll<Error> {
        match self.right.is_doubtful() {
            true => self.poll_waiting(cx),
            false => Poll::Pending,
        }
    }

    /// Where nothing passes: wakes the task when the call is to be cut.
    pub fn poll_waiting(&mut self, cx: &mut Context<'_>) -> Poll<Error> {
        let (right, of) = (&self.right, self.of);
        let over = self.over.get_or_insert_with(|| {
            let mut right = Right::clone(right);
            Box::pin(async move {
                match of {
                    // Of the two this one counts.
                    Part::Answer => {
                        let error = right.over(GRACE, Counted::Yes).await;
                        right.tell_of_a_call(&error);
                        error
                    }
                    Part::Upload => right.over(UPLOAD_GRACE, Counted::No).await,
                }
            })
        });
        over.as_mut().poll(cx)
    }
}

pin_project! {
    /// A call, for as long as whoever makes it may. The body of its answer inherits that.
    pub struct Granted<F> {
        #[pin]
        call: F,
        held: Option<Held>,
    }
}

impl<F> Granted<F> {
    /// And the right for the body of the request, which is sent by somebody else.
    pub(super) fn new(right: Arc<Right>, call: impl FnOnce(Held) -> F) -> Self {
        Self {
            call: call(Held::new(right.clone(), Part::Upload)),
            held: Some(Held::new(right, Part::Answer)),
        }
    }
}

impl<F: Future<Output = Answer>> Future for Granted<F> {
    type Output = Answer;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Answer> {
        let this = self.project();
        let Poll::Ready(mut answer) = this.call.poll(cx) else {
            let held = this.held.as_mut().expect("it is there until the answer is");
            return Poll::Ready(Err(ready!(held.poll_waiting(cx))));
        };
        if let (Ok(response), Some(held)) = (&mut answer, this.held.take()) {
            if response.status() == StatusCode::SWITCHING_PROTOCOLS {
                response.extensions_mut().insert(Right::clone(&held.right));
            } else if !response.body().is_end_stream() {
                response.body_mut().hold(held);
            }
        }
        Poll::Ready(answer)
    }
}
