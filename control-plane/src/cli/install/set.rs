//! `--set`, as Helm reads it: `a.b=c,d={e,f},g[0].h=i`, where `\` takes from the next character what it means.
//!
//! A value is a whole number of 64 bits, true, false, null, or else a text; with `--set-string` it is always a text.

use std::iter::Peekable;
use std::str::Chars;

use serde_json::{Map, Value};

/// Helm's bounds.
const INDEX_MAX: usize = 65_536;
const DEPTH_MAX: usize = 30;
const EXPECTED: &str = "expected PATH=VALUE, such as replicas=2";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Typing {
    Guessed,
    Text,
}

/// Puts what `text` says into `values`.
pub(super) fn apply(
    values: &mut Map<String, Value>,
    text: &str,
    typing: Typing,
) -> Result<(), String> {
    let mut reader = Reader {
        rest: text.chars().peekable(),
        typing,
        depth: 0,
    };
    loop {
        reader.depth = 0;
        reader.path(values)?;
        if reader.rest.peek().is_none() {
            return Ok(());
        }
    }
}

struct Reader<'a> {
    rest: Peekable<Chars<'a>>,
    typing: Typing,
    depth: usize,
}

impl Reader<'_> {
    fn path(&mut self, map: &mut Map<String, Value>) -> Result<(), String> {
        let (name, stop) = self.until("=[,.");
        let Some(stop) = stop.filter(|stop| *stop != ',' && !name.is_empty()) else {
            return Err(EXPECTED.to_owned());
        };
        match stop {
            '=' => {
                let value = self.value()?;
                map.insert(name, value);
                Ok(())
            }
            '.' => {
                self.deeper()?;
                let inner = map
                    .entry(&name)
                    .or_insert_with(|| Value::Object(Map::new()));
                let inner = inner.as_object_mut();
                self.path(inner.ok_or_else(|| format!("{name} is no map"))?)
            }
            _ => {
                let list = map.entry(&name).or_insert_with(|| Value::Array(Vec::new()));
                let list = list.as_array_mut();
                self.item(list.ok_or_else(|| format!("{name} is no list"))?)
            }
        }
    }

    /// From behind the bracket.
    fn item(&mut self, list: &mut Vec<Value>) -> Result<(), String> {
        self.deeper()?;
        let (index, stop) = self.until("]");
        let place = index.parse::<usize>().ok();
        let place = place.filter(|place| *place <= INDEX_MAX && stop.is_some());
        let Some(place) = place else {
            return Err(format!(
                "expected a place in a list, such as [0], found [{index}"
            ));
        };
        if list.len() <= place {
            list.resize(place + 1, Value::Null);
        }
        let item = &mut list[place];
        match self.rest.next() {
            Some('=') => *item = self.value()?,
            Some('.') => {
                if !item.is_object() {
                    *item = Value::Object(Map::new());
                }
                self.path(item.as_object_mut().expect("it was just made one"))?;
            }
            Some('[') => {
                if item.is_null() {
                    *item = Value::Array(Vec::new());
                }
                let inner = item.as_array_mut();
                self.item(inner.ok_or_else(|| format!("[{place}] is no list"))?)?;
            }
            _ => return Err(EXPECTED.to_owned()),
        }
        Ok(())
    }

    fn value(&mut self) -> Result<Value, String> {
        if self.rest.next_if_eq(&'{').is_none() {
            let (text, _) = self.until(",");
            return Ok(self.typed(text));
        }
        let mut list = Vec::new();
        loop {
            let (text, stop) = self.until(",}");
            list.push(self.typed(text));
            match stop {
                Some(',') => {}
                Some(_) => {
                    self.rest.next_if_eq(&',');
                    return Ok(Value::Array(list));
                }
                None => return Err("a list that begins with { ends with }".to_owned()),
            }
        }
    }

    fn typed(&self, text: String) -> Value {
        let is = |word: &str| text.eq_ignore_ascii_case(word);
        if self.typing == Typing::Text {
            return text.into();
        }
        match text.parse::<i64>() {
            // What begins with a zero is a text: a version, a mode of a file.
            Ok(number) if text == "0" || !text.starts_with('0') => number.into(),
            _ if is("true") => true.into(),
            _ if is("false") => false.into(),
            _ if is("null") => Value::Null,
            _ => text.into(),
        }
    }

    /// What is before one of `stops`, and which that was.
    fn until(&mut self, stops: &str) -> (String, Option<char>) {
        let mut text = String::new();
        while let Some(char) = self.rest.next() {
            match char {
                '\\' => text.extend(self.rest.next()),
                stop if stops.contains(stop) => return (text, Some(stop)),
                other => text.push(other),
            }
        }
        (text, None)
    }

    fn deeper(&mut self) -> Result<(), String> {
        self.depth += 1;
        match self.depth <= DEPTH_MAX {
            true => Ok(()),
            false => Err(format!("more than {DEPTH_MAX} levels")),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    /// What Helm made of each, committed; `cargo test --test charts -- --ignored` asks it anew.
    const HELMS: &str = include_str!("../../../tests/charts/golden/sets.jsonl");

    #[derive(Deserialize)]
    struct Helms {
        set: String,
        typed: Option<Value>,
        text: Option<Value>,
    }

    #[test]
    fn a_set_means_what_it_means_to_helm() {
        let mut compared = 0;
        for line in HELMS.lines() {
            let helms: Helms = serde_json::from_str(line).expect("a line of JSON");
            for (typing, expected) in [(Typing::Guessed, helms.typed), (Typing::Text, helms.text)] {
                let mut ours = Map::new();
                let applied = apply(&mut ours, &helms.set, typing);
                let ours = applied.ok().map(|()| Value::Object(ours));
                assert_eq!(ours, expected, "{} {typing:?}", helms.set);
                compared += 1;
            }
        }
        assert!(compared >= 50, "{compared}");
    }

    #[test]
    fn what_helm_passes_over_is_refused() {
        for text in ["=1", ".a=1", "a.=1", "[0]=1", "a=1,=2"] {
            assert!(
                apply(&mut Map::new(), text, Typing::Guessed).is_err(),
                "{text}"
            );
        }
    }
}
