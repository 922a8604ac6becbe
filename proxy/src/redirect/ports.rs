//! A set of TCP ports as operators write it: `22,9000-9010`.

use std::fmt;
use std::str::FromStr;

/// Sorted and merged: nf_tables refuses a set whose ranges overlap.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortSet(Vec<Ports>);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Ports {
    first: u16,
    last: u16,
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is not a port (1–65535) or a range of ports such as 9000-9010")]
pub struct NotPorts(String);

impl PortSet {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn contains(&self, port: u16) -> bool {
        self.0.iter().any(|p| p.first <= port && port <= p.last)
    }

    /// First and last of each range, sorted and apart from one another.
    pub(super) fn ranges(&self) -> impl Iterator<Item = (u16, u16)> {
        self.0.iter().map(|ports| (ports.first, ports.last))
    }

    pub(super) fn union(&self, other: &Self) -> Self {
        self.0.iter().chain(&other.0).copied().collect()
    }
}

impl FromIterator<Ports> for PortSet {
    fn from_iter<I: IntoIterator<Item = Ports>>(ranges: I) -> Self {
        let mut ranges: Vec<Ports> = ranges.into_iter().collect();
        ranges.sort_unstable();
        let mut merged: Vec<Ports> = Vec::with_capacity(ranges.len());
        for next in ranges {
            match merged.last_mut() {
                Some(open) if next.first <= open.last.saturating_add(1) => {
                    open.last = open.last.max(next.last);
                }
                _ => merged.push(next),
            }
        }
        Self(merged)
    }
}

impl FromStr for PortSet {
    type Err = NotPorts;

    fn from_str(text: &str) -> Result<Self, NotPorts> {
        text.split(',')
            .map(str::trim)
            .filter(|item| !item.is_empty())
            .map(Ports::from_str)
            .collect()
    }
}

impl FromStr for Ports {
    type Err = NotPorts;

    fn from_str(text: &str) -> Result<Self, NotPorts> {
        let refuse = || NotPorts(text.to_owned());
        let port = |digits: &str| digits.trim().parse::<u16>().map_err(|_| refuse());
        let (first, last) = match text.split_once('-') {
            Some((first, last)) => (port(first)?, port(last)?),
            None => (port(text)?, port(text)?),
        };
        if first == 0 || first > last {
            return Err(refuse());
        }
        Ok(Self { first, last })
    }
}

/// As nft reads it, and as [`PortSet::from_str`] does.
impl fmt::Display for PortSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, ports) in self.0.iter().enumerate() {
            let comma = if n == 0 { "" } else { ", " };
            match ports {
                Ports { first, last } if first == last => write!(f, "{comma}{first}")?,
                Ports { first, last } => write!(f, "{comma}{first}-{last}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shown(text: &str) -> String {
        text.parse::<PortSet>().expect("valid").to_string()
    }

    #[test]
    fn ranges_that_touch_or_overlap_become_one() {
        assert_eq!(
            shown("8080, 22,8081,9000-9010,9005-9020,22"),
            "22, 8080-8081, 9000-9020"
        );
        assert_eq!(shown("65535,65534"), "65534-65535");
        assert_eq!(shown(" , "), "");
    }

    #[test]
    fn what_is_no_port_is_refused_by_name() {
        for bad in [
            "0", "0-5", "65536", "90-80", "http", "1-", "-1", "1-2-3", "+-",
        ] {
            let error = format!("80,{bad}").parse::<PortSet>().expect_err(bad);
            assert_eq!(error, NotPorts(bad.to_owned()));
        }
    }

    proptest! {
        /// Merging neither loses nor invents a port, and reading back what is shown changes nothing.
        #[test]
        fn merging_keeps_exactly_the_ports_given(
            given in proptest::collection::vec((1u16..60, 0u16..9), 0..12),
        ) {
            let ranges: Vec<Ports> =
                given.iter().map(|&(first, more)| Ports { first, last: first + more }).collect();
            let set: PortSet = ranges.iter().copied().collect();
            for port in 1..80 {
                let expected = ranges.iter().any(|r| r.first <= port && port <= r.last);
                prop_assert_eq!(set.contains(port), expected);
            }
            prop_assert!(set.0.windows(2).all(|pair| pair[0].last + 1 < pair[1].first));
            prop_assert_eq!(set.to_string().parse::<PortSet>(), Ok(set));
        }
    }
}
