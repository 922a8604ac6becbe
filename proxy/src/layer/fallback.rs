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

#[cfg(test)]
mod tests {
    use std::future::ready;

    use http_body_util::BodyExt;
    use tower::service_fn;

    use super::*;
    use crate::request::Context as RequestContext;

    /// What the caller gets when the service comes to this.
    async fn call(grpc: bool, comes_to: fn() -> Answer) -> Answer {
        let layer = FallbackLayer {
            fallback: Arc::new(Config {
                grpc_status: 5,
                http_status: 204,
                message: "nothing today".into(),
            }),
        };
        let request = Request {
            head: http::Request::new(()).into_parts().0,
            body: Body::empty(),
            context: RequestContext {
                grpc,
                ..RequestContext::opaque(0)
            },
        };
        let service = service_fn(move |_: Request| ready(comes_to()));
        layer.layer(service).call(request).await
    }

    fn late() -> Answer {
        Err(Error::DeadlineExceeded)
    }

    #[tokio::test]
    async fn what_nobody_answered_is_answered_in_the_callers_protocol_and_marked() {
        let http = call(false, late).await.expect("an answer");
        assert_eq!(http.status(), 204);
        let grpc = call(true, late).await.expect("an answer");
        assert_eq!(grpc.status(), 200);
        assert_eq!(grpc.headers()["grpc-status"], "5");
        assert_eq!(grpc.headers()["grpc-message"], "nothing today");
        for response in [&http, &grpc] {
            assert_eq!(response.headers()["x-weir-degraded"], "fallback");
            assert_eq!(response.headers()["weir-proxy-error"], "deadline-exceeded");
        }
        let body = http.into_body().collect().await.expect("it is whole");
        assert_eq!(body.to_bytes(), "nothing today");
    }

    #[tokio::test]
    async fn what_the_caller_did_wrong_and_what_the_app_itself_answered_are_not_covered_up() {
        let wrong = call(false, || Err(Error::BadRequest("two Host headers"))).await;
        assert!(matches!(wrong, Err(Error::BadRequest(_))));
        let failed = || {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
            Ok(response)
        };
        let own = call(false, failed).await.expect("an answer");
        assert_eq!(own.status(), 500);
        assert!(!own.headers().contains_key("x-weir-degraded"));
    }
}
