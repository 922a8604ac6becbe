//! HTTP/1.1. Every answer has the pod's name in `x-pod`.
//!
//! | request | answer |
//! |---|---|
//! | `/health` | 200 |
//! | `/delay/MILLISECONDS` | 200 after that |
//! | `/serve/MILLISECONDS` | 200 after that, but no more than eight are worked on at once |
//! | `/status/CODE` | that |
//! | `/headers` | the request's headers, a line each |
//! | `/ledger` | see `ledger.rs` |
//! | `/after/…`, `/work/…`, `/begun`, `/insist/…` | see `relay.rs` |
//! | `/poke/…`, `/poked` | see `poison.rs` |
//! | `/leaf`, `/flip/CODE`, `/leaves` | 200 until it is flipped; how often it was called |
//! | `/chunks/N` | N chunks of 1 KiB and a trailer `x-chunks: N` |
//! | `POST /echo` | the request's body, as it comes |
//! | `Upgrade: websocket` | a WebSocket that echoes messages |
//! | `Upgrade: …` | echo of bytes |
//! | anything else | the pod's name |

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Body, Frame, Incoming};
use hyper::header::{self, HeaderValue};
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

use crate::{Ending, ledger, poison, relay};

/// What `/work` needs.
static WORKERS: Semaphore = Semaphore::const_new(8);

type Reply = Response<http_body_util::combinators::UnsyncBoxBody<Bytes, hyper::Error>>;

pub(crate) async fn serve(stream: TcpStream, mut ending: Ending) {
    let service = service_fn(|request| async { Ok::<_, Infallible>(answer(request).await) });
    let serving = hyper::server::conn::http1::Builder::new()
        .half_close(true)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut serving = std::pin::pin!(serving);
    tokio::select! {
        _ = serving.as_mut() => return,
        _ = ending.wait_for(|ending| *ending) => {}
    }
    serving.as_mut().graceful_shutdown();
    let _ = serving.await;
}

async fn answer(mut request: Request<Incoming>) -> Reply {
    let upgrade = request.headers().get(header::UPGRADE).cloned();
    let mut reply = match upgrade {
        Some(protocol) => switch(&mut request, protocol),
        None => route(request).await,
    };
    let pod = std::env::var("HOSTNAME").unwrap_or_default();
    if let Ok(pod) = HeaderValue::from_str(&pod) {
        reply.headers_mut().insert("x-pod", pod);
    }
    reply
}

async fn route(request: Request<Incoming>) -> Reply {
    let path = request.uri().path().to_owned();
    let headers = render(request.headers());
    let trace = request.headers().get("traceparent").cloned();
    let mut parts = path.trim_start_matches('/').split('/');
    let (verb, number) = (parts.next().unwrap_or_default(), parts.next());
    let number: u64 = number
        .and_then(|number| number.parse().ok())
        .unwrap_or_default();
    if verb == "echo" {
        return Response::new(request.into_body().boxed_unsync());
    }
    // An app that answers before it has read the request must close the connection, and whoever uses it next, sidecar
    // or not, may lose a request to that.
    if request.into_body().collect().await.is_err() {
        return text(StatusCode::BAD_REQUEST, String::new());
    }
    let rest = path.get(verb.len() + 2..).unwrap_or_default();
    match verb {
        "after" => {
            let (status, body) = relay::after(rest, trace).await;
            text(status, body)
        }
        "work" => {
            let (status, body) = relay::work(rest).await;
            text(status, body)
        }
        "insist" => {
            let (status, body) = relay::insist(rest, trace).await;
            text(status, body)
        }
        "poke" => {
            let (status, body) = poison::poke(rest).await;
            text(status, body)
        }
        "poked" => text(StatusCode::OK, poison::arrived()),
        "leaf" => text(relay::leaf(), String::new()),
        "flip" => {
            relay::flip(number);
            text(StatusCode::OK, String::new())
        }
        "leaves" => text(StatusCode::OK, relay::leaves()),
        "begun" => text(StatusCode::OK, relay::begun()),
        "headers" => text(StatusCode::OK, headers),
        "ledger" => text(StatusCode::OK, ledger::render()),
        "delay" => {
            tokio::time::sleep(Duration::from_millis(number)).await;
            text(StatusCode::OK, "late\n".into())
        }
        "serve" => {
            // The semaphore is never closed.
            let _one_of_those = WORKERS.acquire().await;
            tokio::time::sleep(Duration::from_millis(number)).await;
            text(StatusCode::OK, "done\n".into())
        }
        "status" => {
            let code = u16::try_from(number).unwrap_or_default();
            let status = StatusCode::from_u16(code).unwrap_or(StatusCode::BAD_REQUEST);
            text(status, status.to_string())
        }
        "chunks" => chunks(number),
        _ => text(
            StatusCode::OK,
            std::env::var("HOSTNAME").unwrap_or_default(),
        ),
    }
}

fn chunks(number: u64) -> Reply {
    let data = (0..number).map(|_| Frame::data(Bytes::from_static(&[b'c'; 1024])));
    let mut trailers = HeaderMap::new();
    trailers.insert("x-chunks", HeaderValue::from(number));
    let frames = data.chain([Frame::trailers(trailers)]).map(Ok);
    let body = StreamBody::new(futures_util::stream::iter(frames));
    let mut reply = Response::new(body.boxed_unsync());
    let name = HeaderValue::from_static("x-chunks");
    reply.headers_mut().insert(header::TRAILER, name);
    reply
}

/// 101, and whoever serves the connection afterwards.
fn switch(request: &mut Request<Incoming>, protocol: HeaderValue) -> Reply {
    let key = request.headers().get(header::SEC_WEBSOCKET_KEY);
    let accept = key.map(|key| derive_accept_key(key.as_bytes()));
    let upgraded = hyper::upgrade::on(request);
    let mut reply = text(StatusCode::SWITCHING_PROTOCOLS, String::new());
    let headers = reply.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, protocol);
    match accept.and_then(|accept| HeaderValue::try_from(accept).ok()) {
        Some(accept) => {
            headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
            tokio::spawn(async {
                if let Ok(io) = upgraded.await {
                    web_socket(TokioIo::new(io)).await;
                }
            });
        }
        None => {
            tokio::spawn(async {
                if let Ok(io) = upgraded.await {
                    let (mut read, mut write) = tokio::io::split(TokioIo::new(io));
                    let _ = tokio::io::copy(&mut read, &mut write).await;
                }
            });
        }
    }
    reply
}

async fn web_socket(io: TokioIo<hyper::upgrade::Upgraded>) {
    let mut socket = WebSocketStream::from_raw_socket(io, Role::Server, None).await;
    while let Some(Ok(message)) = socket.next().await {
        if message.is_text() || message.is_binary() {
            let bytes = ledger::entry("websocket");
            if socket.send(message.clone()).await.is_err() {
                return;
            }
            let sent = u64::try_from(message.len()).unwrap_or_default();
            bytes.fetch_add(sent, std::sync::atomic::Ordering::Relaxed);
        }
    }
}

fn render(headers: &HeaderMap) -> String {
    let line = |(name, value): (&header::HeaderName, &HeaderValue)| {
        format!("{name}: {}\n", String::from_utf8_lossy(value.as_bytes()))
    };
    headers.iter().map(line).collect()
}

fn text(status: StatusCode, text: String) -> Reply {
    let body = Full::new(Bytes::from(text)).map_err(|never: Infallible| match never {});
    debug_assert!(body.size_hint().exact().is_some());
    let mut reply = Response::new(body.boxed_unsync());
    *reply.status_mut() = status;
    reply
}
