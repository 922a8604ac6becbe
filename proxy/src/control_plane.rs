//! The control plane as this sidecar reaches it: over TLS, and only if it is who it should be.

use std::collections::HashSet;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use hyper_util::rt::TokioIo;
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Uri};
use weir_config::pb::{CertifyRequest, identity_client::IdentityClient};

use crate::discovery::Once;
use crate::identity::{Credentials, Identity, control_plane_client, spiffe_id};
use crate::settings::Settings;
use crate::{socket, telemetry};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
const KEEP_ALIVE: Duration = Duration::from_secs(10);
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(5);
/// Never renew more often than this, whatever a certificate says.
const RENEW_MIN: Duration = Duration::from_secs(1);

type AnyError = Box<dyn std::error::Error + Send + Sync>;

pub struct ControlPlane {
    address: String,
    identity: String,
    mark: Option<u32>,
}

impl ControlPlane {
    pub fn new(settings: &Settings) -> Self {
        Self {
            address: settings.control_plane_addr.clone(),
            identity: settings.control_plane_identity(),
            mark: settings.mark(),
        }
    }

    /// `own`: key and chain to show, once there are any.
    pub async fn connect(
        &self,
        bundle: &[CertificateDer<'static>],
        own: Option<Own>,
    ) -> Result<Channel, AnyError> {
        let own = own
            .as_ref()
            .map(|own| (own.key.as_slice(), own.chain.clone()));
        let tls = TlsConnector::from(Arc::new(control_plane_client(bundle, own)?));
        let (address, identity, mark) = (self.address.clone(), self.identity.clone(), self.mark);
        let connector = tower::service_fn(move |_: Uri| {
            let (address, identity, tls) = (address.clone(), identity.clone(), tls.clone());
            async move {
                let tcp = dial(&address, mark).await?;
                let name = ServerName::IpAddress(tcp.peer_addr()?.ip().into());
                let stream = tls.connect(name, tcp).await?;
                let chain = stream.get_ref().1.peer_certificates();
                let found = chain.and_then(|chain| spiffe_id(chain.first()?).ok());
                match found {
                    Some(found) if found.as_str() == identity => Ok(TokioIo::new(stream)),
                    Some(found) => Err(format!(
                        "{address} proved to be {}, not {identity}",
                        found.as_str()
                    )
                    .into()),
                    None => Err(AnyError::from(format!("{address} has no SPIFFE id"))),
                }
            }
        });
        let channel = tonic::transport::Endpoint::from_static("http://control-plane")
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_while_idle(true)
            .keep_alive_timeout(KEEP_ALIVE)
            .connect_with_connector(connector)
            .await?;
        Ok(channel)
    }
}

async fn dial(address: &str, mark: Option<u32>) -> Result<TcpStream, AnyError> {
    let mut last: AnyError = format!("{address} has no address").into();
    for address in tokio::net::lookup_host(address).await? {
        match socket::connect(address, mark).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error.into(),
        }
    }
    Err(last)
}

/// A key and the chain that vouches for it.
#[derive(Clone)]
pub struct Own {
    key: Vec<u8>,
    chain: Vec<CertificateDer<'static>>,
}

fn anchors_in(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect)
        .map_err(|error| format!("trust bundle {}: {error}", file.display()))
}

/// Gets the sidecar its certificate, and renews it long before it ends.
pub struct Keeper {
    settings: Arc<Settings>,
    identity: Arc<Identity>,
    bundle: Mutex<Vec<CertificateDer<'static>>>,
    own: Mutex<Option<Own>>,
    certified: Once,
    /// There are anchors that vouch for somebody who did not sign the certificate in use.
    new_anchors: Notify,
}

impl Keeper {
    pub fn new(settings: Arc<Settings>, identity: Arc<Identity>) -> Result<Self, AnyError> {
        Ok(Self {
            bundle: Mutex::new(anchors_in(&settings.trust_bundle_file)?),
            settings,
            identity,
            own: Mutex::default(),
            certified: Once::default(),
            new_anchors: Notify::new(),
        })
    }

    pub fn bundle(&self) -> Vec<CertificateDer<'static>> {
        self.bundle.lock().expect("no panic while locked").clone()
    }

    pub fn own(&self) -> Option<Own> {
        self.own.lock().expect("no panic while locked").clone()
    }

    pub fn is_ready(&self) -> bool {
        self.certified.is_set()
    }

    /// Until there is a certificate.
    pub async fn ready(&self) {
        self.certified.wait().await;
    }

    /// New anchors: whoever they do not vouch for is refused from now on.
    pub fn set_bundle(&self, bundle: Vec<CertificateDer<'static>>) -> Result<(), AnyError> {
        if let Some(own) = self.own() {
            self.identity
                .replace(Credentials::new(&own.key, own.chain, &bundle)?);
        }
        *self.bundle.lock().expect("no panic while locked") = bundle;
        Ok(())
    }

    /// For when the control plane cannot be reached or believed: its CA may be another one by now, lost and made anew, or
    /// rotated while this pod was cut off. The file is what a sidecar believes at its start, and is kept up to date by the
    /// kubelet, or by whoever mounts it. What it knows besides stays until the control plane says otherwise; a file may be
    /// older than a push. What this sidecar shows was signed by nobody new, so it is certified anew at once.
    pub fn look_for_new_anchors(&self) {
        let found = match anchors_in(&self.settings.trust_bundle_file) {
            Ok(found) => found,
            Err(error) => return tracing::warn!(%error, "the trust bundle could not be read again"),
        };
        let mut bundle = self.bundle.lock().expect("no panic while locked");
        let known = bundle.len();
        bundle.extend(found);
        // A certificate that was there already is no news, and nor is the same one twice.
        let mut seen = HashSet::new();
        bundle.retain(|anchor| seen.insert(anchor.clone()));
        if bundle.len() > known {
            tracing::info!("the trust bundle has new anchors");
            self.new_anchors.notify_one();
        }
    }

    /// Runs for as long as the process does.
    pub async fn run(&self) {
        let mut retry = RETRY_MIN;
        loop {
            let wait = match self.certify().await {
                Ok(renew_in) => {
                    retry = RETRY_MIN;
                    renew_in.max(RENEW_MIN)
                }
                Err(error) => {
                    tracing::warn!(%error, "no certificate could be had");
                    self.look_for_new_anchors();
                    let wait = retry.mul_f64(0.5 + fastrand::f64());
                    retry = (retry * 2).min(RETRY_MAX);
                    wait
                }
            };
            let _ = tokio::time::timeout(wait, self.new_anchors.notified()).await;
        }
    }

    /// A new key, a certificate for it, and how long until the next.
    async fn certify(&self) -> Result<Duration, AnyError> {
        let token = tokio::fs::read_to_string(&self.settings.token_file)
            .await
            .map_err(|error| format!("token {}: {error}", self.settings.token_file.display()))?;
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        // Names in it would be ignored: the control plane knows whose token it is.
        let csr = CertificateParams::default().serialize_request(&key)?;
        let bundle = self.bundle();
        let channel = ControlPlane::new(&self.settings)
            .connect(&bundle, None)
            .await?;
        let request = CertifyRequest {
            csr: csr.der().to_vec().into(),
            token: token.trim().into(),
            pod_namespace: self.settings.pod_namespace.clone(),
            pod_name: self.settings.pod_name.clone(),
        };
        let call = async { IdentityClient::new(channel).certify(request).await };
        let response = tokio::time::timeout(REQUEST_TIMEOUT, call)
            .await??
            .into_inner();
        let owned = |der: &bytes::Bytes| CertificateDer::from(der.to_vec());
        let chain: Vec<_> = response.chain.iter().map(owned).collect();
        let anchors: Vec<_> = response.trust_bundle.iter().map(owned).collect();
        let anchors = if anchors.is_empty() { bundle } else { anchors };
        let own = Own {
            key: key.serialize_der(),
            chain: chain.clone(),
        };
        let credentials = Credentials::new(&own.key, chain, &anchors)?;
        let renew_in = credentials.renew_in(fastrand::f64());
        let expires = credentials
            .not_after
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        telemetry::certificate(credentials.id.as_str(), expires.as_secs_f64());
        tracing::info!(
            identity = credentials.id.as_str(),
            renew_in_s = renew_in.as_secs(),
            "certified"
        );
        *self.own.lock().expect("no panic while locked") = Some(own);
        *self.bundle.lock().expect("no panic while locked") = anchors;
        self.identity.replace(credentials);
        self.certified.set();
        Ok(renew_in)
    }
}
