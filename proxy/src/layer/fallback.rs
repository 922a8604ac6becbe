//! The caller gets what the policy says instead of an error, marked as such: what was answered before, else what another
//! service answers, else an answer that is written down. Nothing of it is ever tried again: it is made above the retries,
//! and a call that stands in for another has none and nobody who stands in for it.
//!
//! ```text
//!   call failed ──▶ kept answer? ──no──▶ alternate? ──no, or it failed too──▶ fixed answer? ──no──▶ the failure
//!                        │ GET               │ once, at most 10 in flight          │ nobody answered
//!                        ▼                   ▼                                     ▼
//!                      stale             alternate                             fallback        (x-weir-degraded)
//! ```

use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::future::Either;
use http::{HeaderValue, Response, StatusCode, header};
use tower::{Layer, Service};
use weir_config::record::Try;
use weir_config::snapshot::FallbackAnswer as Fixed;

use super::alternate::{Alternate, Spare};
use super::stale::{self, Question, Shelf};
use super::{Answer, AnswerFuture, Call};
use crate::body::{Body, is_over_quota, outcome, says_status};
use crate::error::{Blame, Error, PROXY_ERROR, grpc_answer, percent_encoded, text_answer};
use crate::head::{self, DEGRADED};
use crate::policy::outcome::Outcome;
use crate::policy::retry::Verdict;
use crate::policy::terms::Terms;
use crate::recorder;
use crate::request::{Context as RequestContext, Request};
use crate::telemetry::FallbackMetrics;

#[derive(Clone)]
pub struct FallbackLayer(Arc<Choices>);

/// In this order.
pub struct Choices {
    pub stale: Option<Shelf>,
    pub alternate: Option<Alternate>,
    pub fixed: Option<Fixed>,
    pub metrics: FallbackMetrics,
}

#[derive(Clone)]
pub struct Fallback<S> {
    choices: Arc<Choices>,
    inner: S,
}

impl FallbackLayer {
    pub fn new(choices: Choices) -> Self {
        Self(Arc::new(choices))
    }
}

impl<S> Layer<S> for FallbackLayer {
    type Service = Fallback<S>;

    fn layer(&self, inner: S) -> Fallback<S> {
        Fallback {
            choices: self.0.clone(),
            inner,
        }
    }
}

impl<S: Call> Service<Box<Request>> for Fallback<S> {
    type Response = S::Response;
    type Error = Error;
    type Future = Either<S::Future, AnswerFuture>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Box<Request>) -> Self::Future {
        if request.context.stands_in {
            return Either::Left(self.inner.call(request));
        }
        let failing = Failing::of(&self.choices, &mut request);
        let call = self.inner.call(request);
        Either::Right(Box::pin(async move { failing.answer(call.await).await }))
    }
}

/// What is kept of a call for the case that it fails.
struct Failing {
    choices: Arc<Choices>,
    question: Option<Question>,
    spare: Option<Spare>,
    context: RequestContext,
}

impl Failing {
    fn of(choices: &Arc<Choices>, request: &mut Request) -> Self {
        let shelf = choices.stale.as_ref();
        let alternate = choices.alternate.as_ref();
        let spare = alternate.and_then(|alternate| alternate.spare(request));
        request.context.may_be_repeated |= spare.as_ref().is_some_and(Spare::is_idempotent);
        Self {
            question: shelf.and_then(|shelf| shelf.question(request)),
            spare,
            context: request.context.clone(),
            choices: choices.clone(),
        }
    }

    async fn answer(mut self, result: Answer) -> Answer {
        let Some(failure) = Failure::of(&result) else {
            if let Some(spare) = &self.spare {
                spare.drop_body();
            }
            return result.map(|response| match self.question {
                Some(question) if is_good(&response) => question.answered(response),
                _ => response,
            });
        };
        if let Some(kept) = self.kept(&failure) {
            return Ok(kept);
        }
        if let Some(other) = self.of_another(&failure).await {
            return Ok(other);
        }
        match (&self.choices.fixed, failure.code) {
            (Some(answer), Some(code)) => {
                self.choices.metrics.fixed.inc();
                Ok(fixed(answer, code, self.context.grpc))
            }
            _ => result,
        }
    }

    fn kept(&self, failure: &Failure) -> Option<Response<Body>> {
        let kept = self.question.as_ref()?.find()?;
        self.choices.metrics.stale.inc();
        let age = kept.age.as_secs();
        self.note(None, format!("an answer that was {age} s old"), "passed on");
        let mut response = Response::new(Body::full(kept.body));
        *response.headers_mut() = kept.headers;
        // Whole seconds, and never younger than it is (RFC 9111 section 5.1).
        let age = age + u64::from(kept.age.subsec_nanos() > 0);
        let headers = response.headers_mut();
        headers.insert(header::AGE, HeaderValue::from(age));
        mark(&mut response, "stale", failure);
        Some(response)
    }

    /// What the alternate says, if it is any better.
    async fn of_another(&mut self, failure: &Failure) -> Option<Response<Body>> {
        let alternate = self.choices.alternate.clone()?;
        let spare = self.spare.take()?;
        // Where a rule names statuses that are worth another try, an earlier one may have been answered so by the app.
        let by_rule = |terms: &Terms| terms.codes().is_some();
        let is_first = !self.context.terms.as_deref().is_some_and(by_rule);
        let reached_nobody = failure.reached_nobody && is_first;
        if !spare.is_idempotent() && !reached_nobody {
            return None;
        }
        let answer = alternate.call(spare).await?;
        let better = Failure::of(&answer).is_none();
        let endpoint = match &answer {
            Ok(response) => response.body().endpoint,
            Err(error) => error.endpoint(),
        };
        let came = match &answer {
            Ok(response) => response.status().as_u16().to_string(),
            Err(error) => error.to_string(),
        };
        let then = if better { "passed on" } else { "not passed on" };
        let came = format!("{} in its stead: {came}", alternate.service);
        self.note(endpoint.map(|address| address.to_string()), came, then);
        let mut response = answer.ok().filter(|_| better)?;
        self.choices.metrics.alternate.inc();
        mark(&mut response, "alternate", failure);
        Some(response)
    }

    /// For the flight recorder.
    fn note(&self, endpoint: Option<String>, result: String, then: &str) {
        let ended = self.context.received.elapsed();
        let attempt = Try {
            ended_us: u64::try_from(ended.as_micros()).unwrap_or(u64::MAX),
            endpoint,
            result,
            then: then.to_owned(),
        };
        recorder::note(self.context.names.key, attempt);
    }
}

/// Why a call needs a fallback. What the caller did wrong is the caller's to know.
struct Failure {
    /// In this sidecar's words or in those of the one that was called: when a deadline passes, either may be the first to
    /// say so. `None`: the app answered, and its answer is an error.
    code: Option<HeaderValue>,
    /// So it may be made elsewhere, whatever it does.
    reached_nobody: bool,
}

impl Failure {
    fn of(result: &Answer) -> Option<Self> {
        match result {
            Err(error) => {
                let facts = error.facts();
                let nobody_there = matches!(
                    error,
                    Error::NoEndpoints { .. } | Error::NoEndpointAvailable { .. }
                );
                (facts.blame != Blame::Downstream).then(|| Self {
                    code: Some(HeaderValue::from_static(facts.code)),
                    reached_nobody: (facts.blame == Blame::Proxy
                        && !matches!(error, Error::Internal(_)))
                        || facts.verdict == Verdict::Unprocessed
                        || nobody_there,
                })
            }
            Ok(response) if is_over_quota(response) => None,
            Ok(response) => {
                let headers = response.headers();
                let code = headers.get(&PROXY_ERROR).cloned();
                let failed = !is_good(response);
                let grpc = says_status(response).contains_key(&head::GRPC_STATUS);
                // What a sidecar has shed has not seen the app (the header is taken from whoever is none).
                let is_shed = headers.contains_key(&head::OVERLOAD);
                let is_error = code.is_some() || grpc || stale::is_error(response.status());
                (failed && is_error).then(|| Self {
                    code,
                    reached_nobody: is_shed || headers.contains_key(&head::UNPROCESSED),
                })
            }
        }
    }
}

fn is_good(response: &Response<Body>) -> bool {
    outcome(response) == Outcome::Success
}

fn mark(response: &mut Response<Body>, kind: &'static str, failure: &Failure) {
    let headers = response.headers_mut();
    headers.insert(&DEGRADED, HeaderValue::from_static(kind));
    if let Some(code) = &failure.code {
        headers.insert(&PROXY_ERROR, code.clone());
    }
}

fn fixed(fixed: &Fixed, code: HeaderValue, grpc: bool) -> Response<Body> {
    let mut response = if grpc {
        grpc_answer(fixed.grpc_status, percent_encoded(&fixed.message))
    } else {
        let status = StatusCode::from_u16(fixed.http_status);
        let status = status.unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
        text_answer(status, fixed.message.clone().into())
    };
    let headers = response.headers_mut();
    headers.insert(&DEGRADED, HeaderValue::from_static("fallback"));
    headers.insert(&PROXY_ERROR, code);
    response
}

#[cfg(test)]
mod tests;
