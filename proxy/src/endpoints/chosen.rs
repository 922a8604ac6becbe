//! A call to an endpoint: what its member learns from how it goes.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use http::HeaderMap;
use tokio::time::Instant;

use super::Endpoints;
use crate::body::{self, Duty};
use crate::error::{Error, PROXY_ERROR};
use crate::head;
use crate::layer::Answer;
use crate::learnt::{Ended, Started};
use crate::member::Member;
use crate::policy::gate::Pool;
use crate::policy::load;
use crate::policy::outcome::{Fault, Outcome};
use crate::policy::pushback::Pushback;
use crate::race::Race;

const HARD: Outcome = Outcome::Failure(Fault::Hard);

/// A call to an endpoint. Its outcome is what gate and latency learn from.
pub struct Chosen {
    pub member: Arc<Member>,
    pub(super) endpoints: Arc<Endpoints>,
    pub(super) call: Started,
    /// Another try of the same request runs beside this one, or may.
    pub race: Option<Arc<Race>>,
    /// It has become an opaque connection, and is no call any more.
    pub(super) is_connection: bool,
    pub(super) connect_failed: bool,
    /// For how long the endpoint, which failed, asked to be left alone.
    pub(super) retry_after: Option<Duration>,
    /// We have asked too often: the endpoint is well.
    pub(super) over_quota: bool,
}

/// How busy the other sidecar says that its app is. `None`: it answered in the app's place and says nothing of that. One that
/// sends calls away has no room, which is as busy as there is.
fn load_said(headers: &HeaderMap) -> Option<f64> {
    let said = headers.get(&head::LOAD);
    if said.is_some() || !headers.contains_key(&PROXY_ERROR) {
        return Some(load::read(said));
    }
    headers.contains_key(&head::OVERLOAD).then_some(1.0)
}

impl Chosen {
    /// For [`Member::until_ejected`].
    pub fn was_eligible(&self) -> bool {
        self.call.eligible
    }

    /// An opaque connection is there. How long it took says nothing about what a request takes.
    pub fn connected(&mut self) {
        let mut learnt = self.member.learnt();
        learnt.connected(&mut self.call, Instant::now(), fastrand::u64(..));
        self.endpoints.publish(&self.member, &mut learnt);
        drop(learnt);
        self.member.connections.fetch_add(1, Ordering::Relaxed);
        self.is_connection = true;
        self.leave();
    }

    fn leave(&self) {
        self.member.in_flight.fetch_sub(1, Ordering::Relaxed);
        self.endpoints.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A place among the opaque connections of a service, given back on drop.
pub struct Place(Arc<Endpoints>);

impl Place {
    /// And how many there were before it.
    pub(super) fn take(endpoints: &Arc<Endpoints>) -> (Self, usize) {
        let before = endpoints.connections.fetch_add(1, Ordering::Relaxed);
        endpoints.metrics.opaque_connections.inc();
        (Self(endpoints.clone()), before)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
        self.0.metrics.opaque_connections.dec();
    }
}

impl Duty for Chosen {
    fn answered(&mut self, result: &Answer) {
        // That this sidecar has no certificate is nobody else's failure.
        self.connect_failed =
            matches!(result, Err(error @ Error::Connect(_)) if error.outcome() == HARD);
        let Ok(response) = result else {
            return self.member.learnt().stop_waiting(&mut self.call);
        };
        let now = Instant::now();
        let headers = response.headers();
        let outcome = body::outcome(response);
        self.over_quota = body::is_over_quota(response);
        let took = {
            let mut learnt = self.member.learnt();
            if self.member.endpoint.identity.is_some()
                && let Some(said) = load_said(headers)
            {
                learnt.load.observe(said, now);
            }
            learnt.answered(&mut self.call, outcome, now)
        };
        if let Some(took) = took {
            let mut latency = self
                .endpoints
                .latency
                .lock()
                .expect("no panic while locked");
            latency.record(took, now);
        } else {
            self.retry_after =
                body::pushback(response, SystemTime::now()).and_then(Pushback::delay);
        }
    }

    fn done(self, outcome: Outcome, now: Instant) {
        if self.is_connection {
            self.member.connections.fetch_sub(1, Ordering::Relaxed);
        } else {
            self.leave();
        }
        let Self {
            member,
            endpoints,
            call,
            race,
            is_connection: _,
            connect_failed,
            retry_after,
            over_quota,
        } = self;
        endpoints.metrics.attempt(outcome);
        // Only a failure can open a gate.
        let opening = (outcome == HARD).then(|| endpoints.opening());
        let pool = opening.as_ref().map_or_else(Pool::default, |opening| {
            let list = endpoints.list.load();
            Pool {
                success_rate: Endpoints::success_rate(&list, now),
                may_open: endpoints.may_open(&list, opening),
            }
        });
        let end = Ended {
            outcome,
            connect_failed,
            retry_after,
            over_quota,
            lost: race.is_some_and(|race| race.is_over()),
        };
        let mut learnt = member.learnt();
        let rand = fastrand::u64(..);
        learnt.ended(call, end, || endpoints.p99(), pool, now, rand);
        endpoints.publish(&member, &mut learnt);
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    /// Who sent most of its calls away looked idle: an answer without the word was taken for one of no load.
    #[test]
    fn who_sends_calls_away_is_as_busy_as_there_is() {
        let said = |headers: &[(&HeaderName, &'static str)]| {
            let headers = headers.iter();
            let headers =
                headers.map(|(name, value)| ((*name).clone(), HeaderValue::from_static(value)));
            load_said(&headers.collect())
        };
        let error = (&PROXY_ERROR, "queue-full");
        assert_eq!(said(&[(&head::LOAD, "50")]), Some(0.5));
        assert_eq!(said(&[]), Some(0.0), "an app with nothing to do");
        assert_eq!(said(&[error, (&head::OVERLOAD, "local")]), Some(1.0));
        assert_eq!(said(&[error]), None, "its sidecar had another reason");
    }
}
