//! HTTP/1.1 over kept connections: as many as there are requests at once, so that no request waits for another.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::{HeaderValue, Method, Request};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpSocket;

type Sender = SendRequest<Empty<Bytes>>;

/// Who calls whom: the redirection tells callers apart by their own address, as it does where each has a network of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    pub from: Ipv4Addr,
    pub to: SocketAddr,
}

/// What there is to say in one request.
pub struct Question {
    pub method: Method,
    pub path: &'static str,
    /// The only thing that an app passes on.
    pub traceparent: HeaderValue,
}

#[derive(Clone)]
pub struct Client {
    way: Way,
    idle: Arc<Mutex<Vec<Sender>>>,
}

impl Client {
    pub fn new(way: Way) -> Self {
        Self {
            way,
            idle: Arc::default(),
        }
    }

    /// The status, when a whole answer came.
    pub async fn ask(&self, question: Question) -> Option<u16> {
        let mut connection = match self.take().await {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        let request = Request::builder()
            .method(question.method)
            .uri(question.path)
            .header("host", self.way.to.to_string())
            .header("traceparent", question.traceparent)
            .body(Empty::new())
            .expect("it is one");
        let response = connection.send_request(request).await.ok()?;
        let status = response.status().as_u16();
        response.into_body().collect().await.ok()?;
        self.give(connection);
        Some(status)
    }

    async fn connect(&self) -> Option<Sender> {
        let socket = TcpSocket::new_v4().ok()?;
        socket.bind((self.way.from, 0).into()).ok()?;
        let stream = socket.connect(self.way.to).await.ok()?;
        stream.set_nodelay(true).ok()?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.ok()?;
        // How it ends is seen by whoever asks on it.
        tokio::spawn(connection);
        Some(sender)
    }

    /// The one that was used last, so that those too many grow cold.
    async fn take(&self) -> Option<Sender> {
        loop {
            let last = self
                .idle
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .pop();
            let mut last = last?;
            if !last.is_closed() && last.ready().await.is_ok() {
                return Some(last);
            }
        }
    }

    fn give(&self, connection: Sender) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.push(connection);
    }
}
