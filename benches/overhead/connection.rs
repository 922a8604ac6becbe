//! One connection of the load or of the backend: its socket, what is still to be written, and what is spoken on it.

use std::io::{self, Read, Write};
use std::net::TcpStream;

use rustix::net::RecvFlags;
use tokio::time::Instant;

use crate::http1;
use crate::http2::Http2;
use crate::shape::{SMALL, Shape, Wire};

/// So much is written at once where as much as possible is.
const BULK_BYTES: usize = 128 * 1024;

/// The other end said something that ends the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault(pub &'static str);

/// One request is over.
#[derive(Clone, Copy, Debug)]
pub struct Done {
    pub intended: Instant,
    pub fine: bool,
}

pub struct Connection {
    pub stream: TcpStream,
    speaker: Speaker,
    outbox: Vec<u8>,
    /// Of the outbox, already written.
    written: usize,
    /// Whether epoll is asked to say when more can be written.
    pub wants_write: bool,
}

enum Speaker {
    Http1Client(http1::Client),
    Http1Server(http1::Server),
    Http2Client(Http2),
    Http2Server(Http2),
    TcpClient {
        asked: Option<Instant>,
        received: usize,
    },
    Echo,
    Source,
}

impl Connection {
    pub fn client(stream: TcpStream, shape: Shape) -> io::Result<Self> {
        let mut outbox = Vec::new();
        let speaker = match shape.wire() {
            Wire::Http1 => Speaker::Http1Client(http1::Client::default()),
            Wire::Http2 => Speaker::Http2Client(Http2::client(shape, &mut outbox)),
            Wire::Tcp if shape == Shape::TcpBulk => Speaker::Source,
            Wire::Tcp => Speaker::TcpClient {
                asked: None,
                received: 0,
            },
        };
        Self::new(stream, speaker, outbox)
    }

    pub fn server(stream: TcpStream, wire: Wire, shape: Shape) -> io::Result<Self> {
        let mut outbox = Vec::new();
        let speaker = match wire {
            Wire::Http1 => Speaker::Http1Server(http1::Server::default()),
            Wire::Http2 => Speaker::Http2Server(Http2::server(shape, &mut outbox)),
            Wire::Tcp => Speaker::Echo,
        };
        Self::new(stream, speaker, outbox)
    }

    fn new(stream: TcpStream, speaker: Speaker, outbox: Vec<u8>) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        Ok(Self {
            stream,
            speaker,
            outbox,
            written: 0,
            wants_write: false,
        })
    }

    pub fn is_client(&self) -> bool {
        !matches!(
            self.speaker,
            Speaker::Http1Server(_) | Speaker::Http2Server(_) | Speaker::Echo
        )
    }

    pub fn has_more(&self) -> bool {
        self.written < self.outbox.len()
    }

    /// Puts a request into the outbox.
    pub fn ask(&mut self, intended: Instant) {
        match &mut self.speaker {
            Speaker::Http1Client(client) => client.ask(intended, &mut self.outbox),
            Speaker::Http2Client(client) => client.ask(intended, &mut self.outbox),
            Speaker::TcpClient { asked, .. } => {
                *asked = Some(intended);
                self.outbox.extend_from_slice(&[b'x'; SMALL]);
            }
            Speaker::Source => self.outbox.resize(BULK_BYTES, b'x'),
            Speaker::Http1Server(_) | Speaker::Http2Server(_) | Speaker::Echo => {}
        }
    }

    pub fn outstanding(&self) -> usize {
        match &self.speaker {
            Speaker::Http1Client(client) => client.outstanding(),
            Speaker::Http2Client(client) => client.outstanding(),
            Speaker::TcpClient { asked, .. } => usize::from(asked.is_some()),
            _ => 0,
        }
    }

    pub fn read(
        &mut self,
        shape: Shape,
        scratch: &mut [u8],
        done: &mut Vec<Done>,
        sunk: &mut u64,
    ) -> Result<(), Fault> {
        if matches!(self.speaker, Speaker::Echo) && shape == Shape::TcpBulk {
            return self.discard(scratch, sunk);
        }
        let length = match self.stream.read(scratch) {
            Ok(0) => return Err(Fault("closed by the other end")),
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(_) => return Err(Fault("reset by the other end")),
        };
        let bytes = &scratch[..length];
        match &mut self.speaker {
            Speaker::Http1Client(client) => client.take(bytes, done),
            Speaker::Http1Server(server) => server.take(bytes, &mut self.outbox),
            Speaker::Http2Client(client) => client.take(bytes, &mut self.outbox, done),
            Speaker::Http2Server(server) => {
                server.become_shape(shape);
                server.take(bytes, &mut self.outbox, done)
            }
            Speaker::Echo => {
                self.outbox.extend_from_slice(bytes);
                Ok(())
            }
            Speaker::TcpClient { asked, received } => {
                *received += length;
                if *received >= SMALL {
                    *received -= SMALL;
                    let intended = asked.take().ok_or(Fault("an answer to nothing"))?;
                    done.push(Done {
                        intended,
                        fine: true,
                    });
                }
                Ok(())
            }
            Speaker::Source => Ok(()),
        }
    }

    /// Takes bytes without having them copied: the receiver must not be what limits the throughput.
    fn discard(&mut self, scratch: &mut [u8], sunk: &mut u64) -> Result<(), Fault> {
        match rustix::net::recv(&self.stream, scratch, RecvFlags::TRUNC) {
            Ok((_, 0)) => Err(Fault("closed by the other end")),
            Ok((_, length)) => {
                *sunk += length as u64;
                Ok(())
            }
            Err(rustix::io::Errno::AGAIN) => Ok(()),
            Err(_) => Err(Fault("reset by the other end")),
        }
    }

    pub fn flush(&mut self) -> io::Result<()> {
        while self.written < self.outbox.len() {
            match self.stream.write(&self.outbox[self.written..]) {
                Ok(length) => self.written += length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
            if matches!(self.speaker, Speaker::Source) {
                // There is always more; others get their turn first.
                self.written = 0;
                return Ok(());
            }
        }
        self.outbox.clear();
        self.written = 0;
        Ok(())
    }
}
