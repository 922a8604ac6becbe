//! To the app: from the sidecar of a caller, proven by mutual TLS, or in plain text where the mode permits it.

use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use weir_config::snapshot::{self, MtlsMode};

use super::downstream::Downstream;
use super::first_bytes::{self, Beginning, Expected, Late};
use super::{Proxy, Rejected, original_destination, reset, verdict};
use crate::ahead::ReadAhead;
use crate::detect::{Detected, MeshProtocol};
use crate::drain::Drain;
use crate::http::{self, Connection, Target};
use crate::identity::{self, spiffe_id};
use crate::layer::authorize::Right;
use crate::mesh::{InboundPort, Mesh};
use crate::request::Protocol;
use crate::shares::Shares;
use crate::tcp::Cut;
use crate::telemetry::{self, Direction};

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Handshakes are the cheapest way to burn somebody else's CPU (resilience.md section 9).
const HANDSHAKES_MAX: usize = 100;
/// Whoever lets its handshakes hang keeps only its own address waiting.
const PEER_HANDSHAKES_MAX: usize = 8;
const INBOUND: Direction = Direction::Inbound;

static HANDSHAKES: LazyLock<Arc<Shares>> =
    LazyLock::new(|| Shares::new(HANDSHAKES_MAX, PEER_HANDSHAKES_MAX));

pub(super) async fn serve(
    stream: TcpStream,
    worker: usize,
    proxy: &Proxy,
    mut drain: Drain,
) -> Result<(), Rejected> {
    let address = original_destination(&stream, proxy, Direction::Inbound)?;
    if !proxy.pod_addresses.are_meant_by(&stream, address.ip()) {
        return Err(reset(&stream, Rejected::NotThisPod));
    }
    let mesh = &proxy.mesh;
    let Some((port, workload)) = mesh.inbound_port(address.port()).zip(mesh.workload()) else {
        return Err(reset(&stream, Rejected::NotReady));
    };
    let protocol = match proxy.opaque_ports.contains(address.port()) {
        true => snapshot::Protocol::Opaque,
        false => port.protocol,
    };
    let strict = workload.mtls == MtlsMode::Strict;
    // Even an opaque port is looked at: sidecars speak TLS first, whatever they carry.
    let expected = if strict {
        Expected::Tls
    } else {
        Expected::on(protocol)
    };
    let Some(beginning) = first_bytes::read(stream, expected, &mut drain).await? else {
        return Ok(());
    };
    let app = App {
        address,
        port,
        protocol,
        worker,
        mesh,
        drain,
    };
    if strict && beginning.mesh().is_none() {
        return Err(reset(&beginning.stream, Rejected::PlainText));
    }
    app.begun(beginning).await
}

/// One connection's way to the app.
struct App<'a> {
    address: SocketAddr,
    port: Arc<InboundPort>,
    protocol: snapshot::Protocol,
    worker: usize,
    mesh: &'a Mesh,
    drain: Drain,
}

impl App<'_> {
    async fn begun(mut self, mut beginning: Beginning) -> Result<(), Rejected> {
        if beginning.detected == Detected::NeedMore {
            let late = if self.port.authorization().admits_bytes_of_anybody() {
                self.late(beginning.stream, None).await?
            } else {
                // It may be somebody who may, and whose first packet was lost: who it is comes with that. The app is not asked.
                first_bytes::read(beginning.stream, Expected::Tls, &mut self.drain).await?
            };
            match late {
                Some(late) => beginning = late,
                None => return Ok(()),
            }
        }
        match beginning.mesh() {
            Some(protocol) => self.mutual_tls(beginning.rewound(), protocol).await,
            None => self.judged(beginning, None).await,
        }
    }

    /// What a client says that was silent for a while; `None` when it was bytes, and they have been carried.
    async fn late<S: Downstream>(
        &self,
        stream: S,
        caller: Option<&Arc<str>>,
    ) -> Result<Option<Beginning<S>>, Rejected> {
        // The app may be the first to speak.
        let mut right = self.authorized(stream.tcp(), caller.cloned())?;
        let app = self.connect(stream.tcp()).await?;
        let (stream, app, prefix) = match first_bytes::late(stream, app, right.taken_away()).await {
            Late::Client { beginning, .. }
                if caller.is_none() && beginning.mesh().is_some()
                    || self.is_http(&beginning.detected) =>
            {
                return Ok(Some(beginning));
            }
            Late::Client {
                beginning,
                upstream,
            } => {
                self.detected(&beginning.detected, beginning.why);
                (beginning.stream, upstream, beginning.prefix)
            }
            Late::Server {
                stream,
                upstream,
                prefix,
            } => {
                self.detected(&Detected::Opaque, "server-spoke-first");
                (stream, upstream, prefix)
            }
            Late::Gone => return Ok(None),
        };
        self.forward(stream, app, prefix, right).await;
        Ok(None)
    }

    fn is_http(&self, detected: &Detected) -> bool {
        self.protocol != snapshot::Protocol::Opaque
            && matches!(detected, Detected::Http1 | Detected::Http2)
    }

    async fn mutual_tls(
        mut self,
        stream: ReadAhead<TcpStream>,
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
        let peer = stream.get_ref().peer_addr();
        let peer = peer.map_err(|_| Rejected::Handshake)?.ip();
        let handshake = async {
            let _place = HANDSHAKES.take(peer).await;
            TlsAcceptor::from(config).accept(stream).await
        };
        let tls = match tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake).await {
            Ok(Ok(tls)) => tls,
            Ok(Err(error)) => {
                tracing::info!(%error, "a peer could not prove itself");
                return Err(Rejected::Handshake);
            }
            Err(_) => return Err(Rejected::HandshakeTimeout),
        };
        let chain = tls.get_ref().1.peer_certificates();
        let leaf = chain.and_then(|chain| chain.first());
        let leaf = leaf.ok_or(Rejected::Handshake)?;
        let caller = spiffe_id(leaf).map_err(|_| Rejected::Handshake)?.shared();
        // Whoever still is who it was has another certificate by then, and comes back with it (security.md S-4c).
        let left = identity::valid_for(leaf).map_err(|_| Rejected::Handshake)?;
        self.drain = self.drain.ending_in(left);
        match protocol {
            MeshProtocol::Http2 => self.http(tls, Protocol::Http2, Some(caller)).await,
            MeshProtocol::Http1 => self.http(tls, Protocol::Http1, Some(caller)).await,
            MeshProtocol::Tcp => self.tunnel(tls, caller).await,
        }
    }

    /// What a sidecar sends as bytes: all of an opaque port, TLS of its app's own, and what is not HTTP where nobody says what
    /// the port speaks. Whoever sends requests this way does not get them past what requests meet.
    async fn tunnel<S: Downstream>(self, stream: S, caller: Arc<str>) -> Result<(), Rejected> {
        if self.protocol == snapshot::Protocol::Opaque {
            return self.carry(stream, Bytes::new(), Some(caller)).await;
        }
        // Apart, or every idle connection has room for it.
        Box::pin(self.heard(stream, caller)).await
    }

    async fn heard<S: Downstream>(mut self, stream: S, caller: Arc<str>) -> Result<(), Rejected> {
        let beginning = match self.protocol {
            // The other sidecar has already waited for its client to speak.
            snapshot::Protocol::Detect => self.late(stream, Some(&caller)).await?,
            declared => first_bytes::read(stream, Expected::on(declared), &mut self.drain).await?,
        };
        match beginning {
            Some(beginning) => self.judged(beginning, Some(caller)).await,
            None => Ok(()),
        }
    }

    async fn judged<S: Downstream>(
        self,
        beginning: Beginning<S>,
        caller: Option<Arc<str>>,
    ) -> Result<(), Rejected> {
        let opaque = self.protocol == snapshot::Protocol::Opaque;
        let why = if opaque { "declared" } else { beginning.why };
        self.detected(&beginning.detected, why);
        match beginning.detected {
            Detected::Http1 if !opaque => {
                self.http(beginning.rewound(), Protocol::Http1, caller)
                    .await
            }
            Detected::Http2 if !opaque => {
                self.http(beginning.rewound(), Protocol::Http2, caller)
                    .await
            }
            _ => self.carry(beginning.stream, beginning.prefix, caller).await,
        }
    }

    async fn carry(
        &self,
        stream: impl Downstream,
        prefix: Bytes,
        caller: Option<Arc<str>>,
    ) -> Result<(), Rejected> {
        let right = self.authorized(stream.tcp(), caller)?;
        let app = self.connect(stream.tcp()).await?;
        self.forward(stream, app, prefix, right).await;
        Ok(())
    }

    fn detected(&self, detected: &Detected, why: &'static str) {
        telemetry::detected(INBOUND, &self.port.service, verdict(detected), why);
    }

    async fn http<I>(
        self,
        stream: I,
        protocol: Protocol,
        caller: Option<Arc<str>>,
    ) -> Result<(), Rejected>
    where
        I: AsyncRead + AsyncWrite + Cut + Unpin + Send + 'static,
    {
        let mutual_tls = caller.is_some();
        telemetry::connection(INBOUND, &self.port.service, mutual_tls, protocol.as_str());
        let connection = Connection {
            service: self.port.service.clone(),
            target: Target::App(self.port.stack(self.address, &self.mesh.environment)),
            worker: self.worker,
            caller,
            destination: self.address,
        };
        http::serve(stream, protocol, connection, self.drain)
            .await
            .map_err(|_| Rejected::Protocol)
    }

    /// Whether bytes may pass that nobody looks at.
    fn authorized(&self, stream: &TcpStream, caller: Option<Arc<str>>) -> Result<Right, Rejected> {
        let admitted = self.port.authorization().admit_bytes(caller);
        admitted.map_err(|_| reset(stream, Rejected::Denied))
    }

    async fn forward<S: Downstream>(
        &self,
        stream: S,
        app: TcpStream,
        prefix: Bytes,
        mut right: Right,
    ) {
        telemetry::connection(INBOUND, &self.port.service, S::MUTUAL_TLS, "opaque");
        stream.carry(app, prefix, right.taken_away()).await;
    }

    async fn connect(&self, stream: &TcpStream) -> Result<TcpStream, Rejected> {
        let connecting = self.mesh.environment.connector.plain(self.address).await;
        connecting.map_err(|_| reset(stream, Rejected::UpstreamUnavailable))
    }
}

#[cfg(test)]
mod tests;
