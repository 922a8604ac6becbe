//! Targets, and whether the median of the repeats reaches them.

use crate::figure::{Unit, Value};

/// What resilience.md section 12 asks for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bound {
    AtLeast(f64),
    AtMost(f64),
    /// It is only shown.
    None,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Met,
    Missed,
    /// There is no target, or nothing to judge.
    Unknown,
}

/// One figure over all repeats.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    pub median: Value,
    pub least: f64,
    pub greatest: f64,
    pub repeats: usize,
}

impl Bound {
    pub fn judge(self, spread: &Spread) -> Verdict {
        let holds = match (self, spread.median) {
            (Self::None, _) | (_, Value::Missing(_)) => return Verdict::Unknown,
            (Self::AtLeast(least), Value::Number(number)) => number >= least,
            (Self::AtMost(most), Value::Number(number)) => number <= most,
            // What took longer than was watched may be anything above.
            (Self::AtLeast(_), Value::Over(_)) => true,
            (Self::AtMost(_), Value::Over(_)) => false,
        };
        if holds { Verdict::Met } else { Verdict::Missed }
    }

    pub fn text(self, unit: Unit) -> String {
        match self {
            Self::AtLeast(least) => format!("≥ {}", number(least, unit)),
            Self::AtMost(most) => format!("≤ {}", number(most, unit)),
            Self::None => String::new(),
        }
    }
}

impl Spread {
    /// `None` without a repeat.
    pub fn of(values: &[Value]) -> Option<Self> {
        let reason = values.iter().find_map(|value| match value {
            Value::Missing(reason) => Some(*reason),
            _ => None,
        });
        let mut known: Vec<Value> = values.to_vec();
        known.retain(|value| !matches!(value, Value::Missing(_)));
        known.sort_by(|one, other| rank(*one).total_cmp(&rank(*other)));
        match (known.first(), known.last(), reason) {
            (Some(least), Some(greatest), _) => Some(Self {
                median: known[(known.len() - 1) / 2],
                least: rank(*least),
                greatest: rank(*greatest),
                repeats: known.len(),
            }),
            (_, _, Some(reason)) => Some(Self {
                median: Value::Missing(reason),
                least: f64::NAN,
                greatest: f64::NAN,
                repeats: 0,
            }),
            _ => None,
        }
    }

    /// `99.98 % (99.97–100)`; `None`: nothing is known.
    pub fn text(&self, unit: Unit) -> Option<String> {
        let median = match self.median {
            Value::Number(median) => number(median, unit),
            Value::Over(watched) => format!("> {}", number(watched, unit)),
            Value::Missing(_) => return None,
        };
        match self.repeats {
            1 => Some(median),
            _ => Some(format!(
                "{median} ({}–{})",
                digits(self.least, unit),
                digits(self.greatest, unit)
            )),
        }
    }
}

fn rank(value: Value) -> f64 {
    match value {
        Value::Number(number) | Value::Over(number) => number,
        Value::Missing(_) => f64::NAN,
    }
}

fn number(value: f64, unit: Unit) -> String {
    let digits = digits(value, unit);
    match unit {
        Unit::Percent => format!("{digits} %"),
        Unit::Milliseconds => format!("{digits} ms"),
        Unit::Seconds => format!("{digits} s"),
        Unit::Times => format!("{digits} ×"),
        Unit::Count => digits,
    }
}

/// As many as tell two results apart, and no zeros behind them.
fn digits(value: f64, unit: Unit) -> String {
    let (value, places) = match unit {
        Unit::Percent => (value * 100.0, 3),
        Unit::Times => (value, 3),
        Unit::Milliseconds | Unit::Seconds | Unit::Count => (value, 1),
    };
    let text = format!("{value:.places$}");
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spread(values: &[f64]) -> Spread {
        let values: Vec<Value> = values.iter().copied().map(Value::Number).collect();
        Spread::of(&values).expect("there are some")
    }

    /// Planted bug: judging the least in place of the median turns this red.
    #[test]
    fn the_median_is_judged_and_the_spread_is_shown() {
        let success = spread(&[0.9999, 0.9989, 1.0]);
        assert_eq!(Bound::AtLeast(0.9995).judge(&success), Verdict::Met);
        assert_eq!(Bound::AtLeast(0.99999).judge(&success), Verdict::Missed);
        let text = success.text(Unit::Percent);
        assert_eq!(text.as_deref(), Some("99.99 % (99.89–100)"));
        assert_eq!(spread(&[2.0]).text(Unit::Count).as_deref(), Some("2"));
    }

    #[test]
    fn of_an_even_number_of_repeats_the_lower_of_the_middle_two_is_shown() {
        assert_eq!(spread(&[4.0, 1.0, 2.0, 3.0]).median, Value::Number(2.0));
    }

    #[test]
    fn what_never_came_about_misses_and_what_cannot_be_known_is_not_judged() {
        let never = Spread::of(&[Value::Over(25.0)]).expect("there is one");
        assert_eq!(Bound::AtMost(20.0).judge(&never), Verdict::Missed);
        assert_eq!(never.text(Unit::Seconds).as_deref(), Some("> 25 s"));
        let unknown = Spread::of(&[Value::Missing("why")]).expect("there is one");
        assert_eq!(Bound::AtMost(20.0).judge(&unknown), Verdict::Unknown);
        assert_eq!(unknown.text(Unit::Seconds), None);
        assert_eq!(Spread::of(&[]), None);
    }
}
