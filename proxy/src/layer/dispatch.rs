//! Above the policies of any service: by the rules of routes of the Gateway API a call is sent on to one of several
//! services, each with its own endpoints, gates and policies, or is answered here.
//!
//! ```text
//!   call ──▶ first rule that matches ──none──▶ 404
//!                 │
//!                 ├─ redirect ──▶ 301, 302, …
//!                 ▼
//!            headers, path, host, timeouts ──▶ copies (mirror) ──▶ one backend by weight ──not there──▶ 500
//!                                                                       │
//!                                                                       ▼
//!                                                          the stack of that service
//! ```
//!
//! The backends' own routes of the Gateway API are not looked at: nobody is sent on twice.

use std::future::ready;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{HeaderValue, Response, header};
use tower::{Layer, Service, service_fn};
use weir_config::snapshot;

use super::mirror::Mirror;
use super::observe::ObserveLayer;
use super::{Answer, AnswerFuture};
use crate::access_log::AccessLog;
use crate::backend::Directory;
use crate::body::Body;
use crate::error::Error;
use crate::policy::deadline::Deadline;
use crate::policy::terms::Terms;
use crate::request::Request;
use crate::rules::change::{HeaderChanges, Redirect, Rewrite};
use crate::rules::{Rules, pick};
use crate::telemetry::{Direction, RouteMetrics, RoutedMetrics};

#[derive(Clone)]
pub struct Dispatch(Arc<Shared>);

struct Shared {
    service: Arc<str>,
    rules: Rules,
    acts: Vec<Act>,
    backends: Directory,
    unmatched: ObserveLayer,
}

/// One rule, ready for the request path.
struct Act {
    request: HeaderChanges,
    response: HeaderChanges,
    rewrite: Option<Rewrite>,
    redirect: Option<Redirect>,
    mirrors: Vec<Mirror>,
    targets: Vec<Target>,
    terms: Arc<Terms>,
    /// For what it answers itself.
    observe: ObserveLayer,
}

struct Target {
    /// `None`: there is no such service.
    service: Option<Arc<str>>,
    weight: u32,
    request: HeaderChanges,
    response: HeaderChanges,
    metrics: RoutedMetrics,
}

/// What is said without asking anybody.
#[derive(Clone)]
enum Own {
    Redirect(http::StatusCode, HeaderValue),
    Unmatched { service: Arc<str> },
    NoBackend { rule: Arc<str> },
    Nowhere,
}

impl Dispatch {
    /// `Err`: this version cannot do what it says.
    pub fn new(
        service: &Arc<str>,
        port: u16,
        routing: &snapshot::Routing,
        backends: &Directory,
        log: &AccessLog,
    ) -> Result<Self, String> {
        let observe = |route: &str| ObserveLayer {
            metrics: Arc::new(RouteMetrics::new(Direction::Outbound, service, route)),
            log: log.clone(),
            service: service.clone(),
            route: route.into(),
            endpoints: None,
        };
        let act = |rule: &snapshot::Rule| Act::new(service, port, rule, observe(&rule.name));
        Ok(Self(Arc::new(Shared {
            rules: Rules::new(&routing.matches)?,
            acts: routing.rules.iter().map(act).collect::<Result<_, _>>()?,
            backends: backends.clone(),
            unmatched: observe(""),
            service: service.clone(),
        })))
    }
}

impl Service<Box<Request>> for Dispatch {
    type Response = Response<Body>;
    type Error = Error;
    type Future = AnswerFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Box<Request>) -> AnswerFuture {
        let shared = self.0.clone();
        Box::pin(async move { shared.run(request).await })
    }
}

impl Shared {
    async fn run(&self, mut request: Box<Request>) -> Answer {
        let found = self.rules.find(&request.head, request.context.grpc);
        let Some(act) = found.and_then(|place| self.acts.get(place)) else {
            let service = self.service.clone();
            return answer(&self.unmatched, request, Own::Unmatched { service }).await;
        };
        let is_first = request.context.terms.replace(act.terms.clone()).is_none();
        if let Some(redirect) = &act.redirect {
            let own = match redirect.location(&request.head) {
                Some(location) => Own::Redirect(redirect.status(), location),
                None => Own::Nowhere,
            };
            let mut result = answer(&act.observe, request, own).await;
            if let Ok(response) = &mut result {
                act.response.apply(response.headers_mut());
            }
            return result;
        }
        let weights = act.targets.iter().map(|target| target.weight);
        let target = pick(weights, fastrand::u64(..)).and_then(|place| act.targets.get(place));
        if let Some(target) = target {
            target.metrics.count();
        }
        let to = target.and_then(|target| Some((target, target.service.as_deref()?)));
        let Some((target, service)) = to else {
            let rule = act.terms.rule.clone();
            return answer(&act.observe, request, Own::NoBackend { rule }).await;
        };
        let backend = self.backends.load().get(service).cloned();
        let Some(backend) = backend else {
            return self.anew(request, service, is_first).await;
        };
        act.prepare(&mut request);
        let mut later = Vec::new();
        for mirror in &act.mirrors {
            match mirror.copy(&mut request, fastrand::u64(..)) {
                Some(copy) if copy.is_empty() => copy.send(&self.backends),
                copy => later.extend(copy),
            }
        }
        target.request.apply(&mut request.head.headers);
        let call = backend.routes().stack(&mut request).begin(request);
        let mut result = call.await;
        // A body has passed by now, or is longer than a copy may be.
        later.into_iter().for_each(|copy| copy.send(&self.backends));
        if let Ok(response) = &mut result {
            act.response.apply(response.headers_mut());
            target.response.apply(response.headers_mut());
        }
        result
    }

    /// Whom the rule means has gone in this moment, and so has the rule: once more, by what holds now.
    async fn anew(&self, mut request: Box<Request>, gone: &str, is_first: bool) -> Answer {
        let own = self.backends.load().get(&*self.service).cloned();
        let Some(own) = own.filter(|_| is_first) else {
            let service = gone.to_owned();
            return Err(Error::NoEndpoints { service });
        };
        let routes = own.routes();
        let call = match routes.dispatch() {
            Some(dispatch) => dispatch.begin(request),
            None => {
                request.context.terms = None;
                routes.stack(&mut request).begin(request)
            }
        };
        drop(routes);
        call.await
    }
}

impl Act {
    fn new(
        service: &Arc<str>,
        port: u16,
        rule: &snapshot::Rule,
        observe: ObserveLayer,
    ) -> Result<Self, String> {
        let target = |said: &snapshot::RuleBackend| {
            let to: Option<Arc<str>> = said.to.as_ref().map(|key| key.to_string().into());
            Ok(Target {
                metrics: RoutedMetrics::new(service, &rule.name, to.as_deref()),
                service: to,
                weight: said.weight,
                request: HeaderChanges::new(&said.request)?,
                response: HeaderChanges::new(&said.response)?,
            })
        };
        let redirect = rule.redirect.as_ref();
        let redirect = redirect.map(|said| Redirect::new(said, port));
        Ok(Self {
            request: HeaderChanges::new(&rule.request)?,
            response: HeaderChanges::new(&rule.response)?,
            rewrite: rule.rewrite.as_ref().map(Rewrite::new).transpose()?,
            redirect: redirect.transpose()?,
            mirrors: (rule.mirrors.iter())
                .map(|said| Mirror::new(service, &rule.name, said))
                .collect(),
            targets: (rule.backends.iter())
                .map(target)
                .collect::<Result<_, String>>()?,
            terms: Arc::new(Terms::new(rule)),
            observe,
        })
    }

    fn prepare(&self, request: &mut Request) {
        self.request.apply(&mut request.head.headers);
        if let Some(rewrite) = &self.rewrite {
            rewrite.apply(&mut request.head);
        }
        if let Some(limit) = self.terms.deadline() {
            let context = &mut request.context;
            let limit = Deadline::after(limit, context.received);
            context.deadline = context.deadline.min(limit);
        }
    }
}

impl Own {
    fn answer(&self) -> Answer {
        match self {
            Self::Redirect(status, location) => {
                let mut response = Response::new(Body::empty());
                *response.status_mut() = *status;
                let headers = response.headers_mut();
                headers.insert(header::LOCATION, location.clone());
                Ok(response)
            }
            Self::Unmatched { service } => Err(Error::NoRoute {
                service: service.clone(),
            }),
            Self::NoBackend { rule } => Err(Error::NoBackend { rule: rule.clone() }),
            Self::Nowhere => Err(Error::BadRequest("it does not say whom it calls")),
        }
    }
}

/// Counted, logged and kept like what a service answers.
async fn answer(observe: &ObserveLayer, request: Box<Request>, own: Own) -> Answer {
    let says = service_fn(move |_: Box<Request>| ready(own.answer()));
    observe.layer(says).call(request).await
}

/// `Err`: what of it this version cannot do. Asked before a push is put in force.
pub fn check(policy: &snapshot::Service) -> Result<(), String> {
    for routing in &policy.routing {
        Rules::new(&routing.matches)?;
        let lead_nowhere = |it: &&snapshot::RuleMatch| it.rule >= routing.rules.len();
        if let Some(it) = routing.matches.iter().find(lead_nowhere) {
            return Err(format!("there is no rule {}", it.rule));
        }
        for rule in &routing.rules {
            let of_backends = rule.backends.iter();
            let of_backends = of_backends.flat_map(|it| [&it.request, &it.response]);
            for changes in [&rule.request, &rule.response]
                .into_iter()
                .chain(of_backends)
            {
                HeaderChanges::new(changes)?;
            }
            rule.rewrite.as_ref().map(Rewrite::new).transpose()?;
            let redirect = rule.redirect.as_ref();
            let redirect = redirect.map(|said| Redirect::new(said, policy.key.port));
            redirect.transpose()?;
        }
    }
    Ok(())
}

/// The rules that callers of a namespace meet: their own, else those of everybody.
pub fn of_callers<'a>(
    routing: &'a [snapshot::Routing],
    namespace: Option<&str>,
) -> Option<&'a snapshot::Routing> {
    let of = |callers: Option<&str>| {
        routing
            .iter()
            .find(|routing| routing.callers.as_deref() == callers)
    };
    namespace
        .and_then(|namespace| of(Some(namespace)))
        .or_else(|| of(None))
}

#[cfg(test)]
mod tests;
