//! `weir.mesh.v1.Identity`: a key and a token in, a certificate out.
//!
//! ```text
//!   names ─▶ not too many failures, not too often ─▶ token ─▶ pod ─▶ request ─▶ counted ─▶ signed ─▶ in the journal
//! ```
//!
//! The API server reviews the token, so that whoever would be refused anyhow is refused before. What a pod has had is
//! only looked at until its token is good: anybody may say its name.
//!
//! Who the caller is follows from the token alone: its pod, and that pod's service account.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;
use tonic::{Code, Request, Response, Status};
use weir_config::pb;
use weir_config::resource::ObjectName;

use crate::authority::{Authority, AuthorityError, Leaf};
use crate::csr::{self, CsrError};
use crate::journal::{Fact, Journal};
use crate::mesh::Mesh;
use crate::proxies::Proxies;
use crate::rate::Buckets;
use crate::spiffe::{SpiffeId, is_name};
use crate::tls::Peer;
use crate::tokens::{TokenError, Tokens};

/// A pod's own file may be read a moment after its sidecar called.
const POD_PATIENCE: Duration = Duration::from_secs(2);
/// Certificates a pod may have: a sidecar renews a few times in a leaf's life, and starts again after a crash.
const ISSUED_PER_SECOND: f64 = 0.2;
const ISSUED_BURST: f64 = 20.0;
/// Failures an address may cause before it is not listened to.
const FAILED_PER_SECOND: f64 = 1.0;
const FAILED_BURST: f64 = 30.0;

#[derive(Clone)]
pub struct IdentityServer {
    pub authority: Arc<Mutex<Authority>>,
    pub tokens: Tokens,
    pub mesh: Mesh,
    pub journal: Journal,
    pub proxies: Proxies,
    pub limits: Limits,
}

#[derive(Clone)]
pub struct Limits {
    issued: Buckets<ObjectName>,
    failed: Buckets<IpAddr>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            issued: Buckets::new(ISSUED_PER_SECOND, ISSUED_BURST),
            failed: Buckets::new(FAILED_PER_SECOND, FAILED_BURST),
        }
    }
}

impl Limits {
    /// Takes nothing.
    fn look(&self, pod: &ObjectName, peer: IpAddr) -> Result<(), Refusal> {
        let now = Instant::now();
        if self.failed.is_empty(&peer, now) {
            return Err(Refusal::TooManyFailures);
        }
        if self.issued.is_empty(pod, now) {
            return Err(Refusal::TooOften);
        }
        Ok(())
    }
}

/// Why somebody gets no certificate.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("too many failed attempts from this address: try again later")]
    TooManyFailures,
    #[error("too many certificates for this pod: try again later")]
    TooOften,
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error("this pod is not known to the control plane")]
    UnknownPod,
    #[error("the token is of service account {0}, which is not this pod's")]
    OtherAccount(String),
    #[error("this pod's service account has no name that an identity can carry")]
    NoIdentity,
    #[error("{0} is the control plane's own identity, which no pod gets by its token")]
    ControlPlane(SpiffeId),
    #[error(transparent)]
    Request(#[from] CsrError),
    #[error(transparent)]
    Authority(#[from] AuthorityError),
}

#[tonic::async_trait]
impl pb::identity_server::Identity for IdentityServer {
    async fn certify(
        &self,
        request: Request<pb::CertifyRequest>,
    ) -> Result<Response<pb::CertifyResponse>, Status> {
        let peer = request
            .extensions()
            .get::<Peer>()
            .and_then(|peer| peer.address);
        let peer = peer.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |address| address.ip());
        let request = request.into_inner();
        let pod = ObjectName::new(&request.pod_namespace, &request.pod_name);
        match self.certify_pod(&pod, &request, peer).await {
            Ok((owner, leaf)) => Ok(Response::new(self.issued(&pod, &owner, leaf).await)),
            Err(refusal) => Err(self.refused(&pod, peer, refusal)),
        }
    }
}

impl IdentityServer {
    async fn certify_pod(
        &self,
        pod: &ObjectName,
        request: &pb::CertifyRequest,
        peer: IpAddr,
    ) -> Result<(SpiffeId, Leaf), Refusal> {
        self.limits.look(pod, peer)?;
        let turn = self.tokens.turn(peer).await?;
        // Those who waited with this one may have used up what there was.
        self.limits.look(pod, peer)?;
        let proven = self.tokens.check(pod, &request.token).await?;
        drop(turn);
        let known = self
            .mesh
            .pod_soon(pod, POD_PATIENCE)
            .await
            .ok_or(Refusal::UnknownPod)?;
        if let Some(account) = proven.filter(|account| account != known.service_account()) {
            return Err(Refusal::OtherAccount(account));
        }
        let owner = SpiffeId::new(
            self.mesh.trust_domain(),
            &pod.namespace,
            known.service_account(),
        );
        let owner = owner.ok_or(Refusal::NoIdentity)?;
        // It signs its own. Every sidecar takes its policy and its trust anchors from whoever has this name.
        if Some(&owner) == SpiffeId::control_plane(self.mesh.trust_domain()).as_ref() {
            return Err(Refusal::ControlPlane(owner));
        }
        let key = csr::check(&request.csr, &owner)?;
        if !self.limits.issued.admit(pod.clone(), Instant::now()) {
            return Err(Refusal::TooOften);
        }
        let authority = self
            .authority
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let leaf = authority.issue(&key, &owner, Some(&pod.name), SystemTime::now())?;
        Ok((owner, leaf))
    }

    async fn issued(&self, pod: &ObjectName, owner: &SpiffeId, leaf: Leaf) -> pb::CertifyResponse {
        self.proxies.certified(pod, leaf.expires);
        let expires = leaf.expires.duration_since(UNIX_EPOCH).unwrap_or_default();
        let fact = Fact::CertificateIssued {
            pod: pod.to_string(),
            identity: owner.to_string(),
            serial: leaf.serial,
            expires_ms: u64::try_from(expires.as_millis()).unwrap_or(u64::MAX),
        };
        // On record before it is handed out. A full disk must not end the mesh, though: that is said, and loudly.
        if let Err(error) = self.journal.record(fact).await {
            tracing::error!(%pod, %error, "a certificate was issued that is not on record");
        }
        pb::CertifyResponse {
            chain: vec![leaf.certificate.to_vec().into()],
            trust_bundle: self.mesh.trust_bundle().to_vec(),
        }
    }

    fn refused(&self, pod: &ObjectName, peer: IpAddr, refusal: Refusal) -> Status {
        let reason = refusal.to_string();
        tracing::warn!(%pod, %peer, reason, "certificate refused");
        // What is only too fast, or too early, is not written down: it would be written too fast.
        let transient = matches!(
            refusal,
            Refusal::TooManyFailures
                | Refusal::TooOften
                | Refusal::Token(TokenError::Unavailable(_))
        );
        if !transient {
            self.limits.failed.admit(peer, Instant::now());
            let named = is_name(&pod.namespace) && is_name(&pod.name);
            self.journal.note(Fact::CertificateRefused {
                pod: if named {
                    pod.to_string()
                } else {
                    "(no pod)".to_owned()
                },
                reason: reason.clone(),
            });
        }
        let code = match refusal {
            Refusal::TooManyFailures | Refusal::TooOften => Code::ResourceExhausted,
            Refusal::Token(TokenError::Unavailable(_)) => Code::Unavailable,
            Refusal::Token(_) | Refusal::OtherAccount(_) => Code::Unauthenticated,
            Refusal::UnknownPod => Code::NotFound,
            Refusal::NoIdentity => Code::FailedPrecondition,
            Refusal::ControlPlane(_) => Code::PermissionDenied,
            Refusal::Request(_) => Code::InvalidArgument,
            Refusal::Authority(_) => Code::Internal,
        };
        Status::new(code, reason)
    }
}
