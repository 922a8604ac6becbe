//! A service that the app calls: its routes with their policies, its endpoints, and what is shared between them.
//!
//! A new policy replaces routes and stacks; breakers, budget, limit, endpoints and connections stay, with all that they
//! have learnt.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use http::uri::Authority;
use tokio::time::Instant;
use tower::{Layer, ServiceExt};
use weir_config::snapshot;

use crate::access_log::AccessLog;
use crate::connector::Connector;
use crate::endpoints::{ConnectionPlace, Endpoints};
use crate::error::Error;
use crate::facts::Facts;
use crate::head;
use crate::layer::Answer;
use crate::layer::alternate::Alternate;
use crate::layer::breaker::{self, BreakerLayer};
use crate::layer::deadline::DeadlineLayer;
use crate::layer::dispatch::{self, Dispatch};
use crate::layer::fallback::{Choices, FallbackLayer};
use crate::layer::fault;
use crate::layer::hedge::{self, HedgeLayer};
use crate::layer::inherit::{self, InheritLayer};
use crate::layer::limit::{self, LimitLayer};
use crate::layer::priority::PriorityLayer;
use crate::layer::retry::RetryLayer;
use crate::layer::stale::{self, Shelf};
use crate::layer::throttle::{self, ThrottleLayer};
use crate::pipeline::{self, Stack};
use crate::policy::breaker::{Forced, ForcedBy};
use crate::policy::budget::Budget;
use crate::policy::transition::Phase;
use crate::request::Request;
use crate::router::Matcher;
use crate::telemetry::{BackendMetrics, Direction, FallbackMetrics, RouteMetrics};

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

/// The routes of a service as of one policy.
pub struct Routes {
    pub protocol: snapshot::Protocol,
    routes: Vec<Route>,
    /// For what no route matches.
    default: Route,
    /// Where routes of the Gateway API say whom calls go to; then those above are for calls that come here in the end.
    dispatch: Option<Stack>,
}

pub struct Route {
    /// `None`: matches everything.
    matcher: Option<Matcher>,
    /// The policy vouches that this call may be repeated.
    pub idempotent: bool,
    stack: Stack,
}

impl Route {
    pub fn stack(&self) -> Stack {
        self.stack.clone()
    }
}

impl Routes {
    pub fn dispatch(&self) -> Option<Stack> {
        self.dispatch.clone()
    }

    /// Of this service itself, wherever its routes of the Gateway API would send the request.
    pub fn stack(&self, request: &mut Request) -> Stack {
        let route = self.route(request);
        request.context.idempotent |= route.idempotent;
        route.stack()
    }

    fn route(&self, request: &Request) -> &Route {
        let (method, path, grpc) = (
            &request.head.method,
            request.head.uri.path(),
            request.context.grpc,
        );
        let matches = |route: &&Route| {
            route
                .matcher
                .as_ref()
                .is_some_and(|matcher| matcher.matches(method, path, grpc))
        };
        self.routes.iter().find(matches).unwrap_or(&self.default)
    }
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

    pub fn routes(&self) -> Arc<Routes> {
        self.routes.load_full()
    }

    /// A new policy: what was learnt stays.
    pub fn reconfigure(&self, policy: &snapshot::Service) {
        let outbound = &policy.outbound;
        let limits = &outbound.limits;
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

    /// A call that was meant for another service, which failed: to this one, under its own name.
    async fn stand_in(self: Arc<Self>, mut request: Request) -> Answer {
        head::set_authority(&mut request.head, &self.authority);
        let limit = self.standing_in.clone();
        let stack = self.routes().stack(&mut request);
        LimitLayer { limit }.layer(stack).oneshot(request).await
    }

    /// A copy of a call, under the name that the call has; `None`: there are as many of them as may be.
    pub async fn mirrored(self: Arc<Self>, mut request: Request) -> Option<Answer> {
        let limit = self.mirrored.clone();
        let (in_flight, _) = limit.load();
        if in_flight >= MIRRORED_MAX {
            return None;
        }
        let stack = self.routes().stack(&mut request);
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

    /// Route and state of each breaker, and whether it is forced.
    pub fn breakers(&self) -> Vec<(String, Phase, bool)> {
        let breakers = self.breakers.lock().expect("no panic while locked");
        let state = |breaker: &Arc<breaker::Shared>| {
            let (phase, forced) = breaker.state();
            (breaker.route().to_owned(), phase, forced)
        };
        breakers.values().map(state).collect()
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

/// To another service in one's stead, wherever that is by then.
fn alternate(backends: &Directory, service: Arc<str>) -> Stack {
    let backends = backends.clone();
    Stack::new(tower::service_fn(move |request| {
        let backend = backends.load().get(&*service).cloned();
        let service = service.clone();
        async move {
            match backend {
                Some(backend) => backend.stand_in(request).await,
                None => Err(Error::NoEndpoints {
                    service: service.to_string(),
                }),
            }
        }
    }))
}

/// `None`: it is over. The two clocks may differ; so much earlier or later it ends here.
fn forced_by_operator(forced: snapshot::Forced) -> Option<Forced> {
    let until = SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(forced.until_ms))?;
    let left = until.duration_since(SystemTime::now()).ok()?;
    let until = Instant::now().checked_add(left)?;
    Some(Forced {
        to: forced.to,
        by: ForcedBy::Operator { until },
    })
}

/// `spiffe://weir.local/ns/NAMESPACE/sa/…`
fn namespace_of(identity: &str) -> Option<&str> {
    identity.split_once("/ns/")?.1.split('/').next()
}

/// What the stacks of a service share.
struct Parts<'a> {
    service: &'a Arc<str>,
    endpoints: &'a Arc<Endpoints>,
    limit: &'a Arc<limit::Shared>,
    budget: &'a Arc<Mutex<Budget>>,
    throttle: &'a Arc<throttle::Shared>,
    faults: &'a Arc<fault::Shared>,
    metrics: &'a Arc<BackendMetrics>,
    environment: &'a Environment,
}

impl Parts<'_> {
    fn routes(
        &self,
        policy: &snapshot::Service,
        breakers: &mut HashMap<String, Arc<breaker::Shared>>,
        hedges: &mut HashMap<String, Arc<hedge::Shared>>,
    ) -> Routes {
        self.faults
            .reconfigure(&policy.faults, self.identity().as_deref());
        let mut hedged = HashMap::new();
        let mut hedge = |name: &str, config: Option<snapshot::Hedging>| {
            let hedge = self.hedge(config?, hedges.remove(name));
            hedged.insert(name.to_owned(), hedge.clone());
            let mode = policy.mode;
            Some(HedgeLayer { hedge, mode })
        };
        let mut wanted = HashMap::new();
        let operator = policy.forced.and_then(forced_by_operator);
        let mut breaker = |name: &str, config: Option<snapshot::Breaker>| {
            let breaker = breakers
                .remove(name)
                .inspect(|known| known.reconfigure(config))
                .unwrap_or_else(|| {
                    let (facts, metrics) = (self.environment.facts.clone(), self.metrics.clone());
                    Arc::new(breaker::Shared::new(
                        config,
                        self.service.clone(),
                        name.to_owned(),
                        facts,
                        metrics,
                    ))
                });
            let by_policy = config.and_then(|config| config.force).map(|to| Forced {
                to,
                by: ForcedBy::Policy,
            });
            breaker.force(operator.or(by_policy));
            wanted.insert(name.to_owned(), breaker.clone());
            BreakerLayer {
                breaker,
                mode: config.and_then(|config| config.mode).unwrap_or(policy.mode),
            }
        };
        let config = policy.outbound.breaker;
        let common = (config.is_some() || operator.is_some()).then(|| breaker("", config));
        let routes = policy
            .routes
            .iter()
            .map(|route| {
                // A route that says nothing else of its own is judged together with the service.
                let breaker = match route.outbound.breaker {
                    same if same == config => common.clone(),
                    Some(own) => Some(breaker(&route.name, Some(own))),
                    None => None,
                };
                Route {
                    matcher: Some(Matcher::new(&route.matches)),
                    idempotent: route.idempotent,
                    stack: self.stack(
                        &route.name,
                        &route.outbound,
                        breaker,
                        hedge(&route.name, route.outbound.hedging),
                        policy,
                    ),
                }
            })
            .collect();
        let default = Route {
            matcher: None,
            idempotent: false,
            stack: self.stack(
                "",
                &policy.outbound,
                common,
                hedge("", policy.outbound.hedging),
                policy,
            ),
        };
        // Nobody will hear of these again: they must not look forced, or open, for ever.
        for gone in breakers.values() {
            gone.force(None);
        }
        *breakers = wanted;
        *hedges = hedged;
        Routes {
            protocol: policy.protocol,
            routes,
            default,
            dispatch: self.dispatch(policy),
        }
    }

    /// What cannot be done has been refused with its push ([`dispatch::check`]).
    fn dispatch(&self, policy: &snapshot::Service) -> Option<Stack> {
        let identity = self.identity();
        let namespace = identity.as_deref().and_then(namespace_of);
        let routing = dispatch::of_callers(&policy.routing, namespace)?;
        let (backends, log) = (&self.environment.backends, &self.environment.outbound_log);
        let made = Dispatch::new(self.service, policy.key.port, routing, backends, log);
        made.map(Stack::new)
            .inspect_err(|error| tracing::error!(service = %self.service, error, "routes that cannot be read"))
            .ok()
    }

    /// `known`: as it was before this policy.
    fn hedge(
        &self,
        config: snapshot::Hedging,
        known: Option<Arc<hedge::Shared>>,
    ) -> Arc<hedge::Shared> {
        known
            .inspect(|known| known.reconfigure(config))
            .unwrap_or_else(|| {
                Arc::new(hedge::Shared::new(
                    config,
                    self.service,
                    self.budget.clone(),
                    self.endpoints.clone(),
                    self.throttle.clone(),
                ))
            })
    }

    fn fallback(&self, outbound: &snapshot::Outbound) -> Option<FallbackLayer> {
        let fallback = outbound.fallback.as_ref()?;
        let shelf = |stale: snapshot::Stale| Shelf {
            shared: self.environment.stale.clone(),
            service: self.service.clone(),
            age_max: stale.max_age.get(),
        };
        let to = |key: &snapshot::ServiceKey| {
            let service: Arc<str> = key.to_string().into();
            Alternate {
                stack: alternate(&self.environment.backends, service.clone()),
                service,
                deadline: outbound.deadline.map(|deadline| deadline.get()),
            }
        };
        Some(FallbackLayer::new(Choices {
            stale: fallback.stale.map(shelf),
            alternate: fallback.alternate.as_ref().map(to),
            fixed: fallback.answer.clone(),
            metrics: FallbackMetrics::new(self.service),
        }))
    }

    fn stack(
        &self,
        route: &str,
        outbound: &snapshot::Outbound,
        breaker: Option<BreakerLayer>,
        hedge: Option<HedgeLayer>,
        policy: &snapshot::Service,
    ) -> Stack {
        let own = self.identity();
        pipeline::outbound(pipeline::Outbound {
            service: self.service.clone(),
            route: route.into(),
            metrics: Arc::new(RouteMetrics::new(Direction::Outbound, self.service, route)),
            log: self.environment.outbound_log.clone(),
            inherit: InheritLayer {
                shared: self.environment.inherit.clone(),
                deadline: outbound.deadline.is_some(),
            },
            priorities: PriorityLayer::of_caller(&policy.priorities, own.as_deref()),
            fallback: self.fallback(outbound),
            breaker,
            deadline: DeadlineLayer {
                limit: outbound.deadline.map(|deadline| deadline.get()),
            },
            limit: self.limit.clone(),
            retry: RetryLayer {
                retries: Arc::new(outbound.retries.clone()),
                budget: self.budget.clone(),
                endpoints: self.endpoints.clone(),
                metrics: self.metrics.clone(),
            },
            hedge,
            throttle: ThrottleLayer {
                throttle: self.throttle.clone(),
                mode: policy.mode,
            },
            endpoints: self.endpoints.clone(),
            faults: self.faults.clone(),
        })
    }

    fn identity(&self) -> Option<String> {
        let own = self.environment.connector.identity.current()?;
        Some(own.id.as_str().to_owned())
    }
}

#[cfg(test)]
pub(crate) mod tests;
