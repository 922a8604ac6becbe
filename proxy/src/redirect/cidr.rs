//! A set of networks of both families as operators write it: `10.0.0.0/8,fd00::/8,192.0.2.7`.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// Canonical (no host bits) and without a network inside another: nft refuses overlapping elements.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CidrSet(Vec<Cidr>);

/// Ordered so that a network comes before all networks inside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Cidr {
    network: IpAddr,
    prefix_bits: u8,
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is not a network such as 10.0.0.0/8 or fd00::/8, nor an address")]
pub struct NotCidr(String);

impl CidrSet {
    pub(super) fn contains(&self, address: IpAddr) -> bool {
        self.0.iter().any(|cidr| cidr.contains(address))
    }

    /// The elements of an nft set of type `ipv4_addr`.
    pub(super) fn v4(&self) -> String {
        self.show(|cidr| cidr.network.is_ipv4())
    }

    /// The elements of an nft set of type `ipv6_addr`.
    pub(super) fn v6(&self) -> String {
        self.show(|cidr| cidr.network.is_ipv6())
    }

    /// First and last address of each network of a family, as bytes, sorted and apart from one another.
    pub(super) fn ranges(&self, is_v4: bool) -> Vec<(Vec<u8>, Vec<u8>)> {
        let own = self.0.iter().filter(|cidr| cidr.network.is_ipv4() == is_v4);
        own.map(|cidr| (bytes(cidr.network), bytes(cidr.last())))
            .collect()
    }

    fn show(&self, wanted: impl Fn(&Cidr) -> bool) -> String {
        let shown: Vec<String> = self
            .0
            .iter()
            .filter(|c| wanted(c))
            .map(Cidr::to_string)
            .collect();
        shown.join(", ")
    }
}

impl FromStr for CidrSet {
    type Err = NotCidr;

    fn from_str(text: &str) -> Result<Self, NotCidr> {
        let items = text
            .split(',')
            .map(str::trim)
            .filter(|item| !item.is_empty());
        let mut cidrs = items.map(Cidr::from_str).collect::<Result<Vec<_>, _>>()?;
        cidrs.sort_unstable();
        let mut outermost: Vec<Cidr> = Vec::with_capacity(cidrs.len());
        for cidr in cidrs {
            if !outermost
                .last()
                .is_some_and(|outer| outer.contains(cidr.network))
            {
                outermost.push(cidr);
            }
        }
        Ok(Self(outermost))
    }
}

impl Cidr {
    fn last(&self) -> IpAddr {
        match self.network {
            IpAddr::V4(v4) => {
                let hosts = u32::MAX.checked_shr(self.prefix_bits.into()).unwrap_or(0);
                IpAddr::V4((v4.to_bits() | hosts).into())
            }
            IpAddr::V6(v6) => {
                let hosts = u128::MAX.checked_shr(self.prefix_bits.into()).unwrap_or(0);
                IpAddr::V6((v6.to_bits() | hosts).into())
            }
        }
    }

    fn contains(&self, address: IpAddr) -> bool {
        bits(address) == bits(self.network) && masked(address, self.prefix_bits) == self.network
    }
}

impl FromStr for Cidr {
    type Err = NotCidr;

    fn from_str(text: &str) -> Result<Self, NotCidr> {
        let refuse = || NotCidr(text.to_owned());
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| refuse())?;
        let prefix_bits = match prefix {
            Some(prefix) => prefix.parse().map_err(|_| refuse())?,
            None => bits(address),
        };
        if prefix_bits > bits(address) {
            return Err(refuse());
        }
        Ok(Self {
            network: masked(address, prefix_bits),
            prefix_bits,
        })
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix_bits)
    }
}

fn bytes(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().into(),
        IpAddr::V6(v6) => v6.octets().into(),
    }
}

fn bits(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

/// The address with all but its first `prefix_bits` bits cleared.
fn masked(address: IpAddr, prefix_bits: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX
                .checked_shl(32 - u32::from(prefix_bits))
                .unwrap_or(0);
            IpAddr::V4((v4.to_bits() & mask).into())
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX
                .checked_shl(128 - u32::from(prefix_bits))
                .unwrap_or(0);
            IpAddr::V6((v6.to_bits() & mask).into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(text: &str) -> CidrSet {
        text.parse().expect("valid")
    }

    #[test]
    fn networks_are_canonical_and_split_by_family() {
        let set = set("10.1.2.3/8, fd00::1/8,192.0.2.7,::1");
        assert_eq!(set.v4(), "10.0.0.0/8, 192.0.2.7/32");
        assert_eq!(set.v6(), "::1/128, fd00::/8");
    }

    #[test]
    fn a_network_inside_another_is_dropped() {
        assert_eq!(
            set("10.2.0.0/16,10.0.0.0/8,10.2.3.4,10.0.0.0/8").v4(),
            "10.0.0.0/8"
        );
        assert_eq!(set("0.0.0.0/0,10.0.0.0/8,::/0,fe80::1").v4(), "0.0.0.0/0");
        assert_eq!(set("0.0.0.0/0,10.0.0.0/8,::/0,fe80::1").v6(), "::/0");
    }

    #[test]
    fn neighbours_and_the_other_family_are_outside() {
        let set = set("10.0.0.0/9,fd00::/64");
        for inside in ["10.127.255.255", "10.0.0.0", "fd00::ffff"] {
            assert!(set.contains(inside.parse().expect("address")), "{inside}");
        }
        for outside in [
            "10.128.0.0",
            "9.255.255.255",
            "fd00:0:0:1::",
            "::ffff:10.0.0.1",
        ] {
            assert!(
                !set.contains(outside.parse().expect("address")),
                "{outside}"
            );
        }
    }

    #[test]
    fn what_is_no_network_is_refused_by_name() {
        for bad in [
            "10.0.0.0/33",
            "::/129",
            "10.0.0/8",
            "cart",
            "10.0.0.0/",
            "10.0.0.0/-1",
            "/8",
        ] {
            assert_eq!(
                format!("::1,{bad}").parse::<CidrSet>(),
                Err(NotCidr(bad.to_owned()))
            );
        }
    }
}
