//! The caller gets what the policy says instead of our own error, marked as such. A fallback is never retried: it is
//! made above the retries.

use std::sync::Arc;
use std::task::{Context, Poll};

use http::{HeaderValue, Response, StatusCode, header};
use tower::{Layer, Service};
use weir_config::snapshot::Fallback as Config;

use super::{AnswerFuture, Call};
use crate::body::Body;
use crate::error::{Blame, Error, PROXY_ERROR};
use crate::head::DEGRADED;
use crate::request::Request;

#[derive(Clone)]
pub struct FallbackLayer {
    pub fallback: Arc<Config>,
}

#[derive(Clone)]
pub struct Fallback<S> {
    fallback: Arc<Config>,
    inner: S,
}

impl<S> Layer<S> for FallbackLayer {
    type Service = Fallback<S>;

    fn layer(&self, inner: S) -> Fallback<S> {
        Fallback {
            fallback: self.fallback.clone(),
            inner,
        }
    }
}

impl<S: Call> Service<Request> for Fallback<S> {
    type Response = S::Response;
    type Error = Error;
    type Future = AnswerFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> AnswerFuture {
        let fallback = self.fallback.clone();
        let grpc = request.context.grpc;
        let call = self.inner.call(request);
        Box::pin(async move {
            match call.await {
                // What the caller did wrong is the caller's to know.
                Err(error) if error.facts().blame != Blame::Downstream => {
                    Ok(answer(&fallback, &error, grpc))
                }
                other => other,
            }
        })
    }
}

fn answer(fallback: &Config, error: &Error, grpc: bool) -> Response<Body> {
    let mut response = if grpc {
        let mut response = Response::new(Body::empty());
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/grpc"),
        );
        headers.insert(
            "grpc-status",
            HeaderValue::from(u16::from(fallback.grpc_status)),
        );
        headers.insert(
            "grpc-message",
            crate::error::percent_encoded(&fallback.message),
        );
        response
    } else {
        let mut response = Response::new(Body::full(fallback.message.clone().into()));
        *response.status_mut() =
            StatusCode::from_u16(fallback.http_status).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
        response.headers_mut().insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("text/plain; charset=utf-8"),
        );
        response
    };
    let headers = response.headers_mut();
    headers.insert(DEGRADED, HeaderValue::from_static("fallback"));
    headers.insert(PROXY_ERROR, HeaderValue::from_static(error.facts().code));
    response
}
