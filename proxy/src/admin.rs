//! Health, metrics and state, on a port and a thread of their own: they answer while the data path is saturated.
//!
//! | path | from | says |
//! |---|---|---|
//! | `/live` | anywhere | the process runs |
//! | `/ready` | anywhere | it has a certificate and a policy and is not draining |
//! | `/metrics` | anywhere | Prometheus text |
//! | `/app-probe/…` | anywhere | what the app's own probe or hook says, asked past all policies |
//! | `/state` | loopback | what this sidecar knows, as JSON |
//!
//! Nothing here changes the sidecar: it is drained by SIGTERM and configured by the control plane alone.

mod door;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::time::Instant;

use crate::backend::Backend;
use crate::connection::Proxy;
use crate::control_plane::Keeper;
use crate::discovery::Once;
use crate::member::Member;
use crate::mesh::{Destination, InboundPort, Mesh};
use crate::prober::{self, Probers};
use crate::telemetry;

pub struct Admin {
    pub proxy: Arc<Proxy>,
    pub keeper: Arc<Keeper>,
    pub draining: Once,
    pub probers: Probers,
}

/// Runs for as long as the process does.
pub async fn run(listener: TcpListener, admin: Arc<Admin>) {
    let shares = door::shares(admin.probers.len());
    let answer = move |request, peer| {
        let admin = admin.clone();
        async move { admin.answer(request, peer).await }
    };
    door::serve(listener, shares, answer).await;
}

/// Ends the connection without an answer.
#[derive(Debug, thiserror::Error)]
#[error("the hook reached nobody: {0}")]
struct NobodyHeard(String);

impl Admin {
    async fn answer(
        &self,
        request: Request<Incoming>,
        peer: SocketAddr,
    ) -> Result<Response<Full<Bytes>>, NobodyHeard> {
        if request.method() != Method::GET && request.method() != Method::HEAD {
            return Ok(text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n"));
        }
        Ok(match request.uri().path() {
            "/live" => text(StatusCode::OK, "live\n"),
            "/ready" => match self.not_ready() {
                None => text(StatusCode::OK, "ready\n"),
                Some(reason) => text(StatusCode::SERVICE_UNAVAILABLE, reason),
            },
            "/metrics" => {
                self.proxy.mesh.publish_load();
                let mut response = text(StatusCode::OK, telemetry::render());
                response.headers_mut().insert(
                    header::CONTENT_TYPE,
                    header::HeaderValue::from_static("text/plain; version=0.0.4"),
                );
                response
            }
            "/state" if peer.ip().to_canonical().is_loopback() => {
                let mut response = text(StatusCode::OK, self.state().to_string());
                response.headers_mut().insert(
                    header::CONTENT_TYPE,
                    header::HeaderValue::from_static("application/json"),
                );
                response
            }
            "/state" => text(StatusCode::FORBIDDEN, "state is shown on loopback only\n"),
            path => match path.strip_prefix("/app-probe/") {
                Some(key) => return self.probe(key, peer).await,
                None => text(
                    StatusCode::NOT_FOUND,
                    "known: /live /ready /metrics /state /app-probe/…\n",
                ),
            },
        })
    }

    fn not_ready(&self) -> Option<&'static str> {
        if self.draining.is_set() {
            Some("draining\n")
        } else if !self.keeper.is_ready() {
            Some("no certificate yet\n")
        } else if self.proxy.mesh.workload().is_none() {
            Some("no policy yet\n")
        } else {
            None
        }
    }

    async fn probe(
        &self,
        key: &str,
        peer: SocketAddr,
    ) -> Result<Response<Full<Bytes>>, NobodyHeard> {
        if prober::is_hook(key) {
            // Nothing tells the kubelet from others (proxy/README.md), so it is said who has asked.
            tracing::info!(%peer, hook = key, "a hook of the app is called");
        }
        let result = self.probers.probe(key).await;
        match result.answer(key) {
            Some(status) => Ok(text(status, format!("{}\n", result.detail))),
            None => Err(NobodyHeard(result.detail)),
        }
    }

    /// What this sidecar knows: for people, and for `weir proxy`.
    fn state(&self) -> Value {
        let mesh = &self.proxy.mesh;
        let identity = mesh.environment.connector.identity.current();
        let known = mesh.known();
        let destinations: serde_json::Map<String, Value> = known
            .iter()
            .map(|(address, known)| {
                let what = match &known.destination {
                    Destination::Outside => "outside".to_owned(),
                    Destination::Service(backend) => backend.service.to_string(),
                };
                (address.to_string(), what.into())
            })
            .collect();
        let services: serde_json::Map<String, Value> = mesh
            .backends()
            .values()
            .map(|backend| (backend.service.to_string(), outbound(backend)))
            .collect();
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "ready": self.not_ready().is_none(),
            "identity": identity.as_ref().map(|own| own.id.as_str().to_owned()),
            "workload": mesh.workload().as_deref(),
            "destinations": destinations,
            "services": services,
            "inbound": inbound(mesh),
        })
    }
}

/// A service that the app calls, as this sidecar has got to know it.
fn outbound(backend: &Backend) -> Value {
    let (in_flight, queued) = backend.limit().load();
    let endpoint = |member: &Arc<Member>| {
        json!({
            "address": member.address().to_string(),
            "pod": member.pod,
            "identity": member.endpoint.identity.as_ref().map(|id| id.as_str().to_owned()),
            "state": member.learnt().gate.state().as_str(),
            "draining": member.is_draining(),
            "weight": member.weight(),
            "zone": member.zone().as_deref(),
            "inFlight": member.in_flight.load(Ordering::Relaxed),
            "load": member.learnt().load.get(Instant::now()),
        })
    };
    let list = backend.endpoints.list();
    let endpoints: Vec<Value> = list.iter().map(endpoint).collect();
    let breakers = backend.breakers().into_iter().map(|(route, status)| {
        let forced = if status.forced { "forced " } else { "" };
        let observed = if status.observed { "observed " } else { "" };
        let told = format!("{observed}{forced}{}", status.phase);
        (route, Value::from(told))
    });
    let breakers: serde_json::Map<String, Value> = breakers.collect();
    let fault = |(policy, left): (_, Duration)| json!({"policy": policy, "secondsLeft": left.as_secs_f64()});
    let faults: Vec<Value> = backend.faults().into_iter().map(fault).collect();
    json!({
        "inFlight": in_flight,
        "inFlightMax": backend.limit().in_flight_max(),
        "queued": queued,
        "faults": faults,
        "inOwnZone": list.near(),
        "p99Ms": backend.endpoints.p99().as_secs_f64() * 1e3,
        "throttled": backend.throttled(),
        "fallbacks": telemetry::fallbacks(&backend.service),
        "breakers": breakers,
        "endpoints": endpoints,
    })
}

/// What the app has to do, by its ports.
fn inbound(mesh: &Mesh) -> Value {
    let port = |(port, of): (u16, Arc<InboundPort>)| {
        let load = of.admission.load();
        let state = json!({
            "service": &*of.service,
            "inFlight": load.in_flight,
            "streams": load.streams,
            "queued": load.queued,
            "limit": load.limit,
            "utilisation": of.admission.utilisation(),
            "baselineMs": load.baseline.map(|baseline| baseline.as_secs_f64() * 1e3),
            "offered": load.counts.offered,
            "admitted": load.counts.admitted,
            "shed": load.counts.shed.iter().flatten().sum::<u64>(),
            "saturatedSeconds": load.counts.saturated.as_secs_f64(),
        });
        (port.to_string(), state)
    };
    let ports: serde_json::Map<String, Value> =
        mesh.inbound_ports().into_iter().map(port).collect();
    ports.into()
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests {
    use weir_config::snapshot::{Breaker, Outbound};
    use weir_config::units::Count;

    use super::*;
    use crate::backend::tests::{App, backend, request};

    #[tokio::test]
    async fn state_says_of_a_service_its_breaker_latency_and_calls_in_flight_of_how_many() {
        let app = App::start(200).await;
        let mut policy = Outbound::default();
        policy.limits.in_flight = Count::of(3);
        policy.breaker = Some(Breaker::default());
        let backend = backend(policy, &[&app]);
        let call = || {
            let backend = backend.clone();
            tokio::spawn(async move { backend.call(request(false)).await })
        };
        call().await.expect("no panic").expect("an answer");
        backend.tick(Instant::now());
        app.answers.forget_permits(1000);
        let calls = [call(), call()];
        while backend.limit().load() != (2, 0) {
            tokio::task::yield_now().await;
        }

        let state = outbound(&backend);
        let numbers = ["inFlight", "inFlightMax", "queued"].map(|name| state[name].as_u64());
        assert_eq!(numbers, [Some(2), Some(3), Some(0)], "{state}");
        assert_eq!(state["breakers"], json!({"": "closed"}));
        assert!(state["p99Ms"].as_f64().is_some_and(|p99| p99 > 0.0));
        assert_eq!(state["endpoints"][0]["state"], "closed");
        assert_eq!(state["fallbacks"], 0);
        let fallbacks = telemetry::FallbackMetrics::new(&backend.service);
        fallbacks.stale.inc();
        fallbacks.alternate.inc();
        assert_eq!(outbound(&backend)["fallbacks"], 2);
        calls.iter().for_each(tokio::task::JoinHandle::abort);
    }
}
