//! From a policy to the stacks of a service's routes, keeping what breakers and hedges have learnt.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use tokio::time::Instant;
use weir_config::snapshot;

use super::routes::{Route, Routes};
use super::{Directory, Environment};
use crate::endpoints::Endpoints;
use crate::error::Error;
use crate::layer::alternate::Alternate;
use crate::layer::breaker::{self, BreakerLayer};
use crate::layer::deadline::DeadlineLayer;
use crate::layer::dispatch::{self, Dispatch};
use crate::layer::fallback::{Choices, FallbackLayer};
use crate::layer::fault;
use crate::layer::hedge::{self, HedgeLayer};
use crate::layer::inherit::InheritLayer;
use crate::layer::limit;
use crate::layer::priority::PriorityLayer;
use crate::layer::retry::RetryLayer;
use crate::layer::stale::Shelf;
use crate::layer::throttle::{self, ThrottleLayer};
use crate::pipeline::{self, Stack};
use crate::policy::breaker::{Forced, ForcedBy};
use crate::policy::budget::Budget;
use crate::router::Matcher;
use crate::telemetry::{BackendMetrics, Direction, FallbackMetrics, RouteMetrics};

/// What the stacks of a service share.
pub(super) struct Parts<'a> {
    pub(super) service: &'a Arc<str>,
    pub(super) endpoints: &'a Arc<Endpoints>,
    pub(super) limit: &'a Arc<limit::Shared>,
    pub(super) budget: &'a Arc<Mutex<Budget>>,
    pub(super) throttle: &'a Arc<throttle::Shared>,
    pub(super) faults: &'a Arc<fault::Shared>,
    pub(super) metrics: &'a Arc<BackendMetrics>,
    pub(super) environment: &'a Environment,
}

impl Parts<'_> {
    pub(super) fn routes(
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
        let mut breaker = |name: &str, outbound: &snapshot::Outbound| {
            let config = outbound.breaker;
            let mode = config.and_then(|config| config.mode).unwrap_or(policy.mode);
            let breaker = breakers
                .remove(name)
                .inspect(|known| known.reconfigure(config, mode))
                .unwrap_or_else(|| {
                    let (facts, metrics) = (self.environment.facts.clone(), self.metrics.clone());
                    Arc::new(breaker::Shared::new(
                        config,
                        mode,
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
                deadline: outbound.deadline.map(|deadline| deadline.get()),
            }
        };
        let config = policy.outbound.breaker;
        let common =
            (config.is_some() || operator.is_some()).then(|| breaker("", &policy.outbound));
        let routes = policy
            .routes
            .iter()
            .map(|route| {
                // A route that says nothing else of its own is judged together with the service.
                let deadline = route.outbound.deadline.map(|deadline| deadline.get());
                let breaker = match route.outbound.breaker {
                    same if same == config => common
                        .clone()
                        .map(|common| BreakerLayer { deadline, ..common }),
                    Some(_) => Some(breaker(&route.name, &route.outbound)),
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
            gone.reconfigure(None, snapshot::Mode::default());
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
                hedges: hedge.is_some(),
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

/// To another service in one's stead, wherever that is by then.
pub(super) fn alternate(backends: &Directory, service: Arc<str>) -> Stack {
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
