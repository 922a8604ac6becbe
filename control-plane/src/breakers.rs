//! Which breakers and gates are open, by whom: a projection of the facts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value;
use weir_config::pb;
use weir_config::resource::ObjectName;

use crate::journal::{Event, Journal, StoreError};

/// Of one caller. Beyond it what is closed is forgotten first, then what is oldest.
const ROWS_OF_ONE_MAX: usize = 1000;
/// Of all callers together. Beyond it whoever has most has less.
const ROWS_MAX: usize = 50_000;
const REPLAY_BATCH: usize = 4096;
const CLOSED_UNHEARD: &str = "its sidecar connected anew, and it was closed";

#[derive(Clone, Default)]
pub struct Breakers(Arc<Mutex<Rows>>);

#[derive(Default)]
struct Rows {
    by_caller: BTreeMap<ObjectName, BTreeMap<Key, Row>>,
    count: usize,
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
    /// It refuses nobody.
    pub observed: bool,
    pub reason: String,
    pub at_ms: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    service: String,
    route: String,
    endpoint: String,
}

struct Row {
    state: State,
    forced: bool,
    observed: bool,
    reason: String,
    since_ms: u64,
}

impl Breakers {
    pub fn changed(&self, transition: Transition) {
        let mut state = self.lock();
        state.revision += 1;
        let key = transition.key();
        state.make_room(&transition.caller, &key);
        let row = Row {
            state: transition.state,
            forced: transition.forced,
            observed: transition.observed,
            reason: transition.reason,
            since_ms: transition.at_ms,
        };
        let rows = state.by_caller.entry(transition.caller).or_default();
        if rows.insert(key, row).is_none() {
            state.count += 1;
        }
    }

    /// All that is not closed in a sidecar whose stream has just begun. Whatever else is thought to be open of it closed
    /// unheard: the sidecar is another process, or what it said was lost. What is known already is known better.
    pub fn stand(&self, caller: &ObjectName, standing: Vec<Transition>, at_ms: u64) {
        let mut news = Vec::new();
        {
            let mut state = self.lock();
            state.revision += 1;
            let mut rows = state.by_caller.get_mut(caller);
            let mut stands = BTreeSet::new();
            for transition in standing {
                let key = transition.key();
                let known = rows.as_deref().and_then(|rows| rows.get(&key));
                let is_known = known.is_some_and(|row| {
                    let told = &transition;
                    (row.state, row.forced, row.observed)
                        == (told.state, told.forced, told.observed)
                });
                stands.insert(key);
                if !is_known {
                    news.push(transition);
                }
            }
            let gone = rows.iter_mut().flat_map(|rows| rows.iter_mut());
            for (_, row) in gone.filter(|(key, row)| row.is_of_note() && !stands.contains(*key)) {
                *row = Row {
                    state: State::Closed,
                    forced: false,
                    observed: false,
                    reason: CLOSED_UNHEARD.to_owned(),
                    since_ms: at_ms,
                };
            }
        }
        news.into_iter()
            .for_each(|transition| self.changed(transition));
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
        state.by_caller.retain(|caller, _| !is_gone(caller));
        let left = state.by_caller.values().map(BTreeMap::len).sum();
        if state.count != left {
            state.count = left;
            state.revision += 1;
        }
    }

    pub fn revision(&self) -> u64 {
        self.lock().revision
    }

    /// As far as somebody is refused by it.
    pub fn not_closed(&self) -> NotClosed {
        let mut not_closed = NotClosed::new();
        for (caller, key, row) in self.lock().all().filter(|(_, _, row)| !row.observed) {
            let open = match row.state {
                State::Open => true,
                State::HalfOpen => false,
                State::Closed | State::Ramping => continue,
            };
            let holder = Holder {
                caller: caller.clone(),
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
        let row = |(caller, key, row): (&ObjectName, &Key, &Row)| pb::BreakerStatus {
            caller: caller.to_string(),
            service: match key.route.as_str() {
                "" => key.service.clone(),
                route => format!("{} {route}", key.service),
            },
            endpoint: key.endpoint.clone(),
            state: format!("{:?}", row.state),
            reason: row.reason.clone(),
            since_ms: row.since_ms,
            forced: row.forced,
            observed: row.observed,
        };
        self.lock().all().map(row).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Rows> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Rows {
    fn all(&self) -> impl Iterator<Item = (&ObjectName, &Key, &Row)> {
        let callers = self.by_caller.iter();
        callers.flat_map(|(caller, rows)| rows.iter().map(move |(key, row)| (caller, key, row)))
    }

    /// For one row more of `caller`, unless it has this one.
    fn make_room(&mut self, caller: &ObjectName, key: &Key) {
        let own = self.by_caller.get_mut(caller);
        if own.as_ref().is_some_and(|rows| rows.contains_key(key)) {
            return;
        }
        if let Some(rows) = own.filter(|rows| rows.len() >= ROWS_OF_ONE_MAX) {
            tracing::debug!(%caller, "more breakers and gates than are kept of one caller");
            self.count -= shorten(rows);
        }
        if self.count >= ROWS_MAX {
            let most = self.by_caller.values_mut().max_by_key(|rows| rows.len());
            self.count -= most.map_or(0, shorten);
        }
    }
}

/// By what is closed, or by the oldest: how many rows.
fn shorten(rows: &mut BTreeMap<Key, Row>) -> usize {
    let before = rows.len();
    rows.retain(|_, row| row.is_of_note());
    if rows.len() == before {
        let oldest = rows.iter().min_by_key(|(_, row)| row.since_ms);
        let oldest = oldest.map(|(key, _)| key.clone());
        oldest.and_then(|key| rows.remove(&key));
    }
    before - rows.len()
}

impl Transition {
    fn key(&self) -> Key {
        Key {
            service: self.service.clone(),
            route: self.route.clone(),
            endpoint: self.endpoint.clone(),
        }
    }
}

impl Row {
    /// Else it is as if it were not there.
    fn is_of_note(&self) -> bool {
        self.state != State::Closed || self.forced
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
    let is = |field: &str| event.details.get(field) == Some(&Value::Bool(true));
    let (namespace, name) = text("caller").split_once('/')?;
    Some(Transition {
        caller: ObjectName::new(namespace, name),
        service: text("service").to_owned(),
        route: text("route").to_owned(),
        endpoint: text("endpoint").to_owned(),
        state,
        forced: is("forced"),
        observed: is("observed"),
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
            observed: false,
            reason: "why".into(),
            at_ms: 1,
        }
    }

    #[test]
    fn one_that_only_observes_holds_nothing_open_and_is_told_as_such() {
        let breakers = Breakers::default();
        breakers.changed(Transition {
            observed: true,
            ..transition("frontend-0", "", State::Open)
        });
        breakers.changed(transition("frontend-1", "", State::Open));
        let observed: Vec<_> = breakers.rows().iter().map(|row| row.observed).collect();
        assert_eq!(observed, [true, false]);
        let not_closed = breakers.not_closed();
        let holders: Vec<_> = (not_closed.values().flatten())
            .map(|holder| holder.caller.to_string())
            .collect();
        assert_eq!(holders, ["boutique/frontend-1"]);
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

    /// A sidecar that was started anew while its breaker was open held it open for as long as its pod lived.
    #[test]
    fn what_a_sidecar_does_not_say_is_open_when_it_connects_is_closed() {
        let breakers = Breakers::default();
        let caller = ObjectName::new("boutique", "frontend-0");
        for endpoint in ["", "10.0.0.1:3550", "10.0.0.2:3550"] {
            breakers.changed(transition("frontend-0", endpoint, State::Open));
        }
        breakers.changed(transition("checkout-0", "", State::Open));
        let mut stands = vec![
            transition("frontend-0", "10.0.0.1:3550", State::Open),
            transition("frontend-0", "10.0.0.2:3550", State::HalfOpen),
        ];
        stands
            .iter_mut()
            .for_each(|it| it.reason = "it stood so".into());
        breakers.stand(&caller, stands, 9);
        let rows = rows_of(&breakers, "frontend-0").into_iter();
        let rows: Vec<_> = rows
            .map(|row| (row.state, row.reason, row.since_ms))
            .collect();
        let row = |state: &str, reason: &str, at| (state.to_owned(), reason.to_owned(), at);
        let expected = [
            row("Closed", CLOSED_UNHEARD, 9),
            row("Open", "why", 1),
            row("HalfOpen", "it stood so", 1),
        ];
        assert_eq!(rows, expected);
        assert_eq!(rows_of(&breakers, "checkout-0")[0].state, "Open");
        breakers.stand(&caller, Vec::new(), 10);
        assert_eq!(breakers.not_closed()["boutique/catalog:3550"].len(), 1);
    }

    fn rows_of(breakers: &Breakers, caller: &str) -> Vec<pb::BreakerStatus> {
        let mut rows = breakers.rows();
        rows.retain(|row| row.caller == format!("boutique/{caller}"));
        rows
    }

    /// It filled what there was for all, and from then on nobody saw anything new of anybody's breakers.
    #[test]
    fn a_sidecar_that_invents_endpoints_has_its_own_share_and_the_others_theirs() {
        let breakers = Breakers::default();
        for n in 0..ROWS_MAX + 100 {
            let mut invented = transition("liar-0", &n.to_string(), State::Open);
            invented.at_ms = n as u64;
            breakers.changed(invented);
        }
        let of_liar = rows_of(&breakers, "liar-0");
        assert_eq!(of_liar.len(), ROWS_OF_ONE_MAX);
        let oldest = of_liar.iter().map(|row| row.since_ms).min();
        assert_eq!(
            oldest,
            Some((ROWS_MAX + 100 - ROWS_OF_ONE_MAX) as u64),
            "the newest are kept"
        );
        breakers.changed(transition("frontend-0", "", State::Open));
        assert_eq!(rows_of(&breakers, "frontend-0").len(), 1);
    }

    #[test]
    fn many_that_take_their_share_are_shortened_for_one_that_has_less() {
        let breakers = Breakers::default();
        for n in 0..ROWS_MAX + ROWS_OF_ONE_MAX {
            let caller = format!("liar-{}", n % (ROWS_MAX / ROWS_OF_ONE_MAX + 1));
            breakers.changed(transition(&caller, &n.to_string(), State::Open));
        }
        assert_eq!(breakers.rows().len(), ROWS_MAX);
        breakers.changed(transition("frontend-0", "", State::Open));
        assert_eq!(rows_of(&breakers, "frontend-0").len(), 1);
        assert_eq!(breakers.rows().len(), ROWS_MAX);
        breakers.forget(|caller| caller.name != "frontend-0");
        breakers.changed(transition("frontend-0", "10.0.0.1:1", State::Closed));
        assert_eq!((breakers.rows().len(), breakers.lock().count), (2, 2));
    }

    #[test]
    fn what_is_closed_goes_before_what_is_open_and_what_is_known_is_no_row_more() {
        let breakers = Breakers::default();
        breakers.changed(transition("frontend-0", "open", State::Open));
        for n in 1..ROWS_OF_ONE_MAX {
            breakers.changed(transition("frontend-0", &n.to_string(), State::Closed));
        }
        breakers.changed(transition("frontend-0", "open", State::HalfOpen));
        assert_eq!(breakers.rows().len(), ROWS_OF_ONE_MAX, "no row more");
        breakers.changed(transition("frontend-0", "another", State::Open));
        let left: Vec<_> = breakers
            .rows()
            .into_iter()
            .map(|row| row.endpoint)
            .collect();
        assert_eq!(left, ["another", "open"]);
    }
}
