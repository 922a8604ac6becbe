use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tower::service_fn;

use super::*;
use crate::ahead::ReadAhead;
use crate::backend::tests::backend;
use crate::body::{Duty, Guard};
use crate::drain;

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: app\r\n\r\n";

fn connection(target: Target) -> Connection {
    Connection {
        target,
        service: "app".into(),
        worker: 0,
        caller: None,
        destination: ([127, 0, 0, 1], 8080).into(),
    }
}

/// An app that answers everything with nothing.
fn app() -> Target {
    Target::App(Stack::new(service_fn(
        |_: Box<crate::request::Request>| async { Ok(Response::new(Body::empty())) },
    )))
}

/// A caller of `app`, and what its connection comes to.
fn caller() -> (DuplexStream, JoinHandle<Result<(), String>>) {
    caller_of(app())
}

fn caller_of(app: Target) -> (DuplexStream, JoinHandle<Result<(), String>>) {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let serving = async move {
        let (_signal, drain) = drain::channel();
        let served = serve(far, Protocol::Http1, connection(app), drain).await;
        served.map_err(|error| error.to_string())
    };
    (near, tokio::spawn(serving))
}

async fn answered(caller: &mut DuplexStream) {
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        let read = caller.read_buf(&mut answer).await.expect("it is read");
        assert_ne!(read, 0, "it ended");
    }
    assert!(answer.starts_with(b"HTTP/1.1 200"), "{answer:?}");
}

fn about(found: Duration, expected: u64) {
    let seconds = found.as_secs_f64();
    assert!((seconds - expected as f64).abs() < 0.5, "{seconds} s");
}

/// After ten seconds it was closed, and counted as a rejection; the app's next request met that.
#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_kept_for_five_minutes_and_its_end_is_no_rejection() {
    let (mut caller, serving) = caller();
    for _ in 0..3 {
        caller.write_all(REQUEST).await.expect("it is open");
        answered(&mut caller).await;
        tokio::time::sleep(Duration::from_secs(4 * 60)).await;
    }
    let before = Instant::now();
    assert_eq!(serving.await.expect("no panic"), Ok(()));
    about(before.elapsed(), 60);
    assert_eq!(
        caller.read_u8().await.map_err(|e| e.kind()),
        Err(std::io::ErrorKind::UnexpectedEof)
    );
}

#[tokio::test(start_paused = true)]
async fn a_head_that_has_begun_has_ten_seconds_also_after_a_minute_of_silence() {
    for requests in 0..3 {
        let (mut caller, serving) = caller();
        for _ in 0..requests {
            caller.write_all(REQUEST).await.expect("it is open");
            answered(&mut caller).await;
        }
        tokio::time::sleep(Duration::from_secs(60)).await;
        let trickling = tokio::spawn(async move {
            let begun = Instant::now();
            for byte in REQUEST {
                if caller.write_all(&[*byte]).await.is_err() {
                    break;
                }
                tokio::time::sleep(Duration::from_secs(2)).await;
            }
            begun
        });
        let served = serving.await.expect("no panic");
        assert!(served.is_err(), "a slow head is refused");
        let ended = Instant::now();
        about(ended - trickling.await.expect("no panic"), 10);
    }
}

/// It had five minutes, like one that has not begun: its first bytes were read to see whether its caller is still there.
#[tokio::test(start_paused = true)]
async fn a_head_that_begins_while_an_answer_is_waited_for_has_ten_seconds_too() {
    let slow = Target::App(Stack::new(service_fn(
        |_: Box<crate::request::Request>| async {
            tokio::time::sleep(Duration::from_secs(2)).await;
            Ok(Response::new(Body::empty()))
        },
    )));
    let (mut caller, serving) = caller_of(slow);
    caller.write_all(REQUEST).await.expect("it is open");
    tokio::time::sleep(Duration::from_secs(1)).await;
    caller.write_all(&REQUEST[..20]).await.expect("it is open");
    answered(&mut caller).await;
    let begun = Instant::now();
    assert!(serving.await.expect("no panic").is_err(), "it is refused");
    about(begun.elapsed(), 10);
}

const SOON: Duration = Duration::from_secs(10);

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let near = TcpStream::connect(listener.local_addr().expect("it is bound"));
    let (near, far) = tokio::join!(near, listener.accept());
    (near.expect("it connects"), far.expect("it is accepted").0)
}

async fn heard(stream: &mut TcpStream) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let read = stream.read_buf(&mut head).await.expect("it is read");
        assert_ne!(read, 0, "it ended");
    }
}

/// An app and its caller who have left HTTP, and what the connection between them comes to.
struct Websocket {
    caller: TcpStream,
    app: TcpStream,
    signal: drain::Signal,
    serving: JoinHandle<()>,
    ended: mpsc::UnboundedReceiver<Outcome>,
}

async fn websocket() -> Websocket {
    let (mut caller, near) = pair().await;
    let (far, mut app) = pair().await;
    let far = Arc::new(Mutex::new(Some(far)));
    let (told, ended) = mpsc::unbounded_channel();
    let target = Target::App(Stack::new(service_fn(
        move |request: Box<crate::request::Request>| {
            let far = far.lock().expect("no panic").take().expect("asked once");
            let ended = Ended(told.clone());
            async move {
                let stream = connector::Stream::Plain(ReadAhead::new(far));
                let (mut sender, connection) =
                    hyper::client::conn::http1::handshake(TokioIo::new(stream))
                        .await
                        .expect("a client");
                tokio::spawn(connection.with_upgrades());
                let request = http::Request::from_parts(request.head, request.body);
                let response = sender.send_request(request).await.expect("an answer");
                Guard::new(ended).settle(Ok(response.map(Body::from)))
            }
        },
    )));
    let (signal, drain) = drain::channel();
    let near = ReadAhead::new(near);
    let serving = tokio::spawn(async move {
        let served = serve(near, Protocol::Http1, connection(target), drain).await;
        served.expect("no protocol error");
    });
    let ask =
        b"GET /chat HTTP/1.1\r\nhost: app\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
    caller.write_all(ask).await.expect("it is open");
    heard(&mut app).await;
    let switch =
        b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
    app.write_all(switch).await.expect("it is open");
    heard(&mut caller).await;
    Websocket {
        caller,
        app,
        signal,
        serving,
        ended,
    }
}

/// A layer that wants to know when a call is over.
struct Ended(mpsc::UnboundedSender<Outcome>);

impl Duty for Ended {
    fn done(self, outcome: Outcome, _: tokio::time::Instant) {
        let _ = self.0.send(outcome);
    }
}

/// It was in flight until its head: no limit on calls counted it, nor the load of its endpoint.
#[tokio::test]
async fn an_upgraded_connection_is_a_call_in_flight_until_it_ends() {
    for (cut, outcome) in [(false, Outcome::Success), (true, Outcome::Cancelled)] {
        let mut socket = websocket().await;
        let early = tokio::time::timeout(Duration::from_millis(200), socket.ended.recv()).await;
        assert!(early.is_err(), "{early:?}");
        if cut {
            tcp::reset(&socket.app);
        }
        drop((socket.caller, socket.app));
        let ended = tokio::time::timeout(SOON, socket.ended.recv()).await;
        assert_eq!(ended.expect("it is told"), Some(outcome));
    }
}

/// It was served by nobody: no drain waited for it, and no limit counted it.
#[tokio::test]
async fn an_upgraded_connection_counts_and_is_waited_for_until_it_ends() {
    let Websocket {
        mut caller,
        mut app,
        signal,
        serving,
        ..
    } = websocket().await;
    signal.start();
    let drained = tokio::time::timeout(Duration::from_millis(200), signal.finished()).await;
    assert!(drained.is_err(), "it is open, and nobody waits for it");
    assert!(!serving.is_finished());
    caller.write_all(b"hello").await.expect("it is open");
    let mut said = [0; 5];
    app.read_exact(&mut said).await.expect("it is carried");
    drop((caller, app));
    let ended = tokio::time::timeout(SOON, signal.finished()).await;
    ended.expect("both ends are gone, and so is it");
}

#[tokio::test]
async fn an_upgraded_connection_that_is_cut_does_not_look_complete() {
    let Websocket {
        mut caller, app, ..
    } = websocket().await;
    tcp::reset(&app);
    drop(app);
    let end = tokio::time::timeout(SOON, caller.read_u8()).await;
    let end = end.expect("it ends").map_err(|error| error.kind());
    assert_eq!(end, Err(std::io::ErrorKind::ConnectionReset));
}

/// Were both to go on, the app might read as the next request what the sidecar took for the body (RFC 9112 section 6.3).
#[tokio::test(start_paused = true)]
async fn of_two_lengths_of_one_request_the_app_hears_of_the_one_that_counts() {
    for fields in [
        "content-length: 4\r\ntransfer-encoding: chunked",
        "transfer-encoding: chunked\r\ncontent-length: 4",
        "content-length: 4\r\ntransfer-encoding: chunked\r\ncontent-length: 30",
    ] {
        let (heard, mut hears) = mpsc::unbounded_channel();
        let app = Target::App(Stack::new(service_fn(
            move |request: Box<crate::request::Request>| {
                let heard = heard.clone();
                async move {
                    let path = request.head.uri.path().to_owned();
                    let length = request
                        .head
                        .headers
                        .get(http::header::CONTENT_LENGTH)
                        .cloned();
                    let body = http_body_util::BodyExt::collect(request.body).await;
                    let body = body.expect("it is whole").to_bytes();
                    let _ = heard.send((path, length, body));
                    Ok(Response::new(Body::empty()))
                }
            },
        )));
        let (mut caller, _serving) = caller_of(app);
        let smuggled = "GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n";
        let request = format!(
            "POST /first HTTP/1.1\r\nhost: a\r\n{fields}\r\n\r\n{:x}\r\n{smuggled}\r\n0\r\n\r\n",
            smuggled.len()
        );
        caller
            .write_all(request.as_bytes())
            .await
            .expect("it is open");
        answered(&mut caller).await;
        let first = hears.recv().await.expect("one request");
        assert_eq!(
            first,
            ("/first".to_owned(), None, smuggled.into()),
            "{fields}"
        );
        drop(caller);
        assert_eq!(hears.recv().await, None, "{fields}");
    }
}

/// `chunked` was taken off, and with it went the word that the rest is compressed.
#[tokio::test(start_paused = true)]
async fn a_coding_that_would_get_lost_is_refused() {
    for (coding, status) in [
        ("chunked", "200"),
        ("Chunked", "200"),
        ("gzip, chunked", "400"),
        ("gzip\r\ntransfer-encoding: chunked", "400"),
    ] {
        let (mut caller, _serving) = caller();
        let request =
            format!("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: {coding}\r\n\r\n0\r\n\r\n");
        caller
            .write_all(request.as_bytes())
            .await
            .expect("it is open");
        let mut answer = [0; 12];
        caller.read_exact(&mut answer).await.expect("an answer");
        assert_eq!(
            String::from_utf8_lossy(&answer),
            format!("HTTP/1.1 {status}"),
            "{coding}"
        );
    }
}

/// Every path has a share of its own in a limit for each method of gRPC, and only what gRPC says is one.
#[test]
fn what_says_that_it_is_grpc_and_is_no_post_is_not() {
    for (method, grpc) in [(Method::POST, true), (Method::GET, false)] {
        let (told, seen) = std::sync::mpsc::channel();
        let app = Target::App(Stack::new(service_fn(
            move |request: Box<crate::request::Request>| {
                told.send(request.context.grpc).expect("somebody looks");
                async { Ok(Response::new(Body::empty())) }
            },
        )));
        let incoming = http::Request::builder().method(method).uri("/items/1");
        let incoming = incoming.header("host", "a");
        let incoming = incoming.header("content-type", "application/grpc");
        let incoming = incoming.body(Body::empty()).expect("a request");
        let mentions = Mentions::of(incoming.headers());
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        let connection = connection(app);
        let answer = answer(&connection, incoming, mentions, false, None);
        runtime.expect("a runtime").block_on(answer);
        assert_eq!(seen.recv(), Ok(grpc));
    }
}

/// An answer of which nothing comes but its head.
async fn quiet() -> Response<Body> {
    let (near, mut far) = tokio::io::duplex(4096);
    tokio::spawn(async move {
        let mut asked = Vec::new();
        far.read_buf(&mut asked).await.expect("it is asked");
        let head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
        far.write_all(head).await.expect("it is heard");
        std::future::pending::<()>().await
    });
    let client = hyper::client::conn::http1::handshake(TokioIo::new(near));
    let (mut sender, connection) = client.await.expect("a client");
    tokio::spawn(connection);
    let response = sender.send_request(http::Request::new(Body::empty()));
    response.await.expect("a head").map(Body::from)
}

/// Nobody looked whether it was still there, so its call went on until its deadline, or for ever.
#[tokio::test(start_paused = true)]
async fn a_caller_that_hangs_up_ends_its_call_and_has_done_no_wrong() {
    for answers in [false, true] {
        let (told, mut ended) = mpsc::unbounded_channel();
        let app = Target::App(Stack::new(service_fn(
            move |_: Box<crate::request::Request>| {
                let guard = Guard::new(Ended(told.clone()));
                async move {
                    if !answers {
                        std::future::pending::<()>().await;
                    }
                    guard.settle(Ok(quiet().await))
                }
            },
        )));
        let (mut caller, serving) = caller_of(app);
        caller.write_all(REQUEST).await.expect("it is open");
        if answers {
            answered(&mut caller).await;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(ended.try_recv().is_err(), "it waits");
        drop(caller);
        let ended = tokio::time::timeout(SOON, ended.recv()).await;
        assert_eq!(ended.expect("it is noticed"), Some(Outcome::Cancelled));
        assert_eq!(serving.await.expect("no panic"), Ok(()));
    }
    let (mut caller, serving) = caller();
    caller.write_all(&REQUEST[..20]).await.expect("it is open");
    drop(caller);
    let half = serving.await.expect("no panic");
    assert!(half.is_err(), "half a request is none");
}

/// An app's own word was taken off with what strangers say.
#[tokio::test]
async fn an_app_says_how_much_its_calls_matter_and_a_stranger_says_it_of_nobody() {
    let tier = |target: Target, caller: Option<&str>, said: &str| {
        let connection = Connection {
            caller: caller.map(Into::into),
            ..connection(target)
        };
        let incoming = http::Request::get("/").header("host", "a");
        let incoming = incoming.header("x-weir-criticality", said);
        let incoming = incoming.body(Body::empty()).expect("a request");
        let mentions = Mentions::of(incoming.headers());
        let names = Names::none(0);
        let request = request(&connection, incoming, names, mentions, false, None);
        let request = request.expect("it is fine");
        assert!(!request.head.headers.contains_key("x-weir-criticality"));
        (request.context.priority.tier, request.context.says_tier)
    };
    let to = || Target::Service(backend(weir_config::snapshot::Outbound::default(), &[]));
    assert_eq!(tier(to(), None, "sheddable"), (Tier::Sheddable, true));
    assert_eq!(
        tier(to(), None, "critical; cohort=3"),
        (Tier::Critical, true)
    );
    assert_eq!(tier(to(), None, "utmost"), (Tier::Default, false));
    assert_eq!(tier(app(), None, "critical"), (Tier::Default, false));
    let proven = Some("spiffe://weir.local/ns/a/sa/b");
    assert_eq!(tier(app(), proven, "critical"), (Tier::Critical, false));
}
