//! The chart's values: its own, what the user says on top, and whether that may be said.

use serde_json::{Map, Value};

/// `layers`: name and YAML of each, later ones win; `set`: `path=value`, which win over all.
pub(super) fn merged(
    defaults: &str,
    schema: &str,
    layers: &[(String, String)],
    set: &[String],
) -> Result<Value, String> {
    let mut values = yaml("values.yaml", defaults)?;
    for (name, text) in layers {
        lay(&mut values, yaml(name, text)?);
    }
    for one in set {
        let (path, value) = one
            .split_once('=')
            .ok_or_else(|| format!("--set {one}: expected PATH=VALUE, such as replicas=2"))?;
        let value = yaml("--set", value)?;
        let nested = path.rsplit('.').fold(value, |inner, step| {
            Value::Object(Map::from_iter([(step.to_owned(), inner)]))
        });
        lay(&mut values, nested);
    }
    let schema: Value = serde_json::from_str(schema).expect("the chart's schema is JSON");
    check(&values, &schema, "")?;
    Ok(values)
}

fn yaml(name: &str, text: &str) -> Result<Value, String> {
    serde_saphyr::from_str(text).map_err(|error| format!("{name}: {error}"))
}

/// Maps are joined, everything else replaced; null takes away what was there, as Helm has it.
fn lay(under: &mut Value, over: Value) {
    match (under, over) {
        (Value::Object(under), Value::Object(over)) => {
            for (name, value) in over {
                if value.is_null() {
                    under.remove(&name);
                } else {
                    lay(under.entry(name).or_insert(Value::Null), value);
                }
            }
        }
        (under, over) => *under = over,
    }
}

/// As much of JSON Schema as `values.schema.json` uses.
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
