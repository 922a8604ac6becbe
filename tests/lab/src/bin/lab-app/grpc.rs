//! gRPC without generated code: a message is five bytes of prefix and its bytes, and most methods never look inside.
//!
//! | method | kind | does |
//! |---|---|---|
//! | `/lab.Echo/Echo` | unary, client streaming, server streaming, bidirectional: all the same | sends back what it gets, as it comes |
//! | `/…/Subscribe` | server streaming | the same, as what the shop's log would be called |
//! | `/lab.Echo/Flood/NAME` | server streaming | messages without end, as fast as they are taken; counted in the ledger |
//! | `/lab.Echo/Hold/NAME` | client streaming | answers with a head and never reads; in the ledger while it is open |
//! | `/lab.Echo/Stuck/NAME` | unary | never answers; in the ledger while it is open |
//! | `/lab.Echo/Fail/CODE` | unary | that status, trailers only |
//! | `/lab.Echo/Headers` | unary | the metadata it got, as text in a message |

use std::convert::Infallible;
use std::sync::atomic::Ordering;

use bytes::{BufMut, Bytes, BytesMut};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{self, HeaderValue};
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use crate::ledger::Open;
use crate::{Ending, ledger};

const FLOOD_MESSAGE: usize = 16 * 1024;

type Reply = Response<UnsyncBoxBody<Bytes, hyper::Error>>;

pub(crate) async fn serve(stream: TcpStream, mut ending: Ending) {
    let service = service_fn(|request| async { Ok::<_, Infallible>(answer(request).await) });
    let serving = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .serve_connection(TokioIo::new(stream), service);
    let mut serving = std::pin::pin!(serving);
    tokio::select! {
        _ = serving.as_mut() => return,
        _ = ending.wait_for(|ending| *ending) => {}
    }
    serving.as_mut().graceful_shutdown();
    let _ = serving.await;
}

async fn answer(request: Request<Incoming>) -> Reply {
    let path = request.uri().path().to_owned();
    let mut parts = path.split('/').skip(2);
    let (method, name) = (parts.next().unwrap_or_default(), parts.next());
    let name = name.unwrap_or_default();
    let body = match method {
        "Echo" | "Subscribe" => echo(request.into_body()),
        "Flood" => flood(name),
        "Hold" => hold(request.into_body(), Open::new(name)),
        "Stuck" => {
            let _open = Open::new(name);
            std::future::pending().await
        }
        "Headers" => whole(&render(request.headers())),
        "Fail" => return trailers_only(name),
        _ => return trailers_only("12"),
    };
    let mut reply = Response::new(body);
    mark(reply.headers_mut());
    reply
}

fn mark(headers: &mut HeaderMap) {
    let grpc = HeaderValue::from_static("application/grpc");
    headers.insert(header::CONTENT_TYPE, grpc);
    let pod = std::env::var("HOSTNAME").unwrap_or_default();
    if let Ok(pod) = HeaderValue::from_str(&pod) {
        headers.insert("x-pod", pod);
    }
}

fn status(code: &str) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    let code = HeaderValue::from_str(code).unwrap_or(HeaderValue::from_static("2"));
    trailers.insert("grpc-status", code);
    trailers
}

fn trailers_only(code: &str) -> Reply {
    let empty = Full::new(Bytes::new()).map_err(|never: Infallible| match never {});
    let mut reply = Response::new(empty.boxed_unsync());
    mark(reply.headers_mut());
    reply.headers_mut().extend(status(code));
    reply
}

fn echo(incoming: Incoming) -> UnsyncBoxBody<Bytes, hyper::Error> {
    let frames = futures_util::stream::unfold(Some(incoming), |incoming| async {
        let mut incoming = incoming?;
        match incoming.frame().await {
            Some(Ok(frame)) if frame.is_data() => Some((Ok(frame), Some(incoming))),
            Some(Err(error)) => Some((Err(error), None)),
            _ => Some((Ok(Frame::trailers(status("0"))), None)),
        }
    });
    StreamBody::new(frames).boxed_unsync()
}

fn flood(name: &str) -> UnsyncBoxBody<Bytes, hyper::Error> {
    let message = message(&[b'f'; FLOOD_MESSAGE]);
    let sent = ledger::entry(name);
    // hyper asks for a frame when the last one has been taken: what was asked for has got away.
    let frames = std::iter::repeat_with(move || {
        let size = u64::try_from(message.len()).unwrap_or_default();
        sent.fetch_add(size, Ordering::Relaxed);
        Ok(Frame::data(message.clone()))
    });
    StreamBody::new(futures_util::stream::iter(frames)).boxed_unsync()
}

/// Keeps the request's body, so that its window stays shut, for as long as the caller stays.
fn hold(incoming: Incoming, open: Open) -> UnsyncBoxBody<Bytes, hyper::Error> {
    let frames = futures_util::stream::unfold((incoming, open), |held| async {
        std::future::pending::<()>().await;
        Some((Ok(Frame::trailers(status("0"))), held))
    });
    StreamBody::new(frames).boxed_unsync()
}

fn render(headers: &HeaderMap) -> String {
    let line = |(name, value): (&header::HeaderName, &HeaderValue)| {
        format!("{name}: {}\n", String::from_utf8_lossy(value.as_bytes()))
    };
    headers.iter().map(line).collect()
}

fn whole(text: &str) -> UnsyncBoxBody<Bytes, hyper::Error> {
    let frames = [
        Ok(Frame::data(message(text.as_bytes()))),
        Ok(Frame::trailers(status("0"))),
    ];
    StreamBody::new(futures_util::stream::iter(frames)).boxed_unsync()
}

fn message(payload: &[u8]) -> Bytes {
    let mut message = BytesMut::with_capacity(5 + payload.len());
    message.put_u8(0);
    message.put_u32(u32::try_from(payload.len()).unwrap_or(u32::MAX));
    message.put_slice(payload);
    message.freeze()
}
