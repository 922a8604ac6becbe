//! Spans of time as people write them.

mod meant;

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::str::FromStr;
use std::time::Duration as StdDuration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A span of time written as `250ms`, `2s` or `1m30s` (Gateway API GEP-2257, of which `h`, `m`, `s`, `ms`, each at
/// most once and in that order; at least 1 ms, at most 99999 h). Routes of that API have [all of it](Duration::from_route).
#[derive(Clone, Copy)]
pub struct Duration {
    time: StdDuration,
    /// How many of each of [`UNITS`], for `1500ms` to be told as `1500ms`.
    written: [u32; UNITS.len()],
}

/// Of GEP-2257: numbers with a unit, and digits of each.
const PARTS_MAX: usize = 4;
const DIGITS_MAX: usize = 5;

/// From large to small, with their milliseconds.
const UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

impl Duration {
    pub(crate) const PATTERN: &str = "^([0-9]{1,5}h)?([0-9]{1,5}m)?([0-9]{1,5}s)?([0-9]{1,5}ms)?$";
    /// What five digits can say, so that whatever was read can be written.
    const LONGEST: Self = Self::from_secs(99_999 * 3_600);

    pub const fn from_millis(millis: u64) -> Self {
        let [(_, hour), (_, minute), (_, second), _] = UNITS;
        Self {
            time: StdDuration::from_millis(millis),
            written: [
                (millis / hour) as u32,
                (millis % hour / minute) as u32,
                (millis % minute / second) as u32,
                (millis % second) as u32,
            ],
        }
    }

    pub const fn from_secs(secs: u64) -> Self {
        Self::from_millis(secs * 1000)
    }

    pub const fn get(self) -> StdDuration {
        self.time
    }

    /// At least a millisecond, as all are.
    pub fn half(self) -> Self {
        let millis = u64::try_from(self.time.as_millis()).unwrap_or(u64::MAX);
        Self::from_millis((millis / 2).max(1))
    }
}

/// However it is written.
impl PartialEq for Duration {
    fn eq(&self, other: &Self) -> bool {
        self.time == other.time
    }
}

impl Eq for Duration {}

impl PartialOrd for Duration {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Duration {
    fn cmp(&self, other: &Self) -> Ordering {
        self.time.cmp(&other.time)
    }
}

impl Hash for Duration {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.time.hash(state);
    }
}

impl Deref for Duration {
    type Target = StdDuration;

    fn deref(&self) -> &StdDuration {
        &self.time
    }
}

impl FromStr for Duration {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| {
            let shown: String = text.chars().take(40).collect();
            format!("expected {}, found {shown:?}{why}", Self::EXPECTED)
        };
        let mut rest = text;
        let mut millis: u64 = 0;
        let mut written = [0; UNITS.len()];
        let mut next_unit = 0;
        while !rest.is_empty() {
            let (number, unit, tail) = first_part(rest);
            if !(1..=DIGITS_MAX).contains(&number.len()) {
                return Err(wrong(""));
            }
            let Some(place) = UNITS.iter().position(|(known, _)| *known == unit) else {
                return Err(match unit {
                    "" if !tail.is_empty() => wrong(""),
                    "" => wrong(": the unit is missing"),
                    _ => wrong(&format!(": unknown unit {unit:?}")),
                });
            };
            if place < next_unit {
                return Err(wrong(": units go from large to small, each once"));
            }
            next_unit = place + 1;
            written[place] = number.parse().map_err(|_| wrong(""))?;
            millis += u64::from(written[place]) * UNITS[place].1;
            rest = tail;
        }
        let duration = Self {
            written,
            ..Self::from_millis(millis)
        };
        match duration {
            _ if millis == 0 => Err(wrong(": it must be longer than zero")),
            long if long > Self::LONGEST => Err(wrong(": it is longer than 99999h")),
            duration => Ok(duration),
        }
    }
}

/// A number, its unit, and what comes after it.
fn first_part(text: &str) -> (&str, &str, &str) {
    let tail = text.trim_start_matches(|c: char| c.is_ascii_digit());
    let rest = tail.trim_start_matches(|c: char| c.is_ascii_alphabetic());
    let (number, unit) = (text.len() - tail.len(), tail.len() - rest.len());
    (&text[..number], &tail[..unit], rest)
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let said = self.written.iter().zip(UNITS);
        for (number, (unit, _)) in said.filter(|(number, _)| **number > 0) {
            write!(f, "{number}{unit}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Duration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Duration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Text { of_route: false })
    }
}

struct Text {
    of_route: bool,
}

impl de::Visitor<'_> for Text {
    type Value = Duration;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Duration::EXPECTED)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Duration, E> {
        match self.of_route {
            true => Duration::from_route(text)?.map_or_else(|| Duration::from_text(text), Ok),
            false => Duration::from_text(text),
        }
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Duration, E> {
        Err(Duration::without_unit(number as f64))
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Duration, E> {
        Err(Duration::without_unit(number as f64))
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<Duration, E> {
        Err(Duration::without_unit(number))
    }
}

/// Reading what people write. The first line of an error says what was expected and found, a second what to write
/// instead.
impl Duration {
    pub(crate) const EXPECTED: &str = "a duration such as 250ms, 2s or 1m30s";

    pub(crate) fn from_text<E: de::Error>(text: &str) -> Result<Self, E> {
        text.parse().map_err(|reason: String| {
            let shown: String = text.chars().take(40).collect();
            let found = format!("expected {}, found {shown:?}", Self::EXPECTED);
            E::custom(match (Self::meant(text), Self::millis_meant(text)) {
                (Some(meant), _) => format!("{found}\nwrite it as {meant}"),
                (None, Some(millis)) => format!("{found}: {}", Self::out_of_bounds(millis)),
                (None, None) => match text.trim().parse::<f64>() {
                    Ok(number) => format!("{found}: {}", Self::with_unit(number)),
                    Err(_) => reason,
                },
            })
        })
    }

    /// As fields of the Gateway API have it: up to four numbers with a unit, in any order, added up. `None`: they come to zero.
    pub(crate) fn from_route<E: de::Error>(text: &str) -> Result<Option<Self>, E> {
        if let Ok(duration) = text.parse() {
            return Ok(Some(duration)); // told as it is written
        }
        match Self::sum(text) {
            Some(0) => Ok(None),
            // Eleven years or forty: nobody waits for either.
            Some(millis) => Ok(Some(Self::from_millis(millis).min(Self::LONGEST))),
            None => Self::from_text(text).map(Some),
        }
    }

    /// The same of one that may not be zero.
    pub(crate) fn of_route<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Text { of_route: true })
    }

    /// In milliseconds.
    fn sum(text: &str) -> Option<u64> {
        let (mut rest, mut parts, mut millis) = (text, 0, 0);
        while !rest.is_empty() {
            let (number, unit, tail) = first_part(rest);
            let (_, scale) = UNITS.iter().find(|(known, _)| *known == unit)?;
            parts += 1;
            if parts > PARTS_MAX || number.len() > DIGITS_MAX {
                return None;
            }
            millis += number.parse::<u64>().ok()? * scale;
            rest = tail;
        }
        (parts > 0).then_some(millis)
    }

    pub(crate) fn without_unit<E: de::Error>(number: f64) -> E {
        E::custom(format!(
            "expected {}, found the number {number}: {}",
            Self::EXPECTED,
            Self::with_unit(number)
        ))
    }
}

impl JsonSchema for Duration {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "pattern": Self::PATTERN,
            "minLength": 2,
            "maxLength": 24,
            "description": "A duration such as 250ms, 2s or 1m30s (GEP-2257)."
        })
    }
}

#[cfg(test)]
mod tests {
    use serde::de::value;

    use super::*;

    #[test]
    fn a_duration_is_what_gep_2257_says() {
        for (text, millis) in [
            ("250ms", 250),
            ("2s", 2_000),
            ("1m30s", 90_000),
            ("1h1ms", 3_600_001),
            ("1500ms", 1_500),
            ("90s", 90_000),
        ] {
            let parsed: Duration = text.parse().expect(text);
            assert_eq!(parsed, Duration::from_millis(millis));
            assert_eq!(parsed.to_string(), text, "it is written as it was read");
        }
    }

    #[test]
    fn two_ways_to_write_a_duration_are_one_duration() {
        let [one, other]: [Duration; 2] = ["90s", "1m30s"].map(|text| text.parse().expect(text));
        assert_eq!(one, other);
        assert_eq!(one, Duration::from_secs(90));
        assert!(one < "90001ms".parse().expect("a duration"));
        assert_eq!(Duration::from_millis(90_500).to_string(), "1m30s500ms");
    }

    #[test]
    fn a_duration_without_a_meaning_is_refused() {
        for text in [
            "", "0s", "5", "s", "-1s", "1.5s", "1s1m", "1s1s", "123456s", "1d", "1 s", "1ns",
        ] {
            assert!(text.parse::<Duration>().is_err(), "{text:?} was accepted");
        }
    }

    /// The examples of GEP-2257. Routes with the last few of them were refused.
    #[test]
    fn a_route_may_write_all_that_gep_2257_allows() {
        let read = |text: &str| Duration::from_route::<value::Error>(text);
        for (text, seconds) in [
            ("1h", 3_600.0),
            ("30m", 1_800.0),
            ("10s", 10.0),
            ("500ms", 0.5),
            ("2h30m", 9_000.0),
            ("150m", 9_000.0),
            ("7230s", 7_230.0),
            ("1h30m10s", 5_410.0),
            ("10s30m1h", 5_410.0),
            ("100ms200ms300ms", 0.6),
            ("99999ms99999ms", 199.998),
            ("99999h99999h", 359_996_400.0),
        ] {
            let duration = read(text).expect(text).expect("it is not zero");
            assert_eq!(duration.as_secs_f64(), seconds, "{text}");
            assert_eq!(
                duration.to_string().parse(),
                Ok(duration),
                "{text}: told to sidecars"
            );
        }
        for zero in ["0h", "0s", "0h0m0s", "00000ms", "0s0s0s0s"] {
            assert_eq!(read(zero), Ok(None), "{zero}");
        }
        for text in [
            "",
            "1",
            "1m1",
            "1h30m10s20ms50h",
            "999999h",
            "1.5h",
            "-15m",
            "s",
            "1d",
            "1s 1s",
            "0s0s0s0s0s",
        ] {
            assert!(read(text).is_err(), "{text:?} was accepted");
        }
    }

    #[test]
    fn the_longest_duration_can_be_written_and_read_again() {
        let longest: Duration = "99998h59m59s999ms".parse().expect("it fits");
        assert_eq!(longest.to_string().parse(), Ok(longest));
        assert!(
            "99999h60m".parse::<Duration>().is_err(),
            "a hundred thousand hours do not"
        );
    }
}
