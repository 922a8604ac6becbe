//! Memory for bytes that pass through: of the thread, lent to a connection while it has some, so an idle one holds none.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What one read or write takes at most, and so what a connection can hold in one direction.
pub const PIECE_BYTES: usize = 64 * 1024;
/// Pieces that a worker keeps for the next connection: one for what it reads, one for what it writes.
const SPARE_MAX: usize = 2;

pub struct Piece {
    bytes: Box<[u8]>,
    taken: usize,
    filled: usize,
}

thread_local! {
    static SPARE: RefCell<Vec<Box<[u8]>>> = const { RefCell::new(Vec::new()) };
}

impl Piece {
    pub fn borrow() -> Self {
        let spare = SPARE.with_borrow_mut(Vec::pop);
        Self {
            bytes: spare.unwrap_or_else(|| vec![0; PIECE_BYTES].into_boxed_slice()),
            taken: 0,
            filled: 0,
        }
    }

    pub const fn is_empty(&self) -> bool {
        self.taken == self.filled
    }

    pub const fn is_full(&self) -> bool {
        self.room() == 0
    }

    pub const fn room(&self) -> usize {
        PIECE_BYTES - self.filled
    }

    /// Appends `bytes`, for which there must be room.
    pub fn put(&mut self, bytes: &[u8]) {
        self.bytes[self.filled..][..bytes.len()].copy_from_slice(bytes);
        self.filled += bytes.len();
    }

    /// Moves as much as fits.
    pub fn give(&mut self, buf: &mut ReadBuf<'_>) {
        let left = self.left();
        let given = left.len().min(buf.remaining());
        buf.put_slice(&left[..given]);
        self.taken += given;
    }

    pub fn left(&self) -> &[u8] {
        &self.bytes[self.taken..self.filled]
    }

    /// Reads once into the room that there is; how much.
    pub fn poll_fill<S: AsyncRead + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut S,
    ) -> Poll<io::Result<usize>> {
        let mut into = ReadBuf::new(&mut self.bytes[self.filled..]);
        ready!(Pin::new(stream).poll_read(cx, &mut into))?;
        let read = into.filled().len();
        self.filled += read;
        Poll::Ready(Ok(read))
    }

    /// Writes everything.
    pub fn poll_drain<S: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut S,
    ) -> Poll<io::Result<()>> {
        while !self.is_empty() {
            match ready!(Pin::new(&mut *stream).poll_write(cx, self.left()))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.taken += written,
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        // An error means that the thread ends.
        let _ = SPARE.try_with(|spare| {
            let mut spare = spare.borrow_mut();
            if spare.len() < SPARE_MAX {
                spare.push(bytes);
            }
        });
    }
}
