//! Somebody outside the mesh who speaks the sidecars' protocol, with whatever certificate a test gives it.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{
    CertificateParams, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use rustls::ClientConfig;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use weir_lab::Lab;
use weir_lab::credulous::Credulous;

use crate::world::BoxError;

/// What sidecars offer each other for multiplexed HTTP.
const HTTP2: &[u8] = b"weir.h2/1";
/// And for bytes.
const TCP: &[u8] = b"weir.tcp/1";
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Makes certificates: with the mesh's own authority, whose key the test may read because the lab is its own, or with
/// one that nobody trusts.
pub(crate) struct Certificates {
    authority: Issuer<'static, KeyPair>,
    provider: Arc<CryptoProvider>,
}

pub(crate) type Pair = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

impl Certificates {
    pub(crate) fn of(lab: &Lab) -> Self {
        let mut folders = vec![lab.folder().join("control-plane")];
        let mut anchors = Vec::new();
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).expect("the lab's own").flatten() {
                let path = entry.path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|extension| extension == "pem") {
                    anchors.push(path);
                }
            }
        }
        let anchor = anchors.first().expect("the control plane has an authority");
        let pem = std::fs::read_to_string(anchor).expect("the lab's own");
        let key = PrivateKeyDer::from_pem_slice(pem.as_bytes()).expect("a key");
        let key = KeyPair::try_from(key.secret_der()).expect("a key that signs");
        let certificate = CertificateDer::from_pem_slice(pem.as_bytes()).expect("a certificate");
        let authority = Issuer::from_ca_cert_der(&certificate, key).expect("an authority");
        Self {
            authority,
            provider: Arc::new(rustls::crypto::aws_lc_rs::default_provider()),
        }
    }

    /// By the mesh's authority, which would never do this.
    pub(crate) fn issued(&self, identities: &[&str]) -> Pair {
        self.valid_for(DAY, identities)
    }

    pub(crate) fn valid_for(&self, left: Duration, identities: &[&str]) -> Pair {
        let now = SystemTime::now();
        signed(
            identities,
            now - Duration::from_secs(60),
            now + left,
            &self.authority,
        )
    }

    pub(crate) fn expired(&self, identity: &str) -> Pair {
        let now = SystemTime::now();
        signed(&[identity], now - 2 * DAY, now - DAY, &self.authority)
    }

    /// By an authority of the stranger's own, with the same name as the mesh's.
    pub(crate) fn self_made(&self, identity: &str) -> Pair {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "weir");
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key can be made");
        let authority = Issuer::new(params, key);
        let now = SystemTime::now();
        signed(
            &[identity],
            now - Duration::from_secs(60),
            now + DAY,
            &authority,
        )
    }
}

fn signed(
    identities: &[&str],
    not_before: SystemTime,
    not_after: SystemTime,
    authority: &Issuer<'_, KeyPair>,
) -> Pair {
    let mut params = CertificateParams::default();
    params.not_before = not_before.into();
    params.not_after = not_after.into();
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ClientAuth,
        ExtendedKeyUsagePurpose::ServerAuth,
    ];
    let uri = |identity: &&str| SanType::URI((*identity).try_into().expect("ASCII"));
    params.subject_alt_names = identities.iter().map(uri).collect();
    let key = KeyPair::generate().expect("a key can be made");
    let certificate = params.signed_by(&key, authority).expect("it can be signed");
    let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
    (vec![certificate.der().clone()], key)
}

/// One request over TLS 1.3 as a sidecar would send it: its status, or how it was refused.
pub(crate) async fn ask(
    stream: TcpStream,
    certificates: &Certificates,
    identity: Option<Pair>,
) -> Result<u16, BoxError> {
    let tls = connect(stream, certificates, identity, HTTP2).await?;
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(tls)).await?;
    tokio::spawn(connection);
    // With TLS 1.3 a client learns that it was refused when it reads.
    let request = Request::get("http://server/")
        .header("x-weir-protocol", "HTTP/1.1")
        .body(Full::<Bytes>::default())?;
    let answer = tokio::time::timeout(Duration::from_secs(5), sender.send_request(request)).await?;
    Ok(answer?.status().as_u16())
}

/// A connection as a sidecar makes it for bytes.
pub(crate) async fn tunnel(
    stream: TcpStream,
    certificates: &Certificates,
    identity: Pair,
) -> Result<TlsStream<TcpStream>, BoxError> {
    connect(stream, certificates, Some(identity), TCP).await
}

async fn connect(
    stream: TcpStream,
    certificates: &Certificates,
    identity: Option<Pair>,
    protocol: &[u8],
) -> Result<TlsStream<TcpStream>, BoxError> {
    let config = config(certificates, identity, protocol)?;
    let name = ServerName::IpAddress(stream.peer_addr()?.ip().into());
    let connecting = TlsConnector::from(config).connect(name, stream);
    Ok(connecting.await?)
}

/// What a sidecar says first, for a stranger who then says nothing more.
pub(crate) fn hello(certificates: &Certificates) -> Vec<u8> {
    let config = config(certificates, None, TCP).expect("TLS 1.3 is there");
    let name = ServerName::try_from("server").expect("a name");
    let mut connection = rustls::ClientConnection::new(config, name).expect("it can begin");
    let mut hello = Vec::new();
    connection.write_tls(&mut hello).expect("memory");
    hello
}

fn config(
    certificates: &Certificates,
    identity: Option<Pair>,
    protocol: &[u8],
) -> Result<Arc<ClientConfig>, BoxError> {
    let provider = certificates.provider.clone();
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Credulous(provider)));
    let mut config = match identity {
        Some((chain, key)) => builder.with_client_auth_cert(chain, key)?,
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![protocol.to_vec()];
    Ok(Arc::new(config))
}
