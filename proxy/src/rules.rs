//! Which rule of the routes of the Gateway API a call meets. Pure.
//!
//! Matches come in the order of the standard from the compiler, so the first that holds applies. Nothing is allocated when
//! a call is looked at, but for what is percent-encoded in its path or its query.

pub mod change;

use std::borrow::Cow;

use http::request::Parts;
use http::{HeaderName, Method};
use weir_config::path;
use weir_config::pattern::{PATTERNS_MAX, Pattern};
use weir_config::snapshot::{PathCondition, RuleMatch, TextCondition, ValueCondition};

use crate::head;

#[derive(Debug)]
pub struct Rules(Vec<Condition>);

#[derive(Debug)]
struct Condition {
    rule: usize,
    path: Path,
    method: Option<Method>,
    headers: Vec<(HeaderName, Text)>,
    query: Vec<(String, Text)>,
}

/// Of the whole form: a slash at the end counts for all but prefixes and methods of gRPC.
#[derive(Debug)]
enum Path {
    Any,
    Exact(String),
    /// Without a trailing slash.
    Prefix(String),
    Pattern(Pattern),
    Grpc {
        service: Option<Text>,
        method: Option<Text>,
    },
}

#[derive(Debug)]
enum Text {
    Exact(String),
    Pattern(Pattern),
}

impl Rules {
    /// `Err`: it holds what this version cannot match, which the compiler does not let through, or more than a sidecar is to
    /// hold of it.
    pub fn new(matches: &[RuleMatch]) -> Result<Self, String> {
        let patterns: usize = matches.iter().map(RuleMatch::patterns).sum();
        if patterns > PATTERNS_MAX {
            return Err(format!(
                "{patterns} patterns in routes, at most {PATTERNS_MAX} are taken"
            ));
        }
        let conditions = matches.iter().map(Condition::new);
        conditions.collect::<Result<_, _>>().map(Self)
    }

    /// The place of the rule; `None`: there is none for it.
    pub fn find(&self, head: &Parts, grpc: bool) -> Option<usize> {
        // Once for all: a path that servers read differently has no form, and matches only what takes every path.
        let form = path::whole(head.uri.path());
        let path = form.as_deref().and_then(|it| std::str::from_utf8(it).ok());
        let mut conditions = self.0.iter();
        let found = conditions.find(|it| it.matches(head, path, grpc));
        found.map(|condition| condition.rule)
    }
}

impl Condition {
    fn new(said: &RuleMatch) -> Result<Self, String> {
        let headers = said.headers.iter().map(|it| {
            let name: HeaderName = it.name.parse().map_err(|_| it.name.clone())?;
            Ok((name, Text::new(&it.value)?))
        });
        let query = said
            .query
            .iter()
            .map(|ValueCondition { name, value }| Ok((name.clone(), Text::new(value)?)));
        let method = said.method.as_deref().map(|method| {
            let method = Method::from_bytes(method.as_bytes());
            method.map_err(|error| error.to_string())
        });
        Ok(Self {
            rule: said.rule,
            path: Path::new(&said.path)?,
            method: method.transpose()?,
            headers: headers.collect::<Result<_, String>>()?,
            query: query.collect::<Result<_, String>>()?,
        })
    }

    fn matches(&self, head: &Parts, path: Option<&str>, grpc: bool) -> bool {
        self.method.as_ref().is_none_or(|it| *it == head.method)
            && self.path.matches(path, grpc)
            && self
                .headers
                .iter()
                .all(|(name, text)| has_header(head, name, text))
            && (self.query.is_empty() || {
                let query = head.uri.query().unwrap_or_default();
                let mut wanted = self.query.iter();
                wanted.all(|(name, text)| has_param(query, name, text))
            })
    }
}

impl Path {
    fn new(said: &PathCondition) -> Result<Self, String> {
        let text = |it: &Option<TextCondition>| it.as_ref().map(Text::new).transpose();
        Ok(match said {
            PathCondition::Any => Self::Any,
            PathCondition::Exact(path) => Self::Exact(path.clone()),
            PathCondition::Prefix(path) => Self::Prefix(path.trim_end_matches('/').to_owned()),
            PathCondition::Regex(pattern) => Self::Pattern(Pattern::new(pattern)?),
            PathCondition::Grpc { service, method } => Self::Grpc {
                service: text(service)?,
                method: text(method)?,
            },
        })
    }

    fn matches(&self, path: Option<&str>, grpc: bool) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(wanted) => path == Some(wanted),
            Self::Prefix(wanted) => path
                .and_then(|path| path.strip_prefix(wanted.as_str()))
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
            Self::Pattern(pattern) => path.is_some_and(|path| pattern.matches(path)),
            Self::Grpc {
                service: None,
                method: None,
            } => grpc,
            Self::Grpc { service, method } => {
                let called = path
                    .filter(|_| grpc)
                    .and_then(|path| path.strip_prefix('/'))
                    .map(|path| path.strip_suffix('/').unwrap_or(path));
                let called = called.and_then(|called| called.split_once('/'));
                let is = |wanted: &Option<Text>, found: &str| {
                    wanted.as_ref().is_none_or(|wanted| wanted.is(found))
                };
                called.is_some_and(|(of, called)| is(service, of) && is(method, called))
            }
        }
    }
}

impl Text {
    fn new(said: &TextCondition) -> Result<Self, String> {
        Ok(match said {
            TextCondition::Exact(text) => Self::Exact(text.clone()),
            TextCondition::Regex(pattern) => Self::Pattern(Pattern::new(pattern)?),
        })
    }

    fn is(&self, found: &str) -> bool {
        match self {
            Self::Exact(text) => text == found,
            Self::Pattern(pattern) => pattern.matches(found),
        }
    }
}

/// Any of them, where there are several of that name.
fn has_header(head: &Parts, name: &HeaderName, wanted: &Text) -> bool {
    let is = |value: &[u8]| std::str::from_utf8(value).is_ok_and(|value| wanted.is(value));
    head::values(head, name).any(is)
}

/// The first of that name.
fn has_param(query: &str, name: &str, wanted: &Text) -> bool {
    let pairs = query
        .split('&')
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let mut named = pairs.filter(|(found, _)| decoded(found).as_deref() == Some(name));
    let value = named.next().and_then(|(_, value)| decoded(value));
    value.is_some_and(|value| wanted.is(&value))
}

/// As forms are sent: `+` is a space. `None`: it is no text.
fn decoded(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains(['%', '+']) {
        return Some(Cow::Borrowed(text));
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let escape = (*first == b'%').then(|| path::escaped(tail)).flatten();
        match escape {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            None => {
                bytes.push(if *first == b'+' { b' ' } else { *first });
                rest = tail;
            }
        }
    }
    String::from_utf8(bytes).ok().map(Cow::Owned)
}

/// The place of one of `weights`, each as often as it says. `None`: none has any.
pub fn pick(weights: impl Iterator<Item = u32> + Clone, random: u64) -> Option<usize> {
    let total: u64 = weights.clone().map(u64::from).sum();
    let mut left = random.checked_rem(total)?;
    for (place, weight) in weights.map(u64::from).enumerate() {
        match left.checked_sub(weight) {
            Some(more) => left = more,
            None => return Some(place),
        }
    }
    None
}

#[cfg(test)]
mod tests;
