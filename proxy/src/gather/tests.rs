use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::*;

/// Remembers the length of what its socket would be given at once.
pub(crate) struct Written(pub DuplexStream, pub Arc<Mutex<Vec<usize>>>);

impl AsyncRead for Written {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Written {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.0).poll_write(cx, buf);
        if let Poll::Ready(Ok(written)) = written {
            self.1.lock().expect("no panic").push(written);
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// A socket that takes so much before it blocks, what it was given, and its other end.
fn socket(room: usize) -> (Gather<Written>, Arc<Mutex<Vec<usize>>>, DuplexStream) {
    let (near, far) = tokio::io::duplex(room);
    let written = Arc::new(Mutex::new(Vec::new()));
    (Gather::new(Written(near, written.clone())), written, far)
}

/// An answer of `length` bytes and trailers, served through a socket with so much room; in how many writes it went.
async fn answer(length: usize, room: usize) -> Vec<usize> {
    const WINDOW: u32 = 1024 * 1024;
    let (near, written, far) = socket(room);
    let mut client = h2::client::Builder::new();
    client
        .initial_window_size(WINDOW)
        .initial_connection_window_size(WINDOW);
    let (client, server) = tokio::join!(
        client.handshake::<_, Bytes>(far),
        h2::server::handshake(near)
    );
    let (mut sender, connection) = client.expect("a client");
    tokio::spawn(connection);
    let mut server = server.expect("a server");
    let request = Request::get("http://app/").body(()).expect("a request");
    let (response, _) = sender.send_request(request, true).expect("to the app");
    let (_, mut respond) = server.accept().await.expect("it comes").expect("a request");
    tokio::spawn(async move { while server.accept().await.is_some() {} });
    tokio::time::sleep(Duration::from_millis(1)).await;
    written.lock().expect("no panic").clear();

    let mut stream = respond
        .send_response(Response::new(()), false)
        .expect("a head");
    let body: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
    stream.send_data(body.clone().into(), false).expect("data");
    stream.send_trailers(HeaderMap::new()).expect("trailers");

    let mut answer = response.await.expect("a head").into_body();
    let mut came = Vec::new();
    while let Some(data) = answer.data().await {
        let data = data.expect("data");
        let released = answer.flow_control().release_capacity(data.len());
        released.expect("no more than came");
        came.extend_from_slice(&data);
    }
    assert!(came == body, "{} of {length} bytes", came.len());
    assert!(answer.trailers().await.expect("no reset").is_some());
    // What the connections say to each other afterwards is short.
    let written = written.lock().expect("no panic");
    written
        .iter()
        .copied()
        .filter(|length| *length > 100)
        .collect()
}

#[tokio::test(start_paused = true)]
async fn head_message_and_trailers_go_as_one_write() {
    for length in [300, 1_000, 16 * 1024, 40_000] {
        let written = answer(length, 1024 * 1024).await;
        assert_eq!(written.len(), 1, "{length} bytes: {written:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_held_has_a_bound() {
    let written = answer(300_000, 1024 * 1024).await;
    assert!(
        written.iter().all(|length| *length <= PIECE_BYTES) && written.len() <= 7,
        "{written:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_socket_that_blocks_gets_everything_once_and_in_order() {
    // Less than the settings are, and the server would wait for a client that waits for it.
    for room in [30, 1000, 4096, 20_000] {
        answer(150_000, room).await;
    }
}

async fn gathered(gather: &mut Gather<Written>) {
    let two = [IoSlice::new(b"head"), IoSlice::new(b"payload")];
    assert_eq!(gather.write_vectored(&two).await.expect("held"), 11);
    gather.flush().await.expect("not yet");
}

#[tokio::test]
async fn the_flush_that_follows_writes() {
    let (mut gather, written, _far) = socket(1024);
    gathered(&mut gather).await;
    assert!(written.lock().expect("no panic").is_empty());
    gather.write_all(b"trailers").await.expect("held");
    gather.flush().await.expect("written");
    assert_eq!(*written.lock().expect("no panic"), [19]);
    assert!(gather.held.is_none(), "an idle connection holds nothing");
}

#[tokio::test]
async fn what_no_flush_followed_goes_with_the_next_read_and_with_the_end() {
    let (mut gather, written, mut far) = socket(1024);
    gathered(&mut gather).await;
    far.write_all(b"x").await.expect("it is read");
    gather.read_u8().await.expect("a byte");
    assert_eq!(*written.lock().expect("no panic"), [11]);
    gathered(&mut gather).await;
    gather.shutdown().await.expect("the end");
    assert_eq!(*written.lock().expect("no panic"), [11, 11]);
}
