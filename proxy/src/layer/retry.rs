//! Tries again where that is safe and worth it: the policy decides, this layer keeps the request and waits.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::{Duration, SystemTime};

use futures_util::future::Either;
use http::{HeaderValue, Response};
use pin_project_lite::pin_project;
use tokio::time::Instant;
use tower::{Layer, Service};
use weir_config::record::Try;
use weir_config::snapshot::Retries;

use super::{Answer, AnswerFuture, Call};
use crate::body::{self, Body, outcome, says_status};
use crate::endpoints::Endpoints;
use crate::error::Error;
use crate::head::{self, Kept};
use crate::policy::budget::Budget;
use crate::policy::deadline::Deadline;
use crate::policy::outcome::{Fault, Outcome};
use crate::policy::pushback::Pushback;
use crate::policy::retry::{Attempt, Decision, Verdict, decide};
use crate::policy::terms::Terms;
use crate::race::Race;
use crate::recorder;
use crate::replay::Replay;
use crate::request::{Context as RequestContext, Request, Share};
use crate::telemetry::BackendMetrics;

#[derive(Clone)]
pub struct RetryLayer {
    pub retries: Arc<Retries>,
    /// Of the whole service: all routes and workers pay from one.
    pub budget: Arc<Mutex<Budget>>,
    /// For how long a try usually takes.
    pub endpoints: Arc<Endpoints>,
    pub metrics: Arc<BackendMetrics>,
    /// What is one try here may be two below.
    pub hedges: bool,
}

#[derive(Clone)]
pub struct Retry<S> {
    policy: Arc<RetryLayer>,
    inner: S,
}

impl<S> Layer<S> for RetryLayer {
    type Service = Retry<S>;

    fn layer(&self, inner: S) -> Retry<S> {
        Retry {
            policy: Arc::new(self.clone()),
            inner,
        }
    }
}

impl<S: Call> Service<Box<Request>> for Retry<S> {
    type Response = S::Response;
    type Error = Error;
    type Future = Either<Once<S::Future>, AnswerFuture>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Box<Request>) -> Self::Future {
        // An upgrade has no second try: its connection is its state. Nor has a call in another service's stead. Who is
        // somebody's heir has to tell how it went.
        let context = &mut request.context;
        context.begun = Instant::now();
        let by_rule = context.terms.as_ref();
        let by_rule = by_rule.map(|terms| terms.retries(&self.policy.retries));
        let retries = by_rule.as_ref().unwrap_or(&self.policy.retries);
        let once = retries.attempts.get() == 1 && context.heir.is_none();
        if context.upgrade || context.stands_in || once {
            context.try_until = try_until(retries, context.begun);
            mark(&mut request.head, context);
            return Either::Left(Once {
                call: self.inner.call(request),
                // Hedges are paid for by the same successes.
                budget: once.then(|| self.policy.budget.clone()),
            });
        }
        let (mut policy, inner) = (self.policy.clone(), self.inner.clone());
        if let Some(retries) = by_rule {
            Arc::make_mut(&mut policy).retries = retries;
        }
        Either::Right(Box::pin(policy.run(inner, request)))
    }
}

pin_project! {
    /// A call that is not tried again.
    pub struct Once<F> {
        #[pin]
        call: F,
        budget: Option<Arc<Mutex<Budget>>>,
    }
}

impl<F: Future<Output = Answer>> Future for Once<F> {
    type Output = Answer;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Answer> {
        let this = self.project();
        let answer = ready!(this.call.poll(cx));
        if let Some(budget) = this.budget.take() {
            let (verdict, now) = (verdict(&answer, None), Instant::now());
            let mut budget = budget.lock().expect("no panic while locked");
            match verdict {
                None => budget.deposit(now),
                Some(verdict) if verdict.is_failed_call() => budget.charge(now),
                Some(_) => {}
            }
        }
        Poll::Ready(answer)
    }
}

impl RetryLayer {
    async fn run<S: Call>(self: Arc<Self>, mut inner: S, request: Box<Request>) -> Answer {
        let mut original = Original::new(request);
        loop {
            let result = inner.call(original.next_attempt(&self)).await;
            let terms = original.context.terms.as_deref();
            let Some(verdict) = verdict(&result, terms.and_then(Terms::codes)) else {
                if original.context.attempt == 1 {
                    self.budget().deposit(Instant::now());
                }
                original.commit();
                return result;
            };
            let asked = pushback(&result).filter(|_| !self.has_room_elsewhere(verdict, &result));
            let now = Instant::now();
            let decision = decide(
                &self.retries,
                Attempt {
                    wait_min: terms.map_or(Duration::ZERO, Terms::wait_min),
                    ..original.state(now, self.endpoints.p50(now))
                },
                verdict,
                asked,
                &mut self.budget(),
                now,
                fastrand::u64(..),
            );
            original.note(&result, decision, now);
            match decision {
                Decision::Retry { after, counts } => {
                    self.metrics.retries.inc();
                    original.failed(counts, endpoint(&result));
                    // The failed response goes first: it holds a stream and counts as in flight.
                    drop(result);
                    if !after.is_zero() {
                        tokio::time::sleep(after).await;
                    }
                }
                Decision::Stop(stop) => {
                    original.commit();
                    if stop.exhausts(original.context.attempt)
                        && let Some(heir) = &original.context.heir
                    {
                        heir.exhaust();
                    }
                    return result;
                }
            }
        }
    }

    /// One endpoint has turned the call away because that one has too much to do, and others may not: when it is worth
    /// asking that one again is of no matter.
    fn has_room_elsewhere(&self, verdict: Verdict, result: &Answer) -> bool {
        let elsewhere = |address| self.endpoints.has_other_than(address);
        verdict == Verdict::Overloaded { service: false } && endpoint(result).is_some_and(elsewhere)
    }

    fn budget(&self) -> std::sync::MutexGuard<'_, Budget> {
        self.budget.lock().expect("no panic while locked")
    }
}

/// The request as it came, from which each attempt is made.
struct Original {
    /// Goes with the first attempt.
    first: Option<Box<Request>>,
    /// For those that follow it; `None`: none can.
    head: Option<Kept>,
    body: Source,
    /// Boxed: beyond 1,032 bytes glibc has no room at hand, and the future of this layer would need that much.
    context: Box<RequestContext>,
    /// Tries after a failure that provably reached nobody; they do not count as attempts.
    transparent: u32,
    /// Of the try that is under way.
    race: Option<Arc<Race>>,
}

enum Source {
    /// Nothing to send, so nothing to keep.
    Empty,
    Kept {
        replay: Replay,
        /// Nobody above wants to send it again.
        own: bool,
    },
    /// Cannot be sent twice; goes with the first attempt.
    Once(Body),
}

impl Original {
    fn new(mut request: Box<Request>) -> Self {
        let body = std::mem::take(&mut request.body);
        let body = if http_body::Body::is_end_stream(&body) {
            Source::Empty
        } else {
            match body.into_replay() {
                Ok((replay, own)) => Source::Kept { replay, own },
                Err(body) => Source::Once(body),
            }
        };
        request.context.attempt = 1;
        let can_follow = !matches!(body, Source::Once(_));
        Self {
            head: can_follow.then(|| Kept::of(&request.head)),
            body,
            context: Box::new(request.context.clone()),
            first: Some(request),
            transparent: 0,
            race: None,
        }
    }

    /// For the flight recorder: how a try failed, and what was decided.
    fn note(&self, result: &Answer, decision: Decision, now: Instant) {
        let since = now.saturating_duration_since(self.context.received);
        let then = match decision {
            Decision::Retry { after, .. } if after.is_zero() => "again at once".to_owned(),
            Decision::Retry { after, .. } => format!("again after {} ms", after.as_millis()),
            Decision::Stop(stop) => format!("not again: {}", stop.as_str()),
        };
        let attempt = Try {
            ended_us: u64::try_from(since.as_micros()).unwrap_or(u64::MAX),
            endpoint: endpoint(result).map(|address| address.to_string()),
            result: match result {
                Ok(response) => status(response),
                Err(error) => error.to_string(),
            },
            then,
        };
        recorder::note(self.context.names.key, attempt);
    }

    fn failed(&mut self, counts: bool, endpoint: Option<SocketAddr>) {
        let raced = self.race.take();
        let raced = raced.iter().flat_map(|race| race.tried());
        self.context.tried.extend(endpoint.into_iter().chain(raced));
        if let Source::Kept { replay, .. } = &self.body {
            replay.give_up();
        }
        if counts {
            self.context.attempt += 1;
        } else {
            self.transparent += 1;
        }
    }

    fn next_attempt(&mut self, policy: &RetryLayer) -> Box<Request> {
        let retries = &policy.retries;
        let mut request = self.first.take().unwrap_or_else(|| {
            let head = self.head.as_ref();
            Box::new(Request {
                head: head
                    .expect("what cannot be replayed is not tried again")
                    .head(),
                body: Body::empty(),
                context: RequestContext {
                    begun: Instant::now(),
                    ..(*self.context).clone()
                },
            })
        });
        let Request {
            head,
            body,
            context,
        } = &mut *request;
        let may_repeat = self.is_replayable() && context.idempotent && !context.is_retry;
        let tries_left = match retries.attempts.get().saturating_sub(context.attempt) {
            left if may_repeat => left + 1,
            _ => 1,
        };
        // A try that is given up, for its time or with its endpoint, has failed for this reason and no other.
        context.replayable = tries_left > 1 && retries.on.unavailable;
        context.may_be_repeated |= tries_left > 1;
        context.try_until = try_until(retries, context.begun);
        if policy.hedges && context.attempt == 1 {
            context.race = Some(Arc::default());
            self.race = context.race.clone();
        }
        context.share = context.replayable.then(|| Share {
            until: context.deadline.share(tries_left, context.begun),
            budget: policy.budget.clone(),
            replay: match &self.body {
                Source::Kept { replay, .. } => Some(replay.clone()),
                Source::Empty | Source::Once(_) => None,
            },
        });
        mark(head, context);
        *body = match &mut self.body {
            Source::Empty => Body::empty(),
            Source::Kept { replay, .. } => Body::attempt(replay.attempt()),
            Source::Once(body) => std::mem::take(body),
        };
        request
    }

    fn is_replayable(&self) -> bool {
        match &self.body {
            Source::Empty => true,
            Source::Kept { replay, .. } => replay.is_possible(),
            Source::Once(_) => false,
        }
    }

    fn state(&self, now: Instant, typical: Duration) -> Attempt {
        Attempt {
            number: self.context.attempt,
            transparent: self.transparent,
            typical,
            idempotent: self.context.idempotent,
            // A verdict comes with the head; once a head was passed on, this layer is no longer asked.
            committed: false,
            replayable: self.is_replayable(),
            is_retry_from_downstream: self.context.is_retry,
            remaining: self.context.deadline.remaining(now),
            wait_min: Duration::ZERO,
        }
    }

    /// The answer is on its way: no body needs keeping any longer.
    fn commit(&self) {
        if let Source::Kept { replay, own: true } = &self.body {
            replay.commit();
        }
    }
}

/// Tells the sidecars below that this is not the first try, so that they make no more of it.
fn mark(head: &mut http::request::Parts, context: &RequestContext) {
    if context.attempt > 1 || context.is_retry {
        let attempt = context.attempt.max(2);
        head.headers
            .insert(&head::ATTEMPT, HeaderValue::from(attempt));
    }
    if context.attempt > 1 && context.grpc {
        // gRFC A6. Of this call: what its caller tried is no business of the app's.
        head.headers.insert(
            &head::GRPC_PREVIOUS_ATTEMPTS,
            HeaderValue::from(context.attempt - 1),
        );
    }
}

fn try_until(retries: &Retries, begun: Instant) -> Deadline {
    let configured = retries.per_try_timeout;
    configured.map_or(Deadline::NEVER, |timeout| {
        Deadline::after(timeout.get(), begun)
    })
}

/// Where the attempt went.
fn endpoint(result: &Answer) -> Option<SocketAddr> {
    match result {
        Ok(response) => response.body().endpoint,
        Err(error) => error.endpoint(),
    }
}

/// What kind of failure it is; `None`: it is none. `codes`: statuses that a rule of a route names.
fn verdict(result: &Answer, codes: Option<&[u16]>) -> Option<Verdict> {
    let response = match result {
        Ok(response) => response,
        Err(error) => return Some(error.facts().verdict),
    };
    let headers = response.headers();
    let named = codes.map(|codes| codes.contains(&response.status().as_u16()));
    let fault = match outcome(response) {
        Outcome::Failure(fault) => fault,
        _ if named == Some(true) => Fault::Hard,
        _ => return None,
    };
    if headers.contains_key(&head::RETRY) {
        return Some(Verdict::Exhausted);
    }
    if headers.contains_key(&head::UNPROCESSED) {
        return Some(Verdict::Unprocessed);
    }
    if let Some(of) = headers.get(&head::OVERLOAD) {
        let service = of != "local";
        return Some(Verdict::Overloaded { service });
    }
    // A gRPC call has a status of its own, in which no rule of a route can be written.
    match named {
        Some(true) => return Some(Verdict::Named),
        Some(false) if !says_status(response).contains_key(&head::GRPC_STATUS) => {
            return Some(Verdict::Final);
        }
        _ => {}
    }
    Some(match fault {
        Fault::Hard if is_unavailable(response) => Verdict::Unavailable,
        Fault::Hard => Verdict::ServerError,
        // Not marked as unprocessed, so asking again would add to the load.
        Fault::Overload | Fault::Deadline => Verdict::Final,
    })
}

fn is_unavailable(response: &Response<Body>) -> bool {
    match says_status(response).get(&head::GRPC_STATUS) {
        Some(status) => status == "14",
        None => matches!(response.status().as_u16(), 502..=504),
    }
}

/// In the words of whoever answered.
fn status(response: &Response<Body>) -> String {
    let grpc = says_status(response).get(&head::GRPC_STATUS);
    match grpc.and_then(|status| status.to_str().ok()) {
        Some(status) => format!("gRPC status {}", recorder::cut(status)),
        None => response.status().as_u16().to_string(),
    }
}

fn pushback(result: &Answer) -> Option<Pushback> {
    let response = result.as_ref().ok()?;
    body::pushback(response, SystemTime::now())
}

#[cfg(test)]
mod tests;
