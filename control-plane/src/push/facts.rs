//! What a sidecar says happened. It is believed about itself, within bounds: a sidecar may be compromised, and its
//! facts must not fill the journal or somebody's screen.

use std::net::SocketAddr;

use tokio::time::Instant;
use weir_config::pb;
use weir_config::pb::fact::Fact as Said;
use weir_config::resource::ObjectName;

use super::PushServer;
use crate::breakers::{Breakers, State, Transition};
use crate::journal::{Fact, Journal, now_ms};
use crate::mesh::Mesh;
use crate::proxies::Proxies;
use crate::rate::Buckets;
use crate::spiffe::is_name;

/// A pod with a hundred flapping endpoints stays below it.
const PER_SECOND: f64 = 100.0;
const BURST: f64 = 1000.0;
/// That a sidecar came and went. One that starts anew again and again has been told often enough.
const CONNECTS_PER_SECOND: f64 = 0.2;
const CONNECTS_BURST: f64 = 20.0;
const TEXT_CHARS_MAX: usize = 300;
/// Breakers and gates of one sidecar that are not closed.
const STANDING_MAX: usize = 1000;
/// A sidecar's clock may be off; a time that is further off than this is replaced by ours.
const CLOCK_SKEW_MS: u64 = 10 * 60 * 1000;

/// How much each pod may say; a new connection is no new pod.
#[derive(Clone)]
pub struct Allowances {
    facts: Buckets<ObjectName>,
    connects: Buckets<ObjectName>,
}

impl Default for Allowances {
    fn default() -> Self {
        Self {
            facts: Buckets::new(PER_SECOND, BURST),
            connects: Buckets::new(CONNECTS_PER_SECOND, CONNECTS_BURST),
        }
    }
}

impl Allowances {
    /// Whether it is worth telling that a sidecar of `pod` has come, and then that it has gone.
    pub(super) fn may_connect_aloud(&self, pod: &ObjectName) -> bool {
        self.connects.admit(pod.clone(), Instant::now())
    }
}

pub(super) struct Facts {
    pod: ObjectName,
    mesh: Mesh,
    journal: Journal,
    breakers: Breakers,
    proxies: Proxies,
    allowed: Buckets<ObjectName>,
    /// What is not closed, as far as it has been told; `None` when all of it has.
    standing: Option<Vec<Transition>>,
}

impl Facts {
    pub(super) fn new(server: &PushServer, pod: &ObjectName) -> Self {
        Self {
            pod: pod.clone(),
            mesh: server.mesh.clone(),
            journal: server.journal.clone(),
            breakers: server.breakers.clone(),
            proxies: server.proxies.clone(),
            allowed: server.allowances.facts.clone(),
            standing: Some(Vec::new()),
        }
    }

    pub(super) fn heard(&mut self, fact: pb::Fact) {
        if !self.allowed.admit(self.pod.clone(), Instant::now()) {
            tracing::debug!(pod = %self.pod, "too many facts: one dropped");
            return;
        }
        if !fact.fact.as_ref().is_some_and(is_sound) {
            tracing::debug!(pod = %self.pod, "a fact about nothing: dropped");
            return;
        }
        let now = now_ms();
        let at_ms = if fact.at_ms.abs_diff(now) > CLOCK_SKEW_MS {
            now
        } else {
            fact.at_ms
        };
        match fact.fact {
            Some(Said::BreakerChanged(change)) => self.breaker_changed(&change, at_ms),
            Some(Said::EndpointChanged(change)) => self.endpoint_changed(&change, at_ms),
            Some(Said::Draining(pb::Draining {})) => self.draining(true, at_ms),
            Some(Said::Ready(pb::Ready {})) => self.draining(false, at_ms),
            Some(Said::ThrottleChanged(change)) => self.throttle_changed(&change, at_ms),
            Some(Said::SaturationChanged(change)) => self.saturation_changed(&change, at_ms),
            None => {}
        }
    }

    fn breaker_changed(&self, change: &pb::BreakerChanged, at_ms: u64) {
        let Some(transition) = of_breaker(&self.pod, change, at_ms) else {
            return;
        };
        let caller = self.pod.to_string();
        let Transition {
            service,
            route,
            reason,
            forced,
            observed,
            ..
        } = transition.clone();
        let fact = match transition.state {
            State::Closed | State::Ramping => Fact::BreakerClosed {
                caller,
                service,
                route,
                reason,
                forced,
                observed,
            },
            State::Open => Fact::BreakerOpened {
                caller,
                service,
                route,
                reason,
                forced,
                observed,
            },
            State::HalfOpen => Fact::BreakerHalfOpened {
                caller,
                service,
                route,
                reason,
                forced,
                observed,
            },
        };
        self.breakers.changed(transition);
        self.journal.note_at(fact, at_ms);
    }

    fn endpoint_changed(&self, change: &pb::EndpointChanged, at_ms: u64) {
        let Some(transition) = of_endpoint(&self.pod, change, at_ms) else {
            return;
        };
        let caller = self.pod.to_string();
        let Transition {
            service,
            endpoint,
            reason,
            ..
        } = transition.clone();
        if change.held_back {
            let fact = Fact::EndpointSpared {
                caller,
                service,
                endpoint,
                reason,
            };
            return self.journal.note_at(fact, at_ms);
        }
        let fact = match transition.state {
            State::Open => Fact::EndpointEjected {
                caller,
                service,
                endpoint,
                reason,
            },
            State::HalfOpen => Fact::EndpointProbed {
                caller,
                service,
                endpoint,
                reason,
            },
            State::Ramping => Fact::EndpointReadmitted {
                caller,
                service,
                endpoint,
                reason,
            },
            State::Closed => Fact::EndpointRestored {
                caller,
                service,
                endpoint,
                reason,
            },
        };
        self.breakers.changed(transition);
        self.journal.note_at(fact, at_ms);
    }

    /// What is not closed in the sidecar, all of it. Once a stream: whoever says it again is not heard.
    pub(super) fn stands(&mut self, said: pb::Standing) {
        let Some(standing) = &mut self.standing else {
            return;
        };
        let now = now_ms();
        let transitions = said.facts.iter().filter_map(|fact| match &fact.fact {
            Some(said) if !is_sound(said) => None,
            Some(Said::BreakerChanged(change)) => of_breaker(&self.pod, change, now),
            Some(Said::EndpointChanged(change)) => of_endpoint(&self.pod, change, now),
            _ => None,
        });
        let room = STANDING_MAX.saturating_sub(standing.len());
        standing.extend(transitions.take(room));
        if !said.more
            && let Some(standing) = self.standing.take()
        {
            self.breakers.stand(&self.pod, standing, now);
        }
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

fn of_breaker(pod: &ObjectName, change: &pb::BreakerChanged, at_ms: u64) -> Option<Transition> {
    Some(Transition {
        caller: pod.clone(),
        service: clean(&change.service),
        route: clean(&change.route),
        endpoint: String::new(),
        state: match change.to() {
            pb::BreakerState::Unspecified => return None,
            pb::BreakerState::Closed => State::Closed,
            pb::BreakerState::Open => State::Open,
            pb::BreakerState::HalfOpen => State::HalfOpen,
        },
        forced: change.forced,
        observed: change.observed,
        reason: clean(&change.reason),
        at_ms,
    })
}

fn of_endpoint(pod: &ObjectName, change: &pb::EndpointChanged, at_ms: u64) -> Option<Transition> {
    Some(Transition {
        caller: pod.clone(),
        service: clean(&change.service),
        route: String::new(),
        endpoint: clean(&change.endpoint),
        state: match change.to() {
            pb::GateState::Unspecified => return None,
            pb::GateState::Closed => State::Closed,
            pb::GateState::Open => State::Open,
            pb::GateState::HalfOpen => State::HalfOpen,
            pb::GateState::Ramping => State::Ramping,
        },
        forced: false,
        observed: false,
        reason: clean(&change.reason),
        at_ms,
    })
}

/// Whether it is about something that could be in the mesh.
fn is_sound(fact: &Said) -> bool {
    match fact {
        Said::BreakerChanged(change) => is_service(&change.service),
        Said::EndpointChanged(change) => {
            is_service(&change.service) && change.endpoint.parse::<SocketAddr>().is_ok()
        }
        Said::ThrottleChanged(change) => is_service(&change.service),
        // A port of the pod that no service names.
        Said::SaturationChanged(change) => change.service.is_empty() || is_service(&change.service),
        Said::Draining(_) | Said::Ready(_) => true,
    }
}

/// `namespace/name:port`. Whether it is there is not asked: what has just gone is told of, too.
fn is_service(text: &str) -> bool {
    let parts = text.split_once('/').zip(text.rsplit_once(':'));
    parts.is_some_and(|((namespace, rest), (_, port))| {
        let name = rest.strip_suffix(port).and_then(|it| it.strip_suffix(':'));
        is_name(namespace) && name.is_some_and(is_name) && port.parse::<u16>().is_ok()
    })
}

/// Bounded, and free of what a terminal would act upon.
pub(super) fn clean(text: &str) -> String {
    text.chars()
        .filter(|c| !c.is_control())
        .take(TEXT_CHARS_MAX)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_has_a_namespace_a_name_and_a_port() {
        assert!(is_service("boutique/catalog:3550"));
        let long = format!("{}/catalog:1", "a".repeat(300));
        for other in [
            "catalog:3550",
            "boutique/catalog",
            "boutique/catalog:0x1",
            "boutique/catalog:70000",
            "boutique/cat alog:1",
            "/catalog:1",
            "a/b/c:1",
            "a/b:c:1",
            "",
            &long,
        ] {
            assert!(!is_service(other), "{other}");
        }
    }
}
