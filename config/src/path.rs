//! The one form of a path that is compared, or the word that there is none.
//!
//! Servers do not agree on what `//`, `/../`, `%2F`, `;x=y` or a backslash in a path mean, and who decides by one meaning
//! lets the other pass. So such a path has no canonical form, and whoever would have to compare it refuses. What remains
//! means the same to every server that decodes once: percent-encoding is undone. Authorization takes a slash at the end
//! off, since many a server does; to routes of the Gateway API `/two/` is another path than `/two`.

use std::borrow::Cow;

/// Without a slash at the end. `None`: it may mean different things to different servers; so does what is not UTF-8 once it is
/// decoded, where some read a dot or a slash that is written with more bytes than it needs (`%c0%ae`, CVE-2008-2938).
pub fn canonical(path: &str) -> Option<Cow<'_, [u8]>> {
    let mut form = whole(path)?;
    std::str::from_utf8(&form).ok()?;
    if form.len() > 1 && form.ends_with(b"/") {
        match &mut form {
            Cow::Borrowed(path) => *path = &path[..path.len() - 1],
            Cow::Owned(path) => drop(path.pop()),
        }
    }
    Some(form)
}

/// The same with the slash at the end, where there is one.
pub fn whole(path: &str) -> Option<Cow<'_, [u8]>> {
    let decoded = if path.contains('%') {
        Cow::Owned(decode(path.as_bytes())?)
    } else {
        Cow::Borrowed(path.as_bytes())
    };
    if decoded.iter().any(|byte| is_ambiguous(*byte)) {
        return None;
    }
    let below = decoded.strip_prefix(b"/")?;
    let below = below.strip_suffix(b"/").unwrap_or(below);
    let mut segments = below.split(|byte| *byte == b'/');
    let is_root = below.is_empty() && decoded.len() == 1;
    if !is_root && segments.any(|segment| matches!(segment, b"" | b"." | b"..")) {
        return None;
    }
    Some(decoded)
}

/// Control characters (NUL ends paths in C), the other slash, and what begins a segment's parameters.
const fn is_ambiguous(byte: u8) -> bool {
    matches!(byte, 0..=0x1f | 0x7f | b'\\' | b';')
}

/// Once. `None`: malformed, decodes to a slash, or would decode a second time.
fn decode(path: &[u8]) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(path.len());
    let mut rest = path;
    while let [first, tail @ ..] = rest {
        if *first != b'%' {
            decoded.push(*first);
            rest = tail;
            continue;
        }
        let byte = escaped(tail)?;
        rest = &tail[2..];
        if byte == b'/' {
            return None;
        }
        decoded.push(byte);
    }
    let twice = |text: &[u8]| text[0] == b'%' && escaped(&text[1..]).is_some();
    (!decoded.windows(3).any(twice)).then_some(decoded)
}

/// The byte that the two hexadecimal digits behind a percent sign stand for. `None`: they are no such digits.
pub fn escaped(text: &[u8]) -> Option<u8> {
    let [high, low, ..] = text else { return None };
    let digit = |byte: &u8| char::from(*byte).to_digit(16);
    u8::try_from(digit(high)? * 16 + digit(low)?).ok()
}

#[cfg(test)]
mod tests;
