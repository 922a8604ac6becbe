use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

/// Counts the reads that its socket would see, and remembers how much the last one would have taken.
struct Counted<S> {
    socket: S,
    reads: Arc<AtomicUsize>,
    room: Arc<AtomicUsize>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.room.store(buf.remaining(), Ordering::Relaxed);
        Pin::new(&mut self.socket).poll_read(cx, buf)
    }
}

fn bytes(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at % 251) as u8).collect()
}

/// Reads everything, `room` bytes at a time; what came, and in how many reads of the socket.
async fn read(prefix: &[u8], said: &[u8], room: usize) -> (Vec<u8>, usize) {
    let reads = Arc::new(AtomicUsize::new(0));
    let socket = Counted {
        socket: io::Cursor::new(said.to_vec()),
        reads: reads.clone(),
        room: Arc::default(),
    };
    let mut ahead = ReadAhead::after(Bytes::copy_from_slice(prefix), socket);
    let mut came = Vec::new();
    let mut buffer = vec![0; room];
    loop {
        let length = ahead.read(&mut buffer).await.expect("a cursor");
        if length == 0 {
            break;
        }
        came.extend_from_slice(&buffer[..length]);
    }
    assert!(ahead.piece.is_none(), "nothing is held at the end");
    (came, reads.load(Ordering::Relaxed))
}

#[tokio::test]
async fn a_large_message_takes_few_reads_however_small_the_readers_buffer_is() {
    let said = bytes(64 * 1024);
    let (came, reads) = read(b"", &said, 4096).await;
    assert_eq!(came, said);
    // The first, all the rest, the end.
    assert_eq!(reads, 3);
}

#[tokio::test]
async fn every_byte_comes_once_and_in_order_whatever_the_sizes() {
    for length in [
        0,
        1,
        7,
        PIECE_BYTES - 1,
        PIECE_BYTES,
        PIECE_BYTES + 1,
        300_000,
    ] {
        for room in [1, 7, 4096, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1] {
            if length / room > 100_000 {
                continue;
            }
            let said = bytes(length);
            let (came, _) = read(b"GET / ", &said, room).await;
            let expected = [b"GET / ", said.as_slice()].concat();
            assert!(came == expected, "{length} bytes, {room} at a time");
        }
    }
}

#[tokio::test]
async fn a_small_message_is_read_straight_to_where_it_is_wanted() {
    let (socket, mut far) = tokio::io::duplex(PIECE_BYTES);
    let room = Arc::new(AtomicUsize::new(0));
    let mut ahead = ReadAhead::new(Counted {
        socket,
        reads: Arc::default(),
        room: room.clone(),
    });
    let mut buffer = [0; 4096];
    for _ in 0..3 {
        far.write_all(&bytes(100)).await.expect("it is read");
        assert_eq!(ahead.read(&mut buffer).await.expect("100 bytes"), 100);
        assert_eq!(room.load(Ordering::Relaxed), buffer.len());
    }
}

#[tokio::test]
async fn who_waits_for_more_holds_nothing() {
    let (near, mut far) = tokio::io::duplex(PIECE_BYTES);
    let mut ahead = ReadAhead::new(near);
    far.write_all(&bytes(4096)).await.expect("it is read");
    let mut buffer = [0; 4096];
    ahead.read_exact(&mut buffer).await.expect("4 KiB");
    let more = ahead.read(&mut buffer);
    let waited = tokio::time::timeout(std::time::Duration::from_millis(10), more).await;
    assert!(waited.is_err(), "there is no more");
    assert!(ahead.piece.is_none(), "a piece is for bytes");
    drop(far);
    assert_eq!(ahead.read(&mut buffer).await.expect("the end"), 0);
}

#[tokio::test]
async fn a_socket_of_which_something_was_read_is_not_given_away() {
    let said = bytes(10_000);
    let mut ahead = ReadAhead::new(io::Cursor::new(said));
    let mut buffer = [0; 4096];
    for _ in 0..2 {
        ahead.read_exact(&mut buffer).await.expect("8 KiB");
    }
    let mut ahead = ahead.into_inner().expect_err("bytes would be lost");
    ahead
        .read_exact(&mut buffer[..10_000 - 8192])
        .await
        .expect("the rest");
    assert!(ahead.into_inner().is_ok());
    let prefixed = ReadAhead::after(Bytes::from_static(b"x"), io::empty());
    assert!(prefixed.into_inner().is_err());
}
