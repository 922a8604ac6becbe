//! The pump for any two streams: read what is there into a piece of the thread's memory, write it at once, keep only the
//! rest.
//!
//! A connection owns memory just while its writer is blocked, and then not more than one piece.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::{Failure, Pump};
use crate::piece::Piece;

/// After so many pieces other connections of this worker get their turn.
pub(super) const PIECES_PER_TURN: usize = 16;

#[derive(Default)]
pub(super) struct Copy {
    /// Read and not yet written. Empty means that no memory is held.
    pending: Bytes,
    at_eof: bool,
    /// Happened behind what is pending, which is delivered first.
    broken: Option<io::Error>,
    /// Something was written since the last flush.
    unflushed: bool,
}

impl Copy {
    /// Delivers `prefix` before what is read.
    pub(super) fn after(prefix: Bytes) -> Self {
        Self {
            pending: prefix,
            ..Self::default()
        }
    }

    /// Writes what is pending. Ready when nothing is.
    pub(super) fn poll_deliver<W: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        writer: &mut W,
        moved: &mut u64,
    ) -> Poll<Result<(), Failure>> {
        while !self.pending.is_empty() {
            match ready!(Pin::new(&mut *writer).poll_write(cx, &self.pending)) {
                Ok(0) => return Poll::Ready(Err(Failure::Write(io::ErrorKind::WriteZero.into()))),
                Ok(written) => {
                    self.pending.advance(written);
                    self.unflushed = true;
                    *moved += written as u64;
                }
                Err(error) => return Poll::Ready(Err(Failure::Write(error))),
            }
        }
        self.pending = Bytes::new(); // an empty view would still hold its buffer
        Poll::Ready(Ok(()))
    }

    /// An empty view would own its buffer alone; the empty constant is nobody's.
    #[cfg(test)]
    pub(super) fn holds_nothing(&self) -> bool {
        self.pending.is_empty() && !self.pending.is_unique()
    }

    /// Nothing more is read: what is left is to deliver what was, and to say how it ended.
    pub(super) fn has_read_all(&self) -> bool {
        self.at_eof || self.broken.is_some()
    }

    /// Reads what is there and writes once. Ready when there may be more to do.
    pub(super) fn poll_move<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        reader: &mut R,
        writer: &mut W,
        moved: &mut u64,
    ) -> Poll<Result<(), Failure>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let mut piece = Piece::borrow();
        // TLS gives a record at a time, and each would be a system call for the writer.
        while !piece.is_full() {
            match self.poll_read(cx, &mut piece, reader) {
                Poll::Ready(true) => continue,
                Poll::Pending if piece.is_empty() => return Poll::Pending,
                Poll::Ready(false) | Poll::Pending => {}
            }
            break;
        }
        Poll::Ready(self.write(cx, &piece, writer, moved))
    }

    /// Reads once and writes once: a socket gives what it has at once. Ready when there may be more to do, with how much
    /// was read.
    pub(super) fn poll_move_once(
        &mut self,
        cx: &mut Context<'_>,
        reader: &mut TcpStream,
        writer: &mut TcpStream,
        moved: &mut u64,
    ) -> Poll<Result<usize, Failure>> {
        let mut piece = Piece::borrow();
        if !ready!(self.poll_read(cx, &mut piece, reader)) {
            return Poll::Ready(Ok(0));
        }
        let read = piece.left().len();
        Poll::Ready(self.write(cx, &piece, writer, moved).map(|()| read))
    }

    /// Whether there was something, and not the end.
    fn poll_read<R: AsyncRead + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        piece: &mut Piece,
        reader: &mut R,
    ) -> Poll<bool> {
        match ready!(piece.poll_fill(cx, reader)) {
            Ok(0) => self.at_eof = true,
            Ok(_) => return Poll::Ready(true),
            Err(error) => self.broken = Some(error),
        }
        Poll::Ready(false)
    }

    /// What the writer does not take now is kept.
    fn write<W: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        piece: &Piece,
        writer: &mut W,
        moved: &mut u64,
    ) -> Result<(), Failure> {
        let read = piece.left();
        let written = match read {
            [] => 0,
            bytes => match Pin::new(writer).poll_write(cx, bytes) {
                Poll::Ready(written) => written.map_err(Failure::Write)?,
                Poll::Pending => 0,
            },
        };
        self.unflushed |= written > 0;
        *moved += written as u64;
        if written < read.len() {
            self.pending = Bytes::copy_from_slice(&read[written..]);
        }
        Ok(())
    }

    /// TLS holds back what was written until it is flushed.
    fn poll_flush<W: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        writer: &mut W,
    ) -> Poll<Result<(), Failure>> {
        if self.unflushed {
            ready!(Pin::new(writer).poll_flush(cx)).map_err(Failure::Write)?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }
}

impl<R, W> Pump<R, W> for Copy
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    fn poll_pump(
        &mut self,
        cx: &mut Context<'_>,
        reader: &mut R,
        writer: &mut W,
        moved: &mut u64,
    ) -> Poll<Result<(), Failure>> {
        for _ in 0..PIECES_PER_TURN {
            ready!(self.poll_deliver(cx, writer, moved))?;
            if self.has_read_all() {
                ready!(self.poll_flush(cx, writer))?;
                return Poll::Ready(
                    self.broken
                        .take()
                        .map_or(Ok(()), |error| Err(Failure::Read(error))),
                );
            }
            match self.poll_move(cx, reader, writer, moved) {
                Poll::Ready(moved) => moved?,
                Poll::Pending => {
                    ready!(self.poll_flush(cx, writer))?;
                    return Poll::Pending;
                }
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}
