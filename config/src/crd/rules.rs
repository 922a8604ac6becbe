//! What two fields of one block may not say together, in CEL, for the API server: the same words at the same field as
//! `weir validate` has for it. `tests/crds.rs` holds the two against each other on every broken and every good policy.
//!
//! A rule sees its own block only. What depends on a default, on another layer or on the policy's namespace is left to
//! the webhook, which knows them.

mod authorization;
mod faults;
mod inbound;
mod outbound;
mod targets;

use serde_json::{Value, json};

/// One rule of one type.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// The type in whose schema it stands, as Rust calls it.
    pub on: &'static str,
    /// The field at which it is told, as a path from there; empty: the block itself.
    pub field: &'static str,
    /// True when all is well.
    pub holds: &'static str,
    pub message: Message,
    /// What to write instead.
    pub help: &'static str,
}

/// What is said when it does not hold.
#[derive(Clone, Copy, Debug)]
pub enum Message {
    Plainly(&'static str),
    /// An expression that quotes what it found.
    Quoting(&'static str),
}

impl Message {
    /// The words it begins with, whatever it quotes after them.
    pub fn begins(&self) -> &'static str {
        match self {
            Self::Plainly(message) => message,
            Self::Quoting(message) => message.split('\'').nth(1).unwrap_or_default(),
        }
    }
}

impl Rule {
    /// In one line: what is wrong, and what to write instead.
    pub(super) fn to_value(self) -> Value {
        let help = match self.help {
            "" => String::new(),
            help => format!("; {help}"),
        };
        let mut rule = json!({ "rule": self.holds });
        match self.message {
            Message::Plainly(message) => rule["message"] = format!("{message}{help}").into(),
            Message::Quoting(message) => {
                rule["messageExpression"] = match help.as_str() {
                    "" => message.into(),
                    help => format!("{message} + '{help}'").into(),
                };
            }
        }
        rule["reason"] = "FieldValueInvalid".into();
        if !self.field.is_empty() {
            rule["fieldPath"] = format!(".{}", self.field).into();
        }
        rule
    }
}

/// All rules of a type.
pub(super) fn of(name: &str) -> Vec<&'static Rule> {
    all().filter(|rule| rule.on == name).collect()
}

pub fn all() -> impl Iterator<Item = &'static Rule> {
    (targets::RULES.iter())
        .chain(outbound::RULES)
        .chain(inbound::RULES)
        .chain(faults::RULES)
        .chain(authorization::RULES)
}

/// For what is one of several in Rust: a structural schema has them beside each other.
pub(super) fn exactly_one(names: &[&str]) -> Value {
    let said: Vec<String> = names
        .iter()
        .map(|name| format!("has(self.{name})"))
        .collect();
    json!({
        "rule": format!("[{}].exists_one(said, said)", said.join(", ")),
        "message": format!("expected a map with one field: {}", names.join(" or ")),
        "reason": "FieldValueInvalid",
    })
}
