//! The gRPC servers: the service for everybody, the chaos knobs for loopback. Every limit is written down here,
//! because tonic's defaults are none.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tonic::metadata::MetadataMap;
use tonic::transport::Server;
use tonic::transport::server::Router;
use tonic::{Code, Status};

use crate::chaos::{Chaos, Faults};
use crate::drain::Health;
use crate::listener;
use crate::pb::chaos_server::ChaosServer;

/// Of a request; and of an answer, which a service may allow more.
pub const MESSAGE_BYTES_MAX: usize = 64 * 1024;
const CONNECTIONS_MAX: usize = 512;
const CHAOS_CONNECTIONS_MAX: usize = 8;
const STREAMS_PER_CONNECTION_MAX: u32 = 200;
const HEADER_BYTES_MAX: u32 = 16 * 1024;
/// No call takes this long to begin its answer but a frozen one.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// What every service is told: see [`crate::environment::Environment::process`].
#[derive(Clone, Debug)]
pub struct Process {
    pub port: u16,
    pub chaos_port: Option<u16>,
    pub drain_delay: Duration,
    pub grace: Duration,
    pub faults: Faults,
}

/// Bound sockets: whoever starts the service learns of a busy port before anything else happens.
#[derive(Debug)]
pub struct Sockets {
    pub service: TcpListener,
    pub chaos: Option<TcpListener>,
}

impl Sockets {
    pub async fn bind(process: &Process) -> io::Result<Self> {
        let chaos = match process.chaos_port {
            Some(port) => Some(bind((Ipv4Addr::LOCALHOST, port).into()).await?),
            None => None,
        };
        Ok(Self {
            service: bind_any(process.port).await?,
            chaos,
        })
    }
}

/// Both families where there are two, else IPv4.
async fn bind_any(port: u16) -> io::Result<TcpListener> {
    match bind((Ipv6Addr::UNSPECIFIED, port).into()).await {
        Err(error) if error.kind() != io::ErrorKind::AddrInUse => {
            bind((Ipv4Addr::UNSPECIFIED, port).into()).await
        }
        bound => bound,
    }
}

async fn bind(addr: SocketAddr) -> io::Result<TcpListener> {
    let named =
        |error: io::Error| io::Error::new(error.kind(), format!("listen on {addr}: {error}"));
    TcpListener::bind(addr).await.map_err(named)
}

/// True from when connections are told to go away: streams without an end of their own end then.
pub type GoingAway = watch::Receiver<bool>;

/// Serves what `add` adds until `stop`, then drains. `names` are the full names of what it adds, for health.
pub async fn run(
    process: Process,
    sockets: Sockets,
    names: &'static [&'static str],
    stop: impl Future<Output = ()>,
    add: impl FnOnce(Router, Chaos, GoingAway) -> Router,
) -> Result<(), tonic::transport::Error> {
    let (reporter, health_service) = tonic_health::server::health_reporter();
    let mut health = Health::new(reporter, names);
    health.serving().await;

    let chaos = Chaos::new(process.faults);
    let (go_away, going_away) = watch::channel(false);
    if let Some(listener) = sockets.chaos {
        let knobs = ChaosServer::new(chaos.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX);
        let incoming = listener::accept(listener, CHAOS_CONNECTIONS_MAX);
        let server = limited().add_service(knobs);
        tokio::spawn(server.serve_with_incoming_shutdown(incoming, gone(going_away.clone())));
    }

    let router = limited().add_service(health_service);
    let served = add(router, chaos, going_away.clone()).serve_with_incoming_shutdown(
        listener::accept(sockets.service, CONNECTIONS_MAX),
        gone(going_away),
    );

    let drained = async {
        stop.await;
        health.not_serving().await;
        tokio::time::sleep(process.drain_delay).await;
        health.end_watches().await;
        go_away.send_replace(true);
        tokio::time::sleep(process.grace).await;
        eprintln!("calls are still in flight after {:?}", process.grace);
    };
    tokio::select! {
        ended = served => ended,
        () = drained => Ok(()),
    }
}

fn limited() -> Server {
    Server::builder()
        .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX)
        .http2_max_header_list_size(HEADER_BYTES_MAX)
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .timeout(CALL_TIMEOUT)
}

/// Resolves when the service goes away.
pub async fn gone(mut going_away: GoingAway) {
    // An error says that the sender is gone, and then so is the service.
    let _ = going_away.wait_for(|going| *going).await;
}

/// Says which trace met a failure of ours; a caller's mistakes are the caller's to log.
pub fn log(service: &str, status: &Status, metadata: &MetadataMap) {
    if matches!(
        status.code(),
        Code::InvalidArgument | Code::FailedPrecondition | Code::Aborted
    ) {
        return;
    }
    eprintln!(
        "{service}: {:?}: {} (traceparent {})",
        status.code(),
        status.message(),
        traceparent(metadata).unwrap_or("none")
    );
}

pub fn traceparent(metadata: &MetadataMap) -> Option<&str> {
    metadata.get("traceparent")?.to_str().ok()
}
