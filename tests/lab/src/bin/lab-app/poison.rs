//! HTTP/2 that misbehaves for as long as `/flip/…` says so, and an app that calls it all the same.
//!
//! In turn: a grpc-status that there is not, a stream that is reset, a good answer and GOAWAY, and GOAWAY in the middle of
//! everything.

use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use h2::Reason;
use h2::server::SendResponse;
use http_body_util::Full;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use crate::{Ending, relay};

pub(crate) const PORT: u16 = 9091;
/// gRPC has codes from 0 to 16.
const NO_CODE: &str = "400";

static CALLS: AtomicU64 = AtomicU64::new(0);
/// Codes that there are not, and that arrived as they were sent.
static ARRIVED: AtomicU64 = AtomicU64::new(0);

pub(crate) async fn serve(stream: TcpStream, mut ending: Ending) {
    let Ok(mut connection) = h2::server::handshake(stream).await else {
        return;
    };
    let mut draining = false;
    loop {
        let accepted = tokio::select! {
            accepted = connection.accept() => accepted,
            _ = ending.wait_for(|ending| *ending), if !draining => {
                draining = true;
                connection.graceful_shutdown();
                continue;
            }
        };
        let Some(Ok((_, mut respond))) = accepted else {
            return;
        };
        let turn = CALLS.fetch_add(1, Ordering::Relaxed) % 4;
        match (relay::is_flipped(), turn) {
            (true, 0) => answer(respond, NO_CODE),
            (true, 1) => respond.send_reset(Reason::INTERNAL_ERROR),
            (true, 2) => {
                answer(respond, "0");
                connection.graceful_shutdown();
            }
            (true, _) => connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM),
            (false, _) => answer(respond, "0"),
        }
    }
}

fn answer(mut respond: SendResponse<Bytes>, code: &str) {
    let reply = Response::builder()
        .header("content-type", "application/grpc")
        .header("grpc-status", code)
        .body(());
    // Whoever asked may be gone.
    let _ = respond.send_response(reply.expect("plain headers"), true);
}

/// `HOST/OTHER`: calls the poison at HOST, whatever comes of it, and then asks OTHER, whose answer counts.
pub(crate) async fn poke(rest: &str) -> (StatusCode, String) {
    let Some((host, other)) = rest.split_once('/') else {
        return (StatusCode::BAD_REQUEST, rest.to_owned());
    };
    if let Ok(code) = call(host).await
        && code == NO_CODE
    {
        ARRIVED.fetch_add(1, Ordering::Relaxed);
    }
    match relay::ask(other, "/health", None).await {
        Ok(answer) => answer,
        Err(error) => (StatusCode::BAD_GATEWAY, error.to_string()),
    }
}

pub(crate) fn arrived() -> String {
    ARRIVED.load(Ordering::Relaxed).to_string()
}

/// The grpc-status that comes back.
async fn call(host: &str) -> Result<String, Box<dyn std::error::Error + Send + Sync>> {
    let stream = TcpStream::connect((host, PORT)).await?;
    stream.set_nodelay(true)?;
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let request = Request::post(format!("http://{host}/lab.Poison/Poke"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Full::<Bytes>::default())?;
    let reply = sender.send_request(request).await?;
    let code = reply.headers().get("grpc-status");
    let code = code.ok_or("no grpc-status")?.to_str()?;
    Ok(code.to_owned())
}
