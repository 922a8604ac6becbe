//! A port to listen on, also again after its process was killed.

use std::net::{Ipv4Addr, SocketAddr};

use tokio::net::TcpListener;

/// Below the ports that outgoing connections get: one of those who look for a killed process would get
/// its port sooner or later, and keep it from listening again.
const PORTS: std::ops::Range<u16> = 20_000..30_000;

pub(crate) async fn free_addr() -> SocketAddr {
    loop {
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, fastrand::u16(PORTS)));
        if TcpListener::bind(addr).await.is_ok() {
            return addr;
        }
    }
}
