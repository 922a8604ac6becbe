//! Whether a connection was meant for this pod.
//!
//! The redirection brings here whatever arrives, so a neighbour on the node's link who routes another address by way of
//! this pod would have its connections made by this sidecar, as an open relay, from this pod's address.

use std::net::{IpAddr, UdpSocket};

use tokio::net::TcpStream;

/// As the control plane knows them; the pod may have more.
pub struct PodAddresses(Vec<IpAddr>);

impl PodAddresses {
    pub fn new(known: &[IpAddr]) -> Self {
        Self(known.iter().map(IpAddr::to_canonical).collect())
    }

    /// Whether `destination` is this pod's, from where `stream` comes.
    pub(super) fn are_meant_by(&self, stream: &TcpStream, destination: IpAddr) -> bool {
        if self.0.contains(&destination) {
            return true;
        }
        if destination.is_loopback() {
            // What listens there is for this pod only. The kernel would see to that, but redirects first, and sees its own
            // address then.
            let peer = stream.peer_addr();
            return peer.is_ok_and(|peer| peer.ip().to_canonical().is_loopback());
        }
        is_of_an_interface(destination)
    }
}

/// Of another network of the pod, or one that came later: the kernel binds sockets to its own addresses only. That is no
/// more system calls than the connection has cost already, so nothing is remembered.
fn is_of_an_interface(address: IpAddr) -> bool {
    !address.is_unspecified() && UdpSocket::bind((address, 0)).is_ok()
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    /// This sidecar connected to whatever address a neighbour had routed to it.
    #[tokio::test]
    async fn a_connection_that_was_meant_for_another_host_is_not_for_this_pod() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let stream = TcpStream::connect(listener.local_addr().expect("it is bound")).await;
        let stream = stream.expect("it listens");
        let pod = PodAddresses::new(&[
            "10.1.2.3".parse().expect("v4"),
            "fd00::3".parse().expect("v6"),
        ]);
        for (destination, expected) in [
            ("10.1.2.3", true),
            ("fd00::3", true),
            ("127.0.0.1", true),
            ("10.1.2.4", false),
            ("192.0.2.1", false),
            ("2001:db8::1", false),
            ("0.0.0.0", false),
            ("::", false),
        ] {
            let destination = destination.parse().expect("an address");
            assert_eq!(
                pod.are_meant_by(&stream, destination),
                expected,
                "{destination}"
            );
        }
    }
}
