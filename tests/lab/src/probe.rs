//! When a container counts as started, ready, or dead: the kubelet's arithmetic, without a clock.

use std::time::Duration;

use crate::spec::Probe;

/// Turns single results into a verdict: it flips only after so many equal results in a row.
#[derive(Debug)]
pub struct Tally {
    success_threshold: u32,
    failure_threshold: u32,
    run: u32,
    last: bool,
    verdict: Option<bool>,
}

impl Tally {
    pub fn new(probe: &Probe) -> Self {
        Self {
            success_threshold: probe.success_threshold.max(1),
            failure_threshold: probe.failure_threshold.max(1),
            run: 0,
            last: false,
            verdict: None,
        }
    }

    /// The new verdict, when this result changed it.
    pub fn record(&mut self, success: bool) -> Option<bool> {
        self.run = if self.run > 0 && self.last == success {
            self.run.saturating_add(1)
        } else {
            1
        };
        self.last = success;
        let needed = if success {
            self.success_threshold
        } else {
            self.failure_threshold
        };
        if self.run < needed || self.verdict == Some(success) {
            return None;
        }
        self.verdict = Some(success);
        self.verdict
    }
}

/// Pauses between restarts of a container that keeps ending: none before the first, then
/// doubling up to a cap, forgotten after a while of health. A cluster starts at 10 s and caps at
/// 5 min; a lab's patience is shorter.
#[derive(Debug, Default)]
pub struct Backoff {
    restarts: u32,
}

impl Backoff {
    const BASE: Duration = Duration::from_secs(1);
    const CAP: Duration = Duration::from_secs(20);
    const FORGIVEN_AFTER: Duration = Duration::from_secs(60);

    /// How long to wait before the next start of what just ran for `ran`.
    pub fn after(&mut self, ran: Duration) -> Duration {
        if ran >= Self::FORGIVEN_AFTER {
            self.restarts = 0;
        }
        let pause = match self.restarts {
            0 => Duration::ZERO,
            n => Self::BASE
                .saturating_mul(1 << (n - 1).min(16))
                .min(Self::CAP),
        };
        self.restarts = self.restarts.saturating_add(1);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readiness_is_lost_only_after_as_many_failures_in_a_row_as_the_probe_says() {
        let mut tally = Tally::new(&Probe::default());
        assert_eq!(tally.record(true), Some(true));
        assert_eq!(tally.record(false), None);
        assert_eq!(tally.record(false), None);
        assert_eq!(
            tally.record(true),
            None,
            "a success in between starts the count again"
        );
        assert_eq!(tally.record(false), None);
        assert_eq!(tally.record(false), None);
        assert_eq!(tally.record(false), Some(false));
        assert_eq!(tally.record(false), None, "a verdict is told once");
        assert_eq!(tally.record(true), Some(true));
    }

    #[test]
    fn a_crash_loop_waits_longer_each_time_up_to_a_cap_and_is_forgiven_after_a_minute_of_health() {
        let mut backoff = Backoff::default();
        let second = Duration::from_secs(1);
        let pauses: Vec<u64> = (0..8).map(|_| backoff.after(second).as_secs()).collect();
        assert_eq!(pauses, [0, 1, 2, 4, 8, 16, 20, 20]);
        assert_eq!(backoff.after(Duration::from_secs(61)), Duration::ZERO);
    }
}
