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

use crate::carts::{Carts, Filling, Order};
use crate::journey::{self, Journeys};
use crate::outcome::{Class, Fault, Outcome};
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
    carts: Mutex<Carts>,
}

/// A request that is about to be sent, and whose.
pub(crate) struct Visit {
    /// Not the arrival's where that was to order and nobody had anything to.
    pub(crate) journey: u16,
    errand: Errand,
    request: Request<Full<Bytes>>,
}

enum Errand {
    Look,
    Fill(Filling),
    Order(Order),
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
            carts: Mutex::new(Journeys::carts()),
        }
    }

    /// Who comes, and for what: with what is known of carts now.
    pub(crate) fn visit(&self, arrival: Arrival) -> Visit {
        let (journey, visitor, errand) = self.errand(arrival);
        let mut request = self
            .journeys
            .request(journey, visitor, arrival.dice, &self.host);
        request.headers_mut().extend(self.headers.iter().cloned());
        Visit {
            journey,
            errand,
            request,
        }
    }

    fn errand(&self, Arrival { journey, dice, .. }: Arrival) -> (u16, usize, Errand) {
        let visitor = Journeys::visitor(dice);
        let mut carts = self.carts();
        let fill = |journey, carts: &Carts| (journey, visitor, Errand::Fill(carts.fill(visitor)));
        match (self.journeys.errand(journey), self.journeys.filling()) {
            (journey::Errand::Order, filling) => match (carts.order(visitor), filling) {
                (Some(order), _) => (journey, order.visitor, Errand::Order(order)),
                (None, Some(filling)) => fill(filling, &carts),
                (None, None) => (journey, visitor, Errand::Look),
            },
            (journey::Errand::Fill, _) => fill(journey, &carts),
            (journey::Errand::Look, _) => (journey, visitor, Errand::Look),
        }
    }

    pub(crate) async fn call(&self, visit: Visit) -> Outcome {
        let outcome = self.exchange(visit.request).await;
        let outcome = outcome.unwrap_or_else(Outcome::Fault);
        match visit.errand {
            Errand::Look => outcome,
            Errand::Fill(filling) => {
                if outcome.is_served() {
                    self.carts().filled(&filling);
                }
                outcome
            }
            Errand::Order(order) => {
                let unheard = outcome.class() == Class::Shed;
                self.carts().ordered(&order, unheard);
                outcome.of_order()
            }
        }
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

    fn carts(&self) -> MutexGuard<'_, Carts> {
        self.carts
            .lock()
            .expect("no code panics while it holds the lock")
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
