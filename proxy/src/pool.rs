//! The connections of one worker to one endpoint.
//!
//! HTTP/2 connections are shared by all requests of the worker; a further one is opened only when the others have as
//! many streams as the peer allows. HTTP/1.1 connections serve one request at a time and wait here in between; while any
//! do, a sweeper looks every two seconds for those that have closed or waited too long.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use hyper::client::conn::http1::{Builder, SendRequest as Upgrade};
use hyper_util::rt::TokioIo;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::body::Body;
use crate::connector::Connector;
use crate::error::{ConnectError, Error};
use crate::gather::Gather;
use crate::http1;
use crate::http2::{CONNECTION_WINDOW, HEADER_LIST_MAX, SEND_BUFFER, STREAM_WINDOW, silence};
use crate::identity::{SpiffeId, alpn};
use crate::socket;

/// More than this many connections to one endpoint would hide overload rather than carry it.
const HTTP2_CONNECTIONS_MAX: usize = 8;
const HTTP1_IDLE_MAX: usize = 100;
const HTTP1_IDLE_TIME: Duration = Duration::from_secs(60);
const SWEEP_INTERVAL: Duration = Duration::from_secs(2);
/// Requests in a row that were given up without an answer: the connection may lead nowhere. After a partition TCP sends
/// again only seconds after the network is whole, and whoever calls on a connection of its own is answered at once.
const UNANSWERED_MAX: usize = 3;
/// Not more often than this: where all that is asked comes too late, it is not the connection, and a handshake for each
/// three requests would be one more burden.
const RETIRE_EVERY: Duration = Duration::from_secs(1);
/// What a peer is assumed to allow until its SETTINGS have come (RFC 9113 section 6.5.2 recommends no less).
const INITIAL_STREAMS: usize = 100;

pub struct Pool {
    address: SocketAddr,
    identity: Option<SpiffeId>,
    connections: Arc<Mutex<Connections>>,
}

#[derive(Default)]
struct Connections {
    http2: Vec<Http2>,
    /// Whoever needs an HTTP/2 connection while one is being made waits for that one.
    connecting: Option<watch::Receiver<Option<ConnectError>>>,
    /// When a connection that may lead nowhere was left.
    retired: Option<Instant>,
    http1: VecDeque<(http1::Connection, Instant)>,
    is_swept: bool,
}

struct Http2 {
    sender: SendRequest<Bytes>,
    streams: Arc<Streams>,
}

struct Streams {
    open: AtomicUsize,
    allowed: AtomicUsize,
    /// Since the last answer.
    unanswered: AtomicUsize,
}

impl Streams {
    fn new(allowed: usize) -> Self {
        Self {
            open: AtomicUsize::new(0),
            allowed: AtomicUsize::new(allowed),
            unanswered: AtomicUsize::new(0),
        }
    }
}

/// A place on an HTTP/2 connection, given back on drop.
pub struct StreamSlot {
    streams: Arc<Streams>,
    answered: bool,
}

impl StreamSlot {
    /// The peer said something on it, good or bad.
    pub fn answered(&mut self) {
        self.answered = true;
        self.streams.unanswered.store(0, Ordering::Relaxed);
    }
}

impl Drop for StreamSlot {
    fn drop(&mut self) {
        self.streams.open.fetch_sub(1, Ordering::Relaxed);
        if !self.answered {
            self.streams.unanswered.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Pool {
    pub fn new(address: SocketAddr, identity: Option<SpiffeId>) -> Self {
        Self {
            address,
            identity,
            connections: Arc::default(),
        }
    }

    /// An HTTP/2 connection with room for a stream, made if there is none.
    pub async fn http2(
        &self,
        connector: &Connector,
    ) -> Result<(SendRequest<Bytes>, StreamSlot), Error> {
        loop {
            let mut connecting = {
                let mut connections = lock(&self.connections);
                if let Some(found) = connections.roomy() {
                    return Ok(found);
                }
                if connections.http2.len() >= HTTP2_CONNECTIONS_MAX {
                    return Err(Error::QueueFull {
                        service: self.address.to_string(),
                    });
                }
                match &connections.connecting {
                    Some(connecting) => connecting.clone(),
                    None => self.start_http2(&mut connections, connector),
                }
            };
            // An error here means that the maker is done: look again.
            if connecting.changed().await.is_ok()
                && let Some(error) = connecting.borrow().clone()
            {
                return Err(error.into());
            }
        }
    }

    /// This connection takes no more requests: it is going, or gone.
    pub fn discard(&self, slot: &StreamSlot) {
        lock(&self.connections).remove(&slot.streams);
    }

    /// No connection takes another request; each ends with those that are on it.
    pub fn forget(&self) {
        let mut connections = lock(&self.connections);
        connections.http2.clear();
        connections.http1.clear();
    }

    /// The connection is made by a task of its own: a caller that hangs up does not take it from those who wait too.
    fn start_http2(
        &self,
        connections: &mut Connections,
        connector: &Connector,
    ) -> watch::Receiver<Option<ConnectError>> {
        let (done, waiting) = watch::channel(None);
        connections.connecting = Some(waiting.clone());
        let (pool, connector) = (self.connections.clone(), connector.clone());
        let (address, identity) = (self.address, self.identity.clone());
        tokio::spawn(async move {
            let made = connect_http2(&connector, address, identity.as_ref()).await;
            lock(&pool).connecting = None;
            match made {
                Ok((sender, streams, connection)) => {
                    lock(&pool).http2.push(Http2 {
                        sender,
                        streams: streams.clone(),
                    });
                    drop(done);
                    connection.await;
                    lock(&pool).remove(&streams);
                }
                Err(error) => {
                    done.send_replace(Some(error));
                }
            }
        });
        waiting
    }

    /// An HTTP/1.1 connection on which no request is.
    pub async fn http1(&self, connector: &Connector) -> Result<http1::Connection, ConnectError> {
        if let Some(idle) = self.idle_http1() {
            return Ok(idle);
        }
        let stream = connector.plain(self.address).await?;
        socket::bound_answers(&stream).map_err(|error| ConnectError::Io {
            address: self.address,
            reason: error.to_string(),
        })?;
        Ok(http1::Connection::new(stream))
    }

    pub(crate) fn idle_http1(&self) -> Option<http1::Connection> {
        let mut connections = lock(&self.connections);
        while let Some((connection, since)) = connections.http1.pop_back() {
            if since.elapsed() < HTTP1_IDLE_TIME && connection.is_idle() {
                return Some(connection);
            }
        }
        None
    }

    #[cfg(test)]
    pub(crate) fn has_idle_http1(&self) -> bool {
        !lock(&self.connections).http1.is_empty()
    }

    /// A connection that leaves HTTP with its first request, and so is never pooled.
    pub async fn upgrade(&self, connector: &Connector) -> Result<Upgrade<Body>, Error> {
        let stream = connector
            .connect(self.address, self.identity.as_ref(), alpn::HTTP1)
            .await?;
        let (sender, connection) = Builder::new()
            .max_headers(100)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|source| Error::Refused {
                address: self.address,
                source: source.into(),
            })?;
        // Ends with the connection; what goes wrong on it reaches the request that is on it.
        tokio::spawn(connection.with_upgrades());
        Ok(sender)
    }

    /// Where an HTTP/1.1 connection goes when its response has been read to the end.
    pub fn home(&self) -> Home {
        Home(self.connections.clone())
    }
}

pub struct Home(Arc<Mutex<Connections>>);

impl Home {
    pub fn take_back(self, connection: http1::Connection) {
        let mut connections = lock(&self.0);
        if connections.http1.len() < HTTP1_IDLE_MAX {
            connections.http1.push_back((connection, Instant::now()));
        }
        if !connections.is_swept {
            connections.is_swept = true;
            tokio::spawn(sweep(Arc::downgrade(&self.0)));
        }
    }
}

/// Nobody reads a connection while it waits, so nobody sees it end: an app that closes its idle ones would leave us with
/// them. Ends when none is left.
async fn sweep(connections: Weak<Mutex<Connections>>) {
    loop {
        tokio::time::sleep(SWEEP_INTERVAL).await;
        let Some(connections) = connections.upgrade() else {
            return;
        };
        let mut connections = lock(&connections);
        connections
            .http1
            .retain(|(idle, since)| since.elapsed() < HTTP1_IDLE_TIME && idle.is_idle());
        if connections.http1.is_empty() {
            connections.is_swept = false;
            return;
        }
    }
}

fn lock(connections: &Mutex<Connections>) -> MutexGuard<'_, Connections> {
    connections.lock().expect("no panic while locked")
}

impl Connections {
    fn remove(&mut self, streams: &Arc<Streams>) {
        self.http2
            .retain(|connection| !Arc::ptr_eq(&connection.streams, streams));
    }

    /// Leaves a connection on which nobody answers. What is still open there goes on.
    fn retire(&mut self) {
        let is_silent = |connection: &Http2| {
            connection.streams.unanswered.load(Ordering::Relaxed) >= UNANSWERED_MAX
        };
        let Some(silent) = self.http2.iter().position(is_silent) else {
            return;
        };
        let now = Instant::now();
        if (self.retired)
            .is_none_or(|retired| now.saturating_duration_since(retired) >= RETIRE_EVERY)
        {
            self.http2.swap_remove(silent);
            self.retired = Some(now);
        }
    }

    fn roomy(&mut self) -> Option<(SendRequest<Bytes>, StreamSlot)> {
        self.retire();
        let emptiest = self
            .http2
            .iter()
            .min_by_key(|connection| connection.streams.open.load(Ordering::Relaxed))?;
        let streams = &emptiest.streams;
        if streams.open.load(Ordering::Relaxed) >= streams.allowed.load(Ordering::Relaxed) {
            return None;
        }
        streams.open.fetch_add(1, Ordering::Relaxed);
        let slot = StreamSlot {
            streams: streams.clone(),
            answered: false,
        };
        Some((emptiest.sender.clone(), slot))
    }
}

async fn connect_http2(
    connector: &Connector,
    address: SocketAddr,
    identity: Option<&SpiffeId>,
) -> Result<
    (
        SendRequest<Bytes>,
        Arc<Streams>,
        impl Future<Output = ()> + Send + use<>,
    ),
    ConnectError,
> {
    let stream = connector.connect(address, identity, alpn::HTTP2).await?;
    let handshake = h2::client::Builder::new()
        .enable_push(false)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buffer_size(SEND_BUFFER)
        .max_header_list_size(HEADER_LIST_MAX)
        .initial_max_send_streams(INITIAL_STREAMS)
        .handshake(Gather::new(stream))
        .await;
    let (sender, mut connection) = handshake.map_err(|error| ConnectError::Io {
        address,
        reason: error.to_string(),
    })?;
    let streams = Arc::new(Streams::new(INITIAL_STREAMS));
    let shared = streams.clone();
    let pings = connection.ping_pong().expect("it is taken once");
    let driver = async move {
        let is_awaited = || shared.open.load(Ordering::Relaxed) > 0;
        let mut silence = pin!(silence(pings, is_awaited));
        let mut connection = pin!(connection);
        std::future::poll_fn(|cx| {
            // A peer that does not answer takes its streams with it.
            if silence.as_mut().poll(cx).is_ready() {
                return Poll::Ready(());
            }
            let polled = connection.as_mut().poll(cx);
            // Without this, a request at the peer's limit would wait inside h2, where no deadline and no other
            // connection helps it (hyper#3623).
            shared.allowed.store(
                connection.as_ref().max_concurrent_send_streams(),
                Ordering::Relaxed,
            );
            // How it ended, each of its streams is told.
            polled.map(drop)
        })
        .await;
    };
    Ok((sender, streams, driver))
}

#[cfg(test)]
mod tests;
