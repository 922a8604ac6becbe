//! One request of a run. There may be millions: times are microseconds in 32 bits, enough for 71 minutes,
//! and no run with its last timeout is longer than 61.

use std::time::Duration;

use serde::Serialize;

use crate::outcome::{Class, Outcome};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    intended_us: u32,
    start_us: u32,
    end_us: u32,
    journey: u16,
    outcome: Outcome,
}

impl Sample {
    /// Times since the start of the run.
    pub(crate) fn new(
        journey: u16,
        intended: Duration,
        start: Duration,
        end: Duration,
        outcome: Outcome,
    ) -> Self {
        Self {
            intended_us: micros(intended),
            start_us: micros(start),
            end_us: micros(end),
            journey,
            outcome,
        }
    }

    /// When it was meant to be sent.
    pub fn intended(&self) -> Duration {
        Duration::from_micros(self.intended_us.into())
    }

    /// When it was sent; when it was dropped, if it was.
    pub fn start(&self) -> Duration {
        Duration::from_micros(self.start_us.into())
    }

    /// When the last byte of the answer was there, or the failure.
    pub fn end(&self) -> Duration {
        Duration::from_micros(self.end_us.into())
    }

    /// Index into the report's journeys.
    pub fn journey(&self) -> u16 {
        self.journey
    }

    pub fn class(&self) -> Class {
        self.outcome.class()
    }

    /// HTTP status, or gRPC status in a gRPC run; None when there was no answer.
    pub fn status(&self) -> Option<u16> {
        self.outcome.status()
    }

    /// Whether the answer said when to come back.
    pub fn retry_after(&self) -> bool {
        self.outcome.retry_after()
    }

    /// `status 503`, `no connection`, …
    pub fn why(&self) -> String {
        self.outcome.why()
    }

    /// From the intended time: what a visitor would have waited.
    pub(crate) fn latency_us(&self) -> u64 {
        self.end_us.saturating_sub(self.intended_us).into()
    }

    /// How late the generator itself was, or had to be.
    pub(crate) fn lag_us(&self) -> u64 {
        self.start_us.saturating_sub(self.intended_us).into()
    }

    /// A line of JSONL: seconds since the start.
    pub fn line<'a>(&self, journeys: &'a [String]) -> impl Serialize + 'a {
        #[derive(Serialize)]
        struct Line<'a> {
            t_intended: f64,
            t_start: f64,
            t_end: f64,
            journey: &'a str,
            status: Option<u16>,
            class: Class,
            why: String,
            retry_after: bool,
        }
        Line {
            t_intended: self.intended().as_secs_f64(),
            t_start: self.start().as_secs_f64(),
            t_end: self.end().as_secs_f64(),
            journey: &journeys[usize::from(self.journey)],
            status: self.status(),
            class: self.class(),
            why: self.why(),
            retry_after: self.retry_after(),
        }
    }
}

fn micros(time: Duration) -> u32 {
    u32::try_from(time.as_micros()).unwrap_or(u32::MAX)
}
