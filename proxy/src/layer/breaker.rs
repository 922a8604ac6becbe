//! Asks the circuit breaker of a service (or of one of its routes) before each call and tells it how the call went.

use std::future::{Ready, ready};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::Either;
use tokio::time::Instant;
use tower::{Layer, Service};
use weir_config::snapshot::{Breaker as Config, Mode};

use super::{Answer, Call, Guarded};
use crate::body::{self, Duty};
use crate::error::{Blame, Error};
use crate::facts::Facts;
use crate::policy::breaker::{Breaker as Policy, Forced, Ticket};
use crate::policy::deadline::Deadline;
use crate::policy::outcome::{Fault, Outcome};
use crate::policy::terms::Terms;
use crate::policy::transition::{Phase, Transition, Why};
use crate::request::{self, Request};
use crate::telemetry::BackendMetrics;

/// A breaker and whom to tell when it changes. Shared by all workers; held for nanoseconds at a time.
pub struct Shared {
    policy: Mutex<Policy>,
    /// Its policy says so; an operator is stronger.
    observes: AtomicBool,
    service: Arc<str>,
    /// Empty: of the whole service.
    route: String,
    facts: Facts,
    metrics: Arc<BackendMetrics>,
}

/// How a breaker stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    pub phase: Phase,
    /// By its policy or an operator.
    pub forced: bool,
    /// It refuses nobody.
    pub observed: bool,
}

impl Shared {
    /// `config`: `None` where no policy asks for a breaker, and it is only there to be forced.
    pub fn new(
        config: Option<Config>,
        mode: Mode,
        service: Arc<str>,
        route: String,
        facts: Facts,
        metrics: Arc<BackendMetrics>,
    ) -> Self {
        let policy = Policy::new(config);
        metrics.breaker_state(&route, policy.state());
        Self {
            policy: Mutex::new(policy),
            observes: AtomicBool::new(mode == Mode::Observe),
            service,
            route,
            facts,
            metrics,
        }
    }

    /// A new policy: what was learnt stays.
    pub fn reconfigure(&self, config: Option<Config>, mode: Mode) {
        self.with(|policy| policy.reconfigure(config, Instant::now()));
        let before = self.status();
        let observes = mode == Mode::Observe;
        self.observes.store(observes, Ordering::Relaxed);
        let status = self.status();
        if status != before && status.phase != Phase::Closed {
            let reason = match status.observed {
                true => "its policy only observes now",
                false => "its policy is enforced now",
            };
            let still = Transition {
                from: status.phase,
                to: status.phase,
                enforced: true,
                why: Why::PolicyChanged,
                reason: reason.to_owned(),
            };
            let (service, route) = (&self.service, &self.route);
            self.facts.breaker_changed(service, route, still, status);
        }
    }

    /// By an operator, which is the stronger, or by its policy.
    pub fn force(&self, forced: Option<Forced>) {
        self.with(|policy| policy.force(forced, Instant::now()));
    }

    /// For what ends while nobody calls.
    pub fn tick(&self, now: Instant) {
        self.with(|policy| policy.tick(now));
    }

    pub fn status(&self) -> Status {
        self.status_of(&self.policy.lock().expect("no panic while locked"))
    }

    fn status_of(&self, policy: &Policy) -> Status {
        Status {
            phase: policy.state(),
            forced: policy.is_forced(),
            // Whom an operator forces, he wants forced; a policy that only observes may not force either.
            observed: self.observes.load(Ordering::Relaxed) && !policy.is_held_by_operator(),
        }
    }

    pub fn route(&self) -> &str {
        &self.route
    }

    fn with<T>(&self, act: impl FnOnce(&mut Policy) -> T) -> T {
        let mut policy = self.policy.lock().expect("no panic while locked");
        let result = act(&mut policy);
        while let Some(transition) = policy.take_transition() {
            let status = self.status_of(&policy);
            self.metrics
                .breaker_changed(&self.route, &transition, status.forced);
            self.facts
                .breaker_changed(&self.service, &self.route, transition, status);
        }
        result
    }
}

#[derive(Clone)]
pub struct BreakerLayer {
    pub breaker: Arc<Shared>,
    /// How long a call may take by its policy: who has had that much time is not the caller's haste.
    pub deadline: Option<Duration>,
}

/// The sidecar that is called counts by a clock of its own, and may say a little earlier that the time is up.
const TOLD_EARLY: Duration = Duration::from_millis(10);

#[derive(Clone)]
pub struct Breaker<S> {
    breaker: Arc<Shared>,
    deadline: Option<Duration>,
    inner: S,
}

impl<S> Layer<S> for BreakerLayer {
    type Service = Breaker<S>;

    fn layer(&self, inner: S) -> Breaker<S> {
        Breaker {
            breaker: self.breaker.clone(),
            deadline: self.deadline,
            inner,
        }
    }
}

impl<S: Call> Service<Box<Request>> for Breaker<S> {
    type Response = S::Response;
    type Error = Error;
    type Future = Either<Guarded<S::Future, Admitted>, Ready<Answer>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Box<Request>) -> Self::Future {
        let breaker = &self.breaker;
        let started = Instant::now();
        let admitted = match breaker.with(|policy| policy.admit(started, fastrand::u64(..))) {
            Ok(ticket) => Some(Admitted {
                breaker: breaker.clone(),
                ticket,
                started,
                enough: enough(&request.context, self.deadline),
                answered: None,
                over_quota: false,
                own: false,
            }),
            Err(_) if breaker.status().observed => {
                breaker.metrics.would_refuse("circuit-breaker-open");
                None
            }
            Err(refused) => {
                let error = Error::BreakerOpen {
                    service: breaker.service.to_string(),
                    retry_after: refused.retry_after,
                };
                return Either::Right(ready(Err(error)));
            }
        };
        Either::Left(Guarded::new(self.inner.call(request), admitted))
    }
}

/// From when on a call has had all the time that its policy, or the rule of a route, gives it.
fn enough(context: &request::Context, deadline: Option<Duration>) -> Deadline {
    let by_rule = context.terms.as_deref().filter(|it| it.sets_deadline());
    let deadline = by_rule.map_or(deadline, Terms::deadline);
    let enough = deadline.map(|deadline| deadline - TOLD_EARLY.min(deadline / 10));
    enough.map_or(Deadline::NEVER, |span| Deadline::after(span, context.begun))
}

pub struct Admitted {
    breaker: Arc<Shared>,
    ticket: Ticket,
    started: Instant,
    enough: Deadline,
    /// How long the head of the response took: a stream that lasts for hours is not a slow call.
    answered: Option<Duration>,
    /// The caller has asked too often: the service is well.
    over_quota: bool,
    /// This sidecar has refused it: the service was not asked.
    own: bool,
}

impl Duty for Admitted {
    fn answered(&mut self, answer: &Answer) {
        let elapsed = self.started.elapsed();
        self.answered = Some(elapsed);
        let response = match answer {
            Ok(response) => response,
            Err(error) => {
                self.own = error.facts().blame == Blame::Proxy;
                return;
            }
        };
        self.over_quota = body::is_over_quota(response);
        if self.ticket.is_probe() && body::outcome(response) == Outcome::Success {
            let ticket = &mut self.ticket;
            self.breaker.with(|policy| policy.answered(ticket, elapsed));
        }
    }

    fn done(self, outcome: Outcome, now: Instant) {
        let elapsed = self
            .answered
            .unwrap_or_else(|| now.saturating_duration_since(self.started));
        let rand = fastrand::u64(..);
        let outcome = match outcome {
            _ if self.own => Outcome::Cancelled,
            Outcome::Failure(Fault::Overload) if self.over_quota => Outcome::Success,
            Outcome::Failure(Fault::Deadline) if self.enough.is_over(now) => {
                Outcome::Failure(Fault::Hard)
            }
            other => other,
        };
        self.breaker
            .with(|policy| policy.record(self.ticket, outcome, elapsed, now, rand));
    }
}

#[cfg(test)]
mod tests;
