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
