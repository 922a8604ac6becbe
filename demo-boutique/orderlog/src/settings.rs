//! What the environment says. The variables are in the library's documentation.

use std::path::PathBuf;

use boutique_chassis::environment::Environment;
use boutique_chassis::server::Process;

#[derive(Debug)]
pub struct Settings {
    pub process: Process,
    pub log_file: PathBuf,
    pub log_bytes_max: u64,
}

impl Settings {
    /// `lookup` is `std::env::var(name).ok()` outside of tests.
    pub fn parse(lookup: impl Fn(&str) -> Option<String>) -> Result<Self, Vec<String>> {
        let mut env = Environment::new(lookup);
        let settings = Self {
            process: env.process(7300, 9730),
            log_file: env
                .text("LOG_FILE")
                .map_or("orderlog.redb".into(), PathBuf::from),
            log_bytes_max: u64::from(env.number("LOG_MIB_MAX", 1024u32)) << 20,
        };
        env.check(settings)
    }
}
