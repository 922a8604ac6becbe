//! The gRPC servers: the cart for everybody, the chaos knobs for loopback. Every limit is written down here,
//! because tonic's defaults are none.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tonic::transport::Server;

use crate::chaos::Chaos;
use crate::drain::Health;
use crate::listener;
use crate::pb::cart_server::CartServer;
use crate::pb::chaos_server::ChaosServer;
use crate::service::{Alias, CartService};
use crate::settings::Settings;
use crate::store::{MemoryCarts, RedisCarts, Store};

const CONNECTIONS_MAX: usize = 512;
const CHAOS_CONNECTIONS_MAX: usize = 8;
const STREAMS_PER_CONNECTION_MAX: u32 = 200;
const HEADER_BYTES_MAX: u32 = 16 * 1024;
const MESSAGE_BYTES_MAX: usize = 64 * 1024;
/// No call takes this long but a frozen one.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// Bound sockets: whoever starts the service learns of a busy port before anything else happens.
#[derive(Debug)]
pub struct Sockets {
    pub cart: TcpListener,
    pub chaos: Option<TcpListener>,
}

impl Sockets {
    pub async fn bind(settings: &Settings) -> io::Result<Self> {
        let chaos = match settings.chaos_port {
            Some(port) => Some(bind((Ipv4Addr::LOCALHOST, port).into()).await?),
            None => None,
        };
        Ok(Self {
            cart: bind_any(settings.port).await?,
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

/// Serves until `stop`, then drains.
pub async fn run(
    settings: Settings,
    sockets: Sockets,
    stop: impl Future<Output = ()>,
) -> Result<(), tonic::transport::Error> {
    let (reporter, health_service) = tonic_health::server::health_reporter();
    let mut health = Health(reporter);
    health.serving().await;

    let chaos = Chaos::new(settings.faults);
    let (go_away, going_away) = watch::channel(false);
    if let Some(listener) = sockets.chaos {
        let knobs = ChaosServer::new(chaos.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX);
        let incoming = listener::accept(listener, CHAOS_CONNECTIONS_MAX);
        let server = limited().add_service(knobs);
        tokio::spawn(server.serve_with_incoming_shutdown(incoming, closed(going_away.clone())));
    }

    let store = match settings.redis_addr {
        Some(addr) => Store::Redis(RedisCarts::new(addr, settings.redis_timeout)),
        None => Store::Memory(MemoryCarts::default()),
    };
    let cart = CartServer::new(CartService::new(store, chaos))
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let served = limited()
        .add_service(health_service)
        .add_service(Alias(cart.clone()))
        .add_service(cart)
        .serve_with_incoming_shutdown(
            listener::accept(sockets.cart, CONNECTIONS_MAX),
            closed(going_away),
        );

    let drained = async {
        stop.await;
        health.not_serving().await;
        tokio::time::sleep(settings.drain_delay).await;
        health.end_watches().await;
        go_away.send_replace(true);
        tokio::time::sleep(settings.grace).await;
        eprintln!("cart: calls are still in flight after {:?}", settings.grace);
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

async fn closed(mut going_away: watch::Receiver<bool>) {
    // An error says that the sender is gone, and then so is the service.
    let _ = going_away.wait_for(|going| *going).await;
}
