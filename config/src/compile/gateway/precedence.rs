//! Which of several matches is tried first, as the Gateway API says.
//!
//! An exact path before a pattern before a prefix, the longer before the shorter; then what names a method, what asks for
//! more headers, for more query parameters; then the older route, then its name (routes come in that order), then the
//! place in the route. Of a GRPCRoute: service, then method, then headers. The standard leaves to us where patterns stand.
//! The two kinds never meet: the callers of a port are routed by one of them.

use std::cmp::Reverse;

use crate::snapshot::{PathCondition, RuleMatch, TextCondition};

/// Smaller is tried earlier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Precedence {
    path: (u8, Reverse<usize>),
    method: (u8, Reverse<usize>),
    headers: Reverse<usize>,
    query: Reverse<usize>,
    /// Of the route, among those of its kind.
    age: usize,
    /// Of the rule in its route. Matches of a rule stay in the order in which they are written.
    place: usize,
}

impl Precedence {
    pub(super) fn of(matches: &RuleMatch, age: usize, place: usize) -> Self {
        let (path, method) = match &matches.path {
            PathCondition::Grpc { service, method } => (text(service), text(method)),
            other => {
                let (class, length) = path(other);
                let method = (u8::from(matches.method.is_none()), Reverse(0));
                ((class, Reverse(length)), method)
            }
        };
        Self {
            path,
            method,
            headers: Reverse(matches.headers.len()),
            query: Reverse(matches.query.len()),
            age,
            place,
        }
    }
}

fn path(condition: &PathCondition) -> (u8, usize) {
    match condition {
        PathCondition::Exact(path) => (0, path.chars().count()),
        PathCondition::Regex(pattern) => (1, pattern.chars().count()),
        PathCondition::Prefix(path) => (2, path.chars().count()),
        // The prefix `/`.
        PathCondition::Any | PathCondition::Grpc { .. } => (2, 1),
    }
}

fn text(condition: &Option<TextCondition>) -> (u8, Reverse<usize>) {
    match condition {
        Some(TextCondition::Exact(text)) => (0, Reverse(text.chars().count())),
        Some(TextCondition::Regex(pattern)) => (1, Reverse(pattern.chars().count())),
        None => (2, Reverse(0)),
    }
}
