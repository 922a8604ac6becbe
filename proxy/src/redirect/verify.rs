//! Proves the redirection: a connection to an address that leads nowhere must come back to us.
//!
//! ```text
//!   dial 192.0.2.1:N ──output chain──▶ 127.0.0.1:14140 ── accept, send token
//!        read token ◀──────────────────────────────────────────┘
//! ```
//!
//! The addresses are reserved for documentation (RFC 5737, RFC 3849): nothing can answer there, so
//! an answer with our own token comes from us. A family without a route is not tested, since nothing
//! leaves through it; but at least one family must be proven.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep, timeout_at};

use super::ruleset::Rules;
use crate::socket;

/// For both families together; a redirected connection takes well under a millisecond.
const TIME_MAX: Duration = Duration::from_secs(2);

/// How long to wait for a route: IPv6 addresses of a new pod are unusable for about a second.
const ROUTE_RETRY: Duration = Duration::from_millis(100);

/// Several, as an operator may have excluded one from redirection.
const NOWHERE_V4: [IpAddr; 3] = [
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
    IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1)),
    IpAddr::V4(Ipv4Addr::new(203, 0, 113, 1)),
];
const NOWHERE_V6: [IpAddr; 2] = [
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 1)),
];

#[derive(Debug, thiserror::Error)]
pub(super) enum VerifyError {
    #[error(
        "init runs as uid {0}, which is the sidecar's and not redirected: run it as another user (it wants uid 0)"
    )]
    SameUid(u32),
    #[error("neither family could be tested (IPv4: {v4}; IPv6: {v6}); --no-verify accepts that")]
    NothingTested { v4: Untested, v6: Untested },
    #[error(
        "cannot listen on {address} for the test: {error} (is a sidecar running here already?)"
    )]
    Listen {
        address: SocketAddr,
        error: io::Error,
    },
    #[error(
        "a connection to {target} was not redirected to {listener}: {why}; other software in this \
             network namespace may have rules of its own (nft list ruleset)"
    )]
    NotRedirected {
        target: SocketAddr,
        listener: SocketAddr,
        why: String,
    },
    #[error("cannot test: {0}")]
    Runtime(io::Error),
}

/// What the self-test saw in each family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Proof {
    pub(super) v4: Family,
    pub(super) v6: Family,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    Redirected,
    Untested(Untested),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Untested {
    Disabled,
    NoRoute,
    Skipped,
}

/// Tests both families from this process, which must be neither the sidecar's user nor marked.
pub(super) fn verify(rules: &Rules) -> Result<Proof, VerifyError> {
    let uid = rustix::process::geteuid().as_raw();
    if rules.exempt.uid == Some(uid) {
        return Err(VerifyError::SameUid(uid));
    }
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(VerifyError::Runtime)?
        .block_on(prove(rules))
}

async fn prove(rules: &Rules) -> Result<Proof, VerifyError> {
    let limit = Instant::now() + TIME_MAX;
    loop {
        let v4 = family(rules, Ipv4Addr::LOCALHOST.into(), &NOWHERE_V4, limit).await?;
        let v6 = family(rules, Ipv6Addr::LOCALHOST.into(), &NOWHERE_V6, limit).await?;
        match (v4, v6) {
            (Family::Untested(v4), Family::Untested(v6)) if Instant::now() >= limit => {
                return Err(VerifyError::NothingTested { v4, v6 });
            }
            (Family::Untested(_), Family::Untested(_)) => sleep(ROUTE_RETRY).await,
            (v4, v6) => return Ok(Proof { v4, v6 }),
        }
    }
}

async fn family(
    rules: &Rules,
    loopback: IpAddr,
    nowhere: &[IpAddr],
    limit: Instant,
) -> Result<Family, VerifyError> {
    let address = SocketAddr::new(loopback, rules.outbound_port);
    let listener = match TcpListener::bind(address).await {
        Ok(listener) => listener,
        Err(error) if family_is_off(&error) => return Ok(Family::Untested(Untested::Disabled)),
        Err(error) => return Err(VerifyError::Listen { address, error }),
    };
    let Some(target) = target(rules, nowhere) else {
        return Ok(Family::Untested(Untested::Skipped));
    };
    if !has_route(target) {
        return Ok(Family::Untested(Untested::NoRoute));
    }
    let not_redirected = |why| VerifyError::NotRedirected {
        target,
        listener: address,
        why,
    };
    match timeout_at(limit, token_comes_back(&listener, target)).await {
        Ok(Ok(())) => Ok(Family::Redirected),
        Ok(Err(error)) => Err(not_redirected(error.to_string())),
        Err(_) => Err(not_redirected(format!(
            "nothing came back within {} s",
            TIME_MAX.as_secs()
        ))),
    }
}

fn family_is_off(error: &io::Error) -> bool {
    let off = [
        rustix::io::Errno::AFNOSUPPORT,
        rustix::io::Errno::ADDRNOTAVAIL,
    ];
    off.iter()
        .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

/// Somewhere that leads nowhere and that the rules do redirect.
fn target(rules: &Rules, nowhere: &[IpAddr]) -> Option<SocketAddr> {
    let address = nowhere
        .iter()
        .find(|ip| !rules.skip_outbound_cidrs.contains(**ip))?;
    let port = (1..=u16::MAX).find(|port| !rules.skip_outbound_ports.contains(*port))?;
    Some(SocketAddr::new(*address, port))
}

/// Asks the routing table alone: connecting a UDP socket sends nothing. The error of a TCP connect
/// would not do, for a router that answers "unreachable" looks the same, and means not redirected.
fn has_route(target: SocketAddr) -> bool {
    let any: IpAddr = match target {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    UdpSocket::bind((any, 0))
        .and_then(|socket| socket.connect(target))
        .is_ok()
}

async fn token_comes_back(listener: &TcpListener, target: SocketAddr) -> io::Result<()> {
    let token = fastrand::u128(..).to_be_bytes();
    let (served, dialed) = tokio::try_join!(serve(listener, target, &token), dial(target))?;
    let (stream, received) = dialed;
    // Both ends are ours and done: no TIME_WAIT shall stand in the way of the sidecar's listener.
    served.set_zero_linger()?;
    stream.set_zero_linger()?;
    if received != token {
        return Err(io::Error::other("something else answered"));
    }
    Ok(())
}

async fn serve(listener: &TcpListener, target: SocketAddr, token: &[u8]) -> io::Result<TcpStream> {
    let (mut stream, _) = listener.accept().await?;
    // What the sidecar lives on; a kernel without it must fail here and not under load.
    let meant = socket::original_destination(&stream)?;
    if meant != target {
        return Err(io::Error::other(format!(
            "its original destination reads as {meant}"
        )));
    }
    stream.write_all(token).await?;
    Ok(stream)
}

async fn dial(target: SocketAddr) -> io::Result<(TcpStream, [u8; 16])> {
    let mut stream = TcpStream::connect(target).await?;
    let mut received = [0; 16];
    stream.read_exact(&mut received).await?;
    Ok((stream, received))
}

impl fmt::Display for Untested {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Disabled => "off in this network namespace",
            Self::NoRoute => "no route to test with",
            Self::Skipped => "all test addresses are excluded from redirection",
        })
    }
}

impl fmt::Display for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, family) in [("IPv4", self.v4), ("; IPv6", self.v6)] {
            match family {
                Family::Redirected => write!(f, "{name} verified")?,
                Family::Untested(why) => write!(f, "{name} not tested: {why}")?,
            }
        }
        Ok(())
    }
}
