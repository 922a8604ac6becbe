//! What an experiment is made from.

use std::time::Duration;

use weir_config::snapshot::Outbound;

use crate::server;
use crate::traffic::{Pattern, Traffic};

pub struct Plan {
    pub clients: usize,
    pub traffic: Traffic,
    /// How many servers each tier has. Those of one tier call the next one, each by its own sidecar.
    pub tiers: Vec<usize>,
    pub server: server::Config,
    pub outbound: Outbound,
    /// Whether calls may be repeated.
    pub idempotent: bool,
    /// The app hands on that the call is a repetition, to whom it calls itself.
    pub attempts_are_carried: bool,
    /// Servers have a sidecar that lets so many in.
    pub admission: Option<u32>,
    /// This share of users hangs up, after so long on average.
    pub hang_up: Option<(f64, Duration)>,
}

impl Default for Plan {
    /// Section 12 of resilience.md: three replicas, 1000 requests a second, a timeout of one second, one retry.
    fn default() -> Self {
        Self {
            clients: 20,
            traffic: Traffic::new(Pattern::Poisson, 1000.0),
            tiers: vec![3],
            server: server::Config::default(),
            outbound: outbound(1000),
            idempotent: true,
            attempts_are_carried: true,
            admission: None,
            hang_up: None,
        }
    }
}

/// The defaults, but for the timeout.
pub fn outbound(timeout_millis: u64) -> Outbound {
    Outbound {
        deadline: Some(weir_config::units::Duration::from_millis(timeout_millis)),
        ..Outbound::default()
    }
}
