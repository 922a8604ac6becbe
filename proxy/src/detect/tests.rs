//! Tables for what is known, properties for what is hostile, and rustls as the second opinion.

use std::sync::Arc;

use proptest::prelude::*;
use rustls::server::Acceptor;
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use super::*;

/// The verdict on `bytes`, after checking that it comes once and stays, wherever the stream is cut.
fn settled(bytes: &[u8]) -> Detected {
    let mut verdict = Detected::NeedMore;
    for length in 0..=bytes.len() {
        let now = detect(&bytes[..length]);
        if verdict == Detected::NeedMore {
            verdict = now;
        } else {
            assert_eq!(now, verdict, "changed with byte {length}");
        }
    }
    assert!(
        bytes.len() < PREFIX_BYTES_MAX || verdict != Detected::NeedMore,
        "no verdict"
    );
    verdict
}

#[test]
fn http1_is_known_by_its_request_line() {
    let long_target = format!("GET /{} HTTP/1.1\r\n", "a".repeat(7000));
    for request in [
        "GET / HTTP/1.1\r\n",
        "GET / HTTP/1.0\r\n",
        "OPTIONS * HTTP/1.1\r\n",
        "CONNECT cart:7070 HTTP/1.1\r\n",
        "POST http://cart/a?b=c HTTP/1.1\r\n",
        "M-SEARCH * HTTP/1.1\r\n",
        "VERSION-CONTROL /x HTTP/1.1\r\n",
        "PRI * HTTP/1.1\r\n",
        "\r\nGET / HTTP/1.1\r\n",
        "\n\n\r\nGET / HTTP/1.1\r\n",
        &long_target,
    ] {
        assert_eq!(settled(request.as_bytes()), Detected::Http1, "{request:?}");
    }
}

#[test]
fn http2_is_known_by_its_whole_preface() {
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    assert_eq!(
        settled(&[&preface[..], b"\0\0\0\x04\0\0\0\0\0"].concat()),
        Detected::Http2
    );
    assert_eq!(detect(&preface[..preface.len() - 1]), Detected::NeedMore);
    let spoilt = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\t";
    assert_eq!(settled(spoilt), Detected::Opaque);
}

#[test]
fn what_cannot_become_http_is_opaque_at_once() {
    for (stream, decided_at) in [
        (&b"*1\r\n$4\r\nPING\r\n"[..], 1),  // Redis
        (b"\0\0\0\x08\x04\xd2\x16\x2f", 1), // PostgreSQL's SSLRequest
        (b"SSH-2.0-OpenSSH_9.6\r\n", 5),    // the digit is in no method
        (b"EHLO mail.example\r\n", 18),     // SMTP
        (b"PING\r\n", 5),
        (b"get / HTTP/1.1\r\n", 1),
        (b"-A / HTTP/1.1\r\n", 1),
        (b" / HTTP/1.1\r\n", 1),
        (b"GET  / HTTP/1.1\r\n", 5),
        (b"GET /\r\n", 6), // HTTP/0.9
        (b"GET / HTTP/2.0\r\n", 12),
        (b"GET /\tHTTP/1.1\r\n", 6),
        (b"ABCDEFGHIJKLMNOPQRSTUVWXY / HTTP/1.1\r\n", 25),
    ] {
        let text = String::from_utf8_lossy(stream);
        assert_eq!(settled(stream), Detected::Opaque, "{text:?}");
        assert_eq!(
            detect(&stream[..decided_at - 1]),
            Detected::NeedMore,
            "{text:?}"
        );
        assert_eq!(detect(&stream[..decided_at]), Detected::Opaque, "{text:?}");
    }
}

#[test]
fn an_endless_request_line_is_judged_by_its_beginning() {
    let hidden = "\r\n".repeat(4000) + "FROB /";
    let endless = |beginning: &str| [beginning.as_bytes(), &[b'a'; 8192]].concat();
    for http in [
        "GET /",
        "PATCH http://",
        "PUT HTTPS://",
        "\r\nFROB /",
        &hidden,
    ] {
        let stream = endless(http);
        assert_eq!(settled(&stream), Detected::Http1, "{http:?}");
        assert_eq!(detect(&stream[..8191]), Detected::NeedMore, "{http:?}");
    }
    for opaque in ["FROB /", "GET *", "GET ftp://", "GET "] {
        assert_eq!(settled(&endless(opaque)), Detected::Opaque, "{opaque:?}");
    }
}

/// The flight a real client begins with: by default with a post-quantum key share.
pub(crate) fn rustls_hello(
    name: &str,
    alpn: &[&[u8]],
    fragment_bytes_max: Option<usize>,
) -> Vec<u8> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider's own versions")
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    config.max_fragment_size = fragment_bytes_max;
    let name = name.to_owned().try_into().expect("a server name");
    let mut client = ClientConnection::new(Arc::new(config), name).expect("a client");
    let mut flight = Vec::new();
    while client.wants_write() {
        client.write_tls(&mut flight).expect("a Vec takes all");
    }
    flight
}

fn tls(mesh: Option<MeshProtocol>, sni: Option<&str>) -> Detected {
    Detected::Tls(ClientHello {
        mesh,
        sni: sni.map(str::to_owned),
    })
}

#[test]
fn a_sidecars_hello_is_told_from_an_apps() {
    for protocol in MeshProtocol::ALL {
        let hello = rustls_hello("Cart.Boutique.", &[b"h3", protocol.alpn(), b"h2"], None);
        assert!(
            hello.len() > 1200,
            "has a post-quantum key share: {} bytes",
            hello.len()
        );
        assert_eq!(settled(&hello), tls(Some(protocol), Some("cart.boutique")));
    }
    let from_an_app = rustls_hello("example.org", &[b"h2", b"http/1.1", b"weir.h2/2"], None);
    assert_eq!(settled(&from_an_app), tls(None, Some("example.org")));
    assert_eq!(
        settled(&rustls_hello("10.0.0.1", &[], None)),
        tls(None, None)
    );
}

#[test]
fn the_first_mesh_protocol_offered_counts() {
    let hello = rustls_hello("cart", &[b"weir.tcp/1", b"weir.h2/1"], None);
    assert_eq!(settled(&hello), tls(Some(MeshProtocol::Tcp), Some("cart")));
}

#[test]
fn a_hello_that_rustls_itself_fragments_is_understood() {
    let hello = rustls_hello("cart", &[b"weir.h2/1"], Some(64));
    assert!(
        hello.windows(3).filter(|w| w == b"\x16\x03\x01").count() > 10,
        "is fragmented"
    );
    assert_eq!(
        settled(&hello),
        tls(Some(MeshProtocol::Http2), Some("cart"))
    );
}

/// Records of the given sizes, over and over, with the bytes of `message`.
fn records(message: &[u8], sizes: &[usize]) -> Vec<u8> {
    let (mut stream, mut rest) = (Vec::new(), message);
    for size in sizes.iter().cycle() {
        let (fragment, after) = rest.split_at((*size).min(rest.len()));
        stream.extend_from_slice(&[0x16, 3, 1]);
        stream.extend_from_slice(&(fragment.len() as u16).to_be_bytes());
        stream.extend_from_slice(fragment);
        rest = after;
        if rest.is_empty() {
            break;
        }
    }
    stream
}

/// A ClientHello, header included, with these extensions as (type, body).
fn message(extensions: &[(u16, &[u8])]) -> Vec<u8> {
    let mut body = [&[3, 3][..], &[7; 32], &[0], &[0, 2, 0x13, 1], &[1, 0]].concat();
    let bytes: usize = extensions
        .iter()
        .map(|(_, extension)| 4 + extension.len())
        .sum();
    body.extend_from_slice(&(bytes as u16).to_be_bytes());
    for (kind, extension) in extensions {
        body.extend_from_slice(&kind.to_be_bytes());
        body.extend_from_slice(&(extension.len() as u16).to_be_bytes());
        body.extend_from_slice(extension);
    }
    let length = (body.len() as u32).to_be_bytes();
    [&[1, length[1], length[2], length[3]], &body[..]].concat()
}

fn server_name(name: &[u8]) -> Vec<u8> {
    let [high, low] = (name.len() as u16).to_be_bytes();
    let [list_high, list_low] = (name.len() as u16 + 3).to_be_bytes();
    [&[list_high, list_low, 0, high, low], name].concat()
}

#[test]
fn a_malformed_hello_is_opaque() {
    let alpn: &[u8] = b"\0\x03\x02h2";
    let name = server_name(b"cart");
    let whole = |message: &[u8]| settled(&records(message, &[16_384]));
    assert_eq!(
        whole(&message(&[(16, alpn), (0, &name)])),
        tls(None, Some("cart"))
    );
    for (why, extensions) in [
        ("ALPN twice", &[(16, alpn), (16, alpn)][..]),
        ("server name twice", &[(0, &name), (0, &name)]),
        ("ALPN empty", &[(16, b"")]),
        ("ALPN list empty", &[(16, b"\0\0")]),
        ("ALPN name empty", &[(16, b"\0\x01\0")]),
        ("ALPN name beyond its list", &[(16, b"\0\x03\x09h2")]),
        ("ALPN list beyond its extension", &[(16, b"\xff\xff\x02h2")]),
        ("bytes after the ALPN list", &[(16, b"\0\x03\x02h2!")]),
        ("server name empty", &[(0, b"\0\x03\0\0\0")]),
        ("two host names", &[(0, b"\0\x08\0\0\x01a\0\0\x01b")]),
        ("server name beyond its list", &[(0, b"\0\x04\0\0\x02a")]),
    ] {
        assert_eq!(whole(&message(extensions)), Detected::Opaque, "{why}");
    }
    let mut cut = message(&[(16, alpn)]);
    cut[3] -= 1;
    assert_eq!(
        whole(&cut),
        Detected::Opaque,
        "extensions beyond the message"
    );
    let mut no_ciphers = message(&[]);
    no_ciphers.drain(41..43);
    (no_ciphers[3], no_ciphers[40]) = (no_ciphers[3] - 2, 0);
    assert_eq!(whole(&no_ciphers), Detected::Opaque, "no cipher suites");
    let mut long_session = message(&[]);
    long_session[38] = 200;
    assert_eq!(
        whole(&long_session),
        Detected::Opaque,
        "session id beyond the message"
    );
}

#[test]
fn a_server_name_that_is_no_host_name_is_left_out() {
    let long = [b'a'; 254];
    for name in [&b"cart\0.evil"[..], b"c\xc3\xa4rt", b"a b", b".", &long] {
        let hello = records(&message(&[(0, &server_name(name))]), &[16_384]);
        assert_eq!(settled(&hello), tls(None, None), "{name:?}");
    }
    let ticket_like = records(&message(&[(0, b"\0\x04\x07\0\x01a")]), &[16_384]);
    assert_eq!(
        settled(&ticket_like),
        tls(None, None),
        "a name of an unknown type"
    );
}

#[test]
fn a_hello_without_extensions_is_still_tls() {
    let mut old = message(&[]);
    old.truncate(old.len() - 2);
    old[3] -= 2;
    assert_eq!(settled(&records(&old, &[16_384])), tls(None, None));
}

#[test]
fn records_that_are_no_hello_are_opaque_as_soon_as_it_shows() {
    for (stream, decided_at) in [
        (&b"\x16\x02\x01\x00\x20\x01"[..], 2),        // SSL 2
        (b"\x16\x03\x01\x00\x00\x16\x03", 5),         // an empty fragment
        (b"\x16\x03\x01\x40\x01\x01", 5),             // a record above 2^14
        (b"\x16\x03\x01\x00\x20\x02\0\0\0", 6),       // a ServerHello
        (b"\x16\x03\x01\x40\x00\x01\xff\xff\xff", 9), // 16 MiB declared
        (b"\x16\x03\x01\x00\x01\x01\x17\x03\x03", 7), // data before the hello's end
        (b"\x16\x03\x01\x00\x01\x01\x16\x04", 8),
    ] {
        assert_eq!(settled(stream), Detected::Opaque, "{stream:?}");
        assert_eq!(
            detect(&stream[..decided_at - 1]),
            Detected::NeedMore,
            "{stream:?}"
        );
        assert_eq!(
            detect(&stream[..decided_at]),
            Detected::Opaque,
            "{stream:?}"
        );
    }
}

#[test]
fn the_largest_hello_that_fits_is_read_and_a_byte_more_is_opaque() {
    let with_padding = |bytes: usize| {
        let padding = vec![0; bytes];
        message(&[(21, &padding), (16, b"\0\x0a\x09weir.h2/1")])
    };
    let overhead = 5 + with_padding(0).len();
    let padding = PREFIX_BYTES_MAX - overhead;
    let largest = records(&with_padding(padding), &[16_384]);
    assert_eq!(largest.len(), PREFIX_BYTES_MAX);
    assert_eq!(settled(&largest), tls(Some(MeshProtocol::Http2), None));
    assert_eq!(
        settled(&records(&with_padding(padding + 1), &[16_384])),
        Detected::Opaque
    );
    assert_eq!(
        settled(&records(&with_padding(padding), &[1])),
        Detected::Opaque,
        "cut too fine"
    );
}

/// What rustls reads in the same bytes, when it accepts them.
fn second_opinion(stream: &[u8]) -> Option<ClientHello> {
    let mut acceptor = Acceptor::default();
    let mut rest = stream;
    while !rest.is_empty() {
        acceptor.read_tls(&mut rest).ok()?;
        if let Some(accepted) = acceptor.accept().ok()? {
            let hello = accepted.client_hello();
            let mut alpn = hello.alpn().into_iter().flatten();
            return Some(ClientHello {
                mesh: alpn.find_map(MeshProtocol::from_alpn),
                sni: hello.server_name().map(str::to_owned),
            });
        }
    }
    None
}

/// Pieces of the protocols, so that random streams get far into them.
fn crumbs() -> impl Strategy<Value = Vec<u8>> {
    let crumb = prop_oneof![
        Just(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec()),
        Just(b"GET ".to_vec()),
        Just(b"FROB".to_vec()),
        Just(b" /".to_vec()),
        Just(b" HTTP/1.".to_vec()),
        Just(b"\r\n".to_vec()),
        Just(b"\x16\x03\x01\x00\x06\x01\x00\x00\x02\x03\x03".to_vec()),
        Just(b"\x16\x03\x03\x00\x01\x01".to_vec()),
        proptest::collection::vec(any::<u8>(), 0..8),
        (1usize..9000).prop_map(|length| vec![b'a'; length]),
        (0usize..40, 0usize..60).prop_map(|(first, length)| {
            let hello = rustls_hello("cart", &[b"weir.h1/1"], None);
            hello[first..first + length].to_vec()
        }),
    ];
    proptest::collection::vec(crumb, 0..6).prop_map(|crumbs| crumbs.concat())
}

proptest! {
    #[test]
    fn any_bytes_settle_wherever_they_are_cut(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        settled(&bytes);
    }

    #[test]
    fn streams_that_resemble_a_protocol_settle_wherever_they_are_cut(bytes in crumbs()) {
        settled(&bytes);
    }

    /// Behind a valid record and hello header, so that the parser is what sees the random bytes.
    #[test]
    fn any_hello_body_settles(body in proptest::collection::vec(any::<u8>(), 0..600), cut in 1usize..700) {
        let length = (body.len() as u32).to_be_bytes();
        let message = [&[1, length[1], length[2], length[3]], &body[..]].concat();
        prop_assert_eq!(settled(&records(&message, &[cut])), settled(&records(&message, &[16_384])));
    }

    #[test]
    fn how_a_hello_is_cut_into_records_changes_nothing(
        sizes in proptest::collection::vec(1usize..400, 1..20),
        with_more_behind in any::<bool>(),
    ) {
        let hello = rustls_hello("cart.boutique", &[b"weir.tcp/1"], None);
        let mut message = hello[5..].to_vec();
        if with_more_behind {
            message.extend_from_slice(b"\x14\0\0\0 the next message");
        }
        let expected = tls(Some(MeshProtocol::Tcp), Some("cart.boutique"));
        prop_assert_eq!(settled(&records(&message, &sizes)), expected);
    }

    /// Flipped bytes: never a panic, and whatever rustls accepts we read as it does.
    #[test]
    fn rustls_and_we_read_the_same_hello(
        flips in proptest::collection::vec((5usize..2000, any::<u8>()), 0..3),
        sizes in proptest::collection::vec(1usize..2000, 1..4),
    ) {
        let hello = rustls_hello("cart.boutique", &[b"weir.h2/1", b"h2"], None);
        let mut message = hello[5..].to_vec();
        for (at, value) in flips {
            let at = at % message.len();
            message[at] = value;
        }
        let stream = records(&message, &sizes);
        let ours = settled(&stream);
        if let Some(theirs) = second_opinion(&stream) {
            prop_assert_eq!(ours, Detected::Tls(theirs));
        }
    }
}
