//! Asks an endpoint that fell silent whether it is awake: `OPTIONS *`, which RFC 9110 section 9.3.7 calls a ping.
//!
//! What it says to that is of no interest: an error, a refusal to speak this protocol or a closed connection come from
//! somebody who is awake. An app that hangs says nothing, though the kernel connects for it.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::time::Duration;

use h2::Reason;
use http::{Method, Request, Uri};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::connector::Stream;
use crate::error::PROXY_ERROR;
use crate::head;

/// A question without content, to an endpoint that others are spared: whoever is awake is fast enough.
const ANSWER_MAX: Duration = Duration::from_secs(1);

/// What a sidecar says whose policy does not let us ask: its app has not heard of it.
const DENIED: &str = "permission-denied";

pub async fn is_answered(stream: Stream, address: SocketAddr) -> bool {
    let answer = async {
        match stream {
            Stream::Plain(stream) => plain(stream, address).await,
            Stream::Tls(_) => by_way_of_its_sidecar(stream, address).await,
        }
    };
    let answered = tokio::time::timeout(ANSWER_MAX, answer).await;
    answered.unwrap_or(false)
}

/// Any byte will do, and a closed connection: a server of HTTP/2 does not like the question.
async fn plain(mut stream: impl AsyncRead + AsyncWrite + Unpin, address: SocketAddr) -> bool {
    let question = format!("OPTIONS * HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    // Whoever has closed it by now is awake, too.
    let _ = stream.write_all(question.as_bytes()).await;
    let _ = stream.read(&mut [0; 1]).await;
    true
}

/// Its sidecar is awake, as the handshake showed: what counts is what the app says.
async fn by_way_of_its_sidecar(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    address: SocketAddr,
) -> bool {
    let Ok((mut sender, connection)) = h2::client::handshake(stream).await else {
        return false;
    };
    let uri = Uri::builder()
        .scheme("http")
        .authority(address.to_string())
        .path_and_query("*");
    let request = Request::builder()
        .method(Method::OPTIONS)
        .uri(uri.build().expect("an address is an authority"))
        .body(())
        .expect("a method and a target");
    let answer = async {
        poll_fn(|cx| sender.poll_ready(cx)).await?;
        let (response, _) = sender.send_request(request, true)?;
        response.await
    };
    let answer = tokio::select! {
        answer = answer => answer,
        _ = connection => return false,
    };
    match answer {
        Ok(response) => {
            let headers = response.headers();
            let denied = (headers.get(&PROXY_ERROR)).is_some_and(|code| code == DENIED);
            !headers.contains_key(&head::UNPROCESSED)
                && !headers.contains_key(&head::OVERLOAD)
                && !denied
        }
        Err(error) => error.is_reset() && error.reason() != Some(Reason::REFUSED_STREAM),
    }
}

#[cfg(test)]
mod tests;
