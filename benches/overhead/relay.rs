//! The floor: a relay with nothing in it. TCP is copied by tokio, HTTP goes from hyper's server to hyper's client; with
//! two hops there is mutual TLS of rustls between them. What a proxy costs beyond this, its features cost.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::certificates::NAME;
use crate::process::{PROXY_CORE, Process, Start};
use crate::shape::Wire;
use crate::subject::{BACKEND, Plan, World};

#[derive(Clone, Debug, clap::Args)]
pub struct RelayArgs {
    /// Of three ports on loopback, one for each protocol.
    #[arg(long)]
    first_port: u16,
    /// Its ports are the backend's.
    #[arg(long)]
    upstream: IpAddr,
    /// Folder with ca.pem, leaf.pem and leaf.key.
    #[arg(long)]
    certificates: PathBuf,
    #[arg(long)]
    tls_in: bool,
    #[arg(long)]
    tls_out: bool,
}

trait Bytes: AsyncRead + AsyncWrite + Unpin + Send + 'static {}
impl<Any: AsyncRead + AsyncWrite + Unpin + Send + 'static> Bytes for Any {}

pub fn start(plan: &Plan, world: &World) -> io::Result<(Vec<Process>, Vec<Wire>)> {
    let hop = |hop| {
        let last = hop + 1 == plan.hops;
        let upstream = if last { BACKEND } else { plan.upstream() };
        let mut command = if hop == 0 {
            world.wrapper.clone()
        } else {
            Vec::new()
        };
        command.extend([
            world.own.display().to_string(),
            "relay".into(),
            format!("--first-port={}", plan.port(hop, Wire::Http1)),
            format!("--upstream={}", IpAddr::from(upstream)),
            format!("--certificates={}", world.folder.display()),
        ]);
        command.extend((hop > 0).then(|| "--tls-in".to_owned()));
        command.extend((!last).then(|| "--tls-out".to_owned()));
        Process::start(Start {
            name: format!("relay-{}-{hop}", plan.number),
            command,
            environment: Vec::new(),
            core: PROXY_CORE,
            folder: &world.folder,
        })
    };
    let processes = (0..plan.hops).map(hop).collect::<io::Result<_>>()?;
    Ok((processes, Wire::ALL.to_vec()))
}

/// The relay itself.
pub fn run(arguments: RelayArgs) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        // A profiler writes what it has seen when its program ends by itself.
        let mut terminate = signal(SignalKind::terminate())?;
        tokio::select! {
            served = serve(arguments) => served,
            _ = terminate.recv() => Ok(()),
        }
    })
}

async fn serve(arguments: RelayArgs) -> io::Result<()> {
    let acceptor = arguments
        .tls_in
        .then(|| server_tls(&arguments))
        .transpose()?;
    let connector = arguments
        .tls_out
        .then(|| client_tls(&arguments))
        .transpose()?;
    let mut listening = tokio::task::JoinSet::new();
    for (port, wire) in (arguments.first_port..).zip(Wire::ALL) {
        let upstream = Arc::new(Upstream {
            address: (arguments.upstream, wire.port()).into(),
            tls: connector.clone(),
            http1: Mutex::default(),
            http2: tokio::sync::Mutex::default(),
        });
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
        listening.spawn(accept(listener, wire, acceptor.clone(), upstream));
    }
    while let Some(ended) = listening.join_next().await {
        ended.map_err(io::Error::other)??;
    }
    Ok(())
}

async fn accept(
    listener: TcpListener,
    wire: Wire,
    acceptor: Option<TlsAcceptor>,
    upstream: Arc<Upstream>,
) -> io::Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let (acceptor, upstream) = (acceptor.clone(), upstream.clone());
        tokio::spawn(async move {
            // What goes wrong is seen by the client as a connection that closes.
            let _ = match acceptor {
                None => upstream.relay(stream, wire).await,
                Some(acceptor) => match acceptor.accept(stream).await {
                    Ok(stream) => upstream.relay(stream, wire).await,
                    Err(error) => Err(error),
                },
            };
        });
    }
}

struct Upstream {
    address: SocketAddr,
    tls: Option<TlsConnector>,
    http1: Mutex<Vec<http1::SendRequest<Incoming>>>,
    http2: tokio::sync::Mutex<Option<http2::SendRequest<Incoming>>>,
}

impl Upstream {
    async fn relay(self: Arc<Self>, stream: impl Bytes, wire: Wire) -> io::Result<()> {
        match wire {
            Wire::Tcp => self.copy(stream).await,
            Wire::Http1 => {
                let answer = service_fn(move |request| self.clone().over_http1(request));
                let serving = hyper::server::conn::http1::Builder::new();
                serving
                    .serve_connection(TokioIo::new(stream), answer)
                    .await
                    .map_err(io::Error::other)
            }
            Wire::Http2 => {
                let answer = service_fn(move |request| self.clone().over_http2(request));
                let serving = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                serving
                    .serve_connection(TokioIo::new(stream), answer)
                    .await
                    .map_err(io::Error::other)
            }
        }
    }

    async fn connect(&self) -> io::Result<TcpStream> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    async fn copy(&self, mut downstream: impl Bytes) -> io::Result<()> {
        let mut plain = self.connect().await?;
        match &self.tls {
            None => tokio::io::copy_bidirectional(&mut downstream, &mut plain).await?,
            Some(tls) => {
                let mut secure = tls.connect(name(), plain).await?;
                tokio::io::copy_bidirectional(&mut downstream, &mut secure).await?
            }
        };
        Ok(())
    }

    async fn over_http1(
        self: Arc<Self>,
        request: http::Request<Incoming>,
    ) -> Result<http::Response<Incoming>, hyper::Error> {
        let idle = self.http1.lock().expect("no panic while locked").pop();
        let mut sender = match idle {
            Some(sender) => sender,
            None => self.new_http1().await?,
        };
        let response = sender.send_request(request).await?;
        // Ready again when the answer has been read; until then others find it busy and wait on it.
        let home = self.clone();
        tokio::spawn(async move {
            if sender.ready().await.is_ok() {
                home.http1
                    .lock()
                    .expect("no panic while locked")
                    .push(sender);
            }
        });
        Ok(response)
    }

    async fn new_http1(&self) -> Result<http1::SendRequest<Incoming>, hyper::Error> {
        let stream = self.connect().await.expect("the upstream listens");
        match &self.tls {
            None => {
                let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
                tokio::spawn(connection);
                Ok(sender)
            }
            Some(tls) => {
                let stream = tls
                    .connect(name(), stream)
                    .await
                    .expect("its certificate is right");
                let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
                tokio::spawn(connection);
                Ok(sender)
            }
        }
    }

    async fn over_http2(
        self: Arc<Self>,
        request: http::Request<Incoming>,
    ) -> Result<http::Response<Incoming>, hyper::Error> {
        let mut sender = {
            let mut shared = self.http2.lock().await;
            match &*shared {
                Some(sender) if !sender.is_closed() => sender.clone(),
                _ => shared.insert(self.new_http2().await?).clone(),
            }
        };
        sender.send_request(request).await
    }

    async fn new_http2(&self) -> Result<http2::SendRequest<Incoming>, hyper::Error> {
        let stream = self.connect().await.expect("the upstream listens");
        match &self.tls {
            None => {
                let (sender, connection) =
                    http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
                tokio::spawn(connection);
                Ok(sender)
            }
            Some(tls) => {
                let stream = tls
                    .connect(name(), stream)
                    .await
                    .expect("its certificate is right");
                let (sender, connection) =
                    http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
                tokio::spawn(connection);
                Ok(sender)
            }
        }
    }
}

fn name() -> ServerName<'static> {
    ServerName::try_from(NAME).expect("a constant")
}

type Identity = (
    Vec<CertificateDer<'static>>,
    PrivateKeyDer<'static>,
    Arc<RootCertStore>,
);

fn identity(arguments: &RelayArgs) -> io::Result<Identity> {
    let path = |name: &str| arguments.certificates.join(name);
    let chain = CertificateDer::pem_file_iter(path("leaf.pem")).map_err(io::Error::other)?;
    let chain: Result<Vec<_>, _> = chain.collect();
    let key = PrivateKeyDer::from_pem_file(path("leaf.key")).map_err(io::Error::other)?;
    let mut roots = RootCertStore::empty();
    let authority = CertificateDer::from_pem_file(path("ca.pem")).map_err(io::Error::other)?;
    roots.add(authority).map_err(io::Error::other)?;
    Ok((chain.map_err(io::Error::other)?, key, Arc::new(roots)))
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn server_tls(arguments: &RelayArgs) -> io::Result<TlsAcceptor> {
    let (chain, key, roots) = identity(arguments)?;
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider()).build();
    let config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(io::Error::other)?
        .with_client_cert_verifier(verifier.map_err(io::Error::other)?)
        .with_single_cert(chain, key);
    let mut config = config.map_err(io::Error::other)?;
    config.send_tls13_tickets = 0;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn client_tls(arguments: &RelayArgs) -> io::Result<TlsConnector> {
    let (chain, key, roots) = identity(arguments)?;
    let config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(io::Error::other)?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key);
    let mut config = config.map_err(io::Error::other)?;
    config.resumption = rustls::client::Resumption::disabled();
    Ok(TlsConnector::from(Arc::new(config)))
}
