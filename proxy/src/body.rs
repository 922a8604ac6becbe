//! Bodies: streamed frame by frame, never read ahead, and telling those who wait how it ended.
//!
//! gRPC puts its status into trailers, resets come late and callers hang up, so the outcome of a call is known only
//! here. A layer that needs it attaches a [`Guard`]: its duty is done exactly once, with the outcome, or as
//! [`Outcome::Cancelled`] when whoever holds the body drops it.

use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Sleep;

use crate::error::Error;
use crate::exchange::Download;
use crate::http1;
use crate::layer::authorize::Held;
use crate::layer::fault::Injection;
use crate::policy::outcome::{Fault, Outcome};
use crate::replay::{Attempt, Replay};

mod copy;
mod slow;

pub use copy::{Copy, Room};

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

#[derive(Default)]
enum Source {
    #[default]
    Empty,
    Full(Bytes),
    Incoming(Incoming),
    /// From a connection that others share.
    Download(Box<Download>),
    /// From an endpoint's connection, which serves nobody else meanwhile.
    Http1(Box<http1::Download>),
    Attempt(Attempt),
    Slow(Box<slow::Slow>),
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
            let slow = slow::Slow::new(source, bytes_per_second, fault);
            self.source = Source::Slow(Box::new(slow));
        }
        self
    }

    /// One try's view of a request body that may have to be sent again.
    pub fn attempt(attempt: Attempt) -> Self {
        Self::of(Source::Attempt(attempt))
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
            let new = || Box::new(Watch::new(head.status, &head.headers));
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
}

/// What a request body can be sent from a second time, while it is being sent.
pub struct Twin {
    /// `None`: there is nothing to send.
    replay: Option<Replay>,
    /// Nobody else wants to send it again.
    own: bool,
}

impl Twin {
    /// Makes `body` keep what passes, unless it does already. `None`: it cannot.
    pub fn of(body: &mut Body) -> Option<Self> {
        let (replay, own) = match &body.source {
            Source::Empty => (None, false),
            Source::Attempt(attempt) => (Some(attempt.replay()), false),
            Source::Full(_) | Source::Slow(_) => return None,
            Source::Incoming(_) | Source::Download(_) | Source::Http1(_) => {
                let replay = Replay::new(std::mem::take(body));
                *body = Body::attempt(replay.attempt());
                (Some(replay), true)
            }
        };
        Some(Self { replay, own })
    }

    /// The body from its start; `None`: not all of it has passed, or it is too long to be kept.
    pub fn again(&self) -> Option<Body> {
        match &self.replay {
            None => Some(Body::empty()),
            Some(replay) => replay.beside().map(Body::attempt),
        }
    }

    /// The body from its start, whoever reads it now; `None`: too much of it has passed to be kept.
    pub fn anew(&self) -> Option<Body> {
        match &self.replay {
            None => Some(Body::empty()),
            Some(replay) => (replay.is_possible()).then(|| Body::attempt(replay.attempt())),
        }
    }

    /// There is nothing to send.
    pub const fn is_empty(&self) -> bool {
        self.replay.is_none()
    }

    /// It will not be sent again: keep no more.
    pub fn commit(&self) {
        if let Some(replay) = self.replay.as_ref().filter(|_| self.own) {
            replay.commit();
        }
    }
}

impl Body {
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

impl Source {
    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Full(bytes) => bytes.is_empty(),
            Self::Incoming(incoming) => http_body::Body::is_end_stream(incoming),
            Self::Download(download) => download.is_end_stream(),
            Self::Http1(download) => download.is_end_stream(),
            Self::Attempt(attempt) => attempt.is_end_stream(),
            Self::Slow(slow) => slow.is_end_stream(),
        }
    }

    fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self {
            Self::Empty => Poll::Ready(None),
            Self::Full(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Full(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Self::Incoming(incoming) => {
                http_body::Body::poll_frame(Pin::new(incoming), cx).map_err(Into::into)
            }
            Self::Download(download) => download.poll_frame(cx),
            Self::Http1(download) => download.poll_frame(cx),
            Self::Attempt(attempt) => attempt.poll_frame(cx),
            Self::Slow(slow) => slow.poll_frame(cx),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Incoming(incoming) => http_body::Body::size_hint(incoming),
            Self::Download(download) => download.size_hint(),
            Self::Http1(download) => download.size_hint(),
            Self::Attempt(attempt) => attempt.size_hint(),
            Self::Slow(slow) => slow.size_hint(),
        }
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
        if polled.is_pending()
            && !this.is_upload
            && let Some(right) = &mut this.right
            && let Poll::Ready(error) = right.poll_waiting(cx)
        {
            return this.cut(error, Outcome::Cancelled);
        }
        let Some(watch) = &mut this.watch else {
            return polled;
        };
        match polled {
            Poll::Pending if watch.deadline_passed(cx) => {
                this.cut(Error::DeadlineExceeded, Outcome::Failure(Fault::Deadline))
            }
            Poll::Pending => Poll::Pending,
            Poll::Ready(None) => {
                watch.complete();
                Poll::Ready(None)
            }
            Poll::Ready(Some(Ok(frame))) => {
                watch.see(&frame);
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                watch.settle(Outcome::Failure(Fault::Hard));
                Poll::Ready(Some(Err(error)))
            }
        }
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

/// What a response body has shown so far, and who wants to know how it ends.
struct Watch {
    grpc: bool,
    /// What the head said; trailers may still change it.
    outcome: Outcome,
    messages: Messages,
    event_stream: bool,
    deadline: Option<Pin<Box<Sleep>>>,
    guards: Option<Box<dyn Guards>>,
    copy: Option<Box<Copy>>,
}

impl Watch {
    fn new(status: StatusCode, headers: &HeaderMap) -> Self {
        let content_type = headers
            .get(http::header::CONTENT_TYPE)
            .map(HeaderValue::as_bytes);
        let is = |prefix: &[u8]| content_type.is_some_and(|value| value.starts_with(prefix));
        Self {
            grpc: is(b"application/grpc"),
            outcome: of_head(status, headers),
            messages: Messages::default(),
            event_stream: is(b"text/event-stream"),
            deadline: None,
            guards: None,
            copy: None,
        }
    }

    fn see(&mut self, frame: &Frame<Bytes>) {
        if let Some(copy) = &mut self.copy
            && !frame.data_ref().is_some_and(|data| copy.see(data))
        {
            // Too long, or followed by trailers, which nobody would keep.
            self.copy = None;
        }
        if let Some(data) = frame.data_ref() {
            if self.deadline.is_some() && self.grpc {
                self.messages.see(data);
            }
        } else if let Some(trailers) = frame.trailers_ref()
            && let Some(outcome) = of_grpc_status(trailers)
        {
            self.outcome = outcome;
        }
    }

    fn is_stream(&self) -> bool {
        self.event_stream || self.messages.started >= 2
    }

    fn deadline_passed(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(deadline) = &mut self.deadline else {
            return false;
        };
        if deadline.as_mut().poll(cx).is_pending() {
            return false;
        }
        self.deadline = None;
        !self.is_stream()
    }

    fn complete(&mut self) {
        self.settle(self.outcome);
    }

    fn settle(&mut self, outcome: Outcome) {
        self.deadline = None;
        let whole = outcome == Outcome::Success;
        if let Some(copy) = self.copy.take().filter(|_| whole) {
            copy.end();
        }
        if let Some(guards) = self.guards.take() {
            guards.done(outcome);
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // Whoever goes away early did not make a failure of the head: a retry leaves such an answer unread.
        self.settle(match self.outcome {
            Outcome::Success | Outcome::Cancelled => Outcome::Cancelled,
            failure @ Outcome::Failure(_) => failure,
        });
    }
}

/// Guards that have been put around one another.
trait Guards: Send {
    /// From the innermost to the outermost.
    fn done(self: Box<Self>, outcome: Outcome);
}

struct Around<D> {
    inner: Option<Box<dyn Guards>>,
    duty: D,
}

impl<D: Duty> Guards for Around<D> {
    fn done(self: Box<Self>, outcome: Outcome) {
        let Self { inner, duty } = *self;
        if let Some(inner) = inner {
            inner.done(outcome);
        }
        duty.done(outcome);
    }
}

/// Counts gRPC messages by their five-byte prefixes: two or more in an answer, and it is a stream.
#[derive(Default)]
struct Messages {
    started: u32,
    prefix: [u8; 5],
    prefix_len: usize,
    /// Bytes of the current message still to come.
    remaining: usize,
}

impl Messages {
    fn see(&mut self, mut data: &[u8]) {
        while !data.is_empty() && self.started < 2 {
            if self.remaining > 0 {
                let skipped = self.remaining.min(data.len());
                self.remaining -= skipped;
                data = &data[skipped..];
                continue;
            }
            self.prefix[self.prefix_len] = data[0];
            self.prefix_len += 1;
            data = &data[1..];
            if self.prefix_len == 5 {
                self.prefix_len = 0;
                self.started += 1;
                let [_, a, b, c, d] = self.prefix;
                self.remaining = u32::from_be_bytes([a, b, c, d]) as usize;
            }
        }
    }
}

/// What has to be done when it is known how a call went.
pub trait Duty: Send + 'static {
    /// The head is there, or never will be.
    fn answered(&mut self, _: &Result<Response<Body>, Error>) {}

    fn done(self, outcome: Outcome);
}

impl<F: FnOnce(Outcome) + Send + 'static> Duty for F {
    fn done(self, outcome: Outcome) {
        self(outcome);
    }
}

/// A duty that is done exactly once: with the outcome of the call, or as cancelled when it is dropped.
pub struct Guard<D: Duty>(Option<D>);

impl<D: Duty> Guard<D> {
    pub fn new(duty: D) -> Self {
        Self(Some(duty))
    }

    /// To note what has become known meanwhile.
    pub fn duty(&mut self) -> &mut D {
        self.0
            .as_mut()
            .expect("only settling takes it, and that consumes the guard")
    }

    /// Done now when there is no response; otherwise when the response's body has ended.
    pub fn settle(
        mut self,
        mut result: Result<Response<Body>, Error>,
    ) -> Result<Response<Body>, Error> {
        let mut duty = self.0.take().expect("a guard is settled once");
        if let Ok(response) = &mut result
            && response.body().watch.is_none()
        {
            let watch = Watch::new(response.status(), response.headers());
            response.body_mut().watch = Some(Box::new(watch));
        }
        duty.answered(&result);
        match result
            .as_mut()
            .map(|response| &mut response.body_mut().watch)
        {
            Ok(watch) => {
                let watch = watch.as_mut().expect("it was made above, if not before");
                let inner = watch.guards.take();
                watch.guards = Some(Box::new(Around { inner, duty }));
            }
            Err(error) => duty.done(error.outcome()),
        }
        result
    }
}

impl<D: Duty> Drop for Guard<D> {
    fn drop(&mut self) {
        if let Some(duty) = self.0.take() {
            duty.done(Outcome::Cancelled);
        }
    }
}

/// What the head of an answer says about how the call went. Looked up once for all the layers that ask.
pub fn outcome(response: &Response<Body>) -> Outcome {
    match &response.body().watch {
        Some(watch) => watch.outcome,
        None => of_head(response.status(), response.headers()),
    }
}

fn of_head(status: StatusCode, headers: &HeaderMap) -> Outcome {
    if let Some(outcome) = of_grpc_status(headers) {
        return outcome;
    }
    match status {
        StatusCode::TOO_MANY_REQUESTS => Outcome::Failure(Fault::Overload),
        StatusCode::SERVICE_UNAVAILABLE if headers.contains_key(&crate::head::OVERLOAD) => {
            Outcome::Failure(Fault::Overload)
        }
        status if status.is_server_error() => Outcome::Failure(Fault::Hard),
        _ => Outcome::Success,
    }
}

fn of_grpc_status(headers: &HeaderMap) -> Option<Outcome> {
    let status = headers.get(&crate::head::GRPC_STATUS)?.as_bytes();
    Some(match status {
        // UNKNOWN, INTERNAL, UNAVAILABLE, DATA_LOSS
        b"2" | b"13" | b"14" | b"15" => Outcome::Failure(Fault::Hard),
        b"4" => Outcome::Failure(Fault::Deadline),
        b"8" => Outcome::Failure(Fault::Overload),
        _ => Outcome::Success,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use http_body_util::BodyExt;

    use super::*;

    fn recorded() -> (
        Arc<Mutex<Vec<Outcome>>>,
        impl FnOnce(Outcome) + Send + 'static,
    ) {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let clone = seen.clone();
        (seen, move |outcome| {
            clone.lock().expect("not poisoned").push(outcome)
        })
    }

    fn outcomes(seen: &Mutex<Vec<Outcome>>) -> Vec<Outcome> {
        seen.lock().expect("not poisoned").clone()
    }

    #[tokio::test]
    async fn a_guard_fires_once_when_the_body_has_been_read() {
        let (seen, duty) = recorded();
        let response = Guard::new(duty)
            .settle(Ok(Response::new(Body::full("hello".into()))))
            .expect("a response");
        assert!(outcomes(&seen).is_empty(), "the body has not ended yet");
        let bytes = response
            .into_body()
            .collect()
            .await
            .expect("the body")
            .to_bytes();
        assert_eq!(bytes, "hello");
        assert_eq!(outcomes(&seen), [Outcome::Success]);
    }

    #[test]
    fn a_caller_that_hangs_up_is_an_outcome_of_its_own() {
        let (seen, duty) = recorded();
        drop(Guard::new(duty).settle(Ok(Response::new(Body::full("hello".into())))));
        assert_eq!(outcomes(&seen), [Outcome::Cancelled]);
        let (seen, duty) = recorded();
        drop(Guard::new(duty));
        assert_eq!(outcomes(&seen), [Outcome::Cancelled]);
    }

    #[test]
    fn guards_hear_of_the_end_from_the_innermost_to_the_outermost() {
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut result = Ok(Response::new(Body::full("hello".into())));
        for name in ["inner", "middle", "outer"] {
            let order = order.clone();
            let duty = move |_| order.lock().expect("not poisoned").push(name);
            result = Guard::new(duty).settle(result);
        }
        drop(result);
        let order = order.lock().expect("not poisoned");
        assert_eq!(*order, ["inner", "middle", "outer"]);
    }

    #[test]
    fn a_failure_is_one_whether_or_not_anybody_reads_it_to_the_end() {
        let (seen, duty) = recorded();
        let mut response = Response::new(Body::full("no".into()));
        *response.status_mut() = StatusCode::BAD_GATEWAY;
        drop(Guard::new(duty).settle(Ok(response)));
        assert_eq!(outcomes(&seen), [Outcome::Failure(Fault::Hard)]);
    }

    #[test]
    fn a_body_that_was_at_its_end_from_the_start_is_complete() {
        let (seen, duty) = recorded();
        drop(Guard::new(duty).settle(Ok(Response::new(Body::empty()))));
        assert_eq!(outcomes(&seen), [Outcome::Success]);
    }

    #[test]
    fn a_grpc_status_counts_more_than_the_http_status_beside_it() {
        let mut headers = HeaderMap::new();
        assert_eq!(of_head(StatusCode::OK, &headers), Outcome::Success);
        headers.insert("grpc-status", HeaderValue::from_static("14"));
        assert_eq!(
            of_head(StatusCode::OK, &headers),
            Outcome::Failure(Fault::Hard)
        );
        headers.insert("grpc-status", HeaderValue::from_static("5"));
        assert_eq!(
            of_head(StatusCode::OK, &headers),
            Outcome::Success,
            "NOT_FOUND is an answer"
        );
    }

    #[test]
    fn two_messages_make_a_stream_however_they_are_cut() {
        let mut two = Vec::new();
        for _ in 0..2 {
            two.extend_from_slice(&[0, 0, 0, 0, 3]);
            two.extend_from_slice(b"abc");
        }
        for cut in 0..two.len() {
            let mut messages = Messages::default();
            messages.see(&two[..cut]);
            messages.see(&two[cut..]);
            assert_eq!(messages.started, 2, "cut at {cut}");
        }
        let mut one = Messages::default();
        one.see(&two[..8]);
        assert_eq!(one.started, 1);
    }
}
