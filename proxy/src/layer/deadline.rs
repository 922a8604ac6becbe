//! A request and all its attempts end by its deadline: the caller's own, or the policy's where that is earlier.

use std::task::{Context, Poll};
use std::time::Duration;

use tower::{Layer, Service};

use super::{AnswerFuture, Call};
use crate::error::Error;
use crate::policy::deadline::Deadline as Policy;
use crate::request::Request;

#[derive(Clone, Copy)]
pub struct DeadlineLayer {
    /// `None`: only the caller's own deadline holds.
    pub limit: Option<Duration>,
}

#[derive(Clone)]
pub struct Deadline<S> {
    limit: Option<Duration>,
    inner: S,
}

impl<S> Layer<S> for DeadlineLayer {
    type Service = Deadline<S>;

    fn layer(&self, inner: S) -> Deadline<S> {
        Deadline {
            limit: self.limit,
            inner,
        }
    }
}

impl<S: Call> Service<Request> for Deadline<S> {
    type Response = S::Response;
    type Error = Error;
    type Future = AnswerFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request) -> AnswerFuture {
        let context = &mut request.context;
        if let Some(limit) = self.limit {
            context.deadline = context.deadline.min(Policy::after(limit, context.received));
        }
        let deadline = context.deadline.instant();
        let call = self.inner.call(request);
        let Some(deadline) = deadline else {
            return Box::pin(call);
        };
        Box::pin(async move {
            let mut response = tokio::time::timeout_at(deadline, call)
                .await
                .unwrap_or(Err(Error::DeadlineExceeded))?;
            if response.status() != http::StatusCode::SWITCHING_PROTOCOLS {
                response.body_mut().end_at(deadline);
            }
            Ok(response)
        })
    }
}
