//! A response's body: where it ends (RFC 9112 section 6.3), and reading it, no further ahead than one buffer.

use std::io;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, Method, StatusCode, Version, response};
use http_body::{Frame, SizeHint};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use super::head::FramingFields;
use super::{Connection, HEAD_BYTES_MAX, buffer, head, invalid, poll_read};
use crate::body::BodyError;
use crate::pool::Home;
use crate::rest::Rest;

/// One read, and one frame, of a body are at most this long; a body that fills them gets longer ones.
const READ_BYTES: usize = 8 * 1024;
const READ_BYTES_MAX: usize = 64 * 1024;
/// The line before a chunk: sixteen digits and what extensions may take, which nobody uses.
const CHUNK_LINE_MAX: usize = 1024;
const TRAILERS_MAX: usize = 32;

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Framing {
    Bytes(u64),
    Chunks(Chunk),
    /// Until the peer closes the connection, which then serves nothing else.
    Close,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Chunk {
    /// The line with its size comes next.
    Line,
    Bytes(u64),
    /// The line's end behind its bytes comes next.
    End,
    Trailers,
}

impl Framing {
    pub(super) fn of(
        request: &Method,
        head: &response::Parts,
        has: &FramingFields,
    ) -> Result<Self, &'static str> {
        let without = head.status.is_informational()
            || [StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED].contains(&head.status);
        if without || request == Method::HEAD {
            return Ok(Self::Bytes(0));
        }
        if has.coding {
            let mut codings = head.headers.get_all(TRANSFER_ENCODING).iter();
            let coding = codings.next();
            // No other was asked for, and none could be passed on.
            let chunked = coding.is_some_and(|it| it.as_bytes().eq_ignore_ascii_case(b"chunked"));
            if !chunked || codings.next().is_some() || head.version != Version::HTTP_11 {
                return Err("its transfer-encoding is not chunked");
            }
            // One of the two lies (RFC 9112 section 6.3, rule 3): a sign of smuggling.
            if has.length {
                return Err("it has both a transfer-encoding and a content-length");
            }
            return Ok(Self::Chunks(Chunk::Line));
        }
        if !has.length {
            return Ok(Self::Close);
        }
        let mut length = None;
        for value in head.headers.get_all(CONTENT_LENGTH) {
            let found = digits(value.as_bytes()).ok_or("its content-length is no number")?;
            if length.is_some_and(|length| length != found) {
                return Err("its content-lengths differ");
            }
            length = Some(found);
        }
        Ok(length.map_or(Self::Close, Self::Bytes))
    }
}

/// A decimal number and nothing else: no sign, no space, no list.
pub(super) fn digits(bytes: &[u8]) -> Option<u64> {
    if bytes.is_empty() || !bytes.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(bytes).ok()?.parse().ok()
}

pub struct Download {
    /// `None` once the body has ended.
    reader: Option<OwnedReadHalf>,
    bytes: BytesMut,
    /// All of it came with the head so far.
    is_small: bool,
    /// For the next read.
    room: usize,
    framing: Framing,
    /// Where the connection goes when the body has been read to its end.
    back: Option<(OwnedWriteHalf, Home)>,
    /// The rest of the request that this answers.
    upload: Option<Rest>,
}

impl Download {
    pub(super) fn new(reader: OwnedReadHalf, bytes: BytesMut, framing: Framing) -> Self {
        Self {
            reader: Some(reader),
            bytes,
            is_small: true,
            room: READ_BYTES,
            framing,
            back: None,
            upload: None,
        }
    }

    pub(super) fn returns(&mut self, writer: OwnedWriteHalf, home: Home) {
        self.back = Some((writer, home));
        if self.framing == Framing::Bytes(0) {
            self.end();
        }
    }

    pub(super) fn sends_meanwhile(&mut self, upload: Rest) {
        self.upload = Some(upload);
    }

    pub fn is_end_stream(&self) -> bool {
        self.reader.is_none() || self.framing == Framing::Bytes(0)
    }

    pub fn size_hint(&self) -> SizeHint {
        match self.framing {
            Framing::Bytes(left) => SizeHint::with_exact(left),
            _ => SizeHint::new(),
        }
    }

    pub fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = ready!(self.poll_next(cx));
        if matches!(frame, Err(_) | Ok(None)) {
            self.reader = None;
        }
        Poll::Ready(frame.map_err(Into::into).transpose())
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Frame<Bytes>>>> {
        while self.reader.is_some() {
            match &mut self.framing {
                Framing::Bytes(0) => self.end(),
                Framing::Bytes(left) => {
                    let Some(data) = take(&mut self.bytes, left) else {
                        ready!(self.poll_more(cx))?;
                        continue;
                    };
                    if *left == 0 {
                        self.end();
                    }
                    return Poll::Ready(Ok(Some(Frame::data(data))));
                }
                Framing::Close if self.bytes.is_empty() => {
                    if ready!(self.poll_read(cx))? == 0 {
                        self.reader = None;
                    }
                }
                Framing::Close => {
                    let data = self.bytes.split().freeze();
                    return Poll::Ready(Ok(Some(Frame::data(data))));
                }
                Framing::Chunks(chunk) => match chunk.next(&mut self.bytes)? {
                    Some(Part::Data(data)) => return Poll::Ready(Ok(Some(Frame::data(data)))),
                    Some(Part::Last(trailers)) => {
                        self.end();
                        return Poll::Ready(Ok(trailers.map(Frame::trailers)));
                    }
                    None => ready!(self.poll_more(cx))?,
                },
            }
        }
        Poll::Ready(Ok(None))
    }

    /// The body must go on, so an end of the connection is an error.
    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match ready!(self.poll_read(cx))? {
            0 => Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
            _ => Poll::Ready(Ok(())),
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let reader = self.reader.as_mut().expect("asked only while it is there");
        self.is_small = false;
        let read = ready!(poll_read(reader, &mut self.bytes, self.room, cx))?;
        if read >= self.room {
            self.room = (self.room * 2).min(READ_BYTES_MAX);
        }
        Poll::Ready(Ok(read))
    }

    fn end(&mut self) {
        let reader = self.reader.take();
        // Whatever else has come was not asked for: such a connection is not used again.
        if let (Some(reader), Some((writer, home))) = (reader, self.back.take())
            && self.bytes.is_empty()
        {
            if self.is_small {
                // A larger one may be kept by whoever keeps a few bytes of the next response.
                buffer::give_back(std::mem::take(&mut self.bytes));
            }
            home.take_back(Connection { reader, writer });
        }
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        // Nobody reads the answer any more, so nobody is asked any more.
        if !self.is_end_stream()
            && let Some(upload) = &self.upload
        {
            upload.abort();
        }
    }
}

enum Part {
    Data(Bytes),
    /// The last one has none, and trailers if there are any.
    Last(Option<HeaderMap>),
}

impl Chunk {
    /// `None`: more must come first.
    fn next(&mut self, bytes: &mut BytesMut) -> io::Result<Option<Part>> {
        loop {
            match self {
                Self::Line => match httparse::parse_chunk_size(bytes) {
                    Ok(httparse::Status::Complete((line, size))) => {
                        bytes.advance(line);
                        *self = if size == 0 {
                            Self::Trailers
                        } else {
                            Self::Bytes(size)
                        };
                    }
                    Ok(httparse::Status::Partial) if bytes.len() <= CHUNK_LINE_MAX => {
                        return Ok(None);
                    }
                    _ => return Err(invalid("a chunk has no size")),
                },
                Self::Bytes(left) => {
                    let data = take(bytes, left);
                    if *left == 0 {
                        *self = Self::End;
                    }
                    return Ok(data.map(Part::Data));
                }
                Self::End => match bytes.first_chunk() {
                    Some(b"\r\n") => {
                        bytes.advance(2);
                        *self = Self::Line;
                    }
                    Some(_) => return Err(invalid("a chunk is longer than its size")),
                    None => return Ok(None),
                },
                Self::Trailers => return trailers(bytes),
            }
        }
    }
}

fn trailers(bytes: &mut BytesMut) -> io::Result<Option<Part>> {
    if bytes.starts_with(b"\r\n") {
        bytes.advance(2);
        return Ok(Some(Part::Last(None)));
    }
    let Some(end) = head::end(bytes, 0) else {
        return if bytes.len() <= HEAD_BYTES_MAX {
            Ok(None)
        } else {
            Err(invalid("its trailers are too large"))
        };
    };
    let section = bytes.split_to(end).freeze();
    let mut fields = [httparse::EMPTY_HEADER; TRAILERS_MAX];
    match httparse::parse_headers(&section, &mut fields) {
        Ok(httparse::Status::Complete((_, fields))) => {
            Ok(Some(Part::Last(Some(head::fields(fields, &section)?))))
        }
        _ => Err(invalid("its trailers are malformed")),
    }
}

/// Up to `left` of what is there, and counts it off. `None`: nothing is.
fn take(bytes: &mut BytesMut, left: &mut u64) -> Option<Bytes> {
    let there = usize::try_from(*left)
        .unwrap_or(usize::MAX)
        .min(bytes.len());
    if there == 0 {
        return None;
    }
    *left -= there as u64;
    Some(bytes.split_to(there).freeze())
}
