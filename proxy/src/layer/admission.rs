//! Who gets into the app now, who waits, who is turned away: asks the inbound admission of a service, keeps those who
//! wait, and reports how those who got in fared.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::Either;
use http::{HeaderMap, StatusCode, header};
use tokio::sync::oneshot;
use tokio::time::Instant;
use tower::{Layer, Service};
use weir_config::snapshot::{InboundLimits, Mode};

use super::{Answer, AnswerFuture, Call, Guarded};
use crate::body::{Duty, Guard};
use crate::error::Error;
use crate::policy::admission::{
    Admission as Policy, Arrival, Config, Counts, Decision, Entry, Place, Reason,
};
use crate::policy::episode::{Change, Episode};
use crate::policy::fair::WaiterId;
use crate::policy::knee::{Bounds, Ended};
use crate::policy::outcome::{Fault, Outcome};
use crate::request::{self, Request};
use crate::telemetry::InboundMetrics;

/// The admission of a service, shared by all workers; locked for nanoseconds at a time, twice a request.
pub struct Shared {
    policy: Mutex<Policy<Waker>>,
    /// Callers are known by a hash that they cannot choose.
    hasher: RandomState,
    /// Copies of what the policy says, for those who only look.
    in_flight: AtomicU32,
    limit: AtomicU32,
    /// What the metrics know.
    published: Mutex<Counts>,
    reported: Mutex<Reported>,
}

/// What people are told of it.
struct Reported {
    episode: Episode,
    /// How long it had been saturated by the last look.
    saturated: Duration,
}

/// Nobody has found room for a while, or everybody has.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Saturation {
    pub change: Change,
    pub load: Load,
}

/// An app on the brink has room for a moment between two requests.
const GAP: Duration = Duration::from_secs(1);

type Waker = oneshot::Sender<Result<Admitted, Reason>>;

/// What a service has to do, at one moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Load {
    pub in_flight: u32,
    pub streams: u32,
    pub queued: u32,
    /// As it was learnt, whether it is enforced or not.
    pub limit: u32,
    pub baseline: Option<Duration>,
    /// Whether the limit is.
    pub enforced: bool,
    pub counts: Counts,
}

impl Shared {
    pub fn new(limits: &InboundLimits) -> Self {
        let policy = Policy::new(config(limits), Instant::now());
        Self {
            in_flight: AtomicU32::new(0),
            limit: AtomicU32::new(policy.learnt_limit()),
            policy: Mutex::new(policy),
            hasher: RandomState::new(),
            published: Mutex::default(),
            reported: Mutex::new(Reported {
                episode: Episode::new(GAP),
                saturated: Duration::ZERO,
            }),
        }
    }

    /// A new policy: what was learnt stays.
    pub fn reconfigure(self: &Arc<Self>, limits: &InboundLimits) {
        let now = Instant::now();
        self.with(now, |policy| policy.reconfigure(config(limits), now));
    }

    pub fn set_mode(self: &Arc<Self>, mode: Mode) {
        let now = Instant::now();
        self.with(now, |policy| {
            policy.set_observes(mode == Mode::Observe, now)
        });
    }

    /// In flight over the limit: 0.0 idle, 1.0 full, above it where nothing is enforced. Reads two numbers, locks nothing.
    pub fn utilisation(&self) -> f32 {
        let limit = self.limit.load(Ordering::Relaxed).max(1);
        self.in_flight.load(Ordering::Relaxed) as f32 / limit as f32
    }

    /// How many wait for a place.
    pub fn queued(&self) -> u32 {
        self.policy.lock().expect("no panic while locked").queued()
    }

    pub fn load(&self) -> Load {
        let policy = self.policy.lock().expect("no panic while locked");
        Load {
            in_flight: policy.in_flight(),
            streams: policy.streams(),
            queued: policy.queued(),
            limit: policy.learnt_limit(),
            baseline: policy.baseline(),
            enforced: policy.is_enforced(),
            counts: policy.counts(),
        }
    }

    /// Brings the metrics up to date.
    pub fn publish(&self, metrics: &InboundMetrics) {
        let mut published = self.published.lock().expect("no panic while locked");
        let load = self.load();
        metrics.publish(&load, &published);
        *published = load.counts;
    }

    /// A few times a second, off the request path: what there is to tell.
    pub fn tick(&self, now: Instant) -> Option<Saturation> {
        let mut reported = self.reported.lock().expect("no panic while locked");
        let load = self.load();
        let before = std::mem::replace(&mut reported.saturated, load.counts.saturated);
        // Where nothing comes or goes nothing is counted, and whoever waits still waits.
        let saturated = load.queued > 0 || load.counts.saturated > before;
        let change = reported.episode.observe(saturated, now)?;
        Some(Saturation { change, load })
    }

    fn is_answered(&self, place: Place) {
        let mut policy = self.policy.lock().expect("no panic while locked");
        policy.is_answered(place);
    }

    fn with<T>(self: &Arc<Self>, now: Instant, act: impl FnOnce(&mut Policy<Waker>) -> T) -> T {
        let mut policy = self.policy.lock().expect("no panic while locked");
        let result = act(&mut policy);
        self.in_flight.store(policy.in_flight(), Ordering::Relaxed);
        self.limit.store(policy.learnt_limit(), Ordering::Relaxed);
        let decisions = policy.take_decisions();
        drop(policy);
        self.tell(decisions, now);
        result
    }

    /// Not while it is locked: who has left by now drops what it is told, and that gives its place back.
    fn tell(self: &Arc<Self>, decisions: Vec<Decision<Waker>>, now: Instant) {
        for decision in decisions {
            let verdict = decision
                .verdict
                .map(|place| Admitted::new(self.clone(), place, now));
            drop(decision.who.send(verdict));
        }
    }

    /// Without waiting where there is room, so that the common case needs no future of its own.
    fn enter(
        self: &Arc<Self>,
        context: &request::Context,
    ) -> Result<Result<Admitted, Waiting>, Reason> {
        let now = context.received;
        let arrival = Arrival {
            priority: context.priority,
            caller: match &context.caller {
                Some(identity) => self.hasher.hash_one(identity.as_bytes()),
                None => 0,
            },
            patience: context.deadline.remaining(now),
            stream: context.upgrade,
        };
        let mut woken = None;
        let entry = self.with(now, |policy| {
            policy.arrive(arrival, now, || {
                let (wake, receiver) = oneshot::channel();
                woken = Some(receiver);
                wake
            })
        });
        match entry {
            Entry::Admitted(place) => Ok(Ok(Admitted::new(self.clone(), place, now))),
            Entry::Queued { id, until } => Ok(Err(Waiting {
                shared: self.clone(),
                id,
                until,
                woken: woken.expect("whoever is queued was asked for"),
            })),
            Entry::Shed(reason) => Err(reason),
        }
    }
}

fn config(limits: &InboundLimits) -> Config {
    Config {
        in_flight_max: limits.in_flight.get(),
        streams_max: limits.streams.get(),
        queue_length_max: limits.queue.get(),
        wait_max: *limits.queue_timeout,
        adaptive: Bounds {
            min: limits.adaptive.min.get(),
            max: limits.adaptive.max.get(),
        },
        enforced: limits.adaptive.mode == Mode::Enforce,
    }
}

/// A place in the app, given back on drop. Where the connection leaves HTTP it is an extension of the answer, for whoever
/// carries what follows: the answer itself ends with its head.
pub struct Admitted {
    shared: Arc<Shared>,
    place: Place,
    since: Instant,
    /// How long the head of the answer took: what follows it may be as slow as its reader.
    answered: Option<Duration>,
    ended: Ended,
}

impl Admitted {
    fn new(shared: Arc<Shared>, place: Place, since: Instant) -> Self {
        Self {
            shared,
            place,
            since,
            answered: None,
            ended: Ended::Unmeasured,
        }
    }
}

impl Duty for Admitted {
    fn answered(&mut self, answer: &Answer) {
        use http_body::Body as _;
        self.answered = Some(self.since.elapsed());
        let Ok(response) = answer else { return };
        match response.status() {
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => {
                self.ended = Ended::Overloaded;
            }
            _ if is_event_stream(response.headers()) => self.is_stream(),
            // What is there at once ends at once.
            _ if response.body().is_end_stream() => {}
            _ => self.shared.is_answered(self.place),
        }
    }

    fn done(mut self, outcome: Outcome, _: Instant) {
        self.ended = match outcome {
            _ if self.ended == Ended::Overloaded => Ended::Overloaded,
            Outcome::Success => Ended::Answered,
            Outcome::Failure(Fault::Overload) => Ended::Overloaded,
            // It would have taken longer still.
            Outcome::Failure(Fault::Deadline) => Ended::Answered,
            Outcome::Failure(Fault::Hard) => Ended::Failed,
            Outcome::Cancelled if self.answered.is_none() => Ended::GivenUp,
            Outcome::Cancelled => Ended::Unmeasured,
        };
    }
}

impl Admitted {
    fn is_stream(&self) {
        let now = Instant::now();
        self.shared
            .with(now, |policy| policy.is_stream(self.place, now));
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let now = Instant::now();
        let latency = self
            .answered
            .unwrap_or_else(|| now.saturating_duration_since(self.since));
        self.shared.with(now, |policy| {
            policy.leave(self.place, latency, self.ended, now)
        });
    }
}

fn is_event_stream(headers: &HeaderMap) -> bool {
    headers
        .get(header::CONTENT_TYPE)
        .is_some_and(|value| value.as_bytes().starts_with(b"text/event-stream"))
}

/// A place in the queue, left on drop.
struct Waiting {
    shared: Arc<Shared>,
    id: WaiterId,
    until: Instant,
    woken: oneshot::Receiver<Result<Admitted, Reason>>,
}

impl Waiting {
    async fn verdict(mut self) -> Result<Admitted, Reason> {
        if let Ok(Ok(verdict)) = tokio::time::timeout_at(self.until, &mut self.woken).await {
            return verdict;
        }
        if self.give_up(Some(Reason::QueueTimeout)) {
            return Err(Reason::QueueTimeout);
        }
        // It was decided at this very moment, and whoever decided is about to say so.
        (&mut self.woken).await.unwrap_or(Err(Reason::QueueTimeout))
    }

    fn give_up(&self, reason: Option<Reason>) -> bool {
        let now = Instant::now();
        self.shared
            .with(now, |policy| policy.give_up(self.id, reason))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.give_up(None);
    }
}

#[derive(Clone)]
pub struct AdmissionLayer {
    pub admission: Arc<Shared>,
}

#[derive(Clone)]
pub struct Admission<S> {
    admission: Arc<Shared>,
    inner: S,
}

impl<S> Layer<S> for AdmissionLayer {
    type Service = Admission<S>;

    fn layer(&self, inner: S) -> Admission<S> {
        Admission {
            admission: self.admission.clone(),
            inner,
        }
    }
}

impl<S: Call> Service<Box<Request>> for Admission<S> {
    type Response = S::Response;
    type Error = Error;
    type Future = Either<Guarded<S::Future, Admitted>, AnswerFuture>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Box<Request>) -> Self::Future {
        let is_retry = request.context.is_retry;
        let shed = move |reason| Error::Shed {
            reason,
            // Another endpoint has turned it away before: it is not this one alone that has too much to do.
            service: is_retry,
        };
        let upgrade = request.context.upgrade;
        match self.admission.enter(&request.context) {
            Ok(Ok(admitted)) if upgrade => {
                Either::Right(Box::pin(stays(self.inner.call(request), admitted)))
            }
            Ok(Ok(admitted)) => {
                Either::Left(Guarded::new(self.inner.call(request), Some(admitted)))
            }
            Ok(Err(waiting)) => {
                let mut inner = self.inner.clone();
                Either::Right(Box::pin(async move {
                    let admitted = waiting.verdict().await.map_err(shed)?;
                    Guarded::new(inner.call(request), Some(admitted)).await
                }))
            }
            Err(reason) => Either::Right(Box::pin(std::future::ready(Err(shed(reason))))),
        }
    }
}

/// An upgrade holds its place for as long as the connection lasts; one that is refused, as any request does.
async fn stays(call: impl Future<Output = Answer>, admitted: Admitted) -> Answer {
    let mut answer = call.await;
    match &mut answer {
        Ok(response) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
            response.extensions_mut().insert(Arc::new(admitted));
            answer
        }
        _ => Guard::new(admitted).settle(answer),
    }
}

#[cfg(test)]
mod tests;
