//! What the environment says, parsed once. Every mistake is reported, not only the first.

use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use tonic::Code;

use crate::chaos::Faults;
use crate::pb::Knobs;

#[derive(Debug)]
pub struct Settings {
    pub port: u16,
    /// None keeps carts in memory.
    pub redis_addr: Option<String>,
    pub redis_timeout: Duration,
    pub drain_delay: Duration,
    pub grace: Duration,
    pub chaos_port: Option<u16>,
    pub faults: Faults,
}

impl Settings {
    /// `lookup` is `std::env::var(name).ok()` outside of tests.
    pub fn parse(lookup: impl Fn(&str) -> Option<String>) -> Result<Self, Vec<String>> {
        let mut env = Environment {
            lookup,
            mistakes: Vec::new(),
        };
        let knobs = Knobs {
            latency_ms: env.number("LATENCY_MS", 0),
            error_pct: env.number("ERROR_PCT", 0),
            code: env.code("ERROR_CODE"),
            slots: env.number("SLOTS", 0),
            service_ms: env.number("SERVICE_MS", 0),
            freeze: env.flag("FREEZE"),
        };
        let faults = Faults::parse(knobs).unwrap_or_else(|mistake| {
            env.mistakes.push(mistake);
            Faults::default()
        });
        let settings = Self {
            port: env.number("PORT", 7070),
            redis_addr: env.address("REDIS_ADDR"),
            redis_timeout: Duration::from_millis(env.number("REDIS_TIMEOUT_MS", 500u32).into()),
            drain_delay: Duration::from_millis(env.number("DRAIN_DELAY_MS", 500u32).into()),
            grace: Duration::from_secs(env.number("GRACE_SECONDS", 10u32).into()),
            chaos_port: Some(env.number("CHAOS_PORT", 9770)).filter(|port| *port != 0),
            faults,
        };
        match env.mistakes.is_empty() {
            true => Ok(settings),
            false => Err(env.mistakes),
        }
    }
}

struct Environment<Lookup> {
    lookup: Lookup,
    mistakes: Vec<String>,
}

impl<Lookup: Fn(&str) -> Option<String>> Environment<Lookup> {
    /// A variable that is set to nothing counts as not set: that is how Kubernetes YAML switches one off.
    fn text(&self, name: &str) -> Option<String> {
        (self.lookup)(name).filter(|text| !text.is_empty())
    }

    fn optional<Number: FromStr<Err: Display>>(&mut self, name: &str) -> Option<Number> {
        let text = self.text(name)?;
        match text.parse() {
            Ok(number) => Some(number),
            Err(error) => {
                self.mistakes.push(format!("{name}={text:?}: {error}"));
                None
            }
        }
    }

    fn number<Number: FromStr<Err: Display>>(&mut self, name: &str, default: Number) -> Number {
        self.optional(name).unwrap_or(default)
    }

    fn flag(&mut self, name: &str) -> bool {
        match self.text(name).as_deref() {
            None | Some("0" | "false") => false,
            Some("1" | "true") => true,
            Some(other) => {
                self.mistakes
                    .push(format!("{name}={other:?}: expected true or false"));
                false
            }
        }
    }

    /// A gRPC status by number (14) or by name (UNAVAILABLE), as the other services take it.
    fn code(&mut self, name: &str) -> i32 {
        let Some(text) = self.text(name) else {
            return 0;
        };
        // Code has no parser of names; its Debug form is the name in another case.
        let is_named = |code: &i32| {
            let spelled = format!("{:?}", Code::from_i32(*code));
            spelled.eq_ignore_ascii_case(&text.replace('_', ""))
        };
        let codes = 1..=Code::Unauthenticated as i32;
        let code = text.parse().ok().or_else(|| codes.clone().find(is_named));
        code.filter(|code| codes.contains(code)).unwrap_or_else(|| {
            self.mistakes.push(format!(
                "{name}={text:?}: expected a gRPC status like UNAVAILABLE or 14"
            ));
            0
        })
    }

    fn address(&mut self, name: &str) -> Option<String> {
        let text = self.text(name)?;
        let port = text.rsplit_once(':').map(|(_, port)| port.parse::<u16>());
        if !matches!(port, Some(Ok(1..))) {
            self.mistakes
                .push(format!("{name}={text:?}: expected host:port"));
        }
        Some(text)
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
        assert_eq!(settings.port, 7070);
        assert_eq!(settings.redis_addr, None);
        assert_eq!(settings.chaos_port, Some(9770));
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
        let knobs = settings.expect("valid").faults.knobs();
        assert_eq!((knobs.slots, knobs.code), (4, 8));
        let settings = parse(&[("ERROR_CODE", "14")]).expect("valid");
        assert_eq!(settings.faults.knobs().code, 14);
    }

    #[test]
    fn port_zero_switches_the_knobs_off() {
        let settings = parse(&[("CHAOS_PORT", "0")]).expect("valid");
        assert_eq!(settings.chaos_port, None);
    }
}
