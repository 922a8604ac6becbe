//! What can go wrong between accepting a call and answering it.
//!
//! Each variant is one row of one table, [`Error::facts`]: what the caller sees over HTTP and over gRPC, the flag
//! in the access log, who failed, and whether another try may help. Nothing else in the proxy decides any of these.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};

use crate::body::{Body, BodyError};
use crate::head;
use crate::layer::fault;
use crate::policy::admission::Reason;
use crate::policy::outcome::{Fault, Outcome};
use crate::policy::retry::Verdict;

/// Names the reason of an answer that the proxy made itself.
pub static PROXY_ERROR: HeaderName = HeaderName::from_static("weir-proxy-error");

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{service} has no endpoints")]
    NoEndpoints { service: String },
    #[error(
        "no endpoint of {service} is available ({ejected} ejected, {busy} busy, {draining} draining)"
    )]
    NoEndpointAvailable {
        service: String,
        ejected: usize,
        busy: usize,
        draining: usize,
    },
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The request was never written, or the peer vouches that it did not look at it.
    #[error("{address} did not take the request: {source}")]
    Refused {
        address: SocketAddr,
        source: BodyError,
    },
    #[error("{address} broke off: {source}")]
    Upstream {
        address: SocketAddr,
        source: BodyError,
    },
    #[error("{address} was ejected while it held the request")]
    Ejected { address: SocketAddr },
    #[error("{address} took longer than one try may")]
    PerTryTimeout { address: SocketAddr },
    /// `at`: who had it then, where it was sent at all.
    #[error("the deadline of the request has passed")]
    DeadlineExceeded { at: Option<SocketAddr> },
    #[error("{service} usually takes longer than the {}ms that are left", left.as_millis())]
    Doomed { service: String, left: Duration },
    #[error("the circuit breaker of {service} is open")]
    BreakerOpen {
        service: String,
        retry_after: Duration,
    },
    #[error("{service} has too many requests in flight and its queue is full")]
    QueueFull { service: String },
    #[error("{service} has too many requests in flight: waited {}ms in the queue", waited.as_millis())]
    QueueTimeout { service: String, waited: Duration },
    /// Inbound: the app has too much to do, and others come first.
    #[error("{}", reason.text())]
    Shed { reason: Reason, service: bool },
    /// This sidecar's own: who is called has nothing to do with it.
    #[error("the sidecar has hardly any memory left, and does little at a time")]
    OutOfMemory,
    #[error("{service} is overloaded and would most likely refuse this")]
    Throttled { service: Arc<str> },
    #[error("{service} takes no more requests for now: the rate limit per {per} is reached")]
    RateLimited {
        service: Arc<str>,
        per: &'static str,
        retry_after: Duration,
    },
    /// A FaultPolicy made it fail, in every way like a failure of its own accord.
    #[error("{policy} made it fail on purpose: {like}")]
    Injected { policy: Arc<str>, like: Box<Error> },
    #[error("{service} may not be called like this by this caller ({reason})")]
    Denied {
        service: Arc<str>,
        reason: &'static str,
    },
    /// Routes of the Gateway API say where calls go, and none is for this one.
    #[error("no route of {service} matches the request")]
    NoRoute { service: Arc<str> },
    #[error("{rule} sends the request to nobody: there is no such service, or it may not")]
    NoBackend { rule: Arc<str> },
    #[error("the caller broke off while it sent its request: {0}")]
    Aborted(BodyError),
    #[error("CONNECT is not supported")]
    ConnectMethod,
    #[error("the request is malformed: {0}")]
    BadRequest(&'static str),
    #[error("the sidecar has a bug: {0}")]
    Internal(&'static str),
}

/// Why there is no connection. Several requests may wait for one connection, so each gets a copy.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("connecting to {address} failed: {reason}")]
    Io { address: SocketAddr, reason: String },
    #[error("connecting to {address} took longer than {}ms", limit.as_millis())]
    Timeout {
        address: SocketAddr,
        limit: Duration,
    },
    #[error("TLS with {address} failed: {reason}")]
    Tls { address: SocketAddr, reason: String },
    #[error("{address} proved to be {found}, not {expected}")]
    WrongIdentity {
        address: SocketAddr,
        expected: String,
        found: String,
    },
    #[error("this sidecar has no valid certificate")]
    NoCertificate,
}

impl ConnectError {
    fn endpoint(&self) -> Option<SocketAddr> {
        match self {
            Self::Io { address, .. }
            | Self::Timeout { address, .. }
            | Self::Tls { address, .. }
            | Self::WrongIdentity { address, .. } => Some(*address),
            Self::NoCertificate => None,
        }
    }
}

/// Who has to change something for it to go better next time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    Downstream,
    Upstream,
    /// A policy or this proxy's own state refused: nobody upstream was asked.
    Proxy,
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    pub http: StatusCode,
    /// gRPC status code.
    pub grpc: u8,
    /// Value of the `weir-proxy-error` header.
    pub code: &'static str,
    /// For the access log: Envoy's long names, which people's tools know.
    pub flag: &'static str,
    pub blame: Blame,
    pub verdict: Verdict,
}

const CANCELLED: u8 = 1;
const DEADLINE_EXCEEDED: u8 = 4;
const PERMISSION_DENIED: u8 = 7;
const RESOURCE_EXHAUSTED: u8 = 8;
const UNIMPLEMENTED: u8 = 12;
const INTERNAL: u8 = 13;
const UNAVAILABLE: u8 = 14;

impl Error {
    pub fn facts(&self) -> Facts {
        use Blame::{Downstream, Proxy, Upstream};
        use StatusCode as S;
        use Verdict as V;
        let row = |http, grpc, code, flag, blame, verdict| Facts {
            http,
            grpc,
            code,
            flag,
            blame,
            verdict,
        };
        #[rustfmt::skip]
        let facts = match self {
            Self::NoEndpoints { .. } => row(S::SERVICE_UNAVAILABLE, UNAVAILABLE, "no-endpoints", "NoHealthyUpstream", Upstream, V::Final),
            Self::NoEndpointAvailable { busy: 1.., .. } => row(S::SERVICE_UNAVAILABLE, RESOURCE_EXHAUSTED, "no-endpoint-available", "UpstreamOverflow", Proxy, V::Final),
            Self::NoEndpointAvailable { .. } => row(S::SERVICE_UNAVAILABLE, UNAVAILABLE, "no-endpoint-available", "NoHealthyUpstream", Upstream, V::Final),
            Self::Connect(ConnectError::Io { .. }) => row(S::BAD_GATEWAY, UNAVAILABLE, "connect-failed", "UpstreamConnectionFailure", Upstream, V::Unprocessed),
            Self::Connect(ConnectError::Timeout { .. }) => row(S::BAD_GATEWAY, UNAVAILABLE, "connect-timeout", "UpstreamConnectionFailure", Upstream, V::Unprocessed),
            Self::Connect(ConnectError::Tls { .. }) => row(S::BAD_GATEWAY, UNAVAILABLE, "tls-failed", "UpstreamConnectionFailure", Upstream, V::Unprocessed),
            Self::Connect(ConnectError::WrongIdentity { .. }) => row(S::BAD_GATEWAY, UNAVAILABLE, "wrong-identity", "UpstreamConnectionFailure", Upstream, V::Unprocessed),
            Self::Connect(ConnectError::NoCertificate) => row(S::BAD_GATEWAY, UNAVAILABLE, "no-certificate", "UpstreamConnectionFailure", Proxy, V::Final),
            Self::Refused { .. } => row(S::BAD_GATEWAY, UNAVAILABLE, "request-refused", "UpstreamConnectionTermination", Upstream, V::Unprocessed),
            Self::Upstream { .. } => row(S::BAD_GATEWAY, UNAVAILABLE, "upstream-reset", "UpstreamConnectionTermination", Upstream, V::Unavailable),
            Self::Ejected { .. } => row(S::GATEWAY_TIMEOUT, UNAVAILABLE, "endpoint-ejected", "UpstreamRequestTimeout", Upstream, V::Unavailable),
            Self::PerTryTimeout { .. } => row(S::GATEWAY_TIMEOUT, UNAVAILABLE, "per-try-timeout", "UpstreamPerTryTimeout", Upstream, V::Unavailable),
            Self::DeadlineExceeded { .. } => row(S::GATEWAY_TIMEOUT, DEADLINE_EXCEEDED, "deadline-exceeded", "UpstreamRequestTimeout", Upstream, V::Final),
            Self::Doomed { .. } => row(S::GATEWAY_TIMEOUT, DEADLINE_EXCEEDED, "deadline-too-short", "UpstreamRequestTimeout", Proxy, V::Unprocessed),
            Self::BreakerOpen { .. } => row(S::SERVICE_UNAVAILABLE, UNAVAILABLE, "circuit-breaker-open", "UpstreamOverflow", Proxy, V::Final),
            Self::QueueFull { .. } => row(S::SERVICE_UNAVAILABLE, RESOURCE_EXHAUSTED, "queue-full", "UpstreamOverflow", Proxy, V::Final),
            Self::QueueTimeout { .. } => row(S::SERVICE_UNAVAILABLE, RESOURCE_EXHAUSTED, "queue-timeout", "UpstreamOverflow", Proxy, V::Final),
            Self::Shed { reason, .. } => row(S::SERVICE_UNAVAILABLE, RESOURCE_EXHAUSTED, reason.as_str(), "UpstreamOverflow", Proxy, V::Final),
            Self::OutOfMemory => row(S::SERVICE_UNAVAILABLE, RESOURCE_EXHAUSTED, "out-of-memory", "OverloadManager", Proxy, V::Final),
            Self::Throttled { .. } => row(S::SERVICE_UNAVAILABLE, RESOURCE_EXHAUSTED, "throttled", "UpstreamOverflow", Proxy, V::Overloaded { service: true }),
            Self::RateLimited { .. } => row(S::TOO_MANY_REQUESTS, RESOURCE_EXHAUSTED, "rate-limited", "RateLimited", Proxy, V::Final),
            Self::Injected { like, .. } => Facts { code: fault::CODE, flag: "FaultInjected", ..like.facts() },
            Self::Denied { .. } => row(S::FORBIDDEN, PERMISSION_DENIED, "permission-denied", "PermissionDenied", Proxy, V::Final),
            Self::NoRoute { .. } => row(S::NOT_FOUND, UNIMPLEMENTED, "no-route", "NoRouteFound", Downstream, V::Final),
            Self::NoBackend { .. } => row(S::INTERNAL_SERVER_ERROR, UNAVAILABLE, "no-backend", "NoClusterFound", Proxy, V::Final),
            Self::Aborted(_) => row(S::BAD_REQUEST, CANCELLED, "request-aborted", "DownstreamRemoteDisconnect", Downstream, V::Final),
            Self::ConnectMethod => row(S::NOT_IMPLEMENTED, UNIMPLEMENTED, "connect-not-supported", "DownstreamProtocolError", Downstream, V::Final),
            Self::BadRequest(_) => row(S::BAD_REQUEST, INTERNAL, "bad-request", "DownstreamProtocolError", Downstream, V::Final),
            Self::Internal(_) => row(S::INTERNAL_SERVER_ERROR, INTERNAL, "internal", "LocalReset", Proxy, V::Final),
        };
        facts
    }

    /// The same, known to be the doing of that policy.
    pub fn injected_by(self, policy: &Arc<str>) -> Self {
        Self::Injected {
            policy: policy.clone(),
            like: Box::new(self),
        }
    }

    /// What the failure says about whoever was called.
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::DeadlineExceeded { .. } | Self::Doomed { .. } => {
                Outcome::Failure(Fault::Deadline)
            }
            Self::Injected { like, .. } => like.outcome(),
            // What cannot be said to a peer has not been.
            Self::Aborted(_) | Self::BadRequest(_) => Outcome::Cancelled,
            Self::QueueFull { .. }
            | Self::QueueTimeout { .. }
            | Self::Shed { .. }
            | Self::OutOfMemory => Outcome::Failure(Fault::Overload),
            _ => match self.facts().blame {
                Blame::Downstream => Outcome::Success,
                Blame::Upstream => Outcome::Failure(Fault::Hard),
                Blame::Proxy => Outcome::Cancelled,
            },
        }
    }

    /// The endpoint that failed or had it last, where it was one.
    pub fn endpoint(&self) -> Option<SocketAddr> {
        match self {
            Self::Connect(error) => error.endpoint(),
            Self::Injected { like, .. } => like.endpoint(),
            Self::DeadlineExceeded { at } => *at,
            Self::Refused { address, .. }
            | Self::Upstream { address, .. }
            | Self::Ejected { address }
            | Self::PerTryTimeout { address } => Some(*address),
            Self::NoEndpoints { .. }
            | Self::NoEndpointAvailable { .. }
            | Self::Doomed { .. }
            | Self::BreakerOpen { .. }
            | Self::QueueFull { .. }
            | Self::QueueTimeout { .. }
            | Self::Shed { .. }
            | Self::OutOfMemory
            | Self::Throttled { .. }
            | Self::RateLimited { .. }
            | Self::Denied { .. }
            | Self::NoRoute { .. }
            | Self::NoBackend { .. }
            | Self::Aborted(_)
            | Self::ConnectMethod
            | Self::BadRequest(_)
            | Self::Internal(_) => None,
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::BreakerOpen { retry_after, .. } | Self::RateLimited { retry_after, .. } => {
                Some(*retry_after)
            }
            Self::QueueFull { .. }
            | Self::QueueTimeout { .. }
            | Self::Shed { .. }
            | Self::OutOfMemory
            | Self::Throttled { .. } => Some(Duration::from_secs(1)),
            _ => None,
        }
    }

    /// Whose overload it is, in the words of [`head::OVERLOAD`].
    fn overload(&self) -> Option<&'static str> {
        match self {
            Self::QueueFull { .. }
            | Self::QueueTimeout { .. }
            | Self::OutOfMemory
            | Self::Shed { service: false, .. } => Some("local"),
            Self::Shed { service: true, .. } => Some("service"),
            // Above a rate limit is not overload: it says exactly when it is worth coming back.
            _ => None,
        }
    }

    /// For people. What is refused because there is too much to do costs no formatting.
    fn message(&self) -> Cow<'static, str> {
        match self {
            Self::Shed { reason, .. } => Cow::Borrowed(reason.text()),
            other => Cow::Owned(other.to_string()),
        }
    }

    /// How a gRPC answer ends that has begun.
    pub fn trailers(&self) -> HeaderMap {
        let mut trailers = HeaderMap::with_capacity(2);
        let status = HeaderValue::from(u16::from(self.facts().grpc));
        trailers.insert(&head::GRPC_STATUS, status);
        trailers.insert(&head::GRPC_MESSAGE, percent_encoded(&self.message()));
        trailers
    }

    /// The answer in the caller's own protocol: a gRPC caller gets a status, never a bare 503.
    pub fn into_response(self, grpc: bool) -> Response<Body> {
        let facts = self.facts();
        let message = self.message();
        let mut response = if grpc {
            let message = match message {
                Cow::Borrowed(plain) => HeaderValue::from_static(plain),
                Cow::Owned(message) => percent_encoded(&message),
            };
            let mut response = grpc_answer(facts.grpc, message);
            if let Some(after) = self.retry_after() {
                response.headers_mut().insert(
                    "grpc-retry-pushback-ms",
                    HeaderValue::from(rounded_up(after, Duration::from_millis(1))),
                );
            }
            response
        } else {
            let text = match message {
                Cow::Borrowed(plain) => Bytes::from_static(plain.as_bytes()),
                Cow::Owned(message) => format!("{message}\n").into(),
            };
            let mut response = text_answer(facts.http, text);
            if let Some(after) = self.retry_after() {
                let seconds = rounded_up(after, Duration::from_secs(1));
                let headers = response.headers_mut();
                headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)));
            }
            response
        };
        response
            .headers_mut()
            .insert(&PROXY_ERROR, HeaderValue::from_static(facts.code));
        if let Self::Injected { policy, .. } = &self
            && let Ok(policy) = HeaderValue::from_str(policy)
        {
            response.headers_mut().insert(&head::FAULT, policy);
        }
        if let Some(whose) = self.overload() {
            response
                .headers_mut()
                .insert(&head::OVERLOAD, HeaderValue::from_static(whose));
        }
        if facts.verdict == Verdict::Unprocessed {
            response
                .headers_mut()
                .insert(&head::UNPROCESSED, HeaderValue::from_static("true"));
        }
        response
    }
}

/// Who comes back at the time that is named must not be early.
fn rounded_up(after: Duration, unit: Duration) -> u64 {
    u64::try_from(after.as_nanos().div_ceil(unit.as_nanos())).unwrap_or(u64::MAX)
}

/// To a gRPC caller: the status is in the head, and there is no body ("Trailers-Only" of gRPC over HTTP/2).
pub(crate) fn grpc_answer(status: u8, message: HeaderValue) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/grpc"),
    );
    headers.insert(&head::GRPC_STATUS, HeaderValue::from(u16::from(status)));
    headers.insert(&head::GRPC_MESSAGE, message);
    response
}

/// To any other caller.
pub(crate) fn text_answer(status: StatusCode, text: Bytes) -> Response<Body> {
    let mut response = Response::new(Body::full(text));
    *response.status_mut() = status;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    response
}

/// `grpc-message` is percent-encoded outside printable ASCII (gRPC over HTTP/2, "Responses").
pub fn percent_encoded(text: &str) -> HeaderValue {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'%' | 0..=0x1f | 0x7f.. => {
                use std::fmt::Write;
                let _ = write!(encoded, "%{byte:02X}");
            }
            _ => encoded.push(char::from(byte)),
        }
    }
    HeaderValue::from_str(&encoded).expect("printable ASCII is a header value")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grpc_caller_gets_a_status_and_never_a_bare_503() {
        let error = Error::BreakerOpen {
            service: "boutique/currency:7000".into(),
            retry_after: Duration::from_millis(1500),
        };
        let response = error.into_response(true);
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["grpc-status"], "14");
        assert_eq!(response.headers()["grpc-retry-pushback-ms"], "1500");
        assert_eq!(response.headers()[&PROXY_ERROR], "circuit-breaker-open");
    }

    /// It was a success of an endpoint that nobody had asked: three of them, and one that was down was taken back.
    #[test]
    fn a_request_that_cannot_be_made_tells_nothing_of_whom_it_was_for() {
        let error = Error::BadRequest("its Host header is no authority");
        assert_eq!(error.outcome(), Outcome::Cancelled);
        assert_eq!(error.facts().http, StatusCode::BAD_REQUEST);
    }

    #[test]
    fn an_http_caller_gets_a_status_a_reason_and_when_to_come_back() {
        let error = Error::QueueFull {
            service: "a/b:1".into(),
        };
        let response = error.into_response(false);
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers()[&PROXY_ERROR], "queue-full");
        assert_eq!(response.headers()[header::RETRY_AFTER], "1");
    }

    #[test]
    fn nobody_is_told_to_come_back_before_the_breaker_lets_them_through() {
        for (millis, seconds) in [(0, "1"), (1000, "1"), (4001, "5"), (5900, "6")] {
            let error = Error::BreakerOpen {
                service: String::new(),
                retry_after: Duration::from_millis(millis),
            };
            let response = error.into_response(false);
            assert_eq!(
                response.headers()[header::RETRY_AFTER],
                seconds,
                "{millis} ms"
            );
        }
    }

    #[test]
    fn a_message_with_odd_bytes_is_still_a_header() {
        assert_eq!(percent_encoded("a%b\nü"), "a%25b%0A%C3%BC");
    }

    #[test]
    fn what_the_proxy_refused_itself_is_no_evidence_against_an_endpoint() {
        let error = Error::BreakerOpen {
            service: String::new(),
            retry_after: Duration::ZERO,
        };
        assert_eq!(error.outcome(), Outcome::Cancelled);
        assert_eq!(
            Error::DeadlineExceeded { at: None }.outcome(),
            Outcome::Failure(Fault::Deadline)
        );
    }
}
