//! Drops what an overloaded service would refuse anyway, and hears from its answers whether it is.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::future::Either;
use pin_project_lite::pin_project;
use tokio::time::Instant;
use tower::{Layer, Service};
use weir_config::snapshot::Mode;

use super::{Answer, Call};
use crate::body::outcome;
use crate::endpoints::Endpoints;
use crate::error::Error;
use crate::head;
use crate::policy::episode::{Change, Episode};
use crate::policy::outcome::{Fault, Outcome};
use crate::policy::priority::Tier;
use crate::policy::throttle::{Throttle as Policy, Ticket};
use crate::request::Request;
use crate::telemetry::ThrottleMetrics;

/// The throttle of a service, shared by all routes and workers.
pub struct Shared {
    /// No overload answer for a while: nobody takes the lock, and nothing is counted.
    quiet: AtomicBool,
    policy: Mutex<Policy>,
    /// Whoever asked last only observes.
    observes: AtomicBool,
    service: Arc<str>,
    endpoints: Arc<Endpoints>,
    metrics: ThrottleMetrics,
    reported: Mutex<Reported>,
}

/// What people are told of it.
struct Reported {
    episode: Episode,
    /// Requests that were dropped, or would have been, by the last look.
    throttled: u64,
}

/// It has begun to drop calls, or has dropped none for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Throttling {
    pub change: Change,
    /// Of every 100 calls of the default tier, so many are dropped.
    pub dropped_percent: u32,
    /// Of the last half minute.
    pub requests: u32,
    pub accepted: u32,
    /// None were dropped: they were only counted.
    pub observed: bool,
}

/// A service that is asked a few times a second is throttled all the while, and not anew each time.
const GAP: Duration = Duration::from_secs(3);

impl Shared {
    pub fn new(service: Arc<str>, endpoints: Arc<Endpoints>) -> Self {
        let metrics = ThrottleMetrics::new(&service);
        let reported = Reported {
            episode: Episode::new(GAP),
            throttled: metrics.count(Mode::Enforce) + metrics.count(Mode::Observe),
        };
        Self {
            quiet: AtomicBool::new(true),
            policy: Mutex::new(Policy::new(Instant::now())),
            reported: Mutex::new(reported),
            observes: AtomicBool::new(false),
            metrics,
            service,
            endpoints,
        }
    }

    /// No overload answer for half a minute.
    pub fn is_quiet(&self) -> bool {
        self.quiet.load(Ordering::Relaxed) || self.with(|policy| policy.is_quiet(Instant::now()))
    }

    /// Of dropping a request of the default tier.
    pub fn probability(&self) -> f64 {
        if self.is_quiet() {
            return 0.0;
        }
        let load = self.endpoints.said_load(Instant::now());
        self.with(|policy| policy.probability(Tier::Default, load))
    }

    /// A few times a second, off the request path: what there is to tell.
    pub fn tick(&self, now: Instant) -> Option<Throttling> {
        let mut reported = self.reported.lock().expect("no panic while locked");
        let throttled = self.metrics.count(Mode::Enforce) + self.metrics.count(Mode::Observe);
        let throttles = throttled > std::mem::replace(&mut reported.throttled, throttled);
        let change = reported.episode.observe(throttles, now)?;
        self.metrics.throttling(change == Change::Began);
        let load = self.endpoints.said_load(now);
        let policy = self.policy.lock().expect("no panic while locked");
        let (requests, accepted) = policy.window();
        let probability = policy.probability(Tier::Default, load);
        Some(Throttling {
            change,
            dropped_percent: (probability * 100.0).round() as u32,
            requests,
            accepted,
            observed: self.observes.load(Ordering::Relaxed),
        })
    }

    fn admit(&self, tier: Tier, mode: Mode) -> Result<Option<Ticket>, Error> {
        if self.quiet.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let now = Instant::now();
        let load = self.endpoints.said_load(now);
        let (ticket, admitted) = self.with(|policy| {
            if policy.is_quiet(now) {
                return (None, true);
            }
            let (ticket, admitted) = policy.admit(tier, load, now, fastrand::u64(..));
            if !admitted && mode == Mode::Enforce {
                policy.dropped(ticket);
            }
            (Some(ticket), admitted)
        });
        if admitted {
            return Ok(ticket);
        }
        self.metrics.throttled(mode);
        self.observes
            .store(mode == Mode::Observe, Ordering::Relaxed);
        match mode {
            Mode::Observe => Ok(ticket),
            Mode::Enforce => Err(Error::Throttled {
                service: self.service.clone(),
            }),
        }
    }

    fn rejected(&self, ticket: Option<Ticket>, tier: Tier) {
        let in_flight = self.endpoints.in_flight();
        self.with(|policy| policy.rejected(ticket, tier, in_flight, Instant::now()));
    }

    fn with<T>(&self, act: impl FnOnce(&mut Policy) -> T) -> T {
        let now = Instant::now();
        let mut policy = self.policy.lock().expect("no panic while locked");
        let result = act(&mut policy);
        self.quiet.store(policy.is_quiet(now), Ordering::Relaxed);
        result
    }
}

#[derive(Clone)]
pub struct ThrottleLayer {
    pub throttle: Arc<Shared>,
    pub mode: Mode,
}

#[derive(Clone)]
pub struct Throttle<S> {
    throttle: Arc<Shared>,
    mode: Mode,
    inner: S,
}

impl<S> Layer<S> for ThrottleLayer {
    type Service = Throttle<S>;

    fn layer(&self, inner: S) -> Throttle<S> {
        Throttle {
            throttle: self.throttle.clone(),
            mode: self.mode,
            inner,
        }
    }
}

impl<S: Call> Service<Box<Request>> for Throttle<S> {
    type Response = S::Response;
    type Error = Error;
    type Future = Either<Sent<S::Future>, std::future::Ready<Answer>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Box<Request>) -> Self::Future {
        let (tier, grpc) = (request.context.priority.tier, request.context.grpc);
        match self.throttle.admit(tier, self.mode) {
            Ok(ticket) => Either::Left(Sent {
                call: self.inner.call(request),
                throttle: self.throttle.clone(),
                tier,
                grpc,
                ticket,
            }),
            Err(error) => Either::Right(std::future::ready(Err(error))),
        }
    }
}

pin_project! {
    /// A call whose answer may be that the service is overloaded.
    pub struct Sent<F> {
        #[pin]
        call: F,
        throttle: Arc<Shared>,
        tier: Tier,
        grpc: bool,
        ticket: Option<Ticket>,
    }
}

impl<F: Future<Output = Answer>> Future for Sent<F> {
    type Output = Answer;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Answer> {
        let this = self.project();
        let answer = ready!(this.call.poll(cx));
        if is_overload(&answer, *this.grpc) {
            this.throttle.rejected(this.ticket.take(), *this.tier);
        }
        Poll::Ready(answer)
    }
}

/// A sidecar says it in so many words; who has none cannot, its answers are stripped of the mark (`endpoint.rs`).
fn is_overload(answer: &Answer, grpc: bool) -> bool {
    answer.as_ref().is_ok_and(|response| {
        // Most answers are not looked at any further.
        if !grpc && response.status().as_u16() < 400 {
            return false;
        }
        outcome(response) == Outcome::Failure(Fault::Overload)
            && response.headers().contains_key(&head::OVERLOAD)
    })
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, Response, StatusCode};
    use tower::service_fn;

    use super::*;
    use crate::body::Body;
    use crate::endpoints::tests::pool;
    use crate::policy::priority::Priority;
    use crate::request::Context as RequestContext;

    fn request(tier: Tier) -> Box<Request> {
        Box::new(Request {
            head: http::Request::new(()).into_parts().0,
            body: Body::empty(),
            context: RequestContext {
                priority: Priority { tier, cohort: 0 },
                ..RequestContext::opaque(0)
            },
        })
    }

    fn answer(status: u16, mark: Option<&'static str>) -> Response<Body> {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::from_u16(status).expect("a status");
        if let Some(mark) = mark {
            let value = HeaderValue::from_static(mark);
            response.headers_mut().insert(&head::OVERLOAD, value);
        }
        response
    }

    /// How many of `count` calls to a service that answers like this were made.
    async fn sent(
        throttle: &Arc<Shared>,
        mode: Mode,
        count: u32,
        (status, mark): (u16, Option<&'static str>),
    ) -> u32 {
        let service =
            service_fn(move |_: Box<Request>| std::future::ready(Ok(answer(status, mark))));
        let layer = ThrottleLayer {
            throttle: throttle.clone(),
            mode,
        };
        let (mut service, mut sent) = (layer.layer(service), 0);
        for _ in 0..count {
            match service.call(request(Tier::Default)).await {
                Ok(_) => sent += 1,
                Err(error) => assert_eq!(error.facts().code, "throttled"),
            }
        }
        sent
    }

    fn shared() -> Arc<Shared> {
        Arc::new(Shared::new("boutique/cart:7000".into(), pool(1)))
    }

    /// Planted: counting every 5xx, or every 429.
    #[tokio::test(start_paused = true)]
    async fn only_what_a_sidecar_has_marked_is_taken_for_overload() {
        for (status, mark) in [(500, None), (503, None), (429, None), (200, Some("local"))] {
            let throttle = shared();
            let sent = sent(&throttle, Mode::Enforce, 1000, (status, mark)).await;
            assert_eq!(sent, 1000, "{status} {mark:?}");
            assert!(throttle.is_quiet());
        }
        for (status, mark) in [(503, "local"), (503, "service"), (429, "service")] {
            let throttle = shared();
            let sent = sent(&throttle, Mode::Enforce, 1000, (status, Some(mark))).await;
            assert!((10..250).contains(&sent), "{status} {mark}: {sent}");
            assert!(throttle.probability() > 0.5);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn it_lets_go_when_the_service_does_and_is_quiet_after_half_a_minute() {
        let throttle = shared();
        sent(&throttle, Mode::Enforce, 1000, (503, Some("service"))).await;
        let mut last = 0;
        for _ in 0..62 {
            tokio::time::advance(Duration::from_secs(1)).await;
            last = sent(&throttle, Mode::Enforce, 100, (200, None)).await;
        }
        assert_eq!(last, 100);
        assert!(throttle.is_quiet());
        assert_eq!(throttle.probability(), 0.0);
    }

    #[tokio::test(start_paused = true)]
    async fn what_only_observes_counts_and_sends_all() {
        let throttle = shared();
        let before = throttle.metrics.count(Mode::Observe);
        let sent = sent(&throttle, Mode::Observe, 1000, (503, Some("service"))).await;
        assert_eq!(sent, 1000);
        assert!(throttle.metrics.count(Mode::Observe) - before > 500);
    }

    /// Planted: telling it anew whenever a call is dropped.
    #[tokio::test(start_paused = true)]
    async fn that_it_drops_calls_is_told_once_and_that_it_no_longer_does() {
        // Its counters are its own: other tests have other services.
        let service = "boutique/told:7000".into();
        let throttle = Arc::new(Shared::new(service, pool(1)));
        let mut told = Vec::new();
        for tick in 0..600 {
            tokio::time::advance(Duration::from_millis(100)).await;
            // Overloaded for 20 s, with a pause of 2 s in it.
            let status = match tick {
                0..90 | 110..200 => (503, Some("service")),
                _ => (200, None),
            };
            sent(&throttle, Mode::Enforce, 20, status).await;
            told.extend(throttle.tick(Instant::now()).map(|said| (tick, said)));
        }
        let [(began, first), (ended, last)] = told[..] else {
            panic!("{told:?}");
        };
        assert_eq!((first.change, last.change), (Change::Began, Change::Ended));
        assert!((10..30).contains(&began), "{began}");
        assert!(first.dropped_percent > 50 && first.accepted < first.requests / 2);
        assert!(ended > 300, "{ended}");
        assert!(!first.observed);
    }
}
