//! One downstream connection: where was it going, what does it speak, who takes it.
//!
//! ```text
//!   outbound   original destination ─▶ what is that? ─▶ outside: bytes through
//!                                                     ─▶ service: HTTP ─▶ pipeline
//!                                                                 bytes ─▶ an endpoint
//!   inbound    original destination ─▶ first bytes ─▶ mutual TLS ─▶ HTTP ─▶ pipeline, or bytes ─▶ app
//!                                                   ─▶ plain: the same where the mode permits it
//! ```

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use weir_config::snapshot::{self, MtlsMode};

use crate::backend::Backend;
use crate::body::Guard;
use crate::connector::Stream;
use crate::detect::{self, Detected, MeshProtocol};
use crate::drain::Drain;
use crate::error::Error;
use crate::http::{Connection, Target, serve};
use crate::identity::{alpn, spiffe_id};
use crate::mesh::{Destination, InboundPort, Mesh};
use crate::request::{Context, Protocol};
use crate::rewind::Rewind;
use crate::telemetry::Direction::{Inbound, Outbound};
use crate::telemetry::{self, Direction};
use crate::{socket, tcp};

/// A port of unknown protocol on which the client says nothing for this long: its server may speak first.
const SILENCE: Duration = Duration::from_millis(50);
/// A client that has begun to speak must come to the point.
const FIRST_BYTES_TIMEOUT: Duration = Duration::from_secs(10);
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Handshakes are the cheapest way to burn somebody else's CPU (resilience.md section 9).
const HANDSHAKES_MAX: usize = 100;
const OPAQUE_IDLE: Duration = Duration::from_secs(60 * 60);
/// Endpoints that an opaque connection tries before it gives up.
const OPAQUE_TRIES: usize = 3;

static HANDSHAKES: Semaphore = Semaphore::const_new(HANDSHAKES_MAX);

/// What every connection is served with.
pub struct Proxy {
    pub mesh: Mesh,
    /// Where this proxy listens: a connection that was meant for one of these would loop.
    pub own_ports: [u16; 3],
}

/// Why a connection was not served. The text is the metric's label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejected {
    NoOriginalDestination,
    OwnPort,
    UnknownDestination,
    NotReady,
    PlainText,
    Handshake,
    HandshakeTimeout,
    SlowFirstBytes,
    UpstreamUnavailable,
    Protocol,
}

impl Rejected {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoOriginalDestination => "no-original-destination",
            Self::OwnPort => "own-port",
            Self::UnknownDestination => "unknown-destination",
            Self::NotReady => "not-ready",
            Self::PlainText => "plain-text",
            Self::Handshake => "tls-handshake",
            Self::HandshakeTimeout => "tls-handshake-timeout",
            Self::SlowFirstBytes => "slow-first-bytes",
            Self::UpstreamUnavailable => "upstream-unavailable",
            Self::Protocol => "protocol",
        }
    }
}

/// Serves a connection to its end.
pub async fn accept(
    stream: TcpStream,
    direction: Direction,
    worker: usize,
    proxy: &Proxy,
    drain: Drain,
) {
    let result = match direction {
        Outbound => outbound(stream, worker, proxy, drain).await,
        Inbound => inbound(stream, worker, proxy, drain).await,
    };
    if let Err(rejected) = result {
        telemetry::rejected_connection(direction, rejected.as_str());
        tracing::debug!(
            direction = direction.as_str(),
            reason = rejected.as_str(),
            "connection refused"
        );
    }
}

fn meant(stream: &TcpStream, proxy: &Proxy) -> Result<SocketAddr, Rejected> {
    // It may be gone already.
    let _ = socket::configure(stream);
    let address =
        socket::original_destination(stream).map_err(|_| Rejected::NoOriginalDestination)?;
    if proxy.own_ports.contains(&address.port()) {
        return Err(Rejected::OwnPort);
    }
    Ok(address)
}

async fn outbound(
    stream: TcpStream,
    worker: usize,
    proxy: &Proxy,
    drain: Drain,
) -> Result<(), Rejected> {
    let reject = |stream: &TcpStream, reason| {
        tcp::reset(stream);
        reason
    };
    let address = meant(&stream, proxy).map_err(|reason| reject(&stream, reason))?;
    let backend = match proxy.mesh.resolve(address).await {
        Ok(Destination::Service(backend)) => backend,
        Ok(Destination::Outside) => return outside(stream, address, &proxy.mesh).await,
        Err(error) => {
            tracing::warn!(%error, "refused");
            return Err(reject(&stream, Rejected::UnknownDestination));
        }
    };
    backend.connections.fetch_add(1, Ordering::Relaxed);
    let _used = Guard::new({
        let backend = backend.clone();
        move |_| {
            backend.connections.fetch_sub(1, Ordering::Relaxed);
        }
    });
    let (stream, prefix, detected, why) = match backend.routes().protocol {
        snapshot::Protocol::Opaque => (stream, Bytes::new(), Detected::Opaque, "declared"),
        _ => first_bytes(stream).await?,
    };
    let service = backend.service.clone();
    telemetry::detected(Outbound, &service, name(&detected), why);
    let protocol = match detected {
        Detected::Http1 => Protocol::Http1,
        Detected::Http2 => Protocol::Http2,
        Detected::NeedMore if why == "silence" => {
            match opaque_unless_http(stream, &backend, worker).await? {
                Some((stream, prefix, protocol)) => {
                    return serve_service(stream, prefix, protocol, backend, worker, drain).await;
                }
                None => return Ok(()),
            }
        }
        _ => return opaque(stream, prefix, &backend, worker).await,
    };
    serve_service(stream, prefix, protocol, backend, worker, drain).await
}

async fn serve_service(
    stream: TcpStream,
    prefix: Bytes,
    protocol: Protocol,
    backend: Arc<Backend>,
    worker: usize,
    drain: Drain,
) -> Result<(), Rejected> {
    telemetry::connection(Outbound, &backend.service, false, protocol.as_str());
    let connection = Connection {
        service: backend.service.clone(),
        target: Target::Service(backend),
        worker,
        caller: None,
    };
    serve(Rewind::new(prefix, stream), protocol, connection, drain)
        .await
        .map_err(|_| Rejected::Protocol)
}

/// Plain bytes to where the app wanted to go.
async fn outside(stream: TcpStream, address: SocketAddr, mesh: &Mesh) -> Result<(), Rejected> {
    telemetry::connection(Outbound, "outside", false, "opaque");
    match mesh.environment.connector.plain(address).await {
        Ok(upstream) => {
            tcp::forward_plain(stream, upstream, OPAQUE_IDLE, Bytes::new()).await;
            Ok(())
        }
        Err(_) => {
            tcp::reset(&stream);
            Err(Rejected::UpstreamUnavailable)
        }
    }
}

/// The client waits. Either its server speaks first, and then it must be called now; or the client is merely early (a
/// connection made in advance), and then it must not lose its HTTP policy. So: connect as if opaque, and see who speaks
/// first. Nothing has been sent by then, so an HTTP client loses nothing.
async fn opaque_unless_http(
    mut stream: TcpStream,
    backend: &Arc<Backend>,
    worker: usize,
) -> Result<Option<(TcpStream, Bytes, Protocol)>, Rejected> {
    let (mut upstream, guard) = connect_opaque(&stream, backend, worker).await?;
    let mut from_server = BytesMut::with_capacity(1024);
    let mut from_client = BytesMut::new();
    loop {
        tokio::select! {
            read = upstream.read_buf(&mut from_server) => {
                telemetry::detected(Outbound, &backend.service, "opaque", "server-spoke-first");
                // Whatever came, an end or a greeting: from here on it is bytes.
                let done = read.is_err();
                let greeting = from_server.freeze();
                if done || tokio::io::AsyncWriteExt::write_all(&mut stream, &greeting).await.is_err() {
                    tcp::reset(&stream);
                    upstream.reset();
                    return Ok(None);
                }
                carry(stream, upstream, from_client.freeze(), backend, guard).await;
                return Ok(None);
            }
            read = stream.read_buf(&mut from_client) => {
                let verdict = match read {
                    Ok(0) | Err(_) => Detected::Opaque,
                    Ok(_) => detect::detect(&from_client),
                };
                match verdict {
                    Detected::NeedMore => continue,
                    Detected::Http1 | Detected::Http2 => {
                        telemetry::detected(Outbound, &backend.service, name(&verdict), "late-bytes");
                        let protocol = if verdict == Detected::Http1 { Protocol::Http1 } else { Protocol::Http2 };
                        return Ok(Some((stream, from_client.freeze(), protocol)));
                    }
                    _ => {
                        carry(stream, upstream, from_client.freeze(), backend, guard).await;
                        return Ok(None);
                    }
                }
            }
        }
    }
}

async fn opaque(
    stream: TcpStream,
    prefix: Bytes,
    backend: &Arc<Backend>,
    worker: usize,
) -> Result<(), Rejected> {
    let (upstream, guard) = connect_opaque(&stream, backend, worker).await?;
    carry(stream, upstream, prefix, backend, guard).await;
    Ok(())
}

/// Connects to an endpoint of the service; what cannot be connected to is told to its gate, and the next one tried.
async fn connect_opaque(
    stream: &TcpStream,
    backend: &Arc<Backend>,
    worker: usize,
) -> Result<(Stream, impl Sized + use<>), Rejected> {
    let mut context = Context::opaque(worker);
    for _ in 0..OPAQUE_TRIES {
        let Ok(chosen) = backend.endpoints.choose(&context) else {
            break;
        };
        let member = chosen.member.clone();
        let mut guard = Guard::new(chosen);
        let endpoint = &member.endpoint;
        let connector = backend.endpoints.connector();
        match connector
            .connect(endpoint.address, endpoint.identity.as_ref(), alpn::TCP)
            .await
        {
            Ok(upstream) => {
                guard.duty().connected();
                return Ok((upstream, guard));
            }
            Err(error) => {
                tracing::debug!(%error, service = %backend.service, "an opaque connection tries elsewhere");
                context.tried.push(endpoint.address);
                // The same error comes back.
                let _ = guard.settle(Err(Error::from(error)));
            }
        }
    }
    tcp::reset(stream);
    Err(Rejected::UpstreamUnavailable)
}

/// `guard` is what counts the connection as in flight; it ends with it.
async fn carry(
    stream: TcpStream,
    upstream: Stream,
    prefix: Bytes,
    backend: &Backend,
    guard: impl Sized,
) {
    let mutual_tls = matches!(upstream, Stream::Tls(_));
    telemetry::connection(Outbound, &backend.service, mutual_tls, "opaque");
    match upstream {
        Stream::Plain(upstream) => {
            tcp::forward_plain(stream, upstream, OPAQUE_IDLE, prefix).await;
        }
        mut upstream @ Stream::Tls(_) => {
            let mut stream = stream;
            let ended = tcp::forward(&mut stream, &mut upstream, OPAQUE_IDLE, prefix).await;
            if !matches!(ended.end, tcp::End::Closed) {
                tcp::reset(&stream);
                upstream.reset();
            }
        }
    }
    drop(guard);
}

async fn inbound(
    stream: TcpStream,
    worker: usize,
    proxy: &Proxy,
    drain: Drain,
) -> Result<(), Rejected> {
    let reject = |stream: &TcpStream, reason| {
        tcp::reset(stream);
        reason
    };
    let address = meant(&stream, proxy).map_err(|reason| reject(&stream, reason))?;
    let mesh = &proxy.mesh;
    let Some((port, workload)) = mesh.inbound_port(address.port()).zip(mesh.workload()) else {
        return Err(reject(&stream, Rejected::NotReady));
    };
    let strict = workload.mtls == MtlsMode::Strict;
    // Even an opaque port is looked at: sidecars speak TLS first, whatever they carry.
    let (stream, prefix, detected, why) = first_bytes(stream).await?;
    let app = App {
        address,
        port,
        worker,
        mesh,
        drain,
    };
    if let Detected::Tls(hello) = &detected
        && let Some(protocol) = hello.mesh
    {
        return app.mutual_tls(Rewind::new(prefix, stream), protocol).await;
    }
    if strict {
        return Err(reject(&stream, Rejected::PlainText));
    }
    let opaque = app.port.protocol == snapshot::Protocol::Opaque;
    let why = if opaque { "declared" } else { why };
    telemetry::detected(Inbound, &app.port.service, name(&detected), why);
    match detected {
        Detected::Http1 if !opaque => {
            app.serve(Rewind::new(prefix, stream), Protocol::Http1, None)
                .await
        }
        Detected::Http2 if !opaque => {
            app.serve(Rewind::new(prefix, stream), Protocol::Http2, None)
                .await
        }
        _ => app.plain(stream, prefix).await,
    }
}

/// One inbound connection's way to the app.
struct App<'a> {
    address: SocketAddr,
    port: Arc<InboundPort>,
    worker: usize,
    mesh: &'a Mesh,
    drain: Drain,
}

impl App<'_> {
    async fn mutual_tls(
        self,
        stream: Rewind<TcpStream>,
        protocol: MeshProtocol,
    ) -> Result<(), Rejected> {
        let credentials = self
            .mesh
            .environment
            .connector
            .identity
            .current()
            .filter(|own| own.is_valid());
        let config = credentials.ok_or(Rejected::NotReady)?.server.clone();
        let handshake = async {
            let _place = HANDSHAKES.acquire().await;
            TlsAcceptor::from(config).accept(stream).await
        };
        let mut tls = match tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake).await {
            Ok(Ok(tls)) => tls,
            Ok(Err(error)) => {
                tracing::info!(%error, "a peer could not prove itself");
                return Err(Rejected::Handshake);
            }
            Err(_) => return Err(Rejected::HandshakeTimeout),
        };
        let chain = tls.get_ref().1.peer_certificates();
        let caller = chain
            .and_then(|chain| spiffe_id(chain.first()?).ok())
            .ok_or(Rejected::Handshake)?;
        match protocol {
            MeshProtocol::Http2 => {
                self.serve(tls, Protocol::Http2, Some(caller.shared()))
                    .await
            }
            MeshProtocol::Http1 => {
                self.serve(tls, Protocol::Http1, Some(caller.shared()))
                    .await
            }
            MeshProtocol::Tcp => {
                telemetry::connection(Inbound, &self.port.service, true, "opaque");
                let connector = &self.mesh.environment.connector;
                let Ok(mut app) = connector.plain(self.address).await else {
                    tcp::reset(tls.get_ref().0.get_ref());
                    return Err(Rejected::UpstreamUnavailable);
                };
                let ended = tcp::forward(&mut tls, &mut app, OPAQUE_IDLE, Bytes::new()).await;
                if !matches!(ended.end, tcp::End::Closed) {
                    tcp::reset(&app);
                    tcp::reset(tls.get_ref().0.get_ref());
                }
                Ok(())
            }
        }
    }

    async fn serve<I>(
        self,
        stream: I,
        protocol: Protocol,
        caller: Option<Arc<str>>,
    ) -> Result<(), Rejected>
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        telemetry::connection(
            Inbound,
            &self.port.service,
            caller.is_some(),
            protocol.as_str(),
        );
        let connection = Connection {
            service: self.port.service.clone(),
            target: Target::App(self.port.stack(self.address, &self.mesh.environment)),
            worker: self.worker,
            caller,
        };
        serve(stream, protocol, connection, self.drain)
            .await
            .map_err(|_| Rejected::Protocol)
    }

    async fn plain(self, stream: TcpStream, prefix: Bytes) -> Result<(), Rejected> {
        telemetry::connection(Inbound, &self.port.service, false, "opaque");
        match self.mesh.environment.connector.plain(self.address).await {
            Ok(app) => {
                tcp::forward_plain(stream, app, OPAQUE_IDLE, prefix).await;
                Ok(())
            }
            Err(_) => {
                tcp::reset(&stream);
                Err(Rejected::UpstreamUnavailable)
            }
        }
    }
}

/// Reads until the protocol is known, or the client has said nothing for a while.
async fn first_bytes(
    mut stream: TcpStream,
) -> Result<(TcpStream, Bytes, Detected, &'static str), Rejected> {
    let mut prefix = BytesMut::new();
    let started = Instant::now();
    loop {
        let patience = if prefix.is_empty() {
            SILENCE
        } else {
            FIRST_BYTES_TIMEOUT
        };
        match tokio::time::timeout_at(started + patience, stream.read_buf(&mut prefix)).await {
            Err(_) if prefix.is_empty() => {
                return Ok((stream, Bytes::new(), Detected::NeedMore, "silence"));
            }
            Err(_) => {
                tcp::reset(&stream);
                return Err(Rejected::SlowFirstBytes);
            }
            // Half a greeting and the end: what there is goes on as bytes.
            Ok(Ok(0)) => return Ok((stream, prefix.freeze(), Detected::Opaque, "end")),
            Ok(Err(_)) => return Err(Rejected::SlowFirstBytes),
            Ok(Ok(_)) => match detect::detect(&prefix) {
                Detected::NeedMore => {}
                detected => return Ok((stream, prefix.freeze(), detected, "bytes")),
            },
        }
    }
}

fn name(detected: &Detected) -> &'static str {
    match detected {
        Detected::NeedMore => "silent",
        Detected::Http1 => "http1",
        Detected::Http2 => "http2",
        Detected::Tls(_) => "tls",
        Detected::Opaque => "opaque",
    }
}
