//! What the environment says, parsed once. Every mistake is reported, not only the first.

use std::time::Duration;

use boutique_chassis::environment::Environment;
use boutique_chassis::server::Process;

/// What was put into a cart cannot be put there once more to be sure, so the answer is worth waiting for; twice this is
/// what callers give it (`k8s/policies/cart.yaml`).
const REDIS_MS: u32 = 1500;

#[derive(Debug)]
pub struct Settings {
    pub process: Process,
    /// None keeps carts in memory.
    pub redis_addr: Option<String>,
    pub redis_timeout: Duration,
}

impl Settings {
    /// `lookup` is `std::env::var(name).ok()` outside of tests.
    pub fn parse(lookup: impl Fn(&str) -> Option<String>) -> Result<Self, Vec<String>> {
        let mut env = Environment::new(lookup);
        let settings = Self {
            process: env.process(7070, 9770),
            redis_addr: env.address("REDIS_ADDR"),
            redis_timeout: Duration::from_millis(env.number("REDIS_TIMEOUT_MS", REDIS_MS).into()),
        };
        env.check(settings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(variables: &[(&str, &str)]) -> Result<Settings, Vec<String>> {
        Settings::parse(|name| {
            let found = variables.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn an_empty_environment_is_the_service_on_its_usual_port_with_carts_in_memory() {
        let settings = parse(&[("REDIS_ADDR", "")]).expect("defaults are valid");
        assert_eq!(settings.process.port, 7070);
        assert_eq!(settings.redis_addr, None);
        assert_eq!(settings.process.chaos_port, Some(9770));
    }

    #[test]
    fn every_mistake_is_named() {
        let mistakes = parse(&[
            ("PORT", "seven"),
            ("REDIS_ADDR", "redis"),
            ("ERROR_PCT", "101"),
            ("ERROR_CODE", "GREEN"),
            ("FREEZE", "maybe"),
        ])
        .expect_err("five mistakes");
        for name in ["PORT", "REDIS_ADDR", "error_pct", "ERROR_CODE", "FREEZE"] {
            assert!(
                mistakes.iter().any(|mistake| mistake.contains(name)),
                "{name} is missing in {mistakes:?}"
            );
        }
    }

    #[test]
    fn knobs_may_come_from_the_environment() {
        let settings = parse(&[("SLOTS", "4"), ("ERROR_CODE", "RESOURCE_EXHAUSTED")]);
        let knobs = settings.expect("valid").process.faults.knobs();
        assert_eq!((knobs.slots, knobs.code), (4, 8));
        let settings = parse(&[("ERROR_CODE", "14")]).expect("valid");
        assert_eq!(settings.process.faults.knobs().code, 14);
    }

    #[test]
    fn port_zero_switches_the_knobs_off() {
        let settings = parse(&[("CHAOS_PORT", "0")]).expect("valid");
        assert_eq!(settings.process.chaos_port, None);
    }
}
