//! Outermost: counts and times every request, and writes the access log.

use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::time::Instant;
use tower::{Layer, Service};

use super::{Answer, Call, Guarded};
use crate::access_log::{AccessLog, Entry};
use crate::body::Duty;
use crate::error::Error;
use crate::policy::outcome::{Fault, Outcome};
use crate::request::Request;
use crate::telemetry::RouteMetrics;

#[derive(Clone)]
pub struct ObserveLayer {
    pub metrics: Arc<RouteMetrics>,
    pub log: AccessLog,
    pub service: Arc<str>,
    pub route: Arc<str>,
}

#[derive(Clone)]
pub struct Observe<S> {
    observer: Arc<ObserveLayer>,
    inner: S,
}

impl<S> Layer<S> for ObserveLayer {
    type Service = Observe<S>;

    fn layer(&self, inner: S) -> Observe<S> {
        Observe {
            observer: Arc::new(self.clone()),
            inner,
        }
    }
}

impl<S: Call> Service<Request> for Observe<S> {
    type Response = S::Response;
    type Error = Error;
    type Future = Guarded<S::Future, Observation>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let observation = Observation {
            entry: self.observer.log.is_enabled().then(|| Entry::of(&request)),
            observer: self.observer.clone(),
            received: request.context.received,
            mutual_tls: false,
            refused: false,
        };
        Guarded::new(self.inner.call(request), Some(observation))
    }
}

pub struct Observation {
    observer: Arc<ObserveLayer>,
    entry: Option<Entry>,
    received: Instant,
    mutual_tls: bool,
    refused: bool,
}

impl Duty for Observation {
    fn answered(&mut self, result: &Answer) {
        match result {
            Ok(response) => {
                self.mutual_tls = response.body().mutual_tls;
                if let Some(entry) = &mut self.entry {
                    entry.answered(response);
                }
            }
            Err(error) => {
                self.refused = true;
                self.observer.metrics.refused(error.facts().code);
                if let Some(entry) = &mut self.entry {
                    entry.failed(error);
                }
            }
        }
    }

    fn done(self, outcome: Outcome) {
        let outcome = as_the_caller_sees_it(outcome, self.refused);
        let observer = self.observer;
        observer.metrics.observe(
            outcome,
            self.mutual_tls,
            self.received.elapsed().as_secs_f64(),
        );
        observer.log.write(
            self.entry,
            &observer.service,
            &observer.route,
            outcome,
            self.received,
        );
    }
}

/// That a policy refused is no evidence against anybody upstream, but to the caller it is a failure.
fn as_the_caller_sees_it(outcome: Outcome, refused: bool) -> Outcome {
    match outcome {
        Outcome::Cancelled if refused => Outcome::Failure(Fault::Overload),
        outcome => outcome,
    }
}
