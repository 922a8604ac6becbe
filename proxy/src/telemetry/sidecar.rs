//! The sidecar itself: its control plane, its policy, its certificate, its bugs.

use prometheus::{GaugeVec, IntCounter, IntCounterVec, IntGauge};

use super::{METRICS, Registrar};
use crate::policy::memory::Level;

pub(super) struct Families {
    control_plane: IntGauge,
    policy_version: IntGauge,
    pushes: IntCounterVec,
    facts_lost: IntCounter,
    not_inherited: IntCounter,
    certificate_expiry: GaugeVec,
    panics: IntCounter,
    memory_used: IntGauge,
    memory_limit: IntGauge,
    memory_pressure: IntGauge,
}

impl Families {
    pub(super) fn new(of: &Registrar) -> Self {
        Self {
            control_plane: of.single_gauge(
                "weir_control_plane_connected",
                "1 while the control stream is up.",
            ),
            policy_version: of.single_gauge(
                "weir_policy_version",
                "The control plane's version in force.",
            ),
            pushes: of.counter("weir_pushes_total", "Pushes received.", &["result"]),
            facts_lost: of.single_counter(
                "weir_facts_lost_total",
                "Facts that could not be reported.",
            ),
            not_inherited: of.single_counter(
                "weir_not_inherited_total",
                "Calls to the app of which nothing could be noted for the calls that it makes: there was no room.",
            ),
            certificate_expiry: of.float_gauge(
                "weir_certificate_expiry_timestamp_seconds",
                "When this sidecar's certificate ends.",
                &["identity"],
            ),
            memory_used: of.single_gauge(
                "weir_memory_used_bytes",
                "What counts against the limit.",
            ),
            memory_limit: of.single_gauge(
                "weir_memory_limit_bytes",
                "What the sidecar may use; 0: there is no limit.",
            ),
            memory_pressure: of.single_gauge(
                "weir_memory_pressure",
                "0: memory enough. 1: few calls at a time. 2: and few connections.",
            ),
            panics: of.single_counter("weir_panics_total", "Bugs: each ended one connection, call or background task."),
        }
    }
}

pub fn control_plane_connected(connected: bool) {
    METRICS.sidecar.control_plane.set(connected.into());
}

pub fn pushed(accepted: bool, version: u64) {
    if accepted {
        METRICS
            .sidecar
            .policy_version
            .set(i64::try_from(version).unwrap_or(i64::MAX));
    }
    METRICS
        .sidecar
        .pushes
        .with_label_values(&[if accepted { "accepted" } else { "refused" }])
        .inc();
}

pub fn not_inherited() {
    METRICS.sidecar.not_inherited.inc();
}

pub fn fact_lost() {
    METRICS.sidecar.facts_lost.inc();
}

/// In bytes.
pub fn memory(used: u64, limit: u64, level: Level) {
    METRICS.sidecar.memory_used.set(used.cast_signed());
    // A limit beyond all memory is none.
    METRICS
        .sidecar
        .memory_limit
        .set(i64::try_from(limit).unwrap_or(0));
    METRICS.sidecar.memory_pressure.set(level as i64);
}

pub fn certificate(identity: &str, expires_unix: f64) {
    METRICS
        .sidecar
        .certificate_expiry
        .with_label_values(&[identity])
        .set(expires_unix);
}

/// From here on every panic is counted, in whatever task or thread: each is a bug, ends what it happened in, and never the
/// process.
pub fn count_panics() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        METRICS.sidecar.panics.inc();
        report(panic);
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Only those in a connection's own task were: a stream of HTTP/2 has one, too.
    #[tokio::test]
    async fn a_panic_in_any_task_is_counted() {
        count_panics();
        let before = METRICS.sidecar.panics.get();
        let task = tokio::spawn(async { panic!("on purpose") });
        assert!(task.await.is_err());
        assert!(METRICS.sidecar.panics.get() > before);
    }
}
