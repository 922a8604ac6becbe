//! The life of a request, top to bottom: which policies it meets, and in which order.
//!
//! A layer sees what is below it as one call. So each stands where what it means is true: the breaker above the retries,
//! because it judges what callers get; the limit above them too, because a request that is retried holds one place; the
//! gate and the latency below them, because they judge single tries.
//!
//! What no policy of a service decides comes before: a request that makes no sense, or for which the sidecar has no memory
//! (`memory.rs`), is refused in `http.rs`.

use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use http::Response;
use tower::{Service, ServiceBuilder, util::option_layer};

use crate::access_log::AccessLog;
use crate::app::App;
use crate::body::Body;
use crate::endpoints::Endpoints;
use crate::error::Error;
use crate::layer::admission::{self, AdmissionLayer};
use crate::layer::attempt::{Attempt, Sockets, Transport};
use crate::layer::authorize::{self, AuthorizeLayer};
use crate::layer::breaker::BreakerLayer;
use crate::layer::deadline::DeadlineLayer;
use crate::layer::doomed::DoomedLayer;
use crate::layer::fallback::FallbackLayer;
use crate::layer::fault;
use crate::layer::hedge::HedgeLayer;
use crate::layer::inherit::{BequeathLayer, InheritLayer};
use crate::layer::limit::{self, LimitLayer};
use crate::layer::load::LoadLayer;
use crate::layer::observe::ObserveLayer;
use crate::layer::priority::PriorityLayer;
use crate::layer::rate_limit::{self, RateLimitLayer};
use crate::layer::retry::RetryLayer;
use crate::layer::throttle::ThrottleLayer;
use crate::layer::{AnswerFuture, Call};
use crate::request::Request;
use crate::telemetry::RouteMetrics;

/// What the outbound stack of a route is made from.
pub struct Outbound {
    pub service: Arc<str>,
    pub route: Arc<str>,
    pub metrics: Arc<RouteMetrics>,
    pub log: AccessLog,
    pub inherit: InheritLayer,
    pub priorities: Option<PriorityLayer>,
    pub fallback: Option<FallbackLayer>,
    pub breaker: Option<BreakerLayer>,
    pub deadline: DeadlineLayer,
    pub limit: Arc<limit::Shared>,
    pub retry: RetryLayer,
    pub hedge: Option<HedgeLayer>,
    pub throttle: ThrottleLayer,
    pub endpoints: Arc<Endpoints>,
    pub faults: Arc<fault::Shared>,
}

/// From the app to another service.
pub fn outbound(route: Outbound) -> Stack {
    outbound_over(route, Sockets)
}

/// The same over something else than sockets, for tests and benchmarks of the layers alone.
pub fn outbound_over(route: Outbound, transport: impl Transport) -> Stack {
    let observe = ObserveLayer {
        metrics: route.metrics,
        log: route.log,
        service: route.service,
        route: route.route,
        endpoints: Some(route.endpoints.clone()),
    };
    let stack = ServiceBuilder::new()
        .layer(route.inherit) //               deadline and attempt of the call that the app makes it for
        .layer(option_layer(route.priorities)) // what the service says that matters most
        .layer(observe) //                     count, time, log and, where it failed, keep what the caller got
        .layer(option_layer(route.fallback)) // what was said before, or somebody else says
        .layer(option_layer(route.breaker)) //  stop calling a service that fails or has become slow
        .layer(route.deadline) //              all that follows ends by the deadline
        .layer(LimitLayer { limit: route.limit }) // so many in flight, some wait, the rest is refused
        .layer(route.retry) //                 try again where that is safe and paid for
        .layer(option_layer(route.hedge)) //    try a second time beside a first that is slow
        .layer(route.throttle) //              spare a service what it would refuse
        .service(Attempt {
            endpoints: route.endpoints, //     one try: choose an endpoint whose gate is open, send, learn
            faults: route.faults,       //           unless something is to go wrong on purpose
            transport,
        });
    Stack::new(stack)
}

/// What the inbound stack of a port is made from.
pub struct Inbound {
    pub service: Arc<str>,
    pub metrics: Arc<RouteMetrics>,
    pub log: AccessLog,
    pub priorities: PriorityLayer,
    pub admission: Arc<admission::Shared>,
    pub authorization: Arc<authorize::Shared>,
    pub rate_limits: Arc<rate_limit::Shared>,
    pub doomed: DoomedLayer,
    pub bequeath: BequeathLayer,
    pub app: App,
}

/// From others to the app.
pub fn inbound(port: Inbound) -> Stack {
    let observe = ObserveLayer {
        metrics: port.metrics,
        log: port.log,
        service: port.service,
        route: "".into(),
        endpoints: None,
    };
    let stack = ServiceBuilder::new()
        .layer(observe) //                       count, time, log and, where it failed, keep what the caller got
        .layer(AuthorizeLayer {
            authorization: port.authorization, // who may not call gets no further
        })
        .layer(RateLimitLayer {
            limits: port.rate_limits, //         who asks too often is told when to come back
        })
        .layer(DeadlineLayer { limit: None }) // work that the caller no longer waits for is stopped
        .layer(port.priorities) //               what goes first when not all can be served
        .layer(LoadLayer {
            admission: port.admission.clone(), // sidecars that call are told how busy the app is
        })
        .layer(AdmissionLayer {
            admission: port.admission, //        so many in the app, some wait in turn, the rest is refused
        })
        .layer(port.doomed) //                   what the app cannot answer in time is not begun
        .layer(port.bequeath) //                 what the call brings holds for the calls that the app makes
        .service(port.app); //                   the app, in the protocol that the caller's app spoke
    Stack::new(stack)
}

/// One route's policies, stacked. Their type is erased here and nowhere else; what a request costs for it is one
/// allocation, for the future of its call.
#[derive(Clone)]
pub struct Stack(Arc<dyn Fn(Box<Request>) -> AnswerFuture + Send + Sync>);

impl Stack {
    pub fn new(stack: impl Call + Sync) -> Self {
        // A service is called by whoever may change it. A copy a request would be that, at forty counts of references up and
        // down; but a call is begun in less than a microsecond, so all take turns, and who comes meanwhile takes a copy.
        let shared = Mutex::new(stack.clone());
        Self(Arc::new(move |request| match shared.try_lock() {
            Ok(mut stack) => Box::pin(stack.call(request)),
            Err(_) => Box::pin(stack.clone().call(request)),
        }))
    }

    pub fn begin(&self, request: Box<Request>) -> AnswerFuture {
        (self.0)(request)
    }
}

impl Service<Box<Request>> for Stack {
    type Response = Response<Body>;
    type Error = Error;
    type Future = AnswerFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Box<Request>) -> AnswerFuture {
        self.begin(request)
    }
}

#[cfg(test)]
mod tests;
