//! HTTP in clear: the HTTP/2 preface (RFC 9113 §3.4) and the request line of HTTP/1 (RFC 9112 §3).

use super::Detected;

const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const HTTP1_VERSION: &[u8] = b"HTTP/1.";

/// The longest registered method has 17 bytes (UPDATEREDIRECTREF).
const METHOD_BYTES_MAX: usize = 24;

/// Beyond this a request line is judged by its beginning; servers refuse longer ones anyway.
const REQUEST_LINE_BYTES_MAX: usize = 8 * 1024;

/// RFC 9110 §9 and RFC 5789: what a request line that is too long to see its end may begin with.
const KNOWN_METHODS: [&[u8]; 9] = [
    b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"CONNECT", b"OPTIONS", b"TRACE", b"PATCH",
];

pub(super) fn detect(prefix: &[u8]) -> Detected {
    if prefix.starts_with(HTTP2_PREFACE) {
        return Detected::Http2;
    }
    if HTTP2_PREFACE.starts_with(prefix) {
        return Detected::NeedMore;
    }
    http1(prefix)
}

fn http1(prefix: &[u8]) -> Detected {
    let line = without_empty_lines(&prefix[..prefix.len().min(REQUEST_LINE_BYTES_MAX)]);
    match request_line(line) {
        Detected::NeedMore if prefix.len() >= REQUEST_LINE_BYTES_MAX => {
            let skipped = prefix.first() != line.first();
            by_its_beginning(line, skipped)
        }
        verdict => verdict,
    }
}

/// Servers skip empty lines before a request (RFC 9112 §2.2), so a caller could hide one behind them.
fn without_empty_lines(prefix: &[u8]) -> &[u8] {
    let is_line_end = |byte: &u8| matches!(byte, b'\r' | b'\n');
    let start = prefix
        .iter()
        .position(|byte| !is_line_end(byte))
        .unwrap_or(prefix.len());
    &prefix[start..]
}

/// `METHOD SP target SP HTTP/1.`, each part judged only as far as its bytes are there.
fn request_line(line: &[u8]) -> Detected {
    let Some((method, rest)) = split_at_space(line) else {
        return needs_more_if(line.len() <= METHOD_BYTES_MAX && is_method(line));
    };
    if method.is_empty() || method.len() > METHOD_BYTES_MAX || !is_method(method) {
        return Detected::Opaque;
    }
    let Some((target, version)) = split_at_space(rest) else {
        return needs_more_if(is_target(rest));
    };
    if target.is_empty() || !is_target(target) {
        return Detected::Opaque;
    }
    if version.starts_with(HTTP1_VERSION) {
        return Detected::Http1;
    }
    needs_more_if(HTTP1_VERSION.starts_with(version))
}

/// A request line without end in sight. With empty lines before it, it is left to the HTTP
/// parser to refuse: no other protocol begins like that, and opaque would let it pass unseen.
fn by_its_beginning(line: &[u8], empty_lines_before: bool) -> Detected {
    let known = split_at_space(line).is_some_and(|(method, target)| {
        let scheme = |name: &[u8]| {
            let head = target.get(..name.len());
            head.is_some_and(|head| head.eq_ignore_ascii_case(name))
        };
        let is_usual = target.starts_with(b"/") || scheme(b"http://") || scheme(b"https://");
        KNOWN_METHODS.contains(&method) && is_usual
    });
    if known || empty_lines_before {
        Detected::Http1
    } else {
        Detected::Opaque
    }
}

fn split_at_space(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let space = bytes.iter().position(|byte| *byte == b' ')?;
    Some((&bytes[..space], &bytes[space + 1..]))
}

/// Registered methods are upper-case letters, some with a hyphen (M-SEARCH, VERSION-CONTROL).
fn is_method(bytes: &[u8]) -> bool {
    bytes
        .iter()
        .all(|byte| byte.is_ascii_uppercase() || *byte == b'-')
        && bytes.first() != Some(&b'-')
}

/// Any byte that does not end or break a line; which of them are legal is the HTTP parser's to say.
fn is_target(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte > b' ' && *byte != 0x7f)
}

fn needs_more_if(possible: bool) -> Detected {
    if possible {
        Detected::NeedMore
    } else {
        Detected::Opaque
    }
}
