//! Requests per second, constant or in steps: `50`, or `50,200@10s,50@20s`.

use std::fmt;
use std::str::FromStr;

use crate::bounds::Refused;
use crate::span::parse_span;

const PER_SECOND_MAX: f64 = 50_000.0;

/// From each step's time on, so many a second. The first step begins at 0.
#[derive(Clone, Debug, PartialEq)]
pub struct Rate(Vec<Step>);

#[derive(Clone, Copy, Debug, PartialEq)]
struct Step {
    from_seconds: f64,
    per_second: f64,
}

impl Rate {
    pub fn constant(per_second: f64) -> Result<Self, Refused> {
        Self::steps([(0.0, per_second)])
    }

    /// Pairs of (seconds since the start, requests per second). A rate of 0 is a pause.
    pub fn steps(steps: impl IntoIterator<Item = (f64, f64)>) -> Result<Self, Refused> {
        let steps: Vec<_> = steps
            .into_iter()
            .map(|(from_seconds, per_second)| Step {
                from_seconds,
                per_second,
            })
            .collect();
        if steps.first().is_none_or(|first| first.from_seconds != 0.0) {
            return Err(Refused::new("the first rate begins at 0s"));
        }
        if !steps.is_sorted_by(|a, b| a.from_seconds < b.from_seconds) {
            return Err(Refused::new("the steps of a rate go forward in time"));
        }
        let in_range = |step: &Step| (0.0..=PER_SECOND_MAX).contains(&step.per_second);
        if !steps.iter().all(in_range) || steps.iter().all(|step| step.per_second == 0.0) {
            return Err(Refused::new(format!(
                "a rate is 0 to {PER_SECOND_MAX} requests per second, and somewhere more than 0"
            )));
        }
        Ok(Self(steps))
    }

    /// When `requests` more are due, counted from `seconds`. None when the rate stays at 0 for good.
    pub(crate) fn advance(&self, seconds: f64, mut requests: f64) -> Option<f64> {
        let mut now = seconds;
        for (index, step) in self.0.iter().enumerate() {
            let until = self.0.get(index + 1).map(|next| next.from_seconds);
            if until.is_some_and(|until| until <= now) {
                continue;
            }
            let room = until.map_or(f64::INFINITY, |until| until - now) * step.per_second;
            // At rate 0 and without an end the room is NaN, which no comparison is true for.
            if step.per_second > 0.0 && requests <= room {
                return Some(now + requests / step.per_second);
            }
            requests -= room;
            now = until?;
        }
        None
    }
}

impl FromStr for Rate {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        let refuse = || {
            Refused::new(format!(
                "{text:?} is no rate like 50 or 50,200@10s (200 a second from the 10th second on)"
            ))
        };
        let steps = text.split(',').map(|step| {
            let (rate, from) = step.split_once('@').unwrap_or((step, "0s"));
            let per_second = rate.trim().parse().map_err(|_| refuse())?;
            let from_seconds = parse_span(from).map_err(|_| refuse())?.as_secs_f64();
            Ok((from_seconds, per_second))
        });
        Self::steps(steps.collect::<Result<Vec<_>, Refused>>()?)
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, step) in self.0.iter().enumerate() {
            match index {
                0 => write!(f, "{}", step.per_second)?,
                _ => write!(f, ",{}@{}s", step.per_second, step.from_seconds)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_passes_faster_where_the_rate_is_higher() {
        let rate: Rate = "10,100@1s,0@2s,10@3s".parse().expect("valid");
        assert_eq!(rate.advance(0.0, 5.0), Some(0.5));
        assert_eq!(rate.advance(0.5, 5.0), Some(1.0));
        assert_eq!(rate.advance(0.5, 55.0), Some(1.5));
        // 100 until 2 s, a pause, and the rest of it at 10 a second.
        assert_eq!(rate.advance(1.0, 110.0), Some(4.0));
        assert_eq!(rate.advance(10.0, 1.0), Some(10.1));
    }

    #[test]
    fn a_rate_that_ends_at_zero_has_no_next_request() {
        let rate: Rate = "10,0@1s".parse().expect("valid");
        assert_eq!(rate.advance(0.95, 1.0), None);
    }

    #[test]
    fn what_is_no_rate_is_refused() {
        for text in [
            "",
            "x",
            "-1",
            "0",
            "NaN",
            "inf",
            "1e9",
            "10@5s",
            "10,20@2s,30@1s",
            "10,20@2",
        ] {
            text.parse::<Rate>().expect_err(text);
        }
    }

    #[test]
    fn a_rate_shows_as_it_is_written() {
        let rate: Rate = "50,200@10s,50@20s".parse().expect("valid");
        assert_eq!(rate.to_string(), "50,200@10s,50@20s");
    }
}
