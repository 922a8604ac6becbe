//! Against apps that are a few lines each.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicUsize, Ordering};

use ::http::{HeaderMap, Response};
use bytes::Bytes;
use futures_util::stream;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::*;

const APP: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

async fn listener() -> (TcpListener, u16) {
    let listener = TcpListener::bind((APP, 0)).await.expect("bind");
    let port = listener.local_addr().expect("bound").port();
    (listener, port)
}

/// An app that reads one request head, answers with these bytes, and tells what it was asked.
async fn http_app(answer: &'static str) -> (u16, JoinHandle<String>) {
    let (listener, port) = listener().await;
    let asked = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("accept");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.expect("a request head"));
        }
        stream.write_all(answer.as_bytes()).await.expect("answer");
        String::from_utf8(head).expect("text")
    });
    (port, asked)
}

/// An app whose health service answers with this message and this code in its trailers.
async fn grpc_app(
    message: &'static [u8],
    code: &'static str,
) -> (u16, JoinHandle<(String, Bytes)>) {
    let (listener, port) = listener().await;
    let asked = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.expect("accept");
        let (seen, mut saw) = tokio::sync::mpsc::channel(1);
        let service = service_fn(move |request: ::http::Request<hyper::body::Incoming>| {
            let seen = seen.clone();
            async move {
                let path = request.uri().path().to_owned();
                let body = request.into_body().collect().await?.to_bytes();
                seen.try_send((path, body)).expect("asked once");
                let trailers = HeaderMap::from_iter([(
                    "grpc-status".parse().expect("name"),
                    code.parse().expect("value"),
                )]);
                let frames = [
                    Frame::data(Bytes::from_static(message)),
                    Frame::trailers(trailers),
                ];
                let body = StreamBody::new(stream::iter(frames.map(Ok::<_, hyper::Error>)));
                Ok::<_, hyper::Error>(Response::new(body))
            }
        });
        // Ends when the prober hangs up, which is no error here.
        let _ = http2::Builder::new(TokioExecutor::new())
            .serve_connection(TokioIo::new(stream), service)
            .await;
        saw.recv().await.expect("was asked")
    });
    (port, asked)
}

async fn probe(handler: String) -> ProbeResult {
    let json = format!("{{\"app/readiness\": {{{handler}, \"timeoutSeconds\": 2}}}}");
    let probers = Probers::parse(&json, APP, None).expect("valid");
    probers.probe("app/readiness").await
}

#[tokio::test]
async fn an_http_probe_is_asked_as_it_was_written() {
    let (port, asked) = http_app("HTTP/1.1 204 No Content\r\n\r\n").await;
    let headers =
        r#"[{"name":"Host","value":"shop"},{"name":"X-A","value":"1"},{"name":"x-a","value":"2"}]"#;
    let result =
        probe(format!(r#""httpGet":{{"path":"/ready?deep=1","port":{port},"scheme":"HTTP","httpHeaders":{headers}}}"#)).await;
    assert!(result.ok, "{result:?}");
    assert_eq!(result.status, Some(204));
    let asked = asked.await.expect("no panic");
    assert!(
        asked.starts_with("GET /ready?deep=1 HTTP/1.1\r\n"),
        "{asked}"
    );
    for line in [
        "host: shop",
        "x-a: 1",
        "x-a: 2",
        "accept: */*",
        "connection: close",
        "user-agent: kube-probe/weir-",
    ] {
        assert!(asked.contains(&format!("\r\n{line}")), "{line} in {asked}");
    }
}

#[tokio::test]
async fn without_headers_the_host_is_the_address() {
    let (port, asked) = http_app("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
    assert!(
        probe(format!(r#""httpGet":{{"path":"a b/ä","port":{port}}}"#))
            .await
            .ok
    );
    let asked = asked.await.expect("no panic");
    assert!(
        asked.starts_with("GET /a%20b/%C3%A4 HTTP/1.1\r\n"),
        "{asked}"
    );
    assert!(
        asked.contains(&format!("\r\nhost: 127.0.0.1:{port}\r\n")),
        "{asked}"
    );
}

#[tokio::test]
async fn the_status_decides_as_it_does_for_the_kubelet() {
    for (answer, ok, status) in [
        (
            "HTTP/1.1 302 Found\r\nlocation: /login\r\n\r\n",
            true,
            Some(302),
        ),
        (
            "HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n",
            false,
            Some(503),
        ),
        (
            "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n",
            false,
            Some(404),
        ),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\ncut off",
            true,
            Some(200),
        ),
        ("-ERR unknown command\r\n", false, None),
        ("", false, None),
    ] {
        let (port, _asked) = http_app(answer).await;
        let result = probe(format!(r#""httpGet":{{"path":"/","port":{port}}}"#)).await;
        assert_eq!(
            (result.ok, result.status),
            (ok, status),
            "{answer:?}: {result:?}"
        );
    }
}

/// An app with a certificate of its own making, which speaks this version of TLS and nothing else.
async fn https_app(
    version: &'static rustls::SupportedProtocolVersion,
    answer: &'static str,
) -> (u16, JoinHandle<String>) {
    let made = rcgen::generate_simple_self_signed(["app.example".to_owned()]).expect("made");
    let key = rustls_pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .expect("a version")
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key.expect("a key"))
        .expect("a certificate");
    let (listener, port) = listener().await;
    let asked = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.expect("accept");
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let mut stream = acceptor.accept(stream).await.expect("a handshake");
        assert_eq!(stream.get_ref().1.server_name(), None, "it has no name");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.expect("a request head"));
        }
        stream.write_all(answer.as_bytes()).await.expect("answer");
        String::from_utf8(head).expect("text")
    });
    (port, asked)
}

/// The kubelet asks without a look at the certificate; a pod that is probed over HTTPS once never became ready in the mesh.
#[tokio::test]
async fn an_https_probe_believes_whoever_answers() {
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        for (answer, ok) in [
            ("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", true),
            ("HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n", false),
        ] {
            let (port, asked) = https_app(version, answer).await;
            let result = probe(format!(
                r#""httpGet":{{"path":"/healthz","port":{port},"scheme":"HTTPS"}}"#
            ))
            .await;
            assert_eq!(result.ok, ok, "{version:?}: {result:?}");
            let detail = format!("GET https://127.0.0.1:{port}/healthz answered");
            assert!(result.detail.starts_with(&detail), "{result:?}");
            let asked = asked.await.expect("no panic");
            assert!(asked.starts_with("GET /healthz HTTP/1.1\r\n"), "{asked}");
        }
    }
}

#[tokio::test]
async fn an_https_probe_of_an_app_without_tls_fails_in_words() {
    let (listener, port) = listener().await;
    let app = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("accept");
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await
    });
    let result = probe(format!(
        r#""httpGet":{{"path":"/","port":{port},"scheme":"HTTPS"}}"#
    ))
    .await;
    assert!(
        !result.ok && result.detail.contains("gave no answer"),
        "{result:?}"
    );
    app.await.expect("no panic").expect("it answered");
}

#[tokio::test]
async fn a_tcp_probe_succeeds_where_somebody_listens() {
    let (listener, port) = listener().await;
    assert!(probe(format!(r#""tcpSocket":{{"port":{port}}}"#)).await.ok);
    drop(listener);
    let result = probe(format!(r#""tcpSocket":{{"port":{port}}}"#)).await;
    assert!(
        !result.ok && result.detail.contains("refused"),
        "{result:?}"
    );
}

#[tokio::test]
async fn a_grpc_probe_asks_for_its_service() {
    let (port, asked) = grpc_app(b"\0\0\0\0\x02\x08\x01", "0").await;
    let result = probe(format!(r#""grpc":{{"port":{port},"service":"cart"}}"#)).await;
    assert!(result.ok && result.status == Some(0), "{result:?}");
    let (path, body) = asked.await.expect("no panic");
    assert_eq!(path, "/grpc.health.v1.Health/Check");
    assert_eq!(&body[..], b"\0\0\0\0\x06\x0a\x04cart");
}

#[tokio::test]
async fn only_serving_is_healthy() {
    for (message, code, status, says) in [
        (&b"\0\0\0\0\x02\x08\x02"[..], "0", Some(0), "NOT_SERVING"),
        (b"\0\0\0\0\0", "0", Some(0), "serving status 0"),
        (b"\0\0\0\0\x02\x08\x01", "14", Some(14), "gRPC code 14"),
        (b"", "12", Some(12), "does not implement"),
        (b"", "5", Some(5), "does not know"),
        (b"\0\0\0\0\x02\x08\x01", "x", None, "without a grpc-status"),
        (&[0; 5000], "0", Some(0), "no HealthCheckResponse"), // longer than we read
    ] {
        let (port, _asked) = grpc_app(message, code).await;
        let result = probe(format!(r#""grpc":{{"port":{port}}}"#)).await;
        assert!(
            !result.ok && result.detail.contains(says),
            "{says}: {result:?}"
        );
        assert_eq!(result.status, status, "{says}");
    }
}

#[tokio::test]
async fn a_grpc_probe_of_something_else_fails_in_words() {
    let (port, _asked) = http_app("HTTP/1.1 200 OK\r\n\r\n").await;
    let result = probe(format!(r#""grpc":{{"port":{port}}}"#)).await;
    assert!(
        !result.ok && result.detail.contains("gave no answer"),
        "{result:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn an_app_that_accepts_and_says_nothing_costs_the_probes_own_timeout() {
    let (_listener, port) = listener().await;
    for handler in ["httpGet", "grpc"] {
        let json =
            format!(r#"{{"app/liveness":{{"{handler}":{{"port":{port}}},"timeoutSeconds":7}}}}"#);
        let probers = Probers::parse(&json, APP, None).expect("valid");
        let start = tokio::time::Instant::now();
        let result = probers.probe("app/liveness").await;
        assert!(
            !result.ok && result.detail.contains("within 7 s"),
            "{result:?}"
        );
        assert_eq!(start.elapsed().as_secs(), 7);
    }
}

/// Every answer to a hook is a yes to the kubelet, and a container whose hook reached nobody must not start.
#[tokio::test]
async fn a_hook_that_nobody_heard_gets_no_answer() {
    let ask = async |port: u16, key: &str| {
        let json = format!(r#"{{"{key}": {{"httpGet": {{"path": "/", "port": {port}}}}}}}"#);
        let probers = Probers::parse(&json, APP, None).expect("valid");
        let answer = probers.probe(key).await.answer(key);
        answer.map(|status| status.as_u16())
    };
    let closed = {
        let (listener, port) = listener().await;
        drop(listener);
        port
    };
    for (key, answer) in [
        ("app/post-start", None),
        ("app/pre-stop", None),
        ("app/liveness", Some(503)),
    ] {
        assert_eq!(ask(closed, key).await, answer, "{key}");
    }
    let (busy, _asked) = http_app("HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n").await;
    assert_eq!(ask(busy, "app/pre-stop").await, Some(503));
}

#[tokio::test]
async fn a_probe_nobody_wrote_fails() {
    let probers = Probers::parse("", APP, None).expect("no probes");
    let result = probers.probe("cart/readiness").await;
    assert!(
        !result.ok && result.detail.contains("cart/readiness"),
        "{result:?}"
    );
}

#[test]
fn what_cannot_be_asked_is_refused_with_its_key() {
    for (handler, why) in [
        (r#""timeoutSeconds":1"#, "exactly one"),
        (r#""tcpSocket":{"port":1},"grpc":{"port":1}"#, "exactly one"),
        (r#""tcpSocket":{"port":0}"#, "port 0"),
        (r#""httpGet":{"port":1,"scheme":"FTP"}"#, "FTP"),
        (
            r#""httpGet":{"port":1,"httpHeaders":[{"name":"a b","value":""}]}"#,
            "a b",
        ),
        (
            r#""httpGet":{"port":1,"httpHeaders":[{"name":"a","value":"b\nc"}]}"#,
            "no header",
        ),
    ] {
        let json = format!("{{\"cart/startup\":{{{handler}}}}}");
        let error = Probers::parse(&json, APP, None).expect_err(why).to_string();
        assert!(
            error.contains("cart/startup") && error.contains(why),
            "{error}"
        );
    }
    for json in [
        "[]",
        "{",
        r#"{"a/b":{"tcpSocket":{"port":70000}}}"#,
        r#"{"a/b":{"tcpSocket":{"port":"http"}}}"#,
    ] {
        assert!(
            matches!(
                Probers::parse(json, APP, None),
                Err(InvalidProbers::Json(_))
            ),
            "{json}"
        );
    }
}

/// An app that counts how often it was asked and answers when it is told to.
async fn slow_app() -> (
    u16,
    Arc<std::sync::atomic::AtomicUsize>,
    Arc<tokio::sync::Notify>,
) {
    let (listener, port) = listener().await;
    let asked = Arc::new(AtomicUsize::new(0));
    let answers = Arc::new(Notify::new());
    let (counted, told) = (asked.clone(), answers.clone());
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.expect("accept");
            counted.fetch_add(1, Ordering::SeqCst);
            let told = told.clone();
            tokio::spawn(async move {
                told.notified().await;
                let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
                stream.write_all(answer).await.expect("answer");
            });
        }
    });
    (port, asked, answers)
}

/// Who calls it early does not shorten it for the kubelet.
#[tokio::test(start_paused = true)]
async fn a_hook_that_asks_nobody_takes_its_time_for_each_who_calls_it() {
    let json = r#"{"cart/pre-stop": {"sleep": {"seconds": 2}, "timeoutSeconds": 3600}}"#;
    let probers = Probers::parse(json, APP, None).expect("the injector writes this");
    assert_eq!(probers.len(), 1);
    let begun = tokio::time::Instant::now();
    let called = async |after: u64| {
        tokio::time::sleep(Duration::from_secs(after)).await;
        let result = probers.probe("cart/pre-stop").await;
        let told = result.answer("cart/pre-stop");
        assert_eq!(told, Some(StatusCode::OK));
        begun.elapsed().as_secs()
    };
    assert_eq!(tokio::join!(called(0), called(1)), (2, 3));
    let both = r#"{"cart/pre-stop": {"sleep": {"seconds": 2}, "tcpSocket": {"port": 80}}}"#;
    Probers::parse(both, APP, None).expect_err("one of two is not chosen");
}

#[tokio::test]
async fn a_hook_runs_once_at_a_time_and_goes_on_for_who_came_second() {
    let (port, asked, answers) = slow_app().await;
    let json =
        format!(r#"{{"app/pre-stop": {{"httpGet": {{"port": {port}}}, "timeoutSeconds": 60}}}}"#);
    let probers = Arc::new(Probers::parse(&json, APP, None).expect("valid"));
    let call = || {
        let probers = probers.clone();
        tokio::spawn(async move { probers.probe("app/pre-stop").await })
    };
    let count = || asked.load(Ordering::SeqCst);
    let stranger = call();
    while count() == 0 {
        tokio::task::yield_now().await;
    }
    let kubelet = call();
    let others: Vec<_> = (0..10).map(|_| call()).collect();
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
    assert_eq!(count(), 1, "the others wait for it");
    // Who began it leaves: for the others it goes on.
    stranger.abort();
    answers.notify_one();
    assert!(kubelet.await.expect("no panic").ok);
    for other in others {
        assert!(other.await.expect("no panic").ok);
    }
    assert_eq!(count(), 1);

    // A container that was started anew ends a second time.
    let again = call();
    while count() == 1 {
        tokio::task::yield_now().await;
    }
    answers.notify_one();
    assert!(again.await.expect("no panic").ok);
}
