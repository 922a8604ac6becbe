//! Refuses what the app cannot answer in time, just before it would begin, and tells the app what time is left to a call that
//! waited for its place. Costs a request without a deadline nothing,
//! any other one a comparison before the app is asked and a count after it.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::future::Either;
use pin_project_lite::pin_project;
use tokio::time::Instant;
use tower::{Layer, Service};
use weir_config::snapshot::Mode;

use super::{Answer, Call, admission};
use crate::error::Error;
use crate::policy::doomed::Doomed as Policy;
use crate::request::Request;
use crate::telemetry::{self, Direction};

/// Who waited less for its place is told nothing new: what was said on arrival holds as well.
const WAITED_MIN: Duration = Duration::from_millis(1);

#[derive(Clone)]
pub struct DoomedLayer(Arc<Shared>);

/// How long the app behind a port takes. Shared by all workers; locked for nanoseconds at a time.
struct Shared {
    service: Arc<str>,
    /// Whether somebody waits for a place.
    admission: Arc<admission::Shared>,
    observes: AtomicBool,
    policy: Mutex<Policy>,
    /// In nanoseconds, as of the last answer: whoever has more time than this is not looked at further.
    typical: AtomicU64,
}

impl DoomedLayer {
    pub fn new(service: Arc<str>, admission: Arc<admission::Shared>, mode: Mode) -> Self {
        Self(Arc::new(Shared {
            service,
            admission,
            observes: AtomicBool::new(mode == Mode::Observe),
            policy: Mutex::new(Policy::new(Instant::now())),
            typical: AtomicU64::new(0),
        }))
    }
}

impl DoomedLayer {
    /// A new policy: what was learnt stays, and it holds for connections that are open.
    pub fn reconfigure(&self, mode: Mode) {
        let observes = mode == Mode::Observe;
        self.0.observes.store(observes, Ordering::Relaxed);
    }
}

#[cfg(test)]
impl DoomedLayer {
    pub fn observes(&self) -> bool {
        self.0.observes.load(Ordering::Relaxed)
    }
}

impl Shared {
    fn admit(&self, left: Duration, now: Instant) -> Result<(), Error> {
        let typical = Duration::from_nanos(self.typical.load(Ordering::Relaxed));
        if !left.is_zero() && left >= typical {
            return Ok(());
        }
        let queued = self.admission.queued() > 0;
        let admitted = self.policy().admit(left, queued, now);
        if admitted {
            return Ok(());
        }
        let service = self.service.to_string();
        let refused = Error::Doomed { service, left };
        if self.observes.load(Ordering::Relaxed) {
            telemetry::would_refuse(Direction::Inbound, &self.service, refused.facts().code);
            return Ok(());
        }
        Err(refused)
    }

    fn record(&self, elapsed: Duration, now: Instant) {
        let mut policy = self.policy();
        policy.record(elapsed, now);
        let typical = u64::try_from(policy.typical(now).as_nanos()).unwrap_or(u64::MAX);
        self.typical.store(typical, Ordering::Relaxed);
    }

    fn policy(&self) -> std::sync::MutexGuard<'_, Policy> {
        self.policy.lock().expect("no panic while locked")
    }
}

#[derive(Clone)]
pub struct Doomed<S> {
    shared: Arc<Shared>,
    inner: S,
}

impl<S> Layer<S> for DoomedLayer {
    type Service = Doomed<S>;

    fn layer(&self, inner: S) -> Doomed<S> {
        Doomed {
            shared: self.0.clone(),
            inner,
        }
    }
}

impl<S: Call> Service<Box<Request>> for Doomed<S> {
    type Response = S::Response;
    type Error = Error;
    type Future = Either<Timed<S::Future>, std::future::Ready<Answer>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Box<Request>) -> Self::Future {
        let context = &request.context;
        let mut timed = None;
        // An upgrade lasts for as long as it likes.
        if context.deadline.instant().is_some() && !context.upgrade {
            let now = Instant::now();
            let left = context.deadline.remaining(now).unwrap_or(Duration::MAX);
            if let Err(error) = self.shared.admit(left, now) {
                return Either::Right(std::future::ready(Err(error)));
            }
            if now.saturating_duration_since(context.begun) >= WAITED_MIN {
                request.tell_deadline(now);
            }
            timed = Some((self.shared.clone(), now));
        }
        Either::Left(Timed {
            call: self.inner.call(request),
            timed,
        })
    }
}

pin_project! {
    /// A call, and who wants to know how long it took to the head of its answer.
    pub struct Timed<F> {
        #[pin]
        call: F,
        timed: Option<(Arc<Shared>, Instant)>,
    }
}

impl<F: Future<Output = Answer>> Future for Timed<F> {
    type Output = Answer;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Answer> {
        let this = self.project();
        let answer = ready!(this.call.poll(cx));
        if let (Ok(_), Some((shared, asked))) = (&answer, this.timed.take()) {
            let now = Instant::now();
            shared.record(now.saturating_duration_since(asked), now);
        }
        Poll::Ready(answer)
    }
}

#[cfg(test)]
mod tests {
    use tower::service_fn;
    use weir_config::snapshot::InboundLimits;

    use super::*;
    use crate::body::Body;
    use crate::policy::deadline::Deadline;
    use crate::request::Context as RequestContext;

    const TAKES: Duration = Duration::from_millis(100);

    /// The app answers in 100 ms, and whoever was let in is counted.
    fn app(mode: Mode) -> (impl Call, Arc<AtomicU64>) {
        let admission = admission::Shared::new(&InboundLimits::default());
        let layer = DoomedLayer::new("a/b:1".into(), Arc::new(admission), mode);
        let begun = Arc::new(AtomicU64::new(0));
        let count = begun.clone();
        let service = layer.layer(service_fn(move |_: Box<Request>| {
            count.fetch_add(1, Ordering::Relaxed);
            async {
                tokio::time::sleep(TAKES).await;
                Ok(http::Response::new(Body::empty()))
            }
        }));
        (service, begun)
    }

    async fn call(app: &mut impl Call, left: Option<Duration>) -> Result<(), Error> {
        let deadline = left.map(|left| Deadline::after(left, Instant::now()));
        let request = Box::new(Request {
            head: http::Request::new(()).into_parts().0,
            body: Body::empty(),
            context: RequestContext {
                deadline: deadline.unwrap_or(Deadline::NEVER),
                upgrade: false,
                ..RequestContext::opaque(0)
            },
        });
        app.call(request).await.map(drop)
    }

    #[tokio::test(start_paused = true)]
    async fn what_cannot_be_answered_in_time_does_not_begin_and_may_be_tried_elsewhere() {
        let (mut app, begun) = app(Mode::Enforce);
        for _ in 0..30 {
            call(&mut app, Some(TAKES * 5))
                .await
                .expect("there is time");
        }
        let error = call(&mut app, Some(TAKES / 2))
            .await
            .expect_err("there is not");
        let response = error.into_response(true);
        assert_eq!(response.headers()[&crate::head::GRPC_STATUS], "4");
        assert!(response.headers().contains_key(&crate::head::UNPROCESSED));
        assert_eq!(begun.load(Ordering::Relaxed), 30);
        call(&mut app, None)
            .await
            .expect("who has no deadline is not asked");
    }

    /// It was told what the caller had when it asked, and calls of its own would have waited for nobody.
    #[tokio::test(start_paused = true)]
    async fn who_waited_for_a_place_is_told_what_time_is_left() {
        for (waited, grpc, header, told) in [
            (700, true, "grpc-timeout", "300000u"),
            (700, false, "x-request-timeout-ms", "300"),
            (0, true, "grpc-timeout", "1S"),
        ] {
            let admission = admission::Shared::new(&InboundLimits::default());
            let layer = DoomedLayer::new("a/b:1".into(), Arc::new(admission), Mode::Enforce);
            let mut app = layer.layer(service_fn(async |request: Box<Request>| {
                let mut response = http::Response::new(Body::empty());
                *response.headers_mut() = request.head.headers.clone();
                Ok(response)
            }));
            let begun = Instant::now();
            let mut head = http::Request::new(()).into_parts().0;
            let said = if grpc { "1S" } else { "1000" };
            head.headers.insert(header, said.parse().expect("text"));
            let request = Box::new(Request {
                head,
                body: Body::empty(),
                context: RequestContext {
                    deadline: Deadline::after(Duration::from_secs(1), begun),
                    upgrade: false,
                    begun,
                    grpc,
                    ..RequestContext::opaque(0)
                },
            });
            tokio::time::advance(Duration::from_millis(waited)).await;
            let heard = app.call(request).await.expect("there is time");
            assert_eq!(heard.headers()[header], told, "after {waited} ms");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn while_it_only_observes_it_refuses_nothing_and_counts_what_it_would() {
        let (mut app, begun) = app(Mode::Observe);
        for _ in 0..30 {
            call(&mut app, Some(TAKES * 5))
                .await
                .expect("there is time");
        }
        call(&mut app, Some(TAKES / 2)).await.expect("it observes");
        assert_eq!(begun.load(Ordering::Relaxed), 31);
        let metrics = String::from_utf8(telemetry::render()).expect("text");
        let counted = "weir_would_refuse_total{direction=\"inbound\",reason=\"deadline-too-short\",service=\"a/b:1\"} 1";
        assert!(metrics.contains(counted), "{metrics}");
    }
}
