//! A server's own sidecar, as far as it decides who gets in: the proxy's concurrency limit with its queue.

use std::collections::BTreeMap;

use weir_proxy::policy::concurrency::{Abandoned, Entry, Limit};
use weir_proxy::policy::queue::WaiterId;

use crate::server::Job;

pub struct Admission {
    limit: Limit,
    waiting: BTreeMap<WaiterId, Job>,
    /// Where each request of which we know is.
    places: BTreeMap<Job, Place>,
}

#[derive(Clone, Copy, PartialEq)]
enum Place {
    InApp,
    Queued(WaiterId),
}

#[derive(Debug, PartialEq)]
pub enum Admitted {
    Now,
    /// Unless [`Admission::leave`] says otherwise before, it gives up when the queue's time is up.
    Waits,
    Refused,
}

impl Admission {
    pub fn new(in_flight: u32, queue: u32) -> Self {
        Self {
            limit: Limit::new(in_flight, queue),
            waiting: BTreeMap::new(),
            places: BTreeMap::new(),
        }
    }

    pub fn enter(&mut self, job: Job) -> Admitted {
        let (place, admitted) = match self.limit.enter() {
            Entry::Admitted => (Place::InApp, Admitted::Now),
            Entry::Queued(id) => {
                self.waiting.insert(id, job);
                (Place::Queued(id), Admitted::Waits)
            }
            Entry::Full => return Admitted::Refused,
        };
        self.places.insert(job, place);
        admitted
    }

    pub fn is_waiting(&self, job: Job) -> bool {
        matches!(self.places.get(&job), Some(Place::Queued(_)))
    }

    /// It was answered, or its caller went away, or it waited too long. Returns who is admitted in its place.
    pub fn leave(&mut self, job: Job) -> Option<Job> {
        let next = match self.places.remove(&job)? {
            Place::InApp => self.limit.leave(),
            Place::Queued(id) => {
                self.waiting.remove(&id);
                match self.limit.abandon(id) {
                    Abandoned::Waiting => None,
                    Abandoned::Granted => self.limit.leave(),
                }
            }
        }?;
        let next = self.waiting.remove(&next)?;
        self.places.insert(next, Place::InApp);
        Some(next)
    }
}

#[test]
fn a_place_that_becomes_free_goes_to_who_waits_first() {
    let mut admission = Admission::new(1, 2);
    assert_eq!(admission.enter(1), Admitted::Now);
    assert_eq!(admission.enter(2), Admitted::Waits);
    assert_eq!(admission.enter(3), Admitted::Waits);
    assert_eq!(admission.enter(4), Admitted::Refused);
    assert_eq!(admission.leave(2), None, "gave up");
    assert_eq!(admission.leave(1), Some(3));
    assert_eq!(admission.leave(1), None, "once");
    assert_eq!(admission.leave(3), None);
    assert_eq!(admission.enter(5), Admitted::Now);
}
