//! Matches that can be met, of paths that can be compared and patterns that can be afforded.

use super::{Contradiction, at_most};
use crate::path;
use crate::pattern::Pattern;
use crate::resource::{
    GrpcRouteMatch, HttpRouteMatch, PathMatchType, RoutePath, ValueMatch, ValueMatchType,
};

const MATCHES_MAX: usize = 64;
const VALUES_MAX: usize = 16;
/// The bound of the standard.
const PATH_MAX: usize = 1024;
const METHODS: [&str; 9] = [
    "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH",
];

pub(super) fn check_http(matches: &[HttpRouteMatch], rule: &str, found: &mut Vec<Contradiction>) {
    let all = format!("{rule}.matches");
    at_most(&all, "matches", matches.len(), MATCHES_MAX, found);
    for (index, it) in matches.iter().enumerate().take(MATCHES_MAX) {
        let path = format!("{all}[{index}]");
        if let Some(said) = &it.path {
            check_path(said, &format!("{path}.path"), found);
        }
        check_values(&it.headers, &format!("{path}.headers"), true, found);
        check_values(
            &it.query_params,
            &format!("{path}.queryParams"),
            false,
            found,
        );
        if let Some(method) = it.method.as_deref().filter(|it| !METHODS.contains(it)) {
            let message = format!("expected a method of HTTP in capitals, found {method:?}");
            found.push(
                Contradiction::error(format!("{path}.method"), message)
                    .help(format!("one of {}", METHODS.join(", "))),
            );
        }
    }
}

pub(super) fn check_grpc(matches: &[GrpcRouteMatch], rule: &str, found: &mut Vec<Contradiction>) {
    let all = format!("{rule}.matches");
    at_most(&all, "matches", matches.len(), MATCHES_MAX, found);
    for (index, it) in matches.iter().enumerate().take(MATCHES_MAX) {
        let path = format!("{all}[{index}]");
        check_values(&it.headers, &format!("{path}.headers"), true, found);
        let Some(method) = &it.method else { continue };
        let path = format!("{path}.method");
        if method.service.is_none() && method.method.is_none() {
            found.push(
                Contradiction::error(&path, "it names neither a service nor a method")
                    .help("write one of them, or leave it out to match every call"),
            );
        }
        for (field, said) in [("service", &method.service), ("method", &method.method)] {
            let Some(said) = said else { continue };
            let path = format!("{path}.{field}");
            match method.match_type.unwrap_or_default() {
                ValueMatchType::RegularExpression => check_pattern(said, &path, found),
                ValueMatchType::Exact if !is_grpc_name(said, field == "service") => {
                    let message = format!("expected the name of a gRPC {field}, found {said:?}");
                    found.push(
                        Contradiction::error(path, message).help(
                            "as the proto file has it; a part of names is a RegularExpression",
                        ),
                    );
                }
                ValueMatchType::Exact => {}
            }
        }
    }
}

fn check_path(said: &RoutePath, path: &str, found: &mut Vec<Contradiction>) {
    let (value, path) = (said.value(), format!("{path}.value"));
    if said.match_type() == PathMatchType::RegularExpression {
        return check_pattern(value, &path, found);
    }
    if !value.starts_with('/') {
        let message = format!("a path begins with a slash, found {value:?}");
        found.push(Contradiction::error(path, message).help(format!("write /{value}")));
        return;
    }
    if value.len() > PATH_MAX {
        let message = format!(
            "expected at most {PATH_MAX} characters, found {}",
            value.len()
        );
        found.push(Contradiction::error(path, message));
        return;
    }
    if let Some(other) = value.chars().find(|c| !is_of_a_path(*c)) {
        let message = format!("no path of a call has {other:?} in it: this matches none");
        found.push(Contradiction::error(path, message).help(match other {
            '?' => "what follows a question mark is the query: match it by `queryParams`",
            _ => "write it as it is sent, by %XX of UTF-8, or match by a RegularExpression",
        }));
        return;
    }
    let form = path::canonical(value).map(|form| form.into_owned());
    if form.and_then(|form| String::from_utf8(form).ok()).is_none() {
        let message = format!("servers read this path in different ways: {value:?}");
        let help = "write it without // or /../, %2F, backslashes and semicolons: no call that has these matches a path";
        found.push(Contradiction::error(path, message).help(help));
    }
}

fn check_values(values: &[ValueMatch], all: &str, headers: bool, found: &mut Vec<Contradiction>) {
    at_most(all, "of them", values.len(), VALUES_MAX, found);
    for (index, it) in values.iter().enumerate().take(VALUES_MAX) {
        let path = format!("{all}[{index}]");
        let named = |other: &ValueMatch| match headers {
            true => other.name.eq_ignore_ascii_case(&it.name),
            false => other.name == it.name,
        };
        if headers && !is_header_name(&it.name) {
            let message = format!("{:?} is no name of a header", it.name);
            found.push(
                Contradiction::error(format!("{path}.name"), message)
                    .help("letters, digits and hyphens; those with a colon are not matched"),
            );
        } else if it.name.is_empty() {
            let message = "expected the name of a query parameter, found none";
            found.push(Contradiction::error(format!("{path}.name"), message));
        }
        if let Some(first) = values[..index].iter().position(named) {
            let message = "this name is there twice, and only the first one counts";
            found.push(
                Contradiction::warning(format!("{path}.name"), message)
                    .also(format!("{all}[{first}]"), "first here")
                    .help("write one pattern for both, or two matches"),
            );
        }
        if it.match_type == Some(ValueMatchType::RegularExpression) {
            check_pattern(&it.value, &format!("{path}.value"), found);
        }
    }
}

fn check_pattern(pattern: &str, path: &str, found: &mut Vec<Contradiction>) {
    if let Err(why) = Pattern::new(pattern) {
        let message = format!("this is no pattern that can be used: {why}");
        found.push(
            Contradiction::error(path, message)
                .help("the syntax of RE2 without classes of Unicode, of the whole text"),
        );
    }
}

/// RFC 3986 section 3.3, and the slashes between segments.
fn is_of_a_path(c: char) -> bool {
    c.is_ascii_alphanumeric() || "-._~!$&'()*+,;=:@%/".contains(c)
}

/// As proto files have them; a service with those of its package before it.
fn is_grpc_name(name: &str, dotted: bool) -> bool {
    let is_word = |word: &str| {
        let first = word.chars().next();
        first.is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
            && word.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    match dotted {
        true => name.split('.').all(is_word),
        false => is_word(name),
    }
}

/// RFC 9110 section 5.6.2.
pub(super) fn is_header_name(name: &str) -> bool {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    (1..=256).contains(&name.len()) && name.bytes().all(token)
}
