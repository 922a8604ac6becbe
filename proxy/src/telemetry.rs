//! Metrics: one registry, and handles that are resolved when policy is applied, never during a request.
//!
//! Labels come from discovery and from code, never from what a request says, so nobody outside can make them grow
//! (security.md: metrics cardinality).

mod authorization;
mod backend;
mod connections;
mod fallback;
mod faults;
mod hedge;
mod inbound;
mod registrar;
mod requests;
mod routing;
mod sidecar;
mod throttle;

use std::sync::LazyLock;

use prometheus::{Encoder, TextEncoder};
use weir_config::snapshot::Mode;

use registrar::Registrar;

pub use authorization::{denied, revoked, revoked_call, would_deny};
pub use backend::BackendMetrics;
pub use connections::{connection, detected, open_connections, rejected_connection};
pub use fallback::{FallbackMetrics, fallbacks, stale_kept};
pub use faults::{fault_injected, fault_spared};
pub use hedge::HedgeMetrics;
pub use inbound::{InboundMetrics, rate_limited};
pub use requests::{RouteMetrics, refused, would_refuse};
pub use routing::{MirrorMetrics, RoutedMetrics};
pub use sidecar::{
    certificate, control_plane_connected, count_panics, fact_lost, memory, not_inherited, pushed,
};
pub use throttle::ThrottleMetrics;

static METRICS: LazyLock<Metrics> = LazyLock::new(Metrics::new);

struct Metrics {
    registrar: Registrar,
    authorization: authorization::Families,
    backend: backend::Families,
    connections: connections::Families,
    fallback: fallback::Families,
    faults: faults::Families,
    hedge: hedge::Families,
    inbound: inbound::Families,
    requests: requests::Families,
    routing: routing::Families,
    sidecar: sidecar::Families,
    throttle: throttle::Families,
}

impl Metrics {
    fn new() -> Self {
        let registrar = Registrar::default();
        Self {
            authorization: authorization::Families::new(&registrar),
            backend: backend::Families::new(&registrar),
            connections: connections::Families::new(&registrar),
            fallback: fallback::Families::new(&registrar),
            faults: faults::Families::new(&registrar),
            hedge: hedge::Families::new(&registrar),
            inbound: inbound::Families::new(&registrar),
            requests: requests::Families::new(&registrar),
            routing: routing::Families::new(&registrar),
            sidecar: sidecar::Families::new(&registrar),
            throttle: throttle::Families::new(&registrar),
            registrar,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    Inbound,
    Outbound,
}

impl Direction {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Inbound => "inbound",
            Self::Outbound => "outbound",
        }
    }
}

const fn mode_name(mode: Mode) -> &'static str {
    match mode {
        Mode::Enforce => "enforce",
        Mode::Observe => "observe",
    }
}

/// The Prometheus text format.
pub fn render() -> Vec<u8> {
    let mut text = Vec::new();
    // Writing into memory fails only for a metric without a name, and none is made.
    let _ = TextEncoder::new().encode(&METRICS.registrar.gather(), &mut text);
    text
}
