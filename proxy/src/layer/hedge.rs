//! Makes a slow call a second time elsewhere, where the policy lets it, and passes on whichever answer comes first.
//!
//! One try of the retry layer above: both tries together have the time of one, and if both fail it is asked once
//! whether to try again.

use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use futures_util::future::Either;
use http::HeaderValue;
use tokio::time::Instant;
use tower::{Layer, Service};
use weir_config::snapshot::{Hedging as Config, Mode};

use super::{Answer, AnswerFuture, Call, throttle};
use crate::body::{Twin, outcome};
use crate::endpoints::Endpoints;
use crate::error::Error;
use crate::head::{self, Kept};
use crate::policy::budget::Budget;
use crate::policy::hedge::{Hedge as Policy, Weather, Withheld};
use crate::policy::outcome::Outcome;
use crate::race::Race;
use crate::request::{Context as RequestContext, Request};
use crate::telemetry::HedgeMetrics;

/// The hedging of one route, shared by all workers.
pub struct Shared {
    policy: Mutex<Policy>,
    /// Of the whole service: retries and hedges pay from one.
    budget: Arc<Mutex<Budget>>,
    endpoints: Arc<Endpoints>,
    throttle: Arc<throttle::Shared>,
    metrics: HedgeMetrics,
}

impl Shared {
    pub fn new(
        config: Config,
        service: &str,
        budget: Arc<Mutex<Budget>>,
        endpoints: Arc<Endpoints>,
        throttle: Arc<throttle::Shared>,
    ) -> Self {
        Self {
            policy: Mutex::new(Policy::new(config, Instant::now())),
            budget,
            endpoints,
            throttle,
            metrics: HedgeMetrics::new(service),
        }
    }

    /// A new policy: what was learnt stays.
    pub fn reconfigure(&self, config: Config) {
        self.with(|policy| policy.reconfigure(config));
    }

    /// Whether the call that is slow may be made again; the first try went to the endpoint that `race` knows.
    fn admit(&self, race: &Race, mode: Mode) -> Result<(), Withheld> {
        let now = Instant::now();
        let weather = Weather {
            overloaded: !self.throttle.is_quiet(),
            gated: self.endpoints.gated_share(),
            load: self.endpoints.said_load(now),
            elsewhere: (race.first()).is_some_and(|first| self.endpoints.has_other_than(first)),
        };
        let mut budget = self.budget.lock().expect("no panic while locked");
        match mode {
            Mode::Enforce => self.with(|policy| policy.admit(weather, &mut budget, now)),
            // What would be spent is there for retries, which do happen.
            Mode::Observe => self.with(|policy| policy.admit(weather, &mut budget.clone(), now)),
        }
    }

    fn answered(&self, answer: &Answer, begun: Instant) {
        if is_good(answer) {
            let now = Instant::now();
            self.with(|policy| policy.answered(now.saturating_duration_since(begun), now));
        }
    }

    fn with<T>(&self, act: impl FnOnce(&mut Policy) -> T) -> T {
        act(&mut self.policy.lock().expect("no panic while locked"))
    }
}

#[derive(Clone)]
pub struct HedgeLayer {
    pub hedge: Arc<Shared>,
    pub mode: Mode,
}

#[derive(Clone)]
pub struct Hedge<S> {
    hedge: HedgeLayer,
    inner: S,
}

impl<S> Layer<S> for HedgeLayer {
    type Service = Hedge<S>;

    fn layer(&self, inner: S) -> Hedge<S> {
        Hedge {
            hedge: self.clone(),
            inner,
        }
    }
}

impl<S: Call> Service<Box<Request>> for Hedge<S> {
    type Response = S::Response;
    type Error = Error;
    type Future = Either<S::Future, AnswerFuture>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Box<Request>) -> Self::Future {
        let context = &request.context;
        // A retry is a second try already, here or in the sidecar that called.
        let first = context.attempt == 1 && !context.is_retry && context.tried.is_empty();
        if !context.idempotent || context.upgrade || !first {
            return Either::Left(self.inner.call(request));
        }
        let (hedge, inner) = (self.hedge.clone(), self.inner.clone());
        Either::Right(Box::pin(hedge.run(inner, request)))
    }
}

impl HedgeLayer {
    async fn run<S: Call>(self, mut inner: S, mut request: Box<Request>) -> Answer {
        let begun = Instant::now();
        let Some(delay) = self.hedge.with(|policy| policy.begun(begun)) else {
            let answer = inner.call(request).await;
            self.hedge.answered(&answer, begun);
            return answer;
        };
        let race = request.context.race.get_or_insert_default().clone();
        request.context.may_be_repeated |= self.mode == Mode::Enforce;
        let (first, spare) = Spare::of(request);
        let mut first = std::pin::pin!(inner.call(first));
        let mut wait = delay;
        let answer = loop {
            tokio::select! {
                biased;
                answer = first.as_mut() => break answer,
                () = tokio::time::sleep(wait) => {}
            }
            match self.second(spare.as_ref(), &race) {
                Second::Now(second) => {
                    break self.either(first, inner.call(second), &race).await;
                }
                // When it has taken twice as long: what is slowest needs it most.
                Second::Later => wait = begun.elapsed(),
                Second::Never => break first.await,
            }
        };
        if let Some(spare) = spare {
            spare.body.commit();
        }
        self.hedge.answered(&answer, begun);
        answer
    }

    fn second(&self, spare: Option<&Spare>, race: &Race) -> Second {
        let Some(spare) = spare else {
            return Second::Never;
        };
        let Some(request) = spare.request(race) else {
            return Second::Later;
        };
        let metrics = &self.hedge.metrics;
        match self.hedge.admit(race, self.mode) {
            Err(withheld) => {
                metrics.withheld(withheld);
                Second::Later
            }
            Ok(()) if self.mode == Mode::Observe => {
                metrics.observed();
                Second::Never
            }
            Ok(()) => Second::Now(request),
        }
    }

    /// The first good answer; when neither is good, the first try's. Who has not answered by then is cancelled: dropped,
    /// its stream is reset.
    async fn either<F, G>(&self, mut first: F, second: G, race: &Race) -> Answer
    where
        F: Future<Output = Answer> + Unpin,
        G: Future<Output = Answer>,
    {
        let metrics = &self.hedge.metrics;
        let mut second = std::pin::pin!(second);
        let answer = tokio::select! {
            biased;
            answer = &mut first => {
                if is_good(&answer) {
                    metrics.lost();
                    answer
                } else {
                    let other = second.as_mut().await;
                    if is_good(&other) {
                        metrics.won();
                        other
                    } else {
                        metrics.failed();
                        answer
                    }
                }
            }
            answer = second.as_mut() => {
                if is_good(&answer) {
                    metrics.won();
                    answer
                } else {
                    metrics.failed();
                    first.await
                }
            }
        };
        race.end();
        answer
    }
}

/// Whether a call that is slow is made a second time.
enum Second {
    Now(Box<Request>),
    /// It cannot be, or may not be, for now.
    Later,
    Never,
}

/// What a second try is made from.
struct Spare {
    head: Kept,
    body: Twin,
    context: RequestContext,
}

impl Spare {
    /// The request, ready for its first try; and what is kept of it.
    fn of(mut request: Box<Request>) -> (Box<Request>, Option<Self>) {
        let spare = Twin::of(&mut request.body).map(|body| Self {
            head: Kept::of(&request.head),
            body,
            context: request.context.clone(),
        });
        (request, spare)
    }

    /// `None`: its body has not passed whole yet, or is too long to be kept.
    fn request(&self, race: &Race) -> Option<Box<Request>> {
        let body = self.body.again()?;
        let mut head = self.head.head();
        // For the sidecar over there it is a retry: below it there are no more (gRFC A6 counts hedges the same).
        head.headers
            .insert(&head::ATTEMPT, HeaderValue::from_static("2"));
        let mut context = self.context.clone();
        if context.grpc {
            head.headers
                .insert(&head::GRPC_PREVIOUS_ATTEMPTS, HeaderValue::from_static("1"));
        }
        context.tried.extend(race.first());
        context.hedge = true;
        context.begun = Instant::now();
        Some(Box::new(Request {
            head,
            body,
            context,
        }))
    }
}

fn is_good(answer: &Answer) -> bool {
    let good = |response| outcome(response) == Outcome::Success;
    answer.as_ref().is_ok_and(good)
}

#[cfg(test)]
mod tests;
