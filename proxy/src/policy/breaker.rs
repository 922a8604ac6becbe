//! Circuit breaker of a whole service: when too many calls fail or are slow, stop calling, then probe.
//!
//! ```text
//!            failure or slow rate reached,
//!            over ≥ minimum_calls of the window        open_for × 2^k over
//!   Closed ─────────────────────────────────▶ Open ─────────────────────▶ HalfOpen
//!     ▲                                        ▲                             │  │ ▲
//!     │                                        ├── more than one probe failed┤  └─┘ probes missing,
//!     │                                        └── none ever came back ──────┤      some succeeded:
//!     └──────────────────────────────────────────── enough probes succeeded ─┘      probe again
//! ```
//!
//! Resilience4j's semantics (time-based window, slow calls, several permitted half-open calls, a limit on
//! the time spent half-open) with numbers that can trip (resilience.md section 2). A binary breaker of a
//! whole service turns a partial outage into a full one (Brooker, "Will circuit breakers solve my problems?"),
//! so none exists unless a policy asks for it; single bad endpoints are the [gate](super::gate)'s business.
//!
//! No clock, no I/O, no lock: the caller passes `now` and owns the synchronisation.

use std::time::Duration;
use tokio::time::Instant;
use weir_config::snapshot::Breaker as Config;

use super::outcome::{Fault, Outcome};
use super::transition::{Phase, Transition, Transitions};
use super::window::{Counts, Window};

/// `open_for` doubles at most this often: ×8.
const DOUBLINGS_MAX: u32 = 3;
/// Half-open lasts at most this many `open_for` when its probes do not come back.
const PROBING_MAX: u32 = 2;

#[derive(Debug)]
pub struct Breaker {
    config: Config,
    state: State,
    window: Window,
    /// The k of `open_for × 2^k`: how often it opened again without a good while in between.
    reopened: u32,
    closed_at: Option<Instant>,
    /// Bumped on every transition, so that a call admitted before it cannot be taken for a later probe.
    generation: u64,
    transitions: Transitions,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    Closed,
    Open { until: Instant },
    HalfOpen(Probes),
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Probes {
    /// In flight or settled; one that was cancelled is given back.
    granted: u32,
    succeeded: u32,
    failed: u32,
    /// Probes that have not settled by now never will.
    until: Instant,
}

/// Proof of admission. Every ticket is spent exactly once, with [`Breaker::record`].
#[derive(Debug)]
#[must_use = "an admitted call must be recorded, also when it is cancelled"]
pub struct Ticket(u64);

/// The call must not be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// When it is worth asking again.
    pub retry_after: Duration,
}

impl Breaker {
    pub fn new(config: Config) -> Self {
        Self {
            window: Window::new(*config.window),
            config,
            state: State::Closed,
            reopened: 0,
            closed_at: None,
            generation: 0,
            transitions: Transitions::default(),
        }
    }

    /// Whether a call may proceed at `now`. Refusal is immediate: nobody queues here.
    pub fn admit(&mut self, now: Instant) -> Result<Ticket, Refused> {
        self.move_on(now);
        let ticket = Ticket(self.generation);
        match &mut self.state {
            State::Closed => Ok(ticket),
            State::HalfOpen(probes) if probes.granted < self.config.half_open_calls.get() => {
                probes.granted += 1;
                Ok(ticket)
            }
            State::HalfOpen(probes) => Err(Refused {
                retry_after: (probes.until - now).min(*self.config.open_for),
            }),
            State::Open { until } => Err(Refused {
                retry_after: *until - now,
            }),
        }
    }

    /// `elapsed` is what the caller of the service had to wait: to the head of a streamed response, to the
    /// end of any other.
    pub fn record(&mut self, ticket: Ticket, outcome: Outcome, elapsed: Duration, now: Instant) {
        if ticket.0 != self.generation {
            return; // admitted under an earlier state; it says nothing about this one
        }
        let evidence = self.evidence(outcome, elapsed);
        match (&mut self.state, evidence) {
            (State::Closed, Some(counts)) => {
                self.window.add(counts, now);
                if let Some(reason) = self.trip_reason(now) {
                    self.open(reason, now);
                }
            }
            (State::HalfOpen(probes), Some(counts)) => {
                match counts {
                    Counts::SUCCESS => probes.succeeded += 1,
                    _ => probes.failed += 1,
                }
                self.judge_probes(now);
            }
            (State::HalfOpen(probes), None) => probes.granted -= 1,
            (State::Closed, None) | (State::Open { .. }, _) => {}
        }
    }

    pub fn state(&self) -> Phase {
        match self.state {
            State::Closed => Phase::Closed,
            State::Open { .. } => Phase::Open,
            State::HalfOpen(_) => Phase::HalfOpen,
        }
    }

    /// A new policy: state and counts stay, so that editing a policy neither closes nor opens anything.
    pub fn reconfigure(&mut self, config: Config, now: Instant) {
        if config.window != self.config.window {
            self.window.resize(*config.window, now);
        }
        let other_probes = config.half_open_calls != self.config.half_open_calls;
        self.config = config;
        match self.state {
            State::Open { until } => {
                let until = until.min(now + self.open_for());
                self.state = State::Open { until };
            }
            State::HalfOpen(_) if other_probes => {
                self.probe("the number of probes was changed".into(), now);
            }
            State::HalfOpen(_) | State::Closed => {}
        }
    }

    /// The oldest transition that was not reported yet.
    pub fn take_transition(&mut self) -> Option<Transition> {
        self.transitions.take()
    }

    /// What time alone changes: open becomes half-open, and half-open ends when its probes stay away.
    fn move_on(&mut self, now: Instant) {
        match self.state {
            State::Open { until } if now >= until => {
                self.probe("the open time is over".into(), now);
            }
            State::HalfOpen(probes)
                if now >= probes.until && probes.granted >= self.config.half_open_calls.get() =>
            {
                let missing = probes.granted - probes.succeeded - probes.failed;
                let reason = format!("{missing} of {} probes did not come back", probes.granted);
                if probes.succeeded > 0 {
                    self.probe(reason, now);
                } else {
                    self.open(reason, now);
                }
            }
            State::HalfOpen(_) | State::Open { .. } | State::Closed => {}
        }
    }

    /// How a call counts. `None`: it says nothing about the service.
    fn evidence(&self, outcome: Outcome, elapsed: Duration) -> Option<Counts> {
        let limit = self.config.slow_call_duration;
        let slow = u32::from(limit.is_some_and(|limit| elapsed >= *limit));
        let failures = match outcome {
            Outcome::Cancelled => return None,
            // The caller was too hasty, unless the policy calls that wait slow as well.
            Outcome::Failure(Fault::Deadline) if slow == 0 => return None,
            Outcome::Failure(Fault::Hard | Fault::Overload) => 1,
            Outcome::Failure(Fault::Deadline) | Outcome::Success => 0,
        };
        Some(Counts {
            calls: 1,
            failures,
            slow,
        })
    }

    fn trip_reason(&self, now: Instant) -> Option<String> {
        let Counts {
            calls,
            failures,
            slow,
        } = self.window.totals(now);
        if calls < self.config.minimum_calls.get() {
            return None;
        }
        let reached = |count: u32, percent: u8| {
            count > 0 && u64::from(count) * 100 >= u64::from(percent) * u64::from(calls)
        };
        let window = self.config.window;
        if reached(failures, self.config.failure_rate.get()) {
            Some(format!("{failures} of {calls} calls failed in {window}"))
        } else if reached(slow, self.config.slow_call_rate.get()) {
            Some(format!("{slow} of {calls} calls were slow in {window}"))
        } else {
            None
        }
    }

    /// One probe may fail, as long as it is the minority; the verdict falls as soon as it is certain.
    fn judge_probes(&mut self, now: Instant) {
        let State::HalfOpen(probes) = self.state else {
            return;
        };
        let calls = self.config.half_open_calls.get();
        let failed_max = ((calls - 1) / 2).min(1);
        if probes.failed > failed_max {
            let reason = format!("{} of {calls} probes failed", probes.failed);
            self.open(reason, now);
        } else if probes.succeeded >= calls - failed_max {
            let reason = format!("{} of {calls} probes succeeded", probes.succeeded);
            self.window.clear();
            self.closed_at = Some(now);
            self.transition(State::Closed, reason);
        }
    }

    fn probe(&mut self, reason: String, now: Instant) {
        let probes = Probes {
            granted: 0,
            succeeded: 0,
            failed: 0,
            until: now + *self.config.open_for * PROBING_MAX,
        };
        self.transition(State::HalfOpen(probes), reason);
    }

    fn open(&mut self, reason: String, now: Instant) {
        let barely_closed = |at: Instant| now.saturating_duration_since(at) < *self.config.window;
        let again = self.state != State::Closed || self.closed_at.is_some_and(barely_closed);
        self.reopened = if again {
            (self.reopened + 1).min(DOUBLINGS_MAX)
        } else {
            0
        };
        let until = now + self.open_for();
        self.transition(State::Open { until }, reason);
    }

    fn open_for(&self) -> Duration {
        *self.config.open_for * (1 << self.reopened)
    }

    fn transition(&mut self, state: State, reason: String) {
        let from = self.state();
        self.state = state;
        self.generation += 1;
        self.transitions.push(Transition {
            from,
            to: self.state(),
            enforced: true,
            reason,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use weir_config::units::{self, Count};

    const FAST: Duration = Duration::from_millis(10);
    const SLOW: Duration = Duration::from_millis(800);
    const HARD: Outcome = Outcome::Failure(Fault::Hard);
    const HASTY: Outcome = Outcome::Failure(Fault::Deadline);

    fn config() -> Config {
        Config {
            slow_call_duration: Some(units::Duration::from_millis(800)),
            ..Config::default()
        }
    }

    fn breaker() -> (Breaker, Instant) {
        (Breaker::new(config()), Instant::now())
    }

    fn call(breaker: &mut Breaker, outcome: Outcome, elapsed: Duration, now: Instant) {
        let ticket = breaker.admit(now).expect("admitted");
        breaker.record(ticket, outcome, elapsed, now);
    }

    /// An open breaker, and the first moment at which it lets a probe through.
    fn opened() -> (Breaker, Instant) {
        let (mut breaker, now) = breaker();
        for _ in 0..20 {
            call(&mut breaker, HARD, FAST, now);
        }
        assert_eq!(breaker.state(), Phase::Open);
        (breaker, now + *config().open_for)
    }

    fn reasons(breaker: &mut Breaker) -> Vec<String> {
        std::iter::from_fn(|| breaker.take_transition())
            .map(|t| format!("{} to {}: {}", t.from, t.to, t.reason))
            .collect()
    }

    #[test]
    fn half_of_the_calls_failing_opens_it_but_not_below_the_minimum_of_calls() {
        let (mut breaker, now) = breaker();
        for _ in 0..10 {
            call(&mut breaker, HARD, FAST, now);
        }
        for _ in 0..9 {
            call(&mut breaker, Outcome::Success, FAST, now);
        }
        assert_eq!(
            breaker.state(),
            Phase::Closed,
            "19 calls are too few to judge"
        );
        call(&mut breaker, Outcome::Success, FAST, now);
        assert_eq!(
            breaker.admit(now).expect_err("it is open").retry_after,
            *config().open_for
        );
        assert_eq!(
            reasons(&mut breaker),
            ["closed to open: 10 of 20 calls failed in 10s"],
            "reported once"
        );
        assert_eq!(breaker.take_transition(), None);
    }

    #[test]
    fn slow_answers_open_it_even_when_all_succeed() {
        let (mut breaker, now) = breaker();
        for _ in 0..20 {
            call(&mut breaker, Outcome::Success, SLOW, now);
        }
        assert_eq!(
            reasons(&mut breaker),
            ["closed to open: 20 of 20 calls were slow in 10s"]
        );
    }

    #[test]
    fn callers_that_hang_up_or_are_too_hasty_are_no_evidence() {
        let (mut breaker, now) = breaker();
        for _ in 0..100 {
            call(&mut breaker, Outcome::Cancelled, SLOW, now);
            call(&mut breaker, HASTY, FAST, now);
        }
        assert_eq!(breaker.window.totals(now), Counts::default());
        for _ in 0..20 {
            call(&mut breaker, HASTY, SLOW, now);
        }
        assert_eq!(
            breaker.state(),
            Phase::Open,
            "a wait that the policy calls slow counts"
        );
    }

    #[test]
    fn failures_older_than_the_window_are_forgotten() {
        let (mut breaker, now) = breaker();
        for _ in 0..19 {
            call(&mut breaker, HARD, FAST, now);
        }
        call(&mut breaker, HARD, FAST, now + *config().window);
        assert_eq!(breaker.state(), Phase::Closed);
    }

    #[test]
    fn half_open_lets_five_probes_through_and_closes_when_four_succeed() {
        let (mut breaker, now) = opened();
        let mut probes: Vec<_> = (0..5)
            .map(|_| breaker.admit(now).expect("a probe"))
            .collect();
        assert!(breaker.admit(now).is_err(), "the sixth is refused");
        breaker.record(probes.pop().expect("five"), HARD, FAST, now);
        for probe in probes.drain(..3) {
            breaker.record(probe, Outcome::Success, FAST, now);
        }
        assert_eq!(breaker.state(), Phase::HalfOpen);
        breaker.record(probes.remove(0), Outcome::Success, FAST, now);
        assert_eq!(breaker.state(), Phase::Closed);
        assert_eq!(
            reasons(&mut breaker)[1..],
            [
                "open to half-open: the open time is over",
                "half-open to closed: 4 of 5 probes succeeded"
            ]
        );
    }

    #[test]
    fn two_bad_probes_open_it_again_for_twice_as_long_up_to_eight_times() {
        let (mut breaker, mut now) = opened();
        for factor in [2, 4, 8, 8] {
            call(&mut breaker, HARD, FAST, now);
            call(&mut breaker, Outcome::Success, SLOW, now);
            let wait = breaker.admit(now).expect_err("open").retry_after;
            assert_eq!(wait, *config().open_for * factor);
            now += wait;
        }
    }

    #[test]
    fn a_service_that_fails_right_after_it_recovered_is_left_alone_for_longer() {
        let (mut breaker, now) = opened();
        for _ in 0..4 {
            call(&mut breaker, Outcome::Success, FAST, now);
        }
        let (relapse, much_later) = (now + FAST, now + *config().window);
        for (at, factor) in [(relapse, 2), (much_later, 1)] {
            let mut breaker = Breaker {
                window: breaker.window.clone(),
                transitions: Transitions::default(),
                ..breaker
            };
            for _ in 0..20 {
                call(&mut breaker, HARD, FAST, at);
            }
            let wait = breaker.admit(at).expect_err("open").retry_after;
            assert_eq!(wait, *config().open_for * factor);
        }
    }

    #[test]
    fn a_single_permitted_probe_may_not_fail() {
        let (mut breaker, now) = opened();
        let one = Config {
            half_open_calls: Count::of(1),
            ..config()
        };
        breaker.reconfigure(one, now);
        call(&mut breaker, HARD, FAST, now);
        assert_eq!(breaker.state(), Phase::Open);
    }

    #[test]
    fn a_cancelled_probe_gives_its_permit_back() {
        let (mut breaker, now) = opened();
        for _ in 0..1000 {
            call(&mut breaker, Outcome::Cancelled, FAST, now);
        }
        assert_eq!(breaker.state(), Phase::HalfOpen);
    }

    #[test]
    fn a_call_from_before_the_opening_is_no_probe() {
        let (mut breaker, now) = breaker();
        let early: Vec<_> = (0..10)
            .map(|_| breaker.admit(now).expect("closed"))
            .collect();
        for _ in 0..20 {
            call(&mut breaker, HARD, FAST, now);
        }
        let later = now + *config().open_for;
        let _probe = breaker.admit(later).expect("half-open");
        for ticket in early {
            breaker.record(ticket, Outcome::Success, FAST, later);
        }
        assert_eq!(breaker.state(), Phase::HalfOpen);
    }

    #[test]
    fn probes_that_never_come_back_open_it_again_unless_others_succeeded() {
        for (succeeded, then) in [(0, Phase::Open), (1, Phase::HalfOpen)] {
            let (mut breaker, now) = opened();
            for _ in 0..succeeded {
                call(&mut breaker, Outcome::Success, FAST, now);
            }
            let lost: Vec<_> = (succeeded..5)
                .map(|_| breaker.admit(now).expect("a probe"))
                .collect();
            let later = now + *config().open_for * PROBING_MAX;
            assert_eq!(breaker.admit(later).is_ok(), then == Phase::HalfOpen);
            assert_eq!(breaker.state(), then);
            drop(lost);
        }
    }

    #[test]
    fn a_new_policy_neither_closes_nor_forgets() {
        let (mut breaker, now) = breaker();
        for _ in 0..19 {
            call(&mut breaker, HARD, FAST, now);
        }
        let mut strict = config();
        strict.window = units::Duration::from_secs(20);
        breaker.reconfigure(strict, now);
        call(&mut breaker, HARD, FAST, now);
        assert_eq!(
            breaker.state(),
            Phase::Open,
            "what was counted before still counts"
        );
        strict.open_for = units::Duration::from_secs(1);
        breaker.reconfigure(strict, now);
        let wait = breaker.admit(now).expect_err("still open").retry_after;
        assert_eq!(
            wait,
            Duration::from_secs(1),
            "but not for longer than the new policy says"
        );
    }

    #[derive(Clone, Debug)]
    enum Step {
        Admit,
        Finish(usize, Outcome, Duration),
        Lose(usize),
        Wait(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        let outcome = prop::sample::select(vec![
            Outcome::Success,
            HARD,
            HARD,
            HASTY,
            Outcome::Failure(Fault::Overload),
            Outcome::Cancelled,
        ]);
        let elapsed = prop::sample::select(vec![FAST, SLOW]);
        prop_oneof![
            8 => Just(Step::Admit),
            8 => (any::<usize>(), outcome, elapsed).prop_map(|(i, o, e)| Step::Finish(i, o, e)),
            1 => any::<usize>().prop_map(Step::Lose),
            1 => (1u64..15).prop_map(Step::Wait),
        ]
    }

    proptest! {
        /// Whatever happened before, even if tickets were lost, a call gets through after a bounded wait;
        /// half-open never has more probes than permitted; a stale outcome changes nothing.
        #[test]
        fn never_wedges_and_never_exceeds(steps in prop::collection::vec(step(), 0..400)) {
            let config = Config { minimum_calls: Count::of(4), ..config() };
            let (mut b, mut now) = (Breaker::new(config), Instant::now());
            let mut in_flight: Vec<Ticket> = Vec::new();
            for step in steps {
                match step {
                    Step::Admit => in_flight.extend(b.admit(now)),
                    Step::Finish(i, outcome, elapsed) if !in_flight.is_empty() => {
                        let ticket = in_flight.swap_remove(i % in_flight.len());
                        let (stale, before) = (ticket.0 != b.generation, b.state);
                        b.record(ticket, outcome, elapsed, now);
                        prop_assert!(!stale || before == b.state, "a stale outcome is no evidence");
                    }
                    Step::Lose(i) if !in_flight.is_empty() => drop(in_flight.swap_remove(i % in_flight.len())),
                    Step::Finish(..) | Step::Lose(_) => {}
                    Step::Wait(secs) => now += Duration::from_secs(secs),
                }
                match b.state {
                    State::HalfOpen(probes) => {
                        let current = in_flight.iter().filter(|t| t.0 == b.generation).count() as u32;
                        prop_assert!(probes.granted <= config.half_open_calls.get());
                        prop_assert!(current + probes.succeeded + probes.failed <= probes.granted);
                    }
                    State::Open { until } => prop_assert!(until <= now + *config.open_for * 8),
                    State::Closed => {}
                }
            }
            for ticket in in_flight.drain(..) {
                b.record(ticket, Outcome::Cancelled, FAST, now);
            }
            now += *config.open_for * PROBING_MAX;
            if b.admit(now).is_err() {
                now += *config.open_for * (1 << DOUBLINGS_MAX);
                prop_assert!(b.admit(now).is_ok());
            }
        }

        /// Fast successes and cancelled calls alone never open it.
        #[test]
        fn success_never_opens(outcomes in prop::collection::vec(any::<bool>(), 0..300)) {
            let (mut b, now) = breaker();
            for success in outcomes {
                let outcome = if success { Outcome::Success } else { Outcome::Cancelled };
                call(&mut b, outcome, FAST, now);
            }
            prop_assert_eq!(b.state(), Phase::Closed);
        }
    }
}
