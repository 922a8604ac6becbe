//! TLS 1.3 with our own certificates: what the control plane shows, whom it believes, and how it accepts.
//!
//! A client certificate is asked for and not demanded: a sidecar's first one has to come from somewhere. Which
//! call needs one is the call's business.

mod handshakes;

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use rcgen::KeyPair;
use rustls::RootCertStore;
use rustls::server::{NoServerSessionStorage, ServerConfig, WebPkiClientVerifier};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

use self::handshakes::{Arrival, Handshakes};
use crate::authority::Authority;
use crate::shares::{Share, Shares};
use crate::spiffe::SpiffeId;

/// After an accept that failed for want of descriptors: time for some to come back.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Who is at the other end, as far as TLS knows.
#[derive(Clone, Debug, Default)]
pub struct Peer {
    pub address: Option<SocketAddr>,
    /// Verified: signed by an anchor of ours, in its dates, for clients.
    pub certificate: Option<CertificateDer<'static>>,
}

/// A connection that counts against the limit until it is dropped.
pub struct Connection {
    stream: TlsStream<TcpStream>,
    peer: Peer,
    _share: Share,
}

/// A fresh certificate of the control plane, and verifiers for today's trust bundle.
pub fn server_config(
    authority: &Authority,
    now: SystemTime,
) -> Result<ServerConfig, Box<dyn std::error::Error>> {
    let own_id = SpiffeId::control_plane(&authority.config().trust_domain)
        .ok_or("the trust domain is no DNS name")?;
    let key = KeyPair::generate()?;
    let leaf = authority.issue(&key, &own_id, None, now)?;
    let mut roots = RootCertStore::empty();
    for anchor in authority.trust_bundle(now) {
        roots.add(anchor)?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone());
    let verifier = verifier.allow_unauthenticated().build()?;
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![leaf.certificate], key)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    // No resumption: a session must not outlive the trust it was made under.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// A fresh certificate for names of DNS, which the API server looks at. It shows none of its own.
pub fn webhook_config(
    authority: &Authority,
    names: &[String],
    now: SystemTime,
) -> Result<ServerConfig, Box<dyn std::error::Error>> {
    let key = KeyPair::generate()?;
    let leaf = authority.issue_for_names(&key, names, now)?;
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(vec![leaf.certificate], key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// Accepts until the receiver is gone, however many handshakes hang. Each connection uses the configuration of its moment.
pub async fn accept(
    listener: TcpListener,
    config: Arc<ArcSwap<ServerConfig>>,
    connections: Shares,
    accepted: mpsc::Sender<io::Result<Connection>>,
) {
    let handshakes = Handshakes::default();
    loop {
        let (stream, address) = tokio::select! {
            () = accepted.closed() => return,
            result = listener.accept() => match result {
                Ok(connection) => connection,
                Err(error) => {
                    tracing::warn!(%error, "accepting failed");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
        };
        // A listener of both families shows those of IPv4 as ::ffff:…
        let address = SocketAddr::new(address.ip().to_canonical(), address.port());
        let (Some(share), Some(arrival)) = (
            connections.take(address.ip(), 1),
            handshakes.arrive(address.ip()),
        ) else {
            tracing::debug!(%address, "too many connections: closed");
            continue;
        };
        let (config, accepted) = (config.clone(), accepted.clone());
        tokio::spawn(async move {
            let _ = stream.set_nodelay(true);
            if let Some(stream) = handshake(stream, &config, address, arrival).await {
                let connection = Connection::new(stream, address, share);
                let _ = accepted.send(Ok(connection)).await;
            }
        });
    }
}

async fn handshake(
    stream: TcpStream,
    config: &ArcSwap<ServerConfig>,
    address: SocketAddr,
    arrival: Arrival,
) -> Option<TlsStream<TcpStream>> {
    let Some(_place) = arrival.place().await else {
        tracing::debug!(%address, "no place for a TLS handshake");
        return None;
    };
    let acceptor = TlsAcceptor::from(config.load_full());
    tokio::select! {
        result = acceptor.accept(stream) => match result {
            Ok(stream) => Some(stream),
            Err(error) => {
                tracing::debug!(%address, %error, "TLS handshake failed");
                None
            }
        },
        () = arrival.too_long() => {
            tracing::debug!(%address, "TLS handshake took too long");
            None
        }
    }
}

impl Connection {
    fn new(stream: TlsStream<TcpStream>, address: SocketAddr, share: Share) -> Self {
        let certificate = stream
            .get_ref()
            .1
            .peer_certificates()
            .and_then(<[_]>::first);
        let peer = Peer {
            address: Some(address),
            certificate: certificate.map(|certificate| certificate.clone().into_owned()),
        };
        Self {
            stream,
            peer,
            _share: share,
        }
    }

    pub fn peer(&self) -> &Peer {
        &self.peer
    }
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests;
