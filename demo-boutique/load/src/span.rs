//! Durations as people write them: `250ms`, `30s`, `1m30s`, `1h`.

use std::time::Duration;

use crate::bounds::Refused;

/// Longest first where one unit starts like another.
const UNITS: [(&str, f64); 5] = [
    ("ms", 0.001),
    ("us", 0.000_001),
    ("h", 3600.0),
    ("m", 60.0),
    ("s", 1.0),
];

/// Reads numbers with units, one after the other. A number without a unit is refused: it would be a guess.
pub fn parse_span(text: &str) -> Result<Duration, Refused> {
    let refuse = || Refused::new(format!("{text:?} is no duration like 250ms, 30s or 1m30s"));
    let mut seconds = 0.0;
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(refuse());
    }
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .ok_or_else(refuse)?;
        let (number, tail) = rest.split_at(digits);
        let number: f64 = number.parse().map_err(|_| refuse())?;
        let unit = UNITS.iter().find(|(unit, _)| tail.starts_with(unit));
        let (unit, factor) = unit.ok_or_else(refuse)?;
        seconds += number * factor;
        rest = &tail[unit.len()..];
    }
    Duration::try_from_secs_f64(seconds).map_err(|_| refuse())
}

pub(crate) fn show_span(span: Duration) -> String {
    match span.as_secs() {
        seconds if seconds > 0 && seconds % 3600 == 0 => format!("{}h", seconds / 3600),
        seconds if seconds > 0 && seconds % 60 == 0 => format!("{}m", seconds / 60),
        _ => format!("{}s", span.as_secs_f64()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_read_as_people_write_them() {
        for (text, milliseconds) in [
            ("250ms", 250),
            ("30s", 30_000),
            ("1.5s", 1_500),
            ("1m30s", 90_000),
            ("1h", 3_600_000),
            ("0s", 0),
        ] {
            assert_eq!(
                parse_span(text),
                Ok(Duration::from_millis(milliseconds)),
                "{text}"
            );
        }
        for text in [
            "",
            "30",
            "s",
            "-1s",
            "1 s",
            "1d",
            "1s2",
            "1e3s",
            "..s",
            "99999999999999999999h",
        ] {
            parse_span(text).expect_err(text);
        }
    }
}
