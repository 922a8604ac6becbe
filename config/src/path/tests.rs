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

/// Exact matches of the Gateway API tell `/two/` from `/two`; who may call is the same for both.
#[test]
fn the_whole_form_keeps_the_slash_at_the_end() {
    for (path, whole_form, form) in [
        ("/", "/", "/"),
        ("/two", "/two", "/two"),
        ("/two/", "/two/", "/two"),
        ("/%74wo/", "/two/", "/two"),
        ("/one/%74wo/", "/one/two/", "/one/two"),
    ] {
        assert_eq!(whole(path).as_deref(), Some(whole_form.as_bytes()));
        assert_eq!(canonical(path).as_deref(), Some(form.as_bytes()));
    }
    for path in ["//", "/two//", "/two/%2F", "/two/..", "two/"] {
        assert_eq!(whole(path), None, "{path}");
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
        "/x/%c0%ae%c0%ae/admin",
        "/a%c0%afb",
        "/%ff",
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
        "/", "a", "admin", ".", "..", "%2e", "%2F", "%5C", "%41", "%25", "%", ";", "\\", "2", "F",
        "?",
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
        // What routes compare is that path, too, but for the slash; and they may be about bytes that are no text.
        let bare = whole(&path).map(|form| match form.strip_suffix(b"/") {
            None | Some(b"") => form.to_vec(),
            Some(bare) => bare.to_vec(),
        });
        let text = bare.filter(|form| std::str::from_utf8(form).is_ok());
        prop_assert_eq!(text, canonical(&path).map(Cow::into_owned));
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
