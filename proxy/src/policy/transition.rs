//! Transitions of breakers and gates, kept until the layer has reported each of them once.
//!
//! A policy cannot log or count by itself (it does no I/O), and its caller cannot see a transition that
//! happened inside `admit`. So every transition is queued here and handed out exactly once.

use std::collections::VecDeque;
use std::fmt;

/// Where a breaker or gate stands, as operators and metrics see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Passing.
    Closed,
    /// Refusing.
    Open,
    /// Probing.
    HalfOpen,
    /// Passing a growing share; gates only.
    Ramping,
}

impl Phase {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half-open",
            Self::Ramping => "ramping",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A fact for metrics, the journal and the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transition {
    pub from: Phase,
    pub to: Phase,
    /// `false`: it only *would* have moved, and was held back (the cap on open endpoints of a pool).
    pub enforced: bool,
    /// For metrics: one of few words.
    pub why: Why,
    /// For the operator: "5 hard failures in a row".
    pub reason: String,
}

/// What made it move.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Why {
    FailureRate,
    SlowCallRate,
    ConsecutiveFailures,
    SuccessRate,
    Stall,
    ConnectFailed,
    OpenTimeOver,
    ProbesSucceeded,
    ProbesFailed,
    /// They never came back.
    ProbesMissing,
    RampOver,
    PolicyChanged,
    /// By a policy or an operator, whatever calls come to.
    Forced,
    ForceEnded,
    /// The endpoint is no longer there.
    Gone,
}

impl Why {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::FailureRate => "failure-rate",
            Self::SlowCallRate => "slow-call-rate",
            Self::ConsecutiveFailures => "consecutive-failures",
            Self::SuccessRate => "success-rate",
            Self::Stall => "stall",
            Self::ConnectFailed => "connect-failed",
            Self::OpenTimeOver => "open-time-over",
            Self::ProbesSucceeded => "probes-succeeded",
            Self::ProbesFailed => "probes-failed",
            Self::ProbesMissing => "probes-missing",
            Self::RampOver => "ramp-over",
            Self::PolicyChanged => "policy-changed",
            Self::Forced => "forced",
            Self::ForceEnded => "force-ended",
            Self::Gone => "gone",
        }
    }
}

/// More than a caller that drains it after every call can ever leave behind.
const PENDING_MAX: usize = 16;

/// The transitions that nobody has taken yet, oldest first. When it is full the oldest is lost: the newest
/// tells where the policy stands now.
#[derive(Debug, Default)]
pub struct Transitions {
    pending: VecDeque<Transition>,
}

impl Transitions {
    pub fn push(&mut self, transition: Transition) {
        if self.pending.len() == PENDING_MAX {
            self.pending.pop_front();
        }
        self.pending.push_back(transition);
    }

    pub fn take(&mut self) -> Option<Transition> {
        self.pending.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbered(number: usize) -> Transition {
        Transition {
            from: Phase::Closed,
            to: Phase::Open,
            enforced: true,
            why: Why::FailureRate,
            reason: number.to_string(),
        }
    }

    #[test]
    fn each_transition_is_handed_out_once_and_in_order() {
        let mut transitions = Transitions::default();
        transitions.push(numbered(1));
        transitions.push(numbered(2));
        assert_eq!(transitions.take(), Some(numbered(1)));
        assert_eq!(transitions.take(), Some(numbered(2)));
        assert_eq!(transitions.take(), None);
    }

    #[test]
    fn a_caller_that_never_takes_them_costs_bounded_memory_and_loses_the_oldest() {
        let mut transitions = Transitions::default();
        for number in 0..1000 {
            transitions.push(numbered(number));
        }
        assert_eq!(transitions.pending.len(), PENDING_MAX);
        assert_eq!(transitions.pending.back(), Some(&numbered(999)));
    }
}
