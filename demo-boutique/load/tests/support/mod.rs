//! Servers in this process, as good or bad as a test wants them.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use boutique_load::{Arrivals, Bounds, Journey, Journeys, Plan, Reach, Target, Work};
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Body, Incoming};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;

pub(crate) struct Server {
    pub(crate) addr: SocketAddr,
    pub(crate) connections: Arc<AtomicUsize>,
    /// The most requests that were being answered at once.
    pub(crate) busiest: Arc<AtomicUsize>,
}

#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Protocol {
    Http1,
    Http2,
}

impl Server {
    pub(crate) async fn start<Answer, Answered, ResponseBody>(
        protocol: Protocol,
        answer: Answer,
    ) -> Self
    where
        Answer: Fn(Request<Incoming>) -> Answered + Clone + Send + 'static,
        Answered: Future<Output = Response<ResponseBody>> + Send,
        ResponseBody: Body<Data = Bytes, Error = Infallible> + Send + 'static,
    {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let listener = listener.expect("a free port");
        let server = Self {
            addr: listener.local_addr().expect("bound"),
            connections: Arc::default(),
            busiest: Arc::default(),
        };
        let (connections, busiest) = (server.connections.clone(), server.busiest.clone());
        let busy = Arc::new(AtomicUsize::new(0));
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.expect("accepting");
                connections.fetch_add(1, Ordering::SeqCst);
                let (answer, busy, busiest) = (answer.clone(), busy.clone(), busiest.clone());
                let service = service_fn(move |request| {
                    let (answer, busy, busiest) = (answer.clone(), busy.clone(), busiest.clone());
                    async move {
                        let _guest = Guest::enter(busy, &busiest);
                        Ok::<_, Infallible>(answer(request).await)
                    }
                });
                let io = TokioIo::new(stream);
                // A client that hangs up is not this server's failure.
                tokio::spawn(async move {
                    match protocol {
                        Protocol::Http1 => {
                            http1::Builder::new().serve_connection(io, service).await
                        }
                        Protocol::Http2 => {
                            http2::Builder::new(TokioExecutor::new())
                                .serve_connection(io, service)
                                .await
                        }
                    }
                });
            }
        });
        server
    }

    /// Answers everything at once with an empty 200.
    pub(crate) async fn ok() -> Self {
        Self::start(Protocol::Http1, async |_| ok()).await
    }

    pub(crate) fn target(&self) -> Target {
        Target::parse(&self.addr.to_string(), &Reach::loopback()).expect("loopback")
    }

    /// GET / at an even pace.
    pub(crate) fn plan(&self, rate: f64, duration: Duration) -> Plan {
        let get = Journeys::of(vec![Journey::get("get", "/")]);
        Plan {
            target: self.target(),
            work: Work::Http(get.expect("a weight of 1")),
            rate: boutique_load::Rate::constant(rate).expect("valid"),
            arrivals: Arrivals::Constant,
            bounds: Bounds::new(duration).expect("valid"),
            seed: 1,
            headers: Vec::new(),
        }
    }
}

pub(crate) fn ok() -> Response<Full<Bytes>> {
    Response::new(Full::default())
}

struct Guest(Arc<AtomicUsize>);

impl Guest {
    fn enter(busy: Arc<AtomicUsize>, busiest: &AtomicUsize) -> Self {
        let now = busy.fetch_add(1, Ordering::SeqCst) + 1;
        busiest.fetch_max(now, Ordering::SeqCst);
        Self(busy)
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}
