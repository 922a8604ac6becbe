//! A sidecar's certificate, and the connections that it makes with one.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use hyper_util::rt::TokioIo;
use rcgen::{CertificateParams, KeyPair};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use tokio::net::TcpStream;
use tonic::Status;
use tonic::transport::{Channel, Endpoint, Uri};
use weir_config::pb;
use weir_config::pb::identity_client::IdentityClient;
use weir_control_plane::spiffe::SpiffeId;

use super::token;

#[derive(Clone, Debug)]
pub struct Credentials {
    pub chain: Vec<CertificateDer<'static>>,
    pub key: Vec<u8>,
    pub trust_bundle: Vec<CertificateDer<'static>>,
}

pub fn trust_bundle(folder: &Path) -> Vec<CertificateDer<'static>> {
    let bundle =
        CertificateDer::pem_file_iter(folder.join("ca.crt")).expect("the trust bundle's file");
    bundle.collect::<Result<_, _>>().expect("the trust bundle")
}

pub async fn certify(
    address: SocketAddr,
    trust_bundle: &[CertificateDer<'static>],
    pod: &str,
) -> Result<Credentials, Status> {
    let key = KeyPair::generate().expect("a key");
    let csr = CertificateParams::default()
        .serialize_request(&key)
        .expect("a request");
    let request = pb::CertifyRequest {
        csr: csr.der().to_vec().into(),
        token: token(pod),
        pod_namespace: "boutique".to_owned(),
        pod_name: pod.to_owned(),
    };
    let channel = channel(address, trust_bundle, None)
        .await
        .map_err(|error| Status::unavailable(error.to_string()))?;
    let response = IdentityClient::new(channel)
        .certify(request)
        .await?
        .into_inner();
    let der = |bytes: &prost::bytes::Bytes| CertificateDer::from(bytes.to_vec());
    Ok(Credentials {
        chain: response.chain.iter().map(der).collect(),
        key: key.serialize_der(),
        trust_bundle: response.trust_bundle.iter().map(der).collect(),
    })
}

pub async fn channel(
    address: SocketAddr,
    trust_bundle: &[CertificateDer<'static>],
    credentials: Option<&Credentials>,
) -> Result<Channel, Box<dyn std::error::Error + Send + Sync>> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    for anchor in trust_bundle {
        roots.add(anchor.clone())?;
    }
    let chain =
        WebPkiServerVerifier::builder_with_provider(roots.into(), provider.clone()).build()?;
    let config = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(ControlPlaneVerifier { chain, provider }));
    let mut config = match credentials {
        None => config.with_no_client_auth(),
        Some(credentials) => {
            let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(credentials.key.clone()));
            config.with_client_auth_cert(credentials.chain.clone(), key)?
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    let tls = tokio_rustls::TlsConnector::from(Arc::new(config));
    let connector = tower::service_fn(move |_: Uri| {
        let tls = tls.clone();
        async move {
            let tcp = TcpStream::connect(address).await?;
            let name = ServerName::try_from("control-plane").expect("a name");
            Ok::<_, std::io::Error>(TokioIo::new(tls.connect(name, tcp).await?))
        }
    });
    Ok(Endpoint::from_static("http://control-plane")
        .connect_with_connector(connector)
        .await?)
}

/// As a sidecar does it: the chain by webpki, then exactly one SPIFFE id, the control plane's.
#[derive(Debug)]
struct ControlPlaneVerifier {
    chain: Arc<WebPkiServerVerifier>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for ControlPlaneVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        // Names are checked last: when only that fails, the chain was in order.
        match self
            .chain
            .verify_server_cert(end_entity, intermediates, name, ocsp, now)
        {
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => {}
            Ok(_) => {
                return Err(rustls::Error::General(
                    "a DNS name in a certificate of the mesh".into(),
                ));
            }
            Err(error) => return Err(error),
        }
        let found = SpiffeId::of_certificate(end_entity)
            .map_err(|error| rustls::Error::General(error.to_string()))?;
        if found.to_string() == "spiffe://weir.local/ns/weir-system/sa/weir-control-plane" {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(rustls::Error::General(format!("this is {found}")))
        }
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.2 is not spoken here".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
