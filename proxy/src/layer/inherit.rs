//! Carries context through the app. Inbound, [`BequeathLayer`] notes what a call brings while the app works on it;
//! outbound, [`InheritLayer`] gives it to the calls that the app makes under the same trace.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, ready};

use http::HeaderValue;
use pin_project_lite::pin_project;
use tokio::time::Instant;
use tower::{Layer, Service};

use super::{Answer, Call};
use crate::body::outcome;
use crate::error::Error;
use crate::head;
use crate::policy::inheritance::{End, Inheritance, Inherited};
use crate::policy::outcome::Outcome;
use crate::policy::priority::Priority;
use crate::request::Request;
use crate::telemetry;
use crate::trace::TraceKey;

/// In all shards together: far more than calls that may be in an app at once.
const CAPACITY: usize = 64 * 1024;
const SHARDS: usize = 16;

/// What the calls in this pod's app have brought. Shared by all workers and both directions; a shard is locked for
/// nanoseconds at a time. Whoever chooses trace ids so that they meet in one shard makes others wait those nanoseconds.
pub struct Shared {
    shards: [Mutex<Inheritance>; SHARDS],
    /// Since the first call that brought something. Until then no call of the app is looked at.
    used: AtomicBool,
}

/// A call in the app, and what those that the app makes inherit from it.
struct Bequest {
    shared: Arc<Shared>,
    /// `None` once it has ended.
    key: Option<TraceKey>,
}

/// A call that inherited something.
#[derive(Clone)]
pub struct Heir {
    shared: Arc<Shared>,
    key: TraceKey,
}

impl Default for Shared {
    fn default() -> Self {
        Self {
            shards: std::array::from_fn(|_| Mutex::new(Inheritance::new(CAPACITY / SHARDS))),
            used: AtomicBool::new(false),
        }
    }
}

impl Shared {
    fn shard(&self, key: TraceKey) -> MutexGuard<'_, Inheritance> {
        let shard = &self.shards[key.low_bits() % SHARDS];
        shard.lock().expect("no panic while locked")
    }

    /// Only from a caller that proved who it is: what a stranger says binds his own call and nothing else. An upgrade
    /// lasts for as long as it likes, so it leaves nothing either.
    fn bequest(self: &Arc<Self>, request: &Request) -> Option<Bequest> {
        let context = &request.context;
        if context.caller.is_none() || context.upgrade {
            return None;
        }
        let key = TraceKey::of_headers(&request.head.headers)?;
        let inherited = Inherited {
            deadline: context.deadline,
            is_retry: context.is_retry,
            priority: context.priority,
        };
        if !self.shard(key).enter(key, inherited, Instant::now()) {
            telemetry::not_inherited();
            return None;
        }
        self.used.store(true, Ordering::Relaxed);
        Some(Bequest {
            shared: self.clone(),
            key: Some(key),
        })
    }

    fn inherit(self: &Arc<Self>, request: &mut Request, deadline: bool) {
        if !self.used.load(Ordering::Relaxed) || request.context.is_copy {
            return;
        }
        let Some(key) = TraceKey::of_headers(&request.head.headers) else {
            return;
        };
        let Some(inherited) = self.shard(key).inherit(key, Instant::now()) else {
            return;
        };
        let context = &mut request.context;
        let by_rule = context.terms.as_deref().filter(|it| it.sets_deadline());
        if by_rule.map_or(deadline, |terms| terms.deadline().is_some()) {
            context.deadline = context.deadline.min(inherited.deadline);
        }
        context.is_retry |= inherited.is_retry;
        context.priority = match context.says_tier {
            true => Priority {
                tier: context.priority.tier,
                ..inherited.priority
            },
            false => inherited.priority,
        };
        context.heir = Some(Heir {
            shared: self.clone(),
            key,
        });
    }
}

impl Heir {
    /// Retrying has been tried, or cannot be afforded: whoever called the app need not try again either.
    pub fn exhaust(&self) {
        self.shared.shard(self.key).exhaust(self.key);
    }
}

impl Bequest {
    /// The app began to answer. Whether retries were exhausted on the way.
    fn answered(mut self) -> bool {
        self.leave(End::Answered)
    }

    fn leave(&mut self, end: End) -> bool {
        match self.key.take() {
            Some(key) => self.shared.shard(key).leave(key, end, Instant::now()),
            None => false,
        }
    }
}

impl Drop for Bequest {
    fn drop(&mut self) {
        self.leave(End::Abandoned);
    }
}

#[derive(Clone)]
pub struct BequeathLayer {
    pub shared: Arc<Shared>,
}

#[derive(Clone)]
pub struct Bequeath<S> {
    shared: Arc<Shared>,
    inner: S,
}

impl<S> Layer<S> for BequeathLayer {
    type Service = Bequeath<S>;

    fn layer(&self, inner: S) -> Bequeath<S> {
        Bequeath {
            shared: self.shared.clone(),
            inner,
        }
    }
}

impl<S: Call> Service<Box<Request>> for Bequeath<S> {
    type Response = S::Response;
    type Error = Error;
    type Future = Bequeathing<S::Future>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Box<Request>) -> Self::Future {
        Bequeathing {
            bequest: self.shared.bequest(&request),
            call: self.inner.call(request),
        }
    }
}

pin_project! {
    pub struct Bequeathing<F> {
        bequest: Option<Bequest>,
        #[pin]
        call: F,
    }
}

impl<F: Future<Output = Answer>> Future for Bequeathing<F> {
    type Output = Answer;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Answer> {
        let this = self.project();
        let mut answer = ready!(this.call.poll(cx));
        if let Some(bequest) = this.bequest.take()
            && bequest.answered()
            && let Ok(response) = &mut answer
            && matches!(outcome(response), Outcome::Failure(_))
        {
            let headers = response.headers_mut();
            headers.insert(&head::RETRY, HeaderValue::from_static("exhausted"));
        }
        Poll::Ready(answer)
    }
}

#[derive(Clone)]
pub struct InheritLayer {
    pub shared: Arc<Shared>,
    /// Also the deadline; not where a policy says that calls may take as long as they like. What the rule of a route says
    /// counts more.
    pub deadline: bool,
}

#[derive(Clone)]
pub struct Inherit<S> {
    policy: InheritLayer,
    inner: S,
}

impl<S> Layer<S> for InheritLayer {
    type Service = Inherit<S>;

    fn layer(&self, inner: S) -> Inherit<S> {
        Inherit {
            policy: self.clone(),
            inner,
        }
    }
}

impl<S: Call> Service<Box<Request>> for Inherit<S> {
    type Response = S::Response;
    type Error = Error;
    type Future = S::Future;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Box<Request>) -> Self::Future {
        self.policy
            .shared
            .inherit(&mut request, self.policy.deadline);
        self.inner.call(request)
    }
}

#[cfg(test)]
mod tests;
