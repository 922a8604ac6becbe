//! What is measured, each figure by its definition. Replica 0 is the one that is broken.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use crate::evidence::{Evidence, Held, steps};

/// A replica that got nothing for so long has been taken out. At its fair share it gets a request every few milliseconds.
const SILENCE: Duration = Duration::from_millis(500);
/// Of its fair share: from here on it counts as back.
const BACK: f64 = 0.8;
/// For so many seconds in a row.
const BACK_FOR: usize = 2;
const SECOND: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Figure {
    /// Of what was meant to be sent during the fault.
    Success,
    /// Requests that failed during the fault and after it.
    Failed,
    /// Milliseconds, during the fault.
    P99,
    P99ToHealthy,
    /// Against twice the healthy p95 and a hedging delay of one healthy p95.
    P999ToHedged,
    P999,
    /// Milliseconds from the fault until the replica got nothing for a while.
    Ejected,
    /// The most requests that it got in any 10 s from then on, while it was still broken.
    SentAfterEjection,
    /// Share of all requests that the broken replica got.
    Share,
    /// Requests that arrived at replicas, by those that callers sent.
    Amplification,
    WorstAmplification,
    /// Requests that arrived a second time during the fault, its first second left out.
    MadeTwice,
    /// Seconds from the heal until it got its fair share for two seconds.
    FairShareBack,
    /// Share of failures in the worst second after the heal.
    WorstErrorsAfter,
    /// Seconds from the heal until 99 % succeed, and go on to.
    Recovered,
    /// Useful work by what the replicas could do during the fault, its first second left out.
    Goodput,
    WorstGoodput,
    /// Useful answers by what was offered, in the worst second of the fault.
    WorstSuccess,
    /// Milliseconds during the fault, of what was not refused: what was let in and came to nothing had been waited for.
    P99Admitted,
    /// Share refused before the fault, when there was no reason to.
    RefusedBefore,
    /// Seconds from the fault until goodput is at 90 % and stays there for a second.
    Converged,
    /// Work that the last hop began when its caller's deadline had passed, by requests.
    BegunTooLate,
    /// Milliseconds from the deadline until callers were told that it had passed, p99.
    ToldAfterDeadline,
    /// KiB of an answer that nobody reads, between the app's write and the reader; what is held without a proxy is taken off.
    HeldEach,
    /// MiB by which the proxy grew.
    ResidentGrowth,
    /// Seconds until the app could send no more.
    BlockedAfter,
    /// 1: reading on brought the rest.
    Resumed,
    /// Share of its requests that the worst off of the callers that are watched got answers to.
    WorstCaller,
    /// The largest share, by the fair one, that the replica got in any 100 ms after it came back.
    ReturnBurst,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value {
    Number(f64),
    /// It had not come about when the run ended, so late.
    Over(f64),
    /// It cannot be known, because …
    Missing(&'static str),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    Percent,
    Milliseconds,
    Seconds,
    Times,
    Count,
}

impl Figure {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failed => "failed requests",
            Self::P99 => "p99",
            Self::P99ToHealthy => "p99 / healthy",
            Self::P999ToHedged => "p99.9 / (2 × p95 + delay)",
            Self::P999 => "p99.9",
            Self::Ejected => "ejected after",
            Self::SentAfterEjection => "sent to it after ejection, in any 10 s",
            Self::Share => "share of the bad replica",
            Self::Amplification => "amplification",
            Self::WorstAmplification => "amplification, worst second",
            Self::MadeTwice => "requests made twice",
            Self::FairShareBack => "fair share back after",
            Self::WorstErrorsAfter => "failed after the heal, worst second",
            Self::Recovered => "99 % again after",
            Self::Goodput => "goodput / capacity",
            Self::WorstGoodput => "goodput / capacity, worst second",
            Self::WorstSuccess => "success, worst second",
            Self::P99Admitted => "p99 of the admitted",
            Self::RefusedBefore => "refused without need",
            Self::Converged => "converged after",
            Self::BegunTooLate => "work begun after expiry",
            Self::ToldAfterDeadline => "error after the deadline, p99",
            Self::HeldEach => "held of one answer, KiB",
            Self::ResidentGrowth => "resident memory grew by, MiB",
            Self::BlockedAfter => "sender blocked after",
            Self::Resumed => "resumed",
            Self::WorstCaller => "success of the worst off caller",
            Self::ReturnBurst => "share in any 100 ms on return / fair",
        }
    }

    pub const fn unit(self) -> Unit {
        match self {
            Self::Success
            | Self::Share
            | Self::WorstErrorsAfter
            | Self::Goodput
            | Self::WorstGoodput
            | Self::WorstSuccess
            | Self::BegunTooLate
            | Self::WorstCaller
            | Self::RefusedBefore => Unit::Percent,
            Self::P99
            | Self::P999
            | Self::P99Admitted
            | Self::ToldAfterDeadline
            | Self::Ejected => Unit::Milliseconds,
            Self::FairShareBack | Self::Recovered | Self::Converged | Self::BlockedAfter => {
                Unit::Seconds
            }
            Self::P99ToHealthy
            | Self::P999ToHedged
            | Self::Amplification
            | Self::WorstAmplification
            | Self::ReturnBurst => Unit::Times,
            Self::Failed
            | Self::MadeTwice
            | Self::SentAfterEjection
            | Self::HeldEach
            | Self::ResidentGrowth
            | Self::Resumed => Unit::Count,
        }
    }

    pub fn of(self, evidence: &Evidence) -> Value {
        let fault = &evidence.fault;
        let healthy = &evidence.healthy();
        let number = match self {
            Self::Success => evidence.success(fault),
            Self::Failed => evidence.failed(&(fault.start..evidence.end)) as f64,
            Self::P99 => evidence.latency(fault, 0.99),
            Self::P999 => evidence.latency(fault, 0.999),
            Self::P99ToHealthy => evidence.latency(fault, 0.99) / evidence.latency(healthy, 0.99),
            Self::P999ToHedged => {
                evidence.latency(fault, 0.999) / (3.0 * evidence.latency(healthy, 0.95))
            }
            Self::Share => evidence.share(0, fault),
            Self::Amplification => {
                evidence.arrived_in_all(fault) as f64 / evidence.offered(fault).len() as f64
            }
            Self::WorstAmplification => worst_amplification(evidence),
            Self::MadeTwice => {
                let span = fault.start + SECOND..fault.end;
                evidence
                    .again
                    .iter()
                    .filter(|at| span.contains(*at))
                    .count() as f64
            }
            Self::WorstErrorsAfter => worst_errors_after(evidence),
            Self::Goodput => goodput(evidence, &(fault.start + SECOND..fault.end)),
            Self::WorstGoodput => worst_second(evidence, |second| goodput(evidence, second)),
            Self::WorstSuccess => worst_second(evidence, |second| evidence.success(second)),
            Self::P99Admitted => {
                evidence.latency_of(fault, 0.99, |sample| !sample.outcome.is_refusal())
            }
            Self::RefusedBefore => 1.0 - evidence.success(healthy),
            Self::Converged => return converged(evidence),
            Self::WorstCaller => worst_caller(evidence),
            Self::HeldEach | Self::ResidentGrowth | Self::BlockedAfter | Self::Resumed => {
                return evidence
                    .held
                    .map_or(Value::Missing("nothing was held back"), |held| {
                        Value::Number(self.of_held(held))
                    });
            }
            Self::ToldAfterDeadline => told_after_deadline(evidence),
            Self::BegunTooLate => match evidence.begun_too_late {
                Some(begun) => begun as f64 / evidence.offered(fault).len() as f64,
                None => return Value::Missing("there is no chain"),
            },
            Self::Ejected => return ejected(evidence),
            Self::SentAfterEjection => return sent_after_ejection(evidence),
            Self::FairShareBack => return fair_share_back(evidence),
            Self::Recovered => return recovered(evidence),
            Self::ReturnBurst => return return_burst(evidence),
        };
        Value::Number(number)
    }
}

impl Figure {
    fn of_held(self, held: Held) -> f64 {
        match self {
            Self::HeldEach => held.bytes_each as f64 / 1024.0,
            Self::ResidentGrowth => held.resident_growth as f64 / 1024.0,
            Self::BlockedAfter => held.blocked_after.as_secs_f64(),
            _ => f64::from(u8::from(held.resumed)),
        }
    }
}

/// The last request before the first silence.
fn ejected_at(evidence: &Evidence) -> Option<Duration> {
    let fault = &evidence.fault;
    let mut last = fault.start;
    for at in evidence.arrived(0, fault) {
        if *at - last >= SILENCE {
            return Some(last);
        }
        last = *at;
    }
    (fault.end - last >= SILENCE).then_some(last)
}

fn ejected(evidence: &Evidence) -> Value {
    let length = evidence.fault.end - evidence.fault.start;
    ejected_at(evidence).map_or(Value::Over(milliseconds(length)), |at| {
        Value::Number(milliseconds(at - evidence.fault.start))
    })
}

/// The most in any ten seconds: one request is one, however short the fault is.
fn sent_after_ejection(evidence: &Evidence) -> Value {
    let Some(at) = ejected_at(evidence) else {
        return Value::Missing("it was never ejected");
    };
    let sent = evidence.arrived(0, &(at..evidence.fault.end));
    let sent: Vec<Duration> = sent.iter().copied().filter(|sent| *sent > at).collect();
    let from = |index: usize| {
        let within = |later: &&Duration| **later - sent[index] < 10 * SECOND;
        sent[index..].iter().filter(within).count()
    };
    Value::Number((0..sent.len()).map(from).max().unwrap_or_default() as f64)
}

/// A deadline runs from when a request is sent: the driver's own delay, a millisecond, is none of the proxy's.
fn told_after_deadline(evidence: &Evidence) -> f64 {
    let failed = evidence.offered(&evidence.fault).iter();
    let failed = failed.filter(|sample| !sample.outcome.is_good());
    let mut took: Vec<Duration> = failed.map(|sample| sample.latency - sample.late).collect();
    took.sort();
    let p99 = took.get(took.len() * 99 / 100);
    p99.map_or(0.0, |p99| {
        milliseconds(*p99) - milliseconds(evidence.deadline)
    })
}

fn worst_caller(evidence: &Evidence) -> f64 {
    let mut callers: BTreeMap<usize, [usize; 2]> = BTreeMap::new();
    for sample in evidence.offered(&evidence.fault) {
        let [good, all] = callers.entry(sample.way).or_default();
        *good += usize::from(sample.outcome.is_good() && sample.latency <= evidence.deadline);
        *all += 1;
    }
    let success = callers
        .values()
        .map(|[good, all]| *good as f64 / *all as f64);
    success.fold(f64::INFINITY, f64::min)
}

fn worst_amplification(evidence: &Evidence) -> f64 {
    let span = evidence.fault.start..evidence.end;
    let each = steps(&span, SECOND).map(|second| {
        let offered = evidence.offered(&second).len().max(1);
        evidence.arrived_in_all(&second) as f64 / offered as f64
    });
    each.fold(0.0, f64::max)
}

fn worst_errors_after(evidence: &Evidence) -> f64 {
    let each = steps(&evidence.after(), SECOND).map(|second| 1.0 - evidence.success(&second));
    each.fold(0.0, f64::max)
}

fn fair_share_back(evidence: &Evidence) -> Value {
    let fair = 1.0 / evidence.arrivals.len() as f64;
    let mut in_row = 0;
    for second in steps(&evidence.after(), SECOND) {
        let is_back = evidence.share(0, &second) >= BACK * fair;
        in_row = if is_back { in_row + 1 } else { 0 };
        if in_row == BACK_FOR {
            let since = second.end - evidence.fault.end - SECOND * BACK_FOR as u32;
            return Value::Number(since.as_secs_f64());
        }
    }
    Value::Over((evidence.end - evidence.fault.end).as_secs_f64())
}

fn recovered(evidence: &Evidence) -> Value {
    let after = evidence.after();
    let bad = steps(&after, SECOND).filter(|second| evidence.success(second) < 0.99);
    match bad.last() {
        None => Value::Number(0.0),
        Some(second) if second.end + SECOND <= after.end => {
            Value::Number((second.end - after.start).as_secs_f64())
        }
        Some(_) => Value::Over((after.end - after.start).as_secs_f64()),
    }
}

/// Useful work a second, of what could be had: no more than was offered. By work and not by answers, because who serves what is
/// short and lets the rest expire would come to more than there is.
fn goodput(evidence: &Evidence, span: &Range<Duration>) -> f64 {
    let lasts = (span.end - span.start).as_secs_f64();
    let possible = (evidence.capacity * lasts).min(evidence.offered(span).len() as f64);
    evidence.useful(span) / possible.max(1.0)
}

/// Of the fault, its first second left out: it has a target of its own.
fn worst_second(evidence: &Evidence, of: impl Fn(&Range<Duration>) -> f64) -> f64 {
    let span = evidence.fault.start + SECOND..evidence.fault.end;
    steps(&span, SECOND)
        .map(|second| of(&second))
        .fold(f64::INFINITY, f64::min)
}

const CONVERGED: f64 = 0.9;
const CONVERGED_STEP: Duration = Duration::from_millis(250);
const CONVERGED_STEPS: usize = 4;

fn converged(evidence: &Evidence) -> Value {
    let mut in_row = 0;
    for step in steps(&evidence.fault, CONVERGED_STEP) {
        let is_good = goodput(evidence, &step) >= CONVERGED;
        in_row = if is_good { in_row + 1 } else { 0 };
        if in_row == CONVERGED_STEPS {
            let since = step.end - evidence.fault.start - CONVERGED_STEP * CONVERGED_STEPS as u32;
            return Value::Number(since.as_secs_f64());
        }
    }
    Value::Over((evidence.fault.end - evidence.fault.start).as_secs_f64())
}

/// A 100 ms in which hardly anything was sent says nothing.
const BURST_ARRIVALS_MIN: usize = 50;

fn return_burst(evidence: &Evidence) -> Value {
    let span = evidence.fault.start..evidence.end;
    let fair = 1.0 / evidence.arrivals.len() as f64;
    let each = steps(&span, Duration::from_millis(100))
        .filter(|step| evidence.arrived_in_all(step) >= BURST_ARRIVALS_MIN)
        .map(|step| evidence.share(0, &step) / fair);
    match each.reduce(f64::max) {
        Some(worst) => Value::Number(worst),
        None => Value::Missing("too little was sent for shares of 100 ms"),
    }
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use hdrhistogram::Histogram;

    use super::*;
    use crate::driver::{Outcome, Sample};

    /// A request each 10 ms for 30 s; the fault lasts from 10 to 20.
    fn evidence(outcome: impl Fn(u64) -> Outcome, sent_to_first: impl Fn(u64) -> bool) -> Evidence {
        let at = |number: u64| Duration::from_millis(number * 10);
        let sample = |number| Sample {
            number: number as usize,
            at: at(number),
            late: Duration::ZERO,
            latency: Duration::from_millis(10),
            outcome: outcome(number),
            way: 0,
        };
        let of = |which| {
            let numbers = 0..3000;
            let sent = numbers.filter(|number| sent_to_first(*number) == which);
            sent.map(at).collect()
        };
        Evidence {
            samples: (0..3000).map(sample).collect(),
            arrivals: vec![of(true), of(false)],
            fault: Duration::from_secs(10)..Duration::from_secs(20),
            end: Duration::from_secs(30),
            capacity: 100.0,
            work: HashMap::new(),
            again: Vec::new(),
            begun_too_late: None,
            held: None,
            deadline: SECOND,
            late: Histogram::new(3).expect("fine bounds"),
            cpu: Duration::ZERO,
        }
    }

    const GOOD: Outcome = Outcome::Answered(200);

    /// It gets half until 10.2 s, a probe at 15 s, and half again from 23 s on.
    fn ejected_replica() -> Evidence {
        let sent = |number: u64| match number {
            1500 => true,
            1020..2300 => false,
            _ => number.is_multiple_of(2),
        };
        let failed = |number| matches!(number, 1000..1010 | 2005..2010);
        let outcome = move |number| match failed(number) {
            true => Outcome::Answered(503),
            false => GOOD,
        };
        evidence(outcome, sent)
    }

    #[test]
    fn ejection_is_the_last_request_before_the_silence_and_probes_are_counted_from_then() {
        let evidence = ejected_replica();
        assert_eq!(Figure::Ejected.of(&evidence), Value::Number(180.0));
        assert_eq!(Figure::SentAfterEjection.of(&evidence), Value::Number(1.0));
        assert_eq!(Figure::FairShareBack.of(&evidence), Value::Number(3.0));
    }

    #[test]
    fn a_replica_that_goes_on_getting_requests_is_not_ejected_and_one_that_gets_none_is_not_back() {
        let always = evidence(|_| GOOD, |number| number.is_multiple_of(2));
        assert_eq!(Figure::Ejected.of(&always), Value::Over(10_000.0));
        assert!(matches!(
            Figure::SentAfterEjection.of(&always),
            Value::Missing(_)
        ));
        let never_back = evidence(|_| GOOD, |number| number < 1000 && number.is_multiple_of(2));
        assert_eq!(Figure::FairShareBack.of(&never_back), Value::Over(10.0));
        assert_eq!(Figure::Ejected.of(&never_back), Value::Number(0.0));
    }

    #[test]
    fn success_is_counted_during_the_fault_and_the_worst_second_after_it() {
        let evidence = ejected_replica();
        assert_eq!(Figure::Success.of(&evidence), Value::Number(0.99));
        let Value::Number(worst) = Figure::WorstErrorsAfter.of(&evidence) else {
            panic!("it is a number");
        };
        assert!((worst - 0.05).abs() < 1e-9, "{worst}");
        assert_eq!(Figure::Amplification.of(&evidence), Value::Number(1.0));
        assert_eq!(Figure::Recovered.of(&evidence), Value::Number(1.0));
    }

    #[test]
    fn goodput_counts_what_came_in_time_and_converges_when_that_is_enough() {
        // From 12.5 s on it is as before.
        let evidence = evidence(
            |number| match number {
                1000..1250 => Outcome::Answered(503),
                _ => GOOD,
            },
            |_| true,
        );
        assert_eq!(Figure::Converged.of(&evidence), Value::Number(2.5));
        assert_eq!(Figure::WorstGoodput.of(&evidence), Value::Number(0.0));
        let Value::Number(goodput) = Figure::Goodput.of(&evidence) else {
            panic!("it is a number");
        };
        assert!((goodput - 7.5 / 9.0).abs() < 1e-9, "{goodput}");
        assert_eq!(Figure::RefusedBefore.of(&evidence), Value::Number(0.0));
    }

    /// Planted bug: counting answers in place of work turns this red.
    #[test]
    fn who_answers_what_is_short_and_fails_what_is_long_has_done_less_than_it_answered() {
        let mut evidence = evidence(
            |number| match number % 10 {
                0 => Outcome::Answered(504),
                _ => GOOD,
            },
            |_| true,
        );
        let work = |number: usize| if number.is_multiple_of(10) { 5.5 } else { 0.5 };
        evidence.work = (0..3000).map(|number| (number, work(number))).collect();
        let Value::Number(goodput) = Figure::Goodput.of(&evidence) else {
            panic!("it is a number");
        };
        assert!((goodput - 0.45).abs() < 1e-9, "{goodput}");
    }

    #[test]
    fn what_fails_until_the_end_has_not_recovered() {
        let storm = evidence(
            |number| if number < 1000 { GOOD } else { Outcome::GaveUp },
            |number| number.is_multiple_of(2),
        );
        assert_eq!(Figure::Recovered.of(&storm), Value::Over(10.0));
    }
}
