//! What one gRPC call allocates in a proxy: in Weir's outbound half as it serves a caller, and in a bare relay of hyper's
//! server and hyper's client, which is what anybody would have to pay.
//!
//! ```text
//!   caller (a thread)  ──▶  proxy: the thread that counts  ──▶  server (a thread)
//! ```
//!
//! Real sockets on loopback, plain, one call after the other. Only the proxy's own thread is counted, and there everything
//! happens that the proxy does, so the figure hardly depends on the machine.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, mpsc};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use weir_config::snapshot;
use weir_config::units::Duration;
use weir_proxy::access_log::AccessLog;
use weir_proxy::backend::{Backend, Environment};
use weir_proxy::connector::Connector;
use weir_proxy::drain;
use weir_proxy::endpoints::Described;
use weir_proxy::facts;
use weir_proxy::http::{Connection, Target};
use weir_proxy::request::Protocol;
use weir_proxy::telemetry::Direction;

use crate::counting::allocations;

/// Of a call in the whole of the proxy, beyond those of hyper.
pub(crate) const BEYOND_HYPER_MAX: f64 = 20.0;

/// Tables and pools have the size that they keep by then.
const WARM_UP: u64 = 200;
const MESSAGE: [u8; 100] = [0; 100];

/// Per call.
pub(crate) struct Counted {
    pub(crate) hyper: f64,
    pub(crate) weir: f64,
}

impl Counted {
    pub(crate) fn beyond_hyper(&self) -> f64 {
        self.weir - self.hyper
    }
}

pub(crate) fn of_a_grpc_call(calls: u64) -> Counted {
    let server = serve();
    runtime().block_on(async {
        Counted {
            hyper: per_call(calls, |stream| relay(stream, server)).await,
            weir: per_call(calls, |stream| weir(stream, server)).await,
        }
    })
}

/// `proxy` serves the connection of a caller who makes so many calls.
async fn per_call<F: Future<Output = ()> + Send + 'static>(
    calls: u64,
    proxy: impl FnOnce(TcpStream) -> F,
) -> f64 {
    let listener = TcpListener::bind("127.0.0.1:0").await;
    let listener = listener.expect("loopback is there");
    let address = listener.local_addr().expect("it is bound");
    let (done, mut is_done) = tokio::sync::mpsc::channel(1);
    let (go_on, told) = mpsc::channel();
    let caller = std::thread::spawn(move || {
        runtime().block_on(async {
            let mut sender = connect(address).await;
            for calls in [WARM_UP, calls] {
                told.recv().expect("somebody counts");
                for _ in 0..calls {
                    call(&mut sender).await;
                }
                done.send(()).await.expect("somebody counts");
            }
        });
    });
    let (stream, _) = listener.accept().await.expect("the caller connects");
    no_delay(&stream);
    let serving = tokio::spawn(proxy(stream));
    let mut counts = [0; 2];
    for count in &mut counts {
        let before = allocations();
        go_on.send(()).expect("the caller waits");
        is_done.recv().await.expect("the caller ends");
        *count = allocations() - before;
    }
    caller.join().expect("every call was answered");
    serving.abort();
    counts[1] as f64 / calls as f64
}

async fn call(sender: &mut SendRequest<Full<Bytes>>) {
    let request = http::Request::post("http://catalog:3550/boutique.v1.Catalog/GetProduct")
        .version(http::Version::HTTP_2)
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Full::new(Bytes::from_static(&MESSAGE)))
        .expect("it is valid");
    sender.ready().await.expect("the connection is kept");
    let response = sender.send_request(request).await.expect("an answer");
    assert_eq!(response.status(), 200);
    let body = response.into_body().collect().await.expect("a body");
    let trailers = body.trailers().expect("gRPC has them");
    assert_eq!(trailers["grpc-status"], "0");
}

async fn relay(downstream: TcpStream, upstream: SocketAddr) {
    let sender: SendRequest<Incoming> = connect(upstream).await;
    let answer = service_fn(move |request| {
        let mut sender = sender.clone();
        async move { sender.send_request(request).await }
    });
    let serving = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    // Ends with its caller, in whatever way that goes.
    let _ = serving
        .serve_connection(TokioIo::new(downstream), answer)
        .await;
}

async fn weir(downstream: TcpStream, upstream: SocketAddr) {
    let (facts, _kept) = facts::channel();
    let environment = Environment {
        workers: 1,
        connector: Connector {
            identity: Arc::default(),
            mark: None,
        },
        facts,
        outbound_log: AccessLog::new(Direction::Outbound, snapshot::AccessLog::Disabled),
        inbound_log: AccessLog::new(Direction::Inbound, snapshot::AccessLog::Disabled),
        inherit: Arc::default(),
        stale: Arc::default(),
        backends: Arc::default(),
    };
    let backend = Backend::new(&policy(), environment);
    let endpoint = Described {
        address: upstream,
        identity: None,
        draining: false,
        weight: 100,
        zone: None,
        pod: String::new(),
    };
    backend.endpoints.update(true, vec![endpoint], &[]);
    let connection = Connection {
        service: backend.service.clone(),
        target: Target::Service(Arc::new(backend)),
        worker: 0,
        caller: None,
        destination: ([127, 0, 0, 1], 8080).into(),
    };
    let (_signal, drain) = drain::channel();
    let _ = weir_proxy::http::serve(downstream, Protocol::Http2, connection, drain).await;
}

/// Everything at once, as `overhead/policies.yaml` asks for it: what is not said here is on by default.
fn policy() -> snapshot::Service {
    let slow = Duration::from_secs(4);
    let outbound = snapshot::Outbound {
        breaker: Some(snapshot::Breaker {
            slow_call_duration: Some(slow),
            ..snapshot::Breaker::default()
        }),
        retries: snapshot::Retries {
            per_try_timeout: Some(slow),
            ..snapshot::Retries::default()
        },
        ..snapshot::Outbound::default()
    };
    let catalog = snapshot::Route {
        name: "catalog".into(),
        matches: snapshot::RouteMatch::Grpc {
            service: "boutique.v1.Catalog".into(),
            method: None,
        },
        idempotent: true,
        outbound: outbound.clone(),
    };
    snapshot::Service {
        key: snapshot::ServiceKey {
            namespace: "boutique".into(),
            name: "catalog".into(),
            port: 3550,
        },
        protocol: snapshot::Protocol::Http2,
        mode: snapshot::Mode::Enforce,
        forced: None,
        outbound,
        routes: vec![catalog],
        priorities: Vec::new(),
        faults: Vec::new(),
        routing: Vec::new(),
    }
}

/// A gRPC server of sorts, on a thread of its own.
fn serve() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback is there");
    let address = listener.local_addr().expect("it is bound");
    listener.set_nonblocking(true).expect("it is a socket");
    std::thread::spawn(move || {
        runtime().block_on(async {
            let listener = TcpListener::from_std(listener).expect("it is non-blocking");
            while let Ok((stream, _)) = listener.accept().await {
                no_delay(&stream);
                let serving = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                tokio::spawn(
                    serving.serve_connection(TokioIo::new(stream), service_fn(well_answered)),
                );
            }
        });
    });
    address
}

async fn well_answered(
    request: http::Request<Incoming>,
) -> Result<http::Response<impl hyper::body::Body<Data = Bytes, Error = Infallible>>, Infallible> {
    let _ = request.into_body().collect().await;
    let trailers = http::HeaderMap::from_iter([(
        http::HeaderName::from_static("grpc-status"),
        http::HeaderValue::from_static("0"),
    )]);
    let data = Full::new(Bytes::from_static(&MESSAGE));
    let body = data.with_trailers(std::future::ready(Some(Ok(trailers))));
    let response = http::Response::builder().header("content-type", "application/grpc");
    Ok(response.body(body).expect("it is valid"))
}

async fn connect<B>(to: SocketAddr) -> SendRequest<B>
where
    B: hyper::body::Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>>
        + Send
        + Unpin
        + 'static,
{
    let stream = TcpStream::connect(to).await.expect("somebody listens");
    no_delay(&stream);
    let (sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .expect("it speaks HTTP/2");
    tokio::spawn(connection);
    sender
}

/// A frame that follows another waits for the peer's acknowledgement otherwise, and the peer takes 40 ms to send one
/// once the connection is no longer new.
fn no_delay(stream: &TcpStream) {
    stream.set_nodelay(true).expect("it is TCP");
}

fn runtime() -> Runtime {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.expect("a runtime can be made")
}
