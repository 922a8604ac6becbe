//! The backends: one thread, any number of addresses, each a replica whose work is simulated and that can be broken while it
//! runs. What it saw is the evidence for what a proxy did.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Request, Response, StatusCode};
use http_body_util::{Either, Full};
use hyper::body::{Body, Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep};

use crate::client::{Client, Question, Way};
use crate::driver::number_of;
use crate::processor::Processor;
use crate::station::{Station, Takes};

/// What a broken replica takes to say so.
const FAILS_AFTER: Duration = Duration::from_millis(1);

/// What only a health check asks for: it costs no work, and fails as often as work does.
pub const HEALTH: &str = "/health";
/// `OPTIONS *`: what a proxy asks by itself to know whether somebody is awake. Nobody's request, either.
const PING: &str = "*";
/// Its answer never ends.
pub const FLOOD: &str = "/flood";
const FLOOD_CHUNK: Bytes = Bytes::from_static(&[b'.'; 16 * 1024]);
/// Small, so that what is held back is held by a proxy; the kernel doubles it.
pub const KERNEL_BUFFER: usize = 64 * 1024;

type Answer = Either<Full<Bytes>, Flood>;

/// Where replicas live.
pub struct Backends {
    runtime: Handle,
}

/// How one is broken.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    None,
    /// Connections are accepted and requests are taken, and nothing ever comes back: to an HTTP/1.1 caller what a stopped process
    /// looks like, whose kernel still shakes hands. Healed, it answers all of them.
    Silent,
    /// 503 at once, for this share of the requests.
    Fails(f64),
    /// Work takes so many times longer.
    Slow(f64),
    /// This share of the requests gets stuck for so long.
    Stalls(f64, Duration),
    /// This share of its cores, or of the pace of its places, is left.
    Cut(f64),
}

/// Where requests are worked on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Work {
    /// First come, first served.
    Places(usize),
    /// All at once, sharing the cores; with more than `thrashes_above` in hand they get less done.
    Cores {
        cores: usize,
        thrashes_above: Option<usize>,
    },
}

/// What a replica does with work whose caller has gone.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Abandoned {
    Stops,
    GoesOn,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Plan {
    pub work: Work,
    pub takes: Takes,
    pub abandoned: Abandoned,
}

impl Plan {
    /// Requests a second, at most.
    pub fn capacity(self) -> f64 {
        let (Work::Places(at_once) | Work::Cores { cores: at_once, .. }) = self.work;
        at_once as f64 / self.takes.mean().as_secs_f64()
    }
}

pub struct Replica {
    shared: Arc<Shared>,
    serving: JoinHandle<()>,
}

struct Shared {
    plan: Plan,
    next: Option<Client>,
    workplace: Workplace,
    fault: watch::Sender<Fault>,
    seen: Mutex<Seen>,
    flooded: AtomicU64,
}

enum Workplace {
    Station(Station),
    Processor(Processor),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Arrival {
    pub at: Instant,
    /// Which of the driver's requests it belongs to.
    pub number: Option<usize>,
    /// The work that it is, by the mean.
    pub work: f64,
}

struct Seen {
    arrivals: Vec<Arrival>,
    random: fastrand::Rng,
}

impl Backends {
    /// The thread keeps the core of whoever starts it.
    pub fn start() -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let handle = runtime.handle().clone();
        std::thread::Builder::new()
            .name("backends".into())
            .spawn(move || runtime.block_on(std::future::pending::<()>()))?;
        Ok(Self { runtime: handle })
    }

    /// `next`: what its work is a part of, and which is called when its own is done.
    pub fn replica(
        &self,
        address: SocketAddr,
        plan: Plan,
        next: Option<Way>,
        seed: u64,
    ) -> io::Result<Replica> {
        let _within = self.runtime.enter();
        let shared = Arc::new(Shared {
            plan,
            next: next.map(Client::new),
            workplace: match plan.work {
                Work::Places(places) => Workplace::Station(Station::new(places)),
                Work::Cores {
                    cores,
                    thrashes_above,
                } => Workplace::Processor(Processor::new(cores as f64, thrashes_above)),
            },
            fault: watch::Sender::new(Fault::None),
            seen: Mutex::new(Seen {
                arrivals: Vec::new(),
                random: fastrand::Rng::with_seed(seed),
            }),
            flooded: AtomicU64::new(0),
        });
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        SockRef::from(&listener).set_send_buffer_size(KERNEL_BUFFER)?;
        let listener = TcpListener::from_std(listener)?;
        let serving = self.runtime.spawn(serve(listener, shared.clone()));
        Ok(Replica { shared, serving })
    }
}

impl Replica {
    pub fn set(&self, fault: Fault) {
        let left = match fault {
            Fault::Cut(share) => share,
            _ => 1.0,
        };
        match (&self.shared.workplace, self.shared.plan.work) {
            (Workplace::Processor(processor), Work::Cores { cores, .. }) => {
                processor.set_cores(cores as f64 * left);
            }
            (Workplace::Station(station), _) => station.set_pace(left),
            (Workplace::Processor(_), Work::Places(_)) => {}
        }
        self.shared.fault.send_replace(fault);
    }

    /// Requests that came, in order.
    pub fn arrivals(&self) -> Vec<Arrival> {
        self.shared.seen().arrivals.clone()
    }
}

impl Replica {
    /// Bytes of endless answers that went out, or wait to in a buffer of the app's.
    pub fn flooded(&self) -> u64 {
        self.shared.flooded.load(Ordering::Relaxed)
    }
}

/// As much as is taken.
struct Flood(Arc<Shared>);

impl Body for Flood {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let bytes = FLOOD_CHUNK.len() as u64;
        self.0.flooded.fetch_add(bytes, Ordering::Relaxed);
        Poll::Ready(Some(Ok(Frame::data(FLOOD_CHUNK))))
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    // All end with this task.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(connection(stream, shared.clone()));
                }
                // Out of descriptors, or gone before it was taken.
                Err(_) => sleep(Duration::from_millis(5)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connection(stream: TcpStream, shared: Arc<Shared>) {
    // A peer that is gone is noticed when writing.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| {
        let shared = shared.clone();
        async move { Ok::<_, Infallible>(answer(shared, request).await) }
    });
    // How a connection ends is the proxy's choice, and part of what callers get.
    let _ = http1::Builder::new()
        .max_buf_size(KERNEL_BUFFER)
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

async fn answer(shared: Arc<Shared>, request: Request<Incoming>) -> Response<Answer> {
    if request.uri().path() == FLOOD {
        let mut response = Response::new(Either::Right(Flood(shared)));
        let stream = HeaderValue::from_static("text/event-stream");
        response.headers_mut().insert(CONTENT_TYPE, stream);
        return response;
    }
    let arrived = Instant::now();
    let traceparent = request.headers().get("traceparent").cloned();
    let is_check = matches!(request.uri().path(), HEALTH | PING);
    let (random, chance) = shared.chance();
    let mut takes = shared.plan.takes.draw(random);
    if !is_check {
        shared.note(Arrival {
            at: arrived,
            number: traceparent.as_ref().and_then(number_of),
            work: takes.div_duration_f64(shared.plan.takes.mean()),
        });
    }
    let mut fault = shared.fault.subscribe();
    let now = *fault.borrow_and_update();
    match now {
        Fault::None | Fault::Cut(_) => {}
        Fault::Silent => {
            // The sender lives as long as this task does.
            let _ = fault.wait_for(|fault| *fault != Fault::Silent).await;
        }
        Fault::Fails(share) if chance < share => {
            sleep(FAILS_AFTER).await;
            return respond(StatusCode::SERVICE_UNAVAILABLE);
        }
        Fault::Fails(_) => {}
        Fault::Slow(times) => takes = takes.mul_f64(times),
        Fault::Stalls(share, time) if chance < share => takes += time,
        Fault::Stalls(..) => {}
    }
    if is_check {
        return respond(StatusCode::OK);
    }
    let question = traceparent.map(|traceparent| Question {
        method: request.method().clone(),
        path: "/work",
        traceparent,
    });
    let abandoned = shared.plan.abandoned;
    let work = async move {
        shared.work(arrived, takes).await;
        shared.call_next(question).await
    };
    respond(match abandoned {
        Abandoned::Stops => work.await,
        Abandoned::GoesOn => tokio::spawn(work).await.expect("work does not panic"),
    })
}

fn respond(status: StatusCode) -> Response<Answer> {
    let mut response = Response::new(Either::Left(Full::new(Bytes::from_static(b"done"))));
    *response.status_mut() = status;
    response
}

impl Shared {
    async fn work(&self, arrived: Instant, takes: Duration) {
        match &self.workplace {
            Workplace::Station(station) => station.work(arrived, takes).await,
            Workplace::Processor(processor) => processor.work(takes).await,
        }
    }

    /// An app answers what it was answered.
    async fn call_next(&self, question: Option<Question>) -> StatusCode {
        let (Some(next), Some(question)) = (&self.next, question) else {
            return StatusCode::OK;
        };
        let status = next.ask(question).await;
        let status = status.and_then(|status| StatusCode::from_u16(status).ok());
        status.unwrap_or(StatusCode::BAD_GATEWAY)
    }

    fn note(&self, arrival: Arrival) {
        self.seen().arrivals.push(arrival);
    }

    /// Two numbers from 0 to below 1.
    fn chance(&self) -> (f64, f64) {
        let random = &mut self.seen().random;
        (random.f64(), random.f64())
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
