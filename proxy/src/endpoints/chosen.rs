//! A call to an endpoint: what its member learns from how it goes.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::Endpoints;
use crate::body::Duty;
use crate::error::Error;
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
        let outcome = crate::body::outcome(response);
        let took = {
            let mut learnt = self.member.learnt();
            if self.member.endpoint.identity.is_some() {
                let said = load::read(headers.get(&head::LOAD));
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
                Pushback::of_headers(headers, SystemTime::now()).and_then(Pushback::delay);
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
            lost: race.is_some_and(|race| race.is_over()),
        };
        let mut learnt = member.learnt();
        let rand = fastrand::u64(..);
        learnt.ended(call, end, || endpoints.p99(), pool, now, rand);
        endpoints.publish(&member, &mut learnt);
    }
}
