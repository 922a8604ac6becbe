//! One thin tower layer a policy: it asks the pure policy, acts, and reports back how it went.

pub mod attempt;
pub mod breaker;
pub mod deadline;
pub mod fallback;
pub mod limit;
pub mod observe;
pub mod retry;

use std::pin::Pin;

use http::Response;

use crate::body::Body;
use crate::error::Error;
use crate::request::Request;

pub type Answer = Result<Response<Body>, Error>;
pub type AnswerFuture = Pin<Box<dyn Future<Output = Answer> + Send>>;

/// What every layer wraps. Layers decide when they are called, so all are always ready, and cloning one is cloning a
/// few reference counts.
pub trait Call:
    tower::Service<Request, Response = Response<Body>, Error = Error, Future: Send>
    + Clone
    + Send
    + 'static
{
}

impl<S> Call for S where
    S: tower::Service<Request, Response = Response<Body>, Error = Error, Future: Send>
        + Clone
        + Send
        + 'static
{
}
