//! Sockets: the options a transparent proxy needs, in one place.

mod acknowledged;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::{TcpSocket, TcpStream};

pub use self::acknowledged::lacks_last;

/// So that the kernel is not the hidden queue between a fast sender and a slow reader (resilience.md section 8).
const NOTSENT_LOWAT: u32 = 64 * 1024;
/// What the kernel takes in for an HTTP/1.1 answer that nobody reads: it doubles the figure for its own use, and has then as
/// much as a stream of HTTP/2. Without a bound that grows to megabytes.
const ANSWER_BUFFER: usize = 32 * 1024;
const BACKLOG: i32 = 4096;

/// A listening socket, inherited by nobody.
pub fn listen(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        // One listener for both families where the wildcard is asked for; redirection lands on both.
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Connects past the redirection: the rules let the proxy's own user, or sockets with `mark`, go straight out.
pub async fn connect(address: SocketAddr, mark: Option<u32>) -> io::Result<TcpStream> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    if let Some(mark) = mark {
        SockRef::from(&socket).set_mark(mark)?;
    }
    let stream = socket.connect(address).await?;
    configure(&stream)?;
    Ok(stream)
}

/// Options for a stream in either direction.
pub fn configure(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    socket.set_tcp_notsent_lowat(NOTSENT_LOWAT)?;
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(std::time::Duration::from_secs(60)))
}

/// A stream from which answers are read, each by a caller who may be slow.
pub fn bound_answers(stream: &TcpStream) -> io::Result<()> {
    SockRef::from(stream).set_recv_buffer_size(ANSWER_BUFFER)
}

/// Where the caller meant to go before the kernel brought the connection here.
pub fn original_destination(stream: &TcpStream) -> io::Result<SocketAddr> {
    let local = stream.local_addr()?;
    let socket = SockRef::from(stream);
    let original = match canonical(local) {
        SocketAddr::V4(_) => socket.original_dst_v4(),
        SocketAddr::V6(_) => socket.original_dst_v6(),
    };
    match original {
        Ok(original) => original
            .as_socket()
            .map(canonical)
            .ok_or_else(|| io::Error::other("the original destination is no IP address")),
        // Not redirected: the caller named this very address.
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(canonical(local)),
        Err(error) => Err(error),
    }
}

/// IPv4 written as IPv6 is IPv4.
pub fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// The same listening address for the other family, where one exists.
pub fn other_family(address: SocketAddr) -> Option<SocketAddr> {
    let ip: IpAddr = match address.ip() {
        IpAddr::V4(ip) if ip == Ipv4Addr::LOCALHOST => Ipv6Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip == Ipv6Addr::LOCALHOST => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv6Addr::UNSPECIFIED.into(),
        _ => return None,
    };
    Some(SocketAddr::new(ip, address.port()))
}
