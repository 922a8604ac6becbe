//! Facts: what happened in this sidecar, on their way to the control plane's journal.

use std::time::SystemTime;

use tokio::sync::mpsc;
use weir_config::pb;

use crate::layer::admission::Saturation;
use crate::layer::throttle::Throttling;
use crate::policy::episode::Change;
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

    pub fn throttle_changed(&self, service: &str, said: Throttling) {
        self.report(pb::fact::Fact::ThrottleChanged(pb::ThrottleChanged {
            service: service.into(),
            throttling: said.change == Change::Began,
            dropped_percent: said.dropped_percent,
            requests: said.requests,
            accepted: said.accepted,
            observed: said.observed,
        }));
    }

    /// `None`: a port that no service names.
    pub fn saturation_changed(&self, service: Option<&str>, said: Saturation) {
        let Saturation { change, load } = said;
        self.report(pb::fact::Fact::SaturationChanged(pb::SaturationChanged {
            service: service.unwrap_or_default().into(),
            saturated: change == Change::Began,
            in_flight: load.in_flight,
            limit: load.limit,
            queued: load.queued,
            observed: !load.enforced,
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
