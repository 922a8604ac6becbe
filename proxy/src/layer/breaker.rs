//! Asks the circuit breaker of a service (or of one of its routes) before each call and tells it how the call went.

use std::future::{Ready, ready};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::Either;
use tokio::time::Instant;
use tower::{Layer, Service};
use weir_config::snapshot::{Breaker as Config, Mode};

use super::{Answer, Call, Guarded};
use crate::body::Duty;
use crate::error::Error;
use crate::facts::Facts;
use crate::policy::breaker::{Breaker as Policy, Forced, Ticket};
use crate::policy::outcome::Outcome;
use crate::policy::transition::Phase;
use crate::request::Request;
use crate::telemetry::BackendMetrics;

/// A breaker and whom to tell when it changes. Shared by all workers; held for nanoseconds at a time.
pub struct Shared {
    policy: Mutex<Policy>,
    service: Arc<str>,
    /// Empty: of the whole service.
    route: String,
    facts: Facts,
    metrics: Arc<BackendMetrics>,
}

impl Shared {
    /// `config`: `None` where no policy asks for a breaker, and it is only there to be forced.
    pub fn new(
        config: Option<Config>,
        service: Arc<str>,
        route: String,
        facts: Facts,
        metrics: Arc<BackendMetrics>,
    ) -> Self {
        let policy = Policy::new(config);
        metrics.breaker_state(&route, policy.state());
        Self {
            policy: Mutex::new(policy),
            service,
            route,
            facts,
            metrics,
        }
    }

    /// A new policy: what was learnt stays.
    pub fn reconfigure(&self, config: Option<Config>) {
        self.with(|policy| policy.reconfigure(config, Instant::now()));
    }

    /// By an operator, which is the stronger, or by its policy.
    pub fn force(&self, forced: Option<Forced>) {
        self.with(|policy| policy.force(forced, Instant::now()));
    }

    /// For what ends while nobody calls.
    pub fn tick(&self, now: Instant) {
        self.with(|policy| policy.tick(now));
    }

    /// Its state, and whether that is forced.
    pub fn state(&self) -> (Phase, bool) {
        let policy = self.policy.lock().expect("no panic while locked");
        (policy.state(), policy.is_forced())
    }

    pub fn route(&self) -> &str {
        &self.route
    }

    fn with<T>(&self, act: impl FnOnce(&mut Policy) -> T) -> T {
        let mut policy = self.policy.lock().expect("no panic while locked");
        let result = act(&mut policy);
        while let Some(transition) = policy.take_transition() {
            let forced = policy.is_forced();
            self.metrics
                .breaker_changed(&self.route, &transition, forced);
            self.facts
                .breaker_changed(&self.service, &self.route, transition, forced);
        }
        result
    }
}

#[derive(Clone)]
pub struct BreakerLayer {
    pub breaker: Arc<Shared>,
    pub mode: Mode,
}

#[derive(Clone)]
pub struct Breaker<S> {
    breaker: Arc<Shared>,
    mode: Mode,
    inner: S,
}

impl<S> Layer<S> for BreakerLayer {
    type Service = Breaker<S>;

    fn layer(&self, inner: S) -> Breaker<S> {
        Breaker {
            breaker: self.breaker.clone(),
            mode: self.mode,
            inner,
        }
    }
}

impl<S: Call> Service<Request> for Breaker<S> {
    type Response = S::Response;
    type Error = Error;
    type Future = Either<Guarded<S::Future, Admitted>, Ready<Answer>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let breaker = &self.breaker;
        let started = Instant::now();
        let admitted = match breaker.with(|policy| policy.admit(started, fastrand::u64(..))) {
            Ok(ticket) => Some(Admitted {
                breaker: breaker.clone(),
                ticket,
                started,
                answered: None,
            }),
            // Whom an operator forces, he wants forced.
            Err(_) if self.mode == Mode::Observe && !breaker.state().1 => {
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

pub struct Admitted {
    breaker: Arc<Shared>,
    ticket: Ticket,
    started: Instant,
    /// How long the head of the response took: a stream that lasts for hours is not a slow call.
    answered: Option<Duration>,
}

impl Duty for Admitted {
    fn answered(&mut self, _: &Answer) {
        self.answered = Some(self.started.elapsed());
    }

    fn done(self, outcome: Outcome) {
        let elapsed = self.answered.unwrap_or_else(|| self.started.elapsed());
        let (now, rand) = (Instant::now(), fastrand::u64(..));
        self.breaker
            .with(|policy| policy.record(self.ticket, outcome, elapsed, now, rand));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use http::{Response, StatusCode};
    use tower::service_fn;
    use weir_config::snapshot::Force;
    use weir_config::units::Count;

    use super::*;
    use crate::body::Body;
    use crate::facts;
    use crate::policy::breaker::ForcedBy;
    use crate::request::Context as RequestContext;

    /// A service of which every call fails, and the breaker before it.
    struct World {
        breaker: Arc<Shared>,
        asked: AtomicU32,
    }

    impl World {
        /// Two failures open it.
        fn new() -> Self {
            let config = Config {
                minimum_calls: Count::of(2),
                ..Config::default()
            };
            let service: Arc<str> = "breaker/layer:1".into();
            let metrics = Arc::new(BackendMetrics::new(&service));
            let facts = facts::channel().0;
            let route = String::new();
            Self {
                breaker: Arc::new(Shared::new(Some(config), service, route, facts, metrics)),
                asked: AtomicU32::new(0),
            }
        }

        async fn call(&'static self, mode: Mode) -> Answer {
            let failing = service_fn(|_: Request| {
                self.asked.fetch_add(1, Ordering::Relaxed);
                let mut response = Response::new(Body::empty());
                *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
                ready(Ok(response))
            });
            let layer = BreakerLayer {
                breaker: self.breaker.clone(),
                mode,
            };
            let request = Request {
                head: http::Request::new(()).into_parts().0,
                body: Body::empty(),
                context: RequestContext::opaque(0),
            };
            layer.layer(failing).call(request).await
        }

        fn asked(&self) -> u32 {
            self.asked.load(Ordering::Relaxed)
        }
    }

    fn world() -> &'static World {
        Box::leak(Box::new(World::new()))
    }

    #[tokio::test(start_paused = true)]
    async fn an_open_breaker_answers_itself_and_the_service_is_not_asked() {
        let world = world();
        for _ in 0..2 {
            drop(world.call(Mode::Enforce).await.expect("an answer"));
        }
        assert_eq!(world.breaker.state(), (Phase::Open, false));
        let refused = world.call(Mode::Enforce).await;
        let Err(Error::BreakerOpen { retry_after, .. }) = refused else {
            panic!("{:?}", refused.map(|response| response.status()));
        };
        assert!(
            !retry_after.is_zero(),
            "the caller is told when to come back"
        );
        assert_eq!(world.asked(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_only_observes_asks_all_the_same_but_whom_an_operator_forces_is_forced() {
        let world = world();
        for _ in 0..5 {
            drop(world.call(Mode::Observe).await.expect("an answer"));
        }
        assert_eq!(world.breaker.state(), (Phase::Open, false));
        assert_eq!(world.asked(), 5);
        let metrics = String::from_utf8(crate::telemetry::render()).expect("text");
        let counted = "weir_would_refuse_total{direction=\"outbound\",reason=\"circuit-breaker-open\",service=\"breaker/layer:1\"} 3";
        assert!(metrics.contains(counted), "{metrics}");
        world.breaker.force(Some(Forced {
            to: Force::Open,
            by: ForcedBy::Policy,
        }));
        let refused = world.call(Mode::Observe).await;
        assert!(matches!(refused, Err(Error::BreakerOpen { .. })));
        assert_eq!(world.asked(), 5);
    }
}
