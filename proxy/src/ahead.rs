//! A socket some of whose bytes have been read before its reader asks for them: the first ones, which were looked at, and
//! large pieces of what has much to say.
//!
//! TLS asks its socket for 4 KiB at a time and HTTP/2 for 8, so a message of 64 KiB takes ten to twenty system calls. Who
//! has got all that it asked for is given the rest from one large read. A small message is read as before: straight to where
//! it is wanted, with nothing copied and nothing held.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::piece::{PIECE_BYTES, Piece};
use crate::tcp::Cut;

pub struct ReadAhead<S> {
    stream: S,
    /// Looked at, and to be read again.
    prefix: Bytes,
    /// Read and not yet asked for. Absent when there is nothing: an idle connection holds no memory.
    piece: Option<Piece>,
    /// The last read filled all that it was given, so there is more.
    is_behind: bool,
}

impl<S> ReadAhead<S> {
    pub fn new(stream: S) -> Self {
        Self::after(Bytes::new(), stream)
    }

    /// Gives `prefix` before what the stream says.
    pub fn after(prefix: Bytes, stream: S) -> Self {
        Self {
            stream,
            prefix,
            piece: None,
            is_behind: false,
        }
    }

    pub fn get_ref(&self) -> &S {
        &self.stream
    }

    /// The socket itself, where nothing of what it said is here.
    pub fn into_inner(self) -> Result<S, Self> {
        if self.piece.is_none() && self.prefix.is_empty() {
            Ok(self.stream)
        } else {
            Err(self)
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ReadAhead<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.prefix.is_empty() {
            let taken = this.prefix.len().min(buf.remaining());
            buf.put_slice(&this.prefix[..taken]);
            this.prefix.advance(taken);
            if this.prefix.is_empty() {
                // An empty view would still hold its buffer.
                this.prefix = Bytes::new();
            }
            return Poll::Ready(Ok(()));
        }
        if let Some(piece) = &mut this.piece {
            piece.give(buf);
            if piece.is_empty() {
                this.piece = None;
            }
            return Poll::Ready(Ok(()));
        }
        let room = buf.remaining();
        if !this.is_behind || room >= PIECE_BYTES {
            ready!(Pin::new(&mut this.stream).poll_read(cx, buf))?;
            this.is_behind = room > 0 && buf.remaining() == 0;
            return Poll::Ready(Ok(()));
        }
        let mut piece = Piece::borrow();
        this.is_behind = false;
        ready!(piece.poll_fill(cx, &mut this.stream))?;
        this.is_behind = piece.is_full();
        piece.give(buf);
        this.piece = (!piece.is_empty()).then_some(piece);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ReadAhead<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

impl<S: Cut> Cut for ReadAhead<S> {
    fn cut(&self) {
        self.stream.cut();
    }
}

#[cfg(test)]
mod tests;
