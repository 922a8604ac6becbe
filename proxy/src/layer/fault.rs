//! What goes wrong on purpose, at the innermost place: between the choice of an endpoint and the network.
//!
//! There a fault is what a real one would be. The endpoint's gate and latency, retries, hedges, the breaker, the deadline and
//! the limits see a try that was slow, failed or hung, and do what they would do. Not in the service's own sidecar: what is
//! injected there would be seen by its admission as the app's doing, and would spare callers' sidecars the network's part.
//!
//! What is injected says so: in the answer (`x-weir-fault`), in the reason, in the metrics, to `weir explain`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use http::{HeaderValue, Response, StatusCode};
use tokio::sync::watch;
use tokio::time::Instant;
use weir_config::record::Try;
use weir_config::snapshot::{self, BrokenConnection, FaultAnswer, FaultEffect};

use super::Answer;
use super::attempt::Transport;
use crate::body::Body;
use crate::endpoints::Endpoints;
use crate::error::{Error, PROXY_ERROR};
use crate::head;
use crate::member::Member;
use crate::policy::fault::{Fault, Faults};
use crate::recorder;
use crate::request::Request;
use crate::telemetry;

/// Calls of one service that are delayed, slowed down or swallowed at once. Beyond it they pass unharmed: a fault must not
/// become a flood.
const HELD_MAX: usize = 256;

/// The reason of an answer that a fault made.
pub const CODE: &str = "fault-injected";

/// The faults of a service: they change while calls are held, and those look here.
pub struct Shared {
    service: Arc<str>,
    /// Whether there are any: all that a call without faults asks.
    armed: AtomicBool,
    faults: ArcSwap<Faults>,
    changed: watch::Sender<()>,
    held: AtomicUsize,
}

/// What happens to one try.
pub struct Injection {
    fault: Arc<Fault>,
    shared: Arc<Shared>,
    /// Given back on drop.
    holds: bool,
}

impl Shared {
    pub fn new(service: Arc<str>) -> Self {
        Self {
            service,
            armed: AtomicBool::new(false),
            faults: ArcSwap::default(),
            changed: watch::Sender::new(()),
            held: AtomicUsize::new(0),
        }
    }

    /// `own`: who this sidecar is.
    pub fn reconfigure(&self, said: &[snapshot::Fault], own: Option<&str>) {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let unix_ms = since.map_or(0, |since| {
            u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
        });
        let faults = Faults::new(said, own, Instant::now(), unix_ms);
        self.armed.store(!faults.is_empty(), Ordering::Relaxed);
        self.faults.store(Arc::new(faults));
        self.changed.send_replace(());
    }

    /// The policies whose faults are in force, and for how much longer.
    pub fn in_force(&self) -> Vec<(String, Duration)> {
        let now = Instant::now();
        let faults = self.faults.load();
        let told = |fault: &Arc<Fault>| (fault.said.policy.clone(), fault.until - now);
        faults.in_force(now).map(told).collect()
    }

    /// What happens to this try; nothing, most of the time.
    pub fn of(self: &Arc<Self>, request: &Request) -> Option<Box<Injection>> {
        if !self.armed.load(Ordering::Relaxed) {
            return None;
        }
        let (faults, head) = (self.faults.load(), &request.head);
        let (now, dice) = (Instant::now(), fastrand::u32(..100));
        let (path, grpc) = (head.uri.path(), request.context.grpc);
        let Some(fault) = faults.pick(&head.method, path, grpc, dice, now) else {
            if faults.in_force(now).next().is_none() {
                self.armed.store(false, Ordering::Relaxed); // the last of them is over
            }
            return None;
        };
        let holds = holds(fault);
        if holds && self.held.fetch_add(1, Ordering::Relaxed) >= HELD_MAX {
            self.held.fetch_sub(1, Ordering::Relaxed);
            telemetry::fault_spared(&self.service);
            return None;
        }
        Some(Box::new(Injection {
            fault: fault.clone(),
            shared: self.clone(),
            holds,
        }))
    }
}

/// Whether it keeps a call for longer than a moment.
fn holds(fault: &Fault) -> bool {
    let is_slow = matches!(
        fault.effect(),
        Some(FaultEffect::SlowBody { .. } | FaultEffect::Connection(BrokenConnection::BlackHole))
    );
    is_slow || fault.said.delay.is_some()
}

impl Drop for Injection {
    fn drop(&mut self) {
        if self.holds {
            self.shared.held.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Injection {
    pub fn policy(&self) -> Arc<str> {
        self.fault.said.policy.as_str().into()
    }

    /// The time is up, or nobody says so any more.
    pub fn is_over(&self) -> bool {
        self.fault.is_over(Instant::now()) || !self.shared.faults.load().has(&self.fault)
    }

    /// Waits so long, or until the fault is over.
    async fn hold(&self, time: Option<Duration>) {
        let mut changed = self.shared.changed.subscribe();
        let now = Instant::now();
        let end = time.and_then(|time| now.checked_add(time));
        let end = end.map_or(self.fault.until, |end| end.min(self.fault.until));
        let called_off = async { while !self.is_over() && changed.changed().await.is_ok() {} };
        tokio::select! {
            () = tokio::time::sleep_until(end) => {}
            () = called_off => {}
        }
    }

    /// One try that does not go as it would.
    pub async fn send<T: Transport>(
        self: Box<Self>,
        transport: &T,
        endpoints: &Endpoints,
        member: &Member,
        request: Box<Request>,
    ) -> Answer {
        if let Some(delay) = self.fault.delay(fastrand::u64(..)) {
            self.tell(
                "delay",
                || format!("delayed by {} ms", delay.as_millis()),
                member,
                &request,
            );
            self.hold(Some(delay)).await;
        }
        match self.fault.effect() {
            None => Ok(self.marked(transport.send(endpoints, member, request).await?)),
            Some(FaultEffect::Abort(answer)) => {
                self.tell("abort", || "aborted".to_owned(), member, &request);
                Ok(self.marked(aborted(answer, member, request.context.grpc)))
            }
            Some(FaultEffect::SlowBody { bytes_per_second }) => {
                self.tell(
                    "slow-body",
                    || "its answer slowed down".to_owned(),
                    member,
                    &request,
                );
                let response = transport.send(endpoints, member, request).await?;
                let response = self.marked(response);
                Ok(response.map(|body| body.slowed(bytes_per_second.get(), self)))
            }
            Some(FaultEffect::Connection(BrokenConnection::Reset)) => {
                self.tell("reset", || "connection reset".to_owned(), member, &request);
                Err(self.broke_off(member))
            }
            Some(FaultEffect::Connection(BrokenConnection::GoAway)) => {
                self.tell("go-away", || "GOAWAY".to_owned(), member, &request);
                member.endpoint.forget_connections(request.context.worker);
                Err(self.like(Error::Refused {
                    address: member.address(),
                    source: "its connection is going away".into(),
                }))
            }
            Some(FaultEffect::Connection(BrokenConnection::BlackHole)) => {
                self.tell("black-hole", || "swallowed".to_owned(), member, &request);
                self.hold(None).await;
                Err(self.broke_off(member))
            }
        }
    }

    fn broke_off(&self, member: &Member) -> Error {
        self.like(Error::Upstream {
            address: member.address(),
            source: "connection reset".into(),
        })
    }

    fn like(&self, error: Error) -> Error {
        error.injected_by(&self.policy())
    }

    fn marked(&self, mut response: Response<Body>) -> Response<Body> {
        if let Ok(policy) = HeaderValue::from_str(&self.fault.said.policy) {
            response.headers_mut().insert(&head::FAULT, policy);
        }
        response
    }

    /// To the metrics, and to whoever asks what became of the request.
    fn tell(
        &self,
        kind: &'static str,
        what: impl FnOnce() -> String,
        member: &Member,
        request: &Request,
    ) {
        let policy = &self.fault.said.policy;
        telemetry::fault_injected(&self.shared.service, policy, kind);
        let since = request.context.received.elapsed();
        let attempt = Try {
            ended_us: u64::try_from(since.as_micros()).unwrap_or(u64::MAX),
            endpoint: Some(member.address().to_string()),
            result: what(),
            then: format!("injected by FaultPolicy {policy}"),
        };
        recorder::note(request.context.names.key, attempt);
    }
}

/// As the endpoint would have answered.
fn aborted(answer: FaultAnswer, member: &Member, grpc: bool) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    let headers = response.headers_mut();
    headers.insert(&PROXY_ERROR, HeaderValue::from_static(CODE));
    if grpc {
        headers.insert(
            http::header::CONTENT_TYPE,
            HeaderValue::from_static("application/grpc"),
        );
        headers.insert(
            &head::GRPC_STATUS,
            HeaderValue::from(u16::from(answer.grpc_status)),
        );
        let message = HeaderValue::from_static("aborted on purpose");
        headers.insert(&head::GRPC_MESSAGE, message);
    } else {
        // Validation has seen to it that it is one.
        let status = StatusCode::from_u16(answer.http_status);
        *response.status_mut() = status.unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
    }
    let body = response.body_mut();
    body.endpoint = Some(member.address());
    body.mutual_tls = member.endpoint.identity.is_some();
    response
}

#[cfg(test)]
mod tests;
