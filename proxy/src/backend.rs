//! A service that the app calls: its routes with their policies, its endpoints, and what is shared between them.
//!
//! A new policy replaces routes and stacks; breakers, budget, limit, endpoints and connections stay, with all that they
//! have learnt.

mod routes;
mod stacks;

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use http::uri::Authority;
use tokio::time::Instant;
use tower::{Layer, ServiceExt};
use weir_config::snapshot;

use crate::access_log::AccessLog;
use crate::connector::Connector;
use crate::endpoints::{ConnectionPlace, Endpoints};
use crate::facts::Facts;
use crate::head;
use crate::layer::Answer;
use crate::layer::limit::LimitLayer;
use crate::layer::{breaker, fault, hedge, inherit, limit, stale, throttle};
use crate::policy::budget::Budget;
use crate::request::Request;
use crate::telemetry::BackendMetrics;

pub use routes::Routes;

use stacks::Parts;

/// What all backends are made with.
#[derive(Clone)]
pub struct Environment {
    pub workers: usize,
    pub connector: Connector,
    pub facts: Facts,
    pub outbound_log: AccessLog,
    pub inbound_log: AccessLog,
    /// What calls to the app have brought, for the calls that it makes.
    pub inherit: Arc<inherit::Shared>,
    /// Answers for when nobody gives a fresh one.
    pub stale: Arc<stale::Shared>,
    /// For services that stand in for others.
    pub backends: Directory,
}

/// All that are known, by service; written by discovery alone.
pub type Directory = Arc<ArcSwap<HashMap<String, Arc<Backend>>>>;

/// Of calls that are made in the stead of calls to other services: few, so that those who fall back cannot take down
/// what they fall back on (resilience.md section 9, Hystrix).
const STANDING_IN_MAX: u32 = 10;
/// Of copies of calls: they must not take the places of calls that somebody waits for.
const MIRRORED_MAX: u32 = 64;

pub struct Backend {
    pub service: Arc<str>,
    /// As an app in the same cluster would call it.
    authority: Authority,
    pub endpoints: Arc<Endpoints>,
    /// Downstream connections that use it now: while there are any it is not forgotten.
    pub connections: AtomicUsize,
    limit: Arc<limit::Shared>,
    /// Of those that are made in the stead of calls to other services.
    standing_in: Arc<limit::Shared>,
    /// Of those that are copies.
    mirrored: Arc<limit::Shared>,
    budget: Arc<Mutex<Budget>>,
    throttle: Arc<throttle::Shared>,
    faults: Arc<fault::Shared>,
    /// By route; empty: of the whole service.
    breakers: Mutex<HashMap<String, Arc<breaker::Shared>>>,
    /// By route; empty: of what no route matches.
    hedges: Mutex<HashMap<String, Arc<hedge::Shared>>>,
    metrics: Arc<BackendMetrics>,
    routes: ArcSwap<Routes>,
    environment: Environment,
}

impl Backend {
    pub fn new(policy: &snapshot::Service, environment: Environment) -> Self {
        let service: Arc<str> = policy.key.to_string().into();
        let metrics = Arc::new(BackendMetrics::new(&service));
        let outbound = &policy.outbound;
        let endpoints = Arc::new(Endpoints::new(
            service.clone(),
            outbound,
            environment.workers,
            environment.connector.clone(),
            environment.facts.clone(),
            metrics.clone(),
        ));
        let limits = &outbound.limits;
        let limit = Arc::new(limit::Shared::new(
            service.clone(),
            limits.in_flight.get(),
            limits.queue.get(),
            *limits.queue_timeout,
        ));
        limit.set_mode(policy.mode);
        endpoints.set_mode(policy.mode);
        // Nobody waits there: whoever falls back has waited already.
        let standing_in = limit::Shared::new(service.clone(), STANDING_IN_MAX, 0, Duration::ZERO);
        let mirrored = limit::Shared::new(service.clone(), MIRRORED_MAX, 0, Duration::ZERO);
        let budget = Arc::new(Mutex::new(Budget::new(
            outbound.retries.budget,
            Instant::now(),
        )));
        let throttle = Arc::new(throttle::Shared::new(service.clone(), endpoints.clone()));
        let faults = Arc::new(fault::Shared::new(service.clone()));
        let parts = Parts {
            service: &service,
            endpoints: &endpoints,
            limit: &limit,
            budget: &budget,
            throttle: &throttle,
            faults: &faults,
            metrics: &metrics,
            environment: &environment,
        };
        let (mut breakers, mut hedges) = (HashMap::new(), HashMap::new());
        let routes = ArcSwap::from_pointee(parts.routes(policy, &mut breakers, &mut hedges));
        Self {
            service,
            authority: authority(&policy.key),
            endpoints,
            connections: AtomicUsize::new(0),
            limit,
            standing_in: Arc::new(standing_in),
            mirrored: Arc::new(mirrored),
            budget,
            throttle,
            faults,
            breakers: Mutex::new(breakers),
            hedges: Mutex::new(hedges),
            metrics,
            routes,
            environment,
        }
    }

    pub fn routes(&self) -> Guard<Arc<Routes>> {
        self.routes.load()
    }

    /// A new policy: what was learnt stays.
    pub fn reconfigure(&self, policy: &snapshot::Service) {
        let outbound = &policy.outbound;
        let limits = &outbound.limits;
        self.endpoints.set_mode(policy.mode);
        self.endpoints.reconfigure(outbound);
        self.limit.reconfigure(
            limits.in_flight.get(),
            limits.queue.get(),
            *limits.queue_timeout,
        );
        self.limit.set_mode(policy.mode);
        self.budget
            .lock()
            .expect("no panic while locked")
            .reconfigure(outbound.retries.budget);
        let parts = Parts {
            service: &self.service,
            endpoints: &self.endpoints,
            limit: &self.limit,
            budget: &self.budget,
            throttle: &self.throttle,
            faults: &self.faults,
            metrics: &self.metrics,
            environment: &self.environment,
        };
        let mut breakers = self.breakers.lock().expect("no panic while locked");
        let mut hedges = self.hedges.lock().expect("no panic while locked");
        let routes = parts.routes(policy, &mut breakers, &mut hedges);
        self.routes.store(Arc::new(routes));
    }

    /// Nobody will hear of it again: nothing of it must look open, or forced, for ever.
    pub fn say_goodbye(&self) {
        let breakers = self.breakers.lock().expect("no panic while locked");
        for breaker in breakers.values() {
            breaker.reconfigure(None, snapshot::Mode::default());
            breaker.force(None);
        }
        drop(breakers);
        self.endpoints.say_goodbye();
    }

    /// A call that was meant for another service, which failed: to this one, under its own name.
    async fn stand_in(self: Arc<Self>, mut request: Box<Request>) -> Answer {
        head::set_authority(&mut request.head, &self.authority);
        let limit = self.standing_in.clone();
        let stack = self.routes().stack(&mut request).clone();
        LimitLayer { limit }.layer(stack).oneshot(request).await
    }

    /// A copy of a call, under the name that the call has; `None`: there are as many of them as may be.
    pub async fn mirrored(self: Arc<Self>, mut request: Box<Request>) -> Option<Answer> {
        let limit = self.mirrored.clone();
        let (in_flight, _) = limit.load();
        if in_flight >= MIRRORED_MAX {
            return None;
        }
        let stack = self.routes().stack(&mut request).clone();
        Some(LimitLayer { limit }.layer(stack).oneshot(request).await)
    }

    /// `None`: there are as many opaque connections to it as may be.
    pub fn place_for_connection(&self) -> Option<ConnectionPlace> {
        let (place, within) = self.endpoints.place_for_connection();
        if !within && self.limit.observes() {
            self.metrics.would_refuse("opaque-connections-limit");
            return Some(place);
        }
        within.then_some(place)
    }

    pub fn is_used(&self) -> bool {
        self.connections.load(Ordering::Relaxed) > 0
    }

    /// Who is in flight, who waits, and how many may be.
    pub fn limit(&self) -> &limit::Shared {
        &self.limit
    }

    /// The share of calls that is dropped because the service is overloaded, 0.0 to 1.0.
    pub fn throttled(&self) -> f64 {
        self.throttle.probability()
    }

    /// The policies whose faults its calls meet, and for how much longer.
    pub fn faults(&self) -> Vec<(String, Duration)> {
        self.faults.in_force()
    }

    /// Route and status of each breaker.
    pub fn breakers(&self) -> Vec<(String, breaker::Status)> {
        let breakers = self.breakers.lock().expect("no panic while locked");
        let status = |it: &Arc<breaker::Shared>| (it.route().to_owned(), it.status());
        breakers.values().map(status).collect()
    }

    /// A few times a second, off the request path.
    pub fn tick(&self, now: Instant) {
        self.endpoints.tick(now);
        if let Some(said) = self.throttle.tick(now) {
            self.environment.facts.throttle_changed(&self.service, said);
        }
        let breakers = self.breakers.lock().expect("no panic while locked");
        breakers.values().for_each(|breaker| breaker.tick(now));
    }
}

fn authority(key: &snapshot::ServiceKey) -> Authority {
    let snapshot::ServiceKey {
        namespace,
        name,
        port,
    } = key;
    let name = match port {
        80 => format!("{name}.{namespace}.svc"),
        port => format!("{name}.{namespace}.svc:{port}"),
    };
    // The control plane lets no other names through; a service of another kind is called as nobody's.
    (name.parse()).unwrap_or_else(|_| Authority::from_static("unnamed"))
}

#[cfg(test)]
pub(crate) mod tests;
