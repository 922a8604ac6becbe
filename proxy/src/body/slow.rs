//! A body that comes slower than it could, on purpose: at most so many bytes a second until the fault is over.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::time::{Instant, Sleep};

use super::{BodyError, Source};
use crate::layer::fault::Injection;

/// So many pieces a second, where there are as many bytes.
const PIECES_PER_SECOND: u32 = 10;

pub(super) struct Slow {
    inner: Source,
    bytes_per_second: u32,
    /// Read, and not passed on; no more is read meanwhile.
    rest: Bytes,
    ready: Pin<Box<Sleep>>,
    fault: Box<Injection>,
}

impl Slow {
    pub(super) fn new(inner: Source, bytes_per_second: u32, fault: Box<Injection>) -> Self {
        Self {
            inner,
            bytes_per_second,
            rest: Bytes::new(),
            ready: Box::pin(tokio::time::sleep(Duration::ZERO)),
            fault,
        }
    }

    pub(super) fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.inner.is_end_stream()
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        let (mut hint, inner) = (SizeHint::new(), self.inner.size_hint());
        let rest = self.rest.len() as u64;
        if let Some(upper) = inner.upper() {
            hint.set_upper(upper + rest);
        }
        hint.set_lower(inner.lower() + rest);
        hint
    }

    pub(super) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        while self.rest.is_empty() {
            match ready!(self.inner.poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.rest = data,
                    Err(other) => return Poll::Ready(Some(Ok(other))),
                },
                end => return Poll::Ready(end),
            }
        }
        if self.fault.is_over() {
            return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut self.rest)))));
        }
        ready!(self.ready.as_mut().poll(cx));
        let piece = (self.bytes_per_second / PIECES_PER_SECOND).max(1) as usize;
        let piece = self.rest.split_to(piece.min(self.rest.len()));
        let takes = Duration::from_secs_f64(piece.len() as f64 / f64::from(self.bytes_per_second));
        self.ready.as_mut().reset(Instant::now() + takes);
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }
}
