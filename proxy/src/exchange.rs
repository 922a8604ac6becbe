//! One request and its response on an HTTP/2 connection that others share, on h2 itself; `http2.rs` serves with the same
//! bodies.
//!
//! hyper's client hands a request to the connection's task through a channel and starts two tasks for it; that is a
//! quarter of what a hop costs (benches/README.md). Here whoever makes the call sends it.
//!
//! ```text
//!   caller ──▶ head, body as far as it is there ──▶ head of the response ──▶ Download, read by the caller
//!                     │ still more of it
//!                     ▼
//!               a task of its own: neither direction may wait for the other
//! ```

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use h2::client::{ResponseFuture, SendRequest};
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, Request, Response, header, request};
use http_body::{Body as _, Frame, SizeHint};

use crate::body::{Body, BodyError};
use crate::head;
use crate::interim::Interim;
use crate::pool::StreamSlot;
use crate::rest::{Rest, Sending};
use crate::standing::Standing;

/// Why there is no response.
pub enum Failure {
    /// Nothing of the request was sent.
    Unsent(h2::Error),
    Broken(h2::Error),
    /// The caller broke off while it sent its request.
    Aborted(BodyError),
}

/// Sends the head of a request at once; returns with that of the response. Dropped before that, it resets the stream.
pub fn send(
    sender: &mut SendRequest<Bytes>,
    head: request::Parts,
    body: Body,
    slot: StreamSlot,
    interim: Option<Interim>,
) -> impl Future<Output = Result<Response<Body>, Failure>> + use<> {
    let ends = body.is_end_stream();
    let sent = sender.send_request(Request::from_parts(head, ()), ends);
    let sent = sent.map(|(response, stream)| {
        let upload = (!ends).then(|| Upload::new(body, stream));
        (response, upload)
    });
    answer(sent, slot, interim)
}

async fn answer(
    sent: Result<(ResponseFuture, Option<Upload>), h2::Error>,
    mut slot: StreamSlot,
    interim: Option<Interim>,
) -> Result<Response<Body>, Failure> {
    let (mut response, mut upload) = sent.map_err(Failure::Unsent)?;
    let answered = std::future::poll_fn(|cx| {
        if let Some(sending) = &mut upload {
            match sending.poll(cx) {
                Poll::Ready(Err(error)) => return Poll::Ready(Err(Failure::Aborted(error))),
                Poll::Ready(Ok(())) => upload = None,
                Poll::Pending => {}
            }
        }
        if let Some(interim) = &interim {
            while let Poll::Ready(Some(Ok(head))) = response.poll_informational(cx) {
                interim.push(head.status(), head.headers());
            }
        }
        Pin::new(&mut response).poll(cx).map_err(Failure::Broken)
    });
    let answered = answered.await;
    // Dropped before this, it was given up.
    slot.answered();
    let response = answered?;
    let (head, body) = response.into_parts();
    let mut download = Download::new(body, &head.headers);
    download.upload = upload.map(Rest::send);
    download.slot = Some(slot);
    Ok(Response::from_parts(head, Body::download(download)))
}

type BodyFrame = Option<Result<Frame<Bytes>, BodyError>>;

/// Shorter frames are put together. Above that a copy costs more than a frame.
const SMALL: usize = 4 * 1024;
/// What is put together is no longer than a frame that every peer takes (RFC 9113 section 4.2).
const TOGETHER_MAX: usize = 16 * 1024;

/// A body on its way to the peer. Pulls no more than one frame of the peer's size while the last one has not gone.
pub struct Upload {
    body: Body,
    stream: SendStream<Bytes>,
    /// Nothing has been sent behind the head.
    is_fresh: bool,
    /// Data for which the peer has no room yet, and whether it is the last.
    waiting: Option<(Bytes, bool)>,
    /// Came behind what was put together, and did not belong to it.
    behind: Option<BodyFrame>,
    /// Frames.
    sent: u64,
    standing: Standing,
}

impl Upload {
    pub fn new(body: Body, stream: SendStream<Bytes>) -> Self {
        Self {
            body,
            stream,
            is_fresh: true,
            waiting: None,
            behind: None,
            sent: 0,
            standing: Standing::default(),
        }
    }

    /// Ready when there is nothing more to send, also because the peer wants no more; then the response says why.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BodyError>> {
        let mut is_dry = false;
        loop {
            if self.stream.poll_reset(cx).is_ready() {
                return Poll::Ready(Ok(()));
            }
            if let Some((data, last)) = self.waiting.take() {
                // h2 has no room for a stream before its head is written, so who asks for it sends head and data in two
                // writes, and wakes the peer twice. What is left of one frame keeps until there is room.
                let goes_with_head =
                    std::mem::take(&mut self.is_fresh) && data.len() <= TOGETHER_MAX;
                while self.stream.capacity() == 0 && !goes_with_head {
                    match self.stream.poll_capacity(cx) {
                        Poll::Ready(Some(Ok(_))) => {}
                        Poll::Ready(Some(Err(_)) | None) => return Poll::Ready(Ok(())),
                        Poll::Pending => {
                            self.waiting = Some((data, last));
                            return self.poll_standing(cx).map(Ok);
                        }
                    }
                }
                self.sent += 1;
                if self.stream.send_data(data, last).is_err() || last {
                    return Poll::Ready(Ok(()));
                }
            }
            let frame = match self.behind.take() {
                Some(frame) => frame,
                None if is_dry => return Poll::Pending,
                None => ready!(Pin::new(&mut self.body).poll_frame(cx)),
            };
            match frame.map(|frame| frame.map(Frame::into_data)) {
                // Asking for room before there is something to send would keep it from other streams (hyper#4003).
                Some(Ok(Ok(data))) if !data.is_empty() => {
                    let data = self.gather(data, cx, &mut is_dry);
                    self.stream.reserve_capacity(1);
                    self.waiting = Some((data, self.behind.is_none() && self.body.is_end_stream()));
                }
                Some(Ok(Ok(_))) if !self.body.is_end_stream() => {}
                Some(Ok(Ok(_))) | None => {
                    let _ = self.stream.send_data(Bytes::new(), true);
                    return Poll::Ready(Ok(()));
                }
                Some(Ok(Err(frame))) => {
                    if let Ok(mut trailers) = frame.into_trailers() {
                        head::strip_trailers(&mut trailers);
                        self.stream.reserve_capacity(0);
                        if self.stream.send_trailers(trailers).is_err() {
                            // Or the peer would wait for an end.
                            self.stream.send_reset(Reason::INTERNAL_ERROR);
                        }
                        return Poll::Ready(Ok(()));
                    }
                }
                Some(Err(error)) => {
                    self.stream.send_reset(reason_of(error.as_ref()));
                    return Poll::Ready(Err(error));
                }
            }
        }
    }
}

impl Upload {
    /// There is no room: what ends it then is its deadline, who takes the right to it away, or that nobody takes any of it.
    fn poll_standing(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.body.poll_cut(cx).is_pending() {
            ready!(self.standing.poll(self.sent, cx));
        }
        self.stream.send_reset(Reason::CANCEL);
        Poll::Ready(())
    }
}

impl Sending for Upload {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.poll(cx).map(drop)
    }

    fn moved(&self) -> u64 {
        self.sent
    }

    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.stream.poll_reset(cx).map(drop)
    }
}

impl Upload {
    /// `first` with the small frames that are there behind it, as one: each frame costs its sender, whoever forwards it and its
    /// reader the same, however short it is. Nothing is waited for.
    fn gather(&mut self, first: Bytes, cx: &mut Context<'_>, is_dry: &mut bool) -> Bytes {
        if first.len() >= SMALL {
            return first;
        }
        let mut together: Option<BytesMut> = None;
        let mut length = first.len();
        while length + SMALL <= TOGETHER_MAX && !self.body.is_end_stream() {
            let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) else {
                // It wakes this task when there is more.
                *is_dry = true;
                break;
            };
            let small = match &frame {
                Some(Ok(frame)) => frame.data_ref().filter(|data| data.len() < SMALL),
                _ => None,
            };
            let Some(small) = small else {
                self.behind = Some(frame);
                break;
            };
            let together = together.get_or_insert_with(|| {
                let mut together = BytesMut::with_capacity(SMALL);
                together.extend_from_slice(&first);
                together
            });
            together.extend_from_slice(small);
            length += small.len();
        }
        together.map_or(first, BytesMut::freeze)
    }
}

/// The reason of the other side, where it gave one.
fn reason_of(error: &(dyn std::error::Error + 'static)) -> Reason {
    let mut source = Some(error);
    while let Some(error) = source {
        if let Some(reason) = error
            .downcast_ref::<h2::Error>()
            .and_then(h2::Error::reason)
        {
            return reason;
        }
        source = error.source();
    }
    Reason::CANCEL
}

/// A body that comes from the peer. The peer may send more when a frame has been taken out here, and no earlier.
pub struct Download {
    stream: RecvStream,
    /// Bytes still to come, where the head said how many.
    left: Option<u64>,
    data_ended: bool,
    ended: bool,
    /// What came behind the head, where somebody wanted to know before it is read.
    first: Option<BodyFrame>,
    /// The rest of the request that this answers.
    upload: Option<Rest>,
    /// Given back when the stream is gone.
    slot: Option<StreamSlot>,
}

impl Download {
    pub fn new(stream: RecvStream, headers: &HeaderMap) -> Self {
        let length = headers.get(header::CONTENT_LENGTH);
        Self {
            left: length.and_then(|length| length.to_str().ok()?.parse().ok()),
            data_ended: false,
            ended: false,
            first: None,
            stream,
            upload: None,
            slot: None,
        }
    }

    pub fn is_end_stream(&self) -> bool {
        match &self.first {
            Some(first) => first.is_none(),
            None => self.ended || self.stream.is_end_stream(),
        }
    }

    /// Ready when there is something behind the head; it is read as if nobody had looked.
    pub fn poll_first(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.first.is_none() {
            self.first = Some(ready!(self.poll_next(cx)));
        }
        Poll::Ready(())
    }

    /// Those that came behind the head with nothing before them, as far as is known.
    pub fn trailers_alone(&self) -> Option<&HeaderMap> {
        self.first.as_ref()?.as_ref()?.as_ref().ok()?.trailers_ref()
    }

    pub fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::new, SizeHint::with_exact)
    }

    pub fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = match self.first.take() {
            Some(first) => first,
            None => ready!(self.poll_next(cx)),
        };
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            // It fails only for a stream that is gone.
            let _ = self.stream.flow_control().release_capacity(data.len());
            if let Some(left) = &mut self.left {
                *left = left.saturating_sub(data.len() as u64);
            }
        }
        Poll::Ready(frame)
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<BodyFrame> {
        while !self.data_ended {
            match ready!(self.stream.poll_data(cx)) {
                Some(Ok(data)) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                Some(Err(error)) => return self.broken(error),
                None => self.data_ended = true,
            }
        }
        match ready!(self.stream.poll_trailers(cx)) {
            Ok(trailers) => {
                self.ended = true;
                Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))))
            }
            Err(error) => self.broken(error),
        }
    }

    fn broken(&mut self, error: h2::Error) -> Poll<BodyFrame> {
        self.ended = true;
        Poll::Ready(Some(Err(error.into())))
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        // Nobody reads the answer any more, so nobody is asked any more; the stream is reset when both halves are gone.
        if !self.is_end_stream()
            && let Some(upload) = &self.upload
        {
            upload.abort();
        }
    }
}

#[cfg(test)]
mod tests;
