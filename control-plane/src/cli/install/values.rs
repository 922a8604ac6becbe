//! The chart's values: its own, what the user says on top, and whether that may be said.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::set::{self, Typing};

/// `layers`: name and YAML of each, later ones win; `sets`: what is said on top, one after the other.
pub(super) fn merged(
    defaults: &str,
    schema: &str,
    layers: &[(String, String)],
    sets: &[(&str, Typing)],
) -> Result<Value, String> {
    let mut said = Map::new();
    for (name, text) in layers {
        let layer: Value = yaml(name, text)?;
        match layer {
            Value::Object(layer) => lay(&mut said, layer, Null::Stays),
            Value::Null => {}
            _ => return Err(format!("{name}: expected a map of values")),
        }
    }
    for (set, typing) in sets {
        let flag = match typing {
            Typing::Guessed => "--set",
            Typing::Text => "--set-string",
        };
        set::apply(&mut said, set, *typing).map_err(|error| format!("{flag} {set}: {error}"))?;
    }
    let mut values: Map<String, Value> = yaml("values.yaml", defaults)?;
    lay(&mut values, said, Null::TakesAway);
    let values = Value::Object(values);
    let schema: Value = serde_json::from_str(schema).expect("the chart's schema is JSON");
    check(&values, &schema, "")?;
    Ok(values)
}

fn yaml<T: DeserializeOwned>(name: &str, text: &str) -> Result<T, String> {
    serde_saphyr::from_str(text).map_err(|error| format!("{name}: {error}"))
}

#[derive(Clone, Copy)]
enum Null {
    /// It is said to whom this is laid over next.
    Stays,
    TakesAway,
}

/// Maps are joined, everything else replaced, as Helm has it.
fn lay(under: &mut Map<String, Value>, over: Map<String, Value>, null: Null) {
    for (name, value) in over {
        match (under.get_mut(&name), value, null) {
            (_, Value::Null, Null::TakesAway) => {
                under.remove(&name);
            }
            (Some(Value::Object(under)), Value::Object(over), _) => lay(under, over, null),
            (_, value, _) => {
                under.insert(name, value);
            }
        }
    }
}

/// As much of JSON Schema as `values.schema.json` uses: `KEYWORDS` in the tests has all of it.
fn check(value: &Value, schema: &Value, at: &str) -> Result<(), String> {
    let wrong = |expected: String| Err(format!("value {at}: expected {expected}, found {value}"));
    let words = |list: &Value| {
        let words = list
            .as_array()
            .into_iter()
            .flatten()
            .map(super::expression::shown);
        words.collect::<Vec<_>>().join(" or ")
    };
    if let Some(said) = schema.get("type") {
        let kinds: Vec<&str> = match said {
            Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).collect(),
            one => one.as_str().into_iter().collect(),
        };
        if !kinds.iter().any(|kind| is(value, kind)) {
            return wrong(format!("{} {}", article(kinds[0]), kinds.join(" or ")));
        }
    }
    if let Some(choices) = schema["enum"].as_array()
        && !choices.contains(value)
    {
        return wrong(words(&schema["enum"]));
    }
    if let (Some(pattern), Some(text)) = (schema["pattern"].as_str(), value.as_str()) {
        let pattern = regex_lite::Regex::new(pattern).expect("the chart's patterns are in order");
        if !pattern.is_match(text) {
            return wrong(format!("what fits {pattern}"));
        }
    }
    if let (Some(least), Some(text)) = (schema["minLength"].as_u64(), value.as_str())
        && (text.chars().count() as u64) < least
    {
        return wrong("a text that says something".to_owned());
    }
    if let (Some(most), Some(text)) = (schema["maxLength"].as_u64(), value.as_str())
        && (text.chars().count() as u64) > most
    {
        return wrong(format!("a text of at most {most} characters"));
    }
    for part in schema["allOf"].as_array().into_iter().flatten() {
        check(value, part, at)?;
    }
    if let Some(number) = value.as_i64() {
        let least = schema["minimum"].as_i64().unwrap_or(i64::MIN);
        let most = schema["maximum"].as_i64().unwrap_or(i64::MAX);
        if !(least..=most).contains(&number) {
            return wrong(format!("{least} to {most}"));
        }
    }
    for (index, item) in value.as_array().into_iter().flatten().enumerate() {
        check(item, &schema["items"], &format!("{at}[{index}]"))?;
    }
    for name in schema["required"].as_array().into_iter().flatten() {
        let name = super::expression::shown(name);
        if value.get(&name).is_none() {
            return wrong(format!("a {name}"));
        }
    }
    for (name, inner) in value.as_object().into_iter().flatten() {
        let path = if at.is_empty() {
            name.clone()
        } else {
            format!("{at}.{name}")
        };
        match (
            schema["properties"].get(name),
            &schema["additionalProperties"],
        ) {
            (Some(known), _) => check(inner, known, &path)?,
            (None, Value::Bool(false)) => {
                let known = schema["properties"].as_object().into_iter().flatten();
                let known: Vec<&str> = known.map(|(name, _)| name.as_str()).collect();
                return Err(format!(
                    "there is no value {path}; there are {}",
                    known.join(", ")
                ));
            }
            (None, other) => check(inner, other, &path)?,
        }
    }
    Ok(())
}

fn is(value: &Value, kind: &str) -> bool {
    match kind {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        _ => false,
    }
}

fn article(kind: &str) -> &'static str {
    if kind.starts_with(['a', 'o', 'i']) {
        "an"
    } else {
        "a"
    }
}

#[cfg(test)]
mod tests {
    use super::super::SCHEMA;
    use super::*;

    /// What [`check`] acts on, and what is for people.
    const KEYWORDS: [&str; 14] = [
        "$schema",
        "title",
        "additionalProperties",
        "allOf",
        "enum",
        "items",
        "maxLength",
        "maximum",
        "minLength",
        "minimum",
        "pattern",
        "properties",
        "required",
        "type",
    ];

    fn look(schema: &Value) {
        let Some(fields) = schema.as_object() else {
            return;
        };
        for (keyword, said) in fields {
            assert!(
                KEYWORDS.contains(&keyword.as_str()),
                "nobody checks {keyword}"
            );
            match (keyword.as_str(), said) {
                ("properties", Value::Object(known)) => known.values().for_each(look),
                ("allOf", Value::Array(parts)) => parts.iter().for_each(look),
                ("items" | "additionalProperties", inner) => look(inner),
                _ => {}
            }
        }
    }

    #[test]
    fn every_keyword_of_the_charts_schema_is_checked() {
        look(&serde_json::from_str(SCHEMA).expect("JSON"));
    }

    #[test]
    fn all_that_is_asked_of_a_text_must_hold() {
        let schema = serde_json::json!({ "maxLength": 3, "allOf": [{ "pattern": "^a" }, { "pattern": "b$" }] });
        for (text, holds) in [
            ("ab", true),
            ("aab", true),
            ("aaab", false),
            ("a", false),
            ("b", false),
        ] {
            assert_eq!(check(&text.into(), &schema, "").is_ok(), holds, "{text}");
        }
    }
}
