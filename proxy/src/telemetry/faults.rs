//! What FaultPolicies did to tries.

use prometheus::IntCounterVec;

use super::{METRICS, Registrar};

pub(super) struct Families {
    faults_injected: IntCounterVec,
    faults_spared: IntCounterVec,
}

impl Families {
    pub(super) fn new(of: &Registrar) -> Self {
        Self {
            faults_injected: of.counter(
                "weir_faults_injected_total",
                "Tries that a FaultPolicy did something to.",
                &["service", "policy", "kind"],
            ),
            faults_spared: of.counter(
                "weir_faults_spared_total",
                "Tries that were left alone, because faults held as many as they may.",
                &["service"],
            ),
        }
    }
}

/// `policy`: its name, which the control plane says.
pub fn fault_injected(service: &str, policy: &str, kind: &'static str) {
    let labels = [service, policy, kind];
    METRICS
        .faults
        .faults_injected
        .with_label_values(&labels)
        .inc();
}

pub fn fault_spared(service: &str) {
    METRICS
        .faults
        .faults_spared
        .with_label_values(&[service])
        .inc();
}
