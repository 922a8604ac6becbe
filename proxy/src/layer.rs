//! One thin tower layer a policy: it asks the pure policy, acts, and reports back how it went.

pub mod admission;
pub mod alternate;
pub mod attempt;
pub mod authorize;
pub mod breaker;
#[cfg(test)]
mod chain;
pub mod deadline;
pub mod dispatch;
pub mod doomed;
pub mod fallback;
pub mod fault;
pub mod hedge;
pub mod inherit;
pub mod limit;
pub mod load;
pub mod mirror;
pub mod observe;
pub mod priority;
pub mod rate_limit;
pub mod retry;
pub mod stale;
pub mod throttle;

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::Response;
use pin_project_lite::pin_project;

use crate::body::{Body, Duty, Guard};
use crate::error::Error;
use crate::request::Request;

pub type Answer = Result<Response<Body>, Error>;
pub type AnswerFuture = Pin<Box<dyn Future<Output = Answer> + Send>>;

/// What every layer wraps. Layers decide when they are called, so all are always ready, and cloning one is cloning a
/// few reference counts.
pub trait Call:
    tower::Service<Box<Request>, Response = Response<Body>, Error = Error, Future: Send>
    + Clone
    + Send
    + 'static
{
}

impl<S> Call for S where
    S: tower::Service<Box<Request>, Response = Response<Body>, Error = Error, Future: Send>
        + Clone
        + Send
        + 'static
{
}

pin_project! {
    /// A call that a layer wants to hear of: the guard goes on into the body of the answer.
    pub struct Guarded<F, D> where D: Duty {
        #[pin]
        call: F,
        guard: Option<Guard<D>>,
    }
}

impl<F, D: Duty> Guarded<F, D> {
    pub fn new(call: F, duty: Option<D>) -> Self {
        let guard = duty.map(Guard::new);
        Self { call, guard }
    }
}

impl<F: Future<Output = Answer>, D: Duty> Future for Guarded<F, D> {
    type Output = Answer;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Answer> {
        let this = self.project();
        let answer = ready!(this.call.poll(cx));
        Poll::Ready(match this.guard.take() {
            Some(guard) => guard.settle(answer),
            None => answer,
        })
    }
}
