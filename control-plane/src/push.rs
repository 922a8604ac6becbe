//! The push server: one bidirectional stream a sidecar, `weir.mesh.v1.Mesh`.
//!
//! | file | noun |
//! |---|---|
//! | `ledger` | what a sidecar has, what is on its way to it, what it refused (pure) |
//! | `session` | one stream: hears, sends, ends |
//! | `facts` | what a sidecar says happened, checked and passed on |

#[cfg(test)]
mod convergence;
mod facts;
mod ledger;
mod session;

use std::pin::Pin;
use std::time::{Duration, SystemTime};

use tokio::sync::{mpsc, watch};
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use weir_config::pb;
use weir_config::resource::ObjectName;

use crate::breakers::Breakers;
use crate::journal::{Fact, Journal, now_ms};
use crate::mesh::Mesh;
use crate::proxies::Proxies;
use crate::questions::Questions;
use crate::spiffe::{self, SpiffeId, is_name};
use crate::tls::Peer;

pub use self::facts::Allowances;
use self::facts::clean;
use self::session::{End, Session};

/// The first message has to be there by then.
const HELLO_PATIENCE: Duration = Duration::from_secs(10);
/// To a sidecar that has not read the ones before.
const QUESTIONS_MAX: usize = 4;
/// A pod's own file may be read a moment after its sidecar called.
const POD_PATIENCE: Duration = Duration::from_secs(2);

#[derive(Clone)]
pub struct PushServer {
    pub mesh: Mesh,
    pub journal: Journal,
    pub proxies: Proxies,
    pub breakers: Breakers,
    pub questions: Questions,
    pub allowances: Allowances,
    pub stalled_after: Duration,
    /// Turns true when the control plane stops.
    pub stopping: watch::Receiver<bool>,
}

#[tonic::async_trait]
impl pb::mesh_server::Mesh for PushServer {
    type ConnectStream = Pin<Box<dyn Stream<Item = Result<pb::ToProxy, Status>> + Send>>;

    async fn connect(
        &self,
        request: Request<Streaming<pb::FromProxy>>,
    ) -> Result<Response<Self::ConnectStream>, Status> {
        let peer = request
            .extensions()
            .get::<Peer>()
            .cloned()
            .unwrap_or_default();
        let certificate = peer.certificate.ok_or_else(|| {
            Status::unauthenticated("policy is sent over mutual TLS only: connect with the certificate of Identity.Certify")
        })?;
        let identity = SpiffeId::of_certificate(&certificate)
            .map_err(|error| Status::unauthenticated(error.to_string()))?;
        let certified = spiffe::pod_of_certificate(&certificate);
        let (_, expires) = crate::authority::validity(&certificate)
            .ok_or_else(|| Status::unauthenticated("the certificate cannot be read"))?;
        // One push at a time is under way, so one place is enough; the others are for the stream's last word, and for
        // questions, of which those that find no place are not asked.
        let (outbound, stream) = mpsc::channel(2 + QUESTIONS_MAX);
        let server = self.clone();
        tokio::spawn(async move {
            server
                .serve(request.into_inner(), outbound, identity, certified, expires)
                .await
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }
}

impl PushServer {
    async fn serve(
        self,
        mut inbound: Streaming<pb::FromProxy>,
        outbound: mpsc::Sender<Result<pb::ToProxy, Status>>,
        identity: SpiffeId,
        certified: Option<String>,
        expires: SystemTime,
    ) {
        let hello = self.hello(&mut inbound, &identity, certified.as_deref());
        let (pod, hello) = match hello.await {
            Ok(hello) => hello,
            Err(status) => {
                tracing::info!(%identity, reason = status.message(), "sidecar refused");
                let _ = outbound.try_send(Err(status));
                return;
            }
        };
        let is_told = self.allowances.may_connect_aloud(&pod);
        if is_told {
            self.journal.note(Fact::ProxyConnected {
                pod: pod.to_string(),
                identity: identity.to_string(),
                proxy_version: hello.proxy_version.clone(),
            });
        }
        // Whatever the sidecar before it was doing: this one has just started, or will say that it drains.
        self.mesh.set_draining(&pod, false);
        let left = expires
            .duration_since(SystemTime::now())
            .unwrap_or_default();
        let (connection, replaced) =
            self.proxies
                .connected(&pod, &identity, &hello.proxy_version, expires, now_ms());
        let session = Session::new(&self, &pod, outbound.clone());
        let end = session
            .run(inbound, left, replaced, self.stopping.clone())
            .await;
        if let Some(status) = end.status() {
            let _ = outbound.try_send(Err(status));
        }
        self.proxies.disconnected(&pod, connection, now_ms());
        if !matches!(end, End::Replaced) {
            tracing::debug!(%pod, %end, "sidecar disconnected");
        }
        if is_told {
            self.journal.note(Fact::ProxyDisconnected {
                pod: pod.to_string(),
                reason: end.to_string(),
            });
        }
    }

    /// Who the sidecar says it is, once its certificate agrees.
    async fn hello(
        &self,
        inbound: &mut Streaming<pb::FromProxy>,
        identity: &SpiffeId,
        certified: Option<&str>,
    ) -> Result<(ObjectName, pb::Hello), Status> {
        let first = tokio::time::timeout(HELLO_PATIENCE, inbound.message()).await;
        let first = first.map_err(|_| Status::deadline_exceeded("no Hello came"))??;
        let Some(pb::from_proxy::Message::Hello(mut hello)) = first.and_then(|first| first.message)
        else {
            return Err(Status::invalid_argument("the first message must be Hello"));
        };
        if !is_name(&hello.pod_namespace) || !is_name(&hello.pod_name) {
            return Err(Status::invalid_argument("Hello names no pod"));
        }
        hello.proxy_version = clean(&hello.proxy_version).chars().take(64).collect();
        let name = ObjectName::new(&hello.pod_namespace, &hello.pod_name);
        let pod = self.mesh.pod_soon(&name, POD_PATIENCE).await;
        let pod = pod.ok_or_else(|| {
            Status::not_found(format!("pod {name} is not known to this control plane"))
        })?;
        let owner = pod.identity(self.mesh.trust_domain());
        if owner != identity.to_string() {
            let refusal = format!("pod {name} is {owner}; the certificate says {identity}");
            return Err(Status::permission_denied(refusal));
        }
        // Of one service account, too, each pod speaks for itself: it may not take another's place, or say that it drains.
        if let Some(other) = certified.filter(|certified| *certified != name.name) {
            let refusal = format!("the certificate is of pod {other}: pod {name} has its own");
            return Err(Status::permission_denied(refusal));
        }
        Ok((name, hello))
    }
}
