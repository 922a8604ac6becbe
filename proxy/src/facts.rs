//! Facts: what happened in this sidecar, on their way to the control plane's journal.

use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::mpsc;
use weir_config::pb;

use crate::backend::Backend;
use crate::layer::admission::Saturation;
use crate::layer::breaker::Status;
use crate::layer::throttle::Throttling;
use crate::policy::episode::Change;
use crate::policy::transition::{Phase, Transition};
use crate::telemetry;

/// Facts that may wait while the control plane is away. The state itself is not lost with them: metrics have it, and what is
/// [not closed](standing) is told again when it is back.
const WAITING_MAX: usize = 1024;
/// Of what stands, in one message: far below the 64 KiB that the control plane takes.
const STANDING_AT_ONCE: usize = 64;
const STANDS: &str = "it stood so when the sidecar connected";

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
        status: Status,
    ) {
        self.report(pb::fact::Fact::BreakerChanged(pb::BreakerChanged {
            service: service.into(),
            route: route.into(),
            from: breaker_state(transition.from).into(),
            to: breaker_state(transition.to).into(),
            reason: transition.reason,
            forced: status.forced,
            observed: status.observed,
        }));
    }

    pub fn endpoint_changed(&self, service: &str, endpoint: &str, transition: Transition) {
        self.report(pb::fact::Fact::EndpointChanged(pb::EndpointChanged {
            service: service.into(),
            endpoint: endpoint.into(),
            from: gate_state(transition.from).into(),
            to: gate_state(transition.to).into(),
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
        if self.0.try_send(now(fact)).is_err() {
            telemetry::fact_lost();
        }
    }
}

/// What of `backends` is not closed, in messages: at least one, for that there is nothing is news, too.
pub fn standing<'a>(backends: impl Iterator<Item = &'a Arc<Backend>>) -> Vec<pb::Standing> {
    let facts: Vec<pb::Fact> = backends.flat_map(|backend| of_backend(backend)).collect();
    let mut messages: Vec<pb::Standing> = facts
        .chunks(STANDING_AT_ONCE)
        .map(|facts| pb::Standing {
            facts: facts.to_vec(),
            more: true,
        })
        .collect();
    match messages.last_mut() {
        Some(last) => last.more = false,
        None => messages.push(pb::Standing::default()),
    }
    messages
}

fn of_backend(backend: &Backend) -> Vec<pb::Fact> {
    let service = || backend.service.to_string();
    let breakers = backend.breakers().into_iter();
    let breakers = breakers.filter(|(_, it)| it.phase != Phase::Closed || it.forced);
    let breakers = breakers.map(|(route, status)| {
        pb::fact::Fact::BreakerChanged(pb::BreakerChanged {
            service: service(),
            route,
            from: pb::BreakerState::Unspecified.into(),
            to: breaker_state(status.phase).into(),
            reason: STANDS.into(),
            forced: status.forced,
            observed: status.observed,
        })
    });
    let endpoints = backend.endpoints.list();
    let endpoints = endpoints.iter().filter_map(|member| {
        let phase = member.learnt().gate.state();
        (phase != Phase::Closed).then(|| {
            pb::fact::Fact::EndpointChanged(pb::EndpointChanged {
                service: service(),
                endpoint: member.address().to_string(),
                from: pb::GateState::Unspecified.into(),
                to: gate_state(phase).into(),
                reason: STANDS.into(),
                held_back: false,
            })
        })
    });
    breakers.chain(endpoints).map(now).collect()
}

fn now(fact: pb::fact::Fact) -> pb::Fact {
    let at = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    pb::Fact {
        at_ms: u64::try_from(at.as_millis()).unwrap_or(u64::MAX),
        fact: Some(fact),
    }
}

const fn breaker_state(phase: Phase) -> pb::BreakerState {
    match phase {
        Phase::Closed | Phase::Ramping => pb::BreakerState::Closed,
        Phase::Open => pb::BreakerState::Open,
        Phase::HalfOpen => pb::BreakerState::HalfOpen,
    }
}

const fn gate_state(phase: Phase) -> pb::GateState {
    match phase {
        Phase::Closed => pb::GateState::Closed,
        Phase::Open => pb::GateState::Open,
        Phase::HalfOpen => pb::GateState::HalfOpen,
        Phase::Ramping => pb::GateState::Ramping,
    }
}
