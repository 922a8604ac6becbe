//! Gives each request its tier: by the service's own rules, before anybody asks for it.

use std::sync::Arc;
use std::task::{Context, Poll};

use arc_swap::ArcSwap;
use tower::{Layer, Service};
use weir_config::snapshot;

use super::Call;
use crate::error::Error;
use crate::policy::priority::Tier;
use crate::request::Request;
use crate::router::Matcher;

/// The rules of a service, in the order in which they are tried. A new policy holds on connections that are open too.
#[derive(Clone)]
pub struct PriorityLayer(Arc<ArcSwap<Vec<Rule>>>);

struct Rule {
    identity: Option<String>,
    matcher: Option<Matcher>,
    tier: Tier,
}

impl PriorityLayer {
    pub fn new(rules: &[snapshot::PriorityRule]) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(compiled(rules))))
    }

    /// Of a service that is called: what its rules say of this caller. `None`: nothing.
    pub fn of_caller(rules: &[snapshot::PriorityRule], own: Option<&str>) -> Option<Self> {
        let concern_us = |rule: &&snapshot::PriorityRule| {
            rule.identity.as_deref().is_none_or(|of| Some(of) == own)
        };
        let said = |rule: &snapshot::PriorityRule| snapshot::PriorityRule {
            identity: None,
            ..rule.clone()
        };
        let rules: Vec<_> = rules.iter().filter(concern_us).map(said).collect();
        (!rules.is_empty()).then(|| Self::new(&rules))
    }

    pub fn reconfigure(&self, rules: &[snapshot::PriorityRule]) {
        self.0.store(Arc::new(compiled(rules)));
    }

    fn tier(&self, request: &Request) -> Option<Tier> {
        let rules = self.0.load();
        let found = rules.iter().find(|rule| rule.matches(request));
        found.map(|rule| rule.tier)
    }
}

fn compiled(rules: &[snapshot::PriorityRule]) -> Vec<Rule> {
    let rule = |rule: &snapshot::PriorityRule| Rule {
        identity: rule.identity.clone(),
        matcher: rule.matches.as_ref().map(Matcher::new),
        tier: tier(rule.tier),
    };
    rules.iter().map(rule).collect()
}

impl Rule {
    fn matches(&self, request: &Request) -> bool {
        let context = &request.context;
        let is_caller = |wanted: &String| context.caller.as_deref() == Some(wanted.as_str());
        let is_called = |matcher: &Matcher| {
            let head = &request.head;
            matcher.matches(&head.method, head.uri.path(), context.grpc)
        };
        self.identity.as_ref().is_none_or(is_caller) && self.matcher.as_ref().is_none_or(is_called)
    }
}

const fn tier(tier: snapshot::Tier) -> Tier {
    match tier {
        snapshot::Tier::CriticalPlus => Tier::CriticalPlus,
        snapshot::Tier::Critical => Tier::Critical,
        snapshot::Tier::Default => Tier::Default,
        snapshot::Tier::Degraded => Tier::Degraded,
        snapshot::Tier::BestEffort => Tier::BestEffort,
        snapshot::Tier::Sheddable => Tier::Sheddable,
    }
}

#[derive(Clone)]
pub struct Priority<S> {
    rules: PriorityLayer,
    inner: S,
}

impl<S> Layer<S> for PriorityLayer {
    type Service = Priority<S>;

    fn layer(&self, inner: S) -> Priority<S> {
        Priority {
            rules: self.clone(),
            inner,
        }
    }
}

impl<S: Call> Service<Box<Request>> for Priority<S> {
    type Response = S::Response;
    type Error = Error;
    type Future = S::Future;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Box<Request>) -> S::Future {
        if let Some(tier) = self.rules.tier(&request) {
            request.context.priority.tier = tier;
        }
        self.inner.call(request)
    }
}

#[cfg(test)]
mod tests {
    use weir_config::snapshot::{PathMatch, RouteMatch};

    use super::*;
    use crate::body::Body;
    use crate::request::Context as RequestContext;

    fn rule(
        identity: Option<&str>,
        path: Option<&str>,
        tier: snapshot::Tier,
    ) -> snapshot::PriorityRule {
        snapshot::PriorityRule {
            identity: identity.map(str::to_owned),
            matches: path.map(|path| RouteMatch::Http {
                method: None,
                path: PathMatch::Prefix(path.to_owned()),
            }),
            tier,
        }
    }

    fn request(caller: Option<&str>, path: &str) -> Box<Request> {
        let head = http::Request::builder()
            .uri(path)
            .body(())
            .expect("a request");
        Box::new(Request {
            head: head.into_parts().0,
            body: Body::empty(),
            context: RequestContext {
                caller: caller.map(Into::into),
                ..RequestContext::opaque(0)
            },
        })
    }

    /// Planted: a rule that names an identity applying to callers without one.
    #[test]
    fn the_first_rule_of_which_all_holds_decides_and_strangers_have_no_identity() {
        const CHECKOUT: &str = "spiffe://cluster.local/ns/boutique/sa/checkout";
        let rules = [
            rule(Some(CHECKOUT), Some("/pay"), snapshot::Tier::CriticalPlus),
            rule(Some(CHECKOUT), None, snapshot::Tier::Critical),
            rule(None, Some("/report"), snapshot::Tier::Sheddable),
        ];
        let rules = PriorityLayer::new(&rules);
        let tier = |caller, path| rules.tier(&request(caller, path));
        assert_eq!(tier(Some(CHECKOUT), "/pay/now"), Some(Tier::CriticalPlus));
        assert_eq!(tier(Some(CHECKOUT), "/report"), Some(Tier::Critical));
        assert_eq!(
            tier(
                Some("spiffe://cluster.local/ns/boutique/sa/cart"),
                "/report"
            ),
            Some(Tier::Sheddable)
        );
        assert_eq!(tier(None, "/pay"), None);
        rules.reconfigure(&[]);
        assert_eq!(rules.tier(&request(Some(CHECKOUT), "/pay/now")), None);
    }

    #[test]
    fn a_caller_knows_what_the_service_says_of_it_and_of_nobody_else() {
        let (us, them) = (
            "spiffe://weir.local/ns/a/sa/us",
            "spiffe://weir.local/ns/a/sa/them",
        );
        let rules = [
            rule(Some(them), None, snapshot::Tier::Sheddable),
            rule(Some(us), Some("/pay"), snapshot::Tier::Critical),
        ];
        // Its own app's calls have no proven caller.
        let ours = PriorityLayer::of_caller(&rules, Some(us)).expect("one concerns us");
        assert_eq!(ours.tier(&request(None, "/pay")), Some(Tier::Critical));
        assert_eq!(ours.tier(&request(None, "/browse")), None);
        for nobody in [None, Some("spiffe://weir.local/ns/a/sa/other")] {
            assert!(PriorityLayer::of_caller(&rules, nobody).is_none());
        }
    }
}
