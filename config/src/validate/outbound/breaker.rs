//! Breakers that could never trip, always would, or could not be probed.

use super::{Check, DEADLINE, IN_FLIGHT, millis};
use crate::diagnostic::Severity;
use crate::snapshot;

impl Check<'_> {
    pub(super) fn breaker(&mut self, breaker: &snapshot::Breaker) {
        let field = |name: &str| format!("outbound.circuitBreaker.{name}");
        for (name, rate) in [
            ("failureRate", breaker.failure_rate),
            ("slowCallRate", breaker.slow_call_rate),
        ] {
            if rate.get() == 0 {
                let message = format!(
                    "a {name} of 0 is always reached: the breaker would open without any reason"
                );
                self.tell(Severity::Error, &[&field(name)], message, "write 1 to 100");
            }
        }
        self.forced(breaker);
        self.slow_calls(breaker);
        self.probes(breaker);
        self.reach(breaker);
    }

    fn forced(&mut self, breaker: &snapshot::Breaker) {
        if let (Some(force), Some(snapshot::Mode::Observe)) = (breaker.force, breaker.mode) {
            let message = format!(
                "a breaker that only observes cannot be held {}: it refuses nothing",
                force.as_str()
            );
            self.tell(
                Severity::Error,
                &[
                    "outbound.circuitBreaker.force",
                    "outbound.circuitBreaker.mode",
                ],
                message,
                "leave out one of the two",
            );
        }
    }

    /// Slowness must be possible to be seen.
    fn slow_calls(&mut self, breaker: &snapshot::Breaker) {
        let (rate, duration) = (
            "outbound.circuitBreaker.slowCallRate",
            "outbound.circuitBreaker.slowCallDuration",
        );
        let Some(slow) = breaker.slow_call_duration else {
            if self.is_said(rate) {
                let message = "slowCallRate has no effect without a deadline or slowCallDuration: no call is ever called slow";
                let help = "say how long a call may take, such as slowCallDuration: 500ms";
                self.tell(Severity::Warning, &[rate], message.to_owned(), help);
            }
            return;
        };
        if let Some(deadline) = self.effective.value.deadline
            && slow >= deadline
            && self.is_said(duration)
        {
            let message = format!(
                "a call is slow after {slow}, but every call has ended after {}: none is ever seen to be slow",
                self.of(DEADLINE, deadline)
            );
            self.against_deadline(
                duration,
                message,
                "make slowCallDuration shorter than the deadline",
            );
        }
    }

    fn probes(&mut self, breaker: &snapshot::Breaker) {
        let in_flight = self.effective.value.limits.in_flight.get();
        let path = "outbound.circuitBreaker.halfOpenCalls";
        if breaker.half_open_calls.get() > in_flight {
            let message = format!(
                "a half-open breaker lets more probes through than the limit allows calls in flight: {} and {in_flight}",
                self.of(path, breaker.half_open_calls.get())
            );
            self.tell(
                Severity::Error,
                &[path, IN_FLIGHT],
                message,
                "make halfOpenCalls at most limits.inFlight",
            );
        }
    }

    /// When every call hangs until it times out, only so many end within the window. With fewer than the breaker
    /// wants to see it would stay closed in the very outage it is for.
    fn reach(&mut self, breaker: &snapshot::Breaker) {
        let outbound = &self.effective.value;
        let (Some(longest), in_flight) = (
            outbound.deadline,
            u64::from(outbound.limits.in_flight.get()),
        ) else {
            return;
        };
        let ended = in_flight * (millis(breaker.window) / millis(longest) + 1);
        let path = "outbound.circuitBreaker.minimumCalls";
        if ended < u64::from(breaker.minimum_calls.get()) {
            let message = format!(
                "when every call hangs for {} (the deadline), {in_flight} in flight make at most {ended} within the \
                 window of {}: fewer than the {} calls without which the breaker never opens",
                longest,
                breaker.window,
                breaker.minimum_calls.get()
            );
            let help =
                "allow a lower minimumCalls, a longer window, a shorter deadline or more inFlight";
            self.tell(
                Severity::Warning,
                &[path, IN_FLIGHT, DEADLINE],
                message,
                help,
            );
        }
    }
}
