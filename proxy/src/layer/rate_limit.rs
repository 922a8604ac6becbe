//! Counts requests by who makes them, and refuses those that come too fast, before anything is spent on them.

use std::future::{Ready, ready};
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use futures_util::future::Either;
use prometheus::IntCounter;
use tokio::time::Instant;
use tower::{Layer, Service};
use weir_config::snapshot::{Mode, RateLimit as Config};

use super::{Answer, Call};
use crate::error::Error;
use crate::head;
use crate::policy::rate_limit::{Key, Per, RateLimits, Refused};
use crate::request::Request;
use crate::telemetry;

/// The rate limits of one of the app's ports, for as long as the sidecar lives: a new policy changes them in place,
/// also for connections that are open.
pub struct Shared {
    /// Whether there is any limit: without one nobody takes the lock.
    configured: AtomicBool,
    state: Mutex<State>,
    /// Seeded at random, so that nobody outside can make two keys share a bucket.
    hash: RandomState,
}

struct State {
    policy: RateLimits,
    service: Arc<str>,
    mode: Mode,
    /// One a rule.
    refused: Vec<IntCounter>,
}

impl Default for Shared {
    fn default() -> Self {
        Self {
            configured: AtomicBool::new(false),
            state: Mutex::new(State {
                policy: RateLimits::default(),
                service: "none".into(),
                mode: Mode::Enforce,
                refused: Vec::new(),
            }),
            hash: RandomState::new(),
        }
    }
}

impl Shared {
    /// A new policy: what was counted stays.
    pub fn reconfigure(&self, limits: &[Config], mode: Mode, service: &Arc<str>) {
        let mut state = self.state.lock().expect("no panic while locked");
        state.policy.reconfigure(limits, Instant::now());
        state.refused = (state.policy.rules())
            .map(|per| telemetry::rate_limited(service, per.as_str(), mode))
            .collect();
        (state.service, state.mode) = (service.clone(), mode);
        self.configured.store(!limits.is_empty(), Ordering::Relaxed);
    }

    fn admit(&self, request: &Request, now: Instant) -> Result<(), Error> {
        let mut state = self.state.lock().expect("no panic while locked");
        let Err(refused) = state.policy.admit(now, |per| self.key(per, request)) else {
            return Ok(());
        };
        let Refused { rule, retry_after } = refused;
        state.refused[rule].inc();
        if state.mode == Mode::Observe {
            return Ok(());
        }
        let per = state.policy.rules().nth(rule).expect("it has refused");
        Err(Error::RateLimited {
            service: state.service.clone(),
            per: per.as_str(),
            retry_after,
        })
    }

    /// Identity is what mutual TLS has proven, never what a header says.
    fn key(&self, per: &Per, request: &Request) -> Key {
        let mut hasher = self.hash.build_hasher();
        match per {
            Per::Caller => request.context.caller.as_deref().hash(&mut hasher),
            // A gRPC method is a path; the paths of HTTP are as many as there are things.
            Per::Method if request.context.grpc => request.head.uri.path().hash(&mut hasher),
            Per::Method => request.head.method.hash(&mut hasher),
            Per::Header(Some(name)) => {
                for value in head::values(&request.head, name) {
                    value.hash(&mut hasher);
                }
            }
            Per::Header(None) | Per::Total => return Key::default(),
        }
        Key(hasher.finish())
    }
}

#[derive(Clone)]
pub struct RateLimitLayer {
    pub limits: Arc<Shared>,
}

#[derive(Clone)]
pub struct RateLimit<S> {
    limits: Arc<Shared>,
    inner: S,
}

impl<S> Layer<S> for RateLimitLayer {
    type Service = RateLimit<S>;

    fn layer(&self, inner: S) -> RateLimit<S> {
        RateLimit {
            limits: self.limits.clone(),
            inner,
        }
    }
}

impl<S: Call> Service<Box<Request>> for RateLimit<S> {
    type Response = S::Response;
    type Error = Error;
    type Future = Either<S::Future, Ready<Answer>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Box<Request>) -> Self::Future {
        if self.limits.configured.load(Ordering::Relaxed)
            && let Err(error) = self.limits.admit(&request, Instant::now())
        {
            return Either::Right(ready(Err(error)));
        }
        Either::Left(self.inner.call(request))
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue, Method, Response};
    use tower::service_fn;
    use weir_config::snapshot::RateLimitKey;
    use weir_config::units::Count;

    use super::*;
    use crate::body::Body;
    use crate::request::Context as RequestContext;

    fn config(per: RateLimitKey) -> Config {
        Config {
            requests_per_second: Count::of(1),
            burst: Count::of(1),
            per,
        }
    }

    fn shared(per: RateLimitKey, mode: Mode) -> Arc<Shared> {
        let shared = Arc::new(Shared::default());
        shared.reconfigure(&[config(per)], mode, &"boutique/cart:7000".into());
        shared
    }

    fn request(caller: Option<&str>) -> Box<Request> {
        Box::new(Request {
            head: http::Request::new(()).into_parts().0,
            body: Body::empty(),
            context: RequestContext {
                caller: caller.map(Into::into),
                ..RequestContext::opaque(0)
            },
        })
    }

    async fn call(limits: &Arc<Shared>, request: Box<Request>) -> Answer {
        let app = service_fn(|_: Box<Request>| ready(Ok(Response::new(Body::empty()))));
        let layer = RateLimitLayer {
            limits: limits.clone(),
        };
        layer.layer(app).call(request).await
    }

    async fn passes(limits: &Arc<Shared>, request: Box<Request>) -> bool {
        call(limits, request).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_says_when_to_come_back_and_is_no_word_of_overload() {
        let limits = shared(RateLimitKey::Caller, Mode::Enforce);
        assert!(passes(&limits, request(Some("a"))).await);
        tokio::time::advance(std::time::Duration::from_millis(300)).await;
        for (grpc, status) in [(true, 200), (false, 429)] {
            let refused = call(&limits, request(Some("a"))).await;
            let response = refused.err().expect("one a second").into_response(grpc);
            let headers = response.headers();
            assert_eq!(response.status(), status);
            assert_eq!(headers["weir-proxy-error"], "rate-limited");
            assert!(
                !headers.contains_key("x-weir-overload"),
                "the service is well"
            );
            if grpc {
                assert_eq!(headers["grpc-status"], "8");
                assert_eq!(headers["grpc-retry-pushback-ms"], "700");
            } else {
                assert_eq!(headers["retry-after"], "1");
            }
        }
        assert!(passes(&limits, request(Some("b"))).await, "another caller");
        tokio::time::advance(std::time::Duration::from_millis(700)).await;
        assert!(passes(&limits, request(Some("a"))).await, "as told");
    }

    /// Planted: keying a stranger by what its headers say.
    #[tokio::test(start_paused = true)]
    async fn who_has_not_proven_who_it_is_shares_one_limit_whatever_it_says() {
        let limits = shared(RateLimitKey::Caller, Mode::Enforce);
        let claim = |name: &str| {
            let mut request = request(None);
            let value = HeaderValue::from_str(name).expect("a value");
            let headers = &mut request.head.headers;
            headers.insert(HeaderName::from_static("x-forwarded-client-cert"), value);
            request
        };
        assert!(passes(&limits, claim("checkout")).await);
        assert!(!passes(&limits, claim("payment")).await);
    }

    #[tokio::test(start_paused = true)]
    async fn headers_and_methods_are_told_apart() {
        let tenant = |value: Option<&'static str>| {
            let mut request = request(None);
            if let Some(value) = value {
                let headers = &mut request.head.headers;
                headers.insert("x-tenant", HeaderValue::from_static(value));
            }
            request
        };
        let limits = shared(RateLimitKey::Header("x-tenant".into()), Mode::Enforce);
        for value in [Some("a"), Some("b"), None] {
            assert!(passes(&limits, tenant(value)).await, "{value:?}");
            assert!(!passes(&limits, tenant(value)).await, "{value:?} again");
        }
        // HTTP/2 has its host in the URI: all hosts had one share.
        let host = |host: &str| {
            let mut request = request(None);
            request.head.uri = format!("http://{host}/").parse().expect("a URI");
            request
        };
        let limits = shared(RateLimitKey::Header("host".into()), Mode::Enforce);
        for name in ["a.shop", "b.shop"] {
            assert!(passes(&limits, host(name)).await, "{name}");
            assert!(!passes(&limits, host(name)).await, "{name} again");
        }
        let method = |grpc, method: Method, path: &'static str| {
            let mut request = request(None);
            request.head.method = method;
            request.head.uri = path.parse().expect("a path");
            request.context.grpc = grpc;
            request
        };
        let limits = shared(RateLimitKey::Method, Mode::Enforce);
        assert!(passes(&limits, method(false, Method::GET, "/a")).await);
        assert!(!passes(&limits, method(false, Method::GET, "/b")).await);
        assert!(passes(&limits, method(true, Method::POST, "/a.B/C")).await);
        assert!(passes(&limits, method(true, Method::POST, "/a.B/D")).await);
        assert!(!passes(&limits, method(true, Method::POST, "/a.B/D")).await);
    }

    #[tokio::test(start_paused = true)]
    async fn what_only_observes_counts_and_lets_pass_and_a_new_policy_holds_at_once() {
        let limits = shared(RateLimitKey::Total, Mode::Observe);
        for _ in 0..3 {
            assert!(passes(&limits, request(None)).await);
        }
        assert_eq!(
            limits.state.lock().expect("not poisoned").refused[0].get(),
            2
        );
        let service: Arc<str> = "boutique/cart:7000".into();
        limits.reconfigure(&[config(RateLimitKey::Total)], Mode::Enforce, &service);
        assert!(!passes(&limits, request(None)).await, "what was taken is");
        limits.reconfigure(&[], Mode::Enforce, &service);
        assert!(passes(&limits, request(None)).await);
    }
}
