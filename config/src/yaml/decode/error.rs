//! A mistake as serde reports it, and the place it is bound to on the way up.

use std::fmt;

use serde::de::{self, Expected, Unexpected};

use super::elsewhere;
use crate::source::Finding;
use crate::suggest;
use crate::yaml::scalar::Trap;
use crate::yaml::tree::{NodeId, Tree};

/// More names are not listed in a sentence.
const LISTED_MAX: usize = 7;
/// What [`crate::units::Ratio`] expects.
const RATIO: &str = "a number above 0 and at most 1";
const BOOLEAN: &str = "true or false";
/// Longer words are not quoted whole.
const QUOTED_MAX: usize = 60;

/// Planned, documented elsewhere, and not in this version: refused, so that nobody believes it is in force.
const NOT_YET: [&str; 4] = ["tracing", "HTTPRoute", "GRPCRoute", "mirror"];

#[derive(Clone, Debug)]
pub(super) struct Error {
    message: String,
    help: Option<String>,
    fault: Fault,
    at: Option<NodeId>,
    /// A field's name that is none here, nor another word for one: it may be one elsewhere.
    strange: bool,
}

/// What a type has room for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Wanted {
    Anything,
    Text,
    Value,
    OneOf(&'static [&'static str]),
}

/// What is wrong with the place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Its value.
    Value,
    /// Its key: there should be no such field.
    Key,
    /// It has no such field.
    Missing(&'static str),
    /// Nothing that the user did: it follows from a repair.
    Consequence,
}

pub(crate) fn is_not_yet(word: &str) -> bool {
    NOT_YET.contains(&word)
}

pub(crate) fn not_yet(word: &str) -> String {
    format!("`{word}` is not supported yet by this version of Weir")
}

impl Error {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            help: None,
            fault: Fault::Value,
            at: None,
            strange: false,
        }
    }

    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// A word with two meanings where one of `wanted` is expected.
    pub(super) fn trap(trap: Trap, wanted: Wanted) -> Self {
        let (value, text) = (trap.value.as_deref(), trap.text.as_str());
        let help = match (wanted, value) {
            (Wanted::OneOf(words), _) => match suggest::nearest(text.trim_matches('"'), words) {
                Some(meant) => format!("write {meant}"),
                None => format!("write {}", listed(words, "or")),
            },
            (Wanted::Value, Some(value)) => format!("write {value}"),
            (Wanted::Text, _) | (_, None) => format!("write {text}, in quotes"),
            (Wanted::Anything, Some(value)) => {
                format!("write {value}, or {text} in quotes if text is meant")
            }
        };
        Self::new(trap.message).help(help)
    }

    pub(super) fn fault(mut self, fault: Fault) -> Self {
        self.fault = fault;
        self
    }

    /// The innermost place that sees the mistake has it.
    pub(super) fn at(mut self, node: NodeId) -> Self {
        self.at.get_or_insert(node);
        self
    }

    /// What was expected in place of what was found.
    pub(super) fn wanted(&self) -> Option<&str> {
        let (wanted, _) = self
            .message
            .strip_prefix("expected ")?
            .split_once(", found ")?;
        Some(wanted)
    }

    pub(super) fn place(&self) -> Option<(NodeId, Fault)> {
        Some((self.at?, self.fault))
    }

    pub(super) fn finding(self, tree: &Tree) -> Finding {
        let Some(at) = self.at else {
            return Finding::error(0..0, self.message);
        };
        let (caret, path) = match self.fault {
            Fault::Key => (tree.key_caret(at), tree.path(at)),
            Fault::Missing(field) => (tree.caret(at), child_path(&tree.path(at), field)),
            Fault::Value | Fault::Consequence => (tree.caret(at), tree.path(at)),
        };
        let mut finding = Finding::error(caret, self.message).path(path);
        finding.help = match self.strange && self.fault == Fault::Key {
            true => elsewhere::told(tree, at).or(self.help),
            false => self.help,
        };
        let written = match self.fault {
            Fault::Key => tree.key(at),
            Fault::Value => tree.text(at),
            Fault::Missing(_) | Fault::Consequence => None,
        };
        if let Some(foreign) = written.and_then(foreign) {
            finding.help = Some(match finding.help {
                Some(help) => format!("{help}\n{foreign}"),
                None => foreign,
            });
        }
        finding
    }
}

/// No word of ours has such characters, and some look as if they were others, or like nothing.
fn foreign(text: &str) -> Option<String> {
    let c = text.chars().find(|c| !c.is_ascii())?;
    Some(format!(
        "there is a U+{:04X} in it, which is not ASCII: type it anew",
        c as u32
    ))
}

pub(super) fn child_path(above: &str, field: &str) -> String {
    if above.is_empty() {
        field.to_owned()
    } else {
        format!("{above}.{field}")
    }
}

impl de::Error for Error {
    /// Our own types say what they expected and found in the first line and what to write instead below it.
    fn custom<T: fmt::Display>(text: T) -> Self {
        let text = text.to_string();
        match text.split_once('\n') {
            Some((message, help)) => Self::new(message).help(help),
            None => Self::new(text),
        }
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        let expected = expectation(&expected.to_string());
        let error = Self::new(format!("expected {expected}, found {}", described(&found)));
        let instead = match found {
            Unexpected::Str(text) => instead_of_text(text, &expected),
            Unexpected::Float(number) => instead_of_part(number, &expected),
            _ => None,
        };
        match instead {
            Some(help) => error.help(help),
            None => error,
        }
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::new(format!(
            "expected {}, found {}",
            expectation(&expected.to_string()),
            described(&found)
        ))
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        if is_not_yet(variant) {
            return Self::new(not_yet(variant))
                .help(format!("this version knows {}", listed(expected, "and")));
        }
        let found = quoted(variant);
        let error = Self::new(format!("expected {}, found {found}", one_of(expected)));
        let mut error = error;
        error.strange = suggest::same(variant, expected).is_none();
        match suggest::nearest(variant, expected) {
            Some(meant) if variant != meant && variant.trim() == meant => error.help(format!(
                "write {meant}, without blanks or line breaks around it"
            )),
            Some(meant) => error.help(format!("did you mean `{meant}`?")),
            None if expected.len() > LISTED_MAX => {
                error.help(format!("the names are {}", expected.join(", ")))
            }
            None => error,
        }
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        if is_not_yet(field) {
            return Self::new(not_yet(field))
                .help("take it out: nothing here would act on it")
                .fault(Fault::Key);
        }
        let punctuation = punctuation(field, expected);
        let strange = punctuation.is_none() && suggest::same(field, expected).is_none();
        let help = match (punctuation, suggest::nearest(field, expected)) {
            (Some(help), _) => help,
            (None, Some(meant)) => meant_field(field, meant),
            (None, None) => match expected {
                [] => "there are no fields here".to_owned(),
                [only] => format!("the field here is {only}"),
                [..] => format!("the fields here are {}", expected.join(", ")),
            },
        };
        let field = clipped(field);
        let mut error = Self::new(format!("there is no field `{field}` here"))
            .help(help)
            .fault(Fault::Key);
        error.strange = strange;
        error
    }

    fn missing_field(field: &'static str) -> Self {
        Self::new(format!("the field `{field}` is missing")).fault(Fault::Missing(field))
    }

    fn duplicate_field(field: &'static str) -> Self {
        Self::new(format!("`{field}` is written twice in the same map")).fault(Fault::Key)
    }
}

/// Others count the tries after the first.
pub(super) fn meant_field(field: &str, meant: &str) -> String {
    let field = field.to_ascii_lowercase();
    let last = meant.rsplit('.').next();
    match last == Some("attempts") && field.contains("retries") {
        true => format!("did you mean `{meant}`? It counts the first try, too"),
        false => format!("did you mean `{meant}`?"),
    }
}

/// A name with what stands beside it, for want of a space or for want of a `#`.
fn punctuation(field: &str, expected: &[&str]) -> Option<String> {
    if field.starts_with("//") {
        return Some("a comment begins with #".to_owned());
    }
    if let Some(name) = field.strip_prefix('-') {
        return Some(format!(
            "write - {}, with a space after the hyphen",
            clipped(name)
        ));
    }
    spaced(field, expected).map(|written| format!("write {written}"))
}

/// `deadline:2s` and `deadline = 2s` as YAML has it, if that is a field's name.
fn spaced(text: &str, fields: &[&str]) -> Option<String> {
    let (name, value) = text.split_once([':', '=', '\u{ff1a}'])?;
    let field = suggest::nearest(name.trim(), fields)?;
    let value = value.trim_matches(|c: char| c.is_whitespace() || c == '=');
    let value = clipped(value);
    (!value.is_empty()).then(|| format!("{field}: {value}, with a space after the colon"))
}

/// What to write where a map was to come.
pub(super) fn instead_of_map(text: &str, fields: &[&str]) -> Option<String> {
    spaced(text, fields).map(|written| format!("write {written}"))
}

/// `Enforce or Observe`; where there are too many to read, that there are.
pub(super) fn one_of(words: &[&str]) -> String {
    if words.len() > LISTED_MAX {
        return format!("one of {} names such as `{}`", words.len(), words[0]);
    }
    listed(words, "or")
}

/// `a map with base and max`, the first few of many.
pub(super) fn map_with(fields: &[&str]) -> String {
    match fields.get(..3) {
        Some(first) if fields.len() > LISTED_MAX => format!("a map with {}, …", first.join(", ")),
        _ => format!("a map with {}", listed(fields, "and")),
    }
}

/// serde's words in ours.
fn expectation(expected: &str) -> String {
    match expected {
        "a string" => "text".to_owned(),
        "a boolean" => BOOLEAN.to_owned(),
        "a sequence" => "a list".to_owned(),
        "a map" => "a map of fields".to_owned(),
        "i64" | "u64" | "i32" | "u32" => "a whole number".to_owned(),
        "u16" => "a whole number from 0 to 65535".to_owned(),
        "f64" => "a number".to_owned(),
        other => other.to_owned(),
    }
}

/// What to write instead of a text where a number or a switch belongs, if that would be taken.
fn instead_of_text(text: &str, expected: &str) -> Option<String> {
    if expected == BOOLEAN {
        return matches!(text, "true" | "false")
            .then(|| format!("write {text}, without the quotes"));
    }
    if let Some(percent) = text.strip_suffix('%') {
        let percent: f64 = percent.trim().parse().ok()?;
        let ratio = percent / 100.0;
        return match expected {
            RATIO => takes(expected, ratio).then(|| format!("write {ratio}")),
            _ => takes(expected, percent)
                .then(|| format!("write {percent}, without the percent sign")),
        };
    }
    let number: f64 = text.parse().ok()?;
    takes(expected, number).then(|| format!("write {number}, without the quotes"))
}

/// A share, or a percentage more exact than ours.
fn instead_of_part(number: f64, expected: &str) -> Option<String> {
    if !expected.starts_with("a percentage") || !takes(expected, number.round()) {
        return None;
    }
    let percent = match number < 1.0 {
        true => number * 100.0,
        false => number,
    };
    let whole = percent.round().max(1.0);
    Some(format!("write {whole}: percentages are whole numbers"))
}

/// Whether a number is what a sentence such as `a whole number from 1 to 65535` expects.
fn takes(expected: &str, number: f64) -> bool {
    if expected == RATIO {
        return number > 0.0 && number <= 1.0;
    }
    let is_whole = number.fract() == 0.0;
    match expected.split_once(" from ") {
        Some(("a whole number" | "a percentage", bounds)) => {
            let bounds = bounds.split_once(" to ");
            let bounds = bounds
                .and_then(|(low, high)| Some(low.parse::<f64>().ok()?..=high.parse::<f64>().ok()?));
            is_whole && bounds.is_some_and(|bounds| bounds.contains(&number))
        }
        Some(_) => false,
        None => expected == "a number" || is_whole && expected == "a whole number",
    }
}

fn described(found: &Unexpected<'_>) -> String {
    match found {
        Unexpected::Str(text) => quoted(text),
        Unexpected::Bool(it) => it.to_string(),
        Unexpected::Signed(it) => it.to_string(),
        Unexpected::Unsigned(it) => it.to_string(),
        Unexpected::Float(it) => it.to_string(),
        Unexpected::Unit | Unexpected::Option => "nothing".to_owned(),
        Unexpected::Seq => "a list".to_owned(),
        Unexpected::Map => "a map".to_owned(),
        other => other.to_string(),
    }
}

pub(super) fn quoted(text: &str) -> String {
    format!("{:?}", clipped(text))
}

/// Control characters cannot survive this: it is printed where a terminal may act upon them.
fn clipped(text: &str) -> String {
    let safe = |c: char| {
        if c.is_control() {
            char::REPLACEMENT_CHARACTER
        } else {
            c
        }
    };
    if text.chars().count() <= QUOTED_MAX {
        return text.chars().map(safe).collect();
    }
    text.chars()
        .take(QUOTED_MAX)
        .map(safe)
        .chain(['…'])
        .collect()
}

/// `Enforce or Observe`, `A, B or C`.
pub(crate) fn listed(words: &[&str], and: &str) -> String {
    match words {
        [] => "nothing".to_owned(),
        [one] => format!("`{one}`"),
        [firsts @ .., last] => {
            let firsts: Vec<String> = firsts.iter().map(|word| format!("`{word}`")).collect();
            format!("{} {and} `{last}`", firsts.join(", "))
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    /// `101%` was to be written as `101`, which is no percentage either.
    #[test]
    fn what_is_to_be_written_instead_of_a_text_would_be_taken() {
        for (text, expected, instead) in [
            (
                "8080",
                "a whole number from 1 to 65535",
                Some("write 8080, without the quotes"),
            ),
            ("70000", "a whole number from 1 to 65535", None),
            ("1.5", "a whole number from 1 to 65535", None),
            ("http", "a whole number from 1 to 65535", None),
            ("7", "a whole number", Some("write 7, without the quotes")),
            ("0.5", "a number", Some("write 0.5, without the quotes")),
            (
                "50%",
                "a percentage from 0 to 100",
                Some("write 50, without the percent sign"),
            ),
            ("101%", "a percentage from 0 to 100", None),
            ("0.5%", "a percentage from 0 to 100", None),
            ("10%", RATIO, Some("write 0.1")),
            ("150%", RATIO, None),
            ("0.1", RATIO, Some("write 0.1, without the quotes")),
            ("true", BOOLEAN, Some("write true, without the quotes")),
            ("yes", BOOLEAN, None),
            ("5", "a list", None),
        ] {
            let told = instead_of_text(text, expected);
            assert_eq!(told.as_deref(), instead, "{text} for {expected}");
        }
    }
}
