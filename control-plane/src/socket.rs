//! Where it listens. `0.0.0.0` means every address of the pod, and on a cluster of IPv6 those are others than one may think.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;

/// As many as wait to be taken when all sidecars come back at once.
const BACKLOG: i32 = 4096;

pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    if address.ip() == Ipv4Addr::UNSPECIFIED {
        let both = SocketAddr::from((Ipv6Addr::UNSPECIFIED, address.port()));
        // A machine without IPv6 has nobody to wait for there.
        return open(both).or_else(|_| open(address));
    }
    open(address)
}

fn open(address: SocketAddr) -> io::Result<TcpListener> {
    let kind = Domain::for_address(address);
    let socket = Socket::new(kind, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpStream;

    use super::*;

    /// On a cluster of IPv6 alone nobody reached the control plane.
    #[tokio::test]
    async fn every_address_is_of_both_families() {
        let listener = listen(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0))).expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let mut ways = vec![SocketAddr::from((Ipv4Addr::LOCALHOST, port))];
        let has_ipv6 = std::net::TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok();
        ways.extend(has_ipv6.then(|| SocketAddr::from((Ipv6Addr::LOCALHOST, port))));
        for way in ways {
            let (client, accepted) = tokio::join!(TcpStream::connect(way), listener.accept());
            client.unwrap_or_else(|error| panic!("{way}: {error}"));
            let (_, peer) = accepted.expect("it came");
            assert_eq!(peer.ip().to_canonical(), way.ip());
        }
    }

    #[tokio::test]
    async fn one_address_is_that_address() {
        let one = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let listener = listen(one).expect("a port");
        assert_eq!(listener.local_addr().expect("an address").ip(), one.ip());
    }
}
