//! HTTP/1.1 with kept connections: as many as there are requests at once, the latest used first.

use std::sync::{Mutex, MutexGuard};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::HeaderValue;
use hyper::http::HeaderName;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::journey::Journeys;
use crate::outcome::{Fault, Outcome};
use crate::schedule::Arrival;
use crate::target::Target;

/// A page of the shop has some ten kilobytes.
const BODY_BYTES_MAX: usize = 16 * 1024 * 1024;

type Sender = SendRequest<Full<Bytes>>;

pub(crate) struct HttpClient {
    target: Target,
    host: HeaderValue,
    journeys: Journeys,
    headers: Vec<(HeaderName, HeaderValue)>,
    /// Not more than were in flight at once, which the run bounds.
    idle: Mutex<Vec<Sender>>,
}

impl HttpClient {
    pub(crate) fn new(
        target: Target,
        journeys: Journeys,
        headers: Vec<(HeaderName, HeaderValue)>,
    ) -> Self {
        let host = HeaderValue::try_from(target.authority().as_str());
        Self {
            host: host.expect("an authority is a valid header"),
            target,
            journeys,
            headers,
            idle: Mutex::default(),
        }
    }

    pub(crate) async fn call(&self, arrival: Arrival) -> Outcome {
        let mut request = self
            .journeys
            .request(arrival.journey, arrival.dice, &self.host);
        request.headers_mut().extend(self.headers.iter().cloned());
        self.exchange(request).await.unwrap_or_else(Outcome::Fault)
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<Outcome, Fault> {
        let (response, sender) = self.send(request).await?;
        let outcome = Outcome::http(response.status(), response.headers());
        read_to_end(response.into_body()).await?;
        self.idle().push(sender);
        Ok(outcome)
    }

    /// A kept connection may have been closed by the other side just now. A request that provably was
    /// not written goes to the next one; that is no retry, nobody has seen it.
    async fn send(
        &self,
        mut request: Request<Full<Bytes>>,
    ) -> Result<(Response<Incoming>, Sender), Fault> {
        while let Some(mut kept) = self.take() {
            if kept.ready().await.is_err() {
                continue;
            }
            match kept.try_send_request(request).await {
                Ok(response) => return Ok((response, kept)),
                Err(mut error) => request = error.take_message().ok_or(Fault::Broken)?,
            }
        }
        let mut fresh = self.connect().await.map_err(|_| Fault::Connect)?;
        let response = fresh.send_request(request).await;
        Ok((response.map_err(|_| Fault::Broken)?, fresh))
    }

    async fn connect(&self) -> Result<Sender, Box<dyn std::error::Error + Send + Sync>> {
        let stream = TcpStream::connect(self.target.addr()).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // Ends when the sender is dropped or the peer hangs up; its error is the sender's as well.
        tokio::spawn(connection);
        Ok(sender)
    }

    fn take(&self) -> Option<Sender> {
        self.idle().pop()
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Sender>> {
        self.idle
            .lock()
            .expect("no code panics while it holds the lock")
    }
}

async fn read_to_end(mut body: Incoming) -> Result<(), Fault> {
    let mut bytes = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Fault::Broken)?;
        bytes += frame.data_ref().map_or(0, Bytes::len);
        if bytes > BODY_BYTES_MAX {
            return Err(Fault::BodyTooLarge);
        }
    }
    Ok(())
}
