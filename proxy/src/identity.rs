//! Who this workload is, and proving that others are who they say.
//!
//! Identities are SPIFFE ids. A peer's certificate must chain to the mesh's trust bundle, be meant for its role, carry
//! exactly one URI name, and that name must be *equal* to the identity that discovery expects
//! (SPIFFE X509-SVID section 5): no patterns, no DNS names, no common names.
//!
//! The key is made here and never leaves the process.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwapOption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::{FromDer, X509Certificate};

/// What travels inside a TLS connection between two sidecars, told by ALPN.
pub mod alpn {
    /// HTTP, multiplexed.
    pub const HTTP2: &[u8] = b"weir.h2/1";
    /// One HTTP/1.1 exchange that may leave HTTP (an upgrade).
    pub const HTTP1: &[u8] = b"weir.h1/1";
    /// Bytes.
    pub const TCP: &[u8] = b"weir.tcp/1";
}

/// `spiffe://<trust domain>/<path>`, compared byte for byte.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SpiffeId(Arc<str>);

impl SpiffeId {
    /// SPIFFE-ID section 2: lower-case trust domain, at least one path segment, none empty or dots, 2048 bytes at most.
    pub fn parse(text: &str) -> Option<Self> {
        let rest = text.strip_prefix("spiffe://")?;
        let (domain, path) = rest.split_once('/')?;
        let domain_ok = !domain.is_empty()
            && domain
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-._".contains(&b));
        let path_ok = path.split('/').all(|segment| {
            !matches!(segment, "" | "." | "..")
                && segment
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
        });
        (text.len() <= 2048 && domain_ok && path_ok).then(|| Self(text.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn shared(&self) -> Arc<str> {
        self.0.clone()
    }

    pub fn trust_domain(&self) -> &str {
        let rest = &self.0["spiffe://".len()..];
        rest.split_once('/').map_or(rest, |(domain, _)| domain)
    }
}

/// A key, its certificate chain, and the anchors to judge others by. Replaced whole when renewed.
pub struct Credentials {
    pub id: SpiffeId,
    pub not_after: SystemTime,
    /// Per protocol: h2, h1, tcp.
    clients: [Arc<ClientConfig>; 3],
    pub server: Arc<ServerConfig>,
}

/// The current credentials; empty until the first certificate is there.
#[derive(Default)]
pub struct Identity {
    current: ArcSwapOption<Credentials>,
}

impl Identity {
    pub fn current(&self) -> Option<Arc<Credentials>> {
        self.current.load_full()
    }

    pub fn replace(&self, credentials: Credentials) {
        self.current.store(Some(Arc::new(credentials)));
    }
}

#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("the certificate cannot be used: {0}")]
    Tls(#[from] rustls::Error),
    #[error("the trust bundle cannot be used: {0}")]
    Bundle(String),
    #[error("the certificate was refused: {0}")]
    Certificate(&'static str),
}

impl Credentials {
    pub fn new(
        key_pkcs8: &[u8],
        chain: Vec<CertificateDer<'static>>,
        bundle: &[CertificateDer<'static>],
    ) -> Result<Self, IdentityError> {
        let leaf = chain
            .first()
            .ok_or(IdentityError::Certificate("the chain is empty"))?;
        let id = spiffe_id(leaf).map_err(IdentityError::Certificate)?;
        let not_after = not_after(leaf).map_err(IdentityError::Certificate)?;
        let key = || PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key_pkcs8.to_vec()));
        let provider = Arc::new(aws_lc_rs::default_provider());
        let roots = Arc::new(roots(bundle)?);

        let client = |protocol: &[u8]| -> Result<Arc<ClientConfig>, IdentityError> {
            let mut config = ClientConfig::builder_with_provider(provider.clone())
                .with_protocol_versions(&[&rustls::version::TLS13])?
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(MeshServerVerifier::new(
                    roots.clone(),
                    &provider,
                )))
                .with_client_auth_cert(chain.clone(), key())?;
            config.alpn_protocols = vec![protocol.to_vec()];
            config.enable_sni = false;
            // A resumed session would outlive a change of the trust bundle (security.md: TLS state).
            config.resumption = rustls::client::Resumption::disabled();
            Ok(Arc::new(config))
        };
        let clients = [
            client(alpn::HTTP2)?,
            client(alpn::HTTP1)?,
            client(alpn::TCP)?,
        ];

        let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider.clone())
            .build()
            .map_err(|error| IdentityError::Bundle(error.to_string()))?;
        let mut server = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(Arc::new(MeshClientVerifier {
                chain: verifier,
                trust_domain: id.trust_domain().to_owned(),
            }))
            .with_single_cert(chain.clone(), key())?;
        server.alpn_protocols = vec![
            alpn::HTTP2.to_vec(),
            alpn::HTTP1.to_vec(),
            alpn::TCP.to_vec(),
        ];
        server.send_tls13_tickets = 0;
        Ok(Self {
            id,
            not_after,
            clients,
            server: Arc::new(server),
        })
    }

    pub fn client(&self, protocol: &[u8]) -> Arc<ClientConfig> {
        let index = match protocol {
            alpn::HTTP2 => 0,
            alpn::HTTP1 => 1,
            _ => 2,
        };
        self.clients[index].clone()
    }

    /// Whether the certificate may still be shown: an expired one fails closed.
    pub fn is_valid(&self) -> bool {
        SystemTime::now() < self.not_after
    }

    /// How long until half to two thirds of what is left have passed: renewals of a fleet spread by themselves.
    pub fn renew_in(&self, random: f64) -> Duration {
        let left = self
            .not_after
            .duration_since(SystemTime::now())
            .unwrap_or_default();
        left.mul_f64(0.5 + 0.17 * random)
    }
}

/// A TLS client configuration for the control plane: its identity is checked, ours is optional (the first
/// certificate has to come from somewhere).
pub fn control_plane_client(
    bundle: &[CertificateDer<'static>],
    own: Option<(&[u8], Vec<CertificateDer<'static>>)>,
) -> Result<ClientConfig, IdentityError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(MeshServerVerifier::new(
            Arc::new(roots(bundle)?),
            &provider,
        )));
    let mut config = match own {
        Some((key, chain)) => builder.with_client_auth_cert(
            chain,
            PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.to_vec())),
        )?,
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.enable_sni = false;
    config.resumption = rustls::client::Resumption::disabled();
    Ok(config)
}

fn roots(bundle: &[CertificateDer<'static>]) -> Result<RootCertStore, IdentityError> {
    let mut roots = RootCertStore::empty();
    for anchor in bundle {
        roots
            .add(anchor.clone())
            .map_err(|error| IdentityError::Bundle(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(IdentityError::Bundle("it holds no certificate".into()));
    }
    Ok(roots)
}

/// The one SPIFFE id of a certificate.
pub fn spiffe_id(certificate: &CertificateDer<'_>) -> Result<SpiffeId, &'static str> {
    let (rest, parsed) =
        X509Certificate::from_der(certificate).map_err(|_| "it is no X.509 certificate")?;
    if !rest.is_empty() {
        return Err("bytes follow the certificate");
    }
    if parsed.is_ca() {
        return Err("it is a CA certificate");
    }
    let mut names = None;
    for extension in parsed.extensions() {
        match extension.parsed_extension() {
            ParsedExtension::SubjectAlternativeName(san) => names = Some(&san.general_names),
            ParsedExtension::KeyUsage(usage) if usage.key_cert_sign() || usage.crl_sign() => {
                return Err("it may sign certificates");
            }
            _ => {}
        }
    }
    let mut uris = names.into_iter().flatten().filter_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    });
    match (uris.next(), uris.next()) {
        (Some(uri), None) => SpiffeId::parse(uri).ok_or("its URI name is no SPIFFE id"),
        (None, _) => Err("it has no URI name"),
        (Some(_), Some(_)) => Err("it has more than one URI name"),
    }
}

/// By the clock of now: one that is set later changes nothing for whoever is connected.
pub fn valid_for(certificate: &CertificateDer<'_>) -> Result<Duration, &'static str> {
    let left = not_after(certificate)?.duration_since(SystemTime::now());
    Ok(left.unwrap_or_default())
}

fn not_after(certificate: &CertificateDer<'_>) -> Result<SystemTime, &'static str> {
    let (_, parsed) =
        X509Certificate::from_der(certificate).map_err(|_| "it is no X.509 certificate")?;
    let seconds = u64::try_from(parsed.validity().not_after.timestamp())
        .map_err(|_| "it expired before 1970")?;
    Ok(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
}

/// Chain and purpose of a server's certificate. Its *name* is judged after the handshake, against what discovery
/// expects of this endpoint and before a byte is sent: one configuration then serves all endpoints.
#[derive(Debug)]
struct MeshServerVerifier {
    roots: Arc<RootCertStore>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl MeshServerVerifier {
    fn new(roots: Arc<RootCertStore>, provider: &CryptoProvider) -> Self {
        Self {
            roots,
            algorithms: provider.signature_verification_algorithms,
        }
    }
}

impl ServerCertVerifier for MeshServerVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let parsed = rustls::server::ParsedCertificate::try_from(leaf)?;
        rustls::client::verify_server_cert_signed_by_trust_anchor(
            &parsed,
            &self.roots,
            intermediates,
            now,
            self.algorithms.all,
        )?;
        spiffe_id(leaf).map_err(|reason| rustls::Error::General(reason.into()))?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.3 only".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Chain and purpose by webpki, then our own rules about the name, before the handshake is finished: a stranger never
/// gets as far as an HTTP connection.
#[derive(Debug)]
struct MeshClientVerifier {
    chain: Arc<dyn ClientCertVerifier>,
    trust_domain: String,
}

impl ClientCertVerifier for MeshClientVerifier {
    fn root_hint_subjects(&self) -> &[rustls::DistinguishedName] {
        // A list of our anchors' names would tell strangers about us and our peers nothing.
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<rustls::server::danger::ClientCertVerified, rustls::Error> {
        let verified = self.chain.verify_client_cert(leaf, intermediates, now)?;
        let id = spiffe_id(leaf).map_err(|reason| rustls::Error::General(reason.into()))?;
        if id.trust_domain() != self.trust_domain {
            return Err(rustls::Error::InvalidCertificate(
                rustls::CertificateError::ApplicationVerificationFailure,
            ));
        }
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.3 only".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain
            .verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_exact_or_none() {
        assert!(SpiffeId::parse("spiffe://weir.local/ns/boutique/sa/cart").is_some());
        for wrong in [
            "",
            "spiffe://weir.local",
            "spiffe://weir.local/",
            "spiffe://Weir.local/ns/a",
            "spiffe://weir.local//a",
            "spiffe://weir.local/a/../b",
            "spiffe://weir.local/a/",
            "spiffe://weir.local/a%2Fb",
            "spiffe://weir.local/a?b",
            "spiffe:///ns/a",
            "https://weir.local/ns/a",
            "spiffe://weir.local:80/ns/a",
            "spiffe://weir.local/a\0b",
        ] {
            assert_eq!(SpiffeId::parse(wrong), None, "{wrong:?}");
        }
    }
}
