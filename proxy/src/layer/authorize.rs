//! Asks whether the caller may, before anything else is done for it.

use std::future::{Ready, ready};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use arc_swap::ArcSwapOption;
use futures_util::future::Either;
use tower::{Layer, Service};
use weir_config::snapshot;

use super::{Answer, Call};
use crate::error::Error;
use crate::policy::authorize::{Authorizer, Question, Verdict};
use crate::request::Request;
use crate::telemetry;

/// Who may call one of the app's ports, for as long as the sidecar lives: a new policy holds for the next request of
/// connections that are open.
#[derive(Default)]
pub struct Shared {
    /// Whether anybody says: without a policy nothing else is looked at.
    configured: AtomicBool,
    policy: ArcSwapOption<Policy>,
}

struct Policy {
    authorizer: Authorizer,
    service: Arc<str>,
}

impl Shared {
    pub fn reconfigure(&self, said: Option<&snapshot::Authorization>, service: &Arc<str>) {
        let policy = said.map(|said| Policy {
            authorizer: Authorizer::new(said),
            service: service.clone(),
        });
        let configured = policy.is_some();
        if configured {
            // Between the two stores it is the stricter that holds.
            self.policy.store(policy.map(Arc::new));
            self.configured.store(true, Ordering::Release);
        } else {
            self.configured.store(false, Ordering::Release);
            self.policy.store(None);
        }
    }

    /// Whether bytes of which nobody knows what they mean may pass.
    pub fn admit_bytes(&self, caller: Option<&str>) -> Result<(), Error> {
        self.admit(Question { caller, call: None })
    }

    fn admit(&self, question: Question<'_>) -> Result<(), Error> {
        if !self.configured.load(Ordering::Acquire) {
            return Ok(());
        }
        let policy = self.policy.load();
        let Some(policy) = &*policy else {
            return Ok(());
        };
        let service = &policy.service;
        match policy.authorizer.admit(question) {
            Verdict::Allowed => Ok(()),
            Verdict::WouldBeDenied(denied) => {
                telemetry::would_deny(service, denied.policy.as_deref(), denied.reason);
                Ok(())
            }
            Verdict::Denied(denied) => {
                telemetry::denied(service, denied.policy.as_deref(), denied.reason);
                Err(Error::Denied {
                    service: service.clone(),
                    reason: denied.reason,
                })
            }
        }
    }
}

#[derive(Clone)]
pub struct AuthorizeLayer {
    pub authorization: Arc<Shared>,
}

#[derive(Clone)]
pub struct Authorize<S> {
    authorization: Arc<Shared>,
    inner: S,
}

impl<S> Layer<S> for AuthorizeLayer {
    type Service = Authorize<S>;

    fn layer(&self, inner: S) -> Authorize<S> {
        Authorize {
            authorization: self.authorization.clone(),
            inner,
        }
    }
}

impl<S: Call> Service<Request> for Authorize<S> {
    type Response = S::Response;
    type Error = Error;
    type Future = Either<S::Future, Ready<Answer>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let question = Question {
            caller: request.context.caller.as_deref(),
            call: Some((&request.head.method, request.head.uri.path())),
        };
        match self.authorization.admit(question) {
            Ok(()) => Either::Left(self.inner.call(request)),
            Err(error) => Either::Right(ready(Err(error))),
        }
    }
}

#[cfg(test)]
mod tests;
