//! One address: its connections, and sending a request on one of them.

use std::net::SocketAddr;

use http::Response;

use crate::body::{Body, Guard};
use crate::connector::Connector;
use crate::error::Error;
use crate::exchange::{self, Failure};
use crate::head;
use crate::identity::SpiffeId;
use crate::interim::Interim;
use crate::pool::Pool;
use crate::request::{Protocol, Request};

/// Connections that are on their way out are passed over, this many.
const CONNECTIONS_TRIED: u32 = 3;

pub struct Endpoint {
    pub address: SocketAddr,
    /// What its sidecar must prove; `None`: it has no sidecar, and gets plain text.
    pub identity: Option<SpiffeId>,
    /// One a worker.
    pools: Box<[Pool]>,
}

impl Endpoint {
    pub fn new(address: SocketAddr, identity: Option<SpiffeId>, workers: usize) -> Self {
        Self {
            address,
            pools: (0..workers)
                .map(|_| Pool::new(address, identity.clone()))
                .collect(),
            identity,
        }
    }

    /// Sends the request; the response is here when its head is.
    pub async fn call(
        &self,
        mut request: Request,
        connector: &Connector,
    ) -> Result<Response<Body>, Error> {
        let context = &request.context;
        let upgrade = context.upgrade;
        let protocol = match (upgrade, &self.identity, context.protocol) {
            (true, ..) => Protocol::Http1,
            // Between sidecars everything is multiplexed; what the app spoke is noted for the other end.
            (false, Some(_), Protocol::Http1) => {
                request.head.headers.insert(
                    &head::ORIGINAL_PROTOCOL,
                    http::HeaderValue::from_static("HTTP/1.1"),
                );
                Protocol::Http2
            }
            (false, _, protocol) => protocol,
        };
        head::convert(&mut request.head, protocol)?;
        let pool = &self.pools[context.worker];
        let interim = request.context.interim;
        let mut message = http::Request::from_parts(request.head, request.body);
        let mut response = match protocol {
            Protocol::Http2 => self.exchange(pool, connector, message, interim).await?,
            Protocol::Http1 => {
                if let Some(interim) = interim {
                    hyper::ext::on_informational(&mut message, move |response| {
                        interim.push(response.status(), response.headers());
                    });
                }
                let mut sender = pool.http1(connector, upgrade).await?;
                let response = sender
                    .try_send_request(message)
                    .await
                    .map_err(|error| self.failed(error))?;
                let response = response.map(Body::from);
                if upgrade {
                    response
                } else {
                    let home = pool.home();
                    // hyper closes the connection itself when the body was not read to its end.
                    Guard::new(move |_| home.take_back(sender)).settle(Ok(response))?
                }
            }
        };
        let body = response.body_mut();
        body.mutual_tls = self.identity.is_some();
        body.endpoint = Some(self.address);
        if self.identity.is_none() {
            // An app, or somebody without a sidecar: it does not speak for one.
            head::strip_sidecar_headers(response.headers_mut());
        }
        Ok(response)
    }

    async fn exchange(
        &self,
        pool: &Pool,
        connector: &Connector,
        message: http::Request<Body>,
        interim: Option<Interim>,
    ) -> Result<Response<Body>, Error> {
        let address = self.address;
        let refused = |source: h2::Error| Error::Refused {
            address,
            source: source.into(),
        };
        let mut left = CONNECTIONS_TRIED;
        let (mut sender, slot) = loop {
            let (sender, slot) = pool.http2(connector).await?;
            left -= 1;
            match sender.ready().await {
                Ok(sender) => break (sender, slot),
                // The peer said goodbye on it, or went without a word.
                Err(_) if left > 0 => pool.discard(&slot),
                Err(error) => return Err(refused(error)),
            }
        };
        let sent = exchange::send(&mut sender, message, slot, interim).await;
        sent.map_err(|failure| match failure {
            Failure::Unsent(error) => refused(error),
            Failure::Broken(error) if is_refusal(&error) => refused(error),
            Failure::Broken(error) => Error::Upstream {
                address,
                source: error.into(),
            },
            Failure::Aborted(error) => Error::Aborted(error),
        })
    }

    /// Tells what was provably not processed from what may have been.
    fn failed<B>(&self, mut error: hyper::client::conn::TrySendError<B>) -> Error {
        let address = self.address;
        let unsent = error.take_message().is_some();
        let source = error.into_error().into();
        if unsent {
            Error::Refused { address, source }
        } else {
            Error::Upstream { address, source }
        }
    }
}

/// RFC 9113 section 8.7: REFUSED_STREAM, and streams above the last one that a graceful GOAWAY names, were not
/// processed.
fn is_refusal(error: &h2::Error) -> bool {
    error.is_remote()
        && match error.reason() {
            Some(h2::Reason::REFUSED_STREAM) => true,
            Some(h2::Reason::NO_ERROR) => error.is_go_away(),
            _ => false,
        }
}
