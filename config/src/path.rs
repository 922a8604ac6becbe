//! The one form of a path that authorization compares, or the word that there is none.
//!
//! Servers do not agree on what `//`, `/../`, `%2F`, `;x=y` or a backslash in a path mean, and who decides by one meaning
//! lets the other pass. So such a path has no canonical form, and whoever would have to compare it refuses. What remains
//! means the same to every server that decodes once: percent-encoding is undone, and a slash at the end is taken off.

use std::borrow::Cow;

/// `None`: it may mean different things to different servers.
pub fn canonical(path: &str) -> Option<Cow<'_, [u8]>> {
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
    let length = 1 + below.len();
    Some(match decoded {
        Cow::Borrowed(path) => Cow::Borrowed(&path[..length]),
        Cow::Owned(mut path) => {
            path.truncate(length);
            Cow::Owned(path)
        }
    })
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

/// The byte that two hexadecimal digits stand for.
fn escaped(text: &[u8]) -> Option<u8> {
    let [high, low, ..] = text else { return None };
    let digit = |byte: &u8| char::from(*byte).to_digit(16);
    u8::try_from(digit(high)? * 16 + digit(low)?).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_means_the_same_is_the_same() {
        for (path, form) in [
            ("/", "/"),
            ("/admin", "/admin"),
            ("/admin/", "/admin"),
            ("/%61dmin", "/admin"),
            ("/%61%64min/%7eme", "/admin/~me"),
            ("/a%2Bb", "/a+b"),
            ("/a.b/...", "/a.b/..."),
            ("/100%25", "/100%"),
            ("/100%25x", "/100%x"),
            ("/what%3Fis", "/what?is"),
            ("/a b", "/a b"),
            ("/%C3%BC", "/ü"),
            ("/ü", "/ü"),
        ] {
            let found = canonical(path);
            assert_eq!(found.as_deref(), Some(form.as_bytes()), "{path}");
        }
    }

    /// Each of them went past somebody's authorization once (security.md, path normalization).
    #[test]
    fn what_servers_read_differently_has_no_form() {
        for path in [
            "",
            "*",
            "admin",
            "//",
            "//admin",
            "/a//b",
            "/admin//",
            "/.",
            "/..",
            "/./admin",
            "/x/../admin",
            "/admin/..",
            "/admin/.",
            "/%2e%2e/admin",
            "/.%2E/admin",
            "/%2fadmin",
            "/a%2Fb",
            "/a%5cb",
            "/a\\b",
            "/admin;x",
            "/..;x=y/admin",
            "/admin%3Bx",
            "/admin%00",
            "/admin\0",
            "/admin%0a",
            "/admin%7F",
            "/%252e%252e/admin",
            "/a%252Fb",
            "/%",
            "/%4",
            "/%zz",
            "/%u002f",
        ] {
            assert_eq!(canonical(path), None, "{path}");
        }
    }

    /// What a server may do to a path that it decodes once and then normalises.
    fn as_a_server_reads_it(path: &[u8]) -> Vec<u8> {
        let mut decoded = Vec::new();
        let mut at = 0;
        while at < path.len() {
            let hex = path
                .get(at + 1..at + 3)
                .and_then(|hex| std::str::from_utf8(hex).ok());
            let byte = hex.and_then(|hex| u8::from_str_radix(hex, 16).ok());
            match (path[at], byte) {
                (b'%', Some(byte)) => {
                    decoded.push(byte);
                    at += 3;
                }
                (byte, _) => {
                    decoded.push(byte);
                    at += 1;
                }
            }
        }
        let mut kept: Vec<&[u8]> = Vec::new();
        for segment in decoded.split(|byte| matches!(byte, b'/' | b'\\')) {
            let name = segment.split(|byte| matches!(byte, b';' | 0)).next();
            match name.unwrap_or_default() {
                b"" | b"." => {}
                b".." => drop(kept.pop()),
                name => kept.push(name),
            }
        }
        [b"/".as_slice(), &kept.join(&b'/')].concat()
    }

    /// Of pieces that matter, so that many of them are near a form.
    fn path() -> impl Strategy<Value = String> {
        let pieces = [
            "/", "a", "admin", ".", "..", "%2e", "%2F", "%5C", "%41", "%25", "%", ";", "\\", "2",
            "F", "?",
        ];
        proptest::collection::vec(proptest::sample::select(pieces.to_vec()), 0..12)
            .prop_map(|pieces| format!("/{}", pieces.concat()))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        /// A path with a form is to a server what it is to us, however far that server goes.
        #[test]
        fn a_server_that_normalises_comes_to_the_same(path in path()) {
            if let Some(form) = canonical(&path) {
                prop_assert_eq!(as_a_server_reads_it(path.as_bytes()), form.into_owned());
            }
        }

        /// However often it is asked, unless the form has a percent sign, which stands for itself.
        #[test]
        fn a_form_is_its_own_form(path in path()) {
            if let Some(form) = canonical(&path)
                && !form.contains(&b'%')
                && let Ok(text) = String::from_utf8(form.to_vec())
            {
                let again = canonical(&text).map(Cow::into_owned);
                prop_assert_eq!(again, Some(form.into_owned()));
            }
        }

        #[test]
        fn nothing_panics(path in "\\PC*") {
            let _ = canonical(&path);
        }
    }
}
