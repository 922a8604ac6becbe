//! Which breakers and gates are open, by whom: a projection of the facts.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value;
use weir_config::pb;
use weir_config::resource::ObjectName;

use crate::journal::{Event, Journal, StoreError};

/// Of all callers together. Beyond it what is closed is forgotten first.
const ROWS_MAX: usize = 50_000;
const REPLAY_BATCH: usize = 4096;

#[derive(Clone, Default)]
pub struct Breakers(Arc<Mutex<Rows>>);

#[derive(Default)]
struct Rows {
    by_key: BTreeMap<Key, Row>,
    /// Grows with every change.
    revision: u64,
}

/// Who holds what open or half-open, by service.
pub type NotClosed = BTreeMap<String, Vec<Holder>>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    pub caller: ObjectName,
    pub what: What,
    /// Else half-open.
    pub open: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    Service,
    Route(String),
    /// Its address.
    Endpoint(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Closed,
    Open,
    HalfOpen,
    Ramping,
}

#[derive(Clone, Debug)]
pub struct Transition {
    pub caller: ObjectName,
    pub service: String,
    /// Of a breaker; empty: of the whole service.
    pub route: String,
    /// Of a gate; empty: a breaker.
    pub endpoint: String,
    pub state: State,
    /// By a policy or an operator.
    pub forced: bool,
    pub reason: String,
    pub at_ms: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    caller: ObjectName,
    service: String,
    route: String,
    endpoint: String,
}

struct Row {
    state: State,
    forced: bool,
    reason: String,
    since_ms: u64,
}

impl Breakers {
    pub fn changed(&self, transition: Transition) {
        let mut state = self.lock();
        state.revision += 1;
        let rows = &mut state.by_key;
        let key = Key {
            caller: transition.caller,
            service: transition.service,
            route: transition.route,
            endpoint: transition.endpoint,
        };
        if rows.len() >= ROWS_MAX && !rows.contains_key(&key) {
            rows.retain(|_, row| row.state != State::Closed || row.forced);
            if rows.len() >= ROWS_MAX {
                return;
            }
        }
        let row = Row {
            state: transition.state,
            forced: transition.forced,
            reason: transition.reason,
            since_ms: transition.at_ms,
        };
        rows.insert(key, row);
    }

    /// What the journal knows of the time before a restart.
    pub fn replay(&self, journal: &Journal) -> Result<(), StoreError> {
        let mut from = 0;
        loop {
            let events = journal.read(from, REPLAY_BATCH)?;
            let Some(last) = events.last() else {
                return Ok(());
            };
            from = last.seq + 1;
            events
                .iter()
                .filter_map(transition_of)
                .for_each(|transition| self.changed(transition));
        }
    }

    /// What a caller that is gone knew is of no interest.
    pub fn forget(&self, is_gone: impl Fn(&ObjectName) -> bool) {
        let mut state = self.lock();
        let before = state.by_key.len();
        state.by_key.retain(|key, _| !is_gone(&key.caller));
        if state.by_key.len() != before {
            state.revision += 1;
        }
    }

    pub fn revision(&self) -> u64 {
        self.lock().revision
    }

    pub fn not_closed(&self) -> NotClosed {
        let mut not_closed = NotClosed::new();
        for (key, row) in &self.lock().by_key {
            let open = match row.state {
                State::Open => true,
                State::HalfOpen => false,
                State::Closed | State::Ramping => continue,
            };
            let holder = Holder {
                caller: key.caller.clone(),
                what: key.what(),
                open,
            };
            let of_service = not_closed.entry(key.service.clone()).or_default();
            of_service.push(holder);
        }
        not_closed
    }

    /// By caller, service and endpoint.
    pub fn rows(&self) -> Vec<pb::BreakerStatus> {
        let row = |(key, row): (&Key, &Row)| pb::BreakerStatus {
            caller: key.caller.to_string(),
            service: match key.route.as_str() {
                "" => key.service.clone(),
                route => format!("{} {route}", key.service),
            },
            endpoint: key.endpoint.clone(),
            state: format!("{:?}", row.state),
            reason: row.reason.clone(),
            since_ms: row.since_ms,
            forced: row.forced,
        };
        self.lock().by_key.iter().map(row).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Rows> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Key {
    fn what(&self) -> What {
        match (self.route.as_str(), self.endpoint.as_str()) {
            ("", "") => What::Service,
            (route, "") => What::Route(route.to_owned()),
            (_, endpoint) => What::Endpoint(endpoint.to_owned()),
        }
    }
}

/// `None`: a fact about something else.
fn transition_of(event: &Event) -> Option<Transition> {
    let state = match event.kind.as_str() {
        "BreakerOpened" | "EndpointEjected" => State::Open,
        "BreakerHalfOpened" | "EndpointProbed" => State::HalfOpen,
        "BreakerClosed" | "EndpointRestored" => State::Closed,
        "EndpointReadmitted" => State::Ramping,
        _ => return None,
    };
    let text = |field: &str| {
        event
            .details
            .get(field)
            .and_then(Value::as_str)
            .unwrap_or_default()
    };
    let (namespace, name) = text("caller").split_once('/')?;
    Some(Transition {
        caller: ObjectName::new(namespace, name),
        service: text("service").to_owned(),
        route: text("route").to_owned(),
        endpoint: text("endpoint").to_owned(),
        state,
        forced: event.details.get("forced").and_then(Value::as_bool) == Some(true),
        reason: text("reason").to_owned(),
        at_ms: event.at_ms,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transition(caller: &str, endpoint: &str, state: State) -> Transition {
        Transition {
            caller: ObjectName::new("boutique", caller),
            service: "boutique/catalog:3550".into(),
            route: String::new(),
            endpoint: endpoint.into(),
            state,
            forced: false,
            reason: "why".into(),
            at_ms: 1,
        }
    }

    #[test]
    fn the_last_transition_is_the_state() {
        let breakers = Breakers::default();
        breakers.changed(transition("frontend-0", "", State::Open));
        breakers.changed(transition("frontend-0", "10.0.0.1:3550", State::Open));
        breakers.changed(transition("frontend-0", "", State::HalfOpen));
        let states: Vec<_> = breakers
            .rows()
            .into_iter()
            .map(|row| (row.endpoint, row.state))
            .collect();
        assert_eq!(
            states,
            [
                (String::new(), "HalfOpen".to_owned()),
                ("10.0.0.1:3550".to_owned(), "Open".to_owned())
            ]
        );
        breakers.forget(|caller| caller.name == "frontend-0");
        assert!(breakers.rows().is_empty());
    }

    #[test]
    fn a_sidecar_that_invents_endpoints_costs_bounded_memory() {
        let breakers = Breakers::default();
        for n in 0..ROWS_MAX + 100 {
            breakers.changed(transition("liar-0", &n.to_string(), State::Open));
        }
        assert_eq!(breakers.rows().len(), ROWS_MAX);
    }
}
