//! Which part of a large pool gets calls ([`aperture`](crate::policy::aperture)), and how busy that part says it is.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::time::Instant;

use super::{Endpoints, Members};
use crate::member::Member;
use crate::policy::aperture;

impl Endpoints {
    /// Those that get calls; whoever gets none says nothing of itself.
    fn called<'a>(&self, list: &'a Members) -> impl Iterator<Item = &'a Arc<Member>> {
        let (near, far) = list.split_at(list.near());
        let reached = |part: usize, of: &'a [Arc<Member>]| {
            let reach = self.reach[part].load(Ordering::Relaxed);
            &of[..reach.min(of.len())]
        };
        let reached = reached(0, near).iter().chain(reached(1, far));
        reached.filter(|member| member.is_eligible())
    }

    /// How busy those that take calls say they are, on average; 1.0 is all they can do.
    pub fn said_load(&self, now: Instant) -> f64 {
        self.said_load_of(&self.list.load(), now)
    }

    fn said_load_of(&self, list: &Members, now: Instant) -> f64 {
        let said = (self.called(list)).map(|member| member.learnt().load.get(now));
        let (count, sum) = said.fold((0u32, 0.0), |(count, sum), one| (count + 1, sum + one));
        sum / f64::from(count.max(1))
    }

    /// How far the aperture reaches, after a gate or the pool has changed.
    pub(super) fn set_reach(&self, list: &Members) {
        let width = match list.len() {
            small if small <= aperture::WHOLE_UP_TO => small,
            _ => self.width.load(Ordering::Relaxed),
        };
        for (reach, found) in self.reach.iter().zip(list.reach(width)) {
            reach.store(found, Ordering::Relaxed);
        }
    }

    /// How many of a large pool get calls.
    pub(super) fn set_width(&self, list: &Members, now: Instant) {
        if list.len() <= aperture::WHOLE_UP_TO {
            return;
        }
        let load = self.said_load_of(list, now);
        let mut aperture = self.aperture.lock().expect("no panic while locked");
        let width = aperture.width(self.in_flight(), load, list.len(), now);
        self.width.store(width, Ordering::Relaxed);
    }
}
