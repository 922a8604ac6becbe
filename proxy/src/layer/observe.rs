//! Outermost: counts and times every request, writes the access log, and keeps what did not go as it should.

use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use http::uri::PathAndQuery;
use http::{HeaderValue, Method};
use tokio::time::Instant;
use tower::{Layer, Service};
use weir_config::record::{Kept, Record};

use super::{Answer, Call, Guarded};
use crate::access_log::{AccessLog, Entry};
use crate::body::{self, Duty};
use crate::endpoints::Endpoints;
use crate::error::Error;
use crate::head;
use crate::policy::deadline::Deadline;
use crate::policy::outcome::{Fault, Outcome};
use crate::policy::priority::Priority;
use crate::recorder::{self, Names};
use crate::request::{Protocol, Request};
use crate::telemetry::RouteMetrics;

#[derive(Clone)]
pub struct ObserveLayer {
    pub metrics: Arc<RouteMetrics>,
    pub log: AccessLog,
    pub service: Arc<str>,
    pub route: Arc<str>,
    /// Outbound: for what is slow.
    pub endpoints: Option<Arc<Endpoints>>,
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

impl<S: Call> Service<Box<Request>> for Observe<S> {
    type Response = S::Response;
    type Error = Error;
    type Future = Guarded<S::Future, Observation>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Box<Request>) -> Self::Future {
        let log = &self.observer.log;
        let observation = Observation {
            entry: log.is_enabled().then(|| Box::new(Entry::of(&request))),
            observer: self.observer.clone(),
            subject: Subject::of(&mut request),
            begun: request.context.begun,
            mutual_tls: false,
            answer: Answered::default(),
        };
        Guarded::new(self.inner.call(request), Some(observation))
    }
}

pub struct Observation {
    observer: Arc<ObserveLayer>,
    entry: Option<Box<Entry>>,
    subject: Subject,
    /// When it came, or was made in the stead of another.
    begun: Instant,
    mutual_tls: bool,
    answer: Answered,
}

/// What was asked, by reference counts.
struct Subject {
    method: Method,
    path: Option<PathAndQuery>,
    names: Names,
    protocol: Protocol,
    caller: Option<Arc<str>>,
    deadline: Deadline,
    priority: Priority,
    inherited: bool,
    is_retry: bool,
    stands_in: bool,
    rule: Option<Arc<str>>,
    /// When it came.
    policy_version: u64,
}

/// What was answered; texts only where it was no good.
#[derive(Default)]
struct Answered {
    status: u16,
    grpc_status: Option<HeaderValue>,
    endpoint: Option<SocketAddr>,
    /// The sidecar's own answer, and why.
    error: Option<(&'static str, String)>,
    /// It was no request that could be made.
    mistaken: bool,
}

impl Subject {
    fn of(request: &mut Request) -> Self {
        let context = &mut request.context;
        Self {
            method: request.head.method.clone(),
            path: request.head.uri.path_and_query().cloned(),
            names: context.names.take(),
            protocol: context.protocol,
            caller: context.caller.clone(),
            deadline: context.deadline,
            priority: context.priority,
            inherited: context.heir.is_some(),
            is_retry: context.is_retry,
            stands_in: context.stands_in,
            rule: context.terms.as_ref().map(|terms| terms.rule.clone()),
            policy_version: recorder::policy_version(),
        }
    }
}

impl Duty for Observation {
    fn answered(&mut self, result: &Answer) {
        match result {
            Ok(response) => {
                self.mutual_tls = response.body().mutual_tls;
                self.answer.status = response.status().as_u16();
                self.answer.endpoint = response.body().endpoint;
                if body::outcome(response) != Outcome::Success {
                    self.answer.grpc_status =
                        body::says_status(response).get(&head::GRPC_STATUS).cloned();
                }
                if let Some(entry) = &mut self.entry {
                    entry.answered(response);
                }
            }
            Err(error) => {
                let facts = error.facts();
                self.answer.status = facts.http.as_u16();
                self.answer.endpoint = error.endpoint();
                self.answer.error = Some((facts.code, error.to_string()));
                self.answer.mistaken = matches!(error, Error::BadRequest(_));
                self.observer.metrics.refused(facts.code);
                if let Some(entry) = &mut self.entry {
                    entry.failed(error);
                }
            }
        }
    }

    fn done(mut self, outcome: Outcome, now: Instant) {
        let outcome = as_the_caller_sees_it(outcome, &self.answer);
        let elapsed = now.saturating_duration_since(self.begun);
        if let Some(why) = self.worth_keeping(outcome, elapsed) {
            recorder::end(&self.subject.names, self.record(why, outcome, elapsed));
        }
        let observer = self.observer;
        observer
            .metrics
            .observe(outcome, self.mutual_tls, elapsed.as_secs_f64());
        observer.log.write(
            self.entry.take(),
            &observer.service,
            &observer.route,
            outcome,
            self.begun,
        );
    }
}

impl Observation {
    fn worth_keeping(&self, outcome: Outcome, elapsed: Duration) -> Option<Kept> {
        let key = self.subject.names.key;
        match outcome {
            // It is one try of the call that it is made for, which is still to end.
            _ if self.subject.stands_in => None,
            Outcome::Failure(_) if self.answer.endpoint.is_none() => {
                recorder::keeps_refused(key, self.begun + elapsed).then_some(Kept::Refused)
            }
            Outcome::Failure(_) => Some(Kept::Failed),
            Outcome::Cancelled => Some(Kept::Cancelled),
            Outcome::Success if recorder::has_notes(key) => Some(Kept::Retried),
            Outcome::Success => {
                let p99 = self.observer.endpoints.as_ref().map(|all| all.p99());
                let slow = p99.is_some_and(|p99| !p99.is_zero() && elapsed > p99);
                let sampled = key.is_sample().then_some(Kept::Sampled);
                slow.then_some(Kept::Slow).or(sampled)
            }
        }
    }

    fn record(&self, why: Kept, outcome: Outcome, elapsed: Duration) -> Record {
        let (subject, observer) = (&self.subject, &self.observer);
        let at = SystemTime::now() - elapsed;
        let at = at
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let whole = |span: u128| u64::try_from(span).unwrap_or(u64::MAX);
        let path = subject.path.as_ref().map_or("", |path| path.path());
        let grpc_status = self.answer.grpc_status.as_ref();
        Record {
            // Those are the recorder's to fill in.
            id: String::new(),
            trace: None,
            tries: Vec::new(),
            policy_version: subject.policy_version,
            at_ms: whole(at.as_millis()),
            direction: observer.metrics.direction().as_str().to_owned(),
            service: observer.service.to_string(),
            route: observer.route.to_string(),
            rule: subject.rule.as_ref().map(ToString::to_string),
            method: recorder::cut(subject.method.as_str()),
            path: recorder::cut(path),
            protocol: subject.protocol.as_str().to_owned(),
            caller: subject.caller.as_ref().map(ToString::to_string),
            why,
            deadline_ms: (subject.deadline)
                .remaining(self.begun)
                .map(|left| whole(left.as_millis())),
            inherited: subject.inherited,
            is_retry: subject.is_retry,
            priority: subject.priority.tier.as_str().to_owned(),
            endpoint: self.answer.endpoint.map(|address| address.to_string()),
            status: self.answer.status,
            grpc_status: grpc_status.and_then(|status| Some(recorder::cut(status.to_str().ok()?))),
            code: (self.answer.error.as_ref()).map(|(code, _)| (*code).to_owned()),
            reason: self.answer.error.as_ref().map(|(_, reason)| reason.clone()),
            outcome: match outcome {
                Outcome::Success => "success",
                Outcome::Failure(_) => "failure",
                Outcome::Cancelled => "cancelled",
            }
            .to_owned(),
            took_us: whole(elapsed.as_micros()),
        }
    }
}

/// That a policy refused is no evidence against anybody upstream, but to the caller it is a failure; unless it was its own,
/// as with every 400.
fn as_the_caller_sees_it(outcome: Outcome, answer: &Answered) -> Outcome {
    match outcome {
        Outcome::Cancelled if answer.mistaken => Outcome::Success,
        Outcome::Cancelled if answer.error.is_some() => Outcome::Failure(Fault::Overload),
        outcome => outcome,
    }
}

#[cfg(test)]
mod tests {
    use std::future::ready;

    use http::{HeaderMap, Response};
    use tower::service_fn;
    use weir_config::record::Try;
    use weir_config::snapshot::AccessLog as Format;

    use super::*;
    use crate::body::Body;
    use crate::request::Context as RequestContext;
    use crate::telemetry::Direction;

    /// The recorder is one for the whole process: nobody else's requests live on this worker.
    const WORKER: usize = 7_000;

    fn names(id: &'static str) -> Names {
        let id = HeaderValue::from_static(id);
        Names::of(
            &HeaderMap::from_iter([(head::REQUEST_ID.clone(), id)]),
            WORKER,
        )
    }

    /// What is kept of a request that comes to this. `on_the_way`: what layers below note of it.
    async fn kept(
        id: &'static str,
        comes_to: fn() -> Answer,
        on_the_way: impl FnOnce(recorder::Key),
    ) -> Vec<Record> {
        let layer = ObserveLayer {
            metrics: Arc::new(RouteMetrics::new(
                Direction::Outbound,
                "observe/layer:1",
                "",
            )),
            log: AccessLog::new(Direction::Outbound, Format::Disabled),
            service: "observe/layer:1".into(),
            route: "".into(),
            endpoints: None,
        };
        let mut names = names(id);
        if names.key.is_sample() {
            names = self::names(id); // the first of each thread is kept in any case
        }
        on_the_way(names.key);
        let request = Box::new(Request {
            head: http::Request::new(()).into_parts().0,
            body: Body::empty(),
            context: RequestContext {
                names,
                ..RequestContext::opaque(WORKER)
            },
        });
        let service = service_fn(move |_: Box<Request>| ready(comes_to()));
        drop(layer.layer(service).call(request).await);
        recorder::find(id)
    }

    fn good() -> Answer {
        Ok(Response::new(Body::empty()))
    }

    #[tokio::test]
    async fn what_a_policy_refused_is_a_failure_to_the_caller_and_says_why() {
        let open = || {
            Err(Error::BreakerOpen {
                service: "observe/layer:1".into(),
                retry_after: Duration::from_secs(1),
            })
        };
        let records = kept("observe-refused", open, |_| {}).await;
        let [record] = &records[..] else {
            panic!("{records:?}");
        };
        assert_eq!(
            (record.why, record.outcome.as_str()),
            (Kept::Refused, "failure")
        );
        assert_eq!(record.code.as_deref(), Some("circuit-breaker-open"));
    }

    /// A service that stood in looked as slow as the one that had failed.
    #[tokio::test(start_paused = true)]
    async fn a_call_in_the_stead_of_another_takes_as_long_as_it_takes_itself() {
        let service = "observe/stands-in:1";
        let layer = ObserveLayer {
            metrics: Arc::new(RouteMetrics::new(Direction::Outbound, service, "")),
            log: AccessLog::new(Direction::Outbound, Format::Disabled),
            service: service.into(),
            route: "".into(),
            endpoints: None,
        };
        let mut context = RequestContext::opaque(WORKER);
        tokio::time::advance(Duration::from_secs(3)).await;
        (context.begun, context.stands_in) = (Instant::now(), true);
        let request = Box::new(Request {
            head: http::Request::new(()).into_parts().0,
            body: Body::empty(),
            context,
        });
        let answers = service_fn(|_: Box<Request>| ready(good()));
        drop(layer.layer(answers).call(request).await);
        let metrics = String::from_utf8(crate::telemetry::render()).expect("text");
        let is_meant = |line: &&str| {
            line.starts_with("weir_request_duration_seconds_sum") && line.contains(service)
        };
        let line = metrics.lines().find(is_meant).expect("it is counted");
        assert!(line.ends_with("} 0"), "{line}");
    }

    #[tokio::test]
    async fn a_good_answer_is_kept_with_its_tries_when_it_took_several_and_not_otherwise() {
        assert!(kept("observe-good", good, |_| {}).await.is_empty());
        let attempt = Try {
            ended_us: 1,
            endpoint: None,
            result: "503".into(),
            then: "again at once".into(),
        };
        let noted = attempt.clone();
        let records = kept("observe-retried", good, |key| recorder::note(key, noted)).await;
        let [record] = &records[..] else {
            panic!("{records:?}");
        };
        assert_eq!(
            (record.why, &record.tries[..]),
            (Kept::Retried, &[attempt][..])
        );
    }
}
