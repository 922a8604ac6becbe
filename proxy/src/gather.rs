//! What HTTP/2 writes in a row goes to the socket as one.
//!
//! h2 writes and flushes every DATA frame of more than 256 bytes by itself: a head, a message of 64 KiB and trailers are six
//! system calls, six segments, up to six wake-ups of the peer, and over TLS six records more. Here a frame waits for what
//! comes behind it in the same turn.
//!
//! How the end of a turn is known: h2 hands over a DATA frame as two slices, its head and its payload, and after each it
//! looks for the next frame and flushes again when there is none. So a flush behind two slices is not the last one. Smaller
//! frames are in one slice, put together by h2 itself, and their flush is the last.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::piece::{PIECE_BYTES, Piece};

pub struct Gather<S> {
    stream: S,
    /// Not yet written. Absent when there is nothing.
    held: Option<Piece>,
    /// h2 flushes again before its turn ends.
    is_followed: bool,
}

impl<S: AsyncWrite + Unpin> Gather<S> {
    pub fn new(stream: S) -> Self {
        Self {
            stream,
            held: None,
            is_followed: false,
        }
    }

    fn poll_release(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(held) = &mut self.held {
            ready!(held.poll_drain(cx, &mut self.stream))?;
            self.held = None;
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gather<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let length = bufs.iter().map(|buf| buf.len()).sum();
        if this.held.as_ref().is_some_and(|held| held.room() < length) {
            ready!(this.poll_release(cx))?;
        }
        this.is_followed = bufs.len() > 1 && length <= PIECE_BYTES;
        if this.held.is_none() && !this.is_followed {
            return Pin::new(&mut this.stream).poll_write_vectored(cx, bufs);
        }
        let held = this.held.get_or_insert_with(Piece::borrow);
        for buf in bufs {
            held.put(buf);
        }
        Poll::Ready(Ok(length))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if std::mem::take(&mut this.is_followed) {
            return Poll::Ready(Ok(()));
        }
        ready!(this.poll_release(cx))?;
        Pin::new(&mut this.stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_release(cx))?;
        Pin::new(&mut this.stream).poll_shutdown(cx)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Gather<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        // A new turn: whatever the last one left must not wait for a flush.
        if this.held.is_some()
            && let Poll::Ready(released) = this.poll_release(cx)
        {
            released?;
        }
        Pin::new(&mut this.stream).poll_read(cx, buf)
    }
}

#[cfg(test)]
pub(crate) mod tests;
