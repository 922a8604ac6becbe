//! What a sidecar says happened. It is believed about itself, within bounds: a sidecar may be compromised, and its
//! facts must not fill the journal or somebody's screen.

use tokio::time::Instant;
use weir_config::pb;
use weir_config::pb::fact::Fact as Said;
use weir_config::resource::ObjectName;

use super::PushServer;
use crate::breakers::{Breakers, State, Transition};
use crate::journal::{Fact, Journal, now_ms};
use crate::mesh::Mesh;
use crate::proxies::Proxies;
use crate::rate::Bucket;

/// A pod with a hundred flapping endpoints stays below it.
const PER_SECOND: f64 = 100.0;
const BURST: f64 = 1000.0;
const TEXT_CHARS_MAX: usize = 300;
/// A sidecar's clock may be off; a time that is further off than this is replaced by ours.
const CLOCK_SKEW_MS: u64 = 10 * 60 * 1000;

pub(super) struct Facts {
    pod: ObjectName,
    mesh: Mesh,
    journal: Journal,
    breakers: Breakers,
    proxies: Proxies,
    rate: Bucket,
}

impl Facts {
    pub(super) fn new(server: &PushServer, pod: &ObjectName) -> Self {
        Self {
            pod: pod.clone(),
            mesh: server.mesh.clone(),
            journal: server.journal.clone(),
            breakers: server.breakers.clone(),
            proxies: server.proxies.clone(),
            rate: Bucket::new(PER_SECOND, BURST),
        }
    }

    pub(super) fn heard(&mut self, fact: pb::Fact) {
        if !self.rate.admit(Instant::now()) {
            tracing::debug!(pod = %self.pod, "too many facts: one dropped");
            return;
        }
        let now = now_ms();
        let at_ms = if fact.at_ms.abs_diff(now) > CLOCK_SKEW_MS {
            now
        } else {
            fact.at_ms
        };
        match fact.fact {
            Some(Said::BreakerChanged(change)) => self.breaker_changed(change, at_ms),
            Some(Said::EndpointChanged(change)) => self.endpoint_changed(change, at_ms),
            Some(Said::Draining(pb::Draining {})) => self.draining(true, at_ms),
            Some(Said::Ready(pb::Ready {})) => self.draining(false, at_ms),
            Some(Said::ThrottleChanged(change)) => self.throttle_changed(&change, at_ms),
            Some(Said::SaturationChanged(change)) => self.saturation_changed(&change, at_ms),
            None => {}
        }
    }

    fn breaker_changed(&self, change: pb::BreakerChanged, at_ms: u64) {
        let caller = self.pod.to_string();
        let (service, route, reason) = (
            clean(&change.service),
            clean(&change.route),
            clean(&change.reason),
        );
        let (state, fact) = match change.to() {
            pb::BreakerState::Unspecified => return,
            pb::BreakerState::Closed => (
                State::Closed,
                Fact::BreakerClosed {
                    caller,
                    service,
                    route,
                    reason,
                    forced: change.forced,
                },
            ),
            pb::BreakerState::Open => (
                State::Open,
                Fact::BreakerOpened {
                    caller,
                    service,
                    route,
                    reason,
                    forced: change.forced,
                },
            ),
            pb::BreakerState::HalfOpen => (
                State::HalfOpen,
                Fact::BreakerHalfOpened {
                    caller,
                    service,
                    route,
                    reason,
                    forced: change.forced,
                },
            ),
        };
        self.breakers.changed(Transition {
            caller: self.pod.clone(),
            service: clean(&change.service),
            route: clean(&change.route),
            endpoint: String::new(),
            state,
            forced: change.forced,
            reason: clean(&change.reason),
            at_ms,
        });
        self.journal.note_at(fact, at_ms);
    }

    fn endpoint_changed(&self, change: pb::EndpointChanged, at_ms: u64) {
        let caller = self.pod.to_string();
        let (service, endpoint, reason) = (
            clean(&change.service),
            clean(&change.endpoint),
            clean(&change.reason),
        );
        if change.held_back {
            let fact = Fact::EndpointSpared {
                caller,
                service,
                endpoint,
                reason,
            };
            return self.journal.note_at(fact, at_ms);
        }
        let (state, fact) = match change.to() {
            pb::GateState::Unspecified => return,
            pb::GateState::Open => (
                State::Open,
                Fact::EndpointEjected {
                    caller,
                    service,
                    endpoint,
                    reason,
                },
            ),
            pb::GateState::HalfOpen => (
                State::HalfOpen,
                Fact::EndpointProbed {
                    caller,
                    service,
                    endpoint,
                    reason,
                },
            ),
            pb::GateState::Ramping => (
                State::Ramping,
                Fact::EndpointReadmitted {
                    caller,
                    service,
                    endpoint,
                    reason,
                },
            ),
            pb::GateState::Closed => (
                State::Closed,
                Fact::EndpointRestored {
                    caller,
                    service,
                    endpoint,
                    reason,
                },
            ),
        };
        self.breakers.changed(Transition {
            caller: self.pod.clone(),
            service: clean(&change.service),
            route: String::new(),
            endpoint: clean(&change.endpoint),
            state,
            forced: false,
            reason: clean(&change.reason),
            at_ms,
        });
        self.journal.note_at(fact, at_ms);
    }

    fn throttle_changed(&self, change: &pb::ThrottleChanged, at_ms: u64) {
        let (caller, service) = (self.pod.to_string(), clean(&change.service));
        let fact = match change.throttling {
            true => Fact::ThrottleBegan {
                caller,
                service,
                dropped_percent: change.dropped_percent.min(100),
                requests: change.requests,
                accepted: change.accepted,
                observed: change.observed,
            },
            false => Fact::ThrottleEnded { caller, service },
        };
        self.journal.note_at(fact, at_ms);
    }

    fn saturation_changed(&self, change: &pb::SaturationChanged, at_ms: u64) {
        let (pod, service) = (self.pod.to_string(), clean(&change.service));
        let (in_flight, limit) = (change.in_flight, change.limit);
        let fact = match change.saturated {
            true => Fact::SaturationBegan {
                pod,
                service,
                in_flight,
                limit,
                queued: change.queued,
                observed: change.observed,
            },
            false => Fact::SaturationEnded {
                pod,
                service,
                in_flight,
                limit,
            },
        };
        self.journal.note_at(fact, at_ms);
    }

    fn draining(&self, draining: bool, at_ms: u64) {
        self.mesh.set_draining(&self.pod, draining);
        self.proxies
            .update(&self.pod, |proxy| proxy.draining = draining);
        if draining {
            let pod = self.pod.to_string();
            self.journal.note_at(Fact::ProxyDraining { pod }, at_ms);
        }
    }
}

/// Bounded, and free of what a terminal would act upon.
fn clean(text: &str) -> String {
    text.chars()
        .filter(|c| !c.is_control())
        .take(TEXT_CHARS_MAX)
        .collect()
}
