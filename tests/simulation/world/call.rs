//! A call, its tries, and what may become of one.

use tokio::time::Instant;
use weir_proxy::learnt::Started;
use weir_proxy::policy::deadline::Deadline;
use weir_proxy::policy::outcome::{Fault, Outcome};
use weir_proxy::policy::retry::Verdict;

use crate::server::Job;

pub(super) struct Call {
    pub(super) sidecar: usize,
    /// The request that a server makes this call for; `None`: a user's.
    pub(super) parent: Option<Job>,
    pub(super) arrived: Instant,
    pub(super) deadline: Deadline,
    pub(super) attempt: u32,
    pub(super) transparent: u32,
    pub(super) is_retry: bool,
    pub(super) tried: Vec<usize>,
    /// Numbers the tries, transparent ones included.
    pub(super) tries: u64,
    pub(super) trying: Option<Try>,
    pub(super) ended: bool,
}

pub(super) struct Try {
    pub(super) member: usize,
    pub(super) server: usize,
    pub(super) started: Started,
    pub(super) until: Deadline,
    /// It has had its share of the time, and no other try was paid for.
    pub(super) has_more: bool,
    /// Another one may follow, so nobody need wait for an endpoint that is ejected.
    pub(super) replayable: bool,
}

/// Tries of one call are told apart by so many low bits of a job.
pub(super) const TRY_BITS: u32 = 4;

/// What became of a try.
#[derive(Clone, Copy)]
pub(super) struct Failed {
    pub(super) outcome: Outcome,
    pub(super) verdict: Verdict,
    pub(super) connect_failed: bool,
    /// There was an answer.
    pub(super) answered: bool,
}

impl Failed {
    const fn unanswered(fault: Fault, verdict: Verdict) -> Self {
        Self {
            outcome: Outcome::Failure(fault),
            verdict,
            connect_failed: false,
            answered: false,
        }
    }

    pub(super) const BAD_ANSWER: Self = Self {
        answered: true,
        ..Self::unanswered(Fault::Hard, Verdict::Unavailable)
    };
    pub(super) const SHED: Self = Self {
        answered: true,
        ..Self::unanswered(Fault::Overload, Verdict::Overloaded { service: false })
    };
    pub(super) const REFUSED: Self = Self {
        connect_failed: true,
        ..Self::unanswered(Fault::Hard, Verdict::Unprocessed)
    };
    /// Of the try, or of the endpoint while the try waited for it.
    pub(super) const GIVEN_UP: Self = Self::unanswered(Fault::Hard, Verdict::Unavailable);
    pub(super) const DEADLINE: Self = Self::unanswered(Fault::Deadline, Verdict::Final);
}
