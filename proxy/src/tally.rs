//! How many endpoints of a pool take no calls, and how many want one as a probe: read by every call without a lock.
//!
//! ```text
//!   a gate changes ──▶ Mirror ──▶ count all mirrors ──▶ Tally ──▶ the choice of an endpoint
//!   (its endpoint is locked)            ▲
//!                            tick ──────┘
//! ```
//!
//! Two gates that change at once may count past each other, and the one that counted first may write last. So a tick
//! counts again; and a pool that is settled, which a tick passes over while nobody is called, must have been counted
//! right. `tests/loom` goes through the orders in which all this can happen.

use crate::sync::{AtomicBool, AtomicUsize, Ordering};

/// What the gate of one endpoint says, so that others can count without locking that.
pub struct Mirror {
    eligible: AtomicBool,
    half_open: AtomicBool,
}

/// What has become of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    pub eligible: bool,
    /// It may want a request as a probe.
    pub half_open: bool,
}

pub struct Tally {
    out: AtomicUsize,
    half_open: AtomicUsize,
    /// Every gate was closed when they were last counted, and none has changed since.
    settled: AtomicBool,
}

impl Default for Mirror {
    fn default() -> Self {
        Self {
            eligible: AtomicBool::new(true),
            half_open: AtomicBool::new(false),
        }
    }
}

impl Mirror {
    pub fn is_eligible(&self) -> bool {
        self.eligible.load(Ordering::Relaxed)
    }

    pub fn is_half_open(&self) -> bool {
        self.half_open.load(Ordering::Relaxed)
    }
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            out: AtomicUsize::new(0),
            half_open: AtomicUsize::new(0),
            settled: AtomicBool::new(true),
        }
    }
}

impl Tally {
    /// How many are not eligible.
    pub fn out(&self) -> usize {
        self.out.load(Ordering::Relaxed)
    }

    /// How many may want a request as a probe.
    pub fn half_open(&self) -> usize {
        self.half_open.load(Ordering::Relaxed)
    }

    /// Whether a tick would find nothing to do, if nobody is called.
    pub fn is_settled(&self) -> bool {
        self.settled.load(Ordering::Relaxed)
    }

    /// The endpoint of `mirror`, which is locked, stands so now. How it stood before, if that is something else: then
    /// they are to be [counted](Self::count) before it is unlocked.
    pub fn changed(&self, mirror: &Mirror, now: Standing) -> Option<Standing> {
        let before = Standing {
            eligible: mirror.is_eligible(),
            half_open: mirror.is_half_open(),
        };
        if before == now {
            return None;
        }
        // First: a tick that does not see the rest of this must not be the last one.
        self.unsettle();
        mirror.eligible.store(now.eligible, Ordering::Relaxed);
        mirror.half_open.store(now.half_open, Ordering::Relaxed);
        Some(before)
    }

    /// Others are in the pool now.
    pub fn rearranged<'a>(&self, all: impl Iterator<Item = &'a Mirror>) {
        self.count(all);
        // Last: a tick that still counts those from before must not be the last one.
        self.unsettle();
    }

    /// A tick begins. Whatever changes from here on unsettles again.
    pub fn begin_tick(&self) {
        self.settled.swap(true, Ordering::AcqRel);
    }

    /// It has locked each endpoint once since, so whoever was about to count has done so. `closed`: all gates are.
    pub fn end_tick<'a>(&self, closed: bool, all: impl Iterator<Item = &'a Mirror>) {
        if !closed {
            self.unsettle();
        }
        self.count(all);
    }

    /// All of the pool.
    pub fn count<'a>(&self, all: impl Iterator<Item = &'a Mirror>) {
        let (out, half_open) = all.fold((0, 0), |(out, half_open), mirror| {
            let is_out = usize::from(!mirror.is_eligible());
            let is_half_open = usize::from(mirror.is_half_open());
            (out + is_out, half_open + is_half_open)
        });
        self.out.store(out, Ordering::Relaxed);
        self.half_open.store(half_open, Ordering::Relaxed);
    }

    /// Exchanged rather than stored, here and at the beginning of a tick: who settles sees all that was done by those who
    /// unsettled before.
    fn unsettle(&self) {
        self.settled.swap(false, Ordering::AcqRel);
    }
}
