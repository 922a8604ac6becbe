//! The gates of a pool: how many of them may be open, what is told when one changes, and what no call notices.

use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard};

use tokio::time::Instant;
use weir_config::snapshot::Mode;

use super::{Endpoints, mirrors};
use crate::identity::alpn;
use crate::learnt::{Learnt, Newest, open_max};
use crate::member::Member;
use crate::policy::gate::{ProbeKind, ProbeResult};
use crate::policy::transition::Phase;
use crate::policy::window::Counts;
use crate::question;
use crate::tally::Standing;

impl Endpoints {
    /// A few times a second, off the request path: finds silent endpoints and probes those that are due. Costs nothing
    /// while nobody is called and every gate is closed.
    pub fn tick(self: &Arc<Self>, now: Instant) {
        if self.in_flight.load(Ordering::Relaxed) == 0 && self.tally.is_settled() {
            return;
        }
        self.tally.begin_tick();
        let list = self.list.load();
        let p99 = {
            let mut latency = self.latency.lock().expect("no panic while locked");
            latency.p99(now)
        };
        let nanos = p99.map_or(0, |p99| u64::try_from(p99.as_nanos()).unwrap_or(u64::MAX));
        self.p99_nanos.store(nanos, Ordering::Relaxed);
        self.set_width(&list, now);
        let newest = Newest::of(list.iter().map(|member| member.learnt().last_completion));
        let config = self.config.load();
        let mut closed = true;
        for (index, member) in list.iter().enumerate() {
            let others_last = newest.but(index);
            let stall = member.learnt().stall(others_last, p99, &config, now);
            if let Some(stall) = stall {
                let opening = self.opening();
                let may_open = self.may_open(&list, &opening);
                let mut learnt = member.learnt();
                learnt.gate.stalled(now, stall, may_open, fastrand::u64(..));
                self.publish(member, &mut learnt);
                // Also whoever has come as a probe, and who came before it was out for another reason.
                if learnt.gate.state() == Phase::Open {
                    member.ejected.notify_waiters();
                }
            }
            let mut learnt = member.learnt();
            let probe = learnt.wants_probe(now);
            self.publish(member, &mut learnt);
            closed &= learnt.gate.state() == Phase::Closed;
            drop(learnt);
            if let Some(kind) = probe {
                tokio::spawn(self.clone().probe(member.clone(), kind));
            }
        }
        let list = self.list.load();
        self.tally.end_tick(closed, mirrors(&list));
        self.set_reach(&list);
    }

    /// So that neither a black hole nor an app that hangs costs a user's request, and a slow call no endpoint.
    async fn probe(self: Arc<Self>, member: Arc<Member>, kind: ProbeKind) {
        let asked = match kind {
            ProbeKind::Comparison => self.another_than(&member),
            ProbeKind::Connect | ProbeKind::Question | ProbeKind::Doubt => Some(member.clone()),
        };
        let Some(asked) = asked else { return };
        let identity = asked.endpoint.identity.as_ref();
        let address = asked.address();
        let result = match self.connector.connect(address, identity, alpn::HTTP2).await {
            Err(_) => ProbeResult::Failed,
            Ok(_) if kind == ProbeKind::Connect => ProbeResult::Passed,
            Ok(stream) => match question::is_answered(stream, address).await {
                true => ProbeResult::Passed,
                false => ProbeResult::Unanswered,
            },
        };
        let mut learnt = member.learnt();
        learnt.probed(kind, result, Instant::now(), fastrand::u64(..));
        self.publish(&member, &mut learnt);
    }

    /// Any that takes calls.
    fn another_than(&self, member: &Arc<Member>) -> Option<Arc<Member>> {
        let list = self.list.load();
        let others = || {
            let other = |it: &&Arc<Member>| !Arc::ptr_eq(it, member) && it.is_eligible();
            list.iter().filter(other)
        };
        let index = fastrand::usize(..others().count().max(1));
        others().nth(index).cloned()
    }

    /// Reports what a gate did. To be called with the member locked, after anything that may change it.
    pub(super) fn publish(&self, member: &Member, learnt: &mut Learnt) {
        while let Some(transition) = learnt.gate.take_transition() {
            if !self.lists(member) {
                continue;
            }
            let address = member.address().to_string();
            self.metrics.endpoint_changed(&address, &transition);
            self.facts
                .endpoint_changed(&self.service, &address, transition);
        }
        let now = Standing {
            eligible: learnt.gate.is_eligible(),
            half_open: learnt.gate.state() == Phase::HalfOpen,
        };
        let Some(before) = self.tally.changed(&member.mirror, now) else {
            return;
        };
        let list = self.list.load();
        self.tally.count(mirrors(&list));
        self.set_reach(&list);
        if before.eligible && !now.eligible {
            member.ejected.notify_waiters();
        }
    }

    /// Calls and probes may outlive what discovery says of an endpoint.
    fn lists(&self, member: &Member) -> bool {
        let list = self.list.load();
        !self.forgotten.load(Ordering::Relaxed)
            && list.iter().any(|listed| std::ptr::eq(&**listed, member))
    }

    pub(super) fn opening(&self) -> MutexGuard<'_, ()> {
        self.opening.lock().expect("no panic while locked")
    }

    /// At most so many may be out at once, and never the last (resilience.md section 2). Holds as long as the lock.
    pub(super) fn may_open(&self, list: &[Arc<Member>], _opening: &MutexGuard<'_, ()>) -> bool {
        let config = self.config.load();
        // The gate then reports that it would open.
        if config.gate.mode == Mode::Observe {
            return false;
        }
        // Who is going away is none of those that are to be left.
        let staying = || list.iter().filter(|member| !member.is_draining());
        let cap = open_max(staying().count(), config.gate.max_open_percent);
        staying().filter(|member| !member.is_eligible()).count() < cap
    }

    /// The success rate of those that take calls: failing like everybody else is no reason to be ejected.
    pub(super) fn success_rate(list: &[Arc<Member>], now: Instant) -> Option<f64> {
        let mut counts = Counts::default();
        for member in list {
            if member.is_eligible() {
                counts.add(member.learnt().gate.counts(now));
            }
        }
        counts.success_rate()
    }
}
