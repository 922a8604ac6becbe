//! Bodies: streamed frame by frame, never read ahead, and telling those who wait how it ended.
//!
//! gRPC puts its status into trailers, resets come late and callers hang up, so the outcome of a call is known only
//! here. A layer that needs it attaches a [`Guard`]: its duty is done exactly once, with the outcome, or as
//! [`Outcome::Cancelled`] when whoever holds the body drops it.

mod copy;
mod guard;
mod slow;
mod source;
mod twin;
mod watch;

use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::SystemTime;

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode};
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep};

use crate::error::{Error, PROXY_ERROR};
use crate::exchange::Download;
use crate::head;
use crate::http1;
use crate::layer::authorize::Held;
use crate::layer::fault::Injection;
use crate::policy::outcome::{Fault, Outcome};
use crate::policy::pushback::Pushback;
use crate::replay::{Attempt, Replay};

pub use copy::{Copy, Room};
pub use guard::{Duty, Guard};
pub use twin::Twin;

use slow::Slow;
use source::Source;
use watch::Watch;

pub type BodyError = Box<dyn std::error::Error + Send + Sync>;

#[derive(Default)]
pub struct Body {
    source: Source,
    watch: Option<Box<Watch>>,
    /// By what right it passes, where that may be taken away.
    right: Option<Held>,
    /// Where nothing passes, nobody need wake it to be cut.
    is_upload: bool,
    /// It came over mutual TLS.
    pub mutual_tls: bool,
    /// Who answered with it.
    pub endpoint: Option<SocketAddr>,
}

impl Body {
    pub fn empty() -> Self {
        Self::default()
    }

    pub fn full(bytes: Bytes) -> Self {
        Self::of(Source::Full(bytes))
    }

    fn of(source: Source) -> Self {
        Self {
            source,
            watch: None,
            right: None,
            is_upload: false,
            mutual_tls: false,
            endpoint: None,
        }
    }

    /// Comes no faster than that while the fault lasts.
    pub fn slowed(mut self, bytes_per_second: u32, fault: Box<Injection>) -> Self {
        if !self.source.is_end_stream() {
            let source = std::mem::take(&mut self.source);
            let slow = Slow::new(source, bytes_per_second, fault);
            self.source = Source::Slow(Box::new(slow));
        }
        self
    }

    /// One try's view of a request body that may have to be sent again.
    pub fn attempt(attempt: Attempt) -> Self {
        Self::of(Source::Attempt(attempt))
    }

    /// Of an answer: ready when there is something behind its head, which stays there to be read.
    pub fn poll_first(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.source {
            Source::Download(download) => download.poll_first(cx),
            _ => Poll::Ready(()),
        }
    }

    /// See [`Download::trailers_alone`].
    fn trailers_alone(&self) -> Option<&HeaderMap> {
        match &self.source {
            Source::Download(download) => download.trailers_alone(),
            _ => None,
        }
    }

    /// Who waits for the end of a call that goes on after its answer, which has no body.
    pub fn goes_on(&mut self) -> Option<GoingOn> {
        self.watch.take().map(GoingOn)
    }

    /// Ends the body with `deadline` unless it has turned out to be a stream by then.
    pub fn end_at(&mut self, deadline: Pin<Box<Sleep>>) {
        if let Some(watch) = &mut self.watch
            && !self.source.is_end_stream()
        {
            watch.deadline = Some(deadline);
        }
    }

    /// Of an answer: it is cut when the right to its call is over.
    pub fn hold(&mut self, right: Held) {
        self.right = Some(right);
    }

    /// Of a request: nothing passes after the right to it is over.
    pub fn hold_upload(&mut self, right: Held) {
        if !self.source.is_end_stream() {
            self.right = Some(right);
            self.is_upload = true;
        }
    }

    /// Of an answer whose head is `head`. A body that is longer than the copy may be is not begun with.
    pub fn copy(&mut self, head: &http::response::Parts, copy: Copy) {
        use http_body::Body as _;
        if self.size_hint().lower() <= copy.bytes_max() as u64 {
            let new = || {
                Box::new(Watch::new(
                    watch::of_head(head.status, &head.headers),
                    &head.headers,
                ))
            };
            self.watch.get_or_insert_with(new).copy = Some(Box::new(copy));
        }
    }

    /// What it can be sent from several times, and whether nobody but who asks wants that. `Err`: it cannot be kept.
    pub fn into_replay(self) -> Result<(Replay, bool), Self> {
        match &self.source {
            Source::Attempt(attempt) => Ok((attempt.replay(), false)),
            Source::Incoming(_) | Source::Download(_) => Ok((Replay::new(self), true)),
            Source::Empty | Source::Full(_) | Source::Http1(_) | Source::Slow(_) => Err(self),
        }
    }

    pub fn download(download: Download) -> Self {
        Self::of(if download.is_end_stream() {
            Source::Empty
        } else {
            Source::Download(Box::new(download))
        })
    }

    pub fn http1(download: http1::Download) -> Self {
        Self::of(if download.is_end_stream() {
            Source::Empty
        } else {
            Source::Http1(Box::new(download))
        })
    }

    /// While nothing comes of it, or nobody takes what comes: ready when it ends before its end, and has.
    pub fn poll_cut(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if !self.is_upload
            && let Some(right) = &mut self.right
            && let Poll::Ready(error) = right.poll_waiting(cx)
        {
            return self.cut(error, Outcome::Cancelled);
        }
        if let Some(watch) = &mut self.watch
            && watch.deadline_passed(cx)
        {
            let error = Error::DeadlineExceeded { at: None };
            return self.cut(error, Outcome::Failure(Fault::Deadline));
        }
        Poll::Pending
    }

    /// When its deadline ends it, unless it turns out to be a stream.
    pub fn ends_at(&self) -> Option<Instant> {
        self.watch.as_ref()?.ends_at()
    }

    /// Ends it before its end. Whoever is upstream is told to stop: the source goes with its connection or its stream.
    fn cut(
        &mut self,
        error: Error,
        outcome: Outcome,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.source = Source::Empty;
        self.right = None;
        let mut is_grpc = false;
        if let Some(watch) = &mut self.watch {
            is_grpc = watch.grpc;
            watch.settle(outcome);
        }
        Poll::Ready(Some(match is_grpc {
            true => Ok(Frame::trailers(error.trailers())),
            false => Err(error.into()),
        }))
    }
}

/// A call after the end of HTTP in its connection. Dropped, it was given up.
pub struct GoingOn(Box<Watch>);

impl GoingOn {
    pub fn complete(mut self) {
        self.0.complete();
    }
}

impl From<Incoming> for Body {
    fn from(incoming: Incoming) -> Self {
        use http_body::Body as _;
        Self::of(if incoming.is_end_stream() {
            Source::Empty
        } else {
            Source::Incoming(incoming)
        })
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        if let Some(right) = &mut this.right
            && let Poll::Ready(error) = right.poll_passing(cx)
        {
            return this.cut(error, Outcome::Cancelled);
        }
        let polled = this.source.poll_frame(cx);
        let Poll::Ready(came) = polled else {
            return this.poll_cut(cx);
        };
        if let Some(watch) = &mut this.watch {
            match &came {
                None => watch.complete(),
                Some(Ok(frame)) => watch.see(frame),
                Some(Err(_)) => watch.settle(Outcome::Failure(Fault::Hard)),
            }
        }
        Poll::Ready(came)
    }

    fn is_end_stream(&self) -> bool {
        self.source.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.source.size_hint()
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        // hyper does not poll again once a body says that it is at its end.
        if let Some(watch) = &mut self.watch
            && self.source.is_end_stream()
        {
            watch.complete();
        }
    }
}

/// Where a gRPC call says how it went: in its head, or in trailers that are known to follow with no message between.
pub fn says_status(response: &Response<Body>) -> &HeaderMap {
    let trailers = response.body().trailers_alone();
    let trailers = trailers.filter(|trailers| trailers.contains_key(&head::GRPC_STATUS));
    trailers.unwrap_or_else(|| response.headers())
}

/// When whoever answered wants to be asked again.
pub fn pushback(response: &Response<Body>, today: SystemTime) -> Option<Pushback> {
    let of = |headers| Pushback::of_headers(headers, today);
    of(says_status(response)).or_else(|| of(response.headers()))
}

/// What the head of an answer says about how the call went. Looked up once for all the layers that ask.
pub fn outcome(response: &Response<Body>) -> Outcome {
    match &response.body().watch {
        Some(watch) => watch.outcome,
        None => watch::of_response(response),
    }
}

/// A rate limit, of a sidecar or of the app: it says when it is worth coming back, to whom it says it. Were that a failure,
/// who asks twice as often as it may would get nothing at all.
pub fn is_over_quota(response: &Response<Body>) -> bool {
    let headers = response.headers();
    let by_sidecar = headers
        .get(&PROXY_ERROR)
        .is_some_and(|code| code == "rate-limited");
    let by_app = response.status() == StatusCode::TOO_MANY_REQUESTS;
    by_sidecar || (by_app && !headers.contains_key(&head::OVERLOAD))
}

#[cfg(test)]
mod tests;
