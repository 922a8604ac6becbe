//! From the app: to a service of the mesh, or outside it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use tokio::net::TcpStream;
use weir_config::snapshot;

use super::first_bytes::{self, Beginning, Expected, Late};
use super::{OPAQUE_IDLE, Proxy, Rejected, original_destination, reset, verdict};
use crate::backend::Backend;
use crate::body::Guard;
use crate::connector::Stream;
use crate::detect::Detected;
use crate::drain::Drain;
use crate::error::Error;
use crate::http::{self, Connection, Target};
use crate::identity::alpn;
use crate::mesh::{Destination, Mesh};
use crate::request::{Context, Protocol};
use crate::telemetry::{self, Direction};
use crate::{connection, tcp};

/// Endpoints that an opaque connection tries before it gives up.
const OPAQUE_TRIES: usize = 3;
const OUTBOUND: Direction = Direction::Outbound;

pub(super) async fn serve(
    stream: TcpStream,
    worker: usize,
    proxy: &Proxy,
    drain: Drain,
) -> Result<(), Rejected> {
    let address = original_destination(&stream, proxy, Direction::Outbound)?;
    let backend = match proxy.mesh.resolve(address).await {
        Ok(Destination::Service(backend)) => backend,
        Ok(Destination::Outside) => return outside(stream, address, &proxy.mesh).await,
        Err(error) => {
            tracing::warn!(%error, "refused");
            return Err(reset(&stream, Rejected::UnknownDestination));
        }
    };
    backend.connections.fetch_add(1, Ordering::Relaxed);
    let _used = Guard::new({
        let backend = backend.clone();
        move |_| {
            backend.connections.fetch_sub(1, Ordering::Relaxed);
        }
    });
    let service = Service {
        address,
        backend,
        worker,
        drain,
    };
    service.serve(stream).await
}

/// Plain bytes to where the app wanted to go.
async fn outside(stream: TcpStream, address: SocketAddr, mesh: &Mesh) -> Result<(), Rejected> {
    telemetry::connection(OUTBOUND, "outside", false, "opaque");
    match mesh.environment.connector.plain(address).await {
        Ok(upstream) => {
            tcp::forward_plain(stream, upstream, OPAQUE_IDLE, Bytes::new()).await;
            Ok(())
        }
        Err(_) => Err(reset(&stream, Rejected::UpstreamUnavailable)),
    }
}

/// One connection to a service of the mesh.
struct Service {
    address: SocketAddr,
    backend: Arc<Backend>,
    worker: usize,
    drain: Drain,
}

impl Service {
    async fn serve(mut self, stream: TcpStream) -> Result<(), Rejected> {
        let declared = self.backend.routes().protocol;
        if declared == snapshot::Protocol::Opaque {
            self.detected(&Detected::Opaque, "declared");
            return self.opaque(stream, Bytes::new()).await;
        }
        let expected = Expected::on(declared);
        let Some(beginning) = first_bytes::read(stream, expected, &mut self.drain).await? else {
            return Ok(());
        };
        self.detected(&beginning.detected, beginning.why);
        match beginning.detected {
            Detected::Http1 => self.http(beginning, Protocol::Http1).await,
            Detected::Http2 => self.http(beginning, Protocol::Http2).await,
            Detected::NeedMore => self.late(beginning.stream).await,
            Detected::Tls(_) | Detected::Opaque => {
                self.opaque(beginning.stream, beginning.prefix).await
            }
        }
    }

    fn detected(&self, detected: &Detected, why: &'static str) {
        telemetry::detected(OUTBOUND, &self.backend.service, verdict(detected), why);
    }

    async fn http(self, beginning: Beginning, protocol: Protocol) -> Result<(), Rejected> {
        let service = self.backend.service.clone();
        telemetry::connection(OUTBOUND, &service, false, protocol.as_str());
        let connection = Connection {
            service,
            target: Target::Service(self.backend),
            worker: self.worker,
            caller: None,
            destination: self.address,
        };
        http::serve(beginning.rewound(), protocol, connection, self.drain)
            .await
            .map_err(|_| Rejected::Protocol)
    }

    async fn late(self, stream: TcpStream) -> Result<(), Rejected> {
        let (upstream, guard) = self.connect(&stream).await?;
        match first_bytes::late(stream, upstream, std::future::pending()).await {
            Late::Client {
                beginning,
                upstream,
            } => {
                self.detected(&beginning.detected, beginning.why);
                let protocol = match beginning.detected {
                    Detected::Http1 => Protocol::Http1,
                    Detected::Http2 => Protocol::Http2,
                    _ => {
                        let Beginning { stream, prefix, .. } = beginning;
                        self.carry(stream, upstream, prefix, guard).await;
                        return Ok(());
                    }
                };
                drop((upstream, guard));
                self.http(beginning, protocol).await
            }
            Late::Server {
                stream,
                upstream,
                prefix,
            } => {
                self.detected(&Detected::Opaque, "server-spoke-first");
                self.carry(stream, upstream, prefix, guard).await;
                Ok(())
            }
            Late::Gone => Ok(()),
        }
    }

    async fn opaque(self, stream: TcpStream, prefix: Bytes) -> Result<(), Rejected> {
        let (upstream, guard) = self.connect(&stream).await?;
        self.carry(stream, upstream, prefix, guard).await;
        Ok(())
    }

    /// Connects to an endpoint; what cannot be connected to is told to its gate, and the next one tried.
    async fn connect(&self, stream: &TcpStream) -> Result<(Stream, impl Sized + use<>), Rejected> {
        let endpoints = &self.backend.endpoints;
        let Some(place) = self.backend.place_for_connection() else {
            return Err(connection::reset(stream, Rejected::TooManyOpaque));
        };
        let mut context = Context::opaque(self.worker);
        endpoints.first().await;
        for _ in 0..OPAQUE_TRIES {
            let Ok(chosen) = endpoints.choose(&context) else {
                break;
            };
            let member = chosen.member.clone();
            let mut guard = Guard::new(chosen);
            let endpoint = &member.endpoint;
            let connecting = endpoints.connector().connect(
                endpoint.address,
                endpoint.identity.as_ref(),
                alpn::TCP,
            );
            match connecting.await {
                Ok(upstream) => {
                    guard.duty().connected();
                    return Ok((upstream, (guard, place)));
                }
                Err(error) => {
                    tracing::debug!(%error, service = %self.backend.service, "an opaque connection tries elsewhere");
                    context.tried.push(endpoint.address);
                    // The same error comes back.
                    let _ = guard.settle(Err(Error::from(error)));
                }
            }
        }
        Err(connection::reset(stream, Rejected::UpstreamUnavailable))
    }

    /// `guard` is what counts the connection; it ends with it.
    async fn carry(
        &self,
        mut stream: TcpStream,
        upstream: Stream,
        prefix: Bytes,
        guard: impl Sized,
    ) {
        let mutual_tls = matches!(upstream, Stream::Tls(_));
        telemetry::connection(OUTBOUND, &self.backend.service, mutual_tls, "opaque");
        match upstream.into_plain() {
            Ok(upstream) => {
                tcp::forward_plain(stream, upstream, OPAQUE_IDLE, prefix).await;
            }
            Err(mut upstream) => {
                let ended = tcp::forward(&mut stream, &mut upstream, OPAQUE_IDLE, prefix).await;
                if !matches!(ended.end, tcp::End::Closed) {
                    tcp::reset(&stream);
                    upstream.reset();
                }
            }
        }
        drop(guard);
    }
}
