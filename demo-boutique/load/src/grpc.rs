//! Unary gRPC calls with a body of bytes, on a fixed number of HTTP/2 connections in turn.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper::http::uri::{PathAndQuery, Scheme};
use hyper::http::{HeaderName, HeaderValue, Method, StatusCode};
use hyper::{HeaderMap, Request, Response, Uri};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::sync::Mutex;

use crate::bounds::Refused;
use crate::outcome::{Fault, Outcome};
use crate::target::Target;

const BODY_BYTES_MAX: usize = 16 * 1024 * 1024;
const REQUEST_BYTES_MAX: usize = 4 * 1024 * 1024;
const CONNECTIONS_MAX: usize = 256;
/// Windows that never are what limits a unary call.
const STREAM_WINDOW_BYTES: u32 = 1024 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 8 * 1024 * 1024;

type Sender = SendRequest<Full<Bytes>>;

/// What is called, with what.
#[derive(Clone, Debug)]
pub struct GrpcCall {
    path: PathAndQuery,
    /// With its five bytes of framing.
    frame: Bytes,
    connections: usize,
}

impl GrpcCall {
    /// `path` is `/package.Service/Method`; `message` an encoded protobuf message, which may be empty.
    pub fn new(path: &str, message: &[u8], connections: usize) -> Result<Self, Refused> {
        let parsed = PathAndQuery::try_from(path).ok();
        let parsed = parsed.filter(|path| path.path().matches('/').count() == 2);
        let path = parsed.ok_or_else(|| {
            Refused::new(format!("{path:?} is no path like /package.Service/Method"))
        })?;
        if message.len() > REQUEST_BYTES_MAX {
            return Err(Refused::new(format!(
                "a message has at most {REQUEST_BYTES_MAX} bytes"
            )));
        }
        if !(1..=CONNECTIONS_MAX).contains(&connections) {
            return Err(Refused::new(format!(
                "connections must be 1 to {CONNECTIONS_MAX}"
            )));
        }
        let length = u32::try_from(message.len()).expect("checked above");
        let mut frame = BytesMut::with_capacity(5 + message.len());
        frame.put_u8(0); // not compressed
        frame.put_u32(length);
        frame.put_slice(message);
        Ok(Self {
            path,
            frame: frame.freeze(),
            connections,
        })
    }

    pub fn path(&self) -> &str {
        self.path.as_str()
    }
}

pub(crate) struct GrpcClient {
    target: Target,
    uri: Uri,
    frame: Bytes,
    headers: HeaderMap,
    /// Made when first used, and again when lost. The lock is held while one connects: others wait for it.
    connections: Vec<Mutex<Option<Sender>>>,
    turn: AtomicUsize,
}

impl GrpcClient {
    pub(crate) fn new(
        target: Target,
        call: GrpcCall,
        timeout: Duration,
        extra: Vec<(HeaderName, HeaderValue)>,
    ) -> Self {
        let mut parts = hyper::http::uri::Parts::default();
        parts.scheme = Some(Scheme::HTTP);
        parts.authority = Some(target.authority().clone());
        parts.path_and_query = Some(call.path);
        // As any gRPC client with a deadline says it, so that those on the way may give up too.
        let deadline = HeaderValue::try_from(format!("{}m", timeout.as_millis()));
        let mut headers = HeaderMap::new();
        headers.insert("content-type", HeaderValue::from_static("application/grpc"));
        headers.insert("te", HeaderValue::from_static("trailers"));
        headers.insert("grpc-timeout", deadline.expect("a number and a letter"));
        headers.extend(extra);
        Self {
            target,
            uri: Uri::from_parts(parts).expect("all three parts are there"),
            frame: call.frame,
            headers,
            connections: (0..call.connections).map(|_| Mutex::default()).collect(),
            turn: AtomicUsize::new(0),
        }
    }

    pub(crate) async fn call(&self) -> Outcome {
        self.exchange().await.unwrap_or_else(Outcome::Fault)
    }

    async fn exchange(&self) -> Result<Outcome, Fault> {
        let response = self.send().await?;
        if response.status() != StatusCode::OK {
            return Ok(Outcome::http(response.status(), response.headers()));
        }
        // An answer that is only trailers has its status among the headers.
        let early = grpc_status(response.headers());
        let status = match read_to_end(response.into_body()).await? {
            Some(trailers) => grpc_status(&trailers).or(early),
            None => early,
        };
        status.map(Outcome::grpc).ok_or(Fault::NoGrpcStatus)
    }

    /// One connection may have been closed just now: a request that was not written goes to a new one.
    async fn send(&self) -> Result<Response<Incoming>, Fault> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % self.connections.len();
        let mut request = self.request();
        for is_last in [false, true] {
            let mut sender = self.sender(turn).await.map_err(|_| Fault::Connect)?;
            match sender.try_send_request(request).await {
                Ok(response) => return Ok(response),
                Err(mut error) => match error.take_message() {
                    Some(unsent) if !is_last => request = unsent,
                    _ => return Err(Fault::Broken),
                },
            }
        }
        Err(Fault::Broken)
    }

    fn request(&self) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::from(self.frame.clone()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = self.headers.clone();
        request
    }

    async fn sender(
        &self,
        turn: usize,
    ) -> Result<Sender, Box<dyn std::error::Error + Send + Sync>> {
        let mut slot = self.connections[turn].lock().await;
        if let Some(live) = slot.as_mut()
            && live.ready().await.is_ok()
        {
            return Ok(live.clone());
        }
        let stream = TcpStream::connect(self.target.addr()).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .handshake(TokioIo::new(stream))
            .await?;
        // Ends when the last sender is dropped or the peer hangs up; its error is the senders' as well.
        tokio::spawn(connection);
        *slot = Some(sender.clone());
        Ok(sender)
    }
}

async fn read_to_end(mut body: Incoming) -> Result<Option<HeaderMap>, Fault> {
    let mut bytes = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Fault::Broken)?;
        match frame.into_data() {
            Ok(data) => bytes += data.len(),
            Err(other) => return Ok(other.into_trailers().ok()),
        }
        if bytes > BODY_BYTES_MAX {
            return Err(Fault::BodyTooLarge);
        }
    }
    Ok(None)
}

fn grpc_status(headers: &HeaderMap) -> Option<u16> {
    headers.get("grpc-status")?.to_str().ok()?.parse().ok()
}
