//! One downstream connection: where was it going, what does it speak, who takes it.
//!
//! ```text
//!   outbound   original destination ─▶ what is that? ─▶ outside: bytes through
//!                                                     ─▶ service: HTTP ─▶ pipeline
//!                                                                 bytes ─▶ an endpoint
//!   inbound    original destination ─▶ first bytes ─▶ mutual TLS ─▶ HTTP ─▶ pipeline, or bytes ─▶ app
//!                                                   ─▶ plain: the same where the mode permits it
//!
//! What comes as bytes within mutual TLS is looked at like plain text: that they are no requests is its sender's word.
//! ```

mod downstream;
mod first_bytes;
mod inbound;
mod local;
mod outbound;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use weir_config::units::PortRanges;

pub use self::local::PodAddresses;
use crate::detect::Detected;
use crate::drain::Drain;
use crate::mesh::Mesh;
use crate::telemetry::Direction::{Inbound, Outbound};
use crate::telemetry::{self, Direction};
use crate::{socket, tcp};

/// Bytes that do not move for this long will not move any more.
const OPAQUE_IDLE: Duration = Duration::from_secs(60 * 60);

/// What every connection is served with.
pub struct Proxy {
    pub mesh: Mesh,
    /// Where this proxy listens: a connection that was meant for one of these would loop.
    pub own_ports: [u16; 3],
    /// Of the app: bytes, whatever the mesh says of them.
    pub opaque_ports: PortRanges,
    pub pod_addresses: PodAddresses,
}

/// Why a connection was not served. The text is the metric's label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejected {
    NoOriginalDestination,
    OwnPort,
    NotThisPod,
    UnknownDestination,
    NotReady,
    PlainText,
    Denied,
    Handshake,
    HandshakeTimeout,
    SlowFirstBytes,
    NotHttp,
    UpstreamUnavailable,
    TooManyOpaque,
    Protocol,
}

impl Rejected {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoOriginalDestination => "no-original-destination",
            Self::OwnPort => "own-port",
            Self::NotThisPod => "not-this-pod",
            Self::UnknownDestination => "unknown-destination",
            Self::NotReady => "not-ready",
            Self::PlainText => "plain-text",
            Self::Denied => "permission-denied",
            Self::Handshake => "tls-handshake",
            Self::HandshakeTimeout => "tls-handshake-timeout",
            Self::SlowFirstBytes => "slow-first-bytes",
            Self::NotHttp => "not-http",
            Self::UpstreamUnavailable => "upstream-unavailable",
            Self::TooManyOpaque => "too-many-opaque-connections",
            Self::Protocol => "protocol",
        }
    }
}

/// Serves a connection of the app's to its end.
pub async fn outbound(stream: TcpStream, worker: usize, proxy: Arc<Proxy>, drain: Drain) {
    let served = outbound::serve(stream, worker, &proxy, drain).await;
    count(Outbound, served);
}

/// Serves a connection to the app to its end.
pub async fn inbound(stream: TcpStream, worker: usize, proxy: Arc<Proxy>, drain: Drain) {
    let served = inbound::serve(stream, worker, &proxy, drain).await;
    count(Inbound, served);
}

fn count(direction: Direction, served: Result<(), Rejected>) {
    if let Err(rejected) = served {
        telemetry::rejected_connection(direction, rejected.as_str());
        tracing::debug!(
            direction = direction.as_str(),
            reason = rejected.as_str(),
            "connection refused"
        );
    }
}

/// Where it was going. A connection that is refused is reset: a clean end would look like an answer.
fn original_destination(
    stream: &TcpStream,
    proxy: &Proxy,
    direction: Direction,
) -> Result<SocketAddr, Rejected> {
    // It may be gone already.
    let _ = socket::configure(stream);
    let address = socket::original_destination(stream);
    match address {
        Ok(address)
            if proxy.own_ports.contains(&address.port())
                && (direction == Inbound || is_of_this_pod(address, stream)) =>
        {
            Err(reset(stream, Rejected::OwnPort))
        }
        Ok(address) => Ok(address),
        Err(_) => Err(reset(stream, Rejected::NoOriginalDestination)),
    }
}

/// Whoever asks another pod's sidecar for its metrics is led back by nobody.
fn is_of_this_pod(address: SocketAddr, stream: &TcpStream) -> bool {
    let ip = address.ip().to_canonical();
    // From the pod, or redirected to it: in doubt it is its own.
    let ends = [stream.peer_addr(), stream.local_addr()];
    ip.is_loopback()
        || ends
            .into_iter()
            .any(|end| end.map_or(true, |end| end.ip().to_canonical() == ip))
}

fn reset(stream: &TcpStream, reason: Rejected) -> Rejected {
    tcp::reset(stream);
    reason
}

/// What was detected, for the metric.
const fn verdict(detected: &Detected) -> &'static str {
    match detected {
        Detected::NeedMore => "silent",
        Detected::Http1 => "http1",
        Detected::Http2 => "http2",
        Detected::Tls(_) => "tls",
        Detected::Opaque => "opaque",
    }
}
