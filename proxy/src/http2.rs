//! Serving HTTP/2 on a downstream connection, on h2 itself: hyper's server cannot send informational responses.

use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use h2::server::{self, SendResponse};
use h2::{Ping, PingPong, RecvStream};
use http::{Method, Request, Response, StatusCode, header};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::body::Body;
use crate::drain::Drain;
use crate::exchange::{Download, Upload};
use crate::gather::Gather;
use crate::http::{Connection, answer};
use crate::interim::{self, Queue};
use crate::mentions::Mentions;

pub(crate) const HEADER_LIST_MAX: u32 = 32 * 1024;
const STREAMS_MAX: u32 = 256;
pub(crate) const STREAM_WINDOW: u32 = 64 * 1024;
pub(crate) const CONNECTION_WINDOW: u32 = 1024 * 1024;
pub(crate) const SEND_BUFFER: usize = 64 * 1024;
const PENDING_RESETS_MAX: usize = 20;
const LOCAL_RESETS_MAX: usize = 256;
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(20);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a connection ended before its time.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Protocol(#[from] h2::Error),
    #[error("the preface took more than {}s", HANDSHAKE_TIMEOUT.as_secs())]
    Handshake,
    #[error("a ping was not answered within {}s", KEEP_ALIVE_TIMEOUT.as_secs())]
    Silent,
}

/// Serves until the caller goes or the drain has ended its requests.
pub async fn serve<I>(io: I, connection: Connection, mut drain: Drain) -> Result<(), Error>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let handshake = server::Builder::new()
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEADER_LIST_MAX)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buffer_size(SEND_BUFFER)
        .max_pending_accept_reset_streams(PENDING_RESETS_MAX)
        .max_local_error_reset_streams(Some(LOCAL_RESETS_MAX))
        .handshake(Gather::new(io));
    let handshake = tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake).await;
    let mut streams = handshake.map_err(|_| Error::Handshake)??;
    let pings = streams.ping_pong().expect("it is taken once");
    // A caller that is gone without a word would otherwise keep its connection for ever.
    let mut silence = pin!(silence(pings, || true));
    let connection = Arc::new(connection);
    let mut drain = pin!(drain.started());
    let mut draining = false;
    loop {
        let accepted = tokio::select! {
            accepted = streams.accept() => accepted,
            () = drain.as_mut(), if !draining => {
                draining = true;
                streams.graceful_shutdown();
                continue;
            }
            () = silence.as_mut() => return Err(Error::Silent),
        };
        let accepted = match accepted.transpose() {
            // Who hangs up without a goodbye has done no wrong.
            Err(error) if error.is_io() => return Ok(()),
            accepted => accepted?,
        };
        match accepted {
            Some((request, respond)) => {
                // As in hyper: a stream that waits must not keep the connection from being read.
                tokio::spawn(stream(connection.clone(), request, respond));
            }
            None => return Ok(()),
        }
    }
}

/// Ends when the peer has not answered a ping in time; while nobody waits for it, it is not asked.
pub(crate) async fn silence(mut pings: PingPong, is_awaited: impl Fn() -> bool) {
    loop {
        tokio::time::sleep(KEEP_ALIVE_INTERVAL).await;
        if !is_awaited() {
            continue;
        }
        let answered = tokio::time::timeout(KEEP_ALIVE_TIMEOUT, pings.ping(Ping::opaque())).await;
        if !matches!(answered, Ok(Ok(_))) {
            return;
        }
    }
}

/// One request, to the end of its response.
async fn stream(
    connection: Arc<Connection>,
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
) {
    if request
        .headers()
        .get(header::EXPECT)
        .is_some_and(|expected| expected.as_bytes().eq_ignore_ascii_case(b"100-continue"))
    {
        // If it fails, so does what follows.
        let _ = respond.send_informational(informational(StatusCode::CONTINUE));
    }
    let mentions = Mentions::of(request.headers());
    let hints = interim::is_wanted_by(&request, mentions).then(Queue::default);
    let (head, body) = request.into_parts();
    let is_head = head.method == Method::HEAD;
    let body = Body::download(Download::new(body, &head.headers));
    let request = Request::from_parts(head, body);
    let interim = hints.as_ref().map(Queue::interim);
    let mut answering = pin!(answer(&connection, request, mentions, false, interim));
    let answered = std::future::poll_fn(|cx| {
        // Whoever asked has left: what is done for it stops here.
        if respond.poll_reset(cx).is_ready() {
            return Poll::Ready(None);
        }
        if let Some(hints) = &hints {
            while let Poll::Ready(head) = hints.poll(cx) {
                let _ = respond.send_informational(head);
            }
        }
        answering.as_mut().poll(cx).map(Some)
    });
    let Some(response) = answered.await else {
        return;
    };
    let (mut head, mut body) = response.into_parts();
    // RFC 9110 section 9.3.2. What says it in spite of that, a refusal or a fallback, would break the caller's stream.
    let ends = is_head || body.is_end_stream();
    if let Some(length @ 1..) = body.size_hint().exact() {
        head.headers
            .entry(header::CONTENT_LENGTH)
            .or_insert(length.into());
    }
    // Fails for a stream that is gone; then nobody waits for its body.
    let Ok(stream) = respond.send_response(Response::from_parts(head, ()), ends) else {
        return;
    };
    if !ends {
        let mut upload = Upload::new(body, stream);
        let _ = std::future::poll_fn(|cx| upload.poll(cx)).await;
    } else if is_head {
        // To its end: one that is dropped before looks like a call that was given up.
        while let Some(Ok(_)) = body.frame().await {}
    }
}

fn informational(status: StatusCode) -> Response<()> {
    let mut head = Response::new(());
    *head.status_mut() = status;
    head
}

#[cfg(test)]
mod tests;
