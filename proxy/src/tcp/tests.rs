//! Both pumps under the same stories; duplex streams with a paused clock where time matters.

use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::*;

/// Never reached on a paused clock.
const LONG: Duration = Duration::from_secs(3600);

/// On the real clock: a forwarder that hangs ends with a reset, and its test in red.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Clone, Copy, Debug)]
enum Way {
    Copy,
    Splice,
}

const WAYS: [Way; 2] = [Way::Copy, Way::Splice];

/// Two connected sockets on loopback.
async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let address = listener.local_addr().expect("bound");
    let (dialed, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
    (dialed.expect("connect"), accepted.expect("accept").0)
}

/// A client and a server with a forwarder between them.
struct Forwarded {
    client: TcpStream,
    server: TcpStream,
    forwarder: JoinHandle<Transferred>,
}

async fn forwarded(way: Way, prefix: &'static [u8]) -> Forwarded {
    let (client, downstream) = pair().await;
    let (upstream, server) = pair().await;
    let prefix = Bytes::from_static(prefix);
    let forwarder = tokio::spawn(async move {
        match way {
            Way::Copy => copied(downstream, upstream, prefix).await,
            Way::Splice => forward_plain(downstream, upstream, PATIENCE, prefix).await,
        }
    });
    Forwarded {
        client,
        server,
        forwarder,
    }
}

/// [`forward`] as its callers are asked to use it.
async fn copied(mut downstream: TcpStream, mut upstream: TcpStream, prefix: Bytes) -> Transferred {
    let transferred = forward(&mut downstream, &mut upstream, PATIENCE, prefix).await;
    if !matches!(transferred.end, End::Closed) {
        reset(&downstream);
        reset(&upstream);
    }
    transferred
}

async fn read_all(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut all = Vec::new();
    stream.read_to_end(&mut all).await.map(|_| all)
}

/// Bytes that do not repeat with any power of two, so that a shifted buffer shows.
fn pattern(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|n| (n % 251) as u8).collect()
}

#[tokio::test]
async fn the_prefix_comes_first_and_each_half_closes_by_itself() {
    for way in WAYS {
        let Forwarded {
            mut client,
            mut server,
            forwarder,
        } = forwarded(way, b"hel").await;
        client.write_all(b"lo").await.expect("write");
        client.shutdown().await.expect("half-close");
        assert_eq!(
            read_all(&mut server).await.expect("until EOF"),
            b"hello",
            "{way:?}"
        );

        server
            .write_all(b"still here")
            .await
            .expect("the other half is open");
        server.shutdown().await.expect("close");
        assert_eq!(
            read_all(&mut client).await.expect("until EOF"),
            b"still here",
            "{way:?}"
        );

        let transferred = forwarder.await.expect("no panic");
        assert!(
            matches!(transferred.end, End::Closed),
            "{way:?}: {transferred:?}"
        );
        assert_eq!((transferred.sent, transferred.received), (5, 10), "{way:?}");
    }
}

#[tokio::test]
async fn the_server_may_close_its_half_first() {
    for way in WAYS {
        let Forwarded {
            mut client,
            mut server,
            forwarder,
        } = forwarded(way, b"").await;
        server.write_all(b"220 ready").await.expect("write");
        server.shutdown().await.expect("half-close");
        assert_eq!(
            read_all(&mut client).await.expect("until EOF"),
            b"220 ready",
            "{way:?}"
        );

        client
            .write_all(b"bye")
            .await
            .expect("the other half is open");
        drop(client);
        assert_eq!(
            read_all(&mut server).await.expect("until EOF"),
            b"bye",
            "{way:?}"
        );
        assert!(
            matches!(forwarder.await.expect("no panic").end, End::Closed),
            "{way:?}"
        );
    }
}

#[tokio::test]
async fn a_reset_arrives_as_a_reset_on_the_other_side() {
    for way in WAYS {
        let Forwarded {
            mut client,
            mut server,
            forwarder,
        } = forwarded(way, b"x").await;
        server.read_exact(&mut [0]).await.expect("connected");
        reset(&client);
        drop(client);
        let error = read_all(&mut server).await.expect_err("not an EOF");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{way:?}");
        let transferred = forwarder.await.expect("no panic");
        assert!(
            matches!(transferred.end, End::Downstream(_)),
            "{way:?}: {transferred:?}"
        );

        let Forwarded {
            client: to_keep,
            server,
            forwarder,
        } = forwarded(way, b"").await;
        client = to_keep;
        reset(&server);
        drop(server);
        let error = read_all(&mut client).await.expect_err("not an EOF");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{way:?}");
        let transferred = forwarder.await.expect("no panic");
        assert!(
            matches!(transferred.end, End::Upstream(_)),
            "{way:?}: {transferred:?}"
        );
    }
}

/// The server answers, does not read the rest, and is gone: the answer arrives, and no EOF behind it.
#[tokio::test]
async fn what_was_said_before_a_reset_is_delivered_and_does_not_look_complete() {
    for way in WAYS {
        let Forwarded {
            mut client,
            mut server,
            forwarder,
        } = forwarded(way, b"").await;
        let upload = pattern(8 << 20);
        let (mut from_client, mut to_server) = client.split();
        let sending = async { to_server.write_all(&upload).await };
        let answering = async {
            server
                .read_exact(&mut [0; 1000])
                .await
                .expect("the beginning");
            server.write_all(b"413 too much").await.expect("answer");
            sleep(Duration::from_millis(50)).await;
            drop(server); // with unread bytes: a reset
        };
        let reading = async {
            let mut answer = [0; 12];
            from_client
                .read_exact(&mut answer)
                .await
                .expect("the answer");
            assert_eq!(&answer, b"413 too much");
            from_client.read(&mut answer).await
        };
        let (sent, (), read) = tokio::join!(sending, answering, reading);
        // Linux tells of a reset once: whoever asks first. (After an EOF a write would say "broken pipe".)
        let told = match (sent, read) {
            (_, Err(error)) | (Err(error), Ok(0)) => error.kind(),
            other => panic!("{way:?}: {other:?}"),
        };
        assert_eq!(told, io::ErrorKind::ConnectionReset, "{way:?}");
        let transferred = forwarder.await.expect("no panic");
        assert!(
            matches!(transferred.end, End::Upstream(_)),
            "{way:?}: {transferred:?}"
        );
    }
}

#[tokio::test]
async fn a_hundred_mebibytes_arrive_intact_both_ways_at_once() {
    const BYTES: usize = 100 << 20;
    for way in WAYS {
        let Forwarded {
            client,
            server,
            forwarder,
        } = forwarded(way, b"").await;
        let ends = [client, server].map(|stream| {
            let (mut reader, mut writer) = stream.into_split();
            let chunk = pattern(251 * 400);
            let writing = tokio::spawn(async move {
                for from in (0..BYTES).step_by(chunk.len()) {
                    let bytes = chunk.len().min(BYTES - from);
                    writer.write_all(&chunk[..bytes]).await.expect("write");
                }
            });
            let reading = tokio::spawn(async move {
                let (mut seen, mut buffer) = (0, vec![0; 100_000]);
                loop {
                    let bytes = reader.read(&mut buffer).await.expect("read");
                    for (n, byte) in buffer[..bytes].iter().enumerate() {
                        assert_eq!(*byte, ((seen + n) % 251) as u8);
                    }
                    seen += bytes;
                    if bytes == 0 {
                        break seen;
                    }
                }
            });
            (writing, reading)
        });
        for (writing, reading) in ends {
            writing.await.expect("wrote");
            assert_eq!(reading.await.expect("intact"), BYTES, "{way:?}");
        }
        let transferred = forwarder.await.expect("no panic");
        assert_eq!(
            (transferred.sent, transferred.received),
            (BYTES as u64, BYTES as u64),
            "{way:?}"
        );
    }
}

/// How much `writer` takes until it is blocked.
async fn fill(writer: &mut (impl AsyncWrite + Unpin)) -> usize {
    let chunk = vec![7; 4096];
    let mut taken = 0;
    while let Ok(written) = timeout(Duration::from_millis(200), writer.write(&chunk)).await {
        assert!(taken < 64 << 20, "nothing blocks the sender");
        taken += written.expect("write");
    }
    taken
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_blocks_the_sender_after_one_buffer() {
    const EDGE: usize = 1000; // what each duplex stream holds by itself
    let ((mut client, downstream), (upstream, mut server)) = (duplex(EDGE), duplex(EDGE));
    let forwarder = tokio::spawn(forward(downstream, upstream, LONG, Bytes::new()));
    let taken = fill(&mut client).await;
    assert!(
        taken <= 2 * EDGE + copy::BUFFER_BYTES,
        "{taken} bytes are somewhere inside"
    );

    drop(client);
    let mut all = Vec::new();
    server.read_to_end(&mut all).await.expect("EOF");
    assert_eq!(all.len(), taken, "and nothing is lost");
    drop(server);
    assert!(matches!(
        forwarder.await.expect("no panic").end,
        End::Closed
    ));
}

#[tokio::test]
async fn a_slow_reader_blocks_the_sender_through_the_kernel_too() {
    for way in WAYS {
        let Forwarded {
            mut client,
            mut server,
            forwarder,
        } = forwarded(way, b"").await;
        let taken = fill(&mut client).await;
        // Four socket buffers by Linux's defaults, and one pipe.
        assert!(
            taken < 32 << 20,
            "{way:?}: {taken} bytes are somewhere inside"
        );
        client.shutdown().await.expect("half-close");
        assert_eq!(
            read_all(&mut server).await.expect("until EOF").len(),
            taken,
            "{way:?}"
        );
        drop((client, server));
        forwarder.await.expect("no panic");
    }
}

#[tokio::test(start_paused = true)]
async fn silence_in_both_directions_for_the_idle_timeout_ends_it() {
    let ((mut client, downstream), (upstream, mut server)) = (duplex(64), duplex(64));
    let idle_timeout = Duration::from_secs(10);
    let forwarder = tokio::spawn(forward(downstream, upstream, idle_timeout, Bytes::new()));
    let start = Instant::now();
    for _ in 0..5 {
        sleep(Duration::from_secs(7)).await;
        server.write_all(b"tick").await.expect("still there");
        client
            .read_exact(&mut [0; 4])
            .await
            .expect("one direction is enough");
    }
    let transferred = forwarder.await.expect("no panic");
    assert!(matches!(transferred.end, End::Idle), "{transferred:?}");
    assert_eq!(start.elapsed().as_secs(), 5 * 7 + 10);
}

#[tokio::test(start_paused = true)]
async fn a_half_closed_connection_is_not_kept_forever() {
    let ((client, downstream), (upstream, _server)) = (duplex(64), duplex(64));
    drop(client);
    let transferred = forward(downstream, upstream, Duration::from_secs(10), Bytes::new()).await;
    assert!(matches!(transferred.end, End::Idle), "{transferred:?}");
}

#[tokio::test(start_paused = true)]
async fn the_longest_timeout_there_is_means_none() {
    let ((client, downstream), (upstream, server)) = (duplex(64), duplex(64));
    let forwarder = tokio::spawn(forward(downstream, upstream, Duration::MAX, Bytes::new()));
    sleep(LONG).await;
    drop((client, server));
    assert!(matches!(
        forwarder.await.expect("no panic").end,
        End::Closed
    ));
}

#[tokio::test]
async fn an_idle_timeout_is_a_reset_to_both_peers() {
    let ((mut client, downstream), (upstream, mut server)) = (pair().await, pair().await);
    let idle_timeout = Duration::from_millis(50);
    let transferred = forward_plain(
        downstream,
        upstream,
        idle_timeout,
        Bytes::from_static(b"half"),
    )
    .await;
    assert!(matches!(transferred.end, End::Idle), "{transferred:?}");
    for peer in [&mut client, &mut server] {
        let error = read_all(peer).await.expect_err("a cut stream has no EOF");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }
}

/// Has something to say, but cannot be written to.
struct Deaf(DuplexStream);

impl AsyncRead for Deaf {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut tokio::io::ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Deaf {
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

#[tokio::test]
async fn an_idle_direction_owns_no_buffer_and_no_pipe() {
    let ((mut client, mut downstream), (mut upstream, mut server)) = (pair().await, pair().await);
    let (mut copy, mut splice) = (
        Copy::after(Bytes::from(vec![1; 9])),
        Splice::after(Bytes::from(vec![1; 9])),
    );
    for _ in 0..2 {
        let mut moved = 0;
        client.write_all(&[1; 100]).await.expect("write");
        downstream.readable().await.expect("readable");
        poll_fn(|cx| {
            Poll::Ready(
                copy.poll_pump(cx, &mut downstream, &mut upstream, &mut moved)
                    .is_pending(),
            )
        })
        .await;
        client.write_all(&[1; 100]).await.expect("write");
        downstream.readable().await.expect("readable");
        poll_fn(|cx| {
            Poll::Ready(
                splice
                    .poll_pump(cx, &mut downstream, &mut upstream, &mut moved)
                    .is_pending(),
            )
        })
        .await;
        assert!(moved >= 200, "{moved}");
        server
            .read_exact(&mut vec![0; moved as usize])
            .await
            .expect("arrived");
        assert!(copy.holds_nothing() && splice.holds_nothing());
    }
    let forwarding = forward_plain(downstream, upstream, LONG, Bytes::new());
    assert!(
        size_of_val(&forwarding) < 1024,
        "{} bytes",
        size_of_val(&forwarding)
    );
}

/// A direction that cannot have a pipe copies.
#[tokio::test]
async fn without_a_pipe_it_copies() {
    let ((mut client, mut downstream), (mut upstream, mut server)) = (pair().await, pair().await);
    let (up, down) = (Splice::without_pipes(), Splice::without_pipes());
    let forwarder =
        tokio::spawn(async move { run(&mut downstream, &mut upstream, up, down, PATIENCE).await });
    client.write_all(b"over").await.expect("write");
    drop(client);
    assert_eq!(read_all(&mut server).await.expect("until EOF"), b"over");
    drop(server);
    assert!(matches!(
        forwarder.await.expect("no panic").end,
        End::Closed
    ));
}

/// What both peers read when each writes `chunks` with a pause behind each, and then closes its half.
async fn exchange(way: Way, chunks: [Vec<usize>; 2]) -> (Vec<Vec<u8>>, u64, u64) {
    let Forwarded {
        client,
        server,
        forwarder,
    } = forwarded(way, b"prefix").await;
    let peers = [client, server]
        .into_iter()
        .zip(chunks)
        .map(|(stream, chunks)| {
            tokio::spawn(async move {
                let (mut reader, mut writer) = stream.into_split();
                let writing = async move {
                    for bytes in chunks {
                        writer.write_all(&pattern(bytes)).await.expect("write");
                        tokio::task::yield_now().await;
                    }
                    writer.shutdown().await.expect("half-close");
                };
                let mut all = Vec::new();
                let (_, read) = tokio::join!(writing, reader.read_to_end(&mut all));
                read.expect("until EOF");
                all
            })
        });
    let mut read = Vec::new();
    for peer in peers.collect::<Vec<_>>() {
        read.push(peer.await.expect("no panic"));
    }
    let Transferred {
        sent,
        received,
        end,
    } = forwarder.await.expect("no panic");
    assert!(matches!(end, End::Closed), "{way:?}: {end:?}");
    (read, sent, received)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn splice_does_what_copy_does(
        up in proptest::collection::vec(0usize..200_000, 0..8),
        down in proptest::collection::vec(0usize..200_000, 0..8),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let copied = exchange(Way::Copy, [up.clone(), down.clone()]).await;
            let spliced = exchange(Way::Splice, [up.clone(), down.clone()]).await;
            let expected = |chunks: &[usize]| chunks.iter().flat_map(|bytes| pattern(*bytes)).collect::<Vec<_>>();
            assert!(copied.0 == [expected(&down), [b"prefix", &expected(&up)[..]].concat()], "intact");
            assert!(copied == spliced, "the same bytes and the same counts");
        });
    }
}
