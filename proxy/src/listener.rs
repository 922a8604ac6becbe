//! Accepting: one thread a worker, each with a runtime of its own.
//!
//! A connection lives and dies on the worker that it was given to, and so do the upstream connections used for it: no
//! locks and no wake-ups across threads while it is served. The first worker accepts and gives each connection to
//! the least busy.

mod places;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use crate::connection::{self, Proxy};
use crate::drain::Drain;
use crate::memory::{self, Stock};
use crate::telemetry::{self, Direction};
use places::{Place, Places};

/// Of both directions together, in the whole process.
const CONNECTIONS_MAX: usize = 10_000;
/// From outside.
const INBOUND_MAX: usize = CONNECTIONS_MAX / 4 * 3;
/// From one address outside (resilience.md section 9): a sidecar that calls shares its few connections among all calls.
const ONE_ADDRESS_MAX: usize = 1_000;
/// After an accept that failed for want of something (EMFILE, ENOBUFS): it will not be there at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// tokio wakes a runtime by a system call, and the runtime itself by another, whenever a timer is made that ends before
/// all others. With one that always ends sooner, a request's deadline costs neither.
const HEARTBEAT: Duration = Duration::from_millis(100);

/// A connection on its way to its worker.
struct Handover {
    stream: std::net::TcpStream,
    direction: Direction,
    drain: Drain,
    place: Place,
}

pub struct Workers {
    inboxes: Vec<mpsc::UnboundedSender<Handover>>,
    places: Arc<Places>,
    /// By worker.
    open: Arc<Vec<AtomicUsize>>,
}

impl Workers {
    /// Starts the threads. They end with the process: what they serve has ended by then, or has had its time.
    pub fn start(count: usize, proxy: &Arc<Proxy>) -> std::io::Result<Self> {
        let open: Arc<Vec<AtomicUsize>> =
            Arc::new((0..count).map(|_| AtomicUsize::new(0)).collect());
        let mut inboxes = Vec::with_capacity(count);
        for worker in 0..count {
            // Bounded by CONNECTIONS_MAX: what waits here counts as open.
            let (inbox, receiver) = mpsc::unbounded_channel();
            inboxes.push(inbox);
            let (proxy, open) = (proxy.clone(), open.clone());
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            std::thread::Builder::new()
                .name(format!("worker-{worker}"))
                .spawn(move || {
                    runtime.block_on(async {
                        tokio::spawn(heartbeat());
                        work(worker, receiver, proxy, open).await;
                    });
                })?;
        }
        Ok(Self {
            inboxes,
            places: Places::new(CONNECTIONS_MAX, INBOUND_MAX, ONE_ADDRESS_MAX),
            open,
        })
    }

    /// Accepts until told to stop.
    pub async fn accept(
        &self,
        listener: std::net::TcpListener,
        direction: Direction,
        drain: Drain,
    ) {
        let listener = match TcpListener::from_std(listener) {
            Ok(listener) => listener,
            Err(error) => {
                tracing::error!(%error, "a listening socket cannot be used");
                return;
            }
        };
        loop {
            let (stream, from) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, direction = direction.as_str(), "accepting failed");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            self.give(stream, from.ip(), direction, &drain);
        }
    }

    fn give(&self, stream: TcpStream, from: IpAddr, direction: Direction, drain: &Drain) {
        let Some(place) = self.places.take(direction, from) else {
            telemetry::rejected_connection(direction, "too-many-connections");
            return;
        };
        if !memory::SIDECAR.has_room_beside(self.places.open() - 1) {
            telemetry::rejected_connection(direction, "out-of-memory");
            return;
        }
        let load = |worker: usize| self.open[worker].load(Ordering::Relaxed);
        let worker = (0..self.open.len())
            .min_by_key(|worker| load(*worker))
            .expect("there is a worker");
        let Ok(stream) = stream.into_std() else {
            return;
        };
        self.open[worker].fetch_add(1, Ordering::Relaxed);
        let handover = Handover {
            stream,
            direction,
            drain: drain.clone(),
            place,
        };
        // A worker ends only with the process.
        let _ = self.inboxes[worker].send(handover);
    }
}

async fn heartbeat() {
    let mut interval = tokio::time::interval(HEARTBEAT);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut stock = Stock::default();
    loop {
        interval.tick().await;
        stock.tick();
    }
}

async fn work(
    worker: usize,
    mut inbox: mpsc::UnboundedReceiver<Handover>,
    proxy: Arc<Proxy>,
    open: Arc<Vec<AtomicUsize>>,
) {
    while let Some(Handover {
        stream,
        direction,
        drain,
        place,
    }) = inbox.recv().await
    {
        let open = Open::new(direction, worker, open.clone(), place);
        let Ok(stream) = TcpStream::from_std(stream) else {
            continue;
        };
        let proxy = proxy.clone();
        // Two kinds of tasks: in one, whoever calls would have the room that being called takes, which is three times as much.
        match direction {
            Direction::Outbound => spawn(connection::outbound(stream, worker, proxy, drain), open),
            Direction::Inbound => spawn(connection::inbound(stream, worker, proxy, drain), open),
        }
    }
}

fn spawn(serving: impl Future<Output = ()> + Send + 'static, open: Open) {
    // A bug ends one connection, and `open` with it, and never the process.
    tokio::spawn(serving.map(move |()| drop(open)));
}

/// A connection that a worker has, counted for as long.
struct Open {
    direction: Direction,
    worker: usize,
    all: Arc<Vec<AtomicUsize>>,
    _place: Place,
}

impl Open {
    /// Whoever hands it over has counted it among `all`.
    fn new(direction: Direction, worker: usize, all: Arc<Vec<AtomicUsize>>, place: Place) -> Self {
        telemetry::open_connections(direction).inc();
        Self {
            direction,
            worker,
            all,
            _place: place,
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        telemetry::open_connections(self.direction).dec();
        self.all[self.worker].fetch_sub(1, Ordering::Relaxed);
    }
}

/// The listening sockets of one direction: both families, where both are there.
pub fn bind(address: SocketAddr) -> std::io::Result<Vec<std::net::TcpListener>> {
    let mut listeners = Vec::new();
    let other = crate::socket::other_family(address);
    match other {
        // The IPv6 wildcard takes IPv4, too.
        Some(wildcard) if wildcard.ip().is_unspecified() => match crate::socket::listen(wildcard) {
            Ok(both) => listeners.push(both),
            Err(_) => listeners.push(crate::socket::listen(address)?),
        },
        Some(other) => {
            listeners.push(crate::socket::listen(address)?);
            // A machine without IPv6 has nothing to redirect there either.
            listeners.extend(crate::socket::listen(other).ok());
        }
        None => listeners.push(crate::socket::listen(address)?),
    }
    Ok(listeners)
}
