//! Innermost: one try. Chooses an endpoint, sends the request, and tells the endpoint's gate and latency how it went.

use std::sync::Arc;
use std::task::{Context, Poll};

use http::HeaderValue;
use tokio::time::Instant;
use tower::Service;

use super::AnswerFuture;
use crate::body::{Body, Guard};
use crate::endpoints::Endpoints;
use crate::error::Error;
use crate::head;
use crate::policy::deadline::{GrpcTimeout, format_millis};
use crate::request::{Context as RequestContext, Request};

#[derive(Clone)]
pub struct Attempt {
    pub endpoints: Arc<Endpoints>,
}

impl Service<Request> for Attempt {
    type Response = http::Response<Body>;
    type Error = Error;
    type Future = AnswerFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request) -> AnswerFuture {
        let endpoints = self.endpoints.clone();
        Box::pin(async move {
            let context = &request.context;
            let chosen = endpoints.choose(context)?;
            forward_deadline(&mut request)?;
            let (deadline, try_until, replayable) = (
                request.context.deadline,
                request.context.try_until,
                request.context.replayable,
            );
            let member = chosen.member.clone();
            let mut guard = Guard::new(chosen);
            let ejected = member.ejected.notified();
            let call = member.endpoint.call(request, endpoints.connector());
            let result = tokio::select! {
                biased;
                result = call => result,
                () = ejected, if replayable => Err(Error::Ejected { address: member.address() }),
                () = until(try_until.or(deadline)) => Err(out_of_time(deadline, try_until)),
            };
            guard.duty().answered(&result);
            guard.settle(result)
        })
    }
}

async fn until(instant: Option<Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

fn out_of_time(deadline: Option<Instant>, try_until: Option<Instant>) -> Error {
    match try_until {
        Some(try_until) if deadline.is_none_or(|deadline| try_until < deadline) => {
            Error::PerTryTimeout
        }
        _ => Error::DeadlineExceeded,
    }
}

/// The next hop learns how much time is left, in the form that its protocol uses; clocks are not compared.
fn forward_deadline(request: &mut Request) -> Result<(), Error> {
    let RequestContext {
        deadline: Some(at),
        grpc,
        ..
    } = request.context
    else {
        return Ok(());
    };
    let remaining = at.saturating_duration_since(Instant::now());
    if remaining.is_zero() {
        return Err(Error::DeadlineExceeded);
    }
    let headers = &mut request.head.headers;
    if grpc {
        let value = HeaderValue::from_bytes(GrpcTimeout::new(remaining).as_bytes());
        headers.insert("grpc-timeout", value.expect("digits and a letter"));
    } else {
        headers.insert(
            head::REQUEST_TIMEOUT_MS,
            HeaderValue::from(format_millis(remaining)),
        );
    }
    Ok(())
}
