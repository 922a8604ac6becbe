//! A control plane on loopback and sidecars made of nothing but a TLS client: what the tests act on.

#![allow(dead_code, unreachable_pub)] // each test binary uses its part of it

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

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
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Status, Streaming};
use weir_config::pb;
use weir_config::pb::from_proxy::Message;
use weir_config::pb::identity_client::IdentityClient;
use weir_config::pb::mesh_client::MeshClient;
use weir_control_plane::control_plane::{Cluster, ControlPlane, Settings};
use weir_control_plane::journal::Event;
use weir_control_plane::spiffe::SpiffeId;

/// Far above what anything here takes, on a machine that is busy with something else.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub struct World {
    pub folder: tempfile::TempDir,
    pub plane: ControlPlane,
}

#[derive(Clone, Debug)]
pub struct Credentials {
    pub chain: Vec<CertificateDer<'static>>,
    pub key: Vec<u8>,
    pub trust_bundle: Vec<CertificateDer<'static>>,
}

/// A sidecar's end of its stream.
pub struct Stream {
    outgoing: mpsc::Sender<pb::FromProxy>,
    incoming: Streaming<pb::ToProxy>,
    /// What it has put in force, by service and address.
    pub endpoints: HashMap<String, HashMap<String, pb::Endpoint>>,
    pub trust_bundle: usize,
}

pub fn settings(folder: &Path) -> Settings {
    Settings {
        cluster: Cluster::Files {
            sources: vec![folder.join("source")],
            bootstrap_tokens: folder.join("tokens"),
        },
        listen: "127.0.0.1:0".parse().expect("an address"),
        state: folder.join("state"),
        operator_socket: Some(folder.join("operator.sock")),
        trust_bundle_out: Some(folder.join("ca.crt")),
        trust_domain: "weir.local".to_owned(),
        leaf_lifetime: Duration::from_secs(3600),
        anchor_settle: Duration::from_secs(600),
        rotate_anchor: false,
        journal_facts_max: 10_000,
        stalled_after: Duration::from_secs(2),
    }
}

/// The directories of a control plane, with the boutique's smallest corner in them.
pub fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir_all(folder.path().join("source")).expect("a folder");
    write(
        folder.path(),
        "services.yaml",
        &(service("catalog", "10.96.0.1") + &service("currency", "10.96.0.2")),
    );
    write(folder.path(), "policy.yaml", &policy("catalog", "2s"));
    let pods = ["frontend-0", "catalog-0", "catalog-1", "cart-0"];
    for (number, name) in pods.iter().enumerate() {
        let number = number + 1;
        write(
            folder.path(),
            &format!("pod-{name}.yaml"),
            &pod(name, &format!("10.1.0.{number}")),
        );
        give_token(folder.path(), name, &token(name));
    }
    write(
        folder.path(),
        "slice-catalog.yaml",
        &slice(
            "catalog",
            &[("10.1.0.2", "catalog-0"), ("10.1.0.3", "catalog-1")],
        ),
    );
    folder
}

/// Of a pod of namespace boutique.
pub fn token(pod: &str) -> String {
    format!(
        "{:0<64}",
        pod.bytes()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
    )
}

pub fn give_token(folder: &Path, pod: &str, token: &str) {
    let tokens = folder.join("tokens/boutique");
    std::fs::create_dir_all(&tokens).expect("a folder");
    std::fs::write(tokens.join(pod), token).expect("a token");
}

/// Whole, then renamed.
pub fn write(folder: &Path, name: &str, text: &str) {
    let path = folder.join("source").join(name);
    let temporary = path.with_file_name(format!(".{name}.new"));
    std::fs::write(&temporary, text).expect("written");
    std::fs::rename(&temporary, &path).expect("renamed");
}

pub fn policy(service: &str, deadline: &str) -> String {
    format!(
        "apiVersion: weir.dev/v1alpha1\nkind: ResiliencePolicy\nmetadata: {{name: {service}, namespace: boutique}}\n\
         spec:\n  targetRefs: [{{kind: Service, name: {service}}}]\n  outbound: {{deadline: {deadline}}}\n---\n"
    )
}

pub fn service(name: &str, ip: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: boutique}}\n\
         spec: {{clusterIP: {ip}, selector: {{app: {name}}}, ports: [{{name: grpc, port: 3550}}]}}\n---\n"
    )
}

pub fn pod(name: &str, ip: &str) -> String {
    let app = name.rsplit_once('-').map_or(name, |(app, _)| app);
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: boutique, labels: {{app: {app}}}}}\n\
         spec: {{serviceAccountName: {app}, containers: [{{name: {app}}}], initContainers: [{{name: weir-proxy}}]}}\n\
         status: {{podIP: {ip}, phase: Running, conditions: [{{type: Ready, status: \"True\"}}]}}\n---\n"
    )
}

pub fn slice(service: &str, endpoints: &[(&str, &str)]) -> String {
    let endpoints: Vec<String> = endpoints
        .iter()
        .map(|(ip, pod)| format!("{{addresses: [{ip}], conditions: {{ready: true}}, targetRef: {{kind: Pod, name: {pod}}}}}"))
        .collect();
    format!(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
         metadata: {{name: {service}-1, namespace: boutique, labels: {{kubernetes.io/service-name: {service}}}}}\n\
         addressType: IPv4\nports: [{{name: grpc, port: 3550, protocol: TCP}}]\nendpoints: [{}]\n---\n",
        endpoints.join(", ")
    )
}

impl World {
    pub async fn new() -> Self {
        Self::with(folder(), |_| {}).await
    }

    pub async fn with(folder: tempfile::TempDir, change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = settings(folder.path());
        change(&mut settings);
        let plane = ControlPlane::start(settings).await.expect("it starts");
        Self { folder, plane }
    }

    /// Stops it and starts it again on the same directories.
    pub async fn restarted(self, change: impl FnOnce(&mut Settings)) -> Self {
        let Self { folder, plane } = self;
        plane.stop().await;
        // The journal's lock goes with the last of its threads.
        let mut settings = settings(folder.path());
        change(&mut settings);
        let deadline = tokio::time::Instant::now() + PATIENCE;
        let plane = loop {
            match ControlPlane::start(settings.clone()).await {
                Ok(plane) => break plane,
                Err(error) if tokio::time::Instant::now() > deadline => {
                    panic!("it starts again: {error}")
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        };
        Self { folder, plane }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str) {
        write(self.folder.path(), name, text);
    }

    pub fn trust_bundle(&self) -> Vec<CertificateDer<'static>> {
        trust_bundle(self.folder.path())
    }

    /// A certificate for a pod of namespace boutique, by its own token.
    pub async fn certify(&self, pod: &str) -> Credentials {
        certify(self.plane.address, &self.trust_bundle(), pod)
            .await
            .expect("a certificate")
    }

    pub async fn connect(&self, pod: &str) -> Stream {
        let credentials = self.certify(pod).await;
        let mut stream = self.connect_as(&credentials, pod).await;
        let push = stream.push().await;
        assert!(
            !push.workload_json.is_empty() && !push.trust_bundle.is_empty(),
            "its own workload comes first"
        );
        stream.ack(&push).await;
        stream
    }

    pub async fn connect_as(&self, credentials: &Credentials, pod: &str) -> Stream {
        let channel = channel(self.plane.address, &self.trust_bundle(), Some(credentials))
            .await
            .expect("TLS");
        Stream::open(channel, hello("boutique", pod))
            .await
            .expect("a stream")
    }

    pub fn facts(&self, kind: &str) -> Vec<Event> {
        let events = self
            .plane
            .journal
            .read(0, 10_000)
            .expect("the journal is readable");
        events
            .into_iter()
            .filter(|event| event.kind == kind)
            .collect()
    }

    /// Waits for a fact of this kind.
    pub async fn fact(&self, kind: &str) -> Event {
        let mut synced = self.plane.journal.watch();
        let found = async {
            loop {
                synced.borrow_and_update();
                if let Some(event) = self.facts(kind).pop() {
                    return event;
                }
                synced.changed().await.expect("the journal lives");
            }
        };
        tokio::time::timeout(PATIENCE, found)
            .await
            .unwrap_or_else(|_| panic!("no {kind} was recorded"))
    }
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

pub fn hello(namespace: &str, pod: &str) -> Message {
    Message::Hello(pb::Hello {
        pod_namespace: namespace.to_owned(),
        pod_name: pod.to_owned(),
        proxy_version: "test".to_owned(),
    })
}

impl Stream {
    pub async fn open(channel: Channel, first: Message) -> Result<Self, Status> {
        let (outgoing, receiver) = mpsc::channel(1024);
        outgoing
            .send(pb::FromProxy {
                message: Some(first),
            })
            .await
            .expect("room");
        let incoming = MeshClient::new(channel)
            .connect(ReceiverStream::new(receiver))
            .await?
            .into_inner();
        Ok(Self {
            outgoing,
            incoming,
            endpoints: HashMap::new(),
            trust_bundle: 0,
        })
    }

    pub async fn send(&self, message: Message) {
        self.outgoing
            .send(pb::FromProxy {
                message: Some(message),
            })
            .await
            .expect("the stream lives");
    }

    pub async fn subscribe(&self, address: &str) {
        let address = address.to_owned();
        self.send(Message::Subscribe(pb::Subscribe { address }))
            .await;
    }

    pub async fn fact(&self, fact: pb::fact::Fact) {
        let at_ms = weir_control_plane::journal::now_ms();
        self.send(Message::Fact(pb::Fact {
            at_ms,
            fact: Some(fact),
        }))
        .await;
    }

    /// The next push; a stream that ends instead is a failure.
    pub async fn push(&mut self) -> pb::ToProxy {
        let push = tokio::time::timeout(PATIENCE, self.incoming.message())
            .await
            .expect("a push in time");
        push.expect("the stream lives").expect("the stream goes on")
    }

    /// The next push, however long it takes; `None`: the stream is over.
    pub async fn maybe_push(&mut self) -> Option<pb::ToProxy> {
        self.incoming.message().await.ok().flatten()
    }

    /// How the stream ends.
    pub async fn end(&mut self) -> Status {
        let end = async {
            loop {
                match self.incoming.message().await {
                    Ok(Some(_)) => {}
                    Ok(None) => return Status::ok(""),
                    Err(status) => return status,
                }
            }
        };
        tokio::time::timeout(PATIENCE, end)
            .await
            .expect("the stream ends in time")
    }

    /// Whether nothing comes for a while.
    pub async fn is_quiet(&mut self) -> bool {
        tokio::time::timeout(Duration::from_millis(700), self.incoming.message())
            .await
            .is_err()
    }

    pub async fn ack(&mut self, push: &pb::ToProxy) {
        self.apply(push);
        let (nonce, version) = (push.nonce, push.version);
        self.send(Message::Ack(pb::Ack { nonce, version })).await;
    }

    pub async fn nack(&self, push: &pb::ToProxy, reason: &str) {
        let (nonce, version, reason) = (push.nonce, push.version, reason.to_owned());
        self.send(Message::Nack(pb::Nack {
            nonce,
            version,
            reason,
        }))
        .await;
    }

    /// The next push, put in force.
    pub async fn next(&mut self) -> pb::ToProxy {
        let push = self.push().await;
        self.ack(&push).await;
        push
    }

    /// Takes pushes until `done` says that what it has is as it should be.
    pub async fn until(&mut self, done: impl Fn(&Self) -> bool) {
        while !done(self) {
            self.next().await;
        }
    }

    pub fn addresses(&self, service: &str) -> Vec<String> {
        let endpoints = self
            .endpoints
            .get(service)
            .into_iter()
            .flat_map(HashMap::keys);
        let mut addresses: Vec<String> = endpoints.cloned().collect();
        addresses.sort();
        addresses
    }

    fn apply(&mut self, push: &pb::ToProxy) {
        if !push.trust_bundle.is_empty() {
            self.trust_bundle = push.trust_bundle.len();
        }
        for service in push
            .services
            .iter()
            .filter(|service| service.policy_json.is_empty())
        {
            self.endpoints.remove(&service.service);
        }
        for delta in &push.endpoints {
            let known = self.endpoints.entry(delta.service.clone()).or_default();
            if delta.reset {
                known.clear();
            }
            for address in &delta.removed {
                known
                    .remove(address)
                    .expect("only what is known is removed");
            }
            for endpoint in &delta.changed {
                known.insert(endpoint.address.clone(), endpoint.clone());
            }
        }
    }
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
