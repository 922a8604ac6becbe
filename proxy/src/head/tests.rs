use super::*;

fn head(request: http::request::Builder) -> Parts {
    request.body(()).expect("a request").into_parts().0
}

fn destination() -> SocketAddr {
    ([10, 1, 2, 3], 8080).into()
}

/// It went on as HTTP/1.1 without a Host, which apps refuse.
#[test]
fn a_request_that_may_be_without_a_host_goes_on_with_that_of_its_destination() {
    for version in [Version::HTTP_10, Version::HTTP_2] {
        for by_way_of in [Protocol::Http1, Protocol::Http2] {
            let mut head = head(http::Request::builder().version(version).uri("/health"));
            settle_authority(&mut head, destination()).expect("it is clear");
            convert(&mut head, by_way_of).expect("fits");
            convert(&mut head, Protocol::Http1).expect("fits");
            assert_eq!(
                head.headers[HOST], "10.1.2.3:8080",
                "{version:?} {by_way_of:?}"
            );
            assert_eq!(head.uri, "/health");
        }
    }
}

/// `GET page`: read as an authority, and a rule that rewrote its path took it for whole.
#[test]
fn a_target_without_a_path_is_refused() {
    for (method, is_clear) in [("GET", false), ("CONNECT", true)] {
        let request = http::Request::builder().method(method).uri("page");
        let mut head = head(request.header("host", "page"));
        let settled = settle_authority(&mut head, destination());
        assert_eq!(settled.is_ok(), is_clear, "{method}");
    }
}

/// The app was sent `GET ?id=1`, which is no request line.
#[test]
fn a_target_with_a_query_and_no_path_has_one() {
    for by_way_of in [Protocol::Http1, Protocol::Http2] {
        let mut head = head(
            http::Request::builder()
                .uri("http://payment:8080?id=1")
                .header("host", "payment:8080"),
        );
        settle_authority(&mut head, destination()).expect("it is clear");
        assert_eq!(
            head.uri.path_and_query().map(PathAndQuery::as_str),
            Some("/?id=1")
        );
        convert(&mut head, by_way_of).expect("fits");
        convert(&mut head, Protocol::Http1).expect("fits");
        assert_eq!(head.uri, "/?id=1", "by way of {by_way_of:?}");
    }
}

#[test]
fn what_belongs_to_a_connection_ends_with_it() {
    let mut head = head(
        http::Request::builder()
            .header("connection", "keep-alive, x-private")
            .header("keep-alive", "timeout=5")
            .header("x-private", "1")
            .header("te", "gzip")
            .header("upgrade", "h2c")
            .header("x-kept", "1"),
    );
    strip_connection_headers(&mut head.headers, false);
    assert_eq!(
        head.headers
            .keys()
            .map(HeaderName::as_str)
            .collect::<Vec<_>>(),
        ["x-kept"]
    );
}

#[test]
fn an_upgrade_keeps_the_headers_that_ask_for_it() {
    let mut head = head(
        http::Request::builder()
            .header("connection", "Upgrade")
            .header("upgrade", "websocket"),
    );
    assert!(wants_upgrade(head.version, &head.headers));
    strip_connection_headers(&mut head.headers, true);
    assert_eq!(head.headers["upgrade"], "websocket");
    assert_eq!(head.headers["connection"], "upgrade");
}

#[test]
fn an_upgrade_to_another_http_is_none_and_nothing_that_asks_for_it_goes_on() {
    let asks = ["h2c", "H2C", "websocket, h2c", "HTTP/2.0", "TLS/1.0"];
    for protocol in asks {
        let mut head = head(
            http::Request::builder()
                .header("connection", "Upgrade, HTTP2-Settings")
                .header("upgrade", protocol)
                .header("http2-settings", "AAMAAABkAARAAAAAAAIAAAAA"),
        );
        assert!(!wants_upgrade(head.version, &head.headers), "{protocol}");
        strip_connection_headers(&mut head.headers, false);
        assert!(head.headers.is_empty(), "{protocol}: {:?}", head.headers);
    }
    let mut head = head(
        http::Request::builder()
            .header("connection", "upgrade")
            .header("upgrade", "websocket")
            .header("http2-settings", "AAMAAABk"),
    );
    assert!(wants_upgrade(head.version, &head.headers));
    strip_connection_headers(&mut head.headers, true);
    assert!(
        !head.headers.contains_key("http2-settings"),
        "not nominated, and yet no app's"
    );
}

#[test]
fn an_authority_in_the_target_takes_the_place_of_another_host() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let mut head = head(
            http::Request::builder()
                .uri("http://payment:8080/quotes?id=1")
                .header("host", "cart:7070"),
        );
        settle_authority(&mut head, destination()).expect("it is clear");
        assert_eq!(head.headers[HOST], "payment:8080", "to policies, too");
        convert(&mut head, protocol).expect("fits");
        convert(&mut head, Protocol::Http1).expect("fits");
        assert_eq!(head.headers[HOST], "payment:8080", "by way of {protocol:?}");
    }
}

/// With an absolute target it passed, with another it did not.
#[test]
fn http_1_1_without_a_host_is_refused_whatever_its_target_is() {
    let settled = |version: Version, target: &str| {
        let request = http::Request::builder().version(version).uri(target);
        settle_authority(&mut head(request), destination()).is_ok()
    };
    for (version, target, expected) in [
        (Version::HTTP_11, "/quotes", false),
        (Version::HTTP_11, "*", false),
        (Version::HTTP_11, "http://payment:8080/quotes", false),
        (Version::HTTP_10, "/quotes", true),
        (Version::HTTP_10, "http://payment:8080/quotes", true),
        (Version::HTTP_2, "http://payment:8080/quotes", true),
    ] {
        assert_eq!(settled(version, target), expected, "{version:?} {target}");
    }
}

#[test]
fn nobody_can_have_the_host_removed_by_naming_it() {
    let mut head = head(
        http::Request::builder()
            .header("connection", "host, content-length")
            .header("host", "a"),
    );
    strip_connection_headers(&mut head.headers, false);
    assert!(head.headers.contains_key(HOST));
}

#[test]
fn our_own_headers_are_not_believed_from_strangers() {
    let mut head = head(
        http::Request::builder()
            .header("x-weir-attempt", "9")
            .header("x-other", "1"),
    );
    strip_own_headers(&mut head.headers);
    assert_eq!(
        head.headers
            .keys()
            .map(HeaderName::as_str)
            .collect::<Vec<_>>(),
        ["x-other"]
    );
}

#[test]
fn a_request_goes_through_http2_and_back_unchanged() {
    let mut head = head(
        http::Request::builder()
            .uri("/cart?id=1")
            .header("host", "cart:7070"),
    );
    convert(&mut head, Protocol::Http2).expect("fits");
    assert_eq!(head.uri, "http://cart:7070/cart?id=1");
    assert!(!head.headers.contains_key(HOST));
    convert(&mut head, Protocol::Http1).expect("fits");
    assert_eq!(head.uri, "/cart?id=1");
    assert_eq!(head.headers[HOST], "cart:7070");
}

#[test]
fn two_hosts_are_refused() {
    let mut head = head(
        http::Request::builder()
            .header("host", "a")
            .header("host", "b"),
    );
    let refused = settle_authority(&mut head, destination());
    assert!(matches!(refused, Err(Error::BadRequest(_))));
}

#[test]
fn cookies_split_by_http2_are_one_again() {
    let mut head = head(
        http::Request::builder()
            .uri("http://a/")
            .header("cookie", "a=1")
            .header("cookie", "b=2")
            .header("cookie", "c=3"),
    );
    convert(&mut head, Protocol::Http1).expect("fits");
    assert_eq!(head.headers["cookie"], "a=1; b=2; c=3");
}
