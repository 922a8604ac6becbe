//! Asks whether the caller may, before anything else is done for it.

mod right;

use std::future::{Ready, ready};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use arc_swap::ArcSwapOption;
use futures_util::future::Either;
use http::{Method, Uri};
use tokio::sync::watch;
use tower::{Layer, Service};
use weir_config::snapshot;

use self::right::Granted;
pub use self::right::{Held, Right};
use super::{Answer, Call};
use crate::error::Error;
use crate::policy::authorize::{Authorizer, Question, Verdict};
use crate::request::Request;
use crate::telemetry;

/// Who may call one of the app's ports, for as long as the sidecar lives: a new policy holds for the next request of
/// connections that are open, and for what goes on without one ([`Right`]).
#[derive(Default)]
pub struct Shared {
    /// Whether anybody says: without a policy nothing else is looked at.
    configured: AtomicBool,
    policy: ArcSwapOption<Policy>,
    changed: watch::Sender<()>,
}

/// Whether a decision shows in the metrics: each of a call does once.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Counted {
    Yes,
    No,
}

struct Policy {
    authorizer: Authorizer,
    /// What it was made of.
    said: snapshot::Authorization,
    service: Arc<str>,
}

impl Shared {
    pub fn reconfigure(&self, said: Option<&snapshot::Authorization>, service: &Arc<str>) {
        let before = self.policy.load();
        if before
            .as_ref()
            .map(|policy| (&policy.said, &policy.service))
            == said.map(|said| (said, service))
        {
            return; // whoever holds a right need not ask again
        }
        let policy = said.map(|said| Policy {
            authorizer: Authorizer::new(said),
            said: said.clone(),
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
        self.changed.send_replace(());
    }

    /// Whether bytes of which nobody knows what they mean may pass, and for how long.
    pub fn admit_bytes(self: &Arc<Self>, caller: Option<Arc<str>>) -> Result<Right, Error> {
        self.grant(caller, None)
    }

    /// The same of whoever has not proven anything; nothing is counted, for nobody has sent any yet.
    pub fn admits_bytes_of_anybody(&self) -> bool {
        let anybody = Question {
            caller: None,
            call: None,
        };
        self.decide(anybody, Counted::No).is_ok()
    }

    fn grant(
        self: &Arc<Self>,
        caller: Option<Arc<str>>,
        call: Option<(Method, Uri)>,
    ) -> Result<Right, Error> {
        let right = Right {
            // Before it is granted, so that no policy comes between.
            changed: self.changed.subscribe(),
            shared: self.clone(),
            caller,
            call,
        };
        self.admit(right.question())?;
        Ok(right)
    }

    fn admit(&self, question: Question<'_>) -> Result<(), Error> {
        self.decide(question, Counted::Yes)
    }

    fn decide(&self, question: Question<'_>, counted: Counted) -> Result<(), Error> {
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
                if counted == Counted::Yes {
                    telemetry::would_deny(service, denied.policy.as_deref(), denied.reason);
                }
                Ok(())
            }
            Verdict::Denied(denied) => {
                if counted == Counted::Yes {
                    telemetry::denied(service, denied.policy.as_deref(), denied.reason);
                }
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

impl<S: Call> Service<Box<Request>> for Authorize<S> {
    type Response = S::Response;
    type Error = Error;
    type Future = Either<Granted<S::Future>, Ready<Answer>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Box<Request>) -> Self::Future {
        let (head, context) = (&request.head, &request.context);
        let call = (head.method.clone(), head.uri.clone());
        match self.authorization.grant(context.caller.clone(), Some(call)) {
            Ok(right) => Either::Left(Granted::new(Arc::new(right), |held| {
                request.body.hold_upload(held);
                self.inner.call(request)
            })),
            Err(error) => Either::Right(ready(Err(error))),
        }
    }
}

#[cfg(test)]
mod tests;
