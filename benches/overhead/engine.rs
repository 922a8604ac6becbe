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

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::event::{Timespec, epoll};
use socket2::SockRef;
use tokio::time::Instant;

use crate::connection::{Connection, Done, Fault};
use crate::process;
use crate::shape::{Shape, Wire};

const READ_BYTES: usize = 256 * 1024;
const EVENTS: usize = 256;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Of connections that are opened to be idle.
const HELD_AT_ONCE: usize = 20;
/// For the first answers on connections that are then left alone, and for a process to go to sleep.
const PATIENCE: Duration = Duration::from_secs(4);

#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    #[error("interrupted")]
    Interrupted,
    #[error("{0}: {1}")]
    Io(String, #[source] io::Error),
    #[error("{0}")]
    Failed(String),
}

pub struct Engine {
    poll: OwnedFd,
    places: Vec<Option<Place>>,
    free: Vec<usize>,
    scratch: Box<[u8]>,
    shape: Shape,
    interrupted: Arc<AtomicBool>,
    /// Nothing is said to this one until it has gone to sleep over what it was told before.
    patient_with: Option<u32>,
    /// Bytes that bulk receivers have taken.
    pub sunk: u64,
    /// By connection; taken by who measures.
    pub done: Vec<(usize, Done)>,
    /// Connections that are gone, and how many requests with each.
    pub lost: Vec<(usize, usize, Fault)>,
}

enum Place {
    Listener(TcpListener, Wire),
    Connection(Box<Connection>),
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
            patient_with: None,
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

    /// Opens connections that are used once and then are not: a few at a time, so that no proxy gives up on a
    /// handshake that waits for a thousand others.
    pub fn hold(
        &mut self,
        shape: Shape,
        target: SocketAddr,
        connections: usize,
    ) -> Result<Held, Trouble> {
        self.begin(shape, target, 0)?;
        let mut held = Held(Vec::new());
        while held.0.len() < connections {
            let opened = self.open_many(shape, target, HELD_AT_ONCE)?;
            held.0.extend(&opened);
            self.use_once(&opened)?;
        }
        Ok(held)
    }

    fn use_once(&mut self, clients: &[usize]) -> Result<(), Trouble> {
        for client in clients {
            self.ask(*client, Instant::now());
        }
        let mut waiting = clients.len();
        let deadline = Instant::now() + PATIENCE;
        while waiting > 0 && Instant::now() < deadline {
            self.turn(Duration::from_millis(10))?;
            waiting = waiting.saturating_sub(self.done.len());
            self.done.clear();
            if let Some((_, _, fault)) = self.lost.pop() {
                let text = format!("an idle connection was closed: {}", fault.0);
                return Err(Trouble::Failed(text));
            }
        }
        match waiting {
            0 => Ok(()),
            _ => Err(Trouble::Failed(format!(
                "{waiting} idle connections got no answer"
            ))),
        }
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

    /// Opens the connections of a measurement; what others have left is forgotten.
    pub fn begin(
        &mut self,
        shape: Shape,
        target: SocketAddr,
        connections: usize,
    ) -> Result<Vec<usize>, Trouble> {
        self.shape = shape;
        self.done.clear();
        self.lost.clear();
        self.open_many(shape, target, connections)
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

    pub fn open(&mut self, shape: Shape, target: SocketAddr) -> io::Result<usize> {
        let stream = TcpStream::connect_timeout(&target, CONNECT_TIMEOUT)?;
        // A client that goes leaves nothing behind that would use up the ports.
        SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
        self.settle(Connection::client(stream, shape)?)
    }

    fn settle(&mut self, connection: Connection) -> io::Result<usize> {
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

    pub fn vacate(&mut self, place: usize) {
        // Closing takes it out of epoll.
        if self.places[place].take().is_some() {
            self.free.push(place);
        }
    }

    /// Sends a request; a connection that is gone has been reported.
    pub fn ask(&mut self, place: usize, intended: Instant) {
        let Some(Place::Connection(connection)) = &mut self.places[place] else {
            return;
        };
        connection.ask(intended);
        self.flush(place);
    }

    pub fn outstanding(&self, place: usize) -> usize {
        match &self.places[place] {
            Some(Place::Connection(connection)) => connection.outstanding(),
            _ => 0,
        }
    }

    /// From now on both ends speak only while this process sleeps. Whether its next read finds something or has to
    /// wait is then no matter of who is faster, which for a process that a profiler slows down would be chance.
    pub fn be_patient_with(&mut self, process: Option<u32>) {
        self.patient_with = process;
    }

    /// Waits at most `timeout` for something to happen, and lets it.
    pub fn turn(&mut self, timeout: Duration) -> Result<(), Trouble> {
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
        if let (Some(process), false) = (self.patient_with, events.is_empty()) {
            process::until_asleep(process, PATIENCE)
                .map_err(|error| Trouble::Io(format!("process {process}"), error))?;
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
                    // It may be gone already.
                    let _ = Connection::server(stream, wire, self.shape)
                        .and_then(|connection| self.settle(connection));
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
            && connection.is_client()
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
        let wants_write = connection.has_more();
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
