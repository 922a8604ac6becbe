//! Opaque forwarding: bytes both ways between downstream and upstream, until both are done.
//!
//! ```text
//!   downstream ──▶ pump ──▶ upstream          a pump ends with its reader's EOF, and passes it on:
//!   downstream ◀── pump ◀── upstream          the other direction goes on (half-close)
//! ```
//!
//! What makes it bearable to hold ten thousand of these: an idle connection owns no buffer, a busy one
//! at most one per direction, and reading stops while the writer is blocked, so a slow reader slows
//! its sender and not this process.
//!
//! What makes it honest: only an EOF becomes an EOF. A reset, a failed write or the idle timeout ends
//! both sides with a reset, because a stream that was cut must never look complete.

mod copy;
mod splice;

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_rustls::server::TlsStream;

use copy::Copy;
use splice::Splice;

/// "No timeout" is often written as the longest duration there is, which no clock can add.
const IDLE_TIMEOUT_MAX: Duration = Duration::from_secs(365 * 24 * 3600);

/// What was forwarded, and how it ended.
#[derive(Debug)]
pub struct Transferred {
    /// Bytes from downstream to upstream.
    pub sent: u64,
    /// Bytes from upstream to downstream.
    pub received: u64,
    pub end: End,
}

#[derive(Debug)]
pub enum End {
    /// Both sides said that they are done, and everything was delivered.
    Closed,
    /// No byte moved in either direction for the idle timeout.
    Idle,
    /// Downstream reset the connection or failed.
    Downstream(io::Error),
    /// Upstream reset the connection or failed.
    Upstream(io::Error),
}

/// Forwards `prefix` (read from downstream before it was known to be opaque) and then everything.
///
/// Takes `&mut` streams, too. Unless it ends with [`End::Closed`] the streams must be [`reset`],
/// not just dropped: a dropped socket says EOF.
pub async fn forward<A, B>(
    mut downstream: A,
    mut upstream: B,
    idle_timeout: Duration,
    prefix: Bytes,
) -> Transferred
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let (up, down) = (Copy::after(prefix), Copy::default());
    run(&mut downstream, &mut upstream, up, down, idle_timeout).await
}

/// [`forward`] for two plain sockets: in the kernel by splice(2), and with the reset done here.
pub async fn forward_plain(
    mut downstream: TcpStream,
    mut upstream: TcpStream,
    idle_timeout: Duration,
    prefix: Bytes,
) -> Transferred {
    let (up, down) = (Splice::after(prefix), Splice::default());
    let transferred = run(&mut downstream, &mut upstream, up, down, idle_timeout).await;
    if !matches!(transferred.end, End::Closed) {
        reset(&downstream);
        reset(&upstream);
    }
    transferred
}

/// The same, until `cut` at most; then both are reset.
pub async fn forward_plain_until(
    mut downstream: TcpStream,
    mut upstream: TcpStream,
    idle_timeout: Duration,
    prefix: Bytes,
    cut: impl Future<Output = ()>,
) {
    let (up, down) = (Splice::after(prefix), Splice::default());
    let end = tokio::select! {
        biased;
        () = cut => None,
        transferred = run(&mut downstream, &mut upstream, up, down, idle_timeout) => Some(transferred.end),
    };
    if !matches!(end, Some(End::Closed)) {
        reset(&downstream);
        reset(&upstream);
    }
}

/// Makes the drop of `stream` a reset instead of an EOF, so that its peer knows it was cut.
pub fn reset(stream: &TcpStream) {
    // An error means the socket is gone already; then its peer knows.
    let _ = stream.set_zero_linger();
}

/// A connection whose drop can be made a [`reset`], whatever is around its socket.
pub trait Cut {
    fn cut(&self);
}

impl Cut for TcpStream {
    fn cut(&self) {
        reset(self);
    }
}

impl<S: Cut> Cut for TlsStream<S> {
    fn cut(&self) {
        self.get_ref().0.cut();
    }
}

#[cfg(test)]
impl Cut for tokio::io::DuplexStream {
    fn cut(&self) {}
}

/// The pump of one direction: how bytes get from `R` to `W`.
trait Pump<R, W> {
    /// Moves what can be moved now and adds what was delivered to `moved`. Ready with the reader's
    /// EOF, when all before it is delivered.
    fn poll_pump(
        &mut self,
        cx: &mut Context<'_>,
        reader: &mut R,
        writer: &mut W,
        moved: &mut u64,
    ) -> Poll<Result<(), Failure>>;
}

#[derive(Debug)]
enum Failure {
    Read(io::Error),
    Write(io::Error),
}

async fn run<A, B, Up, Down>(
    downstream: &mut A,
    upstream: &mut B,
    up: Up,
    down: Down,
    idle_timeout: Duration,
) -> Transferred
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
    Up: Pump<A, B>,
    Down: Pump<B, A>,
{
    let (mut up, mut down) = (Direction::new(up), Direction::new(down));
    let mut idle = Idle::new(idle_timeout);
    let mut timer = pin!(sleep_until(idle.deadline));
    let expired = poll_fn(|cx| {
        up.advance(cx, downstream, upstream, &down.state);
        down.advance(cx, upstream, downstream, &up.state);
        if is_over(&up.state, &down.state) {
            return Poll::Ready(false);
        }
        idle.poll_expired(cx, timer.as_mut(), up.moved + down.moved)
            .map(|()| true)
    })
    .await;
    let end = if expired {
        End::Idle
    } else {
        End::of(up.state, down.state)
    };
    Transferred {
        sent: up.moved,
        received: down.moved,
        end,
    }
}

/// One direction of the connection.
struct Direction<P> {
    pump: P,
    moved: u64,
    state: State,
}

enum State {
    Moving,
    /// The reader is done; its EOF is on the way to the writer.
    Closing,
    Closed,
    Failed(Failure),
}

impl<P> Direction<P> {
    fn new(pump: P) -> Self {
        Self {
            pump,
            moved: 0,
            state: State::Moving,
        }
    }

    fn advance<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        reader: &mut R,
        writer: &mut W,
        opposite: &State,
    ) where
        P: Pump<R, W>,
        W: AsyncWrite + Unpin,
    {
        if let State::Moving = self.state {
            self.state = match self.pump.poll_pump(cx, reader, writer, &mut self.moved) {
                Poll::Pending => State::Moving,
                Poll::Ready(Err(failure)) => State::Failed(failure),
                // A socket whose writes failed reads as if at its end. That EOF is not its peer's.
                Poll::Ready(Ok(())) if matches!(opposite, State::Failed(_)) => State::Closed,
                Poll::Ready(Ok(())) => State::Closing,
            };
        }
        if let State::Closing = self.state {
            self.state = match Pin::new(writer).poll_shutdown(cx) {
                Poll::Pending => State::Closing,
                Poll::Ready(Ok(())) => State::Closed,
                Poll::Ready(Err(error)) => State::Failed(Failure::Write(error)),
            };
        }
    }
}

/// Who cannot be read is gone. Who cannot be written to may have said something before, which the
/// other direction still delivers.
fn is_over(up: &State, down: &State) -> bool {
    use State::{Closed, Failed};
    let unreadable = |state: &State| matches!(state, Failed(Failure::Read(_)));
    let ended = |state: &State| matches!(state, Closed | Failed(_));
    unreadable(up) || unreadable(down) || (ended(up) && ended(down))
}

impl End {
    fn of(up: State, down: State) -> Self {
        use Failure::{Read, Write};
        use State::Failed;
        match (up, down) {
            (Failed(Read(error)), _) => Self::Downstream(error),
            (_, Failed(Read(error))) => Self::Upstream(error),
            (Failed(Write(error)), _) => Self::Upstream(error),
            (_, Failed(Write(error))) => Self::Downstream(error),
            _ => Self::Closed,
        }
    }
}

/// Fires when the count of delivered bytes has stood still for `timeout`.
struct Idle {
    timeout: Duration,
    deadline: Instant,
    progress: u64,
}

impl Idle {
    fn new(timeout: Duration) -> Self {
        let timeout = timeout.min(IDLE_TIMEOUT_MAX);
        Self {
            timeout,
            deadline: Instant::now() + timeout,
            progress: 0,
        }
    }

    /// The timer is only moved when it fires: bytes come far more often than timeouts.
    fn poll_expired(
        &mut self,
        cx: &mut Context<'_>,
        mut timer: Pin<&mut Sleep>,
        progress: u64,
    ) -> Poll<()> {
        if progress != self.progress {
            self.progress = progress;
            self.deadline = Instant::now() + self.timeout;
        }
        loop {
            ready!(timer.as_mut().poll(cx));
            if timer.deadline() >= self.deadline {
                return Poll::Ready(());
            }
            timer.as_mut().reset(self.deadline);
        }
    }
}

#[cfg(test)]
mod tests;
