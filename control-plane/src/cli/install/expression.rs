//! What stands between the braces of a template: values, and functions that are applied to them one after the other.

use serde_json::Value;

use super::template::Templates;

/// Commands; each gets what the one before it made as its last argument.
pub(super) type Pipeline = Vec<Command>;

/// A function and its arguments, or a single value.
pub(super) type Command = Vec<Operand>;

pub(super) enum Operand {
    /// `.a.b`, from the dot.
    Dot(Vec<String>),
    /// `$.a.b`, from the root.
    Root(Vec<String>),
    Literal(Value),
    Nested(Pipeline),
    Function(String),
}

pub(super) fn parse(text: &str) -> Result<Pipeline, String> {
    let mut words = words(text)?.into_iter();
    let pipeline = pipeline(&mut words, false)?;
    match words.next() {
        None => Ok(pipeline),
        Some(word) => Err(format!("{word} is too much in {text}")),
    }
}

fn pipeline(words: &mut std::vec::IntoIter<String>, is_nested: bool) -> Result<Pipeline, String> {
    let mut commands = vec![Vec::new()];
    loop {
        let operand = match words.next() {
            None if is_nested => return Err("( without )".to_owned()),
            None => break,
            Some(word) => match word.as_str() {
                ")" if is_nested => break,
                "|" => {
                    commands.push(Vec::new());
                    continue;
                }
                "(" => Operand::Nested(pipeline(words, true)?),
                word => operand(word)?,
            },
        };
        commands.last_mut().expect("one is there").push(operand);
    }
    match commands.iter().all(|command| !command.is_empty()) {
        true => Ok(commands),
        false => Err("nothing where a value must be".to_owned()),
    }
}

fn operand(word: &str) -> Result<Operand, String> {
    let path = |text: &str| {
        let steps = text.split('.').filter(|step| !step.is_empty());
        steps.map(str::to_owned).collect()
    };
    if word.starts_with('.') {
        return Ok(Operand::Dot(path(word)));
    }
    if let Some(rest) = word.strip_prefix('$') {
        return Ok(Operand::Root(path(rest)));
    }
    if word.starts_with('"') || word.starts_with(|first: char| first.is_ascii_digit()) {
        let literal = serde_json::from_str(word);
        return literal
            .map(Operand::Literal)
            .map_err(|error| format!("{word}: {error}"));
    }
    match word.chars().all(char::is_alphanumeric) {
        true => Ok(Operand::Function(word.to_owned())),
        false => Err(format!("{word} is not understood")),
    }
}

fn words(text: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '(' | ')' | '|' => 1,
            '"' => {
                let end = rest[1..].find('"');
                end.ok_or_else(|| format!("a text without an end: {rest}"))? + 2
            }
            _ => rest.find([' ', '(', ')', '|']).unwrap_or(rest.len()),
        };
        let (word, tail) = rest.split_at(length);
        words.push(word.to_owned());
        rest = tail.trim_start();
    }
    Ok(words)
}

pub(super) fn evaluate(
    pipeline: &Pipeline,
    dot: &Value,
    root: &Value,
    templates: &Templates,
) -> Result<Value, String> {
    let mut made: Option<Value> = None;
    for command in pipeline {
        let mut values = Vec::new();
        let mut function = None;
        for (index, operand) in command.iter().enumerate() {
            match operand {
                Operand::Function(name) if index == 0 => function = Some(name),
                Operand::Function(name) => {
                    return Err(format!("{name} stands where a value must be"));
                }
                Operand::Dot(path) => values.push(look_up(dot, path)?.clone()),
                Operand::Root(path) => values.push(look_up(root, path)?.clone()),
                Operand::Literal(value) => values.push(value.clone()),
                Operand::Nested(pipeline) => {
                    values.push(evaluate(pipeline, dot, root, templates)?);
                }
            }
        }
        values.extend(made.take());
        made = Some(match function {
            Some(name) => apply(name, &values, templates)?,
            None if values.len() == 1 => values.remove(0),
            None => return Err("several values where one must be".to_owned()),
        });
    }
    made.ok_or_else(|| "nothing between the braces".to_owned())
}

/// Go writes `<no value>` for what is not there, which nobody ever wants.
fn look_up<'a>(from: &'a Value, path: &[String]) -> Result<&'a Value, String> {
    path.iter().try_fold(from, |value, step| {
        value
            .get(step)
            .ok_or_else(|| format!("no value .{}", path.join(".")))
    })
}

fn apply(name: &str, values: &[Value], templates: &Templates) -> Result<Value, String> {
    let made = match (name, values) {
        ("quote", [value]) => Value::from(shown(value)).to_string().into(),
        ("default", [other, value]) if is_empty(value) => other.clone(),
        ("default", [_, value]) => value.clone(),
        ("int", [value]) => value.as_i64().ok_or("int of what is no number")?.into(),
        ("gt", [Value::Number(a), Value::Number(b)]) => (a.as_i64() > b.as_i64()).into(),
        ("hasPrefix", [Value::String(prefix), Value::String(text)]) => {
            text.starts_with(&**prefix).into()
        }
        ("include", [Value::String(name), dot]) => templates.include(name, dot)?.into(),
        ("nindent", [Value::Number(by), Value::String(text)]) => {
            let by = usize::try_from(by.as_u64().unwrap_or_default()).unwrap_or_default();
            let lines = text.lines().map(|line| format!("\n{:by$}{line}", ""));
            lines.collect::<String>().into()
        }
        ("toYaml", [value]) => {
            let text = serde_saphyr::to_string(value).map_err(|error| error.to_string())?;
            text.trim_end().into()
        }
        _ => {
            return Err(format!(
                "{name} with {} values is not understood",
                values.len()
            ));
        }
    };
    Ok(made)
}

/// As Go counts it: false, 0, and whatever holds nothing.
pub(super) fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(is) => !is,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
    }
}

pub(super) fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
