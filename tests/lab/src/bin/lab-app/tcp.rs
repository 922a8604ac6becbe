//! Bytes without HTTP.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::Ending;

const GREETING: &[u8] = b"220 lab ready\r\n";

/// Speaks first.
pub(crate) async fn greet(mut stream: TcpStream, ending: Ending) {
    if stream.write_all(GREETING).await.is_ok() {
        echo(stream, ending).await;
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
