//! How much a run may do. Each bound has a ceiling, so that no run is unbounded by mistake.

use std::time::Duration;

use crate::span::show_span;

const DURATION_MAX: Duration = Duration::from_secs(60 * 60);
const TIMEOUT_MAX: Duration = Duration::from_secs(60);
const IN_FLIGHT_MAX: usize = 16_384;
const REQUESTS_MAX: u64 = 5_000_000;

/// Why a plan cannot be made: for the operator, and never after the run began.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refused(String);

impl Refused {
    /// For what uses this library to refuse in the same words.
    pub fn new(why: impl Into<String>) -> Self {
        Self(why.into())
    }
}

/// The end of a run, and how much there may be before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    duration: Duration,
    timeout: Duration,
    max_in_flight: usize,
    max_requests: u64,
}

impl Bounds {
    /// A run of this length with 5 s for a request, 512 requests at once and a million in all.
    pub fn new(duration: Duration) -> Result<Self, Refused> {
        between("duration", duration, DURATION_MAX)?;
        Ok(Self {
            duration,
            timeout: Duration::from_secs(5),
            max_in_flight: 512,
            max_requests: 1_000_000,
        })
    }

    /// How long a request may take from when it is sent.
    pub fn timeout(self, timeout: Duration) -> Result<Self, Refused> {
        between("timeout", timeout, TIMEOUT_MAX)?;
        Ok(Self { timeout, ..self })
    }

    /// Requests at once; what exceeds it is dropped, and counted.
    pub fn max_in_flight(self, max_in_flight: usize) -> Result<Self, Refused> {
        match (1..=IN_FLIGHT_MAX).contains(&max_in_flight) {
            true => Ok(Self {
                max_in_flight,
                ..self
            }),
            false => Err(Refused::new(format!(
                "max-in-flight must be 1 to {IN_FLIGHT_MAX}"
            ))),
        }
    }

    /// Requests in all; the run ends with the last of them, should that come before its time is over.
    pub fn max_requests(self, max_requests: u64) -> Result<Self, Refused> {
        match (1..=REQUESTS_MAX).contains(&max_requests) {
            true => Ok(Self {
                max_requests,
                ..self
            }),
            false => Err(Refused::new(format!(
                "max-requests must be 1 to {REQUESTS_MAX}"
            ))),
        }
    }

    pub(crate) fn end(&self) -> Duration {
        self.duration
    }

    pub(crate) fn request_timeout(&self) -> Duration {
        self.timeout
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.max_in_flight
    }

    pub(crate) fn requests(&self) -> u64 {
        self.max_requests
    }
}

fn between(what: &str, span: Duration, max: Duration) -> Result<(), Refused> {
    match span > Duration::ZERO && span <= max {
        true => Ok(()),
        false => Err(Refused::new(format!(
            "{what} must be more than nothing and at most {}",
            show_span(max)
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_without_an_end() {
        Bounds::new(Duration::ZERO).expect_err("no time at all");
        Bounds::new(DURATION_MAX + Duration::from_millis(1)).expect_err("more than an hour");
        let bounds = Bounds::new(DURATION_MAX).expect("an hour");
        bounds
            .timeout(Duration::ZERO)
            .expect_err("no request could be ok");
        bounds
            .timeout(TIMEOUT_MAX * 2)
            .expect_err("longer than any deadline");
        bounds.max_in_flight(0).expect_err("no request could start");
        bounds.max_in_flight(usize::MAX).expect_err("unbounded");
        bounds.max_requests(0).expect_err("nothing to do");
        bounds.max_requests(u64::MAX).expect_err("unbounded");
    }
}
