//! The app behind this sidecar, as the innermost service of the inbound stack.
//!
//! It is called at the address that the caller meant, never at loopback: a listener that was private on localhost stays
//! private.

use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};

use tower::Service;

use crate::body::Body;
use crate::connector::Connector;
use crate::endpoint::Endpoint;
use crate::error::Error;
use crate::layer::AnswerFuture;
use crate::request::Request;

#[derive(Clone)]
pub struct App {
    endpoint: Arc<Endpoint>,
    connector: Connector,
}

impl App {
    pub fn new(address: SocketAddr, workers: usize, connector: Connector) -> Self {
        Self {
            endpoint: Arc::new(Endpoint::new(address, None, workers)),
            connector,
        }
    }
}

impl Service<Box<Request>> for App {
    type Response = http::Response<Body>;
    type Error = Error;
    type Future = AnswerFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Box<Request>) -> AnswerFuture {
        let Self {
            endpoint,
            connector,
        } = self.clone();
        Box::pin(async move {
            let mutual_tls = request.context.caller.is_some();
            let mut response = endpoint.call(request, &connector).await?;
            // What counts inbound is how the caller came.
            response.body_mut().mutual_tls = mutual_tls;
            Ok(response)
        })
    }
}
