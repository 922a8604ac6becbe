use http::HeaderValue;

use super::*;

/// At the beginning of 1970.
fn read(headers: &[(HeaderName, &[u8])]) -> Option<Pushback> {
    let value = |bytes: &[u8]| HeaderValue::from_bytes(bytes).expect("a header value");
    let headers = headers
        .iter()
        .map(|(name, text)| (name.clone(), value(text)));
    Pushback::of_headers(&headers.collect(), SystemTime::UNIX_EPOCH)
}

fn after(millis: u64) -> Option<Pushback> {
    Some(Pushback::After(Duration::from_millis(millis)))
}

#[test]
fn seconds_a_date_and_grpc_milliseconds_are_understood() {
    for (text, pushback) in [
        ("7", after(7000)),
        (" 0 ", after(0)),
        ("Thu, 01 Jan 1970 00:01:30 GMT", after(90_000)),
        ("Wed, 31 Dec 1969 23:59:59 GMT", None),
        ("soon", None),
        ("-1", None),
        ("1.5", None),
        ("99999999999999999999", None),
    ] {
        assert_eq!(
            read(&[(header::RETRY_AFTER, text.as_bytes())]),
            pushback,
            "{text:?}"
        );
    }
    for (text, pushback) in [
        ("1500", after(1500)),
        ("0", after(0)),
        ("-1", Some(Pushback::Never)),
        ("soon", Some(Pushback::Never)),
    ] {
        assert_eq!(
            read(&[(GRPC_PUSHBACK, text.as_bytes())]),
            pushback,
            "{text:?}"
        );
    }
    assert_eq!(read(&[]), None);
    assert_eq!(read(&[(header::RETRY_AFTER, b"\xff")]), None);
}

#[test]
fn a_date_that_has_passed_is_now() {
    let text = HeaderValue::from_static("Thu, 01 Jan 1970 00:01:30 GMT");
    let headers = HeaderMap::from_iter([(header::RETRY_AFTER, text)]);
    let today = SystemTime::UNIX_EPOCH + Duration::from_secs(91);
    assert_eq!(Pushback::of_headers(&headers, today), after(0));
}

#[test]
fn what_grpc_says_counts_more() {
    let both: [(HeaderName, &[u8]); 2] = [(header::RETRY_AFTER, b"9"), (GRPC_PUSHBACK, b"-1")];
    let pushback = read(&both).expect("both are there");
    assert_eq!(pushback, Pushback::Never);
    assert_eq!(pushback.delay(), None, "no word about other requests");
}
