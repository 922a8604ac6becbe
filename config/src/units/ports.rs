//! Ports and ranges of ports, as annotations and settings have them.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

/// `25,3306-3310`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortRanges(Vec<RangeInclusive<u16>>);

/// Longer lists are nobody's, and each connection looks through them.
const RANGES_MAX: usize = 64;

impl PortRanges {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn contains(&self, port: u16) -> bool {
        self.0.iter().any(|range| range.contains(&port))
    }
}

impl fmt::Display for PortRanges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, range) in self.0.iter().enumerate() {
            if place > 0 {
                f.write_str(",")?;
            }
            match (range.start(), range.end()) {
                (low, high) if low == high => write!(f, "{low}")?,
                (low, high) => write!(f, "{low}-{high}")?,
            }
        }
        Ok(())
    }
}

impl FromStr for PortRanges {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let port = |text: &str| text.trim().parse::<u16>().ok().filter(|port| *port != 0);
        let range = |item: &str| match item.split_once('-') {
            None => port(item).map(|port| port..=port),
            Some((low, high)) => {
                let (low, high) = (port(low)?, port(high)?);
                (low <= high).then_some(low..=high)
            }
        };
        let ranges = text.split(',').map(range).take(RANGES_MAX + 1);
        match ranges.collect::<Option<Vec<_>>>() {
            Some(ranges) if ranges.len() <= RANGES_MAX => Ok(Self(ranges)),
            _ => Err(format!(
                "expected at most {RANGES_MAX} ports and port ranges such as 25,3306-3310, found {text:?}"
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<PortRanges, String> {
        text.parse()
    }

    #[test]
    fn both_ends_of_a_range_belong_to_it() {
        let ports = read("25, 3306 - 3310,65535").expect("in order");
        for (port, is_in) in [
            (24, false),
            (25, true),
            (26, false),
            (3305, false),
            (3306, true),
            (3310, true),
            (3311, false),
            (65535, true),
        ] {
            assert_eq!(ports.contains(port), is_in, "{port}");
        }
        assert_eq!(ports.to_string(), "25,3306-3310,65535");
        assert!(!PortRanges::default().contains(25));
    }

    #[test]
    fn what_is_no_list_of_ports_is_none() {
        for text in ["", "0", "65536", "a", "1,", "9-8", "1-2-3", "-1", "1;2"] {
            assert!(read(text).is_err(), "{text:?}");
        }
        let many = |count: usize| vec!["1"; count].join(",");
        assert!(read(&many(RANGES_MAX)).is_ok());
        assert!(read(&many(RANGES_MAX + 1)).is_err());
    }
}
