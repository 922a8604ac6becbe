//! Facts: what happened in this sidecar, on their way to the control plane's journal.

use std::time::SystemTime;

use tokio::sync::mpsc;
use weir_config::pb;

use crate::policy::transition::{Phase, Transition};
use crate::telemetry;

/// Facts that may wait while the control plane is away. The state itself is not lost with them: metrics have it.
const WAITING_MAX: usize = 1024;

#[derive(Clone)]
pub struct Facts(mpsc::Sender<pb::Fact>);

pub fn channel() -> (Facts, mpsc::Receiver<pb::Fact>) {
    let (sender, receiver) = mpsc::channel(WAITING_MAX);
    (Facts(sender), receiver)
}

impl Facts {
    pub fn breaker_changed(
        &self,
        service: &str,
        route: &str,
        transition: Transition,
        forced: bool,
    ) {
        let state = |phase| match phase {
            Phase::Closed | Phase::Ramping => pb::BreakerState::Closed,
            Phase::Open => pb::BreakerState::Open,
            Phase::HalfOpen => pb::BreakerState::HalfOpen,
        };
        self.report(pb::fact::Fact::BreakerChanged(pb::BreakerChanged {
            service: service.into(),
            route: route.into(),
            from: state(transition.from).into(),
            to: state(transition.to).into(),
            reason: transition.reason,
            forced,
        }));
    }

    pub fn endpoint_changed(&self, service: &str, endpoint: &str, transition: Transition) {
        let state = |phase| match phase {
            Phase::Closed => pb::GateState::Closed,
            Phase::Open => pb::GateState::Open,
            Phase::HalfOpen => pb::GateState::HalfOpen,
            Phase::Ramping => pb::GateState::Ramping,
        };
        self.report(pb::fact::Fact::EndpointChanged(pb::EndpointChanged {
            service: service.into(),
            endpoint: endpoint.into(),
            from: state(transition.from).into(),
            to: state(transition.to).into(),
            reason: transition.reason,
            held_back: !transition.enforced,
        }));
    }

    pub fn draining(&self) {
        self.report(pb::fact::Fact::Draining(pb::Draining {}));
    }

    pub fn ready(&self) {
        self.report(pb::fact::Fact::Ready(pb::Ready {}));
    }

    fn report(&self, fact: pb::fact::Fact) {
        let at = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let fact = pb::Fact {
            at_ms: u64::try_from(at.as_millis()).unwrap_or(u64::MAX),
            fact: Some(fact),
        };
        if self.0.try_send(fact).is_err() {
            telemetry::fact_lost();
        }
    }
}
