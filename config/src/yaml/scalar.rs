//! What an unquoted word means.
//!
//! We read YAML 1.2's core schema. kubectl reads YAML 1.1, and so will everybody who applies the same file to a
//! cluster: a word that the two read differently is a mistake here, whichever was meant.

/// The meaning of an unquoted scalar.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Plain<'a> {
    Null,
    Bool(bool),
    Int(i128),
    Float(f64),
    Text(&'a str),
    /// A word with two meanings.
    Trap(Trap),
}

/// Why a word has two meanings, and how to write each of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Trap {
    pub(crate) message: String,
    /// The number or boolean, written so that all agree.
    pub(crate) value: Option<String>,
    pub(crate) text: String,
}

/// Up to here a float has room for every whole number.
const WHOLE_MAX: f64 = (1_u64 << f64::MANTISSA_DIGITS) as f64;

pub(crate) fn resolve(word: &str) -> Plain<'_> {
    match word {
        "" | "~" | "null" | "Null" | "NULL" => return Plain::Null,
        "true" | "True" | "TRUE" => return Plain::Bool(true),
        "false" | "False" | "FALSE" => return Plain::Bool(false),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => {
            return Plain::Float(f64::INFINITY);
        }
        "-.inf" | "-.Inf" | "-.INF" => return Plain::Float(f64::NEG_INFINITY),
        ".nan" | ".NaN" | ".NAN" => return Plain::Float(f64::NAN),
        _ => {}
    }
    if let Some(meaning) = boolean_of_yaml_1_1(word) {
        return Plain::Trap(Trap {
            message: format!(
                "unquoted `{word}` is text to YAML 1.2, but {meaning} to kubectl (YAML 1.1)"
            ),
            value: Some(meaning.to_string()),
            text: format!("\"{word}\""),
        });
    }
    let unsigned = word.strip_prefix(['-', '+']).unwrap_or(word);
    if !unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return Plain::Text(word);
    }
    number(word, unsigned)
}

/// What kubectl makes of a word that YAML 1.2 leaves alone.
pub(crate) fn boolean_of_yaml_1_1(word: &str) -> Option<bool> {
    match word {
        "y" | "Y" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => Some(true),
        "n" | "N" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => Some(false),
        _ => None,
    }
}

fn number<'a>(word: &'a str, unsigned: &str) -> Plain<'a> {
    let digits = unsigned.bytes().all(|byte| byte.is_ascii_digit());
    if digits && unsigned.len() > 1 && unsigned.starts_with('0') {
        return Plain::Trap(leading_zero(word, unsigned));
    }
    if digits {
        return word.parse().map_or(Plain::Text(word), Plain::Int);
    }
    if let Some(value) = of_another_base(unsigned) {
        return Plain::Trap(Trap {
            message: format!(
                "unquoted `{word}` is a number to some readers of YAML and text to others"
            ),
            value: value.map(|value| value.to_string()),
            text: format!("\"{word}\""),
        });
    }
    let is_float = unsigned.bytes().any(|byte| byte.is_ascii_digit())
        && (unsigned.bytes())
            .all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b'e' | b'E' | b'+' | b'-'));
    match word.parse::<f64>() {
        // JSON, as which it comes to an API server, has one sort of number.
        Ok(value) if is_float && value.fract() == 0.0 && value.abs() <= WHOLE_MAX => {
            Plain::Int(value as i128)
        }
        Ok(value) if is_float => Plain::Float(value),
        _ => Plain::Text(word),
    }
}

/// `0x1F`, `0o17`, `0b1`, `1_000`: whether it is one, and its value if it has a sensible one.
fn of_another_base(unsigned: &str) -> Option<Option<u64>> {
    let plain: String = unsigned.chars().filter(|c| *c != '_').collect();
    for (prefix, radix) in [("0x", 16), ("0o", 8), ("0b", 2)] {
        if let Some(rest) = plain.strip_prefix(prefix) {
            let fits = !rest.is_empty() && rest.chars().all(|c| c.is_digit(radix));
            return fits.then(|| u64::from_str_radix(rest, radix).ok());
        }
    }
    let grouped = plain.len() < unsigned.len() && plain.bytes().all(|byte| byte.is_ascii_digit());
    grouped.then(|| plain.parse().ok())
}

fn leading_zero(word: &str, unsigned: &str) -> Trap {
    let decimal = match unsigned.trim_start_matches('0') {
        "" => "0",
        digits => digits,
    };
    let meaning = match u64::from_str_radix(unsigned, 8) {
        Ok(octal) if octal.to_string() != decimal => format!("but {octal}, octal,"),
        Ok(_) => "and an octal number".to_owned(),
        Err(_) => "and something else".to_owned(),
    };
    let sign = if word.starts_with('-') { "-" } else { "" };
    Trap {
        message: format!(
            "unquoted `{word}` is {sign}{decimal} to YAML 1.2, {meaning} to kubectl (YAML 1.1)"
        ),
        value: Some(format!("{sign}{decimal}")),
        text: format!("\"{word}\""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_mean_what_yaml_1_2_says() {
        for (word, meaning) in [
            ("", Plain::Null),
            ("~", Plain::Null),
            ("true", Plain::Bool(true)),
            ("0", Plain::Int(0)),
            ("-12", Plain::Int(-12)),
            ("+5", Plain::Int(5)),
            ("0.1", Plain::Float(0.1)),
            (".5", Plain::Float(0.5)),
            ("1e3", Plain::Int(1000)),
            ("2.0", Plain::Int(2)),
            ("-2.", Plain::Int(-2)),
            ("1e17", Plain::Float(1e17)),
            ("2s", Plain::Text("2s")),
            ("1.2.3", Plain::Text("1.2.3")),
            ("-", Plain::Text("-")),
            (".", Plain::Text(".")),
            ("e", Plain::Text("e")),
            ("0xyz", Plain::Text("0xyz")),
            ("_1", Plain::Text("_1")),
            ("10.0.0.1", Plain::Text("10.0.0.1")),
            ("2001-12-14", Plain::Text("2001-12-14")),
        ] {
            assert_eq!(resolve(word), meaning, "{word:?}");
        }
    }

    #[test]
    fn words_that_kubectl_reads_otherwise_are_traps() {
        for word in [
            "yes", "No", "ON", "off", "y", "N", "010", "-07", "089", "0x1F", "0o17", "0b1", "1_000",
        ] {
            assert!(
                matches!(resolve(word), Plain::Trap(_)),
                "{word:?}: {:?}",
                resolve(word)
            );
        }
    }
}
