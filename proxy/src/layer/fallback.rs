//! The caller gets what the policy says instead of our own error, marked as such. A fallback is never retried: it is
//! made above the retries.

use std::sync::Arc;
use std::task::{Context, Poll};

use http::{HeaderValue, Response, StatusCode, header};
use tower::{Layer, Service};
use weir_config::snapshot::Fallback as Config;

use super::{Answer, AnswerFuture, Call};
use crate::body::{Body, outcome};
use crate::error::{Blame, Error, PROXY_ERROR};
use crate::head::DEGRADED;
use crate::policy::outcome::Outcome;
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
            let result = call.await;
            match failed(&result) {
                Some(code) => Ok(answer(&fallback, code, grpc)),
                None => result,
            }
        })
    }
}

/// Why nobody answered, in this sidecar's words or in those of the one that was called: when a deadline passes, either
/// may be the first to say so. What the caller did wrong is the caller's to know.
fn failed(result: &Answer) -> Option<HeaderValue> {
    match result {
        Err(error) => {
            let facts = error.facts();
            (facts.blame != Blame::Downstream).then(|| HeaderValue::from_static(facts.code))
        }
        Ok(response) => {
            let code = response.headers().get(&PROXY_ERROR)?;
            let failed = outcome(response) != Outcome::Success;
            failed.then(|| code.clone())
        }
    }
}

fn answer(fallback: &Config, code: HeaderValue, grpc: bool) -> Response<Body> {
    let mut response = if grpc {
        let mut response = Response::new(Body::empty());
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/grpc"),
        );
        headers.insert(
            &crate::head::GRPC_STATUS,
            HeaderValue::from(u16::from(fallback.grpc_status)),
        );
        headers.insert(
            &crate::head::GRPC_MESSAGE,
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
    headers.insert(&DEGRADED, HeaderValue::from_static("fallback"));
    headers.insert(&PROXY_ERROR, code);
    response
}
