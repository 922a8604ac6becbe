//! The pump for two plain sockets: splice(2) moves bytes through a pipe and never into this process.
//!
//! That pays where there are many: a question and its answer take three calls of splice a direction, and two of read and
//! write. So a burst begins by copying, unless the one before it was large, and goes on in the kernel once it has turned
//! out to be. A direction borrows a pipe from its worker when there are bytes, and gives it back when there are
//! none. What it holds then is the pipe's capacity, in the kernel. Where splice cannot be had (no
//! descriptors or pages left for a pipe, an unwilling kernel) it copies instead.

use std::cell::RefCell;
use std::io;
use std::os::fd::OwnedFd;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};
use tokio::io::Interest;
use tokio::net::TcpStream;

use super::copy::{Copy, PIECES_PER_TURN};
use super::{Failure, Pump};

/// The capacity of a pipe, and so what a direction can hold. Measured on loopback against copying: with
/// Linux's default of 64 KiB splice is no faster, with this it takes half the CPU time, and with more no less.
const PIPE_BYTES: usize = 128 * 1024;

/// What comes without a pause and is at least as much goes through the kernel.
const BULK_BYTES: usize = 16 * 1024;

/// Idle pipes a worker keeps: as many as it has directions that are busy at once, roughly.
const IDLE_PIPES_MAX: usize = 32;

#[derive(Default)]
pub(super) struct Splice {
    /// Delivers the prefix, the beginning of what may turn out to be little, and everything when `copies`.
    copy: Copy,
    copies: bool,
    /// So much came since there was nothing.
    burst: usize,
    /// It is much, or was the last time.
    is_bulk: bool,
    /// Present while bytes are under way.
    pipe: Option<Pipe>,
    in_pipe: usize,
    at_eof: bool,
}

struct Pipe {
    out: OwnedFd,
    into: OwnedFd,
}

impl Splice {
    /// Delivers `prefix` before what is read.
    pub(super) fn after(prefix: Bytes) -> Self {
        Self {
            copy: Copy::after(prefix),
            ..Self::default()
        }
    }

    #[cfg(test)]
    pub(super) fn without_pipes() -> Self {
        Self {
            copies: true,
            ..Self::default()
        }
    }

    #[cfg(test)]
    pub(super) fn is_bulk(&self) -> bool {
        self.is_bulk
    }

    #[cfg(test)]
    pub(super) fn holds_nothing(&self) -> bool {
        self.pipe.is_none() && self.copy.holds_nothing()
    }

    /// Takes what the reader has. Ready when there may be more to do.
    fn poll_fill(&mut self, cx: &mut Context<'_>, reader: &TcpStream) -> Poll<Result<(), Failure>> {
        ready!(reader.poll_read_ready(cx)).map_err(Failure::Read)?;
        let pipe = match self.pipe.take().map_or_else(Pipe::borrow, Ok) {
            Ok(pipe) => self.pipe.insert(pipe),
            Err(_) => {
                self.copies = true;
                return Poll::Ready(Ok(()));
            }
        };
        match reader.try_io(Interest::READABLE, || pipe.fill(reader)) {
            Ok(bytes) => {
                self.in_pipe = bytes;
                self.burst = self.burst.saturating_add(bytes);
                self.at_eof = bytes == 0;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) if is_unwilling(&error) => self.copies = true,
            Err(error) => return Poll::Ready(Err(Failure::Read(error))),
        }
        Poll::Ready(Ok(()))
    }

    /// Gives to the writer what is in the pipe. Ready when nothing is.
    fn poll_empty(
        &mut self,
        cx: &mut Context<'_>,
        writer: &TcpStream,
        moved: &mut u64,
    ) -> Poll<Result<(), Failure>> {
        while let Some(pipe) = self.pipe.as_ref().filter(|_| self.in_pipe > 0) {
            ready!(writer.poll_write_ready(cx)).map_err(Failure::Write)?;
            match writer.try_io(Interest::WRITABLE, || pipe.empty(writer, self.in_pipe)) {
                Ok(bytes) => {
                    self.in_pipe -= bytes;
                    *moved += bytes as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(Failure::Write(error))),
            }
        }
        Poll::Ready(Ok(()))
    }

    fn give_back(&mut self) {
        if let Some(pipe) = self.pipe.take() {
            pipe.give_back();
        }
    }
}

fn is_unwilling(error: &io::Error) -> bool {
    let unwilling = [Errno::INVAL, Errno::NOSYS, Errno::PERM];
    unwilling
        .iter()
        .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

impl Pump<TcpStream, TcpStream> for Splice {
    fn poll_pump(
        &mut self,
        cx: &mut Context<'_>,
        reader: &mut TcpStream,
        writer: &mut TcpStream,
        moved: &mut u64,
    ) -> Poll<Result<(), Failure>> {
        for _ in 0..PIECES_PER_TURN {
            // What was copied comes before what is in the kernel.
            ready!(self.copy.poll_deliver(cx, writer, moved))?;
            if self.copies || self.copy.has_read_all() {
                self.give_back();
                return self.copy.poll_pump(cx, reader, writer, moved);
            }
            let came = if self.is_bulk {
                ready!(self.poll_empty(cx, writer, moved))?;
                if self.at_eof {
                    self.give_back();
                    return Poll::Ready(Ok(()));
                }
                self.poll_fill(cx, reader)
            } else {
                self.copy
                    .poll_move_once(cx, reader, writer, moved)
                    .map_ok(|read| {
                        self.burst += read;
                        self.is_bulk = self.burst >= BULK_BYTES;
                    })
            };
            match came {
                Poll::Ready(filled) => filled?,
                Poll::Pending => {
                    self.give_back();
                    self.is_bulk = self.burst >= BULK_BYTES;
                    self.burst = 0;
                    return Poll::Pending;
                }
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

thread_local! {
    static IDLE_PIPES: RefCell<Vec<Pipe>> = const { RefCell::new(Vec::new()) };
}

impl Pipe {
    fn borrow() -> io::Result<Self> {
        if let Some(pipe) = IDLE_PIPES.with_borrow_mut(Vec::pop) {
            return Ok(pipe);
        }
        let (out, into) = pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC)?;
        // Refused beyond what a user may hold (pipe-user-pages-soft), where pipes of two pages are
        // handed out: then copying is better.
        fcntl_setpipe_size(&into, PIPE_BYTES)?;
        Ok(Self { out, into })
    }

    /// Only an empty pipe may go back: what is in it belongs to one connection.
    fn give_back(self) {
        IDLE_PIPES.with_borrow_mut(|idle| {
            if idle.len() < IDLE_PIPES_MAX {
                idle.push(self);
            }
        });
    }

    fn fill(&self, from: &TcpStream) -> io::Result<usize> {
        let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
        Ok(splice(from, None, &self.into, None, PIPE_BYTES, flags)?)
    }

    fn empty(&self, to: &TcpStream, bytes: usize) -> io::Result<usize> {
        let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
        Ok(splice(&self.out, None, to, None, bytes, flags)?)
    }
}
