//! Values that cannot hold a mistake: built once at the edge, trusted everywhere after it.

use std::fmt;
use std::ops::Deref;
use std::str::FromStr;
use std::time::Duration as StdDuration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A span of time written as `250ms`, `2s` or `1m30s` (Gateway API GEP-2257: `h`, `m`, `s`, `ms`, each at
/// most once and in that order; at least 1 ms, at most 99999 h).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Duration(StdDuration);

impl Duration {
    const ZERO: Self = Self::from_millis(0);
    /// What five digits can say, so that whatever was read can be written.
    const LONGEST: Self = Self::from_secs(99_999 * 3_600);

    pub const fn from_millis(millis: u64) -> Self {
        Self(StdDuration::from_millis(millis))
    }

    pub const fn from_secs(secs: u64) -> Self {
        Self(StdDuration::from_secs(secs))
    }

    pub const fn get(self) -> StdDuration {
        self.0
    }
}

impl Deref for Duration {
    type Target = StdDuration;

    fn deref(&self) -> &StdDuration {
        &self.0
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
        let mut previous_unit = u64::MAX;
        while !rest.is_empty() {
            let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
            let (number, tail) = rest.split_at(digits);
            if number.is_empty() || number.len() > 5 {
                return Err(wrong(""));
            }
            let letters = tail.len()
                - tail
                    .trim_start_matches(|c: char| c.is_ascii_alphabetic())
                    .len();
            let (unit, tail) = tail.split_at(letters);
            let scale: u64 = match unit {
                "h" => 3_600_000,
                "m" => 60_000,
                "s" => 1_000,
                "ms" => 1,
                "" => return Err(wrong(": the unit is missing")),
                _ => return Err(wrong(&format!(": unknown unit {unit:?}"))),
            };
            if scale >= previous_unit {
                return Err(wrong(": units go from large to small, each once"));
            }
            previous_unit = scale;
            millis += number.parse::<u64>().map_err(|_| wrong(""))? * scale;
            rest = tail;
        }
        match Self::from_millis(millis) {
            Self::ZERO => Err(wrong(": it must be longer than zero")),
            long if long > Self::LONGEST => Err(wrong(": it is longer than 99999h")),
            duration => Ok(duration),
        }
    }
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut millis = self.0.as_millis();
        for (scale, unit) in [(3_600_000, "h"), (60_000, "m"), (1_000, "s"), (1, "ms")] {
            if millis >= scale {
                write!(f, "{}{unit}", millis / scale)?;
                millis %= scale;
            }
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
        struct Text;
        impl de::Visitor<'_> for Text {
            type Value = Duration;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(Duration::EXPECTED)
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Duration, E> {
                Duration::from_text(text)
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Duration, E> {
                Err(Duration::without_unit(number))
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Duration, E> {
                Err(Duration::without_unit(number))
            }

            fn visit_f64<E: de::Error>(self, number: f64) -> Result<Duration, E> {
                Err(Duration::without_unit(number))
            }
        }
        deserializer.deserialize_str(Text)
    }
}

/// Reading what people write. The first line of an error says what was expected and found, a second what to write
/// instead.
impl Duration {
    pub(crate) const EXPECTED: &str = "a duration such as 250ms, 2s or 1m30s";

    pub(crate) fn from_text<E: de::Error>(text: &str) -> Result<Self, E> {
        text.parse().map_err(|reason| match Self::meant(text) {
            Some(meant) => {
                let shown: String = text.chars().take(40).collect();
                E::custom(format!(
                    "expected {}, found {shown:?}\nwrite it as {meant}",
                    Self::EXPECTED
                ))
            }
            None => E::custom(reason),
        })
    }

    pub(crate) fn without_unit<E: de::Error>(number: impl fmt::Display) -> E {
        E::custom(format!(
            "expected {}, found the number {number}\nwrite the unit: {number}s or {number}ms",
            Self::EXPECTED
        ))
    }

    /// `2 seconds`, `1.5s`, `2S`, `1d`: what is surely a duration, written otherwise.
    fn meant(text: &str) -> Option<Self> {
        let mut rest = text.trim();
        let mut millis = 0.0;
        while !rest.is_empty() {
            let number = rest.len()
                - rest
                    .trim_start_matches(|c: char| c.is_ascii_digit() || c == '.')
                    .len();
            let amount: f64 = rest.get(..number)?.parse().ok()?;
            rest = rest[number..].trim_start();
            let letters = rest.len() - rest.trim_start_matches(char::is_alphabetic).len();
            let scale = match rest[..letters].to_ascii_lowercase().as_str() {
                "ms" | "msec" | "millis" | "millisecond" | "milliseconds" => 1.0,
                "s" | "sec" | "secs" | "second" | "seconds" => 1_000.0,
                "m" | "min" | "mins" | "minute" | "minutes" => 60_000.0,
                "h" | "hr" | "hrs" | "hour" | "hours" => 3_600_000.0,
                "d" | "day" | "days" => 86_400_000.0,
                _ => return None,
            };
            millis += amount * scale;
            rest = rest[letters..].trim_start();
        }
        let longest = Self::LONGEST.as_millis() as f64;
        (1.0..=longest)
            .contains(&millis)
            .then(|| Self::from_millis(millis.round() as u64))
    }
}

impl JsonSchema for Duration {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "pattern": "^([0-9]{1,5}h)?([0-9]{1,5}m)?([0-9]{1,5}s)?([0-9]{1,5}ms)?$",
            "minLength": 2,
            "maxLength": 24,
            "description": "A duration such as 250ms, 2s or 1m30s (GEP-2257)."
        })
    }
}

/// A whole percentage, 0 to 100.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct Percent(u8);

impl Percent {
    /// Panics at compile time when used in a constant with a wrong value.
    pub const fn of(percent: u8) -> Self {
        assert!(percent <= 100, "a percentage is 0 to 100");
        Self(percent)
    }

    pub const fn get(self) -> u8 {
        self.0
    }

    /// 0.0 to 1.0.
    pub fn ratio(self) -> f64 {
        f64::from(self.0) / 100.0
    }
}

impl TryFrom<i64> for Percent {
    type Error = String;

    fn try_from(value: i64) -> Result<Self, String> {
        match u8::try_from(value) {
            Ok(percent) if percent <= 100 => Ok(Self(percent)),
            _ => Err(format!(
                "expected a percentage from 0 to 100, found {value}"
            )),
        }
    }
}

impl<'de> Deserialize<'de> for Percent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        whole_number(
            deserializer,
            "a percentage from 0 to 100".to_owned(),
            Self::try_from,
        )
    }
}

impl JsonSchema for Percent {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Percent".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "integer", "minimum": 0, "maximum": 100 })
    }
}

/// A count between `MIN` and `MAX`, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct Count<const MIN: u32, const MAX: u32>(u32);

impl<const MIN: u32, const MAX: u32> Count<MIN, MAX> {
    /// Panics at compile time when used in a constant with a wrong value.
    pub const fn of(count: u32) -> Self {
        assert!(
            MIN <= count && count <= MAX,
            "the count is out of its bounds"
        );
        Self(count)
    }

    pub const fn get(self) -> u32 {
        self.0
    }
}

impl<const MIN: u32, const MAX: u32> TryFrom<i64> for Count<MIN, MAX> {
    type Error = String;

    fn try_from(value: i64) -> Result<Self, String> {
        match u32::try_from(value) {
            Ok(count) if (MIN..=MAX).contains(&count) => Ok(Self(count)),
            _ => Err(format!(
                "expected a whole number from {MIN} to {MAX}, found {value}"
            )),
        }
    }
}

impl<'de, const MIN: u32, const MAX: u32> Deserialize<'de> for Count<MIN, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        whole_number(
            deserializer,
            format!("a whole number from {MIN} to {MAX}"),
            Self::try_from,
        )
    }
}

/// Reads an integer and says what was expected when there is none.
fn whole_number<'de, D: Deserializer<'de>, T>(
    deserializer: D,
    expected: String,
    make: impl Fn(i64) -> Result<T, String>,
) -> Result<T, D::Error> {
    struct Whole<F>(String, F);
    impl<T, F: Fn(i64) -> Result<T, String>> de::Visitor<'_> for Whole<F> {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(&self.0)
        }

        fn visit_i64<E: de::Error>(self, number: i64) -> Result<T, E> {
            (self.1)(number).map_err(E::custom)
        }

        fn visit_u64<E: de::Error>(self, number: u64) -> Result<T, E> {
            // What does not fit is above every bound.
            self.visit_i64(i64::try_from(number).unwrap_or(i64::MAX))
        }
    }
    deserializer.deserialize_i64(Whole(expected, make))
}

impl<const MIN: u32, const MAX: u32> JsonSchema for Count<MIN, MAX> {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        format!("CountFrom{MIN}To{MAX}").into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "integer", "minimum": MIN, "maximum": MAX })
    }
}

/// A share of calls, above 0 and at most 1, such as the `0.1` retries that one success earns.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd, Serialize)]
#[serde(transparent)]
pub struct Ratio(f64);

impl Ratio {
    pub const TENTH: Self = Self(0.1);

    pub const fn get(self) -> f64 {
        self.0
    }
}

impl TryFrom<f64> for Ratio {
    type Error = String;

    fn try_from(value: f64) -> Result<Self, String> {
        if value > 0.0 && value <= 1.0 {
            Ok(Self(value))
        } else {
            Err(format!(
                "expected a number above 0 and at most 1, found {value}"
            ))
        }
    }
}

impl<'de> Deserialize<'de> for Ratio {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Number;
        impl de::Visitor<'_> for Number {
            type Value = Ratio;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number above 0 and at most 1")
            }

            fn visit_f64<E: de::Error>(self, number: f64) -> Result<Ratio, E> {
                Ratio::try_from(number).map_err(E::custom)
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Ratio, E> {
                self.visit_f64(number as f64)
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Ratio, E> {
                self.visit_f64(number as f64)
            }
        }
        deserializer.deserialize_f64(Number)
    }
}

impl JsonSchema for Ratio {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Ratio".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "number", "exclusiveMinimum": 0, "maximum": 1 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_what_gep_2257_says() {
        for (text, millis) in [
            ("250ms", 250),
            ("2s", 2_000),
            ("1m30s", 90_000),
            ("1h1ms", 3_600_001),
        ] {
            let parsed: Duration = text.parse().expect(text);
            assert_eq!(parsed, Duration::from_millis(millis));
            assert_eq!(parsed.to_string(), text, "it is written as it was read");
        }
    }

    #[test]
    fn a_duration_without_a_meaning_is_refused() {
        for text in [
            "", "0s", "5", "s", "-1s", "1.5s", "1s1m", "1s1s", "123456s", "1d", "1 s", "1ns",
        ] {
            assert!(text.parse::<Duration>().is_err(), "{text:?} was accepted");
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

    #[test]
    fn a_duration_written_otherwise_is_recognised() {
        for (text, meant) in [
            ("2 seconds", "2s"),
            ("1.5s", "1s500ms"),
            ("2S", "2s"),
            ("1d", "24h"),
            ("90 min", "1h30m"),
        ] {
            assert_eq!(
                Duration::meant(text)
                    .map(|meant| meant.to_string())
                    .as_deref(),
                Some(meant)
            );
        }
        for text in ["soon", "2", "", "2 lightyears", ".s", "999999999d"] {
            assert_eq!(Duration::meant(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_percentage_above_a_hundred_is_refused() {
        assert!(serde_json::from_str::<Percent>("101").is_err());
        assert!(serde_json::from_str::<Percent>("-1").is_err());
        assert_eq!(
            serde_json::from_str::<Percent>("100")
                .expect("fits")
                .ratio(),
            1.0
        );
    }

    #[test]
    fn a_ratio_of_nothing_is_refused() {
        for text in ["0", "-0.1", "1.01"] {
            assert!(
                serde_json::from_str::<Ratio>(text).is_err(),
                "{text} was accepted"
            );
        }
    }
}
