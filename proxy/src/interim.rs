//! Informational responses (1xx, RFC 9110 section 15.2): what an app says before it answers, 103 Early Hints say, reaches
//! whoever asked at once.
//!
//! ```text
//!                      ┌─▶ Queue ─▶ the task that serves the request ─▶ h2
//!   app ─▶ Interim ────┤
//!                      └─▶ Outlet, past hyper into the HTTP/1.1 connection
//! ```
//!
//! 100 Continue is not among them: each hop gives its own.

use std::collections::VecDeque;
use std::fmt::Write;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use futures_util::task::AtomicWaker;
use http::{Request, Response, StatusCode, Version};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep_until};

use crate::head;
use crate::mentions::Mentions;
use crate::patience::Patience;
use crate::standing::Standing;
use crate::tcp::Cut;

/// More of them, unread, are no hints but a flood; the rest is dropped, which they may be.
const WAITING_MAX: usize = 16;
/// The same in bytes, for a downstream that does not read.
const OUTLET_BYTES_MAX: usize = 64 * 1024;

/// gRPC has none, HTTP/1.0 may not be sent any (RFC 9110 section 15.2), and an upgrade has one that is no response.
pub fn is_wanted_by<B>(request: &Request<B>, mentions: Mentions) -> bool {
    request.version() >= Version::HTTP_11
        && !mentions.grpc
        && !(mentions.upgrade && head::wants_upgrade(request.version(), request.headers()))
}

/// Where those of one request go.
#[derive(Clone)]
pub struct Interim(Way);

#[derive(Clone)]
enum Way {
    Queue(Queue),
    /// And whose turn it is on that connection.
    Outlet(Outlet, u64),
}

impl Interim {
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
        match &self.0 {
            Way::Queue(queue) => queue.put(head),
            Way::Outlet(outlet, turn) => outlet.put(&head, *turn),
        }
    }
}

/// Those of one request that came over HTTP/2.
#[derive(Clone, Default)]
pub struct Queue(Arc<Waiting>);

#[derive(Default)]
struct Waiting {
    heads: Mutex<VecDeque<Response<()>>>,
    reader: AtomicWaker,
}

impl Queue {
    pub fn interim(&self) -> Interim {
        Interim(Way::Queue(self.clone()))
    }

    fn put(&self, head: Response<()>) {
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
/// They are taken only between responses, when all that hyper has written is flushed, and only from the request that is
/// being answered.
///
/// Most responses have none before them, so nothing is locked for those: one task serves the connection, and asks its
/// request's future and writes in turn.
#[derive(Clone, Default)]
pub struct Outlet(Arc<Pending>);

#[derive(Default)]
struct Pending {
    bytes: Mutex<BytesMut>,
    /// There are some.
    waiting: AtomicBool,
    /// Some of them came after the last time that somebody was sent to write them.
    fresh: AtomicBool,
    /// hyper has written something that is not flushed: the middle of a response, for all we know.
    busy: AtomicBool,
    /// Grows when a request begins and when its answer is there, so that none speaks late.
    turn: AtomicU64,
}

impl Outlet {
    fn next_turn(&self) -> u64 {
        // Whoever serves the connection is the only one.
        let turn = self.0.turn.load(Ordering::Relaxed) + 1;
        self.0.turn.store(turn, Ordering::Relaxed);
        turn
    }

    pub fn begin(&self) -> Interim {
        Interim(Way::Outlet(self.clone(), self.next_turn()))
    }

    pub fn end(&self) {
        self.next_turn();
    }

    /// Has the task that serves the connection come back to write what has been put in: once. If the socket is full then,
    /// it says when there is room.
    pub fn hurry(&self, cx: &Context<'_>) {
        if self.0.fresh.load(Ordering::Relaxed) {
            self.0.fresh.store(false, Ordering::Relaxed);
            cx.waker().wake_by_ref();
        }
    }

    fn is_waiting(&self) -> bool {
        self.0.waiting.load(Ordering::Relaxed)
    }

    fn set_busy(&self, busy: bool) {
        self.0.busy.store(busy, Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, BytesMut> {
        self.0.bytes.lock().expect("no panic while locked")
    }

    fn put(&self, head: &Response<()>, turn: u64) {
        let mut bytes = self.lock();
        let late = self.0.turn.load(Ordering::Relaxed) != turn;
        if late || self.0.busy.load(Ordering::Relaxed) || bytes.len() > OUTLET_BYTES_MAX {
            return;
        }
        let status = head.status();
        let reason = status.canonical_reason().unwrap_or_default();
        // Writing into memory does not fail.
        let _ = write!(bytes, "HTTP/1.1 {} {reason}\r\n", status.as_str());
        for (name, value) in head.headers() {
            bytes.extend_from_slice(name.as_str().as_bytes());
            bytes.extend_from_slice(b": ");
            bytes.extend_from_slice(value.as_bytes());
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(b"\r\n");
        self.0.waiting.store(true, Ordering::Relaxed);
        self.0.fresh.store(true, Ordering::Relaxed);
    }
}

/// A connection with an [`Outlet`].
pub struct Interjected<I> {
    io: I,
    outlet: Outlet,
    /// Told of all that comes.
    patience: Patience,
    /// Bytes.
    written: u64,
    standing: Standing,
    /// Of the answer for which there is no room.
    end: Option<Pin<Box<Sleep>>>,
}

impl<I> Interjected<I> {
    pub fn new(io: I, outlet: Outlet, patience: Patience) -> Self {
        Self {
            io,
            outlet,
            patience,
            written: 0,
            standing: Standing::default(),
            end: None,
        }
    }

    /// There is no room: hyper asks the body for nothing until there is, so its deadline is looked at here.
    fn poll_no_room(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        if let Some(end) = self.patience.answer_end() {
            let timer = (self.end).get_or_insert_with(|| Box::pin(sleep_until(end)));
            if timer.deadline() != end {
                timer.as_mut().reset(end);
            }
            if timer.as_mut().poll(cx).is_ready() {
                return Poll::Ready(io::ErrorKind::TimedOut.into());
            }
        }
        ready!(self.standing.poll(self.written, cx));
        Poll::Ready(io::ErrorKind::TimedOut.into())
    }

    fn written(
        &mut self,
        written: Poll<io::Result<usize>>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        match written {
            Poll::Pending => self.poll_no_room(cx).map(Err),
            Poll::Ready(Ok(bytes)) => {
                self.written += bytes as u64;
                Poll::Ready(Ok(bytes))
            }
            failed => failed,
        }
    }
}

impl<I: AsyncWrite + Unpin> Interjected<I> {
    fn poll_pending(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.outlet.is_waiting() {
            return Poll::Ready(Ok(()));
        }
        let mut bytes = self.outlet.lock();
        while !bytes.is_empty() {
            let written = ready!(Pin::new(&mut self.io).poll_write(cx, &bytes))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            bytes.advance(written);
        }
        self.outlet.0.waiting.store(false, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Interjected<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
        if buf.filled().len() > before {
            self.patience.heard();
        }
        Poll::Ready(Ok(()))
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Interjected<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_pending(cx))?;
        self.outlet.set_busy(true);
        let written = Pin::new(&mut self.io).poll_write(cx, buf);
        self.written(written, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_pending(cx))?;
        self.outlet.set_busy(true);
        let written = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.written(written, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_pending(cx))?;
        if Pin::new(&mut self.io).poll_flush(cx)?.is_pending() {
            return self.poll_no_room(cx).map(Err);
        }
        self.outlet.set_busy(false);
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

impl<I: Cut> Cut for Interjected<I> {
    fn cut(&self) {
        self.io.cut();
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Wake, Waker};

    use std::time::Duration;

    use futures_util::FutureExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::time::Instant;

    use super::*;
    use crate::standing::STANDING_MAX;

    fn hints() -> Response<()> {
        let head = Response::builder().status(103).header("link", "</a.css>");
        head.body(()).expect("a head")
    }

    #[tokio::test]
    async fn a_hint_goes_out_between_responses_and_never_within_one() {
        let (near, mut far) = tokio::io::duplex(1024);
        let outlet = Outlet::default();
        let mut stream = Interjected::new(near, outlet.clone(), Patience::default());
        let hint = |interim: &Interim| interim.push(StatusCode::EARLY_HINTS, hints().headers());
        let first = outlet.begin();
        stream
            .write_all(b"half a respo")
            .await
            .expect("there is room");
        hint(&first);
        stream.write_all(b"nse|").await.expect("there is room");
        stream.flush().await.expect("it can be flushed");
        hint(&first);
        stream.flush().await.expect("it can be flushed");
        stream.write_all(b"response|").await.expect("there is room");
        stream.flush().await.expect("it can be flushed");
        outlet.end();
        hint(&first);
        let second = outlet.begin();
        hint(&first);
        stream.flush().await.expect("it can be flushed");
        stream
            .write_all(b"for another")
            .await
            .expect("there is room");
        drop((stream, second));
        let mut all = String::new();
        far.read_to_string(&mut all).await.expect("it ends");
        let hint = "HTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\n\r\n";
        assert_eq!(all, format!("half a response|{hint}response|for another"));
    }

    /// hyper asks a body for more when there is room, so nobody looked at its deadline.
    #[tokio::test(start_paused = true)]
    async fn an_answer_for_which_there_is_no_room_ends_by_its_deadline_or_after_minutes() {
        let end = Duration::from_millis(500);
        for (end, most) in [(Some(end), 2 * end), (None, 3 * STANDING_MAX)] {
            let (near, _far) = tokio::io::duplex(16);
            let patience = Patience::default();
            let mut stream = Interjected::new(near, Outlet::default(), patience.clone());
            let begun = Instant::now();
            patience.set_answer_end(end.map(|end| begun + end));
            let written = stream.write_all(&[7; 1024]).await;
            let error = written.expect_err("nobody reads it");
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
            assert!(begun.elapsed() <= most, "{:?}", begun.elapsed());
        }
    }

    #[test]
    fn whoever_serves_the_connection_comes_back_to_write_a_hint_and_not_for_nothing() {
        struct Woken(AtomicBool);
        impl Wake for Woken {
            fn wake(self: Arc<Self>) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let outlet = Outlet::default();
        let interim = outlet.begin();
        let woken = Arc::new(Woken(AtomicBool::new(false)));
        let waker = Waker::from(woken.clone());
        let comes_back = || {
            outlet.hurry(&Context::from_waker(&waker));
            woken.0.swap(false, Ordering::Relaxed)
        };
        assert!(!comes_back());
        interim.push(StatusCode::EARLY_HINTS, hints().headers());
        assert!(comes_back());
        // The socket is full: the worker span until it was not.
        assert!(!comes_back());
        interim.push(StatusCode::EARLY_HINTS, hints().headers());
        assert!(comes_back());
    }

    #[tokio::test]
    async fn hints_arrive_in_order_and_a_flood_of_them_is_cut() {
        let queue = Queue::default();
        let interim = queue.interim();
        let next = || std::future::poll_fn(|cx| queue.poll(cx));
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
