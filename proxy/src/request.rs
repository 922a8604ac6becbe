//! A request on its way through the pipeline: its head, its body, and what the sidecar knows about it.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use tokio::time::Instant;

use crate::body::Body;
use crate::head;
use crate::interim::Interim;
use crate::layer::inherit::Heir;
use crate::policy::budget::Budget;
use crate::policy::deadline::{Deadline, GrpcTimeout, format_millis};
use crate::policy::priority::Priority;
use crate::policy::terms::Terms;
use crate::race::Race;
use crate::recorder::Names;
use crate::replay::Replay;

/// Boxed from where it is made to where it is sent: a dozen layers pass it on, and by value each would copy it, and have
/// room for it in the future of its call.
pub struct Request {
    pub head: Parts,
    pub body: Body,
    pub context: Context,
}

/// What holds for a request whatever happens to its head and body. Cheap to clone: each attempt has its own.
#[derive(Clone)]
pub struct Context {
    /// Which worker the request lives on; its upstream connections live there too.
    pub worker: usize,
    pub received: Instant,
    /// For the whole request, all attempts included.
    pub deadline: Deadline,
    pub protocol: Protocol,
    pub grpc: bool,
    /// The caller asked to leave HTTP (a WebSocket, say): such a call gets a connection of its own.
    pub upgrade: bool,
    /// May be repeated: by its method, its `Idempotency-Key`, or because a policy vouches for it.
    pub idempotent: bool,
    /// Somebody tried before, at this hop or further up: retrying below would multiply (resilience.md section 5).
    pub is_retry: bool,
    /// Counted from 1.
    pub attempt: u32,
    /// When this attempt began, or a call in the stead of another: what is asked of the clock once, not by each layer that
    /// a call passes at once.
    pub begun: Instant,
    /// Another attempt may follow this one where it is given up, so nobody need wait for an endpoint that has been ejected.
    pub replayable: bool,
    /// Where it fails it may be made again, by whichever layer: worth a look at what comes behind its head.
    pub may_be_repeated: bool,
    /// When this attempt gives up, because the policy says so.
    pub try_until: Deadline,
    /// `None`: no other attempt follows.
    pub share: Option<Share>,
    /// Endpoints on which earlier attempts failed.
    pub tried: Vec<SocketAddr>,
    /// The request may be tried twice at the same time.
    pub race: Option<Arc<Race>>,
    /// This is the second of two tries at the same time.
    pub hedge: bool,
    /// It is made in the stead of a call to another service, which failed: once, and nothing stands in for it.
    pub stands_in: bool,
    /// It is a copy, whose answer nobody gets: it has its own time and its own place in queues, not those of its call.
    pub is_copy: bool,
    /// Where informational responses go; `None` where they are not wanted.
    pub interim: Option<Interim>,
    /// What goes first when not all can be served.
    pub priority: Priority,
    /// Outbound: the app says itself how much its call matters.
    pub says_tier: bool,
    /// Who called, as proven by mutual TLS.
    pub caller: Option<Arc<str>>,
    /// For the flight recorder.
    pub names: Names,
    /// Outbound: what the rule of a route says that it meets.
    pub terms: Option<Arc<Terms>>,
    /// Outbound: it is made because of a call to the app, and has inherited from that.
    pub heir: Option<Heir>,
}

// Names rather than text: inserting a name copies nothing.
const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

impl Request {
    /// The next hop learns how much time is left, in the form that its protocol uses; clocks are not compared.
    pub fn tell_deadline(&mut self, now: Instant) {
        let Some(left) = self.context.deadline.forward(now) else {
            return;
        };
        let headers = &mut self.head.headers;
        if self.context.grpc {
            let value = HeaderValue::from_bytes(GrpcTimeout::new(left).as_bytes());
            headers.insert(GRPC_TIMEOUT, value.expect("digits and a letter"));
        } else {
            headers.insert(
                &head::REQUEST_TIMEOUT_MS,
                HeaderValue::from(format_millis(left)),
            );
        }
    }
}

/// What one try may take of the time of a call, so that others can follow: as soon as one is paid for.
#[derive(Clone)]
pub struct Share {
    pub until: Deadline,
    pub budget: Arc<Mutex<Budget>>,
    /// What another try would have to send; `None`: nothing.
    pub replay: Option<Replay>,
}

impl Share {
    /// How long no other try can follow, because none would be paid for. Zero: one can take this one's place now. `None`:
    /// none ever will, for the body has outgrown what is kept.
    pub fn until_another(&self, now: Instant) -> Option<Duration> {
        if self
            .replay
            .as_ref()
            .is_some_and(|replay| !replay.is_possible())
        {
            return None;
        }
        let mut budget = self.budget.lock().expect("no panic while locked");
        Some(budget.until_another(now))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Http1,
    Http2,
}

impl Protocol {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http1 => "http1",
            Self::Http2 => "http2",
        }
    }
}

impl Context {
    /// For a connection whose bytes nobody looks at.
    pub fn opaque(worker: usize) -> Self {
        let now = Instant::now();
        Self {
            worker,
            received: now,
            begun: now,
            deadline: Deadline::NEVER,
            protocol: Protocol::Http1,
            grpc: false,
            upgrade: true,
            idempotent: false,
            is_retry: false,
            attempt: 1,
            replayable: false,
            may_be_repeated: false,
            try_until: Deadline::NEVER,
            share: None,
            tried: Vec::new(),
            race: None,
            hedge: false,
            stands_in: false,
            is_copy: false,
            interim: None,
            priority: Priority::default(),
            says_tier: false,
            caller: None,
            names: Names::default(),
            terms: None,
            heir: None,
        }
    }
}

/// RFC 9110 section 9.2.2.
pub fn is_idempotent(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::PUT | Method::DELETE
    )
}

/// As far as headers say it. That a call of gRPC is a POST, too (PROTOCOL-HTTP2), is for whoever knows its method.
pub fn is_grpc(headers: &HeaderMap) -> bool {
    headers
        .get(http::header::CONTENT_TYPE)
        .is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}
