//! Informational responses (1xx, RFC 9110 section 15.2): what an app says before it answers, 103 Early Hints say, reaches
//! whoever asked at once.
//!
//! ```text
//!   app ─▶ hyper or h2 ─▶ Interim ─▶ the task that serves the request ─▶ h2, or an Outlet into hyper's connection
//! ```
//!
//! 100 Continue is not among them: each hop gives its own.

use std::collections::VecDeque;
use std::fmt::Write;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use futures_util::task::AtomicWaker;
use http::{Request, Response, StatusCode, Version};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::head;
use crate::request::is_grpc;

/// More of them, unread, are no hints but a flood; the rest is dropped, which they may be.
const WAITING_MAX: usize = 16;
/// The same in bytes, for a downstream that does not read.
const OUTLET_BYTES_MAX: usize = 64 * 1024;

/// Those of one request.
#[derive(Clone, Default)]
pub struct Interim(Arc<Waiting>);

#[derive(Default)]
struct Waiting {
    heads: Mutex<VecDeque<Response<()>>>,
    reader: AtomicWaker,
}

impl Interim {
    /// gRPC has none, HTTP/1.0 may not be sent any (RFC 9110 section 15.2), and an upgrade has one that is no response.
    pub fn wanted_by<B>(request: &Request<B>) -> Option<Self> {
        let headers = request.headers();
        let knows_them = request.version() >= Version::HTTP_11;
        (knows_them && !is_grpc(headers) && !head::wants_upgrade(request.version(), headers))
            .then(Self::default)
    }

    pub fn push(&self, status: StatusCode, headers: &http::HeaderMap) {
        if matches!(
            status,
            StatusCode::CONTINUE | StatusCode::SWITCHING_PROTOCOLS
        ) {
            return;
        }
        let mut head = Response::new(());
        *head.status_mut() = status;
        *head.headers_mut() = headers.clone();
        head::strip_connection_headers(head.headers_mut(), false);
        head::strip_own_headers(head.headers_mut());
        let mut heads = self.0.heads.lock().expect("no panic while locked");
        if heads.len() < WAITING_MAX {
            heads.push_back(head);
            drop(heads);
            self.0.reader.wake();
        }
    }

    pub fn poll(&self, cx: &mut Context<'_>) -> Poll<Response<()>> {
        self.0.reader.register(cx.waker());
        let next = self
            .0
            .heads
            .lock()
            .expect("no panic while locked")
            .pop_front();
        next.map_or(Poll::Pending, Poll::Ready)
    }
}

/// A way past hyper's HTTP/1.1 server, which cannot send them: bytes put in here go out before what hyper writes next.
/// They are taken only between responses, when all that hyper has written is flushed.
#[derive(Clone, Default)]
pub struct Outlet(Arc<Mutex<Pending>>);

#[derive(Default)]
struct Pending {
    bytes: BytesMut,
    /// hyper has written something that is not flushed: the middle of a response, for all we know.
    busy: bool,
}

impl Outlet {
    fn lock(&self) -> MutexGuard<'_, Pending> {
        self.0.lock().expect("no panic while locked")
    }

    pub fn put(&self, head: &Response<()>) {
        let mut pending = self.lock();
        if pending.busy || pending.bytes.len() > OUTLET_BYTES_MAX {
            return;
        }
        let status = head.status();
        let reason = status.canonical_reason().unwrap_or_default();
        // Writing into memory does not fail.
        let _ = write!(pending.bytes, "HTTP/1.1 {} {reason}\r\n", status.as_str());
        for (name, value) in head.headers() {
            pending.bytes.extend_from_slice(name.as_str().as_bytes());
            pending.bytes.extend_from_slice(b": ");
            pending.bytes.extend_from_slice(value.as_bytes());
            pending.bytes.extend_from_slice(b"\r\n");
        }
        pending.bytes.extend_from_slice(b"\r\n");
    }
}

/// A connection with an [`Outlet`].
pub struct Interjected<I> {
    io: I,
    outlet: Outlet,
}

impl<I> Interjected<I> {
    pub fn new(io: I, outlet: Outlet) -> Self {
        Self { io, outlet }
    }
}

impl<I: AsyncWrite + Unpin> Interjected<I> {
    fn poll_pending(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut pending = self.outlet.lock();
        while !pending.bytes.is_empty() {
            let written = ready!(Pin::new(&mut self.io).poll_write(cx, &pending.bytes))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            pending.bytes.advance(written);
        }
        Poll::Ready(Ok(()))
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Interjected<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Interjected<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_pending(cx))?;
        self.outlet.lock().busy = true;
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_pending(cx))?;
        self.outlet.lock().busy = true;
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_pending(cx))?;
        ready!(Pin::new(&mut self.io).poll_flush(cx))?;
        self.outlet.lock().busy = false;
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    fn hints() -> Response<()> {
        let head = Response::builder().status(103).header("link", "</a.css>");
        head.body(()).expect("a head")
    }

    #[tokio::test]
    async fn a_hint_goes_out_between_responses_and_never_within_one() {
        let (near, mut far) = tokio::io::duplex(1024);
        let outlet = Outlet::default();
        let mut stream = Interjected::new(near, outlet.clone());
        stream
            .write_all(b"half a respo")
            .await
            .expect("there is room");
        outlet.put(&hints());
        stream.write_all(b"nse|").await.expect("there is room");
        stream.flush().await.expect("it can be flushed");
        outlet.put(&hints());
        stream.flush().await.expect("it can be flushed");
        stream.write_all(b"response").await.expect("there is room");
        drop(stream);
        let mut all = String::new();
        far.read_to_string(&mut all).await.expect("it ends");
        let hint = "HTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\n\r\n";
        assert_eq!(all, format!("half a response|{hint}response"));
    }

    #[tokio::test]
    async fn hints_arrive_in_order_and_a_flood_of_them_is_cut() {
        let interim = Interim::default();
        let next = || std::future::poll_fn(|cx| interim.poll(cx));
        assert!(next().now_or_never().is_none());
        interim.push(StatusCode::CONTINUE, &http::HeaderMap::new());
        assert!(next().now_or_never().is_none(), "each hop gives its own");
        for _ in 0..WAITING_MAX + 5 {
            interim.push(StatusCode::EARLY_HINTS, hints().headers());
        }
        for _ in 0..WAITING_MAX {
            assert_eq!(next().await.headers()["link"], "</a.css>");
        }
        assert!(next().now_or_never().is_none());
    }
}
