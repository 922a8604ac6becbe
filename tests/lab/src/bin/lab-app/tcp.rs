//! Bytes without HTTP, or with as little of it as a test wants.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::Ending;

const HINTS: &[u8] = b"HTTP/1.1 103 Early Hints\r\nlink: </style.css>; rel=preload\r\n\r\n";
const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello";
/// Between the two.
const THINKING: Duration = Duration::from_millis(300);
const GREETING: &[u8] = b"220 lab ready\r\n";

/// Speaks first.
pub(crate) async fn greet(mut stream: TcpStream, ending: Ending) {
    if stream.write_all(GREETING).await.is_ok() {
        echo(stream, ending).await;
    }
}

/// hyper's server cannot send informational responses.
pub(crate) async fn hint(mut stream: TcpStream, _: Ending) {
    let mut head = Vec::new();
    while stream.read_buf(&mut head).await.is_ok_and(|read| read > 0) {
        if head.windows(4).any(|four| four == b"\r\n\r\n") {
            head.clear();
            let hinted = stream.write_all(HINTS).await;
            tokio::time::sleep(THINKING).await;
            if hinted.is_err() || stream.write_all(RESPONSE).await.is_err() {
                return;
            }
        }
    }
}

/// A client that goes away is no news.
pub(crate) async fn echo(mut stream: TcpStream, _: Ending) {
    let (mut read, mut write) = stream.split();
    if tokio::io::copy(&mut read, &mut write).await.is_ok() {
        let _ = write.shutdown().await;
    }
}

/// Ends with the client: a peek that finds nothing more is its end.
pub(crate) async fn hold(mut stream: TcpStream, mut ending: Ending) {
    let mut one = [0];
    // The one byte proves to the client that it got here.
    let _ = stream.read_exact(&mut one).await;
    let _ = stream.write_all(&one).await;
    let _ = ending.wait_for(|ending| *ending).await;
}
