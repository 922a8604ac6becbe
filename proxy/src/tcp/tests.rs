//! Both pumps under the same stories; duplex streams with a paused clock where time matters.

mod idle;
mod peers;
mod pressure;
mod pumps;

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
