//! Where load may go. Everything else is refused before the first byte.
//!
//! A name is resolved once, here, and every connection goes to the address found: what a name says later
//! cannot carry the load elsewhere.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::str::FromStr;

use hyper::Uri;
use hyper::http::uri::{Authority, Scheme};

use crate::bounds::Refused;

/// A network of addresses, like `10.1.0.0/16`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    base: IpAddr,
    prefix: u8,
}

impl Network {
    /// Pods and services of a lab on this machine.
    const LAB: [Self; 2] = [Self::v4(10, 244, 16), Self::v4(10, 96, 16)];
    const LOOPBACK: [Self; 2] = [
        Self::v4(127, 0, 8),
        Self {
            base: IpAddr::V6(Ipv6Addr::LOCALHOST),
            prefix: 128,
        },
    ];
    /// Networks that nobody reaches by accident from elsewhere: RFC 1918 and RFC 4193.
    const PRIVATE: [Self; 4] = [
        Self::v4(10, 0, 8),
        Self::v4(172, 16, 12),
        Self::v4(192, 168, 16),
        Self {
            base: IpAddr::V6(Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0)),
            prefix: 7,
        },
    ];

    const fn v4(first: u8, second: u8, prefix: u8) -> Self {
        Self {
            base: IpAddr::V4(Ipv4Addr::new(first, second, 0, 0)),
            prefix,
        }
    }

    pub fn contains(&self, ip: IpAddr) -> bool {
        match (self.base, ip.to_canonical()) {
            (IpAddr::V4(base), IpAddr::V4(ip)) => {
                let differ = u64::from(base.to_bits() ^ ip.to_bits());
                differ >> (32 - u32::from(self.prefix)) == 0
            }
            (IpAddr::V6(base), IpAddr::V6(ip)) => {
                let differ = base.to_bits() ^ ip.to_bits();
                differ
                    .checked_shr(128 - u32::from(self.prefix))
                    .unwrap_or(0)
                    == 0
            }
            _ => false,
        }
    }

    fn is_within(&self, other: &Self) -> bool {
        other.contains(self.base) && self.prefix >= other.prefix
    }
}

impl FromStr for Network {
    type Err = Refused;

    /// Only a private network can be named at all.
    fn from_str(text: &str) -> Result<Self, Refused> {
        let refuse = || Refused::new(format!("{text:?} is no network like 10.1.0.0/16"));
        let (base, prefix) = text.split_once('/').ok_or_else(refuse)?;
        let base: IpAddr = base.parse().map_err(|_| refuse())?;
        let prefix: u8 = prefix.parse().map_err(|_| refuse())?;
        let bits = if base.is_ipv4() { 32 } else { 128 };
        if prefix > bits {
            return Err(refuse());
        }
        let network = Self { base, prefix };
        match Self::PRIVATE
            .iter()
            .any(|private| network.is_within(private))
        {
            true => Ok(network),
            false => Err(Refused::new(format!(
                "{text} is not a private network: load may only be sent to one's own machines"
            ))),
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.prefix)
    }
}

/// The networks that load may be sent to: loopback, and what is added.
#[derive(Clone, Debug)]
pub struct Reach(Vec<Network>);

impl Reach {
    pub fn loopback() -> Self {
        Self(Network::LOOPBACK.to_vec())
    }

    /// Also the pods and services of a lab on this machine: 10.244.0.0/16 and 10.96.0.0/16.
    pub fn lab(self) -> Self {
        Network::LAB.into_iter().fold(self, Self::and)
    }

    pub fn and(mut self, network: Network) -> Self {
        self.0.push(network);
        self
    }

    fn contains(&self, ip: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(ip))
    }
}

/// An address that may be loaded. There is no other way to make one than to ask.
#[derive(Clone, Debug)]
pub struct Target {
    addr: SocketAddr,
    authority: Authority,
    path: String,
}

impl Target {
    /// Takes `http://host:port/path`, or `host:port`. Names are resolved now (this may block for a moment).
    pub fn parse(text: &str, reach: &Reach) -> Result<Self, Refused> {
        let refuse = |why: &str| Refused::new(format!("target {text:?}: {why}"));
        let uri: Uri = match text.contains("://") {
            true => text.parse(),
            false => format!("http://{text}").parse(),
        }
        .map_err(|_| refuse("expected http://host:port"))?;
        if uri.scheme() != Some(&Scheme::HTTP) {
            return Err(refuse("only http:// is spoken; TLS is the mesh's business"));
        }
        let authority = uri
            .authority()
            .ok_or_else(|| refuse("has no host"))?
            .clone();
        let port = authority.port_u16().unwrap_or(80);
        let host = authority
            .host()
            .trim_start_matches('[')
            .trim_end_matches(']');
        let resolved = (host, port).to_socket_addrs();
        let addr = resolved.ok().and_then(|mut found| found.next());
        let addr = addr.ok_or_else(|| refuse("no address is known for this name"))?;
        if !reach.contains(addr.ip()) {
            return Err(refuse(&format!(
                "{} is neither loopback nor in an allowed network; --lab allows the lab's, --allow CIDR another private one",
                addr.ip()
            )));
        }
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        Ok(Self {
            addr,
            authority,
            path: path.to_owned(),
        })
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// What the target was called: the Host header of each request.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    pub fn path(&self) -> &str {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str, reach: &Reach) -> String {
        Target::parse(text, reach).expect_err(text).to_string()
    }

    #[test]
    fn loopback_is_always_reachable() {
        let reach = Reach::loopback();
        for text in [
            "http://127.0.0.1:8080",
            "127.8.9.10:80",
            "http://[::1]:8080/x?y=z",
            "localhost:8080",
        ] {
            Target::parse(text, &reach).expect(text);
        }
    }

    #[test]
    fn everything_else_is_refused_unless_allowed() {
        let loopback = Reach::loopback();
        for ip in [
            "10.244.0.7",
            "10.96.0.1",
            "192.0.2.1",
            "8.8.8.8",
            "0.0.0.0",
            "169.254.169.254",
        ] {
            let said = refusal(&format!("http://{ip}:80"), &loopback);
            assert!(said.contains(ip) && said.contains("--allow"), "{said}");
        }
        let lab = Reach::loopback().lab();
        Target::parse("10.244.0.7:80", &lab).expect("a pod");
        Target::parse("10.96.200.1:80", &lab).expect("a service");
        for ip in ["10.245.0.1", "10.95.255.255", "10.97.0.0", "8.8.8.8"] {
            refusal(&format!("{ip}:80"), &lab);
        }
        let own = Reach::loopback().and("192.168.7.0/24".parse().expect("private"));
        Target::parse("192.168.7.9:80", &own).expect("allowed");
        refusal("192.168.8.9:80", &own);
    }

    #[test]
    fn an_address_in_disguise_is_seen_through() {
        let reach = Reach::loopback();
        Target::parse("[::ffff:127.0.0.1]:80", &reach).expect("loopback");
        refusal("[::ffff:8.8.8.8]:80", &reach);
        refusal("127.0.0.1.8.8:80", &reach);
        refusal("http://127.0.0.1@192.0.2.1:80", &reach);
    }

    #[test]
    fn only_private_networks_can_be_allowed() {
        for text in [
            "8.8.8.0/24",
            "0.0.0.0/0",
            "10.0.0.0/7",
            "::/0",
            "2001:db8::/32",
            "10.0.0.0",
            "10.0.0.0/33",
            "x/8",
        ] {
            text.parse::<Network>().expect_err(text);
        }
        for text in ["10.0.0.0/8", "172.31.0.0/16", "192.168.1.0/24", "fd00::/8"] {
            text.parse::<Network>().expect(text);
        }
    }

    #[test]
    fn tls_is_not_spoken() {
        let said = refusal("https://127.0.0.1:8443", &Reach::loopback());
        assert!(said.contains("only http://"), "{said}");
    }
}
