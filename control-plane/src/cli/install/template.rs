//! As much of Go's templates as the chart uses: text, `if`, `else`, `with`, `define` and values. What it does not know
//! it refuses; the chart's tests would show it.

use std::collections::HashMap;

use serde_json::Value;

use super::expression::{self, Pipeline, is_empty, shown};

/// Templates that others include, by name.
#[derive(Default)]
pub(super) struct Templates {
    named: HashMap<String, Vec<Node>>,
}

pub(super) enum Node {
    Text(String),
    Value(Pipeline),
    Choice {
        /// `with`: what is looked at becomes the dot inside.
        is_with: bool,
        on: Pipeline,
        then: Vec<Node>,
        otherwise: Vec<Node>,
    },
}

impl Templates {
    /// From a file of definitions.
    pub(super) fn read(text: &str) -> Result<Self, String> {
        let mut templates = Self::default();
        let mut parts = split(text)?.into_iter().peekable();
        while let Some(part) = parts.next() {
            let Part::Action(action) = part else { continue };
            let name = (action.strip_prefix("define "))
                .ok_or_else(|| format!("expected a definition, found {action}"))?;
            let (nodes, end) = parse(&mut parts)?;
            expect(end.as_deref(), "end")?;
            templates
                .named
                .insert(name.trim().trim_matches('"').to_owned(), nodes);
        }
        Ok(templates)
    }

    pub(super) fn render(&self, text: &str, root: &Value) -> Result<String, String> {
        let (nodes, end) = parse(&mut split(text)?.into_iter().peekable())?;
        match end {
            Some(action) => Err(format!("{action} without a beginning")),
            None => self.nodes(&nodes, root, root),
        }
    }

    pub(super) fn include(&self, name: &str, dot: &Value) -> Result<String, String> {
        let nodes = self.named.get(name);
        let nodes = nodes.ok_or_else(|| format!("no template {name}"))?;
        self.nodes(nodes, dot, dot)
    }

    fn nodes(&self, nodes: &[Node], dot: &Value, root: &Value) -> Result<String, String> {
        let mut out = String::new();
        for node in nodes {
            match node {
                Node::Text(text) => out.push_str(text),
                Node::Value(pipeline) => {
                    out.push_str(&shown(&expression::evaluate(pipeline, dot, root, self)?));
                }
                Node::Choice {
                    is_with,
                    on,
                    then,
                    otherwise,
                } => {
                    let value = expression::evaluate(on, dot, root, self)?;
                    let inside = match (is_empty(&value), is_with) {
                        (true, _) => self.nodes(otherwise, dot, root)?,
                        (false, true) => self.nodes(then, &value, root)?,
                        (false, false) => self.nodes(then, dot, root)?,
                    };
                    out.push_str(&inside);
                }
            }
        }
        Ok(out)
    }
}

enum Part {
    Text(String),
    Action(String),
}

type Parts = std::iter::Peekable<std::vec::IntoIter<Part>>;

/// Text and actions, with the blanks gone that `{{-` and `-}}` take away.
fn split(text: &str) -> Result<Vec<Part>, String> {
    let mut parts = Vec::new();
    let mut rest = text;
    let mut trims = false;
    loop {
        let (before, after) = match rest.split_once("{{") {
            Some((before, after)) => (before, Some(after)),
            None => (rest, None),
        };
        let before = if trims { before.trim_start() } else { before };
        let Some(after) = after else {
            parts.push(Part::Text(before.to_owned()));
            return Ok(parts);
        };
        let (action, tail) = after.split_once("}}").ok_or("{{ without }}")?;
        // `{…: {{ .x }}}`: the brace that closes the map is not the action's.
        let trimmed = action.strip_prefix("- ");
        let before = if trimmed.is_some() {
            before.trim_end()
        } else {
            before
        };
        let action = trimmed.unwrap_or(action);
        trims = action.ends_with(" -");
        let action = action.strip_suffix(" -").unwrap_or(action);
        parts.push(Part::Text(before.to_owned()));
        parts.push(Part::Action(action.trim().to_owned()));
        rest = tail;
    }
}

/// Up to an `else` or `end` that belongs to somebody above, which is returned.
fn parse(parts: &mut Parts) -> Result<(Vec<Node>, Option<String>), String> {
    let mut nodes = Vec::new();
    while let Some(part) = parts.next() {
        let action = match part {
            Part::Text(text) => {
                nodes.push(Node::Text(text));
                continue;
            }
            Part::Action(action) => action,
        };
        let (word, on) = action.split_once(' ').unwrap_or((&action, ""));
        match word {
            "else" | "end" => return Ok((nodes, Some(action))),
            "if" | "with" => {
                let (then, end) = parse(parts)?;
                let (otherwise, end) = match end.as_deref() {
                    Some("else") => parse(parts)?,
                    _ => (Vec::new(), end),
                };
                expect(end.as_deref(), "end")?;
                nodes.push(Node::Choice {
                    is_with: word == "with",
                    on: expression::parse(on)?,
                    then,
                    otherwise,
                });
            }
            _ => nodes.push(Node::Value(expression::parse(&action)?)),
        }
    }
    Ok((nodes, None))
}

fn expect(found: Option<&str>, wanted: &str) -> Result<(), String> {
    match found {
        Some(found) if found == wanted => Ok(()),
        found => Err(format!("expected {wanted}, found {found:?}")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn render(text: &str) -> Result<String, String> {
        let templates =
            Templates::read("{{- define \"greeting\" -}}\nhello {{ .who }}\n{{- end }}")
                .expect("in order");
        let root =
            json!({ "who": "you", "empty": "", "list": [1, 2], "map": { "deep": 3 }, "count": 2 });
        templates.render(text, &root)
    }

    #[test]
    fn it_reads_as_go_does() {
        for (text, expected) in [
            ("a {{ .who }} b", "a you b"),
            ("a\n  {{- .map.deep }}\nb", "a3\nb"),
            ("{{ .who -}}\n  b", "youb"),
            ("{{ .empty | default .who | quote }}", "\"you\""),
            ("{{ if .empty }}yes{{ else }}no{{ end }}", "no"),
            ("{{ with .map }}{{ .deep }}{{ $.who }}{{ end }}", "3you"),
            ("{{ if gt (int .count) 1 }}many{{ end }}", "many"),
            ("{{ if hasPrefix \"yo\" .who }}yes{{ end }}", "yes"),
            ("{{ if hasPrefix \"ou\" .who }}yes{{ end }}", ""),
            ("{{- include \"greeting\" . | nindent 2 }}", "\n  hello you"),
            ("{a: {{ .who | quote }}}", "{a: \"you\"}"),
        ] {
            assert_eq!(render(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_it_does_not_know_is_refused_and_not_left_out() {
        for text in [
            "{{ .nobody }}",
            "{{ .who.deep }}",
            "{{ unheard .who }}",
            "{{ range .list }}{{ end }}",
            "{{ if .who }}",
            "{{ end }}",
            "{{ include \"nothing\" . }}",
            "{{ .who",
            "{{ gt .who 1 }}",
        ] {
            assert!(render(text).is_err(), "{text}");
        }
    }
}
