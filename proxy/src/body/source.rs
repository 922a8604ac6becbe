//! Where the frames of a body come from.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;

use super::BodyError;
use super::slow::Slow;
use crate::exchange::Download;
use crate::http1;
use crate::replay::Attempt;

#[derive(Default)]
pub(super) enum Source {
    #[default]
    Empty,
    Full(Bytes),
    Incoming(Incoming),
    /// From a connection that others share.
    Download(Box<Download>),
    /// From an endpoint's connection, which serves nobody else meanwhile.
    Http1(Box<http1::Download>),
    Attempt(Attempt),
    Slow(Box<Slow>),
}

impl Source {
    pub(super) fn is_end_stream(&self) -> bool {
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

    pub(super) fn poll_frame(
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

    pub(super) fn size_hint(&self) -> SizeHint {
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
