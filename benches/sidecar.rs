//! `cargo bench --bench sidecar`: what a sidecar costs while it does nothing, and what it allocates for one gRPC call.
//!
//! - Resident memory of each idle sidecar of the boutique, in a lab (target: at most 12 MiB).
//! - Allocations per unary gRPC call through the whole outbound stack to a real server on loopback, beside those of
//!   hyper's client alone. Counted on the calling thread, so they are the same on every machine and every run.

mod counting;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use counting::allocations;
use http_body_util::{BodyExt, Full};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::time::Instant;
use tower::Service;
use weir_config::snapshot;
use weir_proxy::access_log::AccessLog;
use weir_proxy::backend::{Backend, Environment};
use weir_proxy::body::Body;
use weir_proxy::connector::Connector;
use weir_proxy::endpoints::Described;
use weir_proxy::facts;
use weir_proxy::request::{Context, Protocol, Request};
use weir_proxy::telemetry::Direction;

const CALLS: u64 = 10_000;
const WARM_UP: u64 = 100;
/// Python and Node take their time on a busy machine.
const READY: Duration = Duration::from_secs(120);

fn main() {
    let server = serve();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.expect("a runtime can be made").block_on(async {
        let hyper = hyper_alone(server).await;
        let weir = outbound_stack(server).await;
        println!("allocations per gRPC call (100 B each way), calling thread:");
        println!("  hyper's client alone     {hyper:>6.1}");
        println!("  the outbound stack       {weir:>6.1}");
        println!("  Weir beyond hyper        {:>6.1}", weir - hyper);
    });
    idle_memory();
}

/// A gRPC server of sorts, on a thread of its own.
fn serve() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback is there");
    let address = listener.local_addr().expect("it is bound");
    listener.set_nonblocking(true).expect("it is a socket");
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.expect("a runtime can be made").block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).expect("it is non-blocking");
            while let Ok((stream, _)) = listener.accept().await {
                no_delay(&stream);
                let answer = service_fn(|request: http::Request<hyper::body::Incoming>| async {
                    let _ = request.into_body().collect().await;
                    let data = Full::new(Bytes::from_static(&[0; 100]));
                    let body = data.with_trailers(std::future::ready(Some(Ok(
                        http::HeaderMap::from_iter([grpc_ok()]),
                    ))));
                    let response =
                        http::Response::builder().header("content-type", "application/grpc");
                    Ok::<_, Infallible>(response.body(body).expect("it is valid"))
                });
                let serving = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                tokio::spawn(serving.serve_connection(TokioIo::new(stream), answer));
            }
        });
    });
    address
}

/// A frame that follows another waits for the peer's acknowledgement otherwise, and the peer takes 40 ms to send one
/// once the connection is no longer new.
fn no_delay(stream: &tokio::net::TcpStream) {
    stream.set_nodelay(true).expect("it is TCP");
}

fn grpc_ok() -> (http::HeaderName, http::HeaderValue) {
    (
        http::HeaderName::from_static("grpc-status"),
        http::HeaderValue::from_static("0"),
    )
}

fn head() -> http::request::Parts {
    let request = http::Request::post("http://catalog:3550/boutique.v1.Catalog/GetProduct")
        .version(http::Version::HTTP_2)
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    request.body(()).expect("it is valid").into_parts().0
}

async fn per_call<F: Future<Output = ()>>(mut call: impl FnMut() -> F) -> f64 {
    for _ in 0..WARM_UP {
        call().await;
    }
    let before = allocations();
    for _ in 0..CALLS {
        call().await;
    }
    (allocations() - before) as f64 / CALLS as f64
}

async fn hyper_alone(server: SocketAddr) -> f64 {
    let stream = tokio::net::TcpStream::connect(server)
        .await
        .expect("the server listens");
    no_delay(&stream);
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .expect("it speaks HTTP/2");
    tokio::spawn(connection);
    per_call(|| {
        let mut sender = sender.clone();
        async move {
            let request =
                http::Request::from_parts(head(), Full::new(Bytes::from_static(&[0; 100])));
            let response = sender.send_request(request).await.expect("an answer");
            response.into_body().collect().await.expect("a body");
        }
    })
    .await
}

async fn outbound_stack(server: SocketAddr) -> f64 {
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
    let policy = snapshot::Service {
        key: snapshot::ServiceKey {
            namespace: "boutique".into(),
            name: "catalog".into(),
            port: 3550,
        },
        protocol: snapshot::Protocol::Http2,
        mode: snapshot::Mode::Enforce,
        forced: None,
        outbound: snapshot::Outbound {
            breaker: Some(snapshot::Breaker::default()),
            ..snapshot::Outbound::default()
        },
        routes: Vec::new(),
        priorities: Vec::new(),
        faults: Vec::new(),
        routing: Vec::new(),
    };
    let backend = Backend::new(&policy, environment);
    let endpoint = Described {
        address: server,
        identity: None,
        draining: false,
        weight: 100,
        zone: None,
        pod: String::new(),
    };
    backend.endpoints.update(true, vec![endpoint], &[]);
    per_call(|| {
        let context = Context {
            protocol: Protocol::Http2,
            grpc: true,
            upgrade: false,
            received: Instant::now(),
            ..Context::opaque(0)
        };
        let mut request = Request {
            head: head(),
            body: Body::full(Bytes::from_static(&[0; 100])),
            context,
        };
        let routes = backend.routes();
        let mut stack = routes.stack(&mut request);
        async move {
            let response = stack.call(request).await.expect("an answer");
            response.into_body().collect().await.expect("a body");
        }
    })
    .await
}

/// Every sidecar of an idle boutique.
fn idle_memory() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let own = std::env::current_exe().expect("this program has a path");
    let profile = own
        .parent()
        .and_then(Path::parent)
        .expect("it lies in target/<profile>/deps");
    let missing = ["weir-lab", "weir-proxy", "weir-control-plane"]
        .into_iter()
        .find(|name| !profile.join(name).exists());
    if let Some(missing) = missing {
        println!(
            "idle memory: not measured, {missing} is not built (cargo build --release --workspace --bins)"
        );
        return;
    }
    let mut builder = weir_lab::Lab::builder()
        .manifests(root.join("demo-boutique/k8s"))
        .mesh(true)
        .program(profile.join("weir-lab"))
        .bin_dir(profile);
    for image in weir_lab::image::boutique(&root.join("demo-boutique")) {
        builder = builder.image(image);
    }
    let lab = builder.start().expect("a lab can be made here");
    if let Err(error) = lab.wait_ready(READY) {
        println!(
            "idle memory: not measured, the boutique is not ready (built by `cargo demo`?): {error}"
        );
        return;
    }
    // What they needed to start has been given back by then.
    let script = "sleep 10; for p in /proc/[0-9]*; do [ \"$(cat $p/comm)\" = weir-proxy ] && grep VmRSS $p/status; done; true";
    let output = lab
        .exec(None, &["sh", "-c", script])
        .expect("the lab answers");
    let mut kib: Vec<u64> = output
        .stdout
        .lines()
        .filter_map(|line| line.split_whitespace().nth(1)?.parse().ok())
        .collect();
    assert!(!kib.is_empty(), "the boutique has no sidecar: {output:?}");
    kib.sort_unstable();
    println!(
        "resident memory of {} idle sidecars, KiB: {kib:?} (target: at most 12288)",
        kib.len()
    );
}
