//! One try after the other, as `layer/retry.rs` and `layer/attempt.rs` make them.

use std::time::Duration;

use weir_proxy::learnt::Ended;
use weir_proxy::policy::deadline::Deadline;
use weir_proxy::policy::outcome::Outcome;
use weir_proxy::policy::retry::{Attempt, Decision, decide};

use super::call::{Call, Failed, TRY_BITS, Try};
use super::{Event, World};
use crate::admission::Admitted;
use crate::record::End;
use crate::server::{Answer, Job};
use crate::sidecar::CallId;

/// Within the queue of a server's sidecar.
const QUEUE_TIMEOUT: Duration = Duration::from_millis(100);

impl World {
    /// One try, as `layer/retry.rs` and `layer/attempt.rs` make it.
    pub(super) fn attempt(&mut self, id: CallId) {
        let now = self.engine.now();
        let call = &mut self.calls[id as usize];
        if call.ended {
            return;
        }
        let sidecar = &mut self.sidecars[call.sidecar];
        let retries = &sidecar.retries;
        let tries_left = match retries.attempts.get().saturating_sub(call.attempt) {
            left if self.plan.idempotent && !call.is_retry => left + 1,
            _ => 1,
        };
        let per_try = retries.per_try_timeout.map(|timeout| timeout.get());
        let until = per_try.map_or(Deadline::NEVER, |per_try| Deadline::after(per_try, now));
        let until = until.min(call.deadline);
        let share = call.deadline.share(tries_left, now);
        let replayable = tries_left > 1;
        let rng = &mut self.engine.rng;
        if call.deadline.is_over(now) {
            return self.end(id, End::Failure);
        }
        let Some((member, started)) = sidecar.choose(id, &call.tried, replayable, now, rng) else {
            return self.end(id, End::Refused);
        };
        let server = sidecar.members[member].server;
        call.tries += 1;
        call.trying = Some(Try {
            member,
            server,
            started,
            until,
            has_more: false,
            replayable,
        });
        let job = id << TRY_BITS | call.tries;
        self.try_ends(until.min(share), job);
        let host = &mut self.servers[server];
        if host.server.connects() == Some(false) {
            return self.failed(id, Failed::REFUSED);
        }
        self.record.sent(server, now);
        let admitted = match &mut host.admission {
            Some(admission) => admission.enter(job),
            None => Admitted::Now,
        };
        match admitted {
            Admitted::Now => {
                host.server.arrive(job, now, &mut self.engine.rng);
                self.wake(server);
            }
            Admitted::Waits => self.engine.after(QUEUE_TIMEOUT, Event::QueueOver(job)),
            Admitted::Refused => self.failed(id, Failed::SHED),
        }
    }

    /// The call that still waits for this very try.
    pub(super) fn waiting(&mut self, job: Job) -> Option<(CallId, &mut Call)> {
        let id = job >> TRY_BITS;
        let call = &mut self.calls[id as usize];
        let is_current = call.trying.is_some() && call.tries == job & ((1 << TRY_BITS) - 1);
        is_current.then_some((id, call))
    }

    /// The server's sidecar passes the app's answer on.
    pub(super) fn answer(&mut self, job: Job, answer: Answer) {
        let now = self.engine.now();
        let Some((id, call)) = self.waiting(job) else {
            return;
        };
        if answer == Answer::Bad {
            return self.failed(id, Failed::BAD_ANSWER);
        }
        let mut done = call.trying.take().expect("it waits");
        let (sidecar, is_first) = (call.sidecar, call.attempt == 1);
        let sidecar = &mut self.sidecars[sidecar];
        sidecar.answered(done.member, &mut done.started, Outcome::Success, now);
        let end = Ended {
            outcome: Outcome::Success,
            connect_failed: false,
            retry_after: None,
            over_quota: false,
            lost: false,
        };
        let rng = &mut self.engine.rng;
        sidecar.ended(id, done.member, done.started, end, now, rng);
        if is_first {
            sidecar.budget.deposit(now);
            sidecar.account.deposits += 1;
        }
        self.leave(done.server, job);
        self.end(id, End::Success);
    }

    /// A try failed: what the endpoint learns, then what the retry policy decides.
    fn failed(&mut self, id: CallId, failed: Failed) {
        let now = self.engine.now();
        let call = &mut self.calls[id as usize];
        let job = id << TRY_BITS | call.tries;
        let mut done = call.trying.take().expect("it waits");
        let sidecar = &mut self.sidecars[call.sidecar];
        if failed.answered {
            sidecar.answered(done.member, &mut done.started, failed.outcome, now);
        }
        let end = Ended {
            outcome: failed.outcome,
            connect_failed: failed.connect_failed,
            retry_after: None,
            over_quota: false,
            lost: false,
        };
        let ejected = sidecar.ended(
            id,
            done.member,
            done.started,
            end,
            now,
            &mut self.engine.rng,
        );
        let attempt = Attempt {
            number: call.attempt,
            transparent: call.transparent,
            idempotent: self.plan.idempotent,
            committed: false,
            wait_min: Duration::ZERO,
            replayable: true,
            is_retry_from_downstream: call.is_retry,
            remaining: call.deadline.remaining(now),
            typical: sidecar.p50(now),
        };
        let rand = self.engine.rng.u64(..);
        let (retries, budget) = (&sidecar.retries, &mut sidecar.budget);
        match decide(retries, attempt, failed.verdict, None, budget, now, rand) {
            Decision::Retry { after, counts } => {
                call.tried.push(done.member);
                if counts {
                    call.attempt += 1;
                    sidecar.account.retries += 1;
                } else {
                    call.transparent += 1;
                    sidecar.account.transparent += 1;
                }
                self.engine.after(after, Event::Again(id));
            }
            Decision::Stop(_) => self.end(id, End::Failure),
        }
        if !failed.answered && !failed.connect_failed {
            self.servers[done.server].server.cancel(job, now);
            self.wake(done.server);
        }
        self.leave(done.server, job);
        self.give_up_on(ejected);
    }

    /// The endpoint that these calls wait for was ejected.
    pub(super) fn give_up_on(&mut self, calls: Vec<CallId>) {
        for id in calls {
            let trying = &self.calls[id as usize].trying;
            if trying.as_ref().is_some_and(|trying| trying.replayable) {
                self.failed(id, Failed::GIVEN_UP);
            }
        }
    }

    pub(super) fn try_over(&mut self, job: Job) {
        let now = self.engine.now();
        let Some((id, call)) = self.waiting(job) else {
            return;
        };
        let (sidecar, deadline) = (call.sidecar, call.deadline);
        let trying = call.trying.as_ref().expect("it waits");
        let (until, has_more) = (trying.until, trying.has_more);
        if !until.is_over(now) {
            let wait = self.sidecars[sidecar].budget.until_another(now);
            if !wait.is_zero() {
                let again = until.min(Deadline::after(wait, now));
                if let Some((_, call)) = self.waiting(job)
                    && let Some(trying) = &mut call.trying
                {
                    trying.has_more = true;
                }
                return self.try_ends(again, job);
            }
        }
        let failed = if until == deadline && until.is_over(now) && !has_more {
            Failed::DEADLINE
        } else {
            Failed::GIVEN_UP
        };
        self.failed(id, failed);
    }

    fn try_ends(&mut self, at: Deadline, job: Job) {
        let at = at.instant().expect("every call has a deadline");
        self.engine.at(at, Event::TryOver(job));
    }

    pub(super) fn hang_up(&mut self, id: CallId) {
        let now = self.engine.now();
        let call = &mut self.calls[id as usize];
        call.ended = true;
        let Some(done) = call.trying.take() else {
            return;
        };
        let job = id << TRY_BITS | call.tries;
        let end = Ended {
            outcome: Outcome::Cancelled,
            connect_failed: false,
            retry_after: None,
            over_quota: false,
            lost: false,
        };
        let sidecar = &mut self.sidecars[call.sidecar];
        let rng = &mut self.engine.rng;
        sidecar.ended(id, done.member, done.started, end, now, rng);
        self.servers[done.server].server.cancel(job, now);
        self.wake(done.server);
        self.leave(done.server, job);
    }

    pub(super) fn queue_over(&mut self, job: Job) {
        let Some((id, call)) = self.waiting(job) else {
            return;
        };
        let server = call.trying.as_ref().expect("it waits").server;
        let admission = self.servers[server].admission.as_ref();
        if admission.is_some_and(|admission| admission.is_waiting(job)) {
            self.failed(id, Failed::SHED);
        }
    }
}
