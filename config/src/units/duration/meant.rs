//! What is no duration and was meant for one: why it is none, and how to write it.

use super::Duration;

impl Duration {
    /// Why a number is none, and below it what it may have been meant for, as far as that can be read again.
    pub(super) fn with_unit(number: f64) -> String {
        let seconds = Self::meant(&format!("{number}s"));
        let millis = Self::meant(&format!("{number}ms")).filter(|_| number.fract() == 0.0);
        match (seconds, millis) {
            (Some(seconds), Some(millis)) => {
                format!("the unit is missing\nwrite {seconds} or {millis}")
            }
            (Some(only), None) | (None, Some(only)) => {
                format!("the unit is missing\nwrite {only}")
            }
            (None, None) => Self::out_of_bounds(number).to_owned(),
        }
    }

    pub(super) fn out_of_bounds(millis: f64) -> &'static str {
        match millis {
            long if long >= 1.0 => "it is longer than 99999h",
            short if short > 0.0 => "the shortest is 1ms",
            _ => "it must be longer than zero",
        }
    }

    /// `2 seconds`, `1.5s`, `2S`, `1d`: what is surely a duration, written otherwise.
    pub(super) fn meant(text: &str) -> Option<Self> {
        let longest = Self::LONGEST.as_millis() as f64;
        let millis = Self::millis_meant(text).filter(|it| (1.0..=longest).contains(it))?;
        // `1500ms` stays as it is written.
        Some((text.parse()).unwrap_or_else(|_| Self::from_millis(millis.round() as u64)))
    }

    pub(super) fn millis_meant(text: &str) -> Option<f64> {
        // Quotes that are none, what ends lines elsewhere, and a comment without its space.
        let text = text.split('#').next().unwrap_or_default();
        let stray =
            |c: char| c.is_whitespace() || "\"'`;,\u{201c}\u{201d}\u{2018}\u{2019}".contains(c);
        let mut rest = text.trim_matches(stray);
        if rest.is_empty() {
            return None;
        }
        if let Some(below_zero) = rest.strip_prefix(['-', '\u{2212}']) {
            return Self::millis_meant(below_zero).map(|millis| -millis);
        }
        if let Some(millis) = Self::millis_of_iso_8601(rest) {
            return Some(millis);
        }
        let mut millis = 0.0;
        let mut smaller = None;
        while !rest.is_empty() {
            let number = rest.len()
                - rest
                    .trim_start_matches(|c: char| c.is_ascii_digit() || c == '.')
                    .len();
            let amount: f64 = rest.get(..number)?.parse().ok()?;
            rest = rest[number..].trim_start();
            let letters = rest.len() - rest.trim_start_matches(char::is_alphabetic).len();
            let unit = rest[..letters].to_ascii_lowercase();
            // `1m30` is a minute and thirty of what comes below minutes.
            let unit = match (unit.as_str(), smaller) {
                ("", Some(smaller)) if rest.is_empty() => smaller,
                (unit, _) => unit,
            };
            let scale = match unit {
                "ns" => 0.000_001,
                "us" | "\u{b5}s" | "\u{3bc}s" => 0.001,
                "ms" | "msec" | "millis" | "millisecond" | "milliseconds" => 1.0,
                "s" | "sec" | "secs" | "second" | "seconds" => 1_000.0,
                "m" | "min" | "mins" | "minute" | "minutes" => 60_000.0,
                "h" | "hr" | "hrs" | "hour" | "hours" => 3_600_000.0,
                "d" | "day" | "days" => 86_400_000.0,
                "w" | "week" | "weeks" => 604_800_000.0,
                _ => return None,
            };
            smaller = match unit {
                "h" => Some("m"),
                "m" => Some("s"),
                "s" => Some("ms"),
                _ => None,
            };
            millis += amount * scale;
            rest = rest[letters..].trim_start();
        }
        Some(millis)
    }

    /// `PT1M30S`, as the types of many languages print it.
    fn millis_of_iso_8601(text: &str) -> Option<f64> {
        let text = text.to_ascii_uppercase();
        let (days, time) = text.strip_prefix('P')?.split_once('T')?;
        let written = format!("{days}{time}");
        let is_part = |c: char| c.is_ascii_digit() || ".DHMS".contains(c);
        (days.is_empty() || days.ends_with('D')).then_some(())?;
        (!written.is_empty() && written.chars().all(is_part)).then_some(())?;
        Self::millis_meant(&written)
    }
}

#[cfg(test)]
mod tests {
    use serde::de::value;

    use super::*;

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

    /// `-5` was to be written as `-5s`, and `1000000` as `1000000s`, and neither is a duration.
    #[test]
    fn advice_for_a_number_without_a_unit_is_a_duration() {
        let numbers = [
            (5.0, "the unit is missing\nwrite 5s or 5ms"),
            (1500.0, "the unit is missing\nwrite 1500s or 1500ms"),
            (1.5, "the unit is missing\nwrite 1s500ms"),
            (0.5, "the unit is missing\nwrite 500ms"),
            (1e6, "the unit is missing\nwrite 277h46m40s or 16m40s"),
            (1e11, "the unit is missing\nwrite 27777h46m40s"),
            (1e15, "it is longer than 99999h"),
            (f64::INFINITY, "it is longer than 99999h"),
            (0.0, "it must be longer than zero"),
            (-5.0, "it must be longer than zero"),
            (-1.5, "it must be longer than zero"),
            (f64::NAN, "it must be longer than zero"),
            (1e-7, "the shortest is 1ms"),
        ];
        let texts = [
            ("5", "the unit is missing\nwrite 5s or 5ms"),
            ("0.5ms", "the shortest is 1ms"),
            ("0s", "it must be longer than zero"),
            ("999999999d", "it is longer than 99999h"),
        ];
        let numbers = numbers.map(|(number, told)| (Duration::without_unit(number), told));
        let texts = texts.map(|(text, told)| (Duration::from_text(text).expect_err(text), told));
        for (error, told) in numbers.into_iter().chain(texts) {
            let error: value::Error = error;
            let error = error.to_string();
            let (_, after) = error.split_once(": ").expect("what was found, and why not");
            assert!(after.starts_with(told), "{error}");
            for advised in told
                .rsplit("write ")
                .next()
                .unwrap_or_default()
                .split(" or ")
            {
                assert_eq!(
                    told.contains("write "),
                    advised.parse::<Duration>().is_ok(),
                    "{error}: {advised}"
                );
            }
        }
    }
}
