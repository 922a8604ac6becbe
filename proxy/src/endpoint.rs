//! One address: its connections, and sending a request on one of them.

use std::net::SocketAddr;

use http::Response;

use crate::body::Body;
use crate::connector::Connector;
use crate::error::Error;
use crate::exchange::{self, Failure};
use crate::head;
use crate::http1;
use crate::identity::SpiffeId;
use crate::interim::Interim;
use crate::policy::priority::Tier;
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

    /// New requests of this worker get new connections; those that are under way keep theirs.
    pub fn forget_connections(&self, worker: usize) {
        self.pools[worker].forget();
    }

    /// Sends the request; the response is here when its head is. What need not wait is done before the future is made: one
    /// that has the whole request in it, and again in each it calls, is copied for longer than the request is.
    pub fn call(
        &self,
        mut request: Box<Request>,
        connector: &Connector,
    ) -> impl Future<Output = Result<Response<Body>, Error>> {
        let pool = &self.pools[request.context.worker];
        let interim = request.context.interim.take();
        let upgrade = request.context.upgrade;
        let protocol = self.prepare(&mut request);
        async move {
            let protocol = protocol?;
            let mut response = match protocol {
                Protocol::Http2 => self.exchange(pool, connector, request, interim).await?,
                // Rare, and larger than the rest: every request would have room for it.
                Protocol::Http1 if upgrade => {
                    Box::pin(self.upgrade(pool, connector, request)).await?
                }
                Protocol::Http1 => {
                    let connection = pool.http1(connector).await?;
                    let sent = connection.send(&request.head, request.body, pool.home(), interim);
                    let sent = sent.await;
                    sent.map_err(|failure| match failure {
                        http1::Failure::Unsent(source) => Error::Refused {
                            address: self.address,
                            source,
                        },
                        http1::Failure::Broken(source) => Error::Upstream {
                            address: self.address,
                            source,
                        },
                        http1::Failure::Aborted(source) => Error::Aborted(source),
                    })?
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
    }

    /// Puts the head as the peer wants it, and says what it speaks.
    fn prepare(&self, request: &mut Request) -> Result<Protocol, Error> {
        let context = &request.context;
        let protocol = match (context.upgrade, &self.identity, context.protocol) {
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
        if self.identity.is_some() && context.priority.tier != Tier::Default {
            // Cohorts of the default tier follow from the trace id at the other end too.
            let priority = context.priority.header();
            request.head.headers.insert(&head::CRITICALITY, priority);
        }
        head::convert(&mut request.head, protocol)?;
        Ok(protocol)
    }

    fn exchange(
        &self,
        pool: &Pool,
        connector: &Connector,
        request: Box<Request>,
        interim: Option<Interim>,
    ) -> impl Future<Output = Result<Response<Body>, Error>> {
        let address = self.address;
        let refused = move |source: h2::Error| Error::Refused {
            address,
            source: source.into(),
        };
        async move {
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
            let Request { head, body, .. } = *request;
            let sent = exchange::send(&mut sender, head, body, slot, interim).await;
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
    }

    async fn upgrade(
        &self,
        pool: &Pool,
        connector: &Connector,
        request: Box<Request>,
    ) -> Result<Response<Body>, Error> {
        let address = self.address;
        let mut sender = pool.upgrade(connector).await?;
        let message = http::Request::from_parts(request.head, request.body);
        let sent = sender.try_send_request(message).await;
        let response = sent.map_err(|mut error| {
            let unsent = error.take_message().is_some();
            let source = error.into_error().into();
            match unsent {
                true => Error::Refused { address, source },
                false => Error::Upstream { address, source },
            }
        })?;
        Ok(response.map(Body::from))
    }
}

/// RFC 9113 section 8.7: REFUSED_STREAM, and streams above the last one that a GOAWAY names, whatever its reason, were not
/// processed. h2 tells no others of a GOAWAY.
fn is_refusal(error: &h2::Error) -> bool {
    let refused = error.reason() == Some(h2::Reason::REFUSED_STREAM);
    error.is_remote() && (refused || error.is_go_away())
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// What a request fails with whose peer says `frame` once it has asked.
    async fn failed_with(frame: &[u8]) -> h2::Error {
        let (near, mut far) = tokio::io::duplex(64 * 1024);
        let (client, connection) = h2::client::handshake(near).await.expect("a connection");
        tokio::spawn(connection);
        let mut client: h2::client::SendRequest<bytes::Bytes> = client.ready().await.expect("room");
        let request = http::Request::get("http://a/").body(()).expect("a request");
        let (answer, _) = client.send_request(request, true).expect("it is sent");
        let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
        far.write_all(&settings).await.expect("it is open");
        let asked = tokio::time::timeout(std::time::Duration::from_millis(50), async {
            while far.read_u8().await.is_ok() {}
        });
        let _ = asked.await;
        far.write_all(frame).await.expect("it is open");
        answer.await.expect_err("no answer")
    }

    /// Calls that may not be repeated failed, though nobody had seen them.
    #[tokio::test]
    async fn a_stream_above_the_last_of_a_goaway_was_not_processed_whatever_the_reason() {
        for code in [0, 2, 11] {
            let goaway = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, code];
            let error = failed_with(&goaway).await;
            assert!(is_refusal(&error), "{error}");
        }
        for (code, refused) in [(7, true), (2, false), (8, false)] {
            let reset = [0, 0, 4, 3, 0, 0, 0, 0, 1, 0, 0, 0, code];
            let error = failed_with(&reset).await;
            assert_eq!(is_refusal(&error), refused, "{error}");
        }
    }
}
