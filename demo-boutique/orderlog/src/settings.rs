//! What the environment says. The variables are in the library's documentation.

use std::path::PathBuf;

use boutique_chassis::environment::Environment;
use boutique_chassis::server::Process;

#[derive(Debug)]
pub struct Settings {
    pub process: Process,
    pub log_file: PathBuf,
    pub limits: Limits,
}

/// Beyond either of these no new order is taken. What becomes of those that were taken is written down all the same.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub orders_max: u64,
    /// Of the file.
    pub bytes_max: u64,
}

impl Limits {
    /// From nine tenths of either on: somebody has to make room before it is needed.
    pub fn is_nearly_full(self, orders: u64, bytes: u64) -> bool {
        let nearly = |is: u64, max: u64| is.saturating_mul(10) >= max.saturating_mul(9);
        nearly(orders, self.orders_max) || nearly(bytes, self.bytes_max)
    }
}

/// Payment's ledger has 100,000 entries, and an order may need two: to be paid, and to be paid back. An order
/// that could not be paid for would never end.
const ORDERS_MAX: u32 = 50_000;

impl Settings {
    /// `lookup` is `std::env::var(name).ok()` outside of tests.
    pub fn parse(lookup: impl Fn(&str) -> Option<String>) -> Result<Self, Vec<String>> {
        let mut env = Environment::new(lookup);
        let settings = Self {
            process: env.process(7300, 9730),
            log_file: env
                .text("LOG_FILE")
                .map_or("orderlog.redb".into(), PathBuf::from),
            limits: Limits {
                orders_max: env.number("LOG_ORDERS_MAX", ORDERS_MAX).into(),
                bytes_max: u64::from(env.number("LOG_MIB_MAX", 1024u32)) << 20,
            },
        };
        env.check(settings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_nearly_full_from_nine_tenths_of_its_orders_on_and_of_its_bytes() {
        let limits = Limits {
            orders_max: 50_000,
            bytes_max: 1 << 30,
        };
        assert!(!limits.is_nearly_full(44_999, 900 << 20));
        assert!(limits.is_nearly_full(45_000, 0));
        assert!(limits.is_nearly_full(0, 922 << 20));
        assert!(limits.is_nearly_full(0, u64::MAX));
        let one = Limits {
            orders_max: 1,
            ..limits
        };
        assert!(!one.is_nearly_full(0, 0));
    }
}
