//! Accepts connections, at most so many at once: tonic itself knows no such limit.
//! What exceeds it waits in the kernel's backlog, which is bounded too.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::{Connected, TcpConnectInfo};

/// Out of descriptors is a state that lasts: do not spin on it.
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(50);

/// The stream of accepted connections. The listener closes when the stream is dropped.
pub fn accept(
    listener: TcpListener,
    connections_max: usize,
) -> ReceiverStream<io::Result<Counted>> {
    // One slot: a connection is accepted when there is someone to serve it.
    let (accepted, stream) = mpsc::channel(1);
    tokio::spawn(async move {
        let slots = Arc::new(Semaphore::new(connections_max));
        loop {
            tokio::select! {
                connection = next(&listener, &slots) => {
                    if accepted.send(Ok(connection)).await.is_err() {
                        return;
                    }
                }
                () = accepted.closed() => return,
            }
        }
    });
    ReceiverStream::new(stream)
}

async fn next(listener: &TcpListener, slots: &Arc<Semaphore>) -> Counted {
    let slot = Arc::clone(slots).acquire_owned().await;
    let slot = slot.expect("the semaphore is never closed");
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                // Only costs latency when it fails.
                let _ = stream.set_nodelay(true);
                return Counted {
                    stream,
                    _slot: slot,
                };
            }
            Err(error) => {
                eprintln!("accept: {error}");
                tokio::time::sleep(PAUSE_AFTER_ERROR).await;
            }
        }
    }
}

/// A connection that gives its slot back when it is closed.
#[derive(Debug)]
pub struct Counted {
    stream: TcpStream,
    _slot: OwnedSemaphorePermit,
}

impl Connected for Counted {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.stream.connect_info()
    }
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;
    use tokio::time::timeout;
    use tokio_stream::StreamExt;

    #[tokio::test]
    async fn one_connection_too_many_waits_until_another_ends() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let listener = listener.expect("a free port");
        let addr = listener.local_addr().expect("bound");
        let mut connections = accept(listener, 2);
        let mut callers = Vec::new();
        for _ in 0..3 {
            callers.push(
                TcpStream::connect(addr)
                    .await
                    .expect("in the backlog at least"),
            );
        }
        let first = connections.next().await.expect("open");
        let _second = connections.next().await.expect("open");
        let third = timeout(Duration::from_millis(100), connections.next()).await;
        third.expect_err("two are the limit");
        drop(first);
        let third = timeout(Duration::from_secs(5), connections.next()).await;
        third
            .expect("a slot is free")
            .expect("open")
            .expect("accepted");
    }
}
