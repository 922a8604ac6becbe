//! What the environment says, parsed once. Every mistake is reported, not only the first.

use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use tonic::Code;

use crate::chaos::Faults;
use crate::pb::Knobs;
use crate::server::Process;

/// Variables, and what is wrong with those that were asked for.
pub struct Environment<Lookup> {
    lookup: Lookup,
    mistakes: Vec<String>,
}

impl<Lookup: Fn(&str) -> Option<String>> Environment<Lookup> {
    /// `lookup` is `std::env::var(name).ok()` outside of tests.
    pub fn new(lookup: Lookup) -> Self {
        Self {
            lookup,
            mistakes: Vec::new(),
        }
    }

    /// The settings made of it, unless there were mistakes.
    pub fn check<Settings>(self, settings: Settings) -> Result<Settings, Vec<String>> {
        match self.mistakes.is_empty() {
            true => Ok(settings),
            false => Err(self.mistakes),
        }
    }

    /// What every service is told; the ports are those of this one by default.
    pub fn process(&mut self, port: u16, chaos_port: u16) -> Process {
        Process {
            port: self.number("PORT", port),
            chaos_port: Some(self.number("CHAOS_PORT", chaos_port)).filter(|port| *port != 0),
            drain_delay: Duration::from_millis(self.number("DRAIN_DELAY_MS", 500u32).into()),
            grace: Duration::from_secs(self.number("DRAIN_SECONDS", 10u32).into()),
            faults: self.faults(),
        }
    }

    /// The knobs to start with.
    fn faults(&mut self) -> Faults {
        let knobs = Knobs {
            latency_ms: self.number("LATENCY_MS", 0),
            error_pct: self.number("ERROR_PCT", 0),
            code: self.code("ERROR_CODE"),
            slots: self.number("SLOTS", 0),
            service_ms: self.number("SERVICE_MS", 0),
            freeze: self.flag("FREEZE"),
        };
        Faults::parse(knobs).unwrap_or_else(|mistake| {
            self.mistakes.push(mistake);
            Faults::default()
        })
    }

    /// A variable that is set to nothing counts as not set: that is how Kubernetes YAML switches one off.
    pub fn text(&self, name: &str) -> Option<String> {
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

    pub fn number<Number: FromStr<Err: Display>>(&mut self, name: &str, default: Number) -> Number {
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

    pub fn address(&mut self, name: &str) -> Option<String> {
        let text = self.text(name)?;
        let port = text.rsplit_once(':').map(|(_, port)| port.parse::<u16>());
        if !matches!(port, Some(Ok(1..))) {
            self.mistakes
                .push(format!("{name}={text:?}: expected host:port"));
        }
        Some(text)
    }
}
