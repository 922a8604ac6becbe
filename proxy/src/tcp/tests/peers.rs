//! Peers that do only half of what a stream can.

use super::*;

/// Has something to say, but cannot be written to.
struct Deaf<R>(R);

impl<R: AsyncRead + Unpin> AsyncRead for Deaf<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut tokio::io::ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl<R: Unpin> AsyncWrite for Deaf<R> {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[tokio::test(start_paused = true)]
async fn who_stopped_listening_is_still_heard() {
    let ((mut client, downstream), (upstream, mut server)) = (duplex(10), duplex(10_000));
    server.write_all(&pattern(5000)).await.expect("write");
    drop(server);
    client.write_all(b"nobody").await.expect("write");
    let forwarder = tokio::spawn(forward(downstream, Deaf(upstream), LONG, Bytes::new()));
    let mut all = Vec::new();
    client.read_to_end(&mut all).await.expect("read");
    assert_eq!(all, pattern(5000));
    let transferred = forwarder.await.expect("no panic");
    assert!(
        matches!(transferred.end, End::Upstream(_)),
        "{transferred:?}"
    );
    assert_eq!((transferred.sent, transferred.received), (0, 5000));
}

/// Holds back what is written until it is flushed, as TLS may.
struct Lazy {
    inner: DuplexStream,
    held: Vec<u8>,
}

impl AsyncRead for Lazy {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut tokio::io::ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Lazy {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.held.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { inner, held } = &mut *self;
        while !held.is_empty() {
            let written = ready!(Pin::new(&mut *inner).poll_write(cx, held))?;
            held.drain(..written);
        }
        Pin::new(inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_written_is_flushed_as_soon_as_the_reader_pauses() {
    let ((mut client, downstream), (upstream, mut server)) = (duplex(64), duplex(4));
    let upstream = Lazy {
        inner: upstream,
        held: Vec::new(),
    };
    let forwarder = tokio::spawn(forward(
        downstream,
        upstream,
        LONG,
        Bytes::from_static(b"a"),
    ));
    client.write_all(b"question").await.expect("write");
    for expected in [&b"aquestion"[..], b"and another"] {
        let mut arrived = vec![0; expected.len()];
        let arrives = timeout(Duration::from_secs(1), server.read_exact(&mut arrived));
        arrives
            .await
            .expect("without more bytes or an EOF")
            .expect("read");
        assert_eq!(arrived, expected);
        client.write_all(b"and another").await.expect("write");
    }
    drop((client, server));
    forwarder.await.expect("no panic");
}

/// Gives ten bytes a read, three times, and then fails, as TLS does whose peer is gone.
struct Records(u8);

impl AsyncRead for Records {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut tokio::io::ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.0 == 3 {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        self.0 += 1;
        buffer.put_slice(&[self.0; 10]);
        Poll::Ready(Ok(()))
    }
}

#[tokio::test(start_paused = true)]
async fn records_that_are_there_go_before_the_error_behind_them() {
    // The flush has to wait.
    let (upstream, mut server) = duplex(30);
    let upstream = Lazy {
        inner: upstream,
        held: Vec::new(),
    };
    let forwarder = tokio::spawn(forward(
        Deaf(Records(0)),
        upstream,
        LONG,
        Bytes::from_static(b"a"),
    ));
    let mut arrived = Vec::new();
    let mut some = [0; 64];
    while arrived.len() < 31 {
        let read = server.read(&mut some).await.expect("read");
        assert_ne!(read, 0, "cut after {} bytes", arrived.len());
        arrived.extend_from_slice(&some[..read]);
    }
    assert_eq!(arrived, [&b"a"[..], &[1; 10], &[2; 10], &[3; 10]].concat());
    let transferred = forwarder.await.expect("no panic");
    assert!(
        matches!(&transferred.end, End::Downstream(error) if error.kind() == io::ErrorKind::ConnectionReset),
        "{transferred:?}"
    );
}

#[tokio::test]
async fn one_write_takes_all_records_that_are_there() {
    let mut copy = copy::Copy::default();
    let mut writer = Lazy {
        inner: duplex(1).0,
        held: Vec::new(),
    };
    let mut moved = 0;
    let mut reader = Records(0);
    let first = std::future::poll_fn(|cx| copy.poll_move(cx, &mut reader, &mut writer, &mut moved));
    assert!(first.await.is_ok());
    assert_eq!((writer.held.len(), moved), (30, 30));
}
