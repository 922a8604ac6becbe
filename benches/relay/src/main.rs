//! A relay with nothing in it, for `cargo bench --bench overhead`. TCP is copied by tokio, HTTP goes from hyper's server to
//! hyper's client; with TLS in or out there is mutual TLS of rustls. What a proxy costs beyond this, its features cost.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::{Arc, Mutex};

use clap::Parser;
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

/// A relay with nothing in it; `cargo bench --bench overhead` starts it itself.
#[derive(Clone, Debug, Parser)]
struct Arguments {
    /// WIRE=PORT=ADDRESS: what comes on this port of loopback goes to that address; WIRE is http1, http2 or tcp.
    #[arg(required = true)]
    ways: Vec<Way>,
    /// Folder with ca.pem, leaf.pem and leaf.key.
    #[arg(long)]
    certificates: PathBuf,
    /// What the upstream's certificate must be for.
    #[arg(long, value_parser = |name: &str| ServerName::try_from(name.to_owned()))]
    name: ServerName<'static>,
    #[arg(long)]
    tls_in: bool,
    #[arg(long)]
    tls_out: bool,
}

#[derive(Clone, Copy, Debug)]
enum Wire {
    Http1,
    Http2,
    Tcp,
}

#[derive(Clone, Debug)]
struct Way {
    wire: Wire,
    port: u16,
    upstream: SocketAddr,
}

impl FromStr for Way {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.split('=').collect();
        let &[wire, port, upstream] = parts.as_slice() else {
            return Err("this is not WIRE=PORT=ADDRESS".into());
        };
        Ok(Self {
            wire: match wire {
                "http1" => Wire::Http1,
                "http2" => Wire::Http2,
                "tcp" => Wire::Tcp,
                other => return Err(format!("{other} is none of http1, http2 and tcp")),
            },
            port: port.parse().map_err(|error| format!("{port}: {error}"))?,
            upstream: (upstream.parse()).map_err(|error| format!("{upstream}: {error}"))?,
        })
    }
}

trait Bytes: AsyncRead + AsyncWrite + Unpin + Send + 'static {}
impl<Any: AsyncRead + AsyncWrite + Unpin + Send + 'static> Bytes for Any {}

fn main() -> io::Result<()> {
    let arguments = Arguments::parse();
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

async fn serve(arguments: Arguments) -> io::Result<()> {
    let acceptor = arguments
        .tls_in
        .then(|| server_tls(&arguments))
        .transpose()?;
    let connector = arguments
        .tls_out
        .then(|| client_tls(&arguments))
        .transpose()?;
    let mut listening = tokio::task::JoinSet::new();
    for way in arguments.ways {
        let upstream = Arc::new(Upstream {
            address: way.upstream,
            name: arguments.name.clone(),
            tls: connector.clone(),
            http1: Mutex::default(),
            http2: tokio::sync::Mutex::default(),
        });
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, way.port)).await?;
        listening.spawn(accept(listener, way.wire, acceptor.clone(), upstream));
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
    name: ServerName<'static>,
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
                let mut secure = tls.connect(self.name.clone(), plain).await?;
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
                    .connect(self.name.clone(), stream)
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
                    .connect(self.name.clone(), stream)
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

type Identity = (
    Vec<CertificateDer<'static>>,
    PrivateKeyDer<'static>,
    Arc<RootCertStore>,
);

fn identity(arguments: &Arguments) -> io::Result<Identity> {
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

fn server_tls(arguments: &Arguments) -> io::Result<TlsAcceptor> {
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

fn client_tls(arguments: &Arguments) -> io::Result<TlsConnector> {
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
