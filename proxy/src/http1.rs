//! One request and its response on an HTTP/1.1 connection to an endpoint: whoever makes the call writes and reads it.
//!
//! hyper's client hands a request through a channel to a task of the connection and the response back through another;
//! for plain connections, on which one request is at a time, that buys nothing (benches/README.md). An upgrade still
//! takes hyper's, and so does serving.
//!
//! ```text
//!   caller ──▶ head and what is there of the body, in one write ──▶ head of the response ──▶ Download ──▶ pool
//!                     │ still more of it
//!                     ▼
//!               a task of its own: neither direction may wait for the other
//! ```

mod buffer;
mod download;
mod head;
mod upload;

use std::io;
use std::pin::pin;
use std::task::{Context, Poll, Waker, ready};

use bytes::BytesMut;
use http::{Response, request};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

pub use self::download::Download;
use self::download::Framing;
use self::upload::{Stopped, Upload};
use crate::body::{Body, BodyError};
use crate::interim::Interim;
use crate::pool::Home;
use crate::rest::Rest;
use crate::socket;

/// More than this of a head, or of trailers, and the peer does not mean well.
const HEAD_BYTES_MAX: usize = 64 * 1024;
const READ_BYTES: usize = 4 * 1024;

/// A connection on which no request is.
pub struct Connection {
    reader: OwnedReadHalf,
    writer: OwnedWriteHalf,
}

/// Why there is no response.
pub enum Failure {
    /// Nothing of the request was sent, or nothing came there before the peer had closed the connection.
    Unsent(BodyError),
    Broken(BodyError),
    /// The caller broke off while it sent its request.
    Aborted(BodyError),
}

impl Connection {
    pub fn new(stream: TcpStream) -> Self {
        let (reader, writer) = stream.into_split();
        Self { reader, writer }
    }

    /// Whether the peer has neither closed it nor said something that nobody asked for. Costs a system call only when
    /// something has come.
    pub fn is_idle(&self) -> bool {
        let stream = self.reader.as_ref();
        let mut cx = Context::from_waker(Waker::noop());
        match stream.poll_read_ready(&mut cx) {
            Poll::Pending => true,
            Poll::Ready(Err(_)) => false,
            Poll::Ready(Ok(())) => {
                let read = stream.try_read(&mut [0; 1]);
                matches!(read, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
            }
        }
    }

    /// Sends a request and returns with the head of the response. Dropped before that, it closes the connection; so does
    /// a response that is not read to its end. Else the connection goes `home`.
    pub fn send(
        self,
        head: &request::Parts,
        body: Body,
        home: Home,
        interim: Option<Interim>,
    ) -> impl Future<Output = Result<Response<Body>, Failure>> + use<> {
        let Self { mut reader, writer } = self;
        let method = head.method.clone();
        let upload = Upload::new(head, body, writer).map_err(Failure::Unsent);
        async move {
            let mut upload = Some(upload?);
            let mut writer = None;
            let mut written = 0;
            let mut incoming = Incoming::default();
            let answered = std::future::poll_fn(|cx| {
                if let Some(sending) = &mut upload {
                    let sent = sending.poll(cx);
                    written = sending.written();
                    match sent {
                        Poll::Pending => {}
                        Poll::Ready(Ok(())) => writer = upload.take().map(Upload::into_writer),
                        Poll::Ready(Err(Stopped::Caller(error))) => {
                            return Poll::Ready(Err(Failure::Aborted(error)));
                        }
                        // It may have answered all the same before it went; or else reading says how it went.
                        Poll::Ready(Err(Stopped::Peer)) => upload = None,
                    }
                }
                loop {
                    match ready!(incoming.poll_head(&mut reader, cx)) {
                        Ok(response) if response.status().is_informational() => {
                            if let Some(interim) = &interim {
                                interim.push(response.status(), response.headers());
                            }
                        }
                        Ok(response) => return Poll::Ready(Ok(response)),
                        Err(error) => {
                            let unsent = written == 0 || {
                                // An app that closes what has been idle does not see a request that is on its way.
                                error.kind() == io::ErrorKind::UnexpectedEof
                                    && incoming.bytes.is_empty()
                                    && socket::lacks_last(reader.as_ref(), written)
                            };
                            return Poll::Ready(Err(match unsent {
                                true => Failure::Unsent(error.into()),
                                false => Failure::Broken(error.into()),
                            }));
                        }
                    }
                }
            });
            let response = answered.await?;
            let (head, ()) = response.into_parts();
            let has = self::head::FramingFields::of(&head.headers);
            let framing =
                Framing::of(&method, &head, &has).map_err(|why| Failure::Broken(why.into()))?;
            let mut download = Download::new(reader, incoming.bytes, framing);
            // A writer that is merely dropped tells the app that nothing more comes. Some (Node) take that for a caller who
            // has gone, and break off the answer; so it is forgotten, and the connection ends with its reader.
            if let Some(upload) = upload {
                download.sends_meanwhile(Rest::send(Some(upload)));
            } else if let Some(writer) = writer {
                if self::head::keeps_alive(&head, &has) {
                    download.returns(writer, home);
                } else {
                    writer.forget();
                }
            }
            Ok(Response::from_parts(head, Body::http1(download)))
        }
    }
}

/// What has come and is not used yet.
#[derive(Default)]
struct Incoming {
    bytes: BytesMut,
    /// So much of it has no end of a head.
    searched: usize,
}

impl Incoming {
    /// The next head, informational or final.
    fn poll_head(
        &mut self,
        reader: &mut OwnedReadHalf,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Response<()>>> {
        loop {
            let end = self::head::end(&self.bytes, self.searched);
            if end.unwrap_or(self.bytes.len()) > HEAD_BYTES_MAX {
                return Poll::Ready(Err(invalid("its head is too large")));
            }
            if let Some(end) = end {
                self.searched = 0;
                let head = self.bytes.split_to(end).freeze();
                return Poll::Ready(self::head::parse(&head));
            }
            self.searched = self.bytes.len();
            ready!(reader.as_ref().poll_read_ready(cx))?;
            if self.bytes.capacity() == 0 {
                self.bytes = buffer::take();
            }
            if ready!(poll_read(reader, &mut self.bytes, READ_BYTES, cx))? == 0 {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }
}

/// Reads into what room there is, after making some. 0: the peer has ended.
fn poll_read(
    reader: &mut OwnedReadHalf,
    into: &mut BytesMut,
    room: usize,
    cx: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    if into.capacity() - into.len() < room / 2 {
        into.reserve(room);
    }
    pin!(reader.read_buf(into)).poll(cx)
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
pub(crate) mod tests;
