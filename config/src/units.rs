//! Values that cannot hold a mistake: built once at the edge, trusted everywhere after it.

mod duration;
mod moment;
mod ports;
mod token;

use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, de};

pub use duration::Duration;
pub use moment::Moment;
pub use ports::PortRanges;
pub use token::Token;

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
            let wrong = format!("expected a number above 0 and at most 1, found {value}");
            // It is a share, and others write percentages.
            Err(match (1.0..=100.0).contains(&value) {
                true => format!("{wrong}\nwrite {} for {value} percent", value / 100.0),
                false => wrong,
            })
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
