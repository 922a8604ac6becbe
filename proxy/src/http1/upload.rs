//! A request on its way out: its head, and its body frame by frame, each pulled only when the last one has gone.

use std::fmt::Write;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, HeaderMap, HeaderValue, TRAILER, TRANSFER_ENCODING};
use http::request::Parts;
use http_body::{Body as _, Frame};
use tokio::io::AsyncWrite;
use tokio::net::tcp::OwnedWriteHalf;

use super::{head, invalid};
use crate::body::{Body, BodyError};
use crate::head::may_trail;
use crate::rest::Sending;

/// A head with room for what a small body adds.
const HEAD_BYTES: usize = 512;

pub(super) struct Upload {
    writer: OwnedWriteHalf,
    body: Body,
    rest: Rest,
    /// Trailers are sent only where the head announced them (RFC 9110 section 6.6.2).
    announced: Option<HeaderValue>,
    /// The head, or the line before a chunk; then `data`; then `tail`.
    front: BytesMut,
    data: Bytes,
    tail: &'static [u8],
    written: u64,
}

/// What is still to come of the body.
enum Rest {
    Nothing,
    Bytes(u64),
    Chunks,
}

pub(super) enum Stopped {
    Caller(BodyError),
    Peer,
}

impl Upload {
    pub(super) fn new(head: &Parts, body: Body, writer: OwnedWriteHalf) -> Result<Self, BodyError> {
        let mut front = BytesMut::with_capacity(HEAD_BYTES);
        head::write(head, &mut front);
        let announced = length(&head.headers)?;
        let rest = if body.is_end_stream() {
            // What was announced and is not there: the peer must not wait for it.
            match announced {
                Some(1..) => return Err("its body is shorter than its content-length".into()),
                _ => Rest::Nothing,
            }
        } else if let Some(length) = announced {
            Rest::Bytes(length)
        } else if let Some(length) = body.size_hint().exact() {
            head::write_field(&CONTENT_LENGTH, &HeaderValue::from(length), &mut front);
            Rest::Bytes(length)
        } else {
            let chunked = HeaderValue::from_static("chunked");
            head::write_field(&TRANSFER_ENCODING, &chunked, &mut front);
            Rest::Chunks
        };
        front.extend_from_slice(b"\r\n");
        Ok(Self {
            writer,
            body,
            rest,
            announced: head.headers.get(TRAILER).cloned(),
            front,
            data: Bytes::new(),
            tail: b"",
            written: 0,
        })
    }

    /// Bytes.
    pub(super) fn written(&self) -> u64 {
        self.written
    }

    pub(super) fn into_writer(self) -> OwnedWriteHalf {
        self.writer
    }

    /// Ready when all has been written.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Stopped>> {
        loop {
            // The first of the body goes out with the head, if it is there.
            let mut pulled = Poll::Ready(());
            if self.data.is_empty() && self.tail.is_empty() {
                pulled = self.pull(cx).map_err(Stopped::Caller)?;
            }
            ready!(self.poll_write(cx)).map_err(|_| Stopped::Peer)?;
            if matches!(self.rest, Rest::Nothing) {
                return Poll::Ready(Ok(()));
            }
            ready!(pulled);
        }
    }

    /// The next frame, as it will be written.
    fn pull(&mut self, cx: &mut Context<'_>) -> Result<Poll<()>, BodyError> {
        if matches!(self.rest, Rest::Nothing) {
            return Ok(Poll::Ready(()));
        }
        let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) else {
            return Ok(Poll::Pending);
        };
        match frame.transpose()?.map(Frame::into_data) {
            Some(Ok(data)) => self.put(data)?,
            Some(Err(frame)) => {
                if let Ok(trailers) = frame.into_trailers() {
                    self.end(&trailers)?;
                }
            }
            None => self.end(&HeaderMap::new())?,
        }
        Ok(Poll::Ready(()))
    }

    fn put(&mut self, data: Bytes) -> Result<(), BodyError> {
        match &mut self.rest {
            Rest::Bytes(left) => {
                let too_long = "its body is longer than its content-length";
                *left = left.checked_sub(data.len() as u64).ok_or(too_long)?;
                if *left == 0 {
                    self.rest = Rest::Nothing;
                }
                self.data = data;
            }
            // An empty chunk would be the last.
            Rest::Chunks if !data.is_empty() => {
                // Writing into memory does not fail.
                let _ = write!(self.front, "{:x}\r\n", data.len());
                self.data = data;
                self.tail = b"\r\n";
            }
            Rest::Chunks | Rest::Nothing => {}
        }
        Ok(())
    }

    fn end(&mut self, trailers: &HeaderMap) -> Result<(), BodyError> {
        match self.rest {
            Rest::Bytes(1..) => return Err("its body is shorter than its content-length".into()),
            Rest::Chunks => {
                self.front.extend_from_slice(b"0\r\n");
                for (name, value) in trailers {
                    if may_trail(name) && self.is_announced(name.as_str()) {
                        head::write_field(name, value, &mut self.front);
                    }
                }
                self.tail = b"\r\n";
            }
            Rest::Bytes(0) | Rest::Nothing => {}
        }
        self.rest = Rest::Nothing;
        Ok(())
    }

    fn is_announced(&self, name: &str) -> bool {
        let announced = self
            .announced
            .as_ref()
            .and_then(|names| names.to_str().ok());
        announced.is_some_and(|names| {
            names
                .split(',')
                .any(|announced| announced.trim().eq_ignore_ascii_case(name))
        })
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !(self.front.is_empty() && self.data.is_empty() && self.tail.is_empty()) {
            let slices = [&self.front[..], &self.data, self.tail].map(IoSlice::new);
            let writer = Pin::new(&mut self.writer);
            let mut written = ready!(writer.poll_write_vectored(cx, &slices))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += written as u64;
            for part in [
                &mut self.front as &mut dyn Buf,
                &mut self.data,
                &mut self.tail,
            ] {
                let gone = written.min(part.remaining());
                part.advance(gone);
                written -= gone;
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// `None`: it has been sent.
impl Sending for Option<Upload> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(upload) = self else {
            return Poll::Ready(());
        };
        // What stops it, the response says, or the connection does.
        if ready!(upload.poll(cx)).is_ok()
            && let Some(upload) = self.take()
        {
            upload.into_writer().forget();
        }
        Poll::Ready(())
    }

    fn moved(&self) -> u64 {
        self.as_ref().map_or(0, Upload::written)
    }

    /// When the app has closed its side, or says what nobody asked for.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(upload) = self else {
            return Poll::Ready(());
        };
        let stream = upload.writer.as_ref();
        loop {
            if ready!(stream.poll_read_ready(cx)).is_err() {
                return Poll::Ready(());
            }
            match stream.try_read(&mut [0; 1]) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                _ => return Poll::Ready(()),
            }
        }
    }
}

/// What the head says. Two that differ are what request smuggling is made of.
fn length(headers: &HeaderMap) -> io::Result<Option<u64>> {
    let mut found = None;
    for value in headers.get_all(CONTENT_LENGTH) {
        let length = super::download::digits(value.as_bytes());
        let length = length.ok_or_else(|| invalid("its content-length is no number"))?;
        if found.is_some_and(|found| found != length) {
            return Err(invalid("its content-lengths differ"));
        }
        found = Some(length);
    }
    Ok(found)
}
