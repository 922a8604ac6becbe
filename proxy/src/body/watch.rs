//! What a response body shows while it passes: whether it is a stream, and how the call went.

use std::pin::Pin;
use std::task::Context;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body::Frame;
use tokio::time::{Instant, Sleep};

use super::Body;
use super::copy::Copy;
use super::guard::Guards;
use crate::error::PROXY_ERROR;
use crate::head;
use crate::policy::outcome::{Fault, Outcome};

/// What a response body has shown so far, and who wants to know how it ends.
pub(super) struct Watch {
    pub(super) grpc: bool,
    /// A gRPC call has not said yet how it went. To end so is a failure: its caller's library makes UNKNOWN of it
    /// (gRPC, http-grpc-status-mapping).
    unsaid: bool,
    /// What the head said; trailers may still change it.
    pub(super) outcome: Outcome,
    messages: Messages,
    event_stream: bool,
    pub(super) deadline: Option<Pin<Box<Sleep>>>,
    pub(super) guards: Option<Box<dyn Guards>>,
    pub(super) copy: Option<Box<Copy>>,
}

impl Watch {
    pub(super) fn of(response: &Response<Body>) -> Self {
        let mut watch = Self::new(of_response(response), response.headers());
        watch.unsaid = watch.grpc && leaves_unsaid(response);
        watch
    }

    pub(super) fn new(outcome: Outcome, headers: &HeaderMap) -> Self {
        let content_type = headers
            .get(http::header::CONTENT_TYPE)
            .map(HeaderValue::as_bytes);
        let is = |prefix: &[u8]| content_type.is_some_and(|value| value.starts_with(prefix));
        Self {
            grpc: content_type.is_some_and(is_grpc),
            unsaid: false,
            outcome,
            messages: Messages::default(),
            event_stream: is(b"text/event-stream"),
            deadline: None,
            guards: None,
            copy: None,
        }
    }

    pub(super) fn see(&mut self, frame: &Frame<Bytes>) {
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
            self.unsaid = false;
        }
    }

    fn is_stream(&self) -> bool {
        self.event_stream || self.messages.started >= 2
    }

    pub(super) fn ends_at(&self) -> Option<Instant> {
        let deadline = self.deadline.as_ref().filter(|_| !self.is_stream());
        deadline.map(|deadline| deadline.deadline())
    }

    pub(super) fn deadline_passed(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(deadline) = &mut self.deadline else {
            return false;
        };
        if deadline.as_mut().poll(cx).is_pending() {
            return false;
        }
        self.deadline = None;
        !self.is_stream()
    }

    pub(super) fn complete(&mut self) {
        self.settle(match self.outcome {
            Outcome::Success if self.unsaid => Outcome::Failure(Fault::Hard),
            outcome => outcome,
        });
    }

    pub(super) fn settle(&mut self, outcome: Outcome) {
        self.deadline = None;
        let whole = outcome == Outcome::Success;
        if let Some(copy) = self.copy.take().filter(|_| whole) {
            copy.end();
        }
        if let Some(guards) = self.guards.take() {
            guards.done(outcome, Instant::now());
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

/// As far as is known when it comes.
pub(super) fn of_response(response: &Response<Body>) -> Outcome {
    use http_body::Body as _;
    if let Some(said) = (response.body().trailers_alone()).and_then(of_grpc_status) {
        return said;
    }
    let content_type = response.headers().get(http::header::CONTENT_TYPE);
    if response.body().is_end_stream()
        && content_type.is_some_and(|value| is_grpc(value.as_bytes()))
        && leaves_unsaid(response)
    {
        return Outcome::Failure(Fault::Hard);
    }
    of_head(response.status(), response.headers())
}

/// Not gRPC-Web, which says how it went in its body.
fn is_grpc(content_type: &[u8]) -> bool {
    let rest = content_type.strip_prefix(b"application/grpc");
    rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}

/// A head of a gRPC call that is no failure of HTTP, and says no status.
fn leaves_unsaid(response: &Response<Body>) -> bool {
    response.status() == StatusCode::OK
        && !super::says_status(response).contains_key(&head::GRPC_STATUS)
}

pub(super) fn of_head(status: StatusCode, headers: &HeaderMap) -> Outcome {
    if let Some(outcome) = of_grpc_status(headers) {
        return outcome;
    }
    match status {
        StatusCode::TOO_MANY_REQUESTS => Outcome::Failure(Fault::Overload),
        StatusCode::SERVICE_UNAVAILABLE if headers.contains_key(&head::OVERLOAD) => {
            Outcome::Failure(Fault::Overload)
        }
        StatusCode::GATEWAY_TIMEOUT if headers.get(&PROXY_ERROR).is_some_and(in_callers_time) => {
            Outcome::Failure(Fault::Deadline)
        }
        status if status.is_server_error() => Outcome::Failure(Fault::Hard),
        _ => Outcome::Success,
    }
}

/// A sidecar found that its caller was in too much of a hurry, which says nothing of the app behind it. Only sidecars can
/// say so: from whoever has no identity the header is taken away.
fn in_callers_time(code: &HeaderValue) -> bool {
    code == "deadline-exceeded" || code == "deadline-too-short"
}

fn of_grpc_status(headers: &HeaderMap) -> Option<Outcome> {
    let status = headers.get(&head::GRPC_STATUS)?.as_bytes();
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
    use super::*;

    /// Five callers in a hurry, and an endpoint that was well was taken out: gRPC has a status of its own for it.
    #[test]
    fn that_a_caller_had_too_little_time_is_not_held_against_an_endpoint() {
        let mut headers = HeaderMap::new();
        let late = StatusCode::GATEWAY_TIMEOUT;
        let hard = Outcome::Failure(Fault::Hard);
        assert_eq!(
            of_head(late, &headers),
            hard,
            "a gateway behind it timed out"
        );
        for (code, outcome) in [
            ("deadline-exceeded", Outcome::Failure(Fault::Deadline)),
            ("deadline-too-short", Outcome::Failure(Fault::Deadline)),
            ("per-try-timeout", hard),
        ] {
            headers.insert(&PROXY_ERROR, HeaderValue::from_static(code));
            assert_eq!(of_head(late, &headers), outcome, "{code}");
        }
        headers.insert(&PROXY_ERROR, HeaderValue::from_static("deadline-exceeded"));
        assert_eq!(of_head(StatusCode::BAD_GATEWAY, &headers), hard);
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
