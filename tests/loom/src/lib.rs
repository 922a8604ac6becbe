//! What several threads of a sidecar share without a lock, in every order in which they can take turns (loom).
//!
//! A file that is checked here is compiled twice: in the proxy with the standard library's atomics, here with loom's, by
//! way of `crate::sync`. So it is the proxy's own code, without a `cfg` and without a second build of what is below it.
//!
//! ```sh
//! cargo test --locked -p weir-loom
//! ```
//!
//! What is not here needs no such proof:
//!
//! - Limits, admission, breakers, gates, budgets, buckets, hedges, throttles, inheritance and what was learnt of an
//!   endpoint lie each under one mutex. The atomics beside them (`throttle.quiet`, `doomed.typical`, `noted` of the
//!   recorder, the two of admission) are copies, written while it is held and read to save a lock: who reads an old one
//!   is as one who came a moment earlier.
//! - Those who wait at a limit are handed their place through a `oneshot` of tokio, which is checked with loom there. That
//!   nothing is lost between the verdict and the word of it is a test of `layer/admission`, without any threads.
//! - Counters of what is in flight are added to once and taken from once, by a guard.
//! - Who waits for a first endpoint, or for one that is ejected, does so by tokio's `Notify`.

#![cfg(test)]
#![allow(unreachable_pub)] // the proxy's files are modules of a library

mod sync {
    pub(crate) use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
}

#[path = "../../../proxy/src/tally.rs"]
mod tally;

use loom::model::Builder;
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::sync::{Arc, Mutex};
use loom::thread;
use tally::{Mirror, Standing, Tally};

/// So often a thread is interrupted where it need not wait. Bugs that need more are rare (Musuvathi and Qadeer, PLDI '07),
/// and without a bound three threads take hours.
const INTERRUPTIONS_MAX: usize = 2;

const CLOSED: Standing = Standing {
    eligible: true,
    half_open: false,
};
const OPEN: Standing = Standing {
    eligible: false,
    half_open: false,
};
const HALF_OPEN: Standing = Standing {
    eligible: false,
    half_open: true,
};

/// What of `endpoints.rs` has to do with counting.
struct Pool {
    members: [Member; 2],
    /// So many of them are in the pool.
    size: AtomicUsize,
    tally: Tally,
}

struct Member {
    gate: Mutex<Standing>,
    mirror: Mirror,
}

impl Pool {
    fn new(gates: [Standing; 2]) -> Arc<Self> {
        let members = gates.map(|_| Member {
            gate: Mutex::new(CLOSED),
            mirror: Mirror::default(),
        });
        let pool = Self {
            members,
            size: AtomicUsize::new(2),
            tally: Tally::default(),
        };
        for (index, gate) in gates.into_iter().enumerate() {
            pool.publish(index, gate);
        }
        Arc::new(pool)
    }

    fn mirrors(&self) -> impl Iterator<Item = &Mirror> {
        let size = self.size.load(Ordering::Acquire);
        self.members[..size].iter().map(|member| &member.mirror)
    }

    fn publish(&self, index: usize, now: Standing) {
        let member = &self.members[index];
        let mut gate = member.gate.lock().expect("no panic while locked");
        *gate = now;
        if self.tally.changed(&member.mirror, now).is_some() {
            self.tally.count(self.mirrors());
        }
    }

    fn arrange(&self, size: usize) {
        self.size.store(size, Ordering::Release);
        self.tally.rearranged(self.mirrors());
    }

    /// While nobody is called.
    fn tick(&self) {
        if self.tally.is_settled() {
            return;
        }
        self.tally.begin_tick();
        let mut closed = true;
        for member in &self.members[..self.size.load(Ordering::Acquire)] {
            closed &= *member.gate.lock().expect("no panic while locked") == CLOSED;
        }
        self.tally.end_tick(closed, self.mirrors());
    }
}

/// Both at once, and a tick beside them; what a call sees once all that is over and the next tick has passed.
fn counted(gates: [Standing; 2], one: fn(&Pool), other: fn(&Pool), out: usize, half_open: usize) {
    let mut model = Builder::new();
    model.preemption_bound = Some(INTERRUPTIONS_MAX);
    model.check(move || {
        let pool = Pool::new(gates);
        let threads = [one, other].map(|act| {
            let pool = pool.clone();
            thread::spawn(move || act(&pool))
        });
        pool.tick();
        for thread in threads {
            thread.join().expect("no panic");
        }
        pool.tick();
        let counted = (pool.tally.out(), pool.tally.half_open());
        assert_eq!(counted, (out, half_open));
    });
}

#[test]
fn gates_that_close_at_once_are_not_counted_as_open_for_ever() {
    counted(
        [OPEN, OPEN],
        |pool| pool.publish(0, CLOSED),
        |pool| pool.publish(1, CLOSED),
        0,
        0,
    );
}

#[test]
fn a_probe_that_is_wanted_is_not_overlooked_because_another_gate_closes() {
    counted(
        [OPEN, HALF_OPEN],
        |pool| pool.publish(0, HALF_OPEN),
        |pool| pool.publish(1, CLOSED),
        1,
        1,
    );
}

#[test]
fn an_endpoint_that_goes_while_another_gate_closes_is_not_counted_for_ever() {
    counted(
        [OPEN, OPEN],
        |pool| pool.publish(0, CLOSED),
        |pool| pool.arrange(1),
        0,
        0,
    );
}
