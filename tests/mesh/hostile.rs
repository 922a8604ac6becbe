//! Bytes that nobody should send: refused with the documented word (proxy/README.md), counted, and the sidecar goes on.

use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::stranger::{self, Certificates};
use crate::world::{PROXY, WEB, World, within};

/// From the caller's app to its own sidecar, and from outside the mesh to the server's.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    Outbound,
    Inbound,
}

impl Way {
    fn dial(self, world: &World, outbound: &str, port: u16) -> TcpStream {
        match self {
            Self::Outbound => world.dial(outbound),
            Self::Inbound => {
                let address = world.lab.pod("server").expect("there is one").address;
                world.dial_from(None, &format!("{address}:{port}"))
            }
        }
    }

    fn pod(self) -> &'static str {
        match self {
            Self::Outbound => "caller",
            Self::Inbound => "server",
        }
    }

    fn direction(self) -> &'static str {
        match self {
            Self::Outbound => "outbound",
            Self::Inbound => "inbound",
        }
    }
}

const BOTH: [Way; 2] = [Way::Outbound, Way::Inbound];

/// What comes back until the end, however it comes; the end has to come.
async fn answer_to(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    bytes: &[u8],
    patience: Duration,
) -> Vec<u8> {
    let exchange = async {
        // Whoever is refused early cannot send all of it.
        let _ = stream.write_all(bytes).await;
        let mut answer = Vec::new();
        let mut buffer = [0; 4096];
        while let Ok(read @ 1..) = stream.read(&mut buffer).await {
            answer.extend_from_slice(&buffer[..read]);
        }
        answer
    };
    let answer = tokio::time::timeout(patience, exchange).await;
    answer.unwrap_or_else(|_| panic!("still open after {patience:?}"))
}

/// How often a connection was refused for this reason, or a request.
fn refusals(world: &World, way: Way, reason: &str) -> f64 {
    let labels = [("direction", way.direction()), ("reason", reason)];
    let metrics = world.metrics(way.pod());
    metrics.sum("weir_rejected_connections_total", &labels)
        + metrics.sum("weir_refused_total", &labels)
}

/// The peer may see its connection end a moment before that is counted.
async fn assert_counted(world: &World, way: Way, reason: &str, before: f64, what: &str) {
    let counted = || refusals(world, way, reason) - before;
    within(
        SOON,
        &format!("{way:?}, {what}: counted as {reason}"),
        || counted() >= 1.0,
    )
    .await;
    assert_eq!(counted(), 1.0, "{way:?}, {what}: counted once");
}

async fn assert_alive(world: &World) {
    assert_eq!(world.get("server:80", "/").await.status(), 200);
    for pod in ["caller", "server"] {
        let status = world.lab.pod(pod).expect("there is one");
        let sidecar = status.containers.iter().find(|one| one.name == PROXY);
        assert_eq!(sidecar.expect("it has one").state.restarts, 0, "{pod}");
        assert_eq!(
            world.metrics(pod).sum("weir_panics_total", &[]),
            0.0,
            "{pod}"
        );
    }
}

const SOON: Duration = Duration::from_secs(5);

/// Sends each and compares the status line and the reason; the bytes after it do not matter.
async fn assert_refused(world: &World, cases: &[(&str, Vec<u8>, &str, &str)]) {
    for way in BOTH {
        for (name, bytes, status, reason) in cases {
            let before = refusals(world, way, reason);
            let stream = way.dial(world, "server:80", 8080);
            let answer = answer_to(stream, bytes, SOON).await;
            let answer = String::from_utf8_lossy(&answer);
            assert!(answer.starts_with(status), "{way:?}, {name}: {answer:?}");
            assert_counted(world, way, reason, before, name).await;
        }
    }
    assert_alive(world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_http_does_not_pass_on_a_port_that_speaks_http() {
    let world = World::new();
    let garbage: Vec<u8> = (0..4096u32).map(|n| (n * 7919 % 256) as u8).collect();
    assert_refused(
        &world,
        &[
            ("garbage", garbage, "HTTP/1.1 400 ", "not-http"),
            ("zeros", vec![0; 64], "HTTP/1.1 400 ", "not-http"),
            (
                "a greeting",
                b"EHLO mail.example\r\n".to_vec(),
                "HTTP/1.1 400 ",
                "not-http",
            ),
            (
                "lower case",
                b"get / http/1.1\r\n\r\n".to_vec(),
                "HTTP/1.1 400 ",
                "not-http",
            ),
        ],
    )
    .await;
    // A gRPC client would not understand HTTP/1.1: it is reset.
    for way in BOTH {
        let before = refusals(&world, way, "not-http");
        let stream = way.dial(&world, "server:9090", 9090);
        assert_eq!(answer_to(stream, b"\x00\x01garbage\n", SOON).await, b"");
        assert_counted(&world, way, "not-http", before, "garbage for gRPC").await;
    }
}

/// Whoever has proven who it is finds no way around: what it sends as a sidecar sends bytes is looked at all the same.
#[tokio::test(flavor = "multi_thread")]
async fn bytes_within_mutual_tls_do_not_pass_on_a_port_that_speaks_http() {
    let world = World::new();
    let certificates = Certificates::of(&world.lab);
    let address = world.lab.pod("server").unwrap().address;
    let tunnel = async |port: u16| {
        let own = certificates.issued(&["spiffe://weir.local/ns/tests/sa/caller"]);
        let stream = world.dial_from(None, &format!("{address}:{port}"));
        let tunnel = stranger::tunnel(stream, &certificates, own).await;
        tunnel.expect("it has proven who it is")
    };
    for (port, status) in [(8080, "HTTP/1.1 400 "), (9090, "")] {
        let before = refusals(&world, Way::Inbound, "not-http");
        let answer = answer_to(tunnel(port).await, b"\x00\x01garbage\n", SOON).await;
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.starts_with(status), "port {port}: {answer:?}");
        assert_counted(&world, Way::Inbound, "not-http", before, "bytes").await;
    }
    let request = b"GET / HTTP/1.1\r\nhost: server\r\nconnection: close\r\n\r\n";
    let answer = answer_to(tunnel(8080).await, request, SOON).await;
    assert!(answer.starts_with(b"HTTP/1.1 200 "), "a request is one");
    let labels = [
        ("direction", "inbound"),
        ("service", WEB),
        ("tls", "mtls"),
        ("protocol", "http1"),
    ];
    let as_http = world
        .metrics("server")
        .sum("weir_connections_total", &labels);
    assert_eq!(as_http, 1.0, "and met what requests meet");
    let mut echo = tunnel(7000).await;
    echo.write_all(b"hello\n").await.unwrap();
    let mut echoed = [0; 6];
    echo.read_exact(&mut echoed).await.unwrap();
    assert_eq!(&echoed, b"hello\n");
    assert_alive(&world).await;
}

/// It was served for as long as it kept its connection, whoever it had ceased to be.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_ends_with_the_certificate_that_opened_it() {
    let world = World::new();
    let certificates = Certificates::of(&world.lab);
    let address = world.lab.pod("server").unwrap().address;
    let kept = async |left: Duration| {
        let own = certificates.valid_for(left, &["spiffe://weir.local/ns/tests/sa/caller"]);
        let stream = world.dial_from(None, &format!("{address}:8080"));
        let tunnel = stranger::tunnel(stream, &certificates, own).await;
        let mut stream = tunnel.expect("it has proven who it is");
        let request = b"GET / HTTP/1.1\r\nhost: server\r\n\r\n";
        stream.write_all(request).await.unwrap();
        let mut head = [0; 13];
        stream.read_exact(&mut head).await.unwrap();
        assert_eq!(&head, b"HTTP/1.1 200 ");
        stream
    };
    let left = Duration::from_secs(3);
    let (mut ends, mut stays) = (kept(left).await, kept(10 * left).await);
    let mut rest = Vec::new();
    let end = tokio::time::timeout(2 * left, ends.read_to_end(&mut rest)).await;
    assert!(end.is_ok(), "it is served on");
    let end = tokio::time::timeout(left, stays.read_to_end(&mut rest)).await;
    assert!(end.is_err(), "that of who is still proven is not");
    assert_alive(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn handshakes_that_one_address_lets_hang_keep_no_other_waiting() {
    const HANGING: usize = 120;
    let world = World::new();
    let echo = async || {
        let mut stream = world.dial("server:7000");
        stream.write_all(b"hello\n").await.unwrap();
        stream.read_exact(&mut [0; 6]).await.unwrap();
    };
    // The caller's sidecar gets to know a service when it is first used.
    echo().await;
    let hello = stranger::hello(&Certificates::of(&world.lab));
    let address = world.lab.pod("server").unwrap().address;
    let mut hanging = Vec::new();
    for _ in 0..HANGING {
        let mut stream = world.dial_from(None, &format!("{address}:7000"));
        stream.write_all(&hello).await.unwrap();
        hanging.push(stream);
    }
    let labels = [("direction", "inbound")];
    let open = || {
        world
            .metrics("server")
            .sum("weir_open_connections", &labels)
    };
    within(SOON, "all of them hang", || open() >= HANGING as f64).await;
    let begun = Instant::now();
    echo().await;
    let took = begun.elapsed();
    assert!(took < Duration::from_millis(500), "{took:?}");
    drop(hanging);
    assert_alive(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_malformed_or_oversized_head_is_refused_in_http() {
    let world = World::new();
    let head = |text: &str| format!("{text}\r\n\r\n").into_bytes();
    let large = format!(
        "GET / HTTP/1.1\r\nhost: server\r\nx-large: {}",
        "x".repeat(90 * 1024)
    );
    let many: String = (0..150).map(|n| format!("\r\nx-{n}: 1")).collect();
    let many = format!("GET / HTTP/1.1\r\nhost: server{many}");
    let smuggled = "POST /echo HTTP/1.1\r\nhost: server\r\ncontent-length: 5\r\ncontent-length: 6";
    assert_refused(
        &world,
        &[
            (
                "two hosts",
                head("GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\nconnection: close"),
                "HTTP/1.1 400 ",
                "bad-request",
            ),
            (
                "no host",
                head("GET / HTTP/1.1\r\nconnection: close"),
                "HTTP/1.1 400 ",
                "bad-request",
            ),
            (
                "no host but in its target",
                head("GET http://server/ HTTP/1.1\r\nconnection: close"),
                "HTTP/1.1 400 ",
                "bad-request",
            ),
            (
                "CONNECT",
                head("CONNECT a:1 HTTP/1.1\r\nhost: a:1\r\nconnection: close"),
                "HTTP/1.1 501 ",
                "connect-not-supported",
            ),
            (
                "a header without a name",
                head("GET / HTTP/1.1\r\nhost: server\r\n: 1"),
                "HTTP/1.1 400 ",
                "protocol",
            ),
            (
                "a bare CR",
                head("GET / HTTP/1.1\r\nhost: server\r\na: 1\rb: 2"),
                "HTTP/1.1 400 ",
                "protocol",
            ),
            ("two lengths", head(smuggled), "HTTP/1.1 400 ", "protocol"),
            (
                "90 KiB of header",
                head(&large),
                "HTTP/1.1 431 ",
                "protocol",
            ),
            ("150 headers", head(&many), "HTTP/1.1 431 ", "protocol"),
        ],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn half_a_request_is_not_waited_for_for_ever() {
    let world = World::new();
    let halves: [(&[u8], &str); 2] = [
        (b"GE", "slow-first-bytes"),
        (b"GET / HTTP/1.1\r\nhost: ser", "protocol"),
    ];
    let mut waiting = Vec::new();
    for way in BOTH {
        for (half, reason) in halves {
            let before = refusals(&world, way, reason);
            let stream = way.dial(&world, "server:80", 8080);
            let begun = Instant::now();
            let ended = tokio::spawn(async move {
                answer_to(stream, half, Duration::from_secs(15)).await;
                begun.elapsed()
            });
            waiting.push((way, reason, before, ended));
        }
    }
    // Meanwhile everybody else is served.
    assert_alive(&world).await;
    for (way, reason, before, ended) in waiting {
        let took = ended.await.unwrap();
        assert!(
            (9..13).contains(&took.as_secs()),
            "{way:?}, {reason}: {took:?}"
        );
        assert_counted(&world, way, reason, before, "half a request").await;
    }
    assert_alive(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_with_a_certificate_of_its_own_is_not_let_in() {
    let world = World::new();
    let certificates = Certificates::of(&world.lab);
    let address = world.lab.pod("server").unwrap().address;
    let reason = "tls-handshake";
    let refused = [
        ("no certificate", None),
        (
            "its own CA, our trust domain",
            Some(certificates.self_made("spiffe://weir.local/ns/tests/sa/caller")),
        ),
        (
            "another trust domain",
            Some(certificates.self_made("spiffe://other.example/ns/tests/sa/caller")),
        ),
        (
            "our CA, another trust domain",
            Some(certificates.issued(&["spiffe://other.example/ns/tests/sa/caller"])),
        ),
        (
            "our CA, two identities",
            Some(certificates.issued(&[
                "spiffe://weir.local/ns/a/sa/a",
                "spiffe://weir.local/ns/b/sa/b",
            ])),
        ),
        ("our CA, no identity", Some(certificates.issued(&[]))),
        (
            "our CA, expired",
            Some(certificates.expired("spiffe://weir.local/ns/tests/sa/caller")),
        ),
    ];
    for (name, identity) in refused {
        let before = refusals(&world, Way::Inbound, reason);
        let stream = world.dial_from(None, &format!("{address}:8080"));
        let answer = stranger::ask(stream, &certificates, identity).await;
        assert!(answer.is_err(), "{name}: {answer:?}");
        assert_counted(&world, Way::Inbound, reason, before, name).await;
    }
    // The same hand, with what the mesh gives: it is the certificate that was refused, and nothing else.
    let own = certificates.issued(&["spiffe://weir.local/ns/tests/sa/caller"]);
    let stream = world.dial_from(None, &format!("{address}:8080"));
    let answer = stranger::ask(stream, &certificates, Some(own)).await;
    assert_eq!(answer.expect("an answer"), 200);
    assert_alive(&world).await;
}

/// With strict mutual TLS, plain text is not let in at all.
#[tokio::test(flavor = "multi_thread")]
async fn plain_text_is_refused_where_mutual_tls_is_strict() {
    let strict = "
apiVersion: weir.dev/v1alpha1
kind: MeshConfig
metadata: {name: weir}
spec: {mtls: Strict}
";
    let world = World::with(1, "", strict);
    let address = world.lab.pod("server").unwrap().address;
    for (port, bytes) in [
        (8080, b"GET / HTTP/1.1\r\nhost: a\r\n\r\n".as_slice()),
        (7000, b"hello\n"),
    ] {
        let stream = world.dial_from(None, &format!("{address}:{port}"));
        let before = refusals(&world, Way::Inbound, "plain-text");
        assert_eq!(answer_to(stream, bytes, SOON).await, b"", "port {port}");
        assert_counted(&world, Way::Inbound, "plain-text", before, "plain text").await;
    }
    assert_alive(&world).await;
}

/// A connection to the sidecar's own ports would go round in circles.
#[tokio::test(flavor = "multi_thread")]
async fn the_sidecars_own_ports_lead_nowhere() {
    let world = World::new();
    let address = world.lab.pod("server").unwrap().address;
    for port in [14140, 14143] {
        let dialed =
            tokio::task::block_in_place(|| world.lab.dial(None, &format!("{address}:{port}")));
        // Refused by the kernel (outbound is on loopback), or accepted and reset.
        if let Ok(stream) = dialed {
            stream.set_nonblocking(true).unwrap();
            let stream = TcpStream::from_std(stream).unwrap();
            let answer = answer_to(stream, b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", SOON).await;
            assert_eq!(answer, b"", "port {port}");
        }
    }
    let counted = || refusals(&world, Way::Inbound, "own-port") >= 1.0;
    within(SOON, "the inbound port is reached and refused", counted).await;
    assert_alive(&world).await;
}

/// Prometheus in the mesh could scrape no sidecar: its own took another pod's port for one of its own.
#[tokio::test(flavor = "multi_thread")]
async fn another_pods_metrics_can_be_asked_for_from_the_mesh() {
    let world = World::new();
    let address = world.lab.pod("server").unwrap().address;
    let stream = world.dial(&format!("{address}:14191"));
    let ask = b"GET /metrics HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    let answer = answer_to(stream, ask, SOON).await;
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer:?}");
    assert!(answer.contains("weir_"), "{answer:?}");
    assert_alive(&world).await;
}

/// A neighbour on the node's link sends another host's connections by way of the pod: its sidecar made them, an open relay.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_was_meant_for_another_host_is_not_relayed() {
    let world = World::new();
    let address = world.lab.pod("server").unwrap().address.to_string();
    let route = ["ip", "route", "add", "10.99.0.1", "via", &address];
    let routed = tokio::task::block_in_place(|| world.lab.exec(None, &route)).unwrap();
    assert_eq!(routed.code, 0, "{routed:?}");
    let before = refusals(&world, Way::Inbound, "not-this-pod");
    // Accepted by the kernel and then reset, which whoever dials may see or not.
    let dialed = tokio::task::block_in_place(|| world.lab.dial(None, "10.99.0.1:8080"));
    drop(dialed);
    assert_counted(&world, Way::Inbound, "not-this-pod", before, "another host").await;
    assert_alive(&world).await;
}
