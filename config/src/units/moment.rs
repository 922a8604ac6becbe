//! Points in time as people and the API server write them.

use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A point in time written as `2026-11-26T04:30:00Z` (RFC 3339 in UTC, to the second; fractions are read and dropped).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment {
    /// Since the Unix epoch.
    seconds: u64,
}

impl Moment {
    const EXPECTED: &str = "a time in UTC such as 2026-11-26T04:30:00Z";

    pub const fn unix_millis(self) -> u64 {
        self.seconds * 1000
    }

    /// What is surely a point in time, written otherwise: with a blank, without seconds, with the offset of a zone.
    fn meant(text: &str) -> Option<Self> {
        let text = text.trim().to_ascii_uppercase().replacen(' ', "T", 1);
        let text = text.strip_suffix('Z').unwrap_or(&text);
        let (date, time) = text.split_once('T')?;
        let zone = time.find(['+', '-']).unwrap_or(time.len());
        let (time, zone) = time.split_at(zone);
        let seconds = if time.len() == 5 { ":00" } else { "" };
        let there: Self = format!("{date}T{time}{seconds}Z").parse().ok()?;
        let Some((hours, minutes)) = zone.get(1..).and_then(|zone| zone.split_once(':')) else {
            return zone.is_empty().then_some(there);
        };
        let (hours, minutes): (u64, u64) = (hours.parse().ok()?, minutes.parse().ok()?);
        let ahead = (hours < 24 && minutes < 60).then_some(hours * 3600 + minutes * 60)?;
        let seconds = match zone.starts_with('+') {
            true => there.seconds.checked_sub(ahead)?,
            false => there.seconds + ahead,
        };
        Some(Self { seconds })
    }
}

impl FromStr for Moment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            let shown: String = text.chars().take(40).collect();
            format!("expected {}, found {shown:?}", Self::EXPECTED)
        };
        let fields = text.strip_suffix('Z').ok_or_else(wrong)?;
        let (date, time) = fields.split_once('T').ok_or_else(wrong)?;
        let (time, fraction) = time.split_once('.').unwrap_or((time, "0"));
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        let [year, month, day] = numbers(date, '-', [4, 2, 2]).ok_or_else(wrong)?;
        let [hour, minute, second] = numbers(time, ':', [2, 2, 2]).ok_or_else(wrong)?;
        let fits = (1970..=9999).contains(&year)
            && (1..=12).contains(&month)
            && (1..=days_in(year, month)).contains(&day)
            && hour < 24
            && minute < 60
            && second < 60
            && (1..=9).contains(&fraction.len())
            && digits(fraction);
        if !fits {
            return Err(wrong());
        }
        let seconds = days_since_epoch(year, month, day) * 86_400;
        let seconds = seconds + hour * 3600 + minute * 60 + second;
        Ok(Self { seconds })
    }
}

/// Exactly these many digits each.
fn numbers(text: &str, between: char, lengths: [usize; 3]) -> Option<[u64; 3]> {
    let mut parts = text.split(between);
    let mut numbers = [0; 3];
    for (number, length) in numbers.iter_mut().zip(lengths) {
        let part = parts.next()?;
        let digits = part.bytes().all(|byte| byte.is_ascii_digit());
        *number = (part.len() == length && digits)
            .then(|| part.parse().ok())
            .flatten()?;
    }
    parts.next().is_none().then_some(numbers)
}

const fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

const fn days_in(year: u64, month: u64) -> u64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

fn days_since_epoch(year: u64, month: u64, day: u64) -> u64 {
    let leaps = |before: u64| before / 4 - before / 100 + before / 400;
    let years = (year - 1970) * 365 + leaps(year - 1) - leaps(1969);
    let months: u64 = (1..month).map(|month| days_in(year, month)).sum();
    years + months + day - 1
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut days, second) = (self.seconds / 86_400, self.seconds % 86_400);
        let mut year = 1970 + days / 366;
        while days_since_epoch(year + 1, 1, 1) <= days {
            year += 1;
        }
        days -= days_since_epoch(year, 1, 1);
        let mut month = 1;
        while days >= days_in(year, month) {
            days -= days_in(year, month);
            month += 1;
        }
        let (day, hour, minute) = (days + 1, second / 3600, second / 60 % 60);
        let second = second % 60;
        write!(
            f,
            "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z"
        )
    }
}

impl fmt::Debug for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Moment {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Moment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl de::Visitor<'_> for Text {
            type Value = Moment;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(Moment::EXPECTED)
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Moment, E> {
                text.parse().map_err(|wrong: String| {
                    E::custom(match Moment::meant(text) {
                        Some(meant) => format!("{wrong}\nwrite {meant}"),
                        None => wrong,
                    })
                })
            }
        }
        deserializer.deserialize_str(Text)
    }
}

impl JsonSchema for Moment {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Moment".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "maxLength": 40,
            "pattern": r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?Z$"
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_read_and_written_as_rfc_3339_says() {
        for (text, seconds) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2000-02-29T00:00:00Z", 951_782_400),
            ("2026-11-23T09:14:05Z", 1_795_425_245),
            ("2100-02-28T23:59:59Z", 4_107_542_399),
            ("9999-12-31T23:59:59Z", 253_402_300_799),
        ] {
            let moment: Moment = text.parse().expect("a time");
            assert_eq!(moment.seconds, seconds, "{text}");
            assert_eq!(moment.to_string(), text);
        }
        let fraction: Moment = "2026-11-23T09:14:05.120Z".parse().expect("a time");
        assert_eq!(fraction.unix_millis(), 1_795_425_245_000);
    }

    #[test]
    fn a_moment_written_otherwise_is_recognised() {
        for (text, meant) in [
            ("2027-01-01T00:00:00+02:00", Some("2026-12-31T22:00:00Z")),
            ("2027-01-01T00:00:00-05:30", Some("2027-01-01T05:30:00Z")),
            ("2027-01-01 00:00:00", Some("2027-01-01T00:00:00Z")),
            ("2027-01-01t00:00z", Some("2027-01-01T00:00:00Z")),
            ("2027-01-01", None),
            ("2027-02-30T00:00:00", None),
            ("1970-01-01T00:00:00+01:00", None),
            ("2027-01-01T00:00:00+é1:00", None),
            ("tomorrow", None),
        ] {
            let told = Moment::meant(text).map(|moment| moment.to_string());
            assert_eq!(told.as_deref(), meant, "{text}");
        }
    }

    #[test]
    fn what_is_no_moment_is_refused() {
        for text in [
            "",
            "Z",
            "2026-11-26",
            "2026-11-26T04:30:00",
            "2026-11-26T04:30:00+01:00",
            "2026-11-26 04:30:00Z",
            "2026-13-26T04:30:00Z",
            "2026-02-29T04:30:00Z",
            "2026-11-26T24:00:00Z",
            "2026-11-26T04:30:60Z",
            "2026-11-26T04:30:00.Z",
            "1969-12-31T23:59:59Z",
            "+026-11-26T04:30:00Z",
            "2026-11-26T04:30:00ZZ",
        ] {
            assert!(text.parse::<Moment>().is_err(), "{text}");
        }
    }
}
