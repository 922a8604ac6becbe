//! Addresses of the lab: one node, a pod network of host routes, virtual addresses for Services.
//!
//! Every pod incarnation gets a fresh address, as in a cluster: whoever still talks to the old
//! one is talking to nobody, and a test sees it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The node's own address: the source of probes and of the host's own connections.
pub const NODE: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 1);
/// Every pod's gateway. It is on no subnet: pods have host routes only.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
pub const NODE_V6: Ipv6Addr = Ipv6Addr::new(0xfd10, 0x244, 0, 0, 0, 0, 0, 1);
/// Link-local, so it can sit on every veth at once.
pub const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
pub const VIRTUAL_NET: &str = "10.96.0.0/16";
pub const VIRTUAL_NET_V6: &str = "fd10:96::/112";

/// A pod's number, unique during a run. All its addresses and its link follow from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PodNumber(u16);

impl PodNumber {
    pub fn v4(self) -> Ipv4Addr {
        let [high, low] = self.0.to_be_bytes();
        Ipv4Addr::new(10, 244, high, low)
    }

    pub fn v6(self) -> Ipv6Addr {
        Ipv6Addr::new(0xfd10, 0x244, 0, 0, 0, 0, 0, self.0)
    }

    /// The name of the node's end of the pod's link.
    pub fn link(self) -> String {
        format!("pod{}", self.0)
    }
}

/// Hands out pod numbers and the virtual addresses of Services.
#[derive(Debug)]
pub struct Addresses {
    next_pod: u16,
    next_virtual: u16,
}

impl Default for Addresses {
    fn default() -> Self {
        Self {
            next_pod: 2,
            next_virtual: 10,
        }
    }
}

impl Addresses {
    /// `None` once sixty thousand pods have come and gone.
    pub fn pod(&mut self) -> Option<PodNumber> {
        let number = PodNumber(self.next_pod);
        self.next_pod = self.next_pod.checked_add(1)?;
        Some(number)
    }

    /// The next virtual addresses; the IPv6 one only for a Service that asks for that family.
    pub fn service(&mut self, wants_v6: bool) -> Vec<IpAddr> {
        let number = self.next_virtual;
        self.next_virtual += 1;
        let [high, low] = number.to_be_bytes();
        let mut addresses = vec![IpAddr::V4(Ipv4Addr::new(10, 96, high, low))];
        if wants_v6 {
            let v6 = Ipv6Addr::new(0xfd10, 0x96, 0, 0, 0, 0, 0, number);
            addresses.push(IpAddr::V6(v6));
        }
        addresses
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_a_pod_follow_from_its_number_and_are_never_reused() {
        let mut addresses = Addresses::default();
        let first = addresses.pod().unwrap();
        assert_eq!(first.v4().to_string(), "10.244.0.2");
        assert_eq!(first.v6().to_string(), "fd10:244::2");
        for _ in 0..300 {
            addresses.pod().unwrap();
        }
        assert_eq!(addresses.pod().unwrap().v4().to_string(), "10.244.1.47");
    }

    #[test]
    fn the_supply_of_pod_addresses_ends_with_a_none_and_not_with_a_duplicate() {
        let mut addresses = Addresses::default();
        let all: std::collections::BTreeSet<_> = std::iter::from_fn(|| addresses.pod())
            .map(PodNumber::v4)
            .collect();
        assert_eq!(all.len(), usize::from(u16::MAX) - 2);
        assert!(addresses.pod().is_none());
    }

    #[test]
    fn a_service_has_an_ipv6_address_only_when_it_asks() {
        let mut addresses = Addresses::default();
        assert_eq!(addresses.service(false).len(), 1);
        assert_eq!(addresses.service(true)[1].to_string(), "fd10:96::b");
    }
}
