//! The load and the backend: one thread, one epoll, no allocation a request. It must cost less than what it measures.
//!
//! ```text
//!   client ──▶ (proxies under test, on the other core) ──▶ server
//!     ▲                                                       │
//!     └──────────────── this loop serves both ends ◀──────────┘
//! ```
//!
//! Open loop: requests have a time at which they are *meant* to be sent, and latency counts from then, so a proxy that
//! stalls is charged for everybody who would have come meanwhile. Closed loop: each answer causes the next request.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hdrhistogram::Histogram;
use rustix::event::{Timespec, epoll};
use rustix::net::RecvFlags;
use socket2::SockRef;
use tokio::time::Instant;

use crate::http1;
use crate::http2::Http2;
use crate::shape::{SMALL, Shape, Wire};

const READ_BYTES: usize = 256 * 1024;
/// So much is written at once where as much as possible is.
const BULK_BYTES: usize = 128 * 1024;
const EVENTS: usize = 256;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// A timer wakes late; the last bit is waited for with open eyes.
const SPIN: Duration = Duration::from_micros(80);
/// How long what was asked in time may take to be answered after the end.
const PATIENCE: Duration = Duration::from_secs(2);
const LATENCY_MAX_NS: u64 = 60_000_000_000;

#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    #[error("interrupted")]
    Interrupted,
    #[error("{0}: {1}")]
    Io(String, #[source] io::Error),
    #[error("{0}")]
    Failed(String),
}

/// The other end said something that ends the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault(pub &'static str);

/// One request is over.
#[derive(Clone, Copy, Debug)]
pub struct Done {
    pub intended: Instant,
    pub fine: bool,
}

#[derive(Clone, Copy, Debug)]
pub enum Pace {
    /// So many at once on each connection, always.
    Closed { at_once: usize },
    /// So many a second, at moments that are fixed in advance.
    Open { per_second: f64 },
    /// This many in all, one after the other.
    Count { requests: u64 },
}

#[derive(Clone, Debug)]
pub struct Plan {
    pub shape: Shape,
    pub target: SocketAddr,
    pub connections: usize,
    pub pace: Pace,
    pub warm_up: Duration,
    pub time: Duration,
    /// Of the moments at which requests are sent: every subject gets the same.
    pub seed: u64,
}

#[derive(Debug)]
pub struct Observed {
    pub completed: u64,
    pub failed: u64,
    pub bytes: u64,
    pub elapsed: Duration,
    /// CPU of the proxies during `elapsed`.
    pub cpu: Duration,
    pub latency: Histogram<u64>,
    pub fault: Option<&'static str>,
}

pub struct Engine {
    poll: OwnedFd,
    places: Vec<Option<Place>>,
    free: Vec<usize>,
    scratch: Box<[u8]>,
    shape: Shape,
    interrupted: Arc<AtomicBool>,
    /// Bytes that bulk receivers have taken.
    sunk: u64,
    done: Vec<(usize, Done)>,
    lost: Vec<(usize, usize, Fault)>,
}

enum Place {
    Listener(TcpListener, Wire),
    Connection(Box<Connection>),
}

struct Connection {
    stream: TcpStream,
    speaker: Speaker,
    outbox: Vec<u8>,
    /// Of the outbox, already written.
    written: usize,
    wants_write: bool,
}

enum Speaker {
    Http1Client(http1::Client),
    Http1Server(http1::Server),
    Http2Client(Http2),
    Http2Server(Http2),
    TcpClient {
        asked: Option<Instant>,
        received: usize,
    },
    Echo,
    Source,
}

impl Engine {
    /// Serves every wire on its port of every address.
    pub fn new(interrupted: Arc<AtomicBool>) -> Result<Self, Trouble> {
        let poll = epoll::create(epoll::CreateFlags::CLOEXEC)
            .map_err(|error| Trouble::Io("epoll".into(), error.into()))?;
        let mut engine = Self {
            poll,
            places: Vec::new(),
            free: Vec::new(),
            scratch: vec![0; READ_BYTES].into(),
            shape: Shape::Http1,
            interrupted,
            sunk: 0,
            done: Vec::new(),
            lost: Vec::new(),
        };
        for wire in Wire::ALL {
            let address = SocketAddr::from(([0, 0, 0, 0], wire.port()));
            let listener = listen(address)
                .map_err(|error| Trouble::Io(format!("the backend on {address}"), error))?;
            engine
                .occupy(Place::Listener(listener, wire))
                .map_err(|error| Trouble::Io("epoll".into(), error))?;
        }
        Ok(engine)
    }

    /// Puts load on `plan.target` and tells what came of it. `cpu` reads the clock of the proxies.
    pub fn run(&mut self, plan: &Plan, cpu: &dyn Fn() -> Duration) -> Result<Observed, Trouble> {
        self.shape = plan.shape;
        let clients = self.open_clients(plan)?;
        let mut run = Run::new(plan, clients);
        let result = run.drive(self, cpu);
        for client in run.clients {
            self.vacate(client);
        }
        result.map(|()| run.observed)
    }

    /// Opens connections that have been used once and then are not.
    pub fn hold(
        &mut self,
        shape: Shape,
        target: SocketAddr,
        connections: usize,
    ) -> Result<Held, Trouble> {
        self.shape = shape;
        let held = Held(self.open_many(shape, target, connections)?);
        for client in &held.0 {
            self.ask(*client, Instant::now());
        }
        let mut waiting = connections;
        let deadline = Instant::now() + PATIENCE + PATIENCE;
        while waiting > 0 && Instant::now() < deadline {
            self.turn(Duration::from_millis(10))?;
            waiting = waiting.saturating_sub(self.done.len());
            self.done.clear();
            if let Some((_, _, fault)) = self.lost.pop() {
                return Err(Trouble::Failed(format!(
                    "an idle connection was closed: {}",
                    fault.0
                )));
            }
        }
        if waiting > 0 {
            return Err(Trouble::Failed(format!(
                "{waiting} of {connections} idle connections got no answer"
            )));
        }
        Ok(held)
    }

    pub fn release(&mut self, held: Held) {
        for client in held.0 {
            self.vacate(client);
        }
    }

    /// Serves the backend and nothing else for a while.
    pub fn idle(&mut self, time: Duration) -> Result<(), Trouble> {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.turn(Duration::from_millis(5))?;
        }
        Ok(())
    }

    fn open_clients(&mut self, plan: &Plan) -> Result<Vec<usize>, Trouble> {
        self.done.clear();
        self.lost.clear();
        self.open_many(plan.shape, plan.target, plan.connections)
    }

    fn open_many(
        &mut self,
        shape: Shape,
        target: SocketAddr,
        count: usize,
    ) -> Result<Vec<usize>, Trouble> {
        (0..count)
            .map(|_| {
                self.open(shape, target)
                    .map_err(|error| Trouble::Io(format!("connecting to {target}"), error))
            })
            .collect()
    }

    fn open(&mut self, shape: Shape, target: SocketAddr) -> io::Result<usize> {
        let stream = TcpStream::connect_timeout(&target, CONNECT_TIMEOUT)?;
        // A client that goes leaves nothing behind that would use up the ports.
        SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
        let mut outbox = Vec::new();
        let speaker = match shape.wire() {
            Wire::Http1 => Speaker::Http1Client(http1::Client::default()),
            Wire::Http2 => Speaker::Http2Client(Http2::client(shape, &mut outbox)),
            Wire::Tcp if shape == Shape::TcpBulk => Speaker::Source,
            Wire::Tcp => Speaker::TcpClient {
                asked: None,
                received: 0,
            },
        };
        self.settle(stream, speaker, outbox)
    }

    fn settle(
        &mut self,
        stream: TcpStream,
        speaker: Speaker,
        outbox: Vec<u8>,
    ) -> io::Result<usize> {
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let connection = Connection {
            stream,
            speaker,
            outbox,
            written: 0,
            wants_write: false,
        };
        let place = self.occupy(Place::Connection(Box::new(connection)))?;
        self.flush(place);
        Ok(place)
    }

    fn occupy(&mut self, occupant: Place) -> io::Result<usize> {
        let place = self.free.pop().unwrap_or(self.places.len());
        let data = epoll::EventData::new_u64(place as u64);
        match &occupant {
            Place::Listener(listener, _) => {
                epoll::add(&self.poll, listener, data, epoll::EventFlags::IN)?
            }
            Place::Connection(connection) => {
                epoll::add(&self.poll, &connection.stream, data, epoll::EventFlags::IN)?;
            }
        }
        if place == self.places.len() {
            self.places.push(None);
        }
        self.places[place] = Some(occupant);
        Ok(place)
    }

    fn vacate(&mut self, place: usize) {
        // Closing takes it out of epoll.
        if self.places[place].take().is_some() {
            self.free.push(place);
        }
    }

    /// Sends a request; a connection that is gone has been reported.
    fn ask(&mut self, place: usize, intended: Instant) {
        let Some(Place::Connection(connection)) = &mut self.places[place] else {
            return;
        };
        match &mut connection.speaker {
            Speaker::Http1Client(client) => client.ask(intended, &mut connection.outbox),
            Speaker::Http2Client(client) => client.ask(intended, &mut connection.outbox),
            Speaker::TcpClient { asked, .. } => {
                *asked = Some(intended);
                connection.outbox.extend_from_slice(&[b'x'; SMALL]);
            }
            Speaker::Source => connection.outbox.resize(BULK_BYTES, b'x'),
            Speaker::Http1Server(_) | Speaker::Http2Server(_) | Speaker::Echo => {}
        }
        self.flush(place);
    }

    fn outstanding(&self, place: usize) -> usize {
        match &self.places[place] {
            Some(Place::Connection(connection)) => connection.outstanding(),
            _ => 0,
        }
    }

    /// Waits at most `timeout` for something to happen, and lets it.
    fn turn(&mut self, timeout: Duration) -> Result<(), Trouble> {
        if self.interrupted.load(Ordering::Relaxed) {
            return Err(Trouble::Interrupted);
        }
        let timeout = Timespec {
            tv_sec: timeout.as_secs().try_into().unwrap_or(1),
            tv_nsec: timeout.subsec_nanos().into(),
        };
        let mut events = Vec::with_capacity(EVENTS);
        match epoll::wait(
            &self.poll,
            rustix::buffer::spare_capacity(&mut events),
            Some(&timeout),
        ) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(Trouble::Io("epoll".into(), error.into())),
        }
        for event in events {
            let place = usize::try_from(event.data.u64()).expect("it was one");
            let flags = event.flags;
            if flags.contains(epoll::EventFlags::OUT) {
                self.flush(place);
            }
            if flags
                .intersects(epoll::EventFlags::IN | epoll::EventFlags::HUP | epoll::EventFlags::ERR)
            {
                self.readable(place);
            }
        }
        Ok(())
    }

    fn readable(&mut self, place: usize) {
        match &mut self.places[place] {
            Some(Place::Listener(listener, wire)) => {
                let wire = *wire;
                // Level-triggered: the next comes in its turn.
                if let Ok((stream, _)) = listener.accept() {
                    let mut outbox = Vec::new();
                    let speaker = match wire {
                        Wire::Http1 => Speaker::Http1Server(http1::Server::default()),
                        Wire::Http2 => Speaker::Http2Server(Http2::server(self.shape, &mut outbox)),
                        Wire::Tcp => Speaker::Echo,
                    };
                    // It may be gone already.
                    let _ = self.settle(stream, speaker, outbox);
                }
            }
            Some(Place::Connection(connection)) => {
                let before = connection.outstanding();
                let mut done = Vec::new();
                match connection.read(self.shape, &mut self.scratch, &mut done, &mut self.sunk) {
                    Ok(()) => {
                        self.done.extend(done.into_iter().map(|done| (place, done)));
                        self.flush(place);
                    }
                    Err(fault) => self.lose(place, before, fault),
                }
            }
            None => {}
        }
    }

    fn lose(&mut self, place: usize, outstanding: usize, fault: Fault) {
        if let Some(Place::Connection(connection)) = &self.places[place]
            && connection.speaker.is_client()
        {
            self.lost.push((place, outstanding, fault));
        }
        self.vacate(place);
    }

    fn flush(&mut self, place: usize) {
        let Some(Place::Connection(connection)) = &mut self.places[place] else {
            return;
        };
        let outcome = connection.flush();
        let wants_write = connection.written < connection.outbox.len();
        if outcome.is_err() {
            let outstanding = connection.outstanding();
            self.lose(place, outstanding, Fault("writing failed"));
        } else if wants_write != connection.wants_write {
            connection.wants_write = wants_write;
            let mut flags = epoll::EventFlags::IN;
            flags.set(epoll::EventFlags::OUT, wants_write);
            let data = epoll::EventData::new_u64(place as u64);
            let modified = epoll::modify(&self.poll, &connection.stream, data, flags);
            modified.expect("it is in this epoll");
        }
    }
}

/// Connections that are open and idle.
#[must_use = "they stay open until they are released"]
pub struct Held(Vec<usize>);

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(4096)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

impl Speaker {
    fn is_client(&self) -> bool {
        matches!(
            self,
            Self::Http1Client(_) | Self::Http2Client(_) | Self::TcpClient { .. } | Self::Source
        )
    }
}

impl Connection {
    fn outstanding(&self) -> usize {
        match &self.speaker {
            Speaker::Http1Client(client) => client.outstanding(),
            Speaker::Http2Client(client) => client.outstanding(),
            Speaker::TcpClient { asked, .. } => usize::from(asked.is_some()),
            _ => 0,
        }
    }

    fn read(
        &mut self,
        shape: Shape,
        scratch: &mut [u8],
        done: &mut Vec<Done>,
        sunk: &mut u64,
    ) -> Result<(), Fault> {
        if matches!(self.speaker, Speaker::Echo) && shape == Shape::TcpBulk {
            return self.discard(scratch, sunk);
        }
        let length = match self.stream.read(scratch) {
            Ok(0) => return Err(Fault("closed by the other end")),
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(_) => return Err(Fault("reset by the other end")),
        };
        let bytes = &scratch[..length];
        match &mut self.speaker {
            Speaker::Http1Client(client) => client.take(bytes, done),
            Speaker::Http1Server(server) => server.take(bytes, &mut self.outbox),
            Speaker::Http2Client(client) => client.take(bytes, &mut self.outbox, done),
            Speaker::Http2Server(server) => {
                server.become_shape(shape);
                server.take(bytes, &mut self.outbox, done)
            }
            Speaker::Echo => {
                self.outbox.extend_from_slice(bytes);
                Ok(())
            }
            Speaker::TcpClient { asked, received } => {
                *received += length;
                if *received >= SMALL {
                    *received -= SMALL;
                    let intended = asked.take().ok_or(Fault("an answer to nothing"))?;
                    done.push(Done {
                        intended,
                        fine: true,
                    });
                }
                Ok(())
            }
            Speaker::Source => Ok(()),
        }
    }

    /// Takes bytes without having them copied: the receiver must not be what limits the throughput.
    fn discard(&mut self, scratch: &mut [u8], sunk: &mut u64) -> Result<(), Fault> {
        match rustix::net::recv(&self.stream, scratch, RecvFlags::TRUNC) {
            Ok((_, 0)) => Err(Fault("closed by the other end")),
            Ok((_, length)) => {
                *sunk += length as u64;
                Ok(())
            }
            Err(rustix::io::Errno::AGAIN) => Ok(()),
            Err(_) => Err(Fault("reset by the other end")),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        while self.written < self.outbox.len() {
            match self.stream.write(&self.outbox[self.written..]) {
                Ok(length) => self.written += length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
            if matches!(self.speaker, Speaker::Source) {
                // There is always more; others get their turn first.
                self.written = 0;
                return Ok(());
            }
        }
        self.outbox.clear();
        self.written = 0;
        Ok(())
    }
}

/// One measurement while it runs.
struct Run<'a> {
    plan: &'a Plan,
    clients: Vec<usize>,
    observed: Observed,
    random: fastrand::Rng,
    /// Requests that are due and have no free connection.
    waiting: std::collections::VecDeque<Instant>,
    next_client: usize,
    left: u64,
}

impl<'a> Run<'a> {
    fn new(plan: &'a Plan, clients: Vec<usize>) -> Self {
        let latency = Histogram::new_with_bounds(100, LATENCY_MAX_NS, 3).expect("constants");
        Self {
            plan,
            clients,
            observed: Observed {
                completed: 0,
                failed: 0,
                bytes: 0,
                elapsed: Duration::ZERO,
                cpu: Duration::ZERO,
                latency,
                fault: None,
            },
            random: fastrand::Rng::with_seed(plan.seed),
            waiting: std::collections::VecDeque::new(),
            next_client: 0,
            left: match plan.pace {
                Pace::Count { requests } => requests,
                _ => u64::MAX,
            },
        }
    }

    fn drive(&mut self, engine: &mut Engine, cpu: &dyn Fn() -> Duration) -> Result<(), Trouble> {
        let start = Instant::now();
        let end_of_warm_up = start + self.plan.warm_up;
        self.begin(engine);
        let mut next = start + self.interval();
        self.until(engine, end_of_warm_up, end_of_warm_up, &mut next)?;
        let begin = Instant::now();
        let (cpu_before, sunk_before) = (cpu(), engine.sunk);
        let end = begin + self.plan.time;
        self.observed.completed = 0;
        self.observed.latency.reset();
        self.until(engine, end, begin, &mut next)?;
        self.observed.elapsed = begin.elapsed();
        self.observed.cpu = cpu().saturating_sub(cpu_before);
        self.observed.bytes = engine.sunk - sunk_before;
        if matches!(self.plan.pace, Pace::Open { .. }) {
            self.finish(engine, begin)?;
        }
        Ok(())
    }

    fn begin(&mut self, engine: &mut Engine) {
        let at_once = match self.plan.pace {
            Pace::Closed { at_once } => at_once,
            Pace::Open { .. } => 0,
            Pace::Count { .. } => 1,
        };
        for client in self.clients.clone() {
            for _ in 0..at_once {
                self.left -= 1;
                engine.ask(client, Instant::now());
            }
        }
    }

    /// Time to the next request of an open loop: exponential, as from many callers who do not know of each other.
    fn interval(&mut self) -> Duration {
        match self.plan.pace {
            Pace::Open { per_second } => {
                Duration::from_secs_f64(-(1.0 - self.random.f64()).ln() / per_second)
            }
            _ => Duration::from_secs(3600),
        }
    }

    fn until(
        &mut self,
        engine: &mut Engine,
        end: Instant,
        counted_from: Instant,
        next: &mut Instant,
    ) -> Result<(), Trouble> {
        loop {
            let now = Instant::now();
            if now >= end || self.is_over(engine) {
                return Ok(());
            }
            while *next <= now {
                self.waiting.push_back(*next);
                *next += self.interval();
            }
            self.send_waiting(engine);
            let pause = end.min(*next).saturating_duration_since(Instant::now());
            engine.turn(pause.saturating_sub(SPIN))?;
            self.collect(engine, counted_from)?;
        }
    }

    /// All of a counted run have been sent and answered.
    fn is_over(&self, engine: &Engine) -> bool {
        self.left == 0
            && self
                .clients
                .iter()
                .all(|client| engine.outstanding(*client) == 0)
    }

    fn send_waiting(&mut self, engine: &mut Engine) {
        // HTTP/2 takes many at once; the others one a connection.
        let room = if self.plan.shape.wire() == Wire::Http2 {
            100
        } else {
            1
        };
        while let Some(intended) = self.waiting.front().copied() {
            let count = self.clients.len();
            let free = (0..count)
                .map(|step| (self.next_client + step) % count)
                .find(|client| engine.outstanding(self.clients[*client]) < room);
            let Some(free) = free else {
                return;
            };
            self.waiting.pop_front();
            self.next_client = free + 1;
            engine.ask(self.clients[free], intended);
        }
    }

    fn collect(&mut self, engine: &mut Engine, counted_from: Instant) -> Result<(), Trouble> {
        let mut done = std::mem::take(&mut engine.done);
        let now = Instant::now();
        for (place, done) in done.drain(..) {
            if done.fine {
                self.observed.completed += 1;
                if done.intended >= counted_from {
                    let nanoseconds = now.saturating_duration_since(done.intended).as_nanos();
                    let nanoseconds = u64::try_from(nanoseconds).unwrap_or(u64::MAX);
                    self.observed.latency.saturating_record(nanoseconds);
                }
            } else {
                self.observed.failed += 1;
                self.observed.fault.get_or_insert("a wrong answer");
            }
            self.again(engine, place)?;
        }
        engine.done = done;
        while let Some((place, outstanding, fault)) = engine.lost.pop() {
            self.observed.failed += outstanding.max(1) as u64;
            self.observed.fault.get_or_insert(fault.0);
            self.replace(engine, place)?;
        }
        Ok(())
    }

    /// A closed loop goes on with the next.
    fn again(&mut self, engine: &mut Engine, place: usize) -> Result<(), Trouble> {
        if matches!(self.plan.pace, Pace::Open { .. }) || self.left == 0 {
            return Ok(());
        }
        self.left -= 1;
        if self.plan.shape == Shape::TcpConnect {
            engine.vacate(place);
            return self.replace(engine, place);
        }
        engine.ask(place, Instant::now());
        Ok(())
    }

    fn replace(&mut self, engine: &mut Engine, place: usize) -> Result<(), Trouble> {
        /// A proxy that closes every connection is not measured for ever.
        const FAILURES_MAX: u64 = 10_000;
        if self.observed.failed > FAILURES_MAX {
            let fault = self.observed.fault.unwrap_or_default();
            return Err(Trouble::Failed(format!(
                "too many failures; the first: {fault}"
            )));
        }
        let Some(client) = self.clients.iter_mut().find(|client| **client == place) else {
            return Ok(());
        };
        let target = self.plan.target;
        let opened = engine.open(self.plan.shape, target);
        *client = opened.map_err(|error| Trouble::Io(format!("connecting to {target}"), error))?;
        if let Pace::Closed { at_once } = self.plan.pace {
            let client = *client;
            for _ in 0..at_once {
                engine.ask(client, Instant::now());
            }
        }
        Ok(())
    }

    /// Waits for the answers to what was sent in time.
    fn finish(&mut self, engine: &mut Engine, counted_from: Instant) -> Result<(), Trouble> {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            self.send_waiting(engine);
            if self.waiting.is_empty()
                && self
                    .clients
                    .iter()
                    .all(|client| engine.outstanding(*client) == 0)
            {
                return Ok(());
            }
            engine.turn(Duration::from_millis(1))?;
            self.collect(engine, counted_from)?;
        }
        let unanswered = self.waiting.len()
            + self
                .clients
                .iter()
                .map(|client| engine.outstanding(*client))
                .sum::<usize>();
        self.observed.failed += unanswered as u64;
        self.observed.fault.get_or_insert("no answer in time");
        Ok(())
    }
}
