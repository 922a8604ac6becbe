//! A call to an endpoint: what its member learns from how it goes.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::Endpoints;
use crate::body::Duty;
use crate::error::Error;
use crate::layer::Answer;
use crate::member::Member;
use crate::policy::ewma;
use crate::policy::gate::{Pool, Ticket};
use crate::policy::outcome::{Fault, Outcome};
use crate::policy::pushback::Pushback;

/// A call to an endpoint. Its outcome is what gate and latency learn from.
pub struct Chosen {
    pub member: Arc<Member>,
    pub(super) endpoints: Arc<Endpoints>,
    pub(super) ticket: Ticket,
    pub(super) started: Instant,
    /// `None` once the head of the response is there.
    pub(super) waiting: Option<u64>,
    pub(super) connect_failed: bool,
    /// For how long the endpoint, which failed, asked to be left alone.
    pub(super) retry_after: Option<Duration>,
}

impl Chosen {
    /// An opaque connection is there. How long it took says nothing about what a request takes.
    pub fn connected(&mut self) {
        if let Some(number) = self.waiting.take() {
            self.member.learnt().waiting.end(number);
        }
    }
}

impl Duty for Chosen {
    fn answered(&mut self, result: &Answer) {
        self.connect_failed = matches!(result, Err(Error::Connect(_)));
        let now = Instant::now();
        let mut learnt = self.member.learnt();
        if let Some(number) = self.waiting.take() {
            learnt.waiting.end(number);
        }
        let Ok(response) = result else { return };
        learnt.last_completion = Some(now);
        let elapsed = now.saturating_duration_since(self.started);
        let headers = response.headers();
        // A failure that comes with the head is priced when the body has ended; it must not look fast until then.
        if crate::body::of_head(response.status(), headers) == Outcome::Success {
            learnt.latency.observe(elapsed, now);
            drop(learnt);
            let mut latency = self
                .endpoints
                .latency
                .lock()
                .expect("no panic while locked");
            latency.record(elapsed, now);
        } else {
            self.retry_after =
                Pushback::of_headers(headers, SystemTime::now()).and_then(Pushback::delay);
        }
    }

    fn done(self, outcome: Outcome) {
        let Self {
            member,
            endpoints,
            ticket,
            started,
            waiting,
            connect_failed,
            retry_after,
        } = self;
        member.in_flight.fetch_sub(1, Ordering::Relaxed);
        endpoints.in_flight.fetch_sub(1, Ordering::Relaxed);
        endpoints.metrics.attempt(outcome);
        let now = Instant::now();
        // Only a failure can open a gate.
        let opening = (outcome == Outcome::Failure(Fault::Hard)).then(|| endpoints.opening());
        let pool = opening.as_ref().map_or_else(Pool::default, |opening| {
            let list = endpoints.list.load();
            Pool {
                success_rate: Endpoints::success_rate(&list, now),
                may_open: endpoints.may_open(&list, opening),
            }
        });
        let mut learnt = member.learnt();
        if let Some(number) = waiting {
            learnt.waiting.end(number);
        }
        match outcome {
            Outcome::Failure(_) => {
                let price = ewma::penalty(endpoints.p99(), retry_after);
                learnt.latency.penalize(price, now);
            }
            // Given up on before it answered: it takes at least this long.
            Outcome::Cancelled if waiting.is_some() => {
                learnt
                    .latency
                    .observe_at_least(now.saturating_duration_since(started), now);
            }
            _ => {}
        }
        let rand = fastrand::u64(..);
        if connect_failed {
            learnt.gate.connect_failed(ticket, now, rand, pool.may_open);
        } else {
            learnt.gate.record(ticket, outcome, now, rand, pool);
        }
        if let Some(retry_after) = retry_after {
            learnt.gate.raise(retry_after, now);
        }
        endpoints.publish(&member, &mut learnt);
    }
}
